//! [`Batch`]: the answer to one poll.

use std::sync::{Arc, OnceLock};

use super::sync::Mutex;
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
    /// The follower is by a time that this broker has not reached, so that the position may precede events that it has.
    is_put_off: bool,
    /// The answers of HTTP servers that have been rendered: the first one, and those of other variants.
    rendered: OnceLock<Rendered>,
    variants: OnceLock<Arc<Mutex<Vec<Rendered>>>>,
}

/// The answers of one variant.
#[derive(Clone, Debug)]
struct Rendered {
    variant: Box<str>,
    bytes: Arc<[u8]>,
}

/// The number of variants that are kept, besides the first.
const MAX_VARIANTS: usize = 15;

impl Batch {
    pub(crate) fn new(events: Vec<Event>, gap: bool, last_id: EventId) -> Self {
        Batch {
            events,
            gap,
            last_id,
            before: 0,
            is_partial: false,
            is_put_off: false,
            rendered: OnceLock::new(),
            variants: OnceLock::new(),
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

    /// Notes that the broker has not reached the time that the follower is by.
    #[cfg(feature = "redis")]
    pub(super) fn put_off(self, is_put_off: bool) -> Self {
        Batch { is_put_off, ..self }
    }

    /// Returns `true` if the follower has to keep its time, because the position may precede events that it has.
    pub(crate) fn is_put_off(&self) -> bool {
        self.is_put_off
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

    /// Returns the bytes that `render` makes of this batch. It is called once for all subscribers that share the batch and are
    /// of the same variant, such as pages of one origin; for more than [`MAX_VARIANTS`], once for each subscriber.
    pub(crate) fn rendered(&self, variant: &str, render: impl Fn(&Batch) -> Vec<u8>) -> Arc<[u8]> {
        let new = || Rendered {
            variant: variant.into(),
            bytes: render(self).into(),
        };
        let first = self.rendered.get_or_init(new);
        if *first.variant == *variant {
            return first.bytes.clone();
        }
        // Held while one subscriber renders, so that the others of its variant wait for it.
        let mut variants = self.variants.get_or_init(Arc::default).lock();
        if let Some(known) = variants.iter().find(|known| *known.variant == *variant) {
            return known.bytes.clone();
        }
        if variants.len() == MAX_VARIANTS {
            drop(variants);
            return render(self).into();
        }
        let new = new();
        let bytes = new.bytes.clone();
        variants.push(new);
        bytes
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.events.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_variant_is_rendered_once_and_shared_with_no_other() {
        let id = EventId::from(1);
        let batch = Batch::new(Vec::new(), false, id);
        let count = Cell::new(0);
        let render = |variant: &str| {
            batch.rendered(variant, |_| {
                count.set(count.get() + 1);
                variant.into()
            })
        };
        let variants: Vec<String> = (0..=MAX_VARIANTS).map(|at| at.to_string()).collect();
        for _ in 0..3 {
            for variant in &variants {
                assert_eq!(&*render(variant), variant.as_bytes());
            }
        }
        assert_eq!(count.get(), variants.len());
        for expected in 1..3 {
            assert_eq!(&*render("one more"), b"one more");
            assert_eq!(count.get(), variants.len() + expected);
        }
    }
}
