//! [`Batch`]: what one poll brings.

use std::sync::{Arc, OnceLock};

use crate::event::Event;
use crate::position::EventId;

/// What a poll brings: events in publish order, or none where it timed out.
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

    /// What comes after this batch has a greater timestamp, in Unix milliseconds.
    pub(crate) fn up_to(self, before: u64) -> Self {
        Batch { before, ..self }
    }

    /// The time for golongpoll's answer to a poll that timed out: a follower that goes on from it by time alone misses
    /// nothing that comes later, even in the same millisecond.
    pub(crate) fn before(&self) -> u64 {
        self.before
    }

    /// The events, oldest first; empty where none came before the timeout.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// True where events after the poll's cursor were lost: pushed out of the ring buffer, expired, evicted, or from a run that did not survive. Without events: they were lost, and none has come since.
    pub fn gap(&self) -> bool {
        self.gap
    }

    /// The position reached: `Cursor::LastId` of it misses nothing and repeats nothing, even where no event came.
    ///
    /// It is the id of the last event, or, with a gap and nothing left for the next batch, a position after all that was
    /// lost.
    pub fn last_id(&self) -> EventId {
        self.last_id
    }

    /// What `render` makes of this batch, made once for all who share it: a front end's answer to every subscriber of a
    /// fan-out.
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
