//! Starting from a log: each record does again what it tells of.

use super::Shared;
use super::ring::{Entry, Lost};
use super::sequencer::Restorer;
use crate::position::EventId;
use crate::record::Record;

/// So many events may stand in a log between one and the word that it was handed to whoever was parked.
const RECENT: usize = 256;

impl Shared {
    pub(super) fn replay(&self, restorer: &mut Restorer, record: Record) {
        match record {
            Record::Started {
                position,
                acknowledges,
            } => restorer.start(position, acknowledges),
            Record::Published { sequence, event } => {
                let entry = restorer.place(sequence, event);
                restorer.recent.push_back(entry);
                let most = if self.options.delete_after_first_retrieval {
                    RECENT
                } else {
                    0
                };
                self.keep_recent(restorer, most);
            }
            Record::Taken { category, ids } => self.forget(restorer, &category, &ids),
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
    pub(super) fn settle_restored(&self, restorer: &mut Restorer) {
        self.keep_recent(restorer, 0);
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

    /// Puts the events into their rings that were published last, all but the last few.
    fn keep_recent(&self, restorer: &mut Restorer, all_but: usize) {
        let surplus = restorer.recent.len().saturating_sub(all_but);
        restorer
            .recent
            .drain(..surplus)
            .for_each(|entry| self.keep(entry));
    }

    /// What expired or was evicted in the meantime did so by the time of the event, not of this start: else what was
    /// handed out afterwards would count as lost.
    fn keep(&self, mut entry: Entry) {
        let name = entry.event.shared_category().clone();
        let now = entry.event.timestamp();
        self.catalog.with(&name, |category, state| {
            entry.event.share_category(category.name());
            self.push(state, entry);
        });
        if self.is_over() {
            self.evict(now);
        }
    }

    /// Lets go of events that an earlier run has handed out for good.
    fn forget(&self, restorer: &mut Restorer, category: &str, ids: &[EventId]) {
        // One that was handed to whoever was parked never was in its ring, and has pushed out no other.
        let delivered = |entry: &Entry| *ids == [entry.event.id()];
        if let Some(at) = restorer.recent.iter().rposition(delivered) {
            restorer.recent.remove(at);
            return;
        }
        self.keep_recent(restorer, 0);
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
