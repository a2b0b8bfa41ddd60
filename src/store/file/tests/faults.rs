//! A single operation of the disk fails: each one, in one run each.

use std::io;

use super::fake_disk::{FakeDisk, Fault};
use super::*;
use crate::ErrorKind;

/// The numbers that a test has published to a category.
#[derive(Default)]
pub(super) struct Outcomes {
    pub(super) accepted: Vec<(u64, EventId)>,
    pub(super) refused: Vec<u64>,
}

/// Returns the accepted numbers that a ring buffer of this size has.
pub(super) fn newest(published: &Outcomes, ring: usize) -> Vec<u64> {
    let from = published.accepted.len().saturating_sub(ring);
    published.accepted[from..]
        .iter()
        .map(|(number, _)| *number)
        .collect()
}

/// Publishes, stops and starts again on a disk with this fault. Returns the number of operations.
fn run(
    durability: Durability,
    ring: usize,
    compact_from: Option<u64>,
    fault: Option<(usize, Fault)>,
) -> usize {
    let context = format!("{durability:?}, {compact_from:?}, {fault:?}");
    let mut disk = FakeDisk::default();
    if let Some((number, fault)) = fault {
        disk = disk.fail(number, fault);
    }
    let broker = match super::broker(&disk, ring, info(durability, compact_from)) {
        Ok(broker) => broker,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::File, "{context}");
            // Only one operation fails.
            super::broker(&disk, ring, info(durability, compact_from)).expect(&context)
        }
    };
    let mut all = CATEGORIES.map(|_| Outcomes::default());
    for number in 0..12 {
        for (category, published) in CATEGORIES.iter().zip(&mut all) {
            match broker.publish(category, &number) {
                Ok(id) => published.accepted.push((number, id)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Busy, "{context}");
                    assert_eq!(durability, Durability::Acknowledged, "{context}");
                    published.refused.push(number);
                    // Reads go on. So do publishes once the disk works.
                    numbers_in(&broker, category, Cursor::Oldest);
                    wait_until(|| broker.statistics().store.failing.is_none());
                }
            }
            let refused = published.refused.contains(&number);
            if durability == Durability::Acknowledged && (refused || number % 4 == 3) {
                assert_survives_power_cut(&disk, category, published, ring, &context);
            }
        }
    }
    for (category, published) in CATEGORIES.iter().zip(&all) {
        assert_eq!(
            numbers_in(&broker, category, Cursor::Oldest).0,
            newest(published, ring),
            "{context}"
        );
        assert!(
            published.refused.len() <= 3,
            "{context}: {:?}",
            published.refused
        );
    }
    broker.stop(LIMIT).expect(&context);
    drop(broker);
    let operations = disk.operations();
    assert_restored(&disk, ring, &info(durability, compact_from), &all, &context);
    operations
}

/// Asserts that a start after a stop, and after a stop and a power cut, restores the accepted numbers and their gaps.
pub(super) fn assert_restored(
    disk: &FakeDisk,
    ring: usize,
    info: &FilePersistorInfo,
    all: &[Outcomes],
    context: &str,
) {
    let (killed, cut) = disk.after_crash();
    for files in [killed, cut] {
        let copy = FakeDisk::with(&files);
        let broker = super::broker(&copy, ring, info.clone()).unwrap();
        assert_eq!(broker.statistics().store.damaged, 0, "{context}");
        for (category, published) in CATEGORIES.iter().zip(all) {
            assert_eq!(
                numbers_in(&broker, category, Cursor::Oldest).0,
                newest(published, ring),
                "{context}"
            );
            // A position after which nothing is missing gets no gap.
            let from = published.accepted.len().saturating_sub(ring + 1);
            let position = Cursor::LastId(published.accepted[from].1);
            assert_eq!(
                numbers_in(&broker, category, position),
                (
                    published.accepted[from + 1..]
                        .iter()
                        .map(|(number, _)| *number)
                        .collect(),
                    false
                ),
                "{context}"
            );
            if let Some((_, first)) = published.accepted.first().filter(|_| from > 0) {
                assert!(
                    numbers_in(&broker, category, Cursor::LastId(*first)).1,
                    "{context}"
                );
            }
        }
    }
}

/// Asserts that a power cut now would keep every accepted event and no refused one.
pub(super) fn assert_survives_power_cut(
    disk: &FakeDisk,
    category: &str,
    published: &Outcomes,
    ring: usize,
    context: &str,
) {
    let (_, cut) = disk.after_crash();
    let copy = FakeDisk::with(&cut);
    let broker = super::broker(&copy, ring, info(Durability::Acknowledged, None)).unwrap();
    let (numbers, _) = numbers_in(&broker, category, Cursor::Oldest);
    assert_eq!(numbers, newest(published, ring), "{context}");
}

#[test]
fn if_any_operation_fails_no_acknowledged_event_is_lost_and_publishing_goes_on() {
    for durability in LEVELS {
        for (ring, compact_from) in [(1000, None), (RING, Some(1))] {
            let operations = run(durability, ring, compact_from, None);
            assert!(operations > 5);
            for number in 1..=operations {
                for fault in [
                    Fault::Error(io::ErrorKind::Other),
                    Fault::Error(io::ErrorKind::StorageFull),
                    Fault::Short,
                ] {
                    run(durability, ring, compact_from, Some((number, fault)));
                }
            }
        }
    }
}

#[test]
fn on_change_is_called_for_each_change_of_the_state_and_may_panic() {
    for panics in [false, true] {
        let (sender, states) = crossbeam_channel::unbounded();
        let callback = move |state: &FileState| {
            sender.send(state.clone()).unwrap();
            assert!(!panics, "a callback that panics");
        };
        let disk = FakeDisk::default();
        let info = info(Durability::Acknowledged, None).on_change(callback);
        let broker = super::broker(&disk, RING, info).unwrap();
        broker.publish("one", &1).unwrap();
        assert!(states.is_empty());
        let next = disk.operations() + 1;
        let disk = disk.fail(next, Fault::Error(io::ErrorKind::StorageFull));
        assert_eq!(
            broker.publish("one", &2).unwrap_err().kind(),
            ErrorKind::Busy
        );
        let FileState::Failing { reason } = states.recv_timeout(LIMIT).unwrap() else {
            panic!("it fails");
        };
        assert_eq!(
            reason,
            io::Error::from(io::ErrorKind::StorageFull).to_string()
        );
        assert_eq!(states.recv_timeout(LIMIT).unwrap(), FileState::Working);
        broker.publish("one", &3).unwrap();
        assert_eq!(broker.statistics().store.failures, 1);
        broker.stop(LIMIT).unwrap();
        assert!(states.is_empty());
        drop(disk);
    }
}
