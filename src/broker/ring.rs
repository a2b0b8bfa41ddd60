//! [`Ring`]: the newest events of one category, and the newest of those that it lost.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ops::Range;

use super::category_options::RingLimits;
use crate::event::Event;
use crate::position::EventId;
use crate::store::Loss;

/// An event with its place in the publish order of the whole broker.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    /// When it was published, by the broker's [`Age`](super::clock::Age), which decides when it expires. 0 if no event of
    /// the broker expires.
    pub(crate) published: u64,
    /// How many events that were published together with it follow it.
    pub(crate) more: u16,
    pub(crate) event: Event,
}

impl Entry {
    /// Returns the timestamp that orders the event.
    pub(crate) fn time(&self) -> u64 {
        plausible(self.event.timestamp())
    }
}

/// The greatest timestamp that a JSON number holds exactly in every language, in the year 287396.
const MAX_TIMESTAMP: u64 = 1 << 53;

/// Returns the timestamp that orders an event of a log. A timestamp that leaves no room for greater ones counts as one
/// that is far in the future, and new timestamps follow that.
pub(crate) fn plausible(timestamp: u64) -> u64 {
    if timestamp > MAX_TIMESTAMP {
        MAX_TIMESTAMP / 2
    } else {
        timestamp
    }
}

/// A poll with this `since_time` or less asks for every event that is buffered, whatever its timestamp: the tests of the
/// Go package poll with 1 for that.
const EVERYTHING: u64 = 1;

/// Where a poll starts once its cursor is resolved: strictly after this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Oldest,
    Sequence(u64),
    Time(u64),
}

impl Place {
    /// Returns `true` if a follower at this place misses an event that `loss` covers.
    pub(crate) fn misses(self, loss: Loss) -> bool {
        match self {
            Place::Oldest => false,
            Place::Sequence(sequence) => loss.sequence > sequence,
            Place::Time(timestamp) => {
                loss.sequence > 0 && (timestamp <= EVERYTHING || loss.timestamp > timestamp)
            }
        }
    }

    fn is_before(self, entry: &Entry) -> bool {
        match self {
            Place::Oldest => true,
            Place::Sequence(sequence) => entry.sequence > sequence,
            Place::Time(timestamp) => timestamp <= EVERYTHING || entry.time() > timestamp,
        }
    }
}

/// What a call removed from a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) events: usize,
    /// Bytes of JSON.
    pub(crate) bytes: usize,
    /// No event is left in the ring.
    pub(crate) emptied: bool,
}

impl Removed {
    fn and(self, other: Removed) -> Removed {
        Removed {
            events: self.events + other.events,
            bytes: self.bytes + other.bytes,
            emptied: self.emptied || other.emptied,
        }
    }

    fn add(&mut self, entry: &Entry) {
        self.events += 1;
        self.bytes += entry.event.as_json().len();
    }
}

/// The events of a category, oldest first. Both sequence numbers and timestamps ascend.
///
/// An event *expires* at its publish time plus the shorter of two times to live, the category's and its own, and has expired
/// at every later time. Events that have the category's time to live expire in publish order; an event with a shorter one
/// may expire before older events, and is then removed from between them.
///
/// Each method that removes events returns what it removed, for the [`Counters`](super::statistics::Counters).
pub(crate) struct Ring {
    entries: VecDeque<Entry>,
    /// Bytes of JSON of all events.
    bytes: usize,
    limits: RingLimits,
    /// Of each event with a time to live of its own that is shorter than the category's: when it expires, and its sequence
    /// number.
    deadlines: BTreeSet<(u64, u64)>,
    /// The newest event that was lost.
    pub(crate) lost: Loss,
}

impl RingLimits {
    /// Returns when an event expires.
    fn expiry(self, entry: &Entry) -> u64 {
        let own = entry.event.own_ttl().unwrap_or(RingLimits::NEVER);
        entry.published.saturating_add(own.min(self.ttl))
    }

    /// Returns the element of [`Ring::deadlines`] for an event, if it has one.
    fn deadline(self, entry: &Entry) -> Option<(u64, u64)> {
        let own = entry.event.own_ttl().filter(|own| *own < self.ttl);
        own.map(|_| (self.expiry(entry), entry.sequence))
    }
}

