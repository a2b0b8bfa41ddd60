//! Backlogs larger than one batch, without HTTP: every event comes once and in order, or is a gap.

use std::time::Duration;

use long_polling::testing::{self, ManualClock};
use long_polling::{Batch, Broker, Cursor, EventId, FilePersistorInfo};

use crate::backlog::{NAMES, SIZE, deleting, of_events, publish};
use crate::support::{LIMIT, until};

const START: u64 = 1_700_000_000_000;

fn ids(batch: &Batch) -> Vec<EventId> {
    batch.events().iter().map(|event| event.id()).collect()
}

fn numbers(batch: &Batch) -> Vec<usize> {
    let numbers = batch.events().iter().map(|event| event.decode().unwrap());
    numbers.collect()
}

/// The number of events of each poll, going on from batch to batch by `next`, until there are none.
fn counts(broker: &Broker, mut cursor: Cursor, next: fn(&Batch) -> Cursor) -> Vec<usize> {
    let mut counts = Vec::new();
    loop {
        let batch = broker.subscribe(NAMES, cursor, Duration::ZERO).unwrap();
        assert!(!batch.gap());
        if batch.events().is_empty() {
            return counts;
        }
        counts.push(batch.events().len());
        cursor = next(&batch);
    }
}

fn by_id(batch: &Batch) -> Cursor {
    Cursor::LastId(batch.last_id())
}

fn by_time(batch: &Batch) -> Cursor {
    Cursor::SinceTime(batch.events().last().unwrap().timestamp())
}

#[test]
fn in_process_a_backlog_comes_in_as_many_batches_as_it_needs_and_no_more() {
    let broker = Broker::new(of_events(12)).unwrap();
    let (before, published) = publish(&broker, 100);
    let (mut seen, mut cursor) = (Vec::new(), Cursor::LastId(before));
    for round in 1..=9 {
        let batch = broker.subscribe(NAMES, cursor, Duration::ZERO).unwrap();
        assert_eq!(batch.events().len(), if round < 9 { 12 } else { 4 });
        assert!(!batch.gap());
        assert_eq!(Some(&batch.last_id()), ids(&batch).last());
        seen.extend(ids(&batch));
        cursor = by_id(&batch);
    }
    assert_eq!(seen, published);
    let batch = broker.subscribe(NAMES, cursor, Duration::ZERO).unwrap();
    assert!(batch.events().is_empty());
}

#[test]
fn an_event_larger_than_a_batch_comes_alone() {
    let broker = Broker::new(of_events(3)).unwrap();
    let large = "x".repeat(10 * SIZE);
    let (before, _) = publish(&broker, 2);
    broker.publish("z", &large).unwrap();
    broker.publish("x", &large).unwrap();
    publish(&broker, 2);
    let counts = counts(&broker, Cursor::LastId(before), by_id);
    assert_eq!(counts, [2, 1, 1, 2]);
}

#[test]
fn a_follower_by_time_alone_gets_whole_milliseconds() {
    let clock = ManualClock::at(START);
    let broker = testing::broker(of_events(7), &clock).unwrap();
    let mut before = None;
    for count in [5, 5, 12, 1, 1, 5] {
        before = before.or(Some(publish(&broker, count).0));
        clock.advance(Duration::from_millis(1));
    }
    for start in [Cursor::Oldest, Cursor::SinceTime(START - 1)] {
        // What does not fit into an answer is stamped a millisecond later.
        assert_eq!(counts(&broker, start, by_time), [5, 5, 7, 7, 5]);
        // By the id, only the first poll returns whole milliseconds.
        assert_eq!(counts(&broker, start, by_id), [5, 7, 7, 7, 3]);
    }
    let unknown = EventId::from(7);
    let start = Cursor::LastIdOrSinceTime(unknown, START - 1);
    assert_eq!(counts(&broker, start, by_time), [5, 5, 7, 7, 5]);
    let start = Cursor::LastId(before.unwrap());
    assert_eq!(counts(&broker, start, by_id), [7, 7, 7, 7, 1]);
    // A limit cuts where it says.
    for limit in [3, 7, 100] {
        let batch = broker.subscribe_up_to(limit, NAMES, Cursor::Oldest, Duration::ZERO);
        assert_eq!(batch.unwrap().events().len(), limit.min(7));
    }
}

#[test]
fn only_delivered_events_are_deleted_and_the_rest_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("events.db"));
    let broker = Broker::open(deleting(7), file.clone()).unwrap();
    let (before, published) = publish(&broker, 30);
    let after = Cursor::LastId(before);
    let some = broker.subscribe(NAMES, after, Duration::ZERO).unwrap();
    assert_eq!(numbers(&some), (100..107).collect::<Vec<_>>());
    let of_two = broker.subscribe_up_to(2, ["x", "z"], by_id(&some), Duration::ZERO);
    assert_eq!(numbers(&of_two.unwrap()), [108, 109]);
    let after = Cursor::LastId(published[10]);
    let from_the_middle = broker.subscribe_up_to(1, "y", after, Duration::ZERO);
    assert_eq!(numbers(&from_the_middle.unwrap()), [113]);
    assert_eq!(broker.statistics().events, 20);
    broker.stop(LIMIT).unwrap();

    let broker = Broker::open(deleting(7), file).unwrap();
    let mut rest = Vec::new();
    let mut cursor = Cursor::LastId(before);
    for _ in 0..3 {
        let batch = broker.subscribe(NAMES, cursor, Duration::ZERO).unwrap();
        assert!(!batch.gap());
        rest.extend(numbers(&batch));
        cursor = by_id(&batch);
    }
    let left = |number: &usize| ![108, 109, 113].contains(number);
    assert_eq!(rest, (107..130).filter(left).collect::<Vec<_>>());
}

#[test]
fn an_event_that_a_killed_run_may_have_lost_is_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let [file, copy] = ["events.db", "copy.db"].map(|name| folder.path().join(name));
    let broker = Broker::open(
        of_events(2),
        FilePersistorInfo::new(&file).write_buffer_size(0),
    )
    .unwrap();
    let (_, published) = publish(&broker, 4);
    until("written", || broker.statistics().store.pending == 0);
    // As a kill would leave it.
    std::fs::copy(&file, &copy).unwrap();
    let broker = Broker::open(of_events(2), FilePersistorInfo::new(&copy)).unwrap();
    let look = |cursor| broker.subscribe(NAMES, cursor, Duration::ZERO).unwrap();
    let cut_off = look(Cursor::LastId(published[0]));
    assert_eq!(
        (ids(&cut_off), cut_off.gap()),
        (published[1..3].to_vec(), true)
    );
    // The lost event may have come before the rest, and also after it.
    let rest = look(by_id(&cut_off));
    assert_eq!((ids(&rest), rest.gap()), (published[3..].to_vec(), true));
    assert!(rest.last_id() > published[3]);
    let nothing = look(by_id(&rest));
    assert!(nothing.events().is_empty() && !nothing.gap());
}
