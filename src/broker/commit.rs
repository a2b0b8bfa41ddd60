//! [`Commits`]: hidden events, which are stamped, and not visible before the store keeps them.
//!
//! Events become visible in publish order. One of the publishers that wait is the leader: it waits for the store and makes
//! the events that the store keeps visible, its own and those of others, so that one write to the disk serves many
//! publishers. Then the publisher that has waited longest becomes the leader.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::ring::Entry;
use super::store_call::StoreCall;
use super::sync::{Condvar, Mutex};
use crate::deadline::Deadline;
use crate::error::Error;

/// How long to wait for another thread to settle events.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The hidden events, in publish order.
#[derive(Default)]
pub(super) struct Commits {
    queue: Mutex<CommitQueue>,
    /// Notified when an event is settled, and when a leader steps down and no publisher can follow it.
    settled: Condvar,
}

#[derive(Default)]
struct CommitQueue {
    hidden: VecDeque<HiddenPublish>,
    has_leader: bool,
}

#[derive(Clone)]
struct HiddenPublish {
    ticket: u64,
    /// The event, or the events that were published together, in publish order.
    entries: Arc<[Entry]>,
    /// The number of their idempotency key, if they have one.
    key: Option<u64>,
    publish: Arc<PendingPublish>,
}

/// A publish whose event is not settled yet.
#[derive(Default)]
pub(super) struct PendingPublish {
    state: Mutex<PublishState>,
    changed: Condvar,
}

#[derive(Default)]
struct PublishState {
    result: Option<Result<(), Error>>,
    leads: bool,
    /// The publisher's thread panicked, and can't lead.
    panicked: bool,
}

impl PendingPublish {
    fn take_result(&self) -> Option<Result<(), Error>> {
        self.state.lock().result.take()
    }

    fn is_settled(&self) -> bool {
        self.state.lock().result.is_some()
    }

    fn has_panicked(&self) -> bool {
        self.state.lock().panicked
    }

    fn settle(&self, result: Result<(), Error>) {
        self.state.lock().result = Some(result);
        self.changed.notify_one();
    }

    /// Waits until the event is settled, or the publisher is the leader: returns `true` then.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        Deadline::NEVER.wait_while(&self.changed, &mut state, |state| {
            state.result.is_none() && !state.leads
        });
        std::mem::take(&mut state.leads)
    }

    /// Makes the publisher the leader. Returns `false` if its thread panicked.
    fn lead(&self) -> bool {
        let mut state = self.state.lock();
        state.leads = !state.panicked;
        self.changed.notify_one();
        state.leads
    }
}

/// The leadership. When this is dropped, also by a store that panics, the next publisher becomes the leader.
struct Leadership<'a> {
    commits: &'a Commits,
    /// `None` for a thread that publishes nothing.
    publish: Option<&'a PendingPublish>,
}

impl Drop for Leadership<'_> {
    fn drop(&mut self) {
        if let (Some(publish), true) = (self.publish, std::thread::panicking()) {
            publish.state.lock().panicked = true;
        }
        let mut queue = self.commits.queue.lock();
        queue.has_leader = queue.hidden.iter().any(|next| next.publish.lead());
        drop(queue);
        self.commits.settled.notify_all();
    }
}

impl CommitQueue {
    /// Returns `true` if an event up to this sequence number is hidden.
    fn hides(&self, sequence: u64) -> bool {
        let first = self.entries().next();
        first.is_some_and(|first| first.sequence <= sequence)
    }

    /// The hidden events, and those of the same publish that are visible already.
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.hidden
            .iter()
            .flat_map(|publish| publish.entries.iter())
    }

    fn has_publisher(&self) -> bool {
        let mut publishes = self.hidden.iter().map(|hidden| &hidden.publish);
        publishes.any(|publish| !publish.has_panicked())
    }
}

impl Commits {
    /// Adds the hidden events of one publish. Called under the sequencer's lock, so that the queue has publish order.
    pub(super) fn add(
        &self,
        ticket: u64,
        entries: Arc<[Entry]>,
        key: Option<u64>,
    ) -> Arc<PendingPublish> {
        let publish = Arc::<PendingPublish>::default();
        let hidden = HiddenPublish {
            ticket,
            entries,
            key,
            publish: publish.clone(),
        };
        self.queue.lock().hidden.push_back(hidden);
        publish
    }

    /// Returns `true` if an event of this category is hidden.
    pub(super) fn has_any_of(&self, category: &str) -> bool {
        let queue = self.queue.lock();
        queue
            .entries()
            .any(|entry| entry.event.category() == category)
    }

    /// Returns the timestamp of the oldest event after `visible`, the newest visible sequence number, that is hidden.
    pub(super) fn oldest_timestamp(&self, visible: u64) -> Option<u64> {
        let queue = self.queue.lock();
        let mut hidden = queue.entries();
        Some(hidden.find(|entry| entry.sequence > visible)?.time())
    }

