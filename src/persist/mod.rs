//! File persistence: every event in a file, written in the background and read back by the next start.

mod flusher;
mod format;
mod recovery;

use std::convert::Infallible;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;

use self::flusher::{Flusher, LogFile, Progress, Writing};
use self::format::{MAX_LINE_BYTES, line_len};
pub(crate) use self::recovery::Loaded;
use crate::broker::{Broker, BrokerOptions, Clock, FileStatistics, Record, Store};
use crate::error::{Error, ErrorKind};

/// Where and how events are kept in a file, so that the next start has them again: the Go package's `FilePersistorInfo`.
///
/// The file has one line of JSON for each event, as golongpoll's has, and golongpoll's own files are read too. Events
/// are written in the background: a publish does not wait for the disk, and what has not been written when the process
/// is killed is lost. Stopping the server or broker writes everything.
///
/// The Go package's `Use: false` is `None` in place of this.
///
/// ```
/// use std::time::Duration;
/// use long_polling::FilePersistorInfo;
///
/// let info = FilePersistorInfo {
///     write_buffer_size: 1000,
///     write_flush_period: Duration::from_secs(5),
///     ..FilePersistorInfo::new("/var/lib/longpoll/events.db")
/// };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePersistorInfo {
    /// The file, made where it is missing, in a folder that exists: the Go package's `FileName`. One broker at a time may
    /// have it.
    pub file_name: PathBuf,
    /// Events are written once this many bytes of them wait: the Go package's `WriteBufferSize`. With 0, every event is
    /// written at once; more than 16 MiB counts as 16 MiB. Defaults to 64 KiB.
    pub write_buffer_size: usize,
    /// Events are written at the latest this long after the first that waits, and tried again this often where the
    /// disk fails: the Go package's `WriteFlushPeriodSeconds`. Zero is an error. Defaults to 1 second.
    pub write_flush_period: Duration,
}

impl FilePersistorInfo {
    /// This file, with the default buffer (64 KiB) and flush period (1 second).
    pub fn new(file_name: impl Into<PathBuf>) -> Self {
        FilePersistorInfo {
            file_name: file_name.into(),
            write_buffer_size: 64 << 10,
            write_flush_period: Duration::from_secs(1),
        }
    }

    /// # Errors
    ///
    /// `InvalidSetting` that names the setting.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.file_name.as_os_str().is_empty() {
            let problem = "empty; name a file, or persist nothing";
            return Err(Error::setting("FilePersistorInfo::file_name", problem));
        }
        if self.write_flush_period.is_zero() {
            let problem = "zero; give a time, such as 1 second, and for writing every event at once \
                           set write_buffer_size to 0";
            return Err(Error::setting(
                "FilePersistorInfo::write_flush_period",
                problem,
            ));
        }
        Ok(())
    }
}

/// Bytes of events that may wait for the file, while the disk fails or stalls; an event beyond is lost to the file.
/// No less than a line may have, so that every event that can be read back can be written.
const MAX_PENDING_BYTES: i64 = MAX_LINE_BYTES as i64;
/// Small beside [`MAX_PENDING_BYTES`], which counts what the buffer holds too.
const MAX_WRITE_BUFFER_BYTES: usize = 16 << 20;
/// How long a start waits for the disk to take that a run began.
const START_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a persistor that is dropped without a stop may take to write what it holds.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// A file that events are appended to, and the thread that does so.
pub(crate) struct FilePersistor {
    file_name: PathBuf,
    write_buffer_size: i64,
    max_pending_bytes: i64,
    loaded: Loaded,
    progress: Arc<Progress>,
    /// `None` once stopped. Dropped as a whole, so that no event can come after the flusher has seen its end.
    queue: Mutex<Option<Queue>>,
    /// Disconnected when the flusher has ended.
    ended: Receiver<Infallible>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Queue {
    records: Sender<Record>,
    wake: Sender<()>,
}

impl FilePersistor {
    /// Opens the file, makes it where it is missing, and gives `each` of its events in the file's order.
    ///
    /// What can't be read is skipped, counted and logged.
    ///
    /// # Errors
    ///
    /// `InvalidSetting` for a setting that can't be used; `File` where the file can't be opened or read.
    pub(crate) fn open(
        info: &FilePersistorInfo,
        each: impl FnMut(Record),
    ) -> Result<(FilePersistor, Loaded), Error> {
        info.check()?;
        let file = open_file(&info.file_name)?;
        let loaded = recovery::read_back(&file, &info.file_name, each).map_err(|error| {
            let problem = "can't be read to its end";
            unusable(&info.file_name, problem).because(error)
        })?;
        let persistor = FilePersistor::start(file, info, loaded, MAX_PENDING_BYTES)?;
        Ok((persistor, loaded))
    }

