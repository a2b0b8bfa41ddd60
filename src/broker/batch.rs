//! [`Batch`]: the answer to one poll.

use std::sync::{Arc, OnceLock};

use crate::event::Event;
use crate::position::EventId;

/// The answer to one poll: events in publish order, or none if the poll timed out.
#[derive(Debug)]
pub struct Batch {
    events: Vec<Event>,
    gap: bool,
    last_id: EventId,
    before: u64,
    rendered: OnceLock<Arc<[u8]>>,
}

impl Batch {
    pub(crate) fn new(events: Vec<Event>, gap: bool, last_id: EventId) -> Self {
        Batch {
            events,
            gap,
            last_id,
            before: 0,
            rendered: OnceLock::new(),
        }
    }

    /// Sets the time after which later events are stamped, in Unix milliseconds.
    pub(crate) fn up_to(self, before: u64) -> Self {
        Batch { before, ..self }
    }

    /// Returns the time for golongpoll's answer to a poll that timed out. A follower that goes on from it by time alone misses
    /// no later event, even one of the same millisecond.
    pub(crate) fn before(&self) -> u64 {
        self.before
    }

    /// Returns the events, oldest first; none if none came before the timeout.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Returns `true` if events after the poll's cursor were lost: pushed out of the ring buffer, expired, evicted, or lost
    /// with an earlier run. In a batch without events: no event has come since.
    pub fn gap(&self) -> bool {
        self.gap
    }

    /// Returns the position reached. A poll from there, by [`Cursor::LastId`](crate::Cursor::LastId), misses no event and
    /// repeats none, also after a batch without events.
    ///
    /// The position is the id of the last event. With a gap and no events left for the next batch, it is after all lost
    /// events.
    pub fn last_id(&self) -> EventId {
        self.last_id
    }

    /// Returns the bytes that `render` makes of this batch. It is called once for all subscribers that share the batch.
    pub(crate) fn rendered(&self, render: impl FnOnce(&Batch) -> Vec<u8>) -> &Arc<[u8]> {
        self.rendered.get_or_init(|| render(self).into())
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.events.iter()
    }
}
