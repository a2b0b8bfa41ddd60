//! [`Commits`]: events that wait for the store, where nobody may see them before they are kept.
//!
//! They become visible in publish order. One of the publishers who wait leads: it waits for the store and puts what is
//! kept into the rings, its own event and those of the others, so that one write to the disk serves them all. Then the one
//! who has waited longest leads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::calls::{self, Call};
use super::ring::Entry;
use super::sync::{Condvar, Mutex};
use crate::error::Error;

/// How long events that the store keeps may take to be visible: the leader has nothing to wait for then.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Events that have been handed to the store, in publish order, and not yet to subscribers.
#[derive(Default)]
pub(super) struct Commits {
    state: Mutex<State>,
    /// Told when an event has been settled, and when nobody leads any more.
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
    publisher: Arc<PendingPublish>,
}

/// Who waits for what becomes of an event.
#[derive(Default)]
pub(super) struct PendingPublish {
    state: Mutex<PublishState>,
    changed: Condvar,
}

#[derive(Default)]
struct PublishState {
    result: Option<Result<(), Error>>,
    leads: bool,
    /// It has panicked, and can't lead.
    gone: bool,
}

impl PendingPublish {
    fn result(&self) -> Option<Result<(), Error>> {
        self.state.lock().result.take()
    }

    fn is_settled(&self) -> bool {
        self.state.lock().result.is_some()
    }

    fn settle(&self, result: Result<(), Error>) {
        self.state.lock().result = Some(result);
        self.changed.notify_one();
    }

    /// Waits until its event is settled, or it is to lead: true then.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while state.result.is_none() && !state.leads {
            self.changed.wait(&mut state);
        }
        std::mem::take(&mut state.leads)
    }

    /// False where it can't.
    fn lead(&self) -> bool {
        let mut state = self.state.lock();
        state.leads = !state.gone;
        self.changed.notify_one();
        state.leads
    }
}

/// The lead, handed on when this is dropped, even by a store that panics.
struct Lead<'a> {
    commits: &'a Commits,
    leader: Option<&'a PendingPublish>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if let (Some(leader), true) = (self.leader, std::thread::panicking()) {
            leader.state.lock().gone = true;
        }
        let mut state = self.commits.state.lock();
        state.led = state.waiting.iter().any(|next| next.publisher.lead());
        drop(state);
        self.commits.settled.notify_all();
    }
}

impl Commits {
    /// Called under the sequencer's lock, so that the queue has publish order.
    pub(super) fn add(&self, ticket: u64, entry: Entry) -> Arc<PendingPublish> {
        let publisher = Arc::<PendingPublish>::default();
        let waiting = Waiting {
            ticket,
            entry,
            publisher: publisher.clone(),
        };
        self.state.lock().waiting.push_back(waiting);
        publisher
    }

    /// The timestamp of the oldest event that waits.
    pub(super) fn oldest_timestamp(&self) -> Option<u64> {
        let state = self.state.lock();
        Some(state.waiting.front()?.entry.event.timestamp())
    }

    /// False where somebody has it.
    fn take_lead(&self) -> bool {
        let mut state = self.state.lock();
        !std::mem::replace(&mut state.led, true)
    }

    /// Waits until the event is visible, or known not to be kept.
    pub(super) fn settle(&self, shared: &Shared, publisher: &PendingPublish) -> Result<(), Error> {
        loop {
            if let Some(result) = publisher.result() {
                return result;
            }
            if !self.take_lead() && !publisher.wait() {
                continue;
            }
            let _lead = Lead {
                commits: self,
                leader: Some(publisher),
            };
            while !publisher.is_settled() && self.settle_first(shared, |_| true) {}
            // Whatever was kept together with it.
            let settled = {
                let _call = calls::enter(shared, Call::Settle);
                shared.store.settled()
            };
            while self.settle_first(shared, |ticket| ticket <= settled) {}
        }
    }

    /// Waits until every event up to this sequence number is settled, and says that it is. They must have been flushed:
    /// the leader may be the store's own thread. False where the leader is still in a call of the store after
    /// `SETTLE_TIMEOUT`: that call may wait for this one.
    pub(super) fn wait_for(&self, shared: &Shared, sequence: u64) -> bool {
        // Schedules have no time.
        let deadline = (!cfg!(all(test, shuttle))).then(|| Instant::now() + SETTLE_TIMEOUT);
        let is_waiting = |state: &State| {
            let first = state.waiting.front();
            first.is_some_and(|first| first.entry.sequence <= sequence)
        };
        let mut state = self.state.lock();
        while is_waiting(&state) {
            if state.led {
                match deadline {
                    None => self.settled.wait(&mut state),
                    Some(deadline) if Instant::now() >= deadline => return false,
                    Some(deadline) => _ = self.settled.wait_until(&mut state, deadline),
                }
                continue;
            }
            state.led = true;
            drop(state);
            let lead = Lead {
                commits: self,
                leader: None,
            };
            while is_waiting(&self.state.lock()) && self.settle_first(shared, |_| true) {}
            drop(lead);
            state = self.state.lock();
        }
        true
    }

    /// The events up to this sequence number that the store has and subscribers can't see yet, in publish order.
    pub(super) fn waiting_up_to(&self, sequence: u64) -> Vec<Entry> {
        let state = self.state.lock();
        let entries = state.waiting.iter().map(|waiting| &waiting.entry);
        let due = entries.take_while(|entry| entry.sequence <= sequence);
        due.cloned().collect()
    }

    /// Settles the event that has waited longest, if there is one and its ticket is `due`. Only the leader does so.
    fn settle_first(&self, shared: &Shared, due: impl FnOnce(u64) -> bool) -> bool {
        let first = self.state.lock().waiting.front().cloned();
        let Some(first) = first.filter(|first| due(first.ticket)) else {
            return false;
        };
        let result = {
            let _call = calls::enter(shared, Call::Settle);
            shared.store.flush(first.ticket)
        };
        if result.is_ok() {
            shared.commit(first.entry);
        }
        self.state.lock().waiting.pop_front();
        first.publisher.settle(result);
        self.settled.notify_all();
        true
    }
}
