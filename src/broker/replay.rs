//! Starting from a log: each record does again what it tells of.

use super::Shared;
use super::ring::{Entry, Lost};
use super::sequencer::Restorer;
use crate::position::EventId;
use crate::record::Record;

impl Shared {
    pub(super) fn replay(&self, restorer: &mut Restorer, record: Record) {
        match record {
            Record::Started(id) => restorer.start(id),
            Record::Published { sequence, event } => self.keep(restorer.place(sequence, event)),
            Record::Taken { category, ids } => self.forget(&category, &ids),
            Record::Refused(id) => restorer.refuse(id),
            Record::Ended(id) => restorer.end(id),
            Record::Damaged => restorer.damaged(),
            Record::Compacted(id) => restorer.compacted(id),
            Record::Lost {
                category,
                sequence,
                timestamp,
            } => {
                let lost = Lost {
                    sequence,
                    timestamp,
                };
                if category.is_empty() {
                    restorer.lost(lost);
                } else {
                    self.catalog.with(&category, |_, state| {
                        state.ring.lost = state.ring.lost.max(lost)
                    });
                }
            }
            Record::Forgotten(forgotten) => self.catalog.remember(&forgotten),
        }
    }

    /// After the last record.
    pub(super) fn settle_restored(&self) {
        for category in self.catalog.all() {
            let Some(mut state) = category.lock() else {
                continue;
            };
            state.ring.sort_by_time();
            let unused = state.is_unused();
            drop(state);
            if unused {
                self.catalog.remove_unused(&category);
            }
        }
    }

    fn keep(&self, mut entry: Entry) {
        let name = entry.event.shared_category().clone();
        self.catalog.with(&name, |category, state| {
            entry.event.share_category(category.name());
            self.push(state, entry);
        });
        if self.is_over() {
            self.evict();
        }
    }

    /// Lets go of events that an earlier run has handed out for good.
    fn forget(&self, category: &str, ids: &[EventId]) {
        let Some(category) = self.catalog.get(category) else {
            return;
        };
        let Some(mut state) = category.lock() else {
            return;
        };
        let removed = self.remove(&mut state.ring, |ring| ring.remove(ids));
        self.counters.removed(removed);
        let unused = state.is_unused();
        drop(state);
        if unused {
            self.catalog.remove_unused(&category);
        }
    }
}
