//! [`Compaction`]: a thread that writes a compacted file while the flusher goes on with the old one.
//!
//! The thread writes the records of a snapshot to a new file, and then copies what the flusher appends to the old file
//! meanwhile. The flusher copies the last of it, and replaces the old file with the new one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::thread;

use crossbeam_channel::{Receiver, TryRecvError};

use super::disk::{self, Disk, DiskFile};
use super::flush_progress::FlushProgress;
use super::queue::Queue;
use super::{CHUNK_BYTES, beside};
use crate::store::{Record, Snapshot};

/// The compaction leaves at most this many bytes to copy to the flusher, which writes nothing else meanwhile.
const MAX_REMAINDER: u64 = 256 << 10;
/// How often the compaction copies what was appended. Otherwise it would not end if the flusher appends as fast as it copies.
const MAX_COPIES: usize = 20;

/// A running compaction.
pub(super) struct Compaction<F> {
    result: Receiver<io::Result<CompactedFile<F>>>,
    cancelled: Arc<AtomicBool>,
}

/// A new file with the records of a snapshot, and with what was appended to the old file up to `copied_to`.
pub(super) struct CompactedFile<F> {
    pub(super) file: F,
    pub(super) len: u64,
    /// The bytes of the snapshot.
    pub(super) snapshot_len: u64,
    /// The offset in the old file.
    pub(super) copied_to: u64,
}

impl<F> Compaction<F> {
    /// Returns the file, or why there is none. Returns `None` while the compaction is running.
    pub(super) fn poll(&mut self) -> Option<io::Result<CompactedFile<F>>> {
        match self.result.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err(io::Error::other("the compaction thread has panicked")))
            }
        }
    }

    /// Cancels the compaction. Waits for its thread, which could otherwise write to the next file of the same name.
    pub(super) fn cancel(self) {
        self.cancelled.store(true, Relaxed);
        let _ = self.result.recv();
    }
}

/// Returns the path of a new file that is to replace this one.
pub(super) fn new_path(path: &Path) -> PathBuf {
    beside(path, ".new")
}

/// Writes a compacted file.
pub(super) struct Compactor<D> {
    pub(super) disk: Arc<D>,
    pub(super) path: PathBuf,
    pub(super) snapshot: Snapshot,
    pub(super) queue: Arc<Queue>,
    pub(super) progress: Arc<FlushProgress>,
    /// The compacted file has the events up to this sequence number from the snapshot.
    pub(super) last_sequence: u64,
    /// The length of the old file that has all those events, in bytes.
    pub(super) len: u64,
}

impl<D: Disk> Compactor<D> {
    /// Starts the thread.
    pub(super) fn start(self) -> Compaction<D::File> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (sender, result) = crossbeam_channel::bounded(1);
        let thread = thread::Builder::new().name("long-polling-compaction".into());
        let spawned = thread.spawn({
            let (sender, cancelled) = (sender.clone(), cancelled.clone());
            move || {
                let compacted = self.run(&|| cancelled.load(Relaxed));
                let _ = sender.send(compacted);
                drop(sender);
                self.queue.wake_flusher();
            }
        });
        if let Err(error) = spawned {
            let _ = sender.send(Err(error));
        }
        Compaction { result, cancelled }
    }

    fn run(&self, is_cancelled: &dyn Fn() -> bool) -> io::Result<CompactedFile<D::File>> {
        let records = self.snapshot.records(self.last_sequence);
        if records.is_empty() {
            return Err(io::Error::other("the broker has given no snapshot"));
        }
        let new = new_path(&self.path);
        let compacted = self.write_file(&new, &records, is_cancelled);
        if compacted.is_err() || is_cancelled() {
            let _ = self.disk.remove(&new);
        }
        compacted
    }

    fn write_file(
        &self,
        new: &Path,
        records: &[Record],
        is_cancelled: &dyn Fn() -> bool,
    ) -> io::Result<CompactedFile<D::File>> {
        let mut old = self.disk.open(&self.path)?;
        let mut file = self.disk.create(new, &old)?;
        let snapshot_len = write(&mut file, records, is_cancelled)?;
        let mut len = snapshot_len;
        let mut copied_to = self.len;
        for _ in 0..MAX_COPIES {
            let old_len = self.progress.bytes.load(Acquire);
            if old_len.saturating_sub(copied_to) <= MAX_REMAINDER || is_cancelled() {
                break;
            }
            len += disk::copy(&mut old, &mut file, copied_to, old_len)?;
            copied_to = old_len;
        }
        // The flusher syncs the file again, which then takes less time.
        file.sync()?;
        Ok(CompactedFile {
            file,
            len,
            snapshot_len,
            copied_to,
        })
    }
}

/// Writes records as lines, and returns the bytes of the lines.
pub(super) fn write(
    file: &mut impl DiskFile,
    records: &[Record],
    is_cancelled: &dyn Fn() -> bool,
) -> io::Result<u64> {
    let mut len = 0;
    let mut buffer = Vec::with_capacity(CHUNK_BYTES);
    for record in records {
        record.push_line(&mut buffer);
        if buffer.len() >= CHUNK_BYTES {
            if is_cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            file.append_all(&buffer)?;
            len += buffer.len() as u64;
            buffer.clear();
        }
    }
    file.append_all(&buffer)?;
    Ok(len + buffer.len() as u64)
}
