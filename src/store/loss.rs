//! [`Loss`]: the newest event that a category lost, and [`LossTable`]: losses of categories that are gone.

/// The newest event that a category lost: pushed out, expired or evicted, but not handed out by deletion after
/// retrieval. A follower that stands before it is told of a gap. All zero where nothing was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) sequence: u64,
    pub(crate) timestamp: u64,
}

impl Loss {
    pub(crate) fn max(self, other: Loss) -> Loss {
        Loss {
            sequence: self.sequence.max(other.sequence),
            timestamp: self.timestamp.max(other.timestamp),
        }
    }
}

/// What was lost with categories that are no longer held, summed up in lines of a table by a hash of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LossTable {
    /// Which names share a line.
    pub(crate) salt: u64,
    /// The lines that say something.
    pub(crate) lines: Vec<(usize, Loss)>,
}
