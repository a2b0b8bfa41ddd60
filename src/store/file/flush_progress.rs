//! [`FlushProgress`]: what the flusher has done.

use std::sync::atomic::AtomicBool;

use crate::atomic::AtomicU64;

/// What the flusher has done, for other threads.
#[derive(Default)]
pub(super) struct FlushProgress {
    /// Lines written.
    pub(super) written: AtomicU64,
    /// Attempts to write or sync that failed.
    pub(super) failures: AtomicU64,
    /// How often another file has replaced the file.
    pub(super) rewritten: AtomicU64,
    /// The length of the file as far as it is complete. A compaction copies the file up to here while it grows.
    pub(super) bytes: AtomicU64,
    /// The flusher has ended, and the file has every event, but may lose the newest by a power cut.
    pub(super) unsynced: AtomicBool,
    /// The flusher has ended, and the file was removed or replaced, and no new one could be written.
    pub(super) missing: AtomicBool,
}
