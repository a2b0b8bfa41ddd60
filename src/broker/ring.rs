//! [`Ring`]: the newest events of one category, and the newest of those that it lost.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use crate::event::Event;
use crate::position::EventId;
use crate::store::Loss;

/// An event with its place in the publish order of the whole broker.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    /// When it was published, by the broker's [`Age`](super::clock::Age), which decides when it expires. 0 without an
    /// `event_ttl`.
    pub(crate) published: u64,
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
    fn add(&mut self, entry: &Entry) {
        self.events += 1;
        self.bytes += entry.event.as_json().len();
    }
}

/// The events of a category, oldest first. Both sequence numbers and timestamps ascend.
///
/// Each method that removes events returns what it removed, for the [`Counters`](super::statistics::Counters).
#[derive(Default)]
pub(crate) struct Ring {
    entries: VecDeque<Entry>,
    /// The newest event that was lost.
    pub(crate) lost: Loss,
}

impl Ring {
    pub(crate) fn new(lost: Loss) -> Self {
        Ring {
            entries: VecDeque::new(),
            lost,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(feature = "redis")]
    pub(crate) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    #[cfg(feature = "redis")]
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(crate) fn newest(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// Appends an event. If the ring then holds more than `capacity`, it loses the oldest.
    pub(crate) fn push(&mut self, entry: Entry, capacity: usize) -> Removed {
        self.entries.push_back(entry);
        let surplus = self.entries.len().saturating_sub(capacity);
        self.lose(surplus)
    }

    /// The oldest events, as far as they were published before this time of the broker's [`Age`](super::clock::Age).
    pub(crate) fn published_before(&self, before: u64) -> impl Iterator<Item = &Entry> {
        let oldest = self.entries.iter();
        oldest.take_while(move |entry| entry.published < before)
    }

    /// Loses the oldest events that were published before this time.
    pub(crate) fn expire(&mut self, before: u64) -> Removed {
        let count = self.published_before(before).count();
        self.lose(count)
    }

    /// Loses the events up to this sequence number.
    pub(crate) fn lose_up_to(&mut self, sequence: u64) -> Removed {
        let count = self.up_to(sequence).len();
        self.lose(count)
    }

    /// Loses the `count` oldest events.
    pub(crate) fn lose(&mut self, count: usize) -> Removed {
        // All of them: while a log is read, timestamps may not ascend yet.
        for entry in self.entries.range(..count) {
            self.lost = self.lost.max(Loss {
                sequence: entry.sequence,
                timestamp: entry.time(),
            });
        }
        self.remove_range(0..count)
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
        }
        self.shrink(removed)
    }

    /// Frees the memory of events that were removed.
    fn shrink(&mut self, removed: Removed) -> Removed {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Draft;

    fn entry(sequence: u64, timestamp: u64) -> Entry {
        let draft = Draft::new("c".into(), &sequence).unwrap();
        Entry {
            sequence,
            published: timestamp,
            event: draft.stamp(timestamp, EventId::from(u128::from(sequence))),
        }
    }

    fn ring(entries: &[(u64, u64)], capacity: usize) -> Ring {
        let mut ring = Ring::default();
        for &(sequence, timestamp) in entries {
            ring.push(entry(sequence, timestamp), capacity);
        }
        ring
    }

    fn sequences(ring: &Ring, place: Place) -> Vec<u64> {
        ring.after(place).map(|entry| entry.sequence).collect()
    }

    #[test]
    fn a_full_ring_pushes_out_its_oldest_and_remembers_the_newest_lost() {
        let ring = ring(&[(1, 10), (3, 10), (7, 20), (9, 30)], 2);
        assert_eq!(sequences(&ring, Place::Oldest), [7, 9]);
        assert_eq!(
            ring.lost,
            Loss {
                sequence: 3,
                timestamp: 10
            }
        );
        assert!(Place::Sequence(2).misses(ring.lost));
        assert!(!Place::Sequence(3).misses(ring.lost));
        assert!(Place::Time(9).misses(ring.lost));
        assert!(!Place::Time(10).misses(ring.lost));
        assert!(!Place::Oldest.misses(ring.lost));
    }

    #[test]
    fn places_are_strictly_before_what_follows_them() {
        let ring = ring(&[(1, 10), (3, 10), (7, 20)], 10);
        assert_eq!(sequences(&ring, Place::Sequence(1)), [3, 7]);
        assert_eq!(sequences(&ring, Place::Sequence(2)), [3, 7]);
        assert_eq!(sequences(&ring, Place::Time(10)), [7]);
        assert!(sequences(&ring, Place::Time(20)).is_empty());
        assert_eq!(ring.find(EventId::from(3)), Some(3));
        assert_eq!(ring.find(EventId::from(2)), None);
    }

    #[test]
    fn expired_events_are_lost_and_retrieved_ones_are_not() {
        let mut ring = ring(&[(1, 10), (2, 20), (3, 30)], 10);
        let expired = ring.expire(20);
        assert_eq!((expired.events, ring.lost.sequence), (1, 1));
        assert_eq!(ring.retrieve(Place::Sequence(1), 2).events, 1);
        assert_eq!(sequences(&ring, Place::Oldest), [3]);
        let last = ring.retrieve(Place::Oldest, 3);
        assert_eq!((last.events, last.emptied), (1, true));
        assert_eq!(ring.lost.sequence, 1);
        assert!(ring.is_empty());
    }

    #[test]
    fn the_oldest_events_are_lost_for_their_bytes_and_no_more_than_needed() {
        let mut ring = ring(&[(1, 10), (2, 10), (3, 10), (4, 10)], 10);
        let one = entry(1, 10).event.as_json().len();
        assert_eq!(ring.lose_bytes(0, 0), Removed::default());
        let two = Removed {
            events: 2,
            bytes: 2 * one,
            emptied: false,
        };
        assert_eq!(ring.lose_bytes(one + 1, 0), two);
        assert_eq!(ring.lost.sequence, 2);
        assert_eq!(ring.lose_bytes(usize::MAX, 1).events, 1);
        assert_eq!(sequences(&ring, Place::Oldest), [4]);
        assert_eq!(ring.lose_bytes(1, 0).events, 1);
    }

    #[test]
    fn a_ring_that_has_lost_most_of_its_events_frees_their_memory() {
        let entries: Vec<(u64, u64)> = (1..=1000).map(|number| (number, number)).collect();
        let mut ring = ring(&entries, 1000);
        ring.lose(900);
        assert!(ring.entries.capacity() <= 400);
        ring.retrieve(Place::Sequence(903), 1000);
        assert!(ring.entries.capacity() <= 12);
        ring.retrieve_ids(&[EventId::from(901), EventId::from(902)]);
        assert_eq!(sequences(&ring, Place::Oldest), [903]);
        assert!(ring.entries.capacity() <= 4);
        ring.lose_all();
        assert_eq!(ring.entries.capacity(), 0);
    }

    #[test]
    fn timestamps_out_of_order_are_sorted_within_their_sequence_numbers() {
        let mut ring = ring(&[(1, 30), (2, 10), (5, 20)], 10);
        ring.sort_by_time();
        let sorted: Vec<_> = ring
            .after(Place::Oldest)
            .map(|e| (e.sequence, e.event.timestamp()))
            .collect();
        assert_eq!(sorted, [(1, 10), (2, 20), (5, 30)]);
    }
}
