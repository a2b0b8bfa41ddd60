//! File persistence: every event in a file, written in the background and read back by the next start.

mod compaction;
mod disk;
mod flusher;
mod info;
mod queue;
mod recovery;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::disk::{Disk, SystemDisk};
use self::flusher::{Flusher, Progress, Writing};
pub use self::info::{Durability, FilePersistorInfo, FileState, StateCallback};
use self::queue::{Limits, Queue};
use self::recovery::Loaded;
use crate::broker::{Broker, BrokerOptions, Clock, Live, NoStore, Store, StoreStatistics};
use crate::error::{Error, ErrorKind};
use crate::record::Record;

/// Small beside [`FilePersistorInfo::max_queue_size`], which counts what the buffer holds too.
const MAX_WRITE_BUFFER_BYTES: usize = 16 << 20;
/// How long a persistor that is dropped without a stop may take to write what it holds.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// A file that records are appended to, and the thread that does so.
struct FilePersistor<D: Disk> {
    disk: Arc<D>,
    info: FilePersistorInfo,
    queue: Arc<Queue>,
    progress: Arc<Progress>,
    loaded: Loaded,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held for as long as the file is open.
    lock: Mutex<Option<D::Lock>>,
}

impl<D: Disk> FilePersistor<D> {
    /// # Errors
    ///
    /// `InvalidSetting` for a setting that can't be used.
    fn new(disk: D, info: FilePersistorInfo) -> Result<Self, Error> {
        info.check()?;
        let limits = Limits {
            enough: match info.durability {
                // Those who publish ask for it, one for all who wait by then.
                Durability::Acknowledged => usize::MAX,
                _ => info.write_buffer_size.min(MAX_WRITE_BUFFER_BYTES),
            },
            period: info.period(),
            max: info.max_queue_size,
            max_wait: info.max_wait,
            acknowledged: info.durability == Durability::Acknowledged,
        };
        Ok(FilePersistor {
            disk: Arc::new(disk),
            info,
            queue: Arc::new(Queue::new(limits)),
            progress: Arc::default(),
            loaded: Loaded::default(),
            thread: Mutex::default(),
            lock: Mutex::new(None),
        })
    }

    /// # Errors
    ///
    /// `File` that names the file, and says what can be done.
    fn lock(&self) -> Result<(), Error> {
        let file_name = &self.info.file_name;
        let lock = self.disk.lock(&beside(file_name, ".lock"));
        let lock = lock.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => unusable(
                file_name,
                "another process has it, or another broker of this one; stop that first, or name another file",
            ),
            _ => unusable(file_name, cannot_open(error.kind())).because(error),
        })?;
        *self.lock.lock() = Some(lock);
        Ok(())
    }
}

impl<D: Disk> Store for FilePersistor<D> {
    /// Opens the file, makes it where it is missing, and gives `each` of its records in the file's order. What can't be
    /// read is skipped, counted and logged.
    ///
    /// # Errors
    ///
    /// `File` where the file can't be opened or read, or somebody has it.
    fn start(&mut self, live: Live, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        self.lock()?;
        let began = Instant::now();
        let file_name = self.info.file_name.clone();
        // What a run left behind that was killed.
        let _ = self.disk.remove(&compaction::new_path(&file_name));
        let mut file = self
            .disk
            .open(&file_name)
            .map_err(|error| unusable(&file_name, cannot_open(error.kind())).because(error))?;
        // A file that was just made is in its folder for good only after this.
        self.disk
            .sync_folder(&file_name)
            .map_err(|error| unusable(&file_name, "its folder can't be synced").because(error))?;
        let read = recovery::read_back(&*self.disk, &mut file, &file_name, each);
        self.loaded =
            read.map_err(|error| unusable(&file_name, "can't be read to its end").because(error))?;
        self.progress.bytes.store(self.loaded.bytes, Relaxed);
        let flusher = Flusher {
            disk: self.disk.clone(),
            info: self.info.clone(),
            queue: self.queue.clone(),
            progress: self.progress.clone(),
            live,
            file,
            len: self.loaded.bytes,
            ends_with_newline: self.loaded.ends_with_newline,
            reached: 0,
            state: Writing::default(),
            compaction: None,
        };
        let thread = thread::Builder::new()
            .name("long-polling-flusher".into())
            .spawn(move || flusher.run())
            .map_err(|error| {
                let problem = "the thread that writes it can't be started";
                unusable(&file_name, problem).because(error)
            })?;
        *self.thread.lock() = Some(thread);
        log::info!(
            "{}: {} events read in {:?}; durability of new events: {}",
            self.info.file_name.display(),
            self.loaded.events,
            began.elapsed(),
            self.info.durability
        );
        Ok(())
    }

