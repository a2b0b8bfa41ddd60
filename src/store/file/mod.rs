//! The store that keeps records in a file: [`FilePersistor`].
//!
//! Publishers append records to the [`Queue`]. One thread, the [`Flusher`](flusher::Flusher), takes them from the queue and
//! writes them to the file. The next start reads the file back ([`recovery`]). When the file has grown, another thread writes
//! a compacted file that replaces it ([`compaction`]). All access to files goes through the trait [`Disk`](disk::Disk).

mod compaction;
mod disk;
mod durability;
mod flush_progress;
mod flusher;
mod identity;
mod info;
mod lines;
mod location;
mod lock_file;
mod opening;
mod queue;
mod recovery;
mod replacement;
mod signature;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use self::disk::{Disk, SystemDisk};
pub use self::durability::Durability;
use self::flush_progress::FlushProgress;
pub use self::info::{FilePersistorInfo, FileState};
use self::queue::{Backlog, Queue, QueueLimits};
use self::recovery::{Loaded, MAX_EVENT_SIZE};
use super::{Record, Snapshot, Store, StoreStatistics};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};

/// The largest write buffer. It is small compared with the default of [`FilePersistorInfo::max_queue_size`], which counts
/// the buffer too.
const MAX_WRITE_BUFFER_BYTES: usize = 16 << 20;
/// Files are read, written and copied in chunks of about this size.
const CHUNK_BYTES: usize = 256 << 10;
/// How long dropping a persistor that was not stopped may take.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// The store that keeps records in a file.
struct FilePersistor<D: Disk> {
    disk: Arc<D>,
    info: FilePersistorInfo,
    queue: Arc<Queue>,
    progress: Arc<FlushProgress>,
    /// What the file had when it was opened.
    loaded: Loaded,
    flusher: Mutex<Option<JoinHandle<()>>>,
    /// The locked lock files, while the file is open.
    lock_files: Mutex<Vec<D::LockFile>>,
}

/// Returns the store that keeps records in the file of these settings. It opens the file when it is started.
/// `max_event_size`: the most bytes of data of one event.
///
/// # Errors
///
/// `InvalidSetting` for a setting that can't be used, and for events whose lines the next start could not read.
pub(crate) fn store(
    info: FilePersistorInfo,
    max_event_size: usize,
) -> Result<Box<dyn Store>, Error> {
    if max_event_size > MAX_EVENT_SIZE {
        return Err(Error::setting(
            "max_event_size",
            format!(
                "{max_event_size} bytes for the data of one event are more than a file can keep; \
                 give at most {MAX_EVENT_SIZE}, or keep no file"
            ),
        ));
    }
    Ok(Box::new(FilePersistor::new(SystemDisk, info)?))
}

impl<D: Disk> FilePersistor<D> {
    fn new(disk: D, info: FilePersistorInfo) -> Result<Self, Error> {
        info.check()?;
        let limits = QueueLimits {
            buffer_size: match info.durability {
                // Publishers request the flush, one for all events queued by then.
                Durability::Acknowledged => usize::MAX,
                _ => info.write_buffer_size.min(MAX_WRITE_BUFFER_BYTES),
            },
            flush_period: info.period(),
            max_bytes: info.max_queue_size,
            max_wait: info.max_wait,
            acknowledges: info.durability == Durability::Acknowledged,
        };
        Ok(FilePersistor {
            disk: Arc::new(disk),
            info,
            queue: Arc::new(Queue::new(limits)),
            progress: Arc::default(),
            loaded: Loaded::default(),
            flusher: Mutex::default(),
            lock_files: Mutex::default(),
        })
    }

    /// Returns the error of a stop, if the flusher has ended without writing and syncing everything.
    fn incomplete(&self, backlog: Backlog) -> Option<Error> {
        let name = self.info.file_name.display();
        let events = backlog.events;
        let reason = match backlog.failing {
            Some(reason) => reason,
            None if backlog.records > 0 => "the thread that writes it ended early".into(),
            None => return None,
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
                "the file {name} has every event, but could not be synced, so a power cut may lose the newest: {reason}"
            )
        } else {
            format!(
                "the file {name} has every event, but not the record that the run has ended, so subscribers will get a \
                 gap: {reason}"
            )
        };
        Some(Error::new(ErrorKind::File, message))
    }
}

impl<D: Disk> Store for FilePersistor<D> {
    /// Opens the file, or creates it if it is missing, and passes its records to `each` in the file's order. Lines that can't
    /// be read are skipped, counted and logged.
    ///
    /// # Errors
    ///
    /// `File` if the file can't be opened or read, is no log, or is in use. The file is then unchanged, and no new lock file
    /// is left behind.
    fn start(&mut self, snapshot: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        let opened = self.open(snapshot, each);
        if opened.is_err() {
            for lock_file in self.lock_files.lock().drain(..) {
                self.disk.discard(lock_file);
            }
        }
        opened
    }

    fn admit(&self, bytes: usize) -> Result<(), Error> {
        self.queue.admit(bytes)
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        self.queue.append(record)
    }

    fn append_batch(&self, records: Vec<Record>) -> Result<u64, Error> {
        self.queue.append_all(records)
    }

    fn flush(&self, ticket: u64) -> Result<(), Error> {
        self.queue.flush(ticket)
    }

    fn settled(&self) -> u64 {
        self.queue.settled_ticket()
    }

    fn acknowledges(&self) -> bool {
        self.info.durability == Durability::Acknowledged
    }

    /// Writes the queued records, syncs the file and ends the flusher. A second call waits for the same, and returns the same
    /// result.
    ///
    /// # Errors
    ///
    /// `StopTimeout` if the disk needs longer; the flusher goes on meanwhile. `File` if the disk fails twice. The message says
    /// how many events are not in the file.
    fn stop(&self, timeout: Duration) -> Result<(), Error> {
        if self.flusher.lock().is_none() && !self.queue.is_stopped() {
            // The start has failed.
            return Ok(());
        }
        self.queue.stop();
        let has_ended = self.queue.wait_for_end(Deadline::after(timeout));
        let name = self.info.file_name.display();
        let backlog = self.queue.backlog();
        if !has_ended {
            let message = format!(
                "{} events are not in the file {name} after {timeout:?}: the disk is too slow or does not answer; stop \
                 again to wait longer",
                backlog.events
            );
            return Err(Error::new(ErrorKind::StopTimeout, message));
        }
        let flusher = self.flusher.lock().take();
        let is_first_stop = flusher.is_some();
        if let Some(flusher) = flusher {
            let _ = flusher.join();
        }
        self.lock_files.lock().clear();
        if let Some(error) = self.incomplete(backlog) {
            return Err(error);
        }
        if is_first_stop {
            log::info!("{name}: every event is written and synced");
        }
        Ok(())
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
    /// Stops the flusher if the broker could not be started; a broker stops its store itself.
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

/// Returns the path of a file beside another one: the same name with `suffix`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests;
