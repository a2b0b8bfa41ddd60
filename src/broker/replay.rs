//! Starting from a log: each record does again what it tells of.

use std::collections::VecDeque;

use super::Shared;
use super::restorer::Restorer;
use super::ring::{Entry, Lost};
use crate::position::EventId;
use crate::record::Record;

/// So many events may stand in a log between one and the word that it was handed to whoever was parked.
const RECENT: usize = 4096;
/// And so many bytes of them.
const RECENT_BYTES: usize = 4 << 20;

/// How far a log has been read.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) restorer: Restorer,
    recent: Recent,
}

/// The events read last, which are not yet in their rings.
#[derive(Default)]
struct Recent {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Recent {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.event.as_json().len();
        self.entries.push_back(entry);
    }

    fn is_over(&self) -> bool {
        self.entries.len() > RECENT || self.bytes > RECENT_BYTES
    }

    /// The oldest, if its sequence number is not beyond this.
    fn pop(&mut self, last: u64) -> Option<Entry> {
        if self.entries.front()?.sequence > last {
            return None;
        }
        let oldest = self.entries.pop_front()?;
        self.bytes -= oldest.event.as_json().len();
        Some(oldest)
    }

    /// True where it was there.
    fn remove(&mut self, id: EventId) -> bool {
        let found = self
            .entries
            .iter()
            .rposition(|entry| entry.event.id() == id);
        let removed = found.and_then(|at| self.entries.remove(at));
        if let Some(removed) = &removed {
            self.bytes -= removed.event.as_json().len();
        }
        removed.is_some()
    }
}

impl Shared {
    pub(super) fn replay(&self, replay: &mut Replay, record: Record) {
        let restorer = &mut replay.restorer;
        match record {
            Record::Started {
                position,
                acknowledges,
            } => restorer.start(position, acknowledges),
            Record::Published { sequence, event } => {
                let entry = restorer.place(sequence, event);
                if self.options.delete_after_first_retrieval {
                    self.wait_for_word(&mut replay.recent, entry);
                } else {
                    self.keep(entry);
                }
            }
            Record::Taken {
                category,
                seen,
                ids,
            } => self.forget(&mut replay.recent, &category, seen, &ids),
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
    pub(super) fn settle_restored(&self, replay: &mut Replay) {
        self.keep_seen(&mut replay.recent, u64::MAX);
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

    /// Leaves an event out of its ring until the log says that others could be seen after it, or for as long as can be.
    fn wait_for_word(&self, recent: &mut Recent, entry: Entry) {
        recent.push(entry);
        while recent.is_over()
            && let Some(oldest) = recent.pop(u64::MAX)
        {
            self.keep(oldest);
        }
    }

    /// Puts the events into their rings that could be seen when this was the newest.
    fn keep_seen(&self, recent: &mut Recent, last: u64) {
        while let Some(oldest) = recent.pop(last) {
            self.keep(oldest);
        }
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
    fn forget(&self, recent: &mut Recent, category: &str, seen: EventId, ids: &[EventId]) {
        let seen = seen.parts().map_or(u64::MAX, |(_, sequence)| sequence);
        self.keep_seen(recent, seen);
        // Those that were handed to whoever was parked.
        let mut held = ids.to_vec();
        held.retain(|id| !recent.remove(*id));
        if held.is_empty() {
            return;
        }
        let Some(category) = self.catalog.get(category) else {
            return;
        };
        let Some(mut state) = category.lock() else {
            return;
        };
        let removed = self.remove(&mut state.ring, |ring| ring.remove(&held));
        self.counters.removed(removed);
        let unused = state.is_unused();
        drop(state);
        if unused {
            self.catalog.remove_unused(&category);
        }
    }
}
