//! [`PublishQueue`]: the publishes of one stream that wait for Redis, each in its publisher's thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::link::{Appendee, PublishEvents};
use crate::broker::{Answered, PublishKey};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::event::Draft;

/// How much longer than the usual time a publish waits that was sent and has no answer: Redis may have it.
const UNSURE: Duration = Duration::from_secs(60);
/// How often a publish that waits for longer than the usual time looks whether Redis still works.
const PACE: Duration = Duration::from_millis(20);
/// The most bytes of data that may wait.
const MAX_BYTES: usize = 64 << 20;
/// The most events and bytes of data of one batch; one publish may have more.
const BATCH: (usize, usize) = (512, 1 << 20);

/// A publish that waits.
pub(super) struct Pending {
    publish: PublishEvents,
    /// The bytes of all their categories and data.
    bytes: usize,
    state: Mutex<PendingState>,
    changed: Condvar,
}

#[derive(Default)]
struct PendingState {
    /// It may have reached Redis.
    is_sent: bool,
    /// Its publisher has given up before it was sent.
    is_withdrawn: bool,
    result: Option<Result<Answered, Error>>,
}

impl Pending {
    fn new(drafts: &[Draft], key: Option<PublishKey>) -> Self {
        let event = |draft: &Draft| Appendee {
            category: draft.category().to_owned(),
            data: draft.data().to_owned(),
            note: match draft.own_ttl() {
                _ if draft.is_purge() => "purge".into(),
                Some(ttl) => ttl.to_string(),
                None => String::new(),
            },
        };
        let events: Vec<Appendee> = drafts.iter().map(event).collect();
        let sizes = events
            .iter()
            .map(|event| event.category.len() + event.data.len());
        Pending {
            bytes: sizes.sum(),
            publish: PublishEvents { events, key },
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(super) fn publish(&self) -> &PublishEvents {
        &self.publish
    }

    fn len(&self) -> usize {
        self.publish.events.len()
    }

    /// Marks the publish as sent. Returns `false` if its publisher has given up.
    pub(super) fn send(&self) -> bool {
        let mut state = self.state.lock();
        state.is_sent = !state.is_withdrawn;
        state.is_sent
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.state.lock().is_withdrawn
    }

    /// Ends the wait without a result: Redis may have the event or not.
    pub(super) fn leave_open(&self, reason: &str) {
        self.finish(Err(unknown(reason)));
    }

    pub(super) fn finish(&self, result: Result<Answered, Error>) {
        self.state.lock().result = Some(result);
        self.changed.notify_one();
    }

    /// Waits for the result. `failing` says why Redis can't be used, if so.
    fn wait(&self, max: Duration, failing: impl Fn() -> Option<String>) -> Result<Answered, Error> {
        let reason = || failing().unwrap_or_else(|| "Redis is slow".into());
        let unsure = Deadline::after(max.saturating_add(UNSURE));
        let mut deadline = Deadline::after(max);
        let mut state = self.state.lock();
        loop {
            deadline.wait_while(&self.changed, &mut state, |state| state.result.is_none());
            if let Some(result) = state.result.take() {
                return result;
            }
            if state.is_sent {
                break;
            }
            let is_over = unsure.remaining().is_some_and(|left| left.is_zero());
            if is_over || failing().is_some() {
                state.is_withdrawn = true;
                let message = format!(
                    "the event was not published within {max:?}, since Redis can't be used: {}; try again",
                    reason()
                );
                return Err(Error::new(ErrorKind::Busy, message));
            }
            // Redis works: the batches before this one are on their way.
            deadline = Deadline::after(PACE);
        }
        unsure.wait_while(&self.changed, &mut state, |state| state.result.is_none());
        let result = state.result.take();
        result.unwrap_or_else(|| Err(unknown(&reason())))
    }
}

/// The error of a publish that was sent and has no answer.
fn unknown(reason: &str) -> Error {
    let message = format!(
        "Redis has not answered, so that it is not known whether the event was published: {reason}; look for it before it \
         is published again"
    );
    Error::new(ErrorKind::TimedOut, message)
}

/// The publishes that wait to be sent.
#[derive(Default)]
pub(super) struct PublishQueue {
    state: Mutex<QueueState>,
    /// Notified when a publish comes, when the last one is done and at the stop.
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<Arc<Pending>>,
    bytes: usize,
    /// Publishes that have no result yet, sent ones included.
    unfinished: usize,
    is_closed: bool,
}

impl PublishQueue {
    /// Publishes, and waits up to `max` for the result.
    pub(super) fn publish(
        &self,
        drafts: &[Draft],
        key: Option<PublishKey>,
        max: Duration,
        failing: impl Fn() -> Option<String>,
    ) -> Result<Answered, Error> {
        let pending = Arc::new(Pending::new(drafts, key));
        let mut state = self.state.lock();
        if state.is_closed {
            let message = "the broker has been stopped; start another one";
            return Err(Error::new(ErrorKind::Stopped, message));
        }
        if !state.waiting.is_empty() && state.bytes + pending.bytes > MAX_BYTES {
            let message = format!(
                "{} bytes of events wait for Redis, so that no more can: {}; try again",
                state.bytes,
                failing().unwrap_or_else(|| "Redis is slow".into())
            );
            return Err(Error::new(ErrorKind::Busy, message));
        }
        state.bytes += pending.bytes;
        state.unfinished += 1;
        state.waiting.push_back(pending.clone());
        drop(state);
        self.changed.notify_all();
        let result = pending.wait(max, failing);
        let mut state = self.state.lock();
        state.unfinished -= 1;
        if pending.state.lock().is_withdrawn {
            let before = state.waiting.len();
            state.waiting.retain(|other| !Arc::ptr_eq(other, &pending));
            if state.waiting.len() < before {
                state.bytes -= pending.bytes;
            }
        }
        if state.unfinished == 0 {
            self.changed.notify_all();
        }
        result
    }

    /// Waits for publishes, and takes as many as one batch has. `None` if there are none after the stop.
    pub(super) fn take(&self) -> Option<Vec<Arc<Pending>>> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.is_closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
        let (mut taken, mut events, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = state.waiting.front()
            && (taken.is_empty() || events + next.len() <= BATCH.0 && bytes + next.bytes <= BATCH.1)
        {
            events += next.len();
            bytes += next.bytes;
            taken.extend(state.waiting.pop_front());
        }
        state.bytes -= bytes;
        Some(taken)
    }

    /// Refuses publishes from here on, and waits until those in flight are done. Returns `false` if some are not by the
    /// deadline.
    pub(super) fn close(&self, deadline: Deadline) -> bool {
        let mut state = self.state.lock();
        state.is_closed = true;
        self.changed.notify_all();
        deadline.wait_while(&self.changed, &mut state, |state| state.unfinished > 0)
    }

    /// Returns how many publishes wait for their result.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().unfinished
    }
}
