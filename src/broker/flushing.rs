//! [`Flushing`]: the thread that flushes a store periodically, if the store has a
//! [`flush_period`](super::Store::flush_period).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Shared;
use super::sync::{Condvar, Mutex};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::store::StoreStatistics;

/// The shortest period, so that a period of zero does not keep a processor busy, and the longest.
const PERIODS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1 << 25));

/// The records that were appended and not flushed yet.
pub(super) struct Flushing {
    period: Duration,
    state: Mutex<FlushState>,
    /// Notified when a flush gets due and at the end.
    changed: Condvar,
}

#[derive(Default)]
struct FlushState {
    /// The ticket of the newest record.
    newest: u64,
    /// A record was appended since the last flush that worked.
    unflushed: bool,
    /// When the next flush is due.
    due: Option<Instant>,
    ended: bool,
    /// Why the last flush failed; `None` if it worked.
    failing: Option<String>,
    failures: u64,
}

impl Flushing {
    pub(super) fn new(period: Duration) -> Self {
        Flushing {
            period: period.clamp(PERIODS.0, PERIODS.1),
            state: Mutex::default(),
            changed: Condvar::default(),
        }
    }

    /// Starts the thread. It ends with the broker.
    ///
    /// # Errors
    ///
    /// `File` if the system has no thread left.
    pub(super) fn start(self: &Arc<Self>, shared: Weak<Shared>) -> Result<(), Error> {
        let flushing = self.clone();
        let thread = std::thread::Builder::new().name("long-polling-flush".into());
        let spawned = thread.spawn(move || {
            while flushing.wait_until_due() {
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                flushing.flush(&shared);
            }
        });
        spawned.map(drop).map_err(|error| {
            let message =
                "can't start the thread that flushes the store; allow the process more threads";
            Error::new(ErrorKind::File, message).with_source(error)
        })
    }

    /// Notes that a record was appended.
    pub(super) fn appended(&self, ticket: u64) {
        let mut state = self.state.lock();
        state.newest = state.newest.max(ticket);
        state.unflushed = true;
        if state.due.is_none() {
            state.due = Some(Instant::now() + self.period);
            self.changed.notify_all();
        }
    }

    /// Waits until a flush is due. Returns `false` after the end.
    fn wait_until_due(&self) -> bool {
        let mut state = self.state.lock();
        while !state.ended && state.due.is_none_or(|due| Instant::now() < due) {
            Deadline::from(state.due).wait(&self.changed, &mut state);
        }
        !state.ended
    }

    /// Flushes the records that were appended so far. Logs a failure once, and tries again after the period.
    pub(super) fn flush(&self, shared: &Shared) {
        let mut state = self.state.lock();
        state.due = None;
        if !std::mem::take(&mut state.unflushed) {
            return;
        }
        let ticket = state.newest;
        drop(state);
        let flushed = catch_unwind(AssertUnwindSafe(|| shared.store.flush(ticket)));
        let failure = match flushed {
            Ok(flushed) => flushed.err().map(|error| error.report().to_string()),
            Err(_) => Some("the store panicked in flush".to_owned()),
        };
        let mut state = self.state.lock();
        if failure.is_some() {
            state.failures += 1;
            state.unflushed = true;
            state.due.get_or_insert(Instant::now() + self.period);
        }
        let before = std::mem::replace(&mut state.failing, failure.clone());
        drop(state);
        match (before, failure) {
            (before, Some(failure)) if before.as_ref() != Some(&failure) => log::warn!(
                "the store could not be flushed, so that a crash loses events: {failure}; the broker tries again"
            ),
            (Some(_), None) => log::info!("the store has been flushed again"),
            _ => {}
        }
    }

    /// Ends the thread, after the flush that it is in.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// Adds the flushes that failed.
    pub(super) fn add_to(&self, statistics: &mut StoreStatistics) {
        let state = self.state.lock();
        statistics.failures += state.failures;
        if statistics.failing.is_none() {
            statistics.failing = state.failing.clone();
        }
    }
}
