//! Stores that break a rule each: the conformance tests say which.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use long_polling::store::{GroupCommit, Record, RecordLog, Snapshot, Store, StoreStatistics};
use long_polling::testing::{Fault, RuleOutcome, StoreConformance, StorePlace};
use long_polling::{Error, ErrorKind};

/// What a store does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    ForgetsNewest,
    ForgetsEarlierRuns,
    Reorders,
    LosesTaken,
    ChangesText,
    RepeatsTickets,
    SettlesTooMuch,
    WritesInAppend,
    WaitsForFlushInStatistics,
    FlushesTooSoon,
    WritesAtStopOnly,
    KeepsRefused,
    OmitsRefused,
    RefusesAsBroken,
    RefusesForEver,
    ChangesPromise,
    StopsOnce,
    AcceptsAfterStop,
    StaysLocked,
    PanicsInFlush,
}

/// A disk in memory, which can stall and fail.
#[derive(Clone, Default)]
struct Disk(Arc<(Mutex<DiskState>, Condvar)>);

#[derive(Default)]
struct DiskState {
    records: Vec<Record>,
    fault: Option<Fault>,
    locked: bool,
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, DiskState> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log of a store, and what it does wrong.
struct Log {
    disk: Disk,
    flaw: Flaw,
    /// The newest record, if the log writes it with the next one.
    held_back: Vec<Record>,
}

impl RecordLog for Log {
    fn open(&mut self, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        let mut state = self.disk.state();
        if state.locked {
            return Err(Error::store("the log is in use"));
        }
        state.locked = self.flaw == Flaw::StaysLocked;
        if self.flaw == Flaw::ForgetsNewest {
            state.records.pop();
        }
        if self.flaw == Flaw::Reorders && state.records.len() > 30 {
            state.records.swap(20, 21);
        }
        state.records.iter().cloned().for_each(each);
        if self.flaw == Flaw::ForgetsEarlierRuns {
            state.records.clear();
        }
        Ok(())
    }

    fn write(&mut self, records: &[Record]) -> Result<(), Error> {
        let mut state = self.disk.state();
        while state.fault == Some(Fault::Stall) {
            let waited = self.disk.0.1.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let fails = state.fault == Some(Fault::Fail);
        let flaw = self.flaw;
        if !fails || flaw == Flaw::KeepsRefused {
            let kept = |record: &Record| match record {
                Record::Taken { .. } => flaw != Flaw::LosesTaken,
                Record::Refused(_) => flaw != Flaw::OmitsRefused,
                _ => true,
            };
            let mut records = [&self.held_back, records].concat();
            if flaw == Flaw::FlushesTooSoon {
                self.held_back = records.split_off(records.len() - 1);
            }
            let written = records.into_iter().filter(kept);
            state.records.extend(written.map(|record| match record {
                Record::Lost {
                    sequence,
                    timestamp,
                    ..
                } if flaw == Flaw::ChangesText => Record::Lost {
                    category: "".into(),
                    sequence,
                    timestamp,
                },
                record => record,
            }));
        }
        match fails {
            true => Err(Error::store("disk on fire")),
            false => Ok(()),
        }
    }

    fn close(&mut self) -> Result<(), Error> {
        let mut state = self.disk.state();
        state.records.append(&mut self.held_back);
        state.locked = false;
        Ok(())
    }
}

/// A store that keeps the rules, but for its flaw.
struct Flawed {
    inner: GroupCommit<Log>,
    flaw: Flaw,
    flushing: Mutex<()>,
    flushed: AtomicBool,
    stopped: AtomicBool,
    admitted: AtomicU64,
}

impl Flawed {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }
}

impl Store for Flawed {
    fn start(&mut self, snapshot: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        self.inner.start(snapshot, each)
    }

    fn admit(&self, bytes: usize) -> Result<(), Error> {
        let admitted = self.admitted.fetch_add(bytes as u64, Ordering::SeqCst);
        if admitted > 1 << 20 && self.has(Flaw::RefusesAsBroken) {
            return Err(Error::new(ErrorKind::File, "full"));
        }
        if admitted > 1 << 20 && self.has(Flaw::RefusesForEver) {
            return Err(Error::new(ErrorKind::Busy, "full"));
        }
        self.inner.admit(bytes)
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        if self.has(Flaw::AcceptsAfterStop) && self.stopped.load(Ordering::SeqCst) {
            return Ok(u64::MAX);
        }
        let ticket = self.inner.append(record)?;
        if self.has(Flaw::WritesInAppend) {
            let _ = self.inner.flush(ticket);
        }
        Ok(match self.flaw {
            Flaw::RepeatsTickets => ticket.div_ceil(2),
            _ => ticket,
        })
    }

