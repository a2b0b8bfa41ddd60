//! Tests of [`Ring`].

use std::num::NonZeroU64;

use super::*;
use crate::event::Draft;

fn entry(sequence: u64, timestamp: u64) -> Entry {
    let draft = Draft::new("c".into(), &sequence).unwrap();
    Entry {
        sequence,
        published: timestamp,
        more: 0,
        event: draft.stamp(timestamp, EventId::from(u128::from(sequence))),
    }
}

fn ring_with(limits: RingLimits, entries: impl IntoIterator<Item = Entry>) -> Ring {
    let mut ring = Ring::new(limits, Loss::default());
    entries.into_iter().for_each(|entry| _ = ring.push(entry));
    ring
}

fn ring(entries: &[(u64, u64)], capacity: usize) -> Ring {
    let limits = RingLimits {
        events: capacity,
        ttl: 10,
    };
    let entries = entries.iter();
    ring_with(
        limits,
        entries.map(|(sequence, time)| entry(*sequence, *time)),
    )
}

/// Events that are published at 10 times their sequence number, each with a time to live of its own or 0 for none.
fn own(limits: RingLimits, ttls: &[u64]) -> Ring {
    let entries = std::iter::zip(1.., ttls).map(|(sequence, ttl)| {
        let mut entry = entry(sequence, 10 * sequence);
        entry.event = entry.event.with_own_ttl(NonZeroU64::new(*ttl));
        entry
    });
    ring_with(limits, entries)
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
    let expired = ring.expire(30);
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
fn an_event_with_a_shorter_time_to_live_expires_between_others() {
    let limits = RingLimits {
        events: 10,
        ttl: 100,
    };
    let mut ring = own(limits, &[0, 5, 200, 50, 5]);
    assert_eq!(ring.first_deadline(), Some(25));
    assert_eq!(ring.expire(25).events, 0);
    assert_eq!(ring.expired(60).collect::<Vec<_>>(), [(25, 2), (55, 5)]);
    let expired = ring.expire(26);
    assert_eq!((expired.events, ring.lost.sequence), (1, 2));
    assert_eq!(sequences(&ring, Place::Oldest), [1, 3, 4, 5]);
    // A retrieval takes the deadline of an event with it.
    ring.retrieve(Place::Sequence(3), 4);
    ring.retrieve_ids(&[EventId::from(1)]);
    assert_eq!(ring.expire(56).events, 1);
    assert!(ring.deadlines.is_empty() && ring.can_expire());
    // The category's time to live is the shorter one.
    assert_eq!(ring.expire(130).events, 0);
    let last = ring.expire(131);
    assert_eq!(
        (last.events, last.emptied, ring.lost.sequence),
        (1, true, 5)
    );
}

#[test]
fn a_full_ring_first_loses_what_has_expired() {
    let limits = RingLimits {
        events: 3,
        ttl: RingLimits::NEVER,
    };
    let ring = own(limits, &[0, 18, 5, 0]);
    assert_eq!(sequences(&ring, Place::Oldest), [1, 2, 4]);
    assert_eq!(ring.lost.sequence, 3);
    let ring = own(limits, &[0, 18, 5, 0, 0]);
    assert_eq!(sequences(&ring, Place::Oldest), [1, 4, 5]);
    let ring = own(limits, &[0, 18, 5, 0, 0, 0]);
    assert_eq!(sequences(&ring, Place::Oldest), [4, 5, 6]);
    assert!(!ring.can_expire());
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
