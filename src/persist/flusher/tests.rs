//! The flusher on files that fail, stall or take half.

use super::*;
use crate::ErrorKind;
use crate::broker::Store;
use crate::persist::format::line_len;
use crate::persist::tests::{event, wait_until};
use crate::persist::{FilePersistor, FilePersistorInfo, Loaded};
use std::collections::VecDeque;

/// How one write goes; those after the last step take everything.
enum Step {
    Take(usize),
    Fail(io::ErrorKind),
    /// Waits until the other end of the channel is dropped, then takes everything.
    Stall(Receiver<()>),
}

#[derive(Clone, Default)]
struct FakeFile {
    steps: Arc<Mutex<VecDeque<Step>>>,
    writes: Arc<Mutex<Vec<String>>>,
    broken: Arc<Mutex<bool>>,
    synced_writes: Arc<Mutex<Option<usize>>>,
}

impl FakeFile {
    fn with(steps: impl IntoIterator<Item = Step>) -> Self {
        let file = FakeFile::default();
        file.steps.lock().extend(steps);
        file
    }

    fn start(&self, write_buffer_size: usize, period: Duration, max: i64) -> FilePersistor {
        let info = FilePersistorInfo {
            write_buffer_size,
            write_flush_period: period,
            ..FilePersistorInfo::new("fake.log")
        };
        let loaded = Loaded {
            ends_with_newline: true,
            ..Loaded::default()
        };
        FilePersistor::start(self.clone(), &info, loaded, max).unwrap()
    }

    fn content(&self) -> String {
        self.writes.lock().concat()
    }
}

impl LogFile for FakeFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let step = self.steps.lock().pop_front();
        if *self.broken.lock() {
            return Err(io::Error::other("disk on fire"));
        }
        let taken = match step {
            None => bytes.len(),
            Some(Step::Take(most)) => most.min(bytes.len()),
            Some(Step::Fail(kind)) => return Err(kind.into()),
            Some(Step::Stall(until)) => {
                let _ = until.recv();
                bytes.len()
            }
        };
        let text = String::from_utf8(bytes[..taken].to_vec()).unwrap();
        self.writes.lock().push(text);
        Ok(taken)
    }

    fn sync(&mut self) -> io::Result<()> {
        if *self.broken.lock() {
            return Err(io::Error::other("disk on fire"));
        }
        *self.synced_writes.lock() = Some(self.writes.lock().len());
        Ok(())
    }
}

const SOON: Duration = Duration::from_millis(2);
const NEVER: Duration = Duration::MAX;
const LIMIT: Duration = Duration::from_secs(20);

fn append(persistor: &FilePersistor, timestamps: std::ops::Range<u64>) -> String {
    let mut lines = String::new();
    for timestamp in timestamps {
        let event = event(timestamp, "some data");
        persistor.append(Record::Published(event.clone()));
        lines += &format!("{event}\n");
    }
    lines
}

#[test]
fn nothing_is_written_before_the_buffer_is_full() {
    let file = FakeFile::default();
    let size = 4 * line_len(&Record::Published(event(1, "some data")));
    let persistor = file.start(size, NEVER, 1 << 20);
    let lines = append(&persistor, 1..5);
    wait_until(|| persistor.statistics().written == 4);
    assert_eq!(*file.writes.lock(), [lines]);
}

#[test]
fn an_event_is_written_when_its_period_is_over_though_the_buffer_is_not_full() {
    let file = FakeFile::default();
    let period = Duration::from_millis(50);
    let persistor = file.start(1 << 20, period, 1 << 20);
    let start = Instant::now();
    let lines = append(&persistor, 1..3);
    wait_until(|| persistor.statistics().written == 2);
    assert!(start.elapsed() >= period);
    assert_eq!(file.content(), lines);
}

#[test]
fn without_a_buffer_every_event_is_written_at_once() {
    let file = FakeFile::default();
    let persistor = file.start(0, NEVER, 1 << 20);
    let mut lines = String::new();
    for timestamp in 1..20 {
        lines += &append(&persistor, timestamp..timestamp + 1);
        wait_until(|| persistor.statistics().written == timestamp);
        assert_eq!(file.content(), lines);
    }
}

#[test]
fn stop_writes_and_syncs_what_the_buffer_holds() {
    let file = FakeFile::default();
    let persistor = file.start(1 << 20, NEVER, 1 << 20);
    let lines = append(&persistor, 1..1000);
    persistor.stop(LIMIT).unwrap();
    assert_eq!(file.content(), lines);
    assert_eq!(*file.synced_writes.lock(), Some(file.writes.lock().len()));
    persistor.stop(LIMIT).unwrap();
}

