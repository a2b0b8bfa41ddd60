//! Making the file smaller, in the background: a thread writes a new file of what is still held, and copies what the
//! flusher adds to the old one meanwhile; the flusher copies the last of it and puts the new one in the old one's place.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::thread;

use crossbeam_channel::{Receiver, TryRecvError};

use super::disk::{Disk, DiskFile};
use super::flusher::Progress;
use super::queue::Queue;
use crate::store::{Record, Snapshot};

const PIECE: usize = 256 << 10;
/// So much may be left to copy for the flusher, while which nothing is written to the old file.
const LEFT: u64 = 256 << 10;
/// A flusher that writes as fast as this can copy is not chased for ever.
const ROUNDS: usize = 20;

/// A file on its way.
pub(super) struct Compaction<F> {
    ready: Receiver<io::Result<Ready<F>>>,
    cancelled: Arc<AtomicBool>,
}

/// A file that has all that is held, but for what was written to the old one after `copied_to`.
pub(super) struct Ready<F> {
    pub(super) file: F,
    pub(super) len: u64,
    /// Bytes of what was held when it was begun.
    pub(super) held: u64,
    pub(super) copied_to: u64,
}

impl<F> Compaction<F> {
    /// The file, or why there is none; `None` while it is being made.
    pub(super) fn take(&mut self) -> Option<io::Result<Ready<F>>> {
        match self.ready.try_recv() {
            Ok(ready) => Some(ready),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err(io::Error::other("the thread that does so ended early")))
            }
        }
    }

    /// Lets go of the new file. Waits for the thread, so that it can't touch a file of the same name made next.
    pub(super) fn cancel(self) {
        self.cancelled.store(true, Relaxed);
        let _ = self.ready.recv();
    }
}

pub(super) fn new_path(file_name: &Path) -> PathBuf {
    let mut name = file_name.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Starts a file that says what is held of the events up to `reached`, all of which are in the old one's first `len`
/// bytes.
pub(super) fn start<D: Disk>(
    disk: Arc<D>,
    file_name: PathBuf,
    live: Snapshot,
    queue: Arc<Queue>,
    progress: Arc<Progress>,
    reached: u64,
    len: u64,
) -> Compaction<D::File> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let (tell, ready) = crossbeam_channel::bounded(1);
    let work = Work {
        disk,
        file_name,
        cancelled: cancelled.clone(),
    };
    let thread = thread::Builder::new().name("long-polling-compaction".into());
    let spawned = thread.spawn({
        let tell = tell.clone();
        move || {
            let held = live.records(reached);
            drop(live);
            // Without records there is nothing to put in place of the old file's.
            let made = match held.is_empty() {
                true => Err(io::Error::other("the broker's records could not be had")),
                false => work.make(&held, len, &progress),
            };
            let _ = tell.send(made);
            drop(tell);
            queue.wake();
        }
    });
    if let Err(error) = spawned {
        let _ = tell.send(Err(error));
    }
    Compaction { ready, cancelled }
}

struct Work<D> {
    disk: Arc<D>,
    file_name: PathBuf,
    cancelled: Arc<AtomicBool>,
}

impl<D: Disk> Work<D> {
    fn make(&self, held: &[Record], from: u64, progress: &Progress) -> io::Result<Ready<D::File>> {
        let new = new_path(&self.file_name);
        let made = self.make_at(&new, held, from, progress);
        if made.is_err() || self.is_cancelled() {
            let _ = self.disk.remove(&new);
        }
        made
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    fn make_at(
        &self,
        new: &Path,
        held: &[Record],
        from: u64,
        progress: &Progress,
    ) -> io::Result<Ready<D::File>> {
        if held.is_empty() {
            return Err(io::Error::other("the broker is gone"));
        }
        let mut old = self.disk.open(&self.file_name)?;
        let mut file = self.disk.create(new, &old)?;
        let held = write(&mut file, held, &|| self.is_cancelled())?;
        let mut len = held;
        let mut copied_to = from;
        for _ in 0..ROUNDS {
            let whole = progress.bytes.load(Acquire);
            if whole.saturating_sub(copied_to) <= LEFT || self.is_cancelled() {
                break;
            }
            len += copy(&mut old, &mut file, copied_to, whole)?;
            copied_to = whole;
        }
        // Most of it now, so that the flusher's own sync is a quick one.
        file.sync()?;
        Ok(Ready {
            file,
            len,
            held,
            copied_to,
        })
    }
}

/// Writes records as lines, and says how many bytes those have.
pub(super) fn write(
    file: &mut impl DiskFile,
    records: &[Record],
    cancelled: &dyn Fn() -> bool,
) -> io::Result<u64> {
    let mut len = 0;
    let mut piece = Vec::with_capacity(PIECE);
    for record in records {
        record.push_line(&mut piece);
        if piece.len() >= PIECE {
            if cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            file.append_all(&piece)?;
            len += piece.len() as u64;
            piece.clear();
        }
    }
    file.append_all(&piece)?;
    Ok(len + piece.len() as u64)
}

/// Copies the old file's bytes between two places to the end of the new one, and says how many.
pub(super) fn copy<F: DiskFile>(old: &mut F, new: &mut F, from: u64, to: u64) -> io::Result<u64> {
    old.seek(SeekFrom::Start(from))?;
    let mut left = to.saturating_sub(from);
    let mut piece = vec![0; PIECE.min(left as usize)];
    while left > 0 {
        let most = piece.len().min(left as usize);
        old.read_exact(&mut piece[..most])?;
        new.append_all(&piece[..most])?;
        left -= most as u64;
    }
    Ok(to.saturating_sub(from))
}