    fn admit(&self, bytes: usize) -> Result<(), Error> {
        self.queue.admit(bytes)
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        self.queue.append(record)
    }

    fn flush(&self, ticket: u64) -> Result<(), Error> {
        self.queue.flush(ticket)
    }

    fn settled(&self) -> u64 {
        self.queue.settled()
    }

    fn acknowledges(&self) -> bool {
        self.info.durability == Durability::Acknowledged
    }

    /// Writes what waits, syncs the file and ends the thread. A second call waits for the same, and says the same.
    ///
    /// # Errors
    ///
    /// `StopTimeout` where the disk needs longer; it goes on meanwhile. `File` where it fails, twice, and says how many
    /// events are not in the file.
    fn stop(&self, timeout: Duration) -> Result<(), Error> {
        if self.thread.lock().is_none() && !self.queue.is_stopped() {
            return Ok(());
        }
        self.queue.stop();
        let ended = self.queue.wait_for_end(Instant::now().checked_add(timeout));
        let name = self.info.file_name.display();
        let backlog = self.queue.backlog();
        let events = backlog.events;
        if !ended {
            let message = format!(
                "{events} events are not in the file {name} after {timeout:?}: the disk is too slow or does not \
                 answer; stop again to wait longer"
            );
            return Err(Error::new(ErrorKind::StopTimeout, message));
        }
        let thread = self.thread.lock().take();
        let first = thread.is_some();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        self.lock.lock().take();
        let reason = match &backlog.failing {
            Some(reason) => reason,
            None if backlog.records > 0 => "the thread that writes it ended early",
            None => {
                if first {
                    log::info!("{name}: every event is written and synced");
                }
                return Ok(());
            }
        };
        let message = if events > 0 {
            format!(
                "{events} events are not in the file {name} and are lost to the next start: {reason}"
            )
        } else if self.progress.unsynced.load(Acquire) {
            format!(
                "the file {name} has every event, but could not be synced, so that a power cut may cost the newest: \
                 {reason}"
            )
        } else {
            format!(
                "the file {name} has every event, but not that this was the last, so that followers will be told of a \
                 gap: {reason}"
            )
        };
        Err(Error::new(ErrorKind::File, message))
    }

    fn statistics(&self) -> StoreStatistics {
        let backlog = self.queue.backlog();
        StoreStatistics {
            loaded: self.loaded.events,
            damaged: self.loaded.damaged,
            written: self.progress.written.load(Relaxed),
            pending: backlog.records,
            pending_bytes: backlog.bytes as u64,
            failures: self.progress.failures.load(Relaxed),
            rewritten: self.progress.rewritten.load(Relaxed),
            bytes: self.progress.bytes.load(Relaxed),
            failing: backlog.failing,
        }
    }
}

impl<D: Disk> Drop for FilePersistor<D> {
    /// Where a start failed; a broker stops its store.
    fn drop(&mut self) {
        if !self.queue.is_stopped()
            && let Err(error) = self.stop(DROP_TIMEOUT)
        {
            log::error!("{error}");
        }
    }
}

impl<D: Disk> fmt::Debug for FilePersistor<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilePersistor")
            .field("info", &self.info)
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
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
    /// file can't be opened or read, or another process has it.
    pub fn open(options: BrokerOptions, info: FilePersistorInfo) -> Result<Self, Error> {
        Broker::start(options, Some(info), Clock::System)
    }

    /// A broker with a file or without.
    pub(crate) fn start(
        options: BrokerOptions,
        file: Option<FilePersistorInfo>,
        clock: Clock,
    ) -> Result<Self, Error> {
        let store: Box<dyn Store> = match file {
            None => Box::new(NoStore),
            Some(info) => Box::new(FilePersistor::new(SystemDisk, info)?),
        };
        Broker::restore(options, clock, store)
    }
}

/// The path of a file that belongs to another.
fn beside(file_name: &Path, end: &str) -> PathBuf {
    let mut name = file_name.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn cannot_open(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "its folder does not exist; create it first",
        io::ErrorKind::IsADirectory => "it is a folder; name a file in it",
        io::ErrorKind::PermissionDenied => {
            "this program may not read and write it and its folder; change permissions or name another file"
        }
        io::ErrorKind::InvalidInput => "it is not a regular file; name another",
        _ => "it can't be opened for reading and writing; name another file",
    }
}

fn unusable(file_name: &Path, problem: &str) -> Error {
    let message = format!("FilePersistorInfo::file_name: {file_name:?}: {problem}");
    Error::new(ErrorKind::File, message)
}

#[cfg(test)]
mod tests;
