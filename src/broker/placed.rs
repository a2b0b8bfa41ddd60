//! [`Placed`]: where an id is in the order of events, and [`HighWaterMark`]: how much of the order is visible.

use super::ring::Place;
use crate::position::EventId;

/// The high-water mark of what is visible: every event up to this sequence number is.
pub(crate) struct HighWaterMark {
    pub(crate) sequence: u64,
    /// The position after that event.
    pub(crate) id: EventId,
    /// Every event that becomes visible from now on has a greater timestamp, unless the clock steps back.
    pub(crate) before: u64,
    /// The greatest timestamp that an event stamped up to now can have, in this run or an earlier one, or that a follower
    /// by time can have.
    pub(crate) time: u64,
}

/// The place of an id.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// After the event with its sequence number.
    At(Place),
    /// After the last event that the log has of the id's run: the end of that run was lost.
    PastEnd(Place),
    /// Another node has reached this position, and this one has not yet.
    #[cfg(feature = "redis")]
    Ahead(Ahead),
    /// The id is of a run that this broker does not know: a run without a log, or of another broker.
    UnknownRun,
    /// The id was not made by this crate. Only a search for the event can place it.
    Foreign,
}

#[cfg(feature = "redis")]
/// Where a poll starts that this broker has not reached yet: another one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// A position, and how many checks had begun when the poll came.
    Position { id: EventId, begun: u64 },
    /// Events up to this timestamp may still come, which the follower has.
    Time(u64),
}
