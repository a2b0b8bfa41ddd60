//! One operation of the disk fails, each in its turn.

use std::io;

use super::fake_disk::{FakeDisk, Fault};
use super::*;
use crate::ErrorKind;

/// What was published to each category, and what was refused.
#[derive(Default)]
pub(super) struct Published {
    pub(super) taken: Vec<(u64, EventId)>,
    pub(super) refused: Vec<u64>,
}

/// What is to be found again: of those that were taken, what a ring holds.
pub(super) fn newest(published: &Published, ring: usize) -> Vec<u64> {
    let from = published.taken.len().saturating_sub(ring);
    published.taken[from..]
        .iter()
        .map(|(number, _)| *number)
        .collect()
}

/// Publishes, stops and starts again on a disk of which one operation fails; says how many there were.
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
            // It is the one operation that failed.
            super::broker(&disk, ring, info(durability, compact_from)).expect(&context)
        }
    };
    let mut all = CATEGORIES.map(|_| Published::default());
    for number in 0..12 {
        for (category, published) in CATEGORIES.iter().zip(&mut all) {
            match broker.publish(category, &number) {
                Ok(id) => published.taken.push((number, id)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Busy, "{context}");
                    assert_eq!(durability, Durability::Acknowledged, "{context}");
                    published.refused.push(number);
                    // Reads go on, and so do publishes, once the disk works.
                    held(&broker, category, Cursor::Oldest);
                    wait_until(|| broker.statistics().store.failing.is_none());
                }
            }
            let refused = published.refused.contains(&number);
            if durability == Durability::Acknowledged && (refused || number % 4 == 3) {
                power_cut_keeps(&disk, category, published, ring, &context);
            }
        }
    }
    for (category, published) in CATEGORIES.iter().zip(&all) {
        assert_eq!(
            held(&broker, category, Cursor::Oldest).0,
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
    is_there_again(&disk, ring, &info(durability, compact_from), &all, &context);
    operations
}

/// What was stopped is there again, whatever happens to the power, and is told of as it was.
pub(super) fn is_there_again(
    disk: &FakeDisk,
    ring: usize,
    info: &FilePersistorInfo,
    all: &[Published],
    context: &str,
) {
    let (killed, cut) = disk.left();
    for left in [killed, cut] {
        let again = FakeDisk::with(&left);
        let broker = super::broker(&again, ring, info.clone()).unwrap();
        assert_eq!(broker.statistics().store.damaged, 0, "{context}");
        for (category, published) in CATEGORIES.iter().zip(all) {
            assert_eq!(
                held(&broker, category, Cursor::Oldest).0,
                newest(published, ring),
                "{context}"
            );
            // Nobody is told of a gap who stands where nothing is missing.
            let from = published.taken.len().saturating_sub(ring + 1);
            let stands = Cursor::LastId(published.taken[from].1);
            assert_eq!(
                held(&broker, category, stands),
                (
                    published.taken[from + 1..]
                        .iter()
                        .map(|(number, _)| *number)
                        .collect(),
                    false
                ),
                "{context}"
            );
            if let Some((_, first)) = published.taken.first().filter(|_| from > 0) {
                assert!(
                    held(&broker, category, Cursor::LastId(*first)).1,
                    "{context}"
                );
            }
        }
    }
}

/// Everything that was acknowledged outlasts a power cut at this moment, and nothing that was refused comes back.
pub(super) fn power_cut_keeps(
    disk: &FakeDisk,
    category: &str,
    published: &Published,
    ring: usize,
    context: &str,
) {
    let (_, cut) = disk.left();
    let again = FakeDisk::with(&cut);
    let broker = super::broker(&again, ring, info(Durability::Acknowledged, None)).unwrap();
    let (numbers, _) = held(&broker, category, Cursor::Oldest);
    assert_eq!(numbers, newest(published, ring), "{context}");
}

#[test]
fn whichever_operation_fails_nothing_acknowledged_is_lost_and_publishing_goes_on() {
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
fn the_state_of_the_file_is_told_when_it_changes_and_by_a_callback_that_may_panic() {
    for panics in [false, true] {
        let (tell, told) = crossbeam_channel::unbounded();
        let callback = move |state: &FileState| {
            tell.send(state.clone()).unwrap();
            assert!(!panics, "a callback that panics");
        };
        let disk = FakeDisk::default();
        let info = info(Durability::Acknowledged, None).on_change(callback);
        let broker = super::broker(&disk, RING, info).unwrap();
        broker.publish("one", &1).unwrap();
        assert!(told.is_empty());
        let next = disk.operations() + 1;
        let disk = disk.fail(next, Fault::Error(io::ErrorKind::StorageFull));
        assert_eq!(
            broker.publish("one", &2).unwrap_err().kind(),
            ErrorKind::Busy
        );
        let FileState::Failing { reason } = told.recv_timeout(LIMIT).unwrap() else {
            panic!("it fails");
        };
        assert_eq!(
            reason,
            io::Error::from(io::ErrorKind::StorageFull).to_string()
        );
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), FileState::Working);
        broker.publish("one", &3).unwrap();
        assert_eq!(broker.statistics().store.failures, 1);
        broker.stop(LIMIT).unwrap();
        assert!(told.is_empty());
        drop(disk);
    }
}
