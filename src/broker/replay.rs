//! Starting from a log: the broker applies each record in turn.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shared;
use super::evict::ExpiredEvents;
use super::open_batch::{OpenBatch, Read};
use super::restored_key::{OpenKey, RestoredKey};
use super::restorer::Restorer;
use super::ring::{Entry, plausible};
use super::statistics::Removal;
use crate::event::{Draft, Event};
use crate::position::EventId;
use crate::store::{Loss, Record};

/// The most records of a log between an event and the record that parked subscribers retrieved it.
const MAX_PENDING: usize = 4096;
/// The most bytes of these records.
const MAX_PENDING_BYTES: usize = 4 << 20;

/// The state of reading a log.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) restorer: Restorer,
    batch: Option<OpenBatch>,
    /// The key whose events follow. The events of a publish come directly after its key, so there is one at most.
    key: Option<OpenKey>,
    pending: Pending,
    expired: ExpiredEvents,
    /// The losses of categories, in the order of the log. They take effect at the end: a category without events leaves the
    /// catalog, and the table of losses may not have its salt before.
    losses: Vec<(Arc<str>, Loss)>,
    /// Events that are in the log twice, or out of order.
    out_of_place: u64,
    /// Records with impossible numbers.
    impossible: u64,
}

/// The newest changes, which are not applied yet, in the order in which subscribers saw them.
#[derive(Default)]
struct Pending {
    changes: VecDeque<Change>,
    bytes: usize,
    /// The sequence number of the event that was read last.
    newest: u64,
}

enum Change {
    Published(Entry),
    Retrieved(Arc<str>, Vec<EventId>),
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Change::Published(entry) => entry.event.as_json().len(),
            Change::Retrieved(_, ids) => size_of_val(&ids[..]),
        }
    }

    fn publishes(&self, id: EventId) -> bool {
        matches!(self, Change::Published(entry) if entry.event.id() == id)
    }
}

impl Pending {
    fn is_full(&self) -> bool {
        self.changes.len() > MAX_PENDING || self.bytes > MAX_PENDING_BYTES
    }

    fn insert(&mut self, index: usize, change: Change) {
        self.bytes += change.bytes();
        self.changes.insert(index, change);
    }

    fn remove(&mut self, index: usize) -> Option<Change> {
        let removed = self.changes.remove(index)?;
        self.bytes -= removed.bytes();
        Some(removed)
    }

    fn published(&mut self, entry: Entry) {
        self.newest = entry.sequence;
        self.insert(self.changes.len(), Change::Published(entry));
    }

    /// Inserts a retrieval before the events that were not visible then. It removes those of them that parked subscribers
    /// retrieved: these never were in their ring, and have pushed out no other.
    fn retrieved(&mut self, category: Arc<str>, visible: u64, mut ids: Vec<EventId>) {
        let mut index = self.changes.len();
        if visible < self.newest {
            index = self.first_after(visible);
            ids.retain(|id| {
                let mut later = self.changes.range(index..);
                let published = later.position(|change| change.publishes(*id));
                let removed = published.and_then(|offset| self.remove(index + offset));
                removed.is_none()
            });
        }
        if !ids.is_empty() {
            self.insert(index, Change::Retrieved(category, ids));
        }
    }

    /// Returns the index of the first event that became visible after the event with this sequence number.
    fn first_after(&self, visible: u64) -> usize {
        let mut first = self.changes.len();
        for (index, change) in self.changes.iter().enumerate().rev() {
            match change {
                Change::Published(entry) if entry.sequence <= visible => break,
                Change::Published(_) => first = index,
                Change::Retrieved(..) => {}
            }
        }
        first
    }
}

impl Shared {
    /// Applies the next record of a log.
    pub(super) fn replay(&self, replay: &mut Replay, record: Record) {
        // Also within a batch, which takes a damaged record for an event.
        let record = match replay.restorer.is_possible(&record) {
            true => record,
            false => {
                replay.impossible += 1;
                Record::Damaged
            }
        };
        let mut next = Some(record);
        while let Some(record) = next.take() {
            let Some(batch) = &mut replay.batch else {
                return self.replay_record(replay, record);
            };
            match batch.read(record) {
                Read::Held => {}
                Read::Passed(record) => self.replay_record(replay, record),
                Read::Ended(held, after) => {
                    replay.batch = None;
                    self.replay_batch(replay, held);
                    next = after;
                }
            }
        }
    }

    /// Applies the events of a batch, and what is damaged between them.
    fn replay_batch(&self, replay: &mut Replay, records: Vec<Record>) {
        let mut entries = Vec::new();
        for record in records {
            match record {
                Record::Published { sequence, event } => {
                    entries.extend(self.place(replay, sequence, event));
                }
                record => self.replay_record(replay, record),
            }
        }
        let last = entries.last().map_or(0, |last| last.sequence);
        for mut entry in entries {
            entry.more = u16::try_from(last - entry.sequence).unwrap_or(0);
            replay.pending.published(entry);
        }
        self.apply(replay, false);
    }

