//! [`Snapshot`]: the records from which a store compacts its log.

use std::sync::{Arc, OnceLock, Weak};

use super::Record;

/// What a [`Snapshot`] reads: a broker.
pub(crate) trait SnapshotSource: Send + Sync {
    /// Returns the approximate length of all records, in bytes.
    fn bytes(&self) -> u64;

    /// Returns the records that describe all events up to this sequence number.
    fn records(&self, sequence: u64) -> Vec<Record>;
}

/// A handle to a broker's events, for a [`Store`](super::Store) that compacts its log. Cloning gives another handle to
/// the same broker.
#[derive(Clone, Default)]
pub struct Snapshot(Arc<OnceLock<Weak<dyn SnapshotSource>>>);

impl Snapshot {
    /// Returns about how many bytes the lines of all events and idempotency keys in memory have. Returns `None` before the
    /// broker has started and after it has ended.
    pub fn bytes(&self) -> Option<u64> {
        Some(self.source()?.bytes())
    }

    /// Returns a log of all events in memory up to this sequence number, of all losses, and of the idempotency keys of the
    /// publishes that began up to there. A store may replace every record up to that event with it. If the number is that of
    /// an event within a [batch](Record::Batch), the log says so again. Waits for locks of the broker.
    ///
    /// Call it only with a number for which this holds:
    ///
    /// - It is not less than that of the position with which this run [started](Record::Started), nor than that of an
    ///   earlier call.
    /// - All records up to it have been flushed, or are being flushed.
    ///
    /// Returns nothing in these cases; the store must then keep the log as it is:
    ///
    /// - The broker has not started yet, or it has ended.
    /// - The call is made within [`append`](super::Store::append), which has the broker's locks. This is logged as an error.
    /// - A [`flush`](super::Store::flush) has not returned for five seconds, as it may be waiting for the caller of this.
    ///   This is logged as an error.
    pub fn records(&self, sequence: u64) -> Vec<Record> {
        self.source()
            .map_or_else(Vec::new, |source| source.records(sequence))
    }

    /// Connects the snapshot to its broker. Only the first call has an effect.
    pub(crate) fn connect(&self, source: Weak<dyn SnapshotSource>) {
        let _ = self.0.set(source);
    }

    fn source(&self) -> Option<Arc<dyn SnapshotSource>> {
        self.0.get()?.upgrade()
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}
