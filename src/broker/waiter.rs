//! [`Waiter`]: the slot and condition variable of one parked subscriber, and [`Parking`]: the list of all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::Batch;
use super::sync::{Condvar, Mutex};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};

/// A parked subscriber. Each has a slot and a condition variable of its own: a thousand threads that wake on one condition
/// variable would contend for its mutex (measured: the last one has its event three times as late).
#[derive(Default)]
pub(crate) struct Waiter {
    by_time: bool,
    slot: Mutex<Slot>,
    filled: Condvar,
}

#[derive(Default)]
struct Slot {
    /// What publishers have put here. More than one only if the subscriber is parked in several categories.
    batches: Vec<Arc<Batch>>,
    /// The subscriber is to be answered now, as if it had timed out.
    early: bool,
    /// The client has disconnected.
    hung_up: bool,
    /// The category was purged, or one of several, while the subscriber was parked.
    missed: bool,
    /// The subscriber has left: a batch that comes now is not delivered by this waiter.
    closed: bool,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The slot, which is still open, has a batch.
    Filled,
    /// The deadline passed, or the subscriber is to be answered early.
    Empty,
}

impl Waiter {
    /// Returns `true` if the subscriber may go on from its answer by time alone.
    pub(crate) fn goes_by_time(&self) -> bool {
        self.by_time
    }

    /// Delivers a batch to the subscriber. Returns `false` if the subscriber has already left, or its client has disconnected;
    /// the batch was not delivered, and no later one will be.
    pub(crate) fn offer(&self, batch: &Arc<Batch>) -> bool {
        let mut slot = self.slot.lock();
        if slot.closed || slot.hung_up {
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

    /// Ends the wait of a subscriber whose client has disconnected. The subscriber retrieves no more events.
    pub(crate) fn hang_up(&self) {
        let mut slot = self.slot.lock();
        (slot.early, slot.hung_up) = (true, true);
        drop(slot);
        self.filled.notify_one();
    }

    /// Notes that a category of the subscriber was purged, so that its next events report a gap.
    pub(crate) fn miss(&self) {
        self.slot.lock().missed = true;
    }

    pub(crate) fn has_missed(&self) -> bool {
        self.slot.lock().missed
    }

    pub(crate) fn is_answered_early(&self) -> bool {
        self.slot.lock().early
    }

    pub(crate) fn has_hung_up(&self) -> bool {
        self.slot.lock().hung_up
    }

    /// Waits until the slot has a batch, the deadline has passed or the subscriber is to be answered early.
    pub(crate) fn wait(&self, deadline: Deadline) -> Woken {
        let mut slot = self.slot.lock();
        deadline.wait_while(&self.filled, &mut slot, |slot| {
            slot.batches.is_empty() && !slot.early
        });
        match slot.batches.is_empty() {
            true => Woken::Empty,
            false => Woken::Filled,
        }
    }

    /// Closes the slot, so that later offers fail, and returns what was in it.
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
    state: Mutex<ParkingState>,
    max: usize,
    /// Notified when a subscriber parks or leaves.
    #[cfg(feature = "testing")]
    changed: Condvar,
}

struct ParkingState {
    waiters: BTreeMap<u64, Arc<Waiter>>,
    next_ticket: u64,
    open: bool,
}

impl Parking {
    pub(crate) fn new(max: usize) -> Self {
        let state = ParkingState {
            waiters: BTreeMap::new(),
            next_ticket: 0,
            open: true,
        };
        Parking {
            state: Mutex::new(state),
            max,
            #[cfg(feature = "testing")]
            changed: Condvar::default(),
        }
    }

    /// Parks a new waiter. Past the limit, the longest parked is answered early as if it had timed out.
    ///
    /// # Errors
    ///
    /// `Stopped` after [`close`](Parking::close).
    pub(crate) fn enter(&self, by_time: bool) -> Result<(u64, Arc<Waiter>), Error> {
        let mut state = self.state.lock();
        if !state.open {
            return Err(stopped());
        }
        if state.waiters.len() >= self.max
            && let Some((_, oldest)) = state.waiters.pop_first()
        {
            oldest.answer_early();
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let waiter = Arc::new(Waiter {
            by_time,
            ..Waiter::default()
        });
        state.waiters.insert(ticket, waiter.clone());
        #[cfg(feature = "testing")]
        self.changed.notify_all();
        Ok((ticket, waiter))
    }

    pub(crate) fn leave(&self, ticket: u64) {
        self.state.lock().waiters.remove(&ticket);
        #[cfg(feature = "testing")]
        self.changed.notify_all();
    }

    /// Waits until exactly `count` subscribers are parked. Returns `false` if that is not so by the deadline.
    #[cfg(feature = "testing")]
    pub(crate) fn wait_for(&self, count: usize, deadline: Deadline) -> bool {
        let mut state = self.state.lock();
        deadline.wait_while(&self.changed, &mut state, |state| {
            state.waiters.len() != count
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().waiters.len()
    }

    /// Answers all parked subscribers early. From here on, no subscriber can park.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.open = false;
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        waiters.values().for_each(|waiter| waiter.answer_early());
        #[cfg(feature = "testing")]
        self.changed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        !self.state.lock().open
    }
}

pub(crate) fn stopped() -> Error {
    Error::new(
        ErrorKind::Stopped,
        "the broker has been stopped; start another one",
    )
}
