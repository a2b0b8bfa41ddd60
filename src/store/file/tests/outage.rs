//! A disk that fails until it is mended, from each operation on.

use super::fake_disk::{FakeDisk, Kind};
use super::faults::{Published, is_there_again, newest, power_cut_keeps};
use super::*;

/// So many events are published to each category, besides those that an outage needs.
const ROUNDS: u64 = 4;

/// What fails: all operations of some kinds, maybe after one of another.
#[derive(Clone, Copy, Debug)]
struct Outage {
    first: Option<Kind>,
    kinds: &'static [Kind],
}

const fn of(kinds: &'static [Kind]) -> Outage {
    Outage { first: None, kinds }
}

/// A sync that fails has the file replaced, which fails then, too.
const fn after_a_sync(kinds: &'static [Kind]) -> Outage {
    Outage {
        first: Some(Kind::Sync),
        kinds,
    }
}

struct Run {
    durability: Durability,
    context: String,
    disk: FakeDisk,
    broker: Broker,
    told: Receiver<FileState>,
    next: u64,
    all: [Published; 2],
    /// Outages that were told of.
    outages: usize,
}

impl Run {
    fn failing(&self) -> bool {
        self.broker.statistics().store.failing.is_some()
    }

    /// Publishes to each category, and waits until the file has it or fails.
    fn publish(&mut self) {
        for (category, published) in CATEGORIES.iter().zip(&mut self.all) {
            match self.broker.publish(category, &self.next) {
                Ok(id) => published.taken.push((self.next, id)),
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

    fn reads_go_on(&self) {
        for (category, published) in CATEGORIES.iter().zip(&self.all) {
            let (numbers, _) = held(&self.broker, category, Cursor::Oldest);
            assert_eq!(numbers, newest(published, RING), "{}", self.context);
        }
    }

    fn publish_some(&mut self) {
        for _ in 0..ROUNDS {
            self.publish();
            self.outlast();
        }
        self.reads_go_on();
    }

    /// Where the file fails by now: it goes on to do so until the disk is mended.
    fn outlast(&mut self) {
        if !self.failing() {
            return;
        }
        self.outages += 1;
        let context = self.context.clone();
        let FileState::Failing { reason } = self.told.recv_timeout(LIMIT).expect(&context) else {
            panic!("{context}: it fails");
        };
        let failures = || self.broker.statistics().store.failures;
        let so_far = failures();
        wait_until(|| failures() >= so_far + 2);
        // What fails next may be the new file that is to take its place.
        let failing = self.broker.statistics().store.failing.expect(&context);
        assert!(failing.contains(&reason), "{context}: {failing}: {reason}");
        let taken = self.all[0].taken.len();
        self.publish();
        self.publish();
        let more = self.all[0].taken.len() - taken;
        let acknowledged = self.durability == Durability::Acknowledged;
        assert_eq!(more, if acknowledged { 0 } else { 2 }, "{context}");
        self.reads_go_on();
        if acknowledged {
            for (category, published) in CATEGORIES.iter().zip(&self.all) {
                power_cut_keeps(&self.disk, category, published, RING, &context);
            }
        }
        assert!(self.failing() && self.told.is_empty(), "{context}");

        self.disk.mend();
        let told = self.told.recv_timeout(LIMIT).expect(&context);
        assert_eq!(told, FileState::Working, "{context}");
        wait_until(|| self.broker.statistics().store.pending == 0);
        assert!(!self.failing(), "{context}");
        let taken = self.all[0].taken.len();
        self.publish();
        assert_eq!(self.all[0].taken.len(), taken + 1, "{context}");
    }
}

/// Publishes on a disk that fails from an operation on, and then on one that does so once more; says how many there
/// were by then, and whether the file failed.
fn run(
    durability: Durability,
    compact_from: Option<u64>,
    from: usize,
    outage: Outage,
) -> (usize, bool) {
    let context = format!("{durability:?}, {compact_from:?}, {outage:?} from {from}");
    let (tell, told) = crossbeam_channel::unbounded();
    let info =
        info(durability, compact_from).on_change(move |state| tell.send(state.clone()).unwrap());
    let disk = FakeDisk::default();
    disk.break_down_after(outage.first, from, outage.kinds);
    let broker = super::broker(&disk, RING, info.clone()).or_else(|error| {
        assert_eq!(error.kind(), ErrorKind::File, "{context}");
        disk.mend();
        super::broker(&disk, RING, info.clone())
    });
    let mut run = Run {
        durability,
        broker: broker.expect(&context),
        context,
        disk,
        told,
        next: 0,
        all: Default::default(),
        outages: 0,
    };
    run.outlast();
    run.publish_some();
    let operations = run.disk.operations();
    let failed = run.outages > 0;
    if failed {
        run.disk
            .break_down_after(outage.first, operations, outage.kinds);
        run.publish_some();
    }
    // At rest, nobody notices that it is broken; a stop would.
    run.disk.mend();
    let Run {
        context,
        disk,
        broker,
        told,
        all,
        ..
    } = run;
    broker.stop(LIMIT).expect(&context);
    drop(broker);
    assert!(told.is_empty(), "{context}");
    is_there_again(&disk, RING, &info, &all, &context);
    (operations, failed)
}

/// Runs with an outage from each operation on; the file is to fail by it, or not.
fn run_all(durability: Durability, outage: Outage, fails: bool) {
    for compact_from in [None, Some(1)] {
        let (operations, failed) = run(durability, compact_from, 1, of(&[]));
        assert!(operations > 5 && !failed);
        for from in 1..=operations {
            let (_, failed) = run(durability, compact_from, from, outage);
            // Not noticed are an outage within the start, one after the last operation of its kind, and one that only
            // keeps the file from being made smaller.
            if !fails || (from == operations / 2 && compact_from.is_none()) {
                assert_eq!(failed, fails, "{durability:?}, {outage:?} from {from}");
            }
        }
    }
}

#[test]
fn while_all_fails_publishes_are_refused_or_wait_and_go_on_once_the_disk_is_mended() {
    for durability in LEVELS {
        run_all(durability, of(&Kind::ALL), true);
        run_all(durability, of(&[Kind::Append]), true);
    }
}

#[test]
fn while_no_sync_succeeds_publishes_are_refused_or_wait_and_go_on_once_the_disk_is_mended() {
    for durability in LEVELS {
        run_all(
            durability,
            of(&[Kind::Sync]),
            durability != Durability::Buffered,
        );
    }
}

#[test]
fn a_file_that_is_not_trusted_and_can_not_be_replaced_fails_until_it_can() {
    for durability in [LEVELS[1], LEVELS[2]] {
        for kinds in [&[Kind::Create], &[Kind::Rename], &[Kind::SyncFolder]] {
            run_all(durability, after_a_sync(kinds), true);
        }
    }
}

#[test]
fn a_file_that_can_not_be_made_smaller_goes_on_as_it_is() {
    for durability in LEVELS {
        for kinds in [&[Kind::Create], &[Kind::Rename]] {
            run_all(durability, of(kinds), false);
        }
    }
}
