//! The disk fails from each operation on, until it is repaired.

use super::fake_disk::{FakeDisk, Operation};
use super::faults::{Outcomes, assert_restored, assert_survives_power_cut, newest};
use super::*;

/// The events published to each category, besides those during an outage.
const EVENTS: u64 = 4;

/// The operations that fail, perhaps after one failure of another operation.
#[derive(Clone, Copy, Debug)]
struct Outage {
    first: Option<Operation>,
    operations: &'static [Operation],
}

const fn of(operations: &'static [Operation]) -> Outage {
    Outage {
        first: None,
        operations,
    }
}

/// After a failed sync, the flusher replaces the file, which then fails too.
const fn after_a_sync(operations: &'static [Operation]) -> Outage {
    Outage {
        first: Some(Operation::Sync),
        operations,
    }
}

struct TestRun {
    durability: Durability,
    context: String,
    disk: FakeDisk,
    broker: Broker,
    states: Receiver<FileState>,
    next: u64,
    all: [Outcomes; 2],
    /// The outages that `on_change` has reported.
    outages: usize,
}

impl TestRun {
    fn failing(&self) -> bool {
        self.broker.statistics().store.failing.is_some()
    }

    /// Publishes to each category, and waits until the file has the events or fails.
    fn publish(&mut self) {
        for (category, published) in CATEGORIES.iter().zip(&mut self.all) {
            match self.broker.publish(category, &self.next) {
                Ok(id) => published.accepted.push((self.next, id)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Busy, "{}", self.context);
                    assert_eq!(
                        self.durability,
                        Durability::Acknowledged,
                        "{}",
                        self.context
                    );
                    published.refused.push(self.next);
                }
            }
        }
        self.next += 1;
        wait_until(|| self.failing() || self.broker.statistics().store.pending == 0);
    }

    fn assert_readable(&self) {
        for (category, published) in CATEGORIES.iter().zip(&self.all) {
            let (numbers, _) = numbers_in(&self.broker, category, Cursor::Oldest);
            assert_eq!(numbers, newest(published, RING), "{}", self.context);
        }
    }

    fn publish_some(&mut self) {
        for _ in 0..EVENTS {
            self.publish();
            self.end_outage();
        }
        self.assert_readable();
    }

    /// If the file fails by now: checks that it fails until the disk is repaired, repairs the disk, and checks that it works
    /// again.
    fn end_outage(&mut self) {
        if !self.failing() {
            return;
        }
        self.outages += 1;
        let context = self.context.clone();
        let FileState::Failing { reason } = self.states.recv_timeout(LIMIT).expect(&context) else {
            panic!("{context}: it fails");
        };
        let failures = || self.broker.statistics().store.failures;
        let before = failures();
        wait_until(|| failures() >= before + 2);
        // The next failure may be that of the new file that is to replace this one.
        let failing = self.broker.statistics().store.failing.expect(&context);
        assert!(failing.contains(&reason), "{context}: {failing}: {reason}");
        let before = self.all[0].accepted.len();
        self.publish();
        self.publish();
        let more = self.all[0].accepted.len() - before;
        let acknowledged = self.durability == Durability::Acknowledged;
        assert_eq!(more, if acknowledged { 0 } else { 2 }, "{context}");
        self.assert_readable();
        if acknowledged {
            for (category, published) in CATEGORIES.iter().zip(&self.all) {
                assert_survives_power_cut(&self.disk, category, published, RING, &context);
            }
        }
        assert!(self.failing() && self.states.is_empty(), "{context}");

        self.disk.repair();
        let state = self.states.recv_timeout(LIMIT).expect(&context);
        assert_eq!(state, FileState::Working, "{context}");
        wait_until(|| self.broker.statistics().store.pending == 0);
        assert!(!self.failing(), "{context}");
        let before = self.all[0].accepted.len();
        self.publish();
        assert_eq!(self.all[0].accepted.len(), before + 1, "{context}");
    }
}

/// Publishes on a disk that fails from an operation on, and then, if the file has failed, once more. Returns the number of
/// operations until the second outage, and whether the file has failed.
fn run(
    durability: Durability,
    compact_from: Option<u64>,
    from: usize,
    outage: Outage,
) -> (usize, bool) {
    let context = format!("{durability:?}, {compact_from:?}, {outage:?} from {from}");
    let (sender, states) = crossbeam_channel::unbounded();
    let info =
        info(durability, compact_from).on_change(move |state| sender.send(state.clone()).unwrap());
    let disk = FakeDisk::default();
    disk.break_down_after(outage.first, from, outage.operations);
    let broker = super::broker(&disk, RING, info.clone()).or_else(|error| {
        assert_eq!(error.kind(), ErrorKind::File, "{context}");
        disk.repair();
        super::broker(&disk, RING, info.clone())
    });
    let mut run = TestRun {
        durability,
        broker: broker.expect(&context),
        context,
        disk,
        states,
        next: 0,
        all: Default::default(),
        outages: 0,
    };
    run.end_outage();
    run.publish_some();
    let operations = run.disk.operations();
    let failed = run.outages > 0;
    if failed {
        run.disk
            .break_down_after(outage.first, operations, outage.operations);
        run.publish_some();
    }
    // The flusher does not notice the outage while it has nothing to write; the stop would.
    run.disk.repair();
    let TestRun {
        context,
        disk,
        broker,
        states,
        all,
        ..
    } = run;
    broker.stop(LIMIT).expect(&context);
    drop(broker);
    assert!(states.is_empty(), "{context}");
    assert_restored(&disk, RING, &info, &all, &context);
    (operations, failed)
}

/// Runs with an outage from each operation on. `fails` says whether the file is expected to fail.
fn run_all(durability: Durability, outage: Outage, fails: bool) {
    for compact_from in [None, Some(1)] {
        let (operations, failed) = run(durability, compact_from, 1, of(&[]));
        assert!(operations > 5 && !failed);
        for from in 1..=operations {
            let (_, failed) = run(durability, compact_from, from, outage);
            // The flusher does not notice an outage during the start, one after the last operation that fails by it, and one
            // that only prevents a compaction.
            if !fails || (from == operations / 2 && compact_from.is_none()) {
                assert_eq!(failed, fails, "{durability:?}, {outage:?} from {from}");
            }
        }
    }
}

#[test]
fn while_every_operation_fails_publishes_are_refused_or_queued_and_go_on_once_the_disk_is_repaired()
{
    for durability in LEVELS {
        run_all(durability, of(&Operation::ALL), true);
        run_all(durability, of(&[Operation::Append]), true);
    }
}

#[test]
fn while_every_sync_fails_publishes_are_refused_or_queued_and_go_on_once_the_disk_is_repaired() {
    for durability in LEVELS {
        run_all(
            durability,
            of(&[Operation::Sync]),
            durability != Durability::Buffered,
        );
    }
}

#[test]
fn a_file_that_needs_to_be_replaced_fails_until_it_can_be() {
    for durability in [LEVELS[1], LEVELS[2]] {
        for operations in [
            &[Operation::Create],
            &[Operation::Rename],
            &[Operation::SyncFolder],
        ] {
            run_all(durability, after_a_sync(operations), true);
        }
    }
}

#[test]
fn a_file_that_can_not_be_compacted_stays_as_it_is() {
    for durability in LEVELS {
        for operations in [&[Operation::Create], &[Operation::Rename]] {
            run_all(durability, of(operations), false);
        }
    }
}