impl Ring {
    pub(crate) fn new(limits: RingLimits, lost: Loss) -> Self {
        Ring {
            entries: VecDeque::new(),
            bytes: 0,
            limits,
            deadlines: BTreeSet::new(),
            lost,
        }
    }

    /// Returns `true` if an event of the ring can expire.
    pub(crate) fn can_expire(&self) -> bool {
        self.limits.ttl != RingLimits::NEVER || !self.deadlines.is_empty()
    }

    /// Returns when the first of the events expires whose own time to live is shorter than the category's.
    pub(crate) fn first_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(expiry, _)| *expiry)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Returns the bytes of JSON of all events.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn newest(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// Appends an event. If the ring then holds more events than it may, it loses one: the one that expired first before
    /// this event was published, or else the oldest.
    ///
    /// A purge is not appended; see [`purge`](Ring::purge).
    ///
    /// So the ring holds the same events whether or not those that had expired were removed before: the broker removes them
    /// when a poll or a sweep finds them, which a log does not say.
    pub(crate) fn push(&mut self, entry: Entry) -> Removed {
        let published = entry.published;
        self.deadlines.extend(self.limits.deadline(&entry));
        self.bytes += entry.event.as_json().len();
        self.entries.push_back(entry);
        if self.entries.len() <= self.limits.events {
            return Removed::default();
        }
        let oldest = self.entries.front();
        let oldest = oldest.map(|oldest| (self.limits.expiry(oldest), oldest.sequence));
        match self.deadlines.first() {
            Some(first) if first.0 < published && Some(*first) < oldest => {
                let sequence = first.1;
                self.lose_one(sequence)
            }
            _ => self.lose(1),
        }
    }

    /// Counts the oldest events whose publish time and the category's time to live say that they have expired by `now`, a
    /// time of the broker's [`Age`](super::clock::Age).
    fn expired_oldest(&self, now: u64) -> usize {
        let ttl = self.limits.ttl;
        let oldest = self.entries.iter();
        let expired = oldest.take_while(|entry| entry.published.saturating_add(ttl) < now);
        expired.count()
    }

    /// Returns when they expired and the sequence numbers of the events that have expired by `now`, in any order. One may
    /// occur twice.
    pub(crate) fn expired(&self, now: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let oldest = self.entries.range(..self.expired_oldest(now));
        let oldest = oldest.map(|entry| (self.limits.expiry(entry), entry.sequence));
        let own = self.deadlines.iter().copied();
        oldest.chain(own.take_while(move |(expiry, _)| *expiry < now))
    }

    /// Loses the events that have expired by `now`.
    pub(crate) fn expire(&mut self, now: u64) -> Removed {
        let mut expired = self.lose(self.expired_oldest(now));
        while self.first_deadline().is_some_and(|expiry| expiry < now)
            && let Some((_, sequence)) = self.deadlines.pop_first()
        {
            expired = expired.and(self.lose_one(sequence));
        }
        expired
    }

    /// Loses the event with this sequence number, if the ring has it.
    pub(crate) fn lose_one(&mut self, sequence: u64) -> Removed {
        let at = self.up_to(sequence - 1).len();
        let has = self.entries.get(at).map(|entry| entry.sequence) == Some(sequence);
        self.lose_range(at..at + usize::from(has))
    }

    /// Loses the `count` oldest events.
    pub(crate) fn lose(&mut self, count: usize) -> Removed {
        self.lose_range(0..count)
    }

    fn lose_range(&mut self, range: Range<usize>) -> Removed {
        // All of them: while a log is read, timestamps may not ascend yet.
        for entry in self.entries.range(range.clone()) {
            self.lost = self.lost.max(Loss {
                sequence: entry.sequence,
                timestamp: entry.time(),
            });
        }
        self.remove_range(range)
    }

    /// Loses all events by a purge, which is itself the newest loss: every follower that was there before it gets a gap.
    pub(crate) fn purge(&mut self, purge: &Entry) -> Removed {
        let removed = self.lose_all();
        self.lost = self.lost.max(Loss {
            sequence: purge.sequence,
            timestamp: purge.time(),
        });
        removed
    }

    pub(crate) fn lose_all(&mut self) -> Removed {
        self.lose(self.entries.len())
    }

    /// Loses as few of the oldest events as have `bytes` bytes of JSON together, but none of the `kept` newest.
    pub(crate) fn lose_bytes(&mut self, bytes: usize, kept: usize) -> Removed {
        let mut missing = bytes;
        let enough = self.entries.iter().take_while(|entry| {
            let needed = missing > 0;
            missing = missing.saturating_sub(entry.event.as_json().len());
            needed
        });
        let count = enough.count().min(self.entries.len().saturating_sub(kept));
        self.lose(count)
    }

    /// The events up to this sequence number.
    pub(crate) fn up_to(&self, sequence: u64) -> impl ExactSizeIterator<Item = &Entry> {
        let end = self
            .entries
            .partition_point(|entry| entry.sequence <= sequence);
        self.entries.range(..end)
    }

    fn remove_range(&mut self, range: Range<usize>) -> Removed {
        let mut removed = Removed::default();
        for entry in self.entries.drain(range) {
            removed.add(&entry);
            if let Some(deadline) = self.limits.deadline(&entry) {
                self.deadlines.remove(&deadline);
            }
        }
        self.shrink(removed)
    }

    /// Counts events that were removed, and frees their memory.
    fn shrink(&mut self, removed: Removed) -> Removed {
        self.bytes -= removed.bytes;
        let count = self.entries.len();
        if count == 0 {
            self.entries = VecDeque::new();
        } else if self.entries.capacity() > 4 * count {
            self.entries.shrink_to(2 * count);
        }
        Removed {
            emptied: removed.events > 0 && count == 0,
            ..removed
        }
    }

    /// The events after `place`.
    pub(crate) fn after(&self, place: Place) -> impl Iterator<Item = &Entry> + Clone {
        self.entries.range(self.start(place)..)
    }

    /// The events with this timestamp.
    pub(crate) fn at(&self, time: u64) -> impl Iterator<Item = &Entry> {
        let start = self.entries.partition_point(|entry| entry.time() < time);
        let rest = self.entries.range(start..);
        rest.take_while(move |entry| entry.time() == time)
    }

    fn start(&self, place: Place) -> usize {
        self.entries
            .partition_point(|entry| !place.is_before(entry))
    }

    /// Removes the events after `place`, up to this sequence number, which are not lost: a subscriber retrieves them.
    pub(crate) fn retrieve(&mut self, place: Place, last: u64) -> Removed {
        let end = self.entries.partition_point(|entry| entry.sequence <= last);
        let start = self.start(place).min(end);
        self.remove_range(start..end)
    }

    /// Removes these events, which are not lost: a subscriber retrieved them in an earlier run.
    pub(crate) fn retrieve_ids(&mut self, ids: &[EventId]) -> Removed {
        let mut removed = Removed::default();
        let mut wanted: HashSet<EventId> = ids.iter().copied().collect();
        let mut kept = Vec::new();
        // Most often these are the oldest.
        while !wanted.is_empty()
            && let Some(entry) = self.entries.pop_front()
        {
            if wanted.remove(&entry.event.id()) {
                removed.add(&entry);
                if let Some(deadline) = self.limits.deadline(&entry) {
                    self.deadlines.remove(&deadline);
                }
            } else {
                kept.push(entry);
            }
        }
        for entry in kept.into_iter().rev() {
            self.entries.push_front(entry);
        }
        self.shrink(removed)
    }

    /// Returns the sequence number of the event with this id. Searches from the newest on, since a follower most often has
    /// the id of a recent event.
    pub(crate) fn find(&self, id: EventId) -> Option<u64> {
        let found = self
            .entries
            .iter()
            .rev()
            .find(|entry| entry.event.id() == id);
        found.map(|entry| entry.sequence)
    }

    /// Sorts the events by timestamp: a file of golongpoll may have them in another order. Sequence numbers keep their
    /// places.
    pub(crate) fn sort_by_time(&mut self) {
        if self.entries.iter().is_sorted_by_key(Entry::time) {
            return;
        }
        let sequences: Vec<u64> = self.entries.iter().map(|entry| entry.sequence).collect();
        self.entries.make_contiguous().sort_by_key(Entry::time);
        for (entry, sequence) in self.entries.iter_mut().zip(sequences) {
            entry.sequence = sequence;
        }
        let deadlines = self.entries.iter();
        let deadlines = deadlines.filter_map(|entry| self.limits.deadline(entry));
        self.deadlines = deadlines.collect();
    }
}

#[cfg(test)]
mod tests;
