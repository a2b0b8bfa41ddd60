//! A group commit on a log that fails, panics and is compacted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::*;
use crate::broker::{Broker, BrokerOptions};
use crate::position::Cursor;

const LIMIT: Duration = Duration::from_secs(20);

/// A log in memory, and what its next calls do.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<LogState>>);

#[derive(Default)]
struct LogState {
    records: Vec<Record>,
    writes: usize,
    replaced: usize,
    fails: bool,
    panics: bool,
    compacts_from: Option<usize>,
    replace_fails: bool,
    closed: usize,
    close_fails: bool,
}

impl Log {
    fn state(&self) -> MutexGuard<'_, LogState> {
        self.0.lock()
    }
}

fn on_fire() -> Error {
    Error::store("disk on fire")
}

impl RecordLog for Log {
    fn open(&mut self, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        self.state().records.iter().cloned().for_each(each);
        Ok(())
    }

    fn write(&mut self, records: &[Record]) -> Result<(), Error> {
        let mut state = self.state();
        state.writes += 1;
        assert!(!state.panics, "on purpose");
        if state.fails {
            return Err(on_fire());
        }
        state.records.extend_from_slice(records);
        Ok(())
    }

    fn is_due_for_compaction(&self, live_bytes: u64) -> bool {
        let state = self.state();
        let is_due = |from| state.records.len() > from && live_bytes > 0;
        state.compacts_from.is_some_and(is_due)
    }

    fn replace(&mut self, records: &[Record]) -> Result<(), Error> {
        let mut state = self.state();
        state.replaced += 1;
        if state.replace_fails {
            return Err(on_fire());
        }
        state.records = records.to_vec();
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        let mut state = self.state();
        state.closed += 1;
        match state.close_fails {
            true => Err(on_fire()),
            false => Ok(()),
        }
    }
}

fn broker(log: &Log, set: impl FnOnce(GroupCommit<Log>) -> GroupCommit<Log>) -> Broker {
    let options = BrokerOptions::new().events_per_category(4);
    Broker::with_store(options, set(GroupCommit::new(log.clone()))).unwrap()
}

fn acknowledged(store: GroupCommit<Log>) -> GroupCommit<Log> {
    store
}

fn every_hour(store: GroupCommit<Log>) -> GroupCommit<Log> {
    store.flush_every(Duration::from_secs(3600))
}

/// Asserts that a broker has these numbers after a restart, without a gap.
fn assert_restored(log: &Log, expected: &[u64]) {
    let broker = broker(log, acknowledged);
    let batch = broker.subscribe("c", Cursor::Oldest, Duration::ZERO);
    let batch = batch.unwrap();
    let numbers: Vec<u64> = batch
        .events()
        .iter()
        .map(|event| event.decode().unwrap())
        .collect();
    assert_eq!(numbers, expected);
    let last = batch.events()[expected.len() - 2].id();
    let batch = broker.subscribe("c", Cursor::LastId(last), Duration::ZERO);
    assert!(!batch.unwrap().gap());
    broker.stop(LIMIT).unwrap();
}

#[test]
fn events_whose_write_fails_are_refused_and_the_next_publish_tries_again() {
    let log = Log::default();
    let broker = broker(&log, acknowledged);
    broker.publish("c", &1).unwrap();
    log.state().fails = true;
    for _ in 0..3 {
        let error = broker.publish("c", &0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.report().to_string().ends_with("disk on fire"));
    }
    let statistics = broker.statistics().store;
    assert_eq!((statistics.failures, statistics.pending), (3, 1));
    assert!(statistics.failing.unwrap().ends_with("disk on fire"));
    log.state().fails = false;
    broker.publish("c", &2).unwrap();
    let statistics = broker.statistics().store;
    assert_eq!((statistics.failing, statistics.pending), (None, 0));
    broker.stop(LIMIT).unwrap();
    let refused = |record: &&Record| matches!(record, Record::Refused(_));
    assert_eq!(log.state().records.iter().filter(refused).count(), 1);
    assert_restored(&log, &[1, 2]);
}

#[test]
fn publishers_of_one_moment_share_a_write() {
    let log = Log::default();
    let broker = broker(&log, acknowledged);
    let before = log.state().writes;
    // The first write waits for the lock of the log until all have appended.
    let held = log.state();
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let broker = broker.clone();
            std::thread::spawn(move || broker.publish("c", &number).map(drop))
        })
        .collect();
    let began = Instant::now();
    while broker.statistics().store.pending < 8 {
        assert!(began.elapsed() < LIMIT, "not all have appended");
        std::thread::yield_now();
    }
    drop(held);
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    assert!(log.state().writes - before <= 2);
    broker.stop(LIMIT).unwrap();
}

#[test]
fn without_acknowledgement_a_failed_write_is_made_again_and_a_full_queue_refuses() {
    let log = Log::default();
    let broker = broker(&log, |store| every_hour(store).max_queue_size(1000));
    log.state().fails = true;
    let error = (0..)
        .find_map(|number| broker.publish("c", &number).err())
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Busy);
    let report = error.report().to_string();
    assert!(report.contains("max_queue_size, 1000 bytes") && report.ends_with("disk on fire"));
    let failures = broker.statistics().store.failures;
    assert!(failures >= 1);
    let published = broker.statistics().published;
    assert!((3..10).contains(&published));
    // A stop that fails can be repeated.
    let error = broker.stop(LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::File);
    log.state().fails = false;
    broker.stop(LIMIT).unwrap();
    assert_eq!(log.state().closed, 1);
    let kept = log.state().records.iter().filter_map(Record::event).count();
    assert_eq!(kept as u64, published);
}

