//! [`Commits`]: events that wait for the store, where nobody may see them before they are kept.
//!
//! They become visible in publish order. One of the publishers who wait leads: it waits for the store and puts what is
//! kept into the rings, its own event and those of the others, so that one write to the disk serves them all.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shared;
use super::ring::Entry;
use super::sync::{Condvar, Mutex};
use crate::error::Error;

/// Events that have been handed to the store, in publish order, and not yet to subscribers.
#[derive(Default)]
pub(super) struct Commits {
    state: Mutex<State>,
    /// Told when a leader has ended.
    ended: Condvar,
    /// Told when an event has been settled.
    settled: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    led: bool,
}

#[derive(Clone)]
struct Waiting {
    ticket: u64,
    entry: Entry,
    outcome: Outcome,
}

/// What became of an event; shared by its publisher and the leader.
pub(super) type Outcome = Arc<Mutex<Option<Result<(), Error>>>>;

/// The lead, given up when this is dropped, even by a store that panics.
struct Lead<'a>(&'a Commits);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.0.state.lock().led = false;
        self.0.ended.notify_all();
        self.0.settled.notify_all();
    }
}

impl Commits {
    /// Called under the sequencer's lock, so that the queue has publish order.
    pub(super) fn add(&self, ticket: u64, entry: Entry) -> Outcome {
        let outcome = Outcome::default();
        let waiting = Waiting {
            ticket,
            entry,
            outcome: outcome.clone(),
        };
        self.state.lock().waiting.push_back(waiting);
        outcome
    }

    /// The timestamp of the oldest event that waits.
    pub(super) fn oldest_timestamp(&self) -> Option<u64> {
        let state = self.state.lock();
        Some(state.waiting.front()?.entry.event.timestamp())
    }

    /// Waits until the event is visible, or known not to be kept.
    pub(super) fn settle(&self, shared: &Shared, outcome: &Outcome) -> Result<(), Error> {
        loop {
            if let Some(result) = outcome.lock().take() {
                return result;
            }
            let mut state = self.state.lock();
            if state.led {
                self.ended.wait(&mut state);
                continue;
            }
            // Settled between the two looks.
            if outcome.lock().is_some() {
                continue;
            }
            state.led = true;
            drop(state);
            let _lead = Lead(self);
            while outcome.lock().is_none() && self.settle_first(shared, |_| true) {}
            // Whatever was kept together with it.
            let settled = shared.store.settled();
            while self.settle_first(shared, |ticket| ticket <= settled) {}
        }
    }

    /// Waits until every event up to this sequence number is settled. They must have been flushed: the leader may be the
    /// store's own thread.
    pub(super) fn wait_for(&self, shared: &Shared, sequence: u64) {
        loop {
            let mut state = self.state.lock();
            let first = state.waiting.front();
            if first.is_none_or(|first| first.entry.sequence > sequence) {
                return;
            }
            if state.led {
                self.settled.wait(&mut state);
                continue;
            }
            state.led = true;
            drop(state);
            let _lead = Lead(self);
            let is_one = || {
                let state = self.state.lock();
                let first = state.waiting.front();
                first.is_some_and(|first| first.entry.sequence <= sequence)
            };
            while is_one() && self.settle_first(shared, |_| true) {}
        }
    }

    /// Settles the event that has waited longest, if there is one and its ticket is `due`. Only the leader does so.
    fn settle_first(&self, shared: &Shared, due: impl FnOnce(u64) -> bool) -> bool {
        let first = self.state.lock().waiting.front().cloned();
        let Some(first) = first.filter(|first| due(first.ticket)) else {
            return false;
        };
        let result = shared.store.flush(first.ticket);
        if result.is_ok() {
            shared.commit(first.entry);
        }
        *first.outcome.lock() = Some(result);
        self.state.lock().waiting.pop_front();
        self.settled.notify_all();
        true
    }
}
