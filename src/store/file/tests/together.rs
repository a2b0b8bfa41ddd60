//! Publishes of several events with an idempotency key, and purges: after a kill, a power cut or a failure of the disk at any
//! moment, all events of a publish are there and its key, or neither.

use fastrand::Rng;

use super::fake_disk::{FakeDisk, Fault};
use super::*;
use crate::PublishRequest;

/// The events of one publish, and how many publishes a category is purged after.
const TOGETHER: u64 = 3;
const PURGE: u64 = 7;

/// The requests of the publish with this number, to both categories.
fn requests(publish: u64, width: usize) -> Vec<PublishRequest<String>> {
    let numbers = publish * TOGETHER..(publish + 1) * TOGETHER;
    numbers
        .map(|number| {
            let category = CATEGORIES[usize::from(number % TOGETHER == 1)];
            PublishRequest::new(category, format!("{number}{}", " ".repeat(width)))
        })
        .collect()
}

/// Publishes with the key of the publish.
fn publish_once(broker: &Broker, publish: u64, width: usize) -> Result<Vec<EventId>, Error> {
    broker.publish_all_once(&format!("publish {publish}"), &requests(publish, width))
}

/// Returns the numbers of all events that a broker has, in order.
fn held(broker: &Broker) -> Vec<u64> {
    let batch = broker.subscribe(CATEGORIES, Cursor::Oldest, Duration::ZERO);
    let batch = batch.unwrap();
    let texts = batch.events().iter().map(|event| event.text());
    texts.map(|text| text.trim().parse().unwrap()).collect()
}

/// Checks that a broker has the events of whole publishes: the newest of some first part of what was published. Returns how
/// many publishes that part has.
fn check(broker: &Broker, ring: usize, context: &str) -> u64 {
    let numbers = held(broker);
    let publishes = numbers.last().map_or(0, |last| last / TOGETHER + 1);
    let end = publishes * TOGETHER;
    for (index, category) in CATEGORIES.iter().enumerate() {
        // Only the first category is purged.
        let first = match index {
            0 => publishes / PURGE * PURGE * TOGETHER,
            _ => 0,
        };
        let is_of = |number: &u64| CATEGORIES[usize::from(number % TOGETHER == 1)] == *category;
        let expected: Vec<u64> = (first..end).filter(is_of).collect();
        let expected = &expected[expected.len().saturating_sub(ring)..];
        let found: Vec<u64> = numbers.iter().copied().filter(is_of).collect();
        // The purge that follows the last publish is another step.
        let is_purged = index == 0 && publishes.is_multiple_of(PURGE) && found.is_empty();
        let before = (first.saturating_sub(PURGE * TOGETHER)..end).filter(is_of);
        let before: Vec<u64> = before.collect();
        let is_before = index == 0
            && publishes.is_multiple_of(PURGE)
            && found == before[before.len().saturating_sub(ring)..];
        assert!(
            found == expected || is_purged || is_before,
            "{context}: {found:?} is not {expected:?}"
        );
    }
    publishes
}

/// Publishes until the broker has made this many publishes, and purges the first category now and then.
fn publish(broker: &Broker, count: u64, width: usize, mut returned: impl FnMut(u64)) {
    for publish in 0..count {
        publish_once(broker, publish, width).unwrap();
        if publish % PURGE == PURGE - 1 {
            broker.purge("one").unwrap();
        }
        returned(publish);
        wait_until(|| broker.statistics().store.pending == 0);
    }
}

