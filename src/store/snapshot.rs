//! [`Snapshot`]: what a broker holds, as a store sees it that compacts its log.

use std::sync::{Arc, OnceLock, Weak};

use super::Record;

/// What a [`Snapshot`] is taken of: a broker.
pub(crate) trait SnapshotSource: Send + Sync {
    /// The approximate size of the records in bytes.
    fn bytes(&self) -> u64;

    /// The records that describe all events up to this sequence number.
    fn records(&self, sequence: u64) -> Vec<Record>;
}

/// What a broker holds, as a [`Store`] sees it that writes a smaller log.
#[derive(Clone, Default)]
pub struct Snapshot(Arc<OnceLock<Weak<dyn SnapshotSource>>>);

impl Snapshot {
    /// About how many bytes the lines of all that is held would have. `None` before the start is over and after the end.
    pub fn bytes(&self) -> Option<u64> {
        Some(self.source()?.bytes())
    }

    /// A log that says all that is held of the events up to this sequence number, and of what was lost: what a store may
    /// put in place of every record up to that event's, if the number is neither less than that of the position with which
    /// this run [started](Record::Started) nor than that of an earlier call, and if all of them have been flushed or are
    /// being flushed. Waits for locks of the broker's.
    ///
    /// Never empty but where there is nothing to put in place of the log, which then stays as it is: before the start is
    /// over, after the end, within [`append`](Store::append), where the broker's locks are held, and where
    /// [`flush`](Store::flush) does not return for five seconds, as one does that waits for the caller of this. The last
    /// two are logged as errors.
    pub fn records(&self, sequence: u64) -> Vec<Record> {
        self.source()
            .map_or_else(Vec::new, |source| source.records(sequence))
    }

    /// Connects the snapshot to the broker that it describes. Only the first call has an effect.
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