    fn flush(&self, ticket: u64) -> Result<(), Error> {
        let _flushing = self.flushing.lock();
        self.flushed.store(true, Ordering::SeqCst);
        assert!(!self.has(Flaw::PanicsInFlush), "on purpose");
        match self.flaw {
            Flaw::WritesAtStopOnly => Ok(()),
            Flaw::RepeatsTickets => self.inner.flush(2 * ticket - 1),
            _ => self.inner.flush(ticket),
        }
    }

    fn settled(&self) -> u64 {
        match self.flaw {
            Flaw::SettlesTooMuch => u64::MAX,
            Flaw::RepeatsTickets => 0,
            _ => self.inner.settled(),
        }
    }

    fn acknowledges(&self) -> bool {
        !(self.has(Flaw::ChangesPromise) && self.flushed.load(Ordering::SeqCst))
    }

    fn stop(&self, timeout: Duration) -> Result<(), Error> {
        if self.stopped.swap(true, Ordering::SeqCst) && self.has(Flaw::StopsOnce) {
            return Err(Error::store("stopped already"));
        }
        self.inner.stop(timeout)
    }

    fn statistics(&self) -> StoreStatistics {
        if self.has(Flaw::WaitsForFlushInStatistics) {
            let _flushing = self.flushing.lock();
        }
        self.inner.statistics()
    }
}

/// The disk of a flawed store.
struct Place {
    disk: Disk,
    flaw: Flaw,
}

impl Place {
    fn new(flaw: Flaw) -> Self {
        let disk = Disk::default();
        Place { disk, flaw }
    }

    fn store(&self, disk: Disk) -> Box<dyn Store> {
        let flaw = self.flaw;
        Box::new(Flawed {
            inner: GroupCommit::new(Log {
                disk,
                flaw,
                held_back: Vec::new(),
            }),
            flaw,
            flushing: Mutex::default(),
            flushed: AtomicBool::default(),
            stopped: AtomicBool::default(),
            admitted: AtomicU64::default(),
        })
    }
}

impl StorePlace for Place {
    fn open(&self) -> Result<Box<dyn Store>, Error> {
        Ok(self.store(self.disk.clone()))
    }

    fn after_kill(&self) -> Result<Option<Box<dyn Store>>, Error> {
        let copy = Disk::default();
        copy.state().records = self.disk.state().records.clone();
        Ok(Some(self.store(copy)))
    }

