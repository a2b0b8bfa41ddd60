//! [`Store`]: where a broker's events are kept besides memory, as [`Record`]s in their order.

use std::sync::Arc;
use std::time::Duration;

use super::FileStatistics;
use crate::error::Error;
use crate::event::Event;
use crate::position::EventId;

/// What a store keeps, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A run began, with this position before its first event.
    Started(EventId),
    Published(Event),
    /// Events of a category that were deleted by their retrieval.
    Taken(Arc<str>, Vec<EventId>),
    /// A run ended, with this position after its last event. Without it, the end of the run may have been lost.
    Ended(EventId),
}

pub(crate) trait Store: Send + Sync {
    /// Takes a record. Called under locks: it must not wait for a disk.
    fn append(&self, record: Record);
    /// Puts everything taken so far where it belongs; nothing comes after this.
    fn stop(&self, timeout: Duration) -> Result<(), Error>;
    fn statistics(&self) -> FileStatistics;
}