    fn start<L: LogFile>(
        file: L,
        info: &FilePersistorInfo,
        loaded: Loaded,
        max_pending_bytes: i64,
    ) -> Result<Self, Error> {
        let write_buffer_size = info.write_buffer_size.min(MAX_WRITE_BUFFER_BYTES);
        let progress = Arc::new(Progress::default());
        let (records, flusher_records) = crossbeam_channel::unbounded();
        let (wake, flusher_wake) = crossbeam_channel::bounded(1);
        let (end, ended) = crossbeam_channel::bounded(0);
        let flusher = Flusher {
            file,
            file_name: info.file_name.clone(),
            ends_with_newline: loaded.ends_with_newline,
            write_buffer_size,
            write_flush_period: info.write_flush_period,
            progress: progress.clone(),
            records: flusher_records,
            wake: flusher_wake,
            writing: Writing::default(),
        };
        let run = move || {
            let _end: Sender<Infallible> = end;
            flusher.run();
        };
        let thread = thread::Builder::new()
            .name("long-polling-flusher".into())
            .spawn(run)
            .map_err(|error| {
                let problem = "the thread that writes it can't be started";
                unusable(&info.file_name, problem).because(error)
            })?;
        Ok(FilePersistor {
            file_name: info.file_name.clone(),
            write_buffer_size: write_buffer_size as i64,
            max_pending_bytes,
            loaded,
            progress,
            queue: Mutex::new(Some(Queue { records, wake })),
            ended,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Waits for the flusher, but not for long where the disk fails: that is told elsewhere.
    fn wait_until_written(&self) {
        let end = Instant::now() + START_TIMEOUT;
        while self.progress.pending() > 0 && Instant::now() < end {
            thread::park_timeout(Duration::from_millis(1));
        }
        self.progress.urgent.store(false, Release);
    }
}

impl Store for FilePersistor {
    /// Hands a record to the flusher, and never waits for the disk, but for the first: that a run began is in the file
    /// before anybody can see an event of it. The file has records in the order of these calls.
    fn append(&self, record: Record) {
        let progress = &*self.progress;
        let bytes = line_len(&record) as i64;
        let guard = self.queue.lock();
        let Some(queue) = &*guard else {
            progress.lost.fetch_add(1, Relaxed);
            log::error!(
                "{}: {record:?} came after the stop and is not in the file",
                self.file_name.display()
            );
            return;
        };
        // Losses are logged by the flusher: the broker holds its lock here.
        if progress.pending_bytes.load(Relaxed) + bytes > self.max_pending_bytes {
            progress.lost.fetch_add(1, Relaxed);
            return;
        }
        // Fails only where the flusher gave up, and then the event stays pending, which `stop` tells.
        let urgent = matches!(record, Record::Started(_));
        let _ = queue.records.send(record);
        // Counted after it was sent, so that the flusher finds all that is counted.
        progress.pending.fetch_add(1, Relaxed);
        let before = progress.pending_bytes.fetch_add(bytes, Release);
        if before < self.write_buffer_size && before + bytes >= self.write_buffer_size {
            let _ = queue.wake.try_send(());
        }
        if urgent {
            progress.urgent.store(true, Release);
            let _ = queue.wake.try_send(());
        }
        drop(guard);
        if urgent {
            self.wait_until_written();
        }
    }

    /// Writes what waits, syncs the file and ends the thread. A second call waits for the same, and says the same.
    ///
    /// # Errors
    ///
    /// `StopTimeout` where the disk needs longer; it goes on meanwhile. `File` where it fails, twice, and says how many
    /// events are not in the file.
    fn stop(&self, timeout: Duration) -> Result<(), Error> {
        self.queue.lock().take();
        let ended = self.ended.recv_timeout(timeout);
        let name = self.file_name.display();
        let pending = self.progress.pending();
        if ended == Err(RecvTimeoutError::Timeout) {
            let message = format!(
                "{pending} events are not in the file {name} after {timeout:?}: the disk is too slow or does not \
                 answer; stop again to wait longer"
            );
            return Err(Error::new(ErrorKind::StopTimeout, message));
        }
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        let failure = self.progress.failure.lock().clone();
        let message = match (pending, failure) {
            (0, None) => return Ok(()),
            (0, Some(failure)) => format!(
                "the file {name} has every event, but could not be synced, so that a power failure may cost the newest: \
                 {failure}"
            ),
            (pending, failure) => format!(
                "{pending} events are not in the file {name} and are lost to the next start: {}",
                failure
                    .as_deref()
                    .unwrap_or("the thread that writes it ended early")
            ),
        };
        Err(Error::new(ErrorKind::File, message))
    }

    fn statistics(&self) -> FileStatistics {
        let progress = &*self.progress;
        FileStatistics {
            loaded: self.loaded.events,
            unreadable: self.loaded.unreadable,
            written: progress.written.load(Relaxed),
            pending: progress.pending(),
            lost: progress.lost.load(Relaxed),
            write_failures: progress.write_failures.load(Relaxed),
        }
    }
}

impl Broker {
    /// A broker whose events are kept in a file: those in it are there again, as far as the options allow, and new ones
    /// are written to it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use long_polling::{Broker, BrokerOptions, Cursor, FilePersistorInfo};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let file_name = folder.path().join("events.db");
    /// let broker = Broker::open(BrokerOptions::default(), FilePersistorInfo::new(&file_name))?;
    /// broker.publish("jobs", "first")?;
    /// broker.stop(Duration::from_secs(10))?;
    ///
    /// let broker = Broker::open(BrokerOptions::default(), FilePersistorInfo::new(&file_name))?;
    /// let batch = broker.subscribe("jobs", Cursor::Oldest, Duration::ZERO)?;
    /// assert_eq!(batch.events()[0].text(), "first");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`](ErrorKind::InvalidSetting) where an option can't be used, [`File`](ErrorKind::File) where the
    /// file can't be opened or read.
    pub fn open(options: BrokerOptions, info: FilePersistorInfo) -> Result<Self, Error> {
        Broker::start(options, Some(info), Clock::System)
    }

    /// A broker with a file or without.
    pub(crate) fn start(
        options: BrokerOptions,
        file: Option<FilePersistorInfo>,
        clock: Clock,
    ) -> Result<Self, Error> {
        let Some(info) = file else {
            return Broker::restore(options, clock, |_| Ok(None));
        };
        Broker::restore(options, clock, |each| {
            let (persistor, loaded) = FilePersistor::open(&info, each)?;
            log::debug!(
                "{}: {} events were read",
                info.file_name.display(),
                loaded.events
            );
            Ok(Some(Box::new(persistor)))
        })
    }
}

impl Drop for FilePersistor {
    fn drop(&mut self) {
        if self.queue.lock().is_some()
            && let Err(error) = self.stop(DROP_TIMEOUT)
        {
            log::error!("{error}");
        }
    }
}

impl fmt::Debug for FilePersistor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilePersistor")
            .field("file_name", &self.file_name)
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}

fn open_file(file_name: &Path) -> Result<File, Error> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(file_name)
        .map_err(|error| {
            let problem = match error.kind() {
                io::ErrorKind::NotFound => "its folder does not exist; create it first",
                io::ErrorKind::IsADirectory => "it is a folder; name a file in it",
                io::ErrorKind::PermissionDenied => {
                    "this program may not read and write it; change its permissions or name another file"
                }
                _ => "it can't be opened for reading and writing; name another file",
            };
            unusable(file_name, problem).because(error)
        })?;
    // A pipe or a terminal would be read for ever.
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(unusable(
            file_name,
            "it is not a regular file; name another",
        )),
        Err(error) => Err(unusable(file_name, "it can't be examined").because(error)),
    }
}

fn unusable(file_name: &Path, problem: &str) -> Error {
    let message = format!("FilePersistorInfo::file_name: {file_name:?}: {problem}");
    Error::new(ErrorKind::File, message)
}

#[cfg(test)]
mod tests;