    fn set_fault(&self, fault: Option<Fault>) -> bool {
        self.disk.state().fault = fault;
        self.disk.0.1.notify_all();
        true
    }
}

/// Asserts that a store with this flaw breaks a rule, and what the report says of it.
fn breaks(flaw: Flaw, rule: &str, seen: &str) {
    let conformance = StoreConformance::new(|| Place::new(flaw)).only(rule);
    // Only some flaws are seen by a wait for the whole limit; a busy machine may need it for the others.
    let limit = match flaw {
        Flaw::WritesInAppend
        | Flaw::WaitsForFlushInStatistics
        | Flaw::RefusesForEver
        | Flaw::StaysLocked => 3,
        _ => 10,
    };
    let report = conformance.limit(Duration::from_secs(limit)).run();
    let [checked] = report.rules() else {
        panic!("one rule was to be checked: {report}");
    };
    match &checked.outcome {
        RuleOutcome::Broken(text) => assert!(text.contains(seen), "{flaw:?}: {report}"),
        outcome => panic!("{flaw:?}, {rule}: {outcome:?}"),
    }
    assert_eq!(report.broken(), [rule]);
    assert!(
        report
            .to_string()
            .starts_with(&format!("BROKEN       {rule}: "))
    );
}

#[test]
fn a_store_without_a_flaw_keeps_every_rule() {
    let report = StoreConformance::new(|| Place::new(Flaw::None)).run();
    report.assert_kept();
    assert!(report.not_checked().is_empty(), "{report}");
}

#[test]
#[should_panic(expected = "BROKEN       tickets grow: `append` returned 1 after 1")]
fn the_assertion_of_a_report_panics_with_the_rule_and_what_was_seen() {
    let conformance = StoreConformance::new(|| Place::new(Flaw::RepeatsTickets));
    conformance.only("tickets grow").run().assert_kept();
}

#[test]
#[should_panic(expected = "no rule is named \"append waits\"")]
fn a_rule_that_does_not_exist_can_not_be_chosen() {
    let conformance = StoreConformance::new(|| Place::new(Flaw::None));
    let _ = conformance.only("append waits").run();
}

#[test]
fn a_store_that_forgets_the_newest_record_is_found() {
    let rule = "records of earlier runs stay, and the newest too";
    breaks(Flaw::ForgetsNewest, rule, "10 records appended, 9 replayed");
}

#[test]
fn a_store_that_forgets_earlier_runs_is_found() {
    let rule = "records of earlier runs stay, and the newest too";
    breaks(
        Flaw::ForgetsEarlierRuns,
        rule,
        "20 records appended, 10 replayed",
    );
}

#[test]
fn a_store_that_reorders_records_is_found() {
    let rule = "records are replayed in the order of append";
    breaks(Flaw::Reorders, rule, "record 21, a Published, was");
}

#[test]
fn a_store_that_loses_a_kind_of_record_is_found() {
    let rule = "every kind of record is replayed exactly";
    breaks(Flaw::LosesTaken, rule, r#"["Taken"]"#);
    let rule = "a broker's retrievals that delete are kept";
    breaks(Flaw::LosesTaken, rule, "retrieved and deleted");
}

#[test]
fn a_store_that_changes_a_record_is_found() {
    let rule = "every kind of record is replayed exactly";
    breaks(Flaw::ChangesText, rule, r#"["Lost"]"#);
}

#[test]
fn a_store_whose_tickets_do_not_grow_is_found() {
    breaks(Flaw::RepeatsTickets, "tickets grow", "returned 1 after 1");
}

#[test]
fn a_store_that_settles_more_than_it_has_is_found() {
    let rule = "settled is a ticket up to which flush returns at once";
    breaks(Flaw::SettlesTooMuch, rule, "`settled` returned");
    let rule = "flush succeeds only once the disk has the record";
    breaks(Flaw::SettlesTooMuch, rule, "while the disk stalled");
}

#[test]
fn a_store_that_waits_for_the_disk_in_append_is_found() {
    let rule = "append does not wait for the disk";
    breaks(Flaw::WritesInAppend, rule, "`append` did not return within");
}

#[test]
fn a_store_whose_statistics_wait_for_a_flush_is_found() {
    let rule = "statistics do not wait for the disk";
    breaks(
        Flaw::WaitsForFlushInStatistics,
        rule,
        "`statistics` did not return",
    );
}

#[test]
fn a_store_that_flushes_before_a_record_is_kept_is_found() {
    let rule = "flushed records are kept if the process is killed";
    breaks(
        Flaw::FlushesTooSoon,
        rule,
        "10 records appended, 9 replayed",
    );
    breaks(Flaw::WritesAtStopOnly, rule, "with 10 records flushed");
    let rule = "flush succeeds only once the disk has the record";
    breaks(
        Flaw::WritesAtStopOnly,
        rule,
        "returned Ok while the disk stalled",
    );
}

#[test]
fn a_store_that_keeps_an_event_whose_publisher_got_an_error_is_found() {
    let rule = "a record whose flush failed is kept later or replaced by Refused";
    breaks(Flaw::KeepsRefused, rule, "its publisher got an error");
}

#[test]
fn a_store_that_drops_an_event_without_a_word_is_found() {
    let rule = "a record whose flush failed is kept later or replaced by Refused";
    breaks(Flaw::OmitsRefused, rule, "no Refused is in its place");
}

#[test]
fn a_store_that_refuses_with_another_kind_or_for_ever_is_found() {
    let rule = "admit refuses with the kind Busy, and only while there is no room";
    breaks(Flaw::RefusesAsBroken, rule, "kind File");
    breaks(Flaw::RefusesForEver, rule, "after all records were flushed");
}

#[test]
fn a_store_whose_promise_changes_is_found() {
    let rule = "acknowledges and flush_period never change";
    breaks(Flaw::ChangesPromise, rule, "after a flush");
}

#[test]
fn a_store_that_can_be_stopped_only_once_is_found() {
    breaks(
        Flaw::StopsOnce,
        "stop can be called again",
        "stopped already",
    );
}

#[test]
fn a_store_that_accepts_records_after_its_stop_and_loses_them_is_found() {
    let rule = "append after the stop fails, or keeps the record";
    breaks(
        Flaw::AcceptsAfterStop,
        rule,
        "4 records appended, 3 replayed",
    );
}

#[test]
fn a_store_that_can_not_be_opened_again_without_a_stop_is_found() {
    let rule = "flushed records are kept without a stop";
    breaks(Flaw::StaysLocked, rule, "the log is in use");
}

#[test]
fn a_store_that_panics_is_found() {
    let rule = "records are replayed in the order of append";
    breaks(Flaw::PanicsInFlush, rule, "`flush` panicked");
}