#[test]
fn short_and_failed_writes_neither_lose_nor_mangle_a_line() {
    let full = || Step::Fail(io::ErrorKind::StorageFull);
    let mut steps = vec![full(), full(), Step::Take(0)];
    for bytes in 0..300 {
        steps.push(Step::Take(bytes % 97 + 1));
        if bytes % 7 == 0 {
            steps.push(full());
        }
        if bytes % 5 == 0 {
            steps.push(Step::Fail(io::ErrorKind::Interrupted));
        }
    }
    let file = FakeFile::with(steps);
    let persistor = file.start(0, SOON, 1 << 20);
    let lines = append(&persistor, 1..500);
    wait_until(|| persistor.statistics().written == 499);
    assert_eq!(file.content(), lines);
    let statistics = persistor.statistics();
    assert_eq!((statistics.pending, statistics.lost), (0, 0));
    assert_eq!(statistics.write_failures, 2 + 1 + 43);
    persistor.stop(LIMIT).unwrap();
}

#[test]
fn append_does_not_wait_for_a_stalled_disk() {
    let (open, gate) = crossbeam_channel::bounded(0);
    let file = FakeFile::with([Step::Stall(gate)]);
    let persistor = file.start(0, SOON, 1 << 20);
    let mut lines = append(&persistor, 1..2);
    wait_until(|| file.steps.lock().is_empty());
    lines += &append(&persistor, 2..1000);
    let statistics = persistor.statistics();
    assert_eq!((statistics.written, statistics.pending), (0, 999));

    let error = persistor.stop(SOON).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StopTimeout);
    assert!(error.to_string().contains("999 events"), "{error}");

    drop(open);
    persistor.stop(LIMIT).unwrap();
    assert_eq!(file.content(), lines);
}

#[test]
fn beyond_the_bound_the_newest_events_are_lost_and_counted() {
    let file = FakeFile::default();
    *file.broken.lock() = true;
    let max = 10 * line_len(&Record::Published(event(10, "some data"))) as i64;
    let persistor = file.start(0, SOON, max);
    let mut lines = append(&persistor, 10..20);
    append(&persistor, 20..25);
    let statistics = persistor.statistics();
    assert_eq!((statistics.pending, statistics.lost), (10, 5));
    wait_until(|| persistor.statistics().write_failures > 2);

    *file.broken.lock() = false;
    wait_until(|| persistor.statistics().written == 10);
    lines += &append(&persistor, 25..35);
    persistor.stop(LIMIT).unwrap();
    assert_eq!(file.content(), lines);
    assert_eq!(persistor.statistics().lost, 5);
}

#[test]
fn stop_says_how_many_events_a_failing_disk_did_not_take() {
    let line = line_len(&Record::Published(event(1, "some data")));
    let full = || Step::Fail(io::ErrorKind::StorageFull);
    let file = FakeFile::with([Step::Take(line + 50), full(), full()]);
    let persistor = file.start(1 << 20, NEVER, 1 << 20);
    let lines = append(&persistor, 1..4);
    for _ in 0..2 {
        let error = persistor.stop(LIMIT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File);
        let text = error.to_string();
        let reason = io::Error::from(io::ErrorKind::StorageFull).to_string();
        assert!(
            text.contains("2 events") && text.contains(&reason),
            "{text}"
        );
    }
    let statistics = persistor.statistics();
    assert_eq!((statistics.written, statistics.pending), (1, 2));
    assert_eq!(statistics.write_failures, 2);
    assert_eq!(file.content(), lines[..line + 50]);
}

#[test]
fn stop_tries_a_failed_write_once_more_at_once() {
    let file = FakeFile::with([Step::Take(100), Step::Fail(io::ErrorKind::StorageFull)]);
    let persistor = file.start(0, NEVER, 1 << 20);
    let mut lines = append(&persistor, 1..2);
    wait_until(|| persistor.statistics().write_failures == 1);
    lines += &append(&persistor, 2..9);
    persistor.stop(LIMIT).unwrap();
    assert_eq!(file.content(), lines);
}

#[test]
fn a_failed_sync_at_stop_is_told() {
    let file = FakeFile::default();
    let persistor = file.start(0, NEVER, 1 << 20);
    append(&persistor, 1..2);
    wait_until(|| persistor.statistics().written == 1);
    *file.broken.lock() = true;
    let error = persistor.stop(LIMIT).unwrap_err();
    assert!(error.to_string().contains("disk on fire"), "{error}");
}

#[test]
fn an_event_after_stop_is_counted_as_lost() {
    let file = FakeFile::default();
    let persistor = file.start(0, SOON, 1 << 20);
    persistor.stop(LIMIT).unwrap();
    append(&persistor, 1..3);
    assert_eq!(persistor.statistics().lost, 2);
    assert_eq!(file.content(), "");
}

#[test]
fn dropping_the_persistor_writes_what_it_holds() {
    let file = FakeFile::default();
    let persistor = file.start(1 << 20, NEVER, 1 << 20);
    let lines = append(&persistor, 1..4);
    drop(persistor);
    assert_eq!(file.content(), lines);
}
