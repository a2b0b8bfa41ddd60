//! [`StoreStatistics`]: what a store has done.

/// What a broker's [`Store`](super::Store) has done; here in the words of a file's.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct StoreStatistics {
    /// Events read at the start.
    pub loaded: u64,
    /// Lines that could not be read at the start.
    pub damaged: u64,
    /// Lines written: one for each event, and one for each start, stop and retrieval that deletes.
    pub written: u64,
    /// Lines taken and not yet written, or not yet synced where that was asked for.
    pub pending: u64,
    /// The bytes of those, about.
    pub pending_bytes: u64,
    /// Writes and syncs that failed. What they did not write is kept and written again, unless its publishers were told
    /// that it was refused.
    pub failures: u64,
    /// How often the file was made smaller, or replaced after a sync that failed.
    pub rewritten: u64,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// Why the last attempt to write failed; `None` where it worked.
    pub failing: Option<String>,
}
