//! [`StoreStatistics`]: what a store has done.

use serde::Serialize;

/// What a broker's [`Store`](super::Store) has done since it was opened. The words are those of a file; another store may
/// leave what does not apply at zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreStatistics {
    /// Events read at the start.
    pub loaded: u64,
    /// Lines that could not be read at the start.
    pub damaged: u64,
    /// Lines written: one for each event, each start, each stop and each retrieval that deletes.
    pub written: u64,
    /// Lines accepted and not yet written, or not yet synced if [`Durability`](crate::Durability) asks for that.
    pub pending: u64,
    /// The approximate bytes of the pending lines.
    pub pending_bytes: u64,
    /// Writes and syncs that failed. The store keeps their records and writes them again, unless their publishers got an
    /// error.
    pub failures: u64,
    /// How often the file was compacted, or replaced after a sync that failed.
    pub rewritten: u64,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// Why the last attempt to write failed; `None` if it succeeded.
    pub failing: Option<String>,
}