fn crash(durability: Durability, ring: usize, compact_from: Option<u64>) {
    const COUNT: u64 = 20;
    let (disk, returned) = FakeDisk::default().recorded();
    let broker = super::broker(&disk, ring, info(durability, compact_from)).unwrap();
    publish(&broker, COUNT, 1, |number| returned.lock().push(number));
    let is_compacted = || broker.statistics().store.rewritten > 0;
    wait_until(|| compact_from.is_none() || is_compacted());
    broker.stop(LIMIT).unwrap();
    assert_eq!(is_compacted(), compact_from.is_some());
    let mut random = Rng::with_seed(7);
    for (at, point) in disk.history().iter().enumerate() {
        let whole = ["kill", "power cut"];
        let whole = whole.map(String::from).into_iter();
        let crashes = whole.zip([point.killed(), point.power_cut()]);
        // Sectors that are missing between others are damage, and no cut.
        let cuts = point.power_cuts(&mut random).into_iter();
        let cuts = cuts.filter(|(what, _)| !what.contains("WithoutSector"));
        for (what, files) in crashes.chain(cuts) {
            let context = format!("{durability:?}, {compact_from:?}, {what} after operation {at}");
            let copy = FakeDisk::with(&files);
            let start = || super::broker(&copy, ring, info(durability, compact_from)).unwrap();
            let broker = start();
            let publishes = check(&broker, ring, &context);
            if durability == Durability::Acknowledged {
                assert!(publishes >= point.note.len() as u64, "{context}");
            }
            let before = held(&broker);
            let keys = |broker: &Broker| broker.statistics().idempotency_keys as u64;
            assert_eq!(keys(&broker), publishes, "{context}");
            for known in (0..publishes).rev().take(2) {
                publish_once(&broker, known, 1).expect(&context);
            }
            broker.stop(LIMIT).unwrap();
            let again = start();
            assert_eq!(held(&again), before, "{context}");
            assert_eq!(keys(&again), publishes, "{context}");
            again.stop(LIMIT).unwrap();
        }
    }
}

#[test]
fn a_crash_at_any_moment_leaves_whole_publishes() {
    for durability in LEVELS {
        crash(durability, 1000, None);
    }
}

#[test]
fn a_crash_at_any_step_of_a_compaction_leaves_whole_publishes() {
    for durability in LEVELS {
        crash(durability, RING, Some(1));
    }
}

/// Publishes events that are together larger than what the flusher writes at once, on a disk with this fault. Returns the
/// number of operations.
fn run_with(durability: Durability, fault: Option<(usize, Fault)>) -> usize {
    let context = format!("{durability:?}, {fault:?}");
    let width = CHUNK_BYTES / 2;
    let mut disk = FakeDisk::default();
    if let Some((number, fault)) = fault {
        disk = disk.fail(number, fault);
    }
    let start = |disk: &FakeDisk| super::broker(disk, 1000, info(durability, None));
    // Only one operation fails.
    let broker = start(&disk).or_else(|_| start(&disk)).expect(&context);
    let mut accepted = Vec::new();
    for publish in 0..2 {
        match publish_once(&broker, publish, width) {
            Ok(_) => accepted.extend(publish * TOGETHER..(publish + 1) * TOGETHER),
            Err(error) => {
                assert_eq!(error.kind(), crate::ErrorKind::Busy, "{context}");
                assert_eq!(durability, Durability::Acknowledged, "{context}");
                wait_until(|| broker.statistics().store.failing.is_none());
            }
        }
        wait_until(|| broker.statistics().store.pending == 0);
        assert_eq!(held(&broker), accepted, "{context}");
        if durability == Durability::Acknowledged {
            for files in <[_; 2]>::from(disk.after_crash()) {
                let crashed = start(&FakeDisk::with(&files)).expect(&context);
                assert_eq!(held(&crashed), accepted, "{context}");
                let keys = crashed.statistics().idempotency_keys as u64;
                assert_eq!(keys * TOGETHER, accepted.len() as u64, "{context}");
                let batch = crashed.subscribe("one", Cursor::Oldest, Duration::ZERO);
                let first = batch.unwrap().events().first().map(Event::id);
                if let Some(first) = first {
                    let cursor = Cursor::LastId(first);
                    let batch = crashed.subscribe(CATEGORIES, cursor, Duration::ZERO);
                    assert!(!batch.unwrap().gap(), "{context}");
                }
            }
        }
    }
    broker.stop(LIMIT).expect(&context);
    let operations = disk.operations();
    let again = start(&disk).expect(&context);
    assert_eq!(held(&again), accepted, "{context}");
    for publish in 0..2 {
        publish_once(&again, publish, width).expect(&context);
    }
    // Each event is there once, whatever was refused before.
    let mut all = held(&again);
    all.sort_unstable();
    assert_eq!(all, (0..2 * TOGETHER).collect::<Vec<u64>>(), "{context}");
    operations
}

#[test]
fn a_disk_that_fails_within_a_publish_keeps_all_of_it_or_none() {
    // An error of a whole operation is tested with single events.
    for durability in [Durability::Buffered, Durability::Acknowledged] {
        let operations = run_with(durability, None);
        for number in 1..=operations {
            for fault in [Fault::Short, Fault::Torn] {
                run_with(durability, Some((number, fault)));
            }
        }
    }
}
