//! [`Batch`]: the answer to one poll.

use std::sync::{Arc, OnceLock};

use crate::event::Event;
use crate::position::EventId;

/// The answer to one poll: events in publish order, or none if the poll timed out.
#[derive(Clone, Debug)]
pub struct Batch {
    events: Vec<Event>,
    gap: bool,
    last_id: EventId,
    before: u64,
    /// Events that were published together with these are in the ring.
    is_partial: bool,
    rendered: OnceLock<Rendered>,
}

/// The rendered answer of the servers whose answers do not differ: those of one variant.
#[derive(Clone, Debug)]
struct Rendered {
    variant: Box<str>,
    bytes: Arc<[u8]>,
}

impl Batch {
    pub(crate) fn new(events: Vec<Event>, gap: bool, last_id: EventId) -> Self {
        Batch {
            events,
            gap,
            last_id,
            before: 0,
            is_partial: false,
            rendered: OnceLock::new(),
        }
    }

    /// Sets the time after which later events are stamped, in Unix milliseconds.
    pub(crate) fn up_to(self, before: u64) -> Self {
        Batch { before, ..self }
    }

    /// Notes that events that were published together with these are in the ring, and may have the same timestamp.
    pub(super) fn partial(self, is_partial: bool) -> Self {
        Batch { is_partial, ..self }
    }

    pub(super) fn is_partial(&self) -> bool {
        self.is_partial
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

    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Returns `true` if no event came before the timeout.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Returns the bytes that `render` makes of this batch. It is called once for all subscribers that share the batch, if
    /// they are of the same variant.
    pub(crate) fn rendered(&self, variant: &str, render: impl Fn(&Batch) -> Vec<u8>) -> Arc<[u8]> {
        let rendered = self.rendered.get_or_init(|| Rendered {
            variant: variant.into(),
            bytes: render(self).into(),
        });
        match *rendered.variant == *variant {
            true => rendered.bytes.clone(),
            false => render(self).into(),
        }
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.events.iter()
    }
}
