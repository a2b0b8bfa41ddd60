//! [`Waiter`]: the slot and condvar of one parked subscriber, and [`Parking`], the list of all that are parked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::batch::Batch;
use super::sync::{Condvar, Mutex};
use crate::error::{Error, ErrorKind};

/// One parked subscriber. Each has a slot and a condvar of its own: a thousand threads woken on one condvar would fight
/// for its one mutex (measured: three times as long until the last one has its event).
#[derive(Default)]
pub(crate) struct Waiter {
    by_time: bool,
    slot: Mutex<Slot>,
    filled: Condvar,
}

#[derive(Default)]
struct Slot {
    /// What publishers have put here. More than one only where the subscriber is parked in several categories.
    batches: Vec<Arc<Batch>>,
    /// To be answered now, as if timed out.
    early: bool,
    /// Nobody is there any more to be answered.
    hung_up: bool,
    /// The subscriber has left: what comes now is not delivered by this waiter.
    closed: bool,
}

/// Why a wait ended.
pub(crate) enum Woken {
    /// Something was put into the slot; it is still open.
    Filled,
    /// The deadline passed, or the waiter is to be answered early.
    Empty,
}

impl Waiter {
    /// True if the subscriber may go on from its answer by time alone.
    pub(crate) fn goes_by_time(&self) -> bool {
        self.by_time
    }

    /// Hands a batch to the subscriber. False where it has left already: then it was not delivered.
    pub(crate) fn offer(&self, batch: &Arc<Batch>) -> bool {
        let mut slot = self.slot.lock();
        if slot.closed {
            return false;
        }
        slot.batches.push(batch.clone());
        drop(slot);
        self.filled.notify_one();
        true
    }

    /// Ends the wait as if it had timed out.
    pub(crate) fn answer_early(&self) {
        self.slot.lock().early = true;
        self.filled.notify_one();
    }

    /// Ends the wait of a subscriber that is no longer there: it takes nothing more out of the rings.
    pub(crate) fn hang_up(&self) {
        let mut slot = self.slot.lock();
        (slot.early, slot.hung_up) = (true, true);
        drop(slot);
        self.filled.notify_one();
    }

    pub(crate) fn has_hung_up(&self) -> bool {
        self.slot.lock().hung_up
    }

    /// Waits until something is in the slot, the deadline has passed or the waiter is answered early; `None` is no
    /// deadline.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Woken {
        let mut slot = self.slot.lock();
        let mut in_time = true;
        loop {
            if !slot.batches.is_empty() {
                return Woken::Filled;
            }
            if slot.early || !in_time {
                return Woken::Empty;
            }
            match deadline {
                None => self.filled.wait(&mut slot),
                // The loop looks once more after timing out: the slot may have been filled in that instant.
                Some(deadline) => {
                    in_time = !self.filled.wait_until(&mut slot, deadline).timed_out()
                }
            }
        }
    }

    /// Takes what is in the slot and closes it: from here on, offers fail.
    pub(crate) fn close(&self) -> Vec<Arc<Batch>> {
        let mut slot = self.slot.lock();
        slot.closed = true;
        std::mem::take(&mut slot.batches)
    }
}

/// All parked subscribers, the longest parked first, by ticket.
///
/// Lock order: the locks of categories come before this one, the slots of waiters after it.
pub(crate) struct Parking {
    spaces: Mutex<Spaces>,
    max: usize,
    /// Told of everyone who comes or goes.
    #[cfg(feature = "testing")]
    changed: Condvar,
}

struct Spaces {
    waiters: BTreeMap<u64, Arc<Waiter>>,
    next_ticket: u64,
    open: bool,
}

impl Parking {
    pub(crate) fn new(max: usize) -> Self {
        let spaces = Spaces {
            waiters: BTreeMap::new(),
            next_ticket: 0,
            open: true,
        };
        Parking {
            spaces: Mutex::new(spaces),
            max,
            #[cfg(feature = "testing")]
            changed: Condvar::default(),
        }
    }

    /// Parks a new waiter. Past the limit, the one parked longest is answered early as if it had timed out.
    ///
    /// # Errors
    ///
    /// `Stopped` after [`close`](Parking::close).
    pub(crate) fn enter(&self, by_time: bool) -> Result<(u64, Arc<Waiter>), Error> {
        let mut spaces = self.spaces.lock();
        if !spaces.open {
            return Err(stopped());
        }
        if spaces.waiters.len() >= self.max
            && let Some((_, oldest)) = spaces.waiters.pop_first()
        {
            oldest.answer_early();
        }
        let ticket = spaces.next_ticket;
        spaces.next_ticket += 1;
        let waiter = Arc::new(Waiter {
            by_time,
            ..Waiter::default()
        });
        spaces.waiters.insert(ticket, waiter.clone());
        #[cfg(feature = "testing")]
        self.changed.notify_all();
        Ok((ticket, waiter))
    }

    pub(crate) fn leave(&self, ticket: u64) {
        self.spaces.lock().waiters.remove(&ticket);
        #[cfg(feature = "testing")]
        self.changed.notify_all();
    }

    /// Waits until so many are parked, no more and no fewer. False where that did not come about by the deadline.
    #[cfg(feature = "testing")]
    pub(crate) fn wait_for(&self, count: usize, deadline: Option<Instant>) -> bool {
        let mut spaces = self.spaces.lock();
        while spaces.waiters.len() != count {
            match deadline {
                None => self.changed.wait(&mut spaces),
                Some(deadline) => {
                    if self.changed.wait_until(&mut spaces, deadline).timed_out() {
                        return spaces.waiters.len() == count;
                    }
                }
            }
        }
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.spaces.lock().waiters.len()
    }

    /// Answers everyone early and lets nobody park any more.
    pub(crate) fn close(&self) {
        let mut spaces = self.spaces.lock();
        spaces.open = false;
        let waiters = std::mem::take(&mut spaces.waiters);
        drop(spaces);
        waiters.values().for_each(|waiter| waiter.answer_early());
        #[cfg(feature = "testing")]
        self.changed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        !self.spaces.lock().open
    }
}

pub(crate) fn stopped() -> Error {
    Error::new(ErrorKind::Stopped, "the broker has been stopped")
}