#[test]
fn a_periodic_write_that_fails_counts_once() {
    let log = Log::default();
    let broker = broker(&log, |store| store.flush_every(Duration::from_millis(1)));
    broker.publish("c", &1).unwrap();
    let wait_for = |done: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < LIMIT);
            std::thread::yield_now();
        }
    };
    wait_for(&|| broker.statistics().store.pending == 0);
    let before = log.state().writes;
    log.state().fails = true;
    broker.publish("c", &2).unwrap();
    wait_for(&|| broker.statistics().store.failures > 2);
    log.state().fails = false;
    wait_for(&|| broker.statistics().store.failing.is_none());
    // All writes since the failure began have failed but the last.
    let failures = (log.state().writes - before - 1) as u64;
    assert_eq!(broker.statistics().store.failures, failures);
    broker.stop(LIMIT).unwrap();
    assert_restored(&log, &[1, 2]);
}

#[test]
fn a_full_queue_is_written_by_the_publisher_that_needs_room() {
    let log = Log::default();
    let broker = broker(&log, |store| every_hour(store).max_queue_size(1000));
    for number in 0..100 {
        broker.publish("c", &number).unwrap();
    }
    assert!(log.state().writes > 5);
    assert!(broker.statistics().store.pending_bytes <= 1000);
    broker.stop(LIMIT).unwrap();
    assert_restored(&log, &[96, 97, 98, 99]);
}

#[test]
fn records_of_a_write_that_panics_are_written_by_the_next_one_once() {
    let log = Log::default();
    let broker = broker(&log, acknowledged);
    log.state().panics = true;
    let publish = || broker.publish("c", &1);
    assert!(catch_unwind(AssertUnwindSafe(publish)).is_err());
    log.state().panics = false;
    broker.publish("c", &2).unwrap();
    broker.stop(LIMIT).unwrap();
    assert_restored(&log, &[1, 2]);
}

#[test]
fn a_log_that_has_grown_is_replaced_by_the_events_in_memory() {
    for set in [acknowledged, every_hour] {
        let log = Log::default();
        log.state().compacts_from = Some(20);
        let broker = broker(&log, |store| set(store).max_queue_size(500));
        for number in 0..200_u64 {
            broker.publish("c", &number).unwrap();
        }
        if broker.acknowledges() {
            let replaced = log.state().replaced as u64;
            assert!(replaced > 5);
            assert_eq!(broker.statistics().store.rewritten, replaced);
            assert!(log.state().records.len() <= 21);
        }
        broker.stop(LIMIT).unwrap();
        assert!(matches!(log.state().records.last(), Some(Record::Ended(_))));
        assert_restored(&log, &[196, 197, 198, 199]);
    }
}

#[test]
fn a_compaction_that_fails_refuses_no_event_and_is_not_tried_again_at_once() {
    let log = Log::default();
    {
        let mut state = log.state();
        (state.compacts_from, state.replace_fails) = (Some(5), true);
    }
    let broker = broker(&log, acknowledged);
    for number in 0..20 {
        broker.publish("c", &number).unwrap();
    }
    assert_eq!(log.state().replaced, 1);
    assert_eq!(broker.statistics().store.failures, 1);
    broker.stop(LIMIT).unwrap();
    assert_restored(&log, &[16, 17, 18, 19]);
}

#[test]
fn a_store_that_was_never_started_is_stopped_without_a_call_of_its_log() {
    let log = Log::default();
    let store = GroupCommit::new(log.clone());
    store.stop(LIMIT).unwrap();
    assert_eq!(log.state().closed, 0);
    assert!(format!("{store:?}").starts_with("GroupCommit { flush_period: None"));
}

#[test]
fn an_error_of_closing_is_an_error_of_the_stop_and_closing_is_not_repeated() {
    let log = Log::default();
    log.state().close_fails = true;
    let broker = broker(&log, acknowledged);
    let error = broker.stop(LIMIT).unwrap_err();
    assert_eq!(error.report().to_string(), "the store failed: disk on fire");
    broker.stop(LIMIT).unwrap();
    assert_eq!(log.state().closed, 1);
}

#[test]
fn a_stop_while_a_write_does_not_return_ends_at_its_timeout_and_can_be_repeated() {
    let log = Log::default();
    let mut store = GroupCommit::new(log.clone());
    store.start(Snapshot::default(), &mut |_| {}).unwrap();
    let store = Arc::new(store);
    let ticket = store.append(Record::Damaged).unwrap();
    let held = log.state();
    let flushing = store.clone();
    let flush = std::thread::spawn(move || flushing.flush(ticket));
    let began = Instant::now();
    while store.writer.try_lock().is_some() {
        assert!(began.elapsed() < LIMIT, "the flush does not begin");
        std::thread::yield_now();
    }
    let error = store.stop(Duration::from_millis(10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StopTimeout);
    assert!(
        error.to_string().starts_with("1 records are not"),
        "{error}"
    );
    drop(held);
    flush.join().unwrap().unwrap();
    store.stop(LIMIT).unwrap();
    assert_eq!(
        store.append(Record::Damaged).unwrap_err().kind(),
        ErrorKind::Stopped
    );
}

#[test]
fn a_box_of_a_store_is_a_store() {
    let log = Log::default();
    let boxed: Box<dyn Store> = Box::new(every_hour(GroupCommit::new(log.clone())));
    assert_eq!(boxed.flush_period(), Some(Duration::from_secs(3600)));
    assert!(!boxed.acknowledges());
    let broker = Broker::with_store(BrokerOptions::new(), boxed).unwrap();
    broker.publish("c", &1).unwrap();
    assert_eq!(broker.statistics().store.pending, 1);
    broker.stop(LIMIT).unwrap();
    assert_eq!(log.state().records.len(), 3);
    assert!(Box::new(crate::store::NoStore).keeps_nothing());
}
