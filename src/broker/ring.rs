//! [`Ring`]: the newest events of one category, and what it has to say about those that it no longer holds.

use std::collections::{HashSet, VecDeque};

use crate::event::Event;
use crate::position::EventId;
use crate::store::Loss;

/// An event with its place in the publish order of the whole broker.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    /// When it was published, by the broker's [`Age`](super::clock::Age): what it expires by. 0 where nothing expires.
    pub(crate) published: u64,
    pub(crate) event: Event,
}

impl Entry {
    /// The timestamp by which the event is ordered.
    pub(crate) fn time(&self) -> u64 {
        plausible(self.event.timestamp())
    }
}

/// The greatest timestamp that a JSON number holds exactly in every language, in the year 287396.
const MAX_TIMESTAMP: u64 = 1 << 53;

/// The timestamp by which an event of a log is ordered. One that leaves no room for greater ones counts as far in the
/// future, and new timestamps follow it.
pub(crate) fn plausible(timestamp: u64) -> u64 {
    if timestamp > MAX_TIMESTAMP {
        MAX_TIMESTAMP / 2
    } else {
        timestamp
    }
}

/// Up to this `since_time` a poll asks for everything that is buffered, whatever its timestamp: the Go package's tests
/// poll with 1 for that.
const EVERYTHING: u64 = 1;

/// Where a poll starts, once its cursor has been resolved: strictly after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Oldest,
    Sequence(u64),
    Time(u64),
}

impl Place {
    /// True if a follower at this place misses an event that `loss` covers.
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

/// What left a ring: how many events, and how many bytes of JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// The events of a category, oldest first. Both sequence numbers and timestamps ascend.
#[derive(Default)]
pub(crate) struct Ring {
    entries: VecDeque<Entry>,
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

    pub(crate) fn newest(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// Appends an event; where more than `capacity` are held then, the oldest are lost.
    pub(crate) fn push(&mut self, entry: Entry, capacity: usize) -> Removed {
        self.entries.push_back(entry);
        let surplus = self.entries.len().saturating_sub(capacity);
        self.lose(surplus)
    }

    /// Loses the oldest events that were published before this time of the broker's [`Age`](super::clock::Age).
    pub(crate) fn expire(&mut self, before: u64) -> Removed {
        let oldest = self.entries.iter();
        let expired = oldest.take_while(|entry| entry.published < before);
        self.lose(expired.count())
    }

    /// Loses the `count` oldest events.
    pub(crate) fn lose(&mut self, count: usize) -> Removed {
        let mut removed = Removed::default();
        for entry in self.entries.drain(..count) {
            removed.events += 1;
            removed.bytes += entry.event.as_json().len();
            self.lost = self.lost.max(Loss {
                sequence: entry.sequence,
                timestamp: entry.time(),
            });
        }
        self.shrink();
        removed
    }

    pub(crate) fn lose_all(&mut self) -> Removed {
        self.lose(self.entries.len())
    }

    /// Loses the oldest events, as few as have so many bytes of JSON together; the `kept` newest stay in any case.
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

    /// A category keeps no memory for the events that it once had.
    fn shrink(&mut self) {
        let held = self.entries.len();
        if held == 0 {
            self.entries = VecDeque::new();
        } else if self.entries.capacity() > 4 * held {
            self.entries.shrink_to(2 * held);
        }
    }

    /// The events after `place`.
    pub(crate) fn after(&self, place: Place) -> impl Iterator<Item = &Entry> {
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

    /// Takes the events after `place` out, up to this sequence number: handed out, not lost.
    pub(crate) fn take(&mut self, place: Place, last: u64) -> Removed {
        let end = self.entries.partition_point(|entry| entry.sequence <= last);
        let start = self.start(place).min(end);
        let mut removed = Removed::default();
        for entry in self.entries.drain(start..end) {
            removed.events += 1;
            removed.bytes += entry.event.as_json().len();
        }
        self.shrink();
        removed
    }

    /// Takes these events out: handed out, not lost.
    pub(crate) fn remove(&mut self, ids: &[EventId]) -> Removed {
        let mut removed = Removed::default();
        let mut wanted: HashSet<EventId> = ids.iter().copied().collect();
        let mut kept = Vec::new();
        // Most often these are the oldest.
        while !wanted.is_empty()
            && let Some(entry) = self.entries.pop_front()
        {
            if wanted.remove(&entry.event.id()) {
                removed.events += 1;
                removed.bytes += entry.event.as_json().len();
            } else {
                kept.push(entry);
            }
        }
        for entry in kept.into_iter().rev() {
            self.entries.push_front(entry);
        }
        self.shrink();
        removed
    }

    /// The sequence number of the event with this id, searched from the newest: a follower's is most often that.
    pub(crate) fn find(&self, id: EventId) -> Option<u64> {
        let found = self
            .entries
            .iter()
            .rev()
            .find(|entry| entry.event.id() == id);
        found.map(|entry| entry.sequence)
    }

    /// Restores the order of timestamps, which a file of golongpoll's may lack: sequence numbers keep their places.
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
    fn expired_events_are_lost_and_taken_ones_are_not() {
        let mut ring = ring(&[(1, 10), (2, 20), (3, 30)], 10);
        let expired = ring.expire(20);
        assert_eq!((expired.events, ring.lost.sequence), (1, 1));
        assert_eq!(ring.take(Place::Sequence(1), 2).events, 1);
        assert_eq!(sequences(&ring, Place::Oldest), [3]);
        assert_eq!(ring.take(Place::Oldest, 3).events, 1);
        assert_eq!(ring.lost.sequence, 1);
        assert!(ring.is_empty());
    }

    #[test]
    fn bytes_are_lost_from_the_oldest_on_and_no_more_than_asked_for() {
        let mut ring = ring(&[(1, 10), (2, 10), (3, 10), (4, 10)], 10);
        let one = entry(1, 10).event.as_json().len();
        assert_eq!(ring.lose_bytes(0, 0), Removed::default());
        let two = Removed {
            events: 2,
            bytes: 2 * one,
        };
        assert_eq!(ring.lose_bytes(one + 1, 0), two);
        assert_eq!(ring.lost.sequence, 2);
        assert_eq!(ring.lose_bytes(usize::MAX, 1).events, 1);
        assert_eq!(sequences(&ring, Place::Oldest), [4]);
        assert_eq!(ring.lose_bytes(1, 0).events, 1);
    }

    #[test]
    fn a_ring_that_has_lost_most_of_its_events_gives_their_memory_back() {
        let entries: Vec<(u64, u64)> = (1..=1000).map(|number| (number, number)).collect();
        let mut ring = ring(&entries, 1000);
        ring.lose(900);
        assert!(ring.entries.capacity() <= 400);
        ring.take(Place::Sequence(903), 1000);
        assert!(ring.entries.capacity() <= 12);
        ring.remove(&[EventId::from(901), EventId::from(902)]);
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
