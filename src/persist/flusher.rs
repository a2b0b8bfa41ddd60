//! The thread that writes events to the file, so that nobody who publishes waits for the disk.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

use super::format::{count_lines, push_line};
use crate::event::Event;

/// Events that wait are written in pieces of about this size at least, once there is a reason to write.
const BATCH_BYTES: usize = 64 << 10;
/// How often lost events are logged at most, while more are being lost.
const LOSSES_LOGGED_EVERY: Duration = Duration::from_secs(10);

/// What the flusher needs of a file, so that tests can have one that fails, stalls or takes half.
pub(super) trait LogFile: Send + 'static {
    /// Appends the bytes or the first few of them, and says how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Returns when all that was appended would outlast a power failure.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file opened for appending.
impl LogFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// How far the flusher is: what the threads that publish, write and look at statistics share.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) written: AtomicU64,
    pub(super) write_failures: AtomicU64,
    pub(super) lost: AtomicU64,
    /// Counted when the event is in the queue, and so less than zero where the flusher was faster.
    pub(super) pending: AtomicI64,
    /// Bytes of the lines of all events that are pending; only the flusher makes it less.
    pub(super) pending_bytes: AtomicI64,
    /// Why the last attempt to write or sync failed; `None` where it worked.
    pub(super) failure: Mutex<Option<String>>,
}

impl Progress {
    pub(super) fn pending(&self) -> u64 {
        self.pending.load(Relaxed).max(0) as u64
    }
}

pub(super) struct Flusher<L> {
    pub(super) file: L,
    pub(super) file_name: PathBuf,
    /// False where the file ends within a line: a newline is written before the first event.
    pub(super) ends_with_newline: bool,
    pub(super) write_buffer_size: usize,
    pub(super) write_flush_period: Duration,
    pub(super) progress: Arc<Progress>,
    /// Disconnected when the persistor has been stopped, and then received to its end.
    pub(super) events: Receiver<Event>,
    /// A message when `write_buffer_size` has been reached, rather than for every event: a publisher who wakes this
    /// thread pays for it, with the broker's lock held. Disconnected when the persistor has been stopped.
    pub(super) wake: Receiver<()>,
    pub(super) writing: Writing,
}

/// The flusher's own state.
#[derive(Default)]
pub(super) struct Writing {
    /// Lines that are not in the file yet; the first of them may be in it by half.
    unwritten: Vec<u8>,
    /// Failed attempts since the last that worked.
    failed_attempts: u64,
    lost_logged: u64,
    losses_logged_at: Option<Instant>,
}

/// What ended a wait.
#[derive(PartialEq)]
enum Wait {
    Over,
    Stopped,
}

impl<L: LogFile> Flusher<L> {
    /// Writes until the persistor is stopped and everything is in the file and synced, or can't be.
    pub(super) fn run(mut self) {
        while let Ok(event) = self.events.recv() {
            self.wait(Instant::now(), |flusher| flusher.has_enough());
            push_line(&mut self.writing.unwritten, &event);
            self.fill();
            if !self.write_all() {
                return;
            }
        }
        if let Err(error) = self.file.sync() {
            self.failed(&error);
        }
        self.log_losses(true);
    }

    fn has_enough(&self) -> bool {
        self.progress.pending_bytes.load(Acquire) >= self.write_buffer_size as i64
    }

    /// Waits until the period since `start` is over, `done` holds after a wake-up, or the persistor is stopped.
    fn wait(&self, start: Instant, done: impl Fn(&Self) -> bool) -> Wait {
        while !done(self) {
            let left = self.write_flush_period.saturating_sub(start.elapsed());
            match self.wake.recv_timeout(left) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Wait::Stopped,
            }
        }
        Wait::Over
    }

    fn fill(&mut self) {
        let unwritten = &mut self.writing.unwritten;
        let enough = self.write_buffer_size.max(BATCH_BYTES);
        // The memory of an event much larger than the others is given back.
        if unwritten.capacity() > 4 * enough {
            unwritten.shrink_to(enough);
        }
        while unwritten.len() < enough
            && let Ok(event) = self.events.try_recv()
        {
            push_line(unwritten, &event);
        }
    }

    /// Writes what is unwritten, trying again each period; false where the persistor was stopped and it still fails.
    fn write_all(&mut self) -> bool {
        let mut last_try = false;
        while let Err(error) = self.write() {
            self.failed(&error);
            self.log_losses(last_try);
            if last_try {
                return false;
            }
            last_try = self.wait(Instant::now(), |_| false) == Wait::Stopped;
        }
        self.succeeded();
        true
    }

    /// Writes until nothing is unwritten or the file fails, and keeps exactly those bytes that it did not take.
    fn write(&mut self) -> io::Result<()> {
        if !self.ends_with_newline {
            append_all(&mut self.file, b"\n").1?;
            self.ends_with_newline = true;
        }
        let unwritten = &mut self.writing.unwritten;
        let (taken, result) = append_all(&mut self.file, unwritten);
        let events = count_lines(&unwritten[..taken]);
        unwritten.drain(..taken);
        self.progress.written.fetch_add(events, Relaxed);
        self.progress.pending.fetch_sub(events as i64, Relaxed);
        self.progress.pending_bytes.fetch_sub(taken as i64, Relaxed);
        result
    }

    fn failed(&mut self, error: &io::Error) {
        self.progress.write_failures.fetch_add(1, Relaxed);
        *self.progress.failure.lock() = Some(error.to_string());
        self.writing.failed_attempts += 1;
        if self.writing.failed_attempts == 1 {
            log::error!(
                "{} can't be written: {error}; {} events wait for it, and are tried again every {:?}",
                self.file_name.display(),
                self.progress.pending(),
                self.write_flush_period
            );
        }
    }

    fn succeeded(&mut self) {
        let failed_attempts = std::mem::take(&mut self.writing.failed_attempts);
        if failed_attempts > 0 {
            *self.progress.failure.lock() = None;
            log::warn!(
                "{} is written again, after {failed_attempts} attempts that failed",
                self.file_name.display()
            );
        }
        self.log_losses(failed_attempts > 0);
    }

    fn log_losses(&mut self, at_once: bool) {
        let lost = self.progress.lost.load(Relaxed);
        let writing = &mut self.writing;
        let lately = |at: Instant| at.elapsed() < LOSSES_LOGGED_EVERY;
        let wait = !at_once && writing.losses_logged_at.is_some_and(lately);
        if lost == writing.lost_logged || wait {
            return;
        }
        log::error!(
            "{}: {} events are not kept for the file, since too many wait for a disk that fails or is too slow; \
             subscribers get them all the same",
            self.file_name.display(),
            lost - writing.lost_logged
        );
        writing.lost_logged = lost;
        writing.losses_logged_at = Some(Instant::now());
    }
}

/// Appends until the file has taken everything or fails; also says how many bytes it took.
fn append_all(file: &mut impl LogFile, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut taken = 0;
    while taken < bytes.len() {
        match file.append(&bytes[taken..]) {
            Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => taken += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (taken, Err(error)),
        }
    }
    (taken, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
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
            persistor.append(&event);
            lines += &format!("{event}\n");
        }
        lines
    }

    #[test]
    fn nothing_is_written_before_the_buffer_is_full() {
        let file = FakeFile::default();
        let size = 4 * line_len(&event(1, "some data"));
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
        let max = 10 * line_len(&event(10, "some data")) as i64;
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
        let line = line_len(&event(1, "some data"));
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
}
