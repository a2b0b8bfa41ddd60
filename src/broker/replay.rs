//! Starting from a log: each record does again what it tells of.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shared;
use super::restorer::Restorer;
use super::ring::{Entry, plausible};
use crate::position::EventId;
use crate::store::{Loss, Record};

/// So many records may stand in a log between an event and the word that it was handed to whoever was parked.
const RECENT: usize = 4096;
/// And so many bytes of them.
const RECENT_BYTES: usize = 4 << 20;

/// How far a log has been read.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) restorer: Restorer,
    recent: Recent,
    /// Events that stand twice in the log, or out of their place.
    out_of_place: u64,
    /// Records whose numbers can't be true.
    impossible: u64,
}

/// What was read last and is not done yet, in the order in which subscribers saw it.
#[derive(Default)]
struct Recent {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// The sequence number of the event that was read last.
    newest: u64,
}

enum Waiting {
    Published(Entry),
    Taken(Arc<str>, Vec<EventId>),
}

impl Waiting {
    fn bytes(&self) -> usize {
        match self {
            Waiting::Published(entry) => entry.event.as_json().len(),
            Waiting::Taken(_, ids) => size_of_val(&ids[..]),
        }
    }

    fn is(&self, id: EventId) -> bool {
        matches!(self, Waiting::Published(entry) if entry.event.id() == id)
    }
}

impl Recent {
    fn is_over(&self) -> bool {
        self.waiting.len() > RECENT || self.bytes > RECENT_BYTES
    }

    fn insert(&mut self, at: usize, waiting: Waiting) {
        self.bytes += waiting.bytes();
        self.waiting.insert(at, waiting);
    }

    fn remove(&mut self, at: usize) -> Option<Waiting> {
        let removed = self.waiting.remove(at)?;
        self.bytes -= removed.bytes();
        Some(removed)
    }

    fn published(&mut self, entry: Entry) {
        self.newest = entry.sequence;
        self.insert(self.waiting.len(), Waiting::Published(entry));
    }

    /// A retrieval comes before the events that could not be seen yet. Of these, it had those that were handed to whoever
    /// was parked: they never were in their ring, and have pushed out no other.
    fn taken(&mut self, category: Arc<str>, seen: u64, mut ids: Vec<EventId>) {
        let mut at = self.waiting.len();
        if seen < self.newest {
            at = self.first_after(seen);
            ids.retain(|id| {
                let mut later = self.waiting.range(at..);
                let handed = later.position(|waiting| waiting.is(*id));
                handed.and_then(|ahead| self.remove(at + ahead)).is_none()
            });
        }
        if !ids.is_empty() {
            self.insert(at, Waiting::Taken(category, ids));
        }
    }

    /// Where the first event stands that came to be seen after this.
    fn first_after(&self, seen: u64) -> usize {
        let mut first = self.waiting.len();
        for (at, waiting) in self.waiting.iter().enumerate().rev() {
            match waiting {
                Waiting::Published(entry) if entry.sequence <= seen => break,
                Waiting::Published(_) => first = at,
                Waiting::Taken(..) => {}
            }
        }
        first
    }
}

impl Shared {
    pub(super) fn replay(&self, replay: &mut Replay, record: Record) {
        let restorer = &mut replay.restorer;
        let record = match restorer.is_possible(&record) {
            true => record,
            false => {
                replay.impossible += 1;
                Record::Damaged
            }
        };
        match record {
            Record::Started {
                position,
                acknowledges,
            } => restorer.start(position, acknowledges),
            Record::Published { sequence, event } => {
                if let Some(mut entry) = restorer.place(sequence, event) {
                    entry.published = self.age.restored(entry.time());
                    replay.recent.published(entry);
                    self.do_recent(&mut replay.recent, false);
                } else {
                    replay.out_of_place += 1;
                }
            }
            Record::Taken {
                category,
                seen,
                ids,
            } => {
                let seen = seen.parts().map_or(u64::MAX, |(_, sequence)| sequence);
                replay.recent.taken(category, seen, ids);
                self.do_recent(&mut replay.recent, false);
            }
            Record::Refused(id) => restorer.refuse(id),
            Record::Ended(id) => restorer.end(id),
            Record::Damaged => restorer.damaged(),
            Record::Torn => restorer.torn(),
            Record::Compacted {
                position,
                timestamp,
            } => restorer.compacted(position, plausible(timestamp)),
            Record::Lost {
                category,
                sequence,
                timestamp,
            } => {
                let lost = Loss {
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
            Record::LossTable(table) => self.catalog.restore_losses(&table),
        }
    }

    /// After the last record.
    pub(super) fn settle_restored(&self, replay: &mut Replay) {
        self.do_recent(&mut replay.recent, true);
        if replay.out_of_place > 0 {
            log::warn!(
                "{} events stand twice in the log, or out of their place, and are left out",
                replay.out_of_place
            );
        }
        if replay.impossible > 0 {
            log::warn!(
                "{} records of the log have a sequence number or a run that can't be true; they count as damaged",
                replay.impossible
            );
        }
        for category in self.catalog.all() {
            let Some(mut state) = category.lock() else {
                continue;
            };
            state.ring.sort_by_time();
            // A loss past the last number would be a gap in every answer.
            let lost = &mut state.ring.lost.sequence;
            *lost = replay.restorer.most().min(*lost);
            let unused = state.is_unused();
            drop(state);
            if unused {
                self.catalog.remove_unused(&category);
            }
        }
    }

    /// Does what waits, but for the newest; or all of it, as nothing has to wait where nothing is deleted.
    fn do_recent(&self, recent: &mut Recent, all: bool) {
        let all = all || !self.options.delete_after_first_retrieval;
        while (all || recent.is_over())
            && let Some(oldest) = recent.remove(0)
        {
            match oldest {
                Waiting::Published(entry) => self.keep(entry),
                Waiting::Taken(category, ids) => self.forget(&category, &ids),
            }
        }
    }

    /// What expired or was evicted in the meantime did so by the time of the event, not of this start: else what was
    /// handed out afterwards would count as lost.
    fn keep(&self, mut entry: Entry) {
        let name = entry.event.shared_category().clone();
        let now = entry.published;
        self.catalog.with(&name, |category, state| {
            entry.event.share_category(category.name());
            self.push(state, entry);
        });
        if self.is_over() {
            self.evict(now);
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
