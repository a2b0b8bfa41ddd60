//! The thread that writes events to the file, so that nobody who publishes waits for the disk.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

use super::format::{count_lines, push_line};
use crate::broker::Record;

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
    /// Somebody waits for all that is pending.
    pub(super) urgent: AtomicBool,
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
    pub(super) records: Receiver<Record>,
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
        while let Ok(record) = self.records.recv() {
            self.wait(Instant::now(), |flusher| flusher.has_enough());
            push_line(&mut self.writing.unwritten, &record);
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
        self.progress.urgent.load(Acquire)
            || self.progress.pending_bytes.load(Acquire) >= self.write_buffer_size as i64
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
            && let Ok(record) = self.records.try_recv()
        {
            push_line(unwritten, &record);
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
mod tests;