    /// Returns the sequence number of the newest event after `visible` that is hidden and has at most this timestamp.
    pub(super) fn newest_up_to(&self, timestamp: u64, visible: u64) -> Option<u64> {
        let queue = self.queue.lock();
        let due = queue
            .entries()
            .take_while(|entry| entry.time() <= timestamp);
        let sequences = due.map(|entry| entry.sequence);
        sequences.last().filter(|sequence| *sequence > visible)
    }

    /// Returns `false` if another thread is the leader.
    fn take_lead(&self) -> bool {
        let mut queue = self.queue.lock();
        !std::mem::replace(&mut queue.has_leader, true)
    }

    /// Waits until the event is settled: it is visible, or the store has refused it.
    pub(super) fn settle(&self, shared: &Shared, publish: &PendingPublish) -> Result<(), Error> {
        loop {
            if let Some(result) = publish.take_result() {
                return result;
            }
            if !self.take_lead() && !publish.wait() {
                continue;
            }
            let _leadership = Leadership {
                commits: self,
                publish: Some(publish),
            };
            while !publish.is_settled() && self.settle_first(shared, |_| true) {}
            // And the events that the same write to the disk has kept.
            let settled = {
                let _call = StoreCall::Settle.enter(shared);
                shared.store.settled()
            };
            while self.settle_first(shared, |ticket| ticket <= settled) {}
        }
    }

    /// Waits for a store that asks for records until every event up to this sequence number is settled. The store has
    /// flushed these events, so this thread settles them itself if there is no leader: a publisher may be waiting for it.
    /// Returns `false` if the leader is in a call of the store for longer than `SETTLE_TIMEOUT`: that call may wait for this
    /// thread.
    pub(super) fn settle_flushed(&self, shared: &Shared, sequence: u64) -> bool {
        self.wait_until_settled(shared, sequence, |_| true)
    }

    /// Waits for a subscriber until every event up to this sequence number is settled. Publishers settle them; only if all
    /// of these have panicked, this thread does. Returns `false` after `SETTLE_TIMEOUT`, or if the store panics.
    pub(super) fn wait_for(&self, shared: &Shared, sequence: u64) -> bool {
        let leads = |queue: &CommitQueue| !queue.has_publisher();
        let wait = || self.wait_until_settled(shared, sequence, leads);
        catch_unwind(AssertUnwindSafe(wait)).unwrap_or(false)
    }

    /// `leads` decides whether this thread becomes the leader if there is none.
    fn wait_until_settled(
        &self,
        shared: &Shared,
        sequence: u64,
        leads: impl Fn(&CommitQueue) -> bool,
    ) -> bool {
        let deadline = settle_deadline();
        let mut queue = self.queue.lock();
        loop {
            let in_time = deadline.wait_while(&self.settled, &mut queue, |queue| {
                queue.hides(sequence) && (queue.has_leader || !leads(queue))
            });
            if !in_time || !queue.hides(sequence) {
                return in_time;
            }
            queue.has_leader = true;
            drop(queue);
            let leadership = Leadership {
                commits: self,
                publish: None,
            };
            while self.queue.lock().hides(sequence) && self.settle_first(shared, |_| true) {}
            drop(leadership);
            queue = self.queue.lock();
        }
    }

    /// Returns the events up to this sequence number that the store has and subscribers can't see yet, in publish order.
    pub(super) fn hidden_up_to(&self, sequence: u64) -> Vec<Entry> {
        let queue = self.queue.lock();
        let due = queue
            .entries()
            .take_while(|entry| entry.sequence <= sequence);
        due.cloned().collect()
    }

    /// Settles the oldest hidden publish, if there is one and its ticket is `due`. Only the leader calls this.
    fn settle_first(&self, shared: &Shared, due: impl FnOnce(u64) -> bool) -> bool {
        let first = self.queue.lock().hidden.front().cloned();
        let Some(first) = first.filter(|first| due(first.ticket)) else {
            return false;
        };
        let result = {
            let _call = StoreCall::Settle.enter(shared);
            shared.store.flush(first.ticket)
        };
        if result.is_ok() {
            shared.commit(&first.entries);
        }
        // First: a snapshot that waits for the queue must not have the key of refused events.
        if let Some(key) = first.key {
            shared.keys.settle(key, result.is_ok());
        }
        self.queue.lock().hidden.pop_front();
        first.publish.settle(result);
        self.settled.notify_all();
        true
    }
}

/// Schedules have no time.
fn settle_deadline() -> Deadline {
    if cfg!(all(test, shuttle)) {
        return Deadline::NEVER;
    }
    Deadline::after(SETTLE_TIMEOUT)
}
