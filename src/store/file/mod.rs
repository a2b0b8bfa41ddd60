//! File persistence: every event in a file, written in the background and read back by the next start.

mod compaction;
mod disk;
mod flusher;
mod identity;
mod info;
mod lines;
mod queue;
mod recovery;
mod replacement;
mod sidecar;
mod signature;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::disk::{Disk, DiskFile, SystemDisk, folder_of};
use self::flusher::{Flusher, Progress, Writing};
pub use self::info::{Durability, FilePersistorInfo, FileState};
use self::queue::{Limits, Queue};
use self::recovery::{Loaded, Unreadable};
use self::replacement::Place;
use super::{Record, Snapshot, Store, StoreStatistics};
use crate::error::{Error, ErrorKind};

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
    /// Locked sidecars, for as long as the file is open.
    locks: Mutex<Vec<D::Lock>>,
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
            locks: Mutex::default(),
        })
    }

    /// Locks the sidecar beside the file, and the one beside the name that leads to it: earlier versions know only
    /// that.
    ///
    /// # Errors
    ///
    /// `File` that names the file, and says what can be done.
    fn lock(&self, path: &Path) -> Result<(), Error> {
        let file_name = &self.info.file_name;
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => in_use(file_name),
            kind => unusable(file_name, cannot_open(kind)).with_source(error),
        };
        match self.disk.lock(&beside(path, ".lock")) {
            Ok(lock) => self.locks.lock().push(lock),
            // The file itself is locked, too; that must do in a folder that may only be read.
            Err(error) if cfg!(unix) && is_denied(error.kind()) => log::info!(
                "{}: no lock file can be created beside it ({error}); the file itself is locked",
                file_name.display()
            ),
            Err(error) => return Err(refused(error)),
        }
        let by_name = file_name.file_name().and_then(|name| {
            let folder = self.disk.resolve_folder(folder_of(file_name)).ok()?;
            Some(folder.join(name))
        });
        if let Some(by_name) = by_name.filter(|by_name| by_name != path) {
            match self.disk.lock(&beside(&by_name, ".lock")) {
                Ok(lock) => self.locks.lock().push(lock),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(refused(error));
                }
                // No earlier version could have created it either.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Opens and locks the file; it is at its path then.
    fn open(&self, path: &Path) -> Result<(D::File, Place), Error> {
        let file_name = &self.info.file_name;
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => in_use(file_name),
            kind => unusable(file_name, cannot_open(kind)).with_source(error),
        };
        let mut attempts = 0;
        loop {
            let file = self.disk.open(path).map_err(refused)?;
            file.lock(path).map_err(refused)?;
            attempts += 1;
            let is_at = self.disk.is_at(&file, path).map_err(refused)?;
            if !is_at && attempts < OPEN_ATTEMPTS {
                // Replaced between opening and locking, by a process that had it until then.
                continue;
            }
            if !is_at {
                log::warn!(
                    "{}: this file system gives no lasting identity to files, so that a removal of the file while it \
                     is open is not noticed",
                    file_name.display()
                );
            }
            let place = Place::new(path.to_owned(), is_at);
            return Ok((file, place));
        }
    }

    fn try_start(&mut self, live: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        let began = Instant::now();
        let file_name = self.info.file_name.clone();
        let path = self.disk.resolve(&file_name);
        let path = path
            .map_err(|error| unusable(&file_name, cannot_open(error.kind())).with_source(error))?;
        self.lock(&path)?;
        let (mut file, place) = self.open(&path)?;
        // A file that was just made is in its folder for good only after this.
        self.disk.sync_folder(&path).map_err(|error| {
            unusable(&file_name, "its folder can't be synced").with_source(error)
        })?;
        let read = recovery::read_back(&mut file, &file_name, each);
        let (mut loaded, torn) = read.map_err(|problem| match problem {
            Unreadable::Failed(error) => {
                unusable(&file_name, "can't be read to its end").with_source(error)
            }
            Unreadable::NoLog(lines) => {
                let problem = format!(
                    "it is no log: none of its lines ({lines}) is one of this program's or of golongpoll's; it has \
                     been left as it is; name another file, or move this one away"
                );
                unusable(&file_name, &problem)
            }
        })?;
        // What a run left behind that was killed.
        let _ = self.disk.remove(&compaction::new_path(&path));
        if let Some(torn) = torn {
            recovery::repair_end(&*self.disk, &mut file, &file_name, &path, &mut loaded, torn);
        }
        self.loaded = loaded;
        self.progress.bytes.store(self.loaded.bytes, Relaxed);
        let mut flusher = Flusher {
            disk: self.disk.clone(),
            info: self.info.clone(),
            place,
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
        if self.info.compact_from.is_some() {
            flusher.check_replaceable();
        }
        let thread = thread::Builder::new()
            .name("long-polling-flusher".into())
            .spawn(move || flusher.run())
            .map_err(|error| {
                let problem = "the thread that writes it can't be started";
                unusable(&file_name, problem).with_source(error)
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
}

impl<D: Disk> Store for FilePersistor<D> {
    /// Opens the file, makes it where it is missing, and gives `each` of its records in the file's order. What can't be
    /// read is skipped, counted and logged.
    ///
    /// # Errors
    ///
    /// `File` where the file can't be opened or read, is no log, or is in use. Then nothing has been changed, and no
    /// lock file is left that was not there before.
    fn start(&mut self, live: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        let started = self.try_start(live, each);
        if started.is_err() {
            for lock in self.locks.lock().drain(..) {
                self.disk.discard(lock);
            }
        }
        started
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
        self.locks.lock().clear();
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
        let message = if self.progress.missing.load(Acquire) {
            format!(
                "the file {name} is gone, and with it events that are lost to the next start: {reason}"
            )
        } else if events > 0 {
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
            log::error!("{}", error.report());
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

/// The store that keeps records in the file of these settings.
///
/// # Errors
///
/// `InvalidSetting` for a setting that can't be used.
pub(crate) fn store(info: FilePersistorInfo) -> Result<Box<dyn Store>, Error> {
    Ok(Box::new(FilePersistor::new(SystemDisk, info)?))
}

/// A file that is replaced by another process between opening and locking is opened again this often.
const OPEN_ATTEMPTS: usize = 3;

/// True for what a system says where a folder may not be written.
fn is_denied(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn in_use(file_name: &Path) -> Error {
    unusable(
        file_name,
        "another process has it, or another broker of this one; stop that first, or name another file",
    )
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
        io::ErrorKind::ReadOnlyFilesystem => {
            "its file system can only be read; name a file on another one"
        }
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