    /// Gives an event of the log its place. `None` if it has none.
    fn place(&self, replay: &mut Replay, sequence: u64, event: Event) -> Option<Entry> {
        match replay.restorer.place(sequence, event) {
            Some(mut entry) => {
                entry.published = self.age.restored(entry.time());
                self.replay_keyed(replay, &entry.event);
                Some(entry)
            }
            None => {
                replay.out_of_place += 1;
                None
            }
        }
    }

    /// Reads an event that may have a key, which takes effect with its last event.
    fn replay_keyed(&self, replay: &mut Replay, event: &Event) {
        let compacted_to = replay.restorer.compacted_to();
        if let Some(open) = &mut replay.key
            && open.read(event, compacted_to)
            && let Some(key) = replay.key.take().and_then(|open| open.finish(compacted_to))
        {
            self.restore_key(&key);
        }
    }

    fn restore_key(&self, key: &RestoredKey) {
        let added = self.age.restored(plausible(key.timestamp));
        self.keys.restore(key, added, self.age.now());
    }

    fn replay_record(&self, replay: &mut Replay, record: Record) {
        let restorer = &mut replay.restorer;
        match record {
            Record::Started {
                position,
                acknowledges,
            } => restorer.start(position, acknowledges),
            Record::Published { sequence, event } => {
                if let Some(entry) = self.place(replay, sequence, event) {
                    replay.pending.published(entry);
                    self.apply(replay, false);
                }
            }
            Record::Purged {
                category,
                position,
                timestamp,
            } => {
                let purge = Draft::purge(category).map(|draft| draft.stamp(timestamp, position));
                if let Ok(purge) = purge
                    && let Some(entry) = self.place(replay, 0, purge)
                {
                    replay.pending.published(entry);
                    self.apply(replay, false);
                }
            }
            Record::Batch(last) => replay.batch = Some(OpenBatch::new(last)),
            Record::Keyed {
                key,
                fingerprint,
                last,
                count,
                timestamp,
            } => {
                let key = RestoredKey {
                    key,
                    fingerprint,
                    last,
                    count,
                    timestamp,
                };
                let number = last.sequence().unwrap_or(u64::MAX);
                match number <= restorer.compacted_to() {
                    true => self.restore_key(&key),
                    false => replay.key = Some(OpenKey::new(key)),
                }
            }
            Record::Taken {
                category,
                seen,
                ids,
            } => {
                let visible = seen.sequence().unwrap_or(u64::MAX);
                replay.pending.retrieved(category, visible, ids);
                self.apply(replay, false);
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
                    replay.losses.push((category, lost));
                }
            }
            Record::LossTable(table) => self.catalog.restore_losses(&table),
        }
    }

    /// Completes the start after the last record.
    pub(super) fn finish_replay(&self, replay: &mut Replay) {
        if let Some(mut batch) = replay.batch.take() {
            self.replay_batch(replay, batch.damage());
        }
        self.apply(replay, true);
        if replay.out_of_place > 0 {
            log::warn!(
                "{} events of the log are left out, since they are in it twice or out of order",
                replay.out_of_place
            );
        }
        if replay.impossible > 0 {
            log::warn!(
                "{} records of the log count as damaged, since they have an impossible sequence number or run",
                replay.impossible
            );
        }
        for (name, lost) in replay.losses.drain(..) {
            self.catalog.with(&name, |category| {
                category.ring.lost = category.ring.lost.max(lost)
            });
        }
        let max_sequence = replay.restorer.max_sequence();
        self.catalog.for_each(|category| {
            category.ring.sort_by_time();
            // A loss past the last number would be a gap in every answer.
            let lost = &mut category.ring.lost.sequence;
            *lost = max_sequence.min(*lost);
        });
    }

    /// Applies pending changes until few are left, or all of them: none has to wait if retrievals delete nothing.
    fn apply(&self, replay: &mut Replay, all: bool) {
        let Replay {
            pending, expired, ..
        } = replay;
        let all = all || !self.options.delete_after_first_retrieval;
        while (all || pending.is_full())
            && let Some(oldest) = pending.remove(0)
        {
            match oldest {
                Change::Published(entry) => {
                    let last = entry.sequence + u64::from(entry.more);
                    let mut together = vec![entry];
                    while let Some(Change::Published(next)) = pending.changes.front()
                        && next.sequence <= last
                        && let Some(Change::Published(next)) = pending.remove(0)
                    {
                        together.push(next);
                    }
                    self.restore_events(together, expired);
                }
                Change::Retrieved(category, ids) => {
                    self.catalog.with_existing(&category, |category| {
                        let removed = category.ring.retrieve_ids(&ids);
                        self.counters.removed(removed, Removal::Retrieved);
                    });
                }
            }
        }
    }

    /// Adds the events of one publish to their rings. Other events are evicted by the times of these events, not of the start:
    /// otherwise events that subscribers retrieved later would count as lost.
    fn restore_events(&self, entries: Vec<Entry>, expired: &mut ExpiredEvents) {
        let mut published = Vec::with_capacity(entries.len());
        for mut entry in entries {
            let name = entry.event.shared_category().clone();
            // A purge evicts nothing.
            published.extend((!entry.event.is_purge()).then_some(entry.published));
            self.catalog.with(&name, |category| {
                entry.event.share_category(category.name());
                self.push(category, entry);
            });
        }
        for published in published {
            self.evict_again(published, expired);
        }
    }
}
