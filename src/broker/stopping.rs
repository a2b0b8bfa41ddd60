//! [`Stopping`]: stops a store in a thread of its own, so that a stop keeps its timeout whatever the store does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::Shared;
use super::sync::{Condvar, Mutex};
use crate::error::{Error, ErrorKind};
use crate::store::Record;

/// How much longer than its timeout a stop waits for the store's own error, which says more.
const GRACE: Duration = Duration::from_millis(100);

/// Whether the store is being stopped.
#[derive(Default)]
pub(super) struct Stopping {
    /// What the thread that stops the store waits for; `None` where there is no such thread.
    step: Mutex<Option<Step>>,
    ended: Condvar,
}

/// What a stop does, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// No event is stamped any more. Waits for an event that the store is taking.
    Close,
    /// The log says that the run has ended.
    End,
    /// The last flush, where the store asks for flushes.
    Flush,
    Stop,
}

impl Step {
    fn waits_for(self) -> &'static str {
        match self {
            Step::Close => "its `append` of an event",
            Step::End => "its `append` of the record that the run has ended",
            Step::Flush => "its `flush`",
            Step::Stop => "its `stop`",
        }
    }
}

impl Shared {
    /// Ends the run, and then stops the store.
    pub(super) fn end_and_stop(self: &Arc<Self>, timeout: Duration) -> Result<(), Error> {
        self.stop_within(timeout, true)
    }

    /// Stops the store of a broker that is dropped. Where an earlier stop still waits for it, this does not wait again.
    pub(super) fn stop_store(self: &Arc<Self>, timeout: Duration) -> Result<(), Error> {
        let step = *self.stopping.step.lock();
        match step {
            Some(step) => Err(hangs(step, timeout)),
            None => self.stop_within(timeout, false),
        }
    }

    fn stop_within(self: &Arc<Self>, timeout: Duration, ends: bool) -> Result<(), Error> {
        if let Some(flushing) = &self.flushing {
            flushing.end();
        }
        // Schedules have no time.
        if self.store.keeps_nothing() || cfg!(all(test, shuttle)) {
            return self.stop_here(timeout, ends);
        }
        let began = Instant::now();
        // A deadline beyond what an Instant can hold is none.
        let deadline = began.checked_add(timeout.saturating_add(GRACE));
        let mut step = self.stopping.step.lock();
        while let Some(current) = *step {
            match deadline {
                None => self.stopping.ended.wait(&mut step),
                Some(deadline) if Instant::now() >= deadline => {
                    return Err(hangs(current, timeout));
                }
                Some(deadline) => _ = self.stopping.ended.wait_until(&mut step, deadline),
            }
        }
        *step = Some(Step::Close);
        drop(step);
        let left = timeout.saturating_sub(began.elapsed());
        let (tell, told) = mpsc::sync_channel(1);
        let (shared, stopping) = (self.clone(), self.stopping.clone());
        let thread = std::thread::Builder::new().name("long-polling-stop".into());
        let spawned = thread.spawn(move || {
            let stopped = shared.stop_here(left, ends);
            // When the caller goes on, nothing of the broker is held here any more.
            drop(shared);
            stopping.end();
            let _ = tell.send(stopped);
        });
        if let Err(error) = spawned {
            log::warn!(
                "can't start a thread that stops the store, so that a stop may take long: {error}"
            );
            let stopped = self.stop_here(left, ends);
            self.stopping.end();
            return stopped;
        }
        let stopped = match deadline {
            None => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => told.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        };
        stopped.unwrap_or_else(|_| {
            let step = *self.stopping.step.lock();
            Err(hangs(step.unwrap_or(Step::Stop), timeout))
        })
    }

    fn stop_here(&self, timeout: Duration, ends: bool) -> Result<(), Error> {
        let began = Instant::now();
        if ends && self.sequencer.close() {
            self.stopping.reach(Step::End);
            self.record(Record::Ended(self.sequencer.end()));
        }
        if let Some(flushing) = &self.flushing {
            self.stopping.reach(Step::Flush);
            flushing.flush(self);
        }
        self.stopping.reach(Step::Stop);
        let left = timeout.saturating_sub(began.elapsed());
        catch_unwind(AssertUnwindSafe(|| self.store.stop(left))).unwrap_or_else(|_| {
            let message = "the store panicked, so that what it keeps is not known";
            Err(Error::new(ErrorKind::File, message))
        })
    }
}

impl Stopping {
    /// Says where the thread is that stops the store, if there is one.
    fn reach(&self, reached: Step) {
        if let Some(step) = &mut *self.step.lock() {
            *step = reached;
        }
    }

    fn end(&self) {
        *self.step.lock() = None;
        self.ended.notify_all();
    }
}

fn hangs(step: Step, timeout: Duration) -> Error {
    let waits_for = step.waits_for();
    let message = format!(
        "the store has not stopped within {timeout:?}: {waits_for} has not returned, so that events may not be kept; \
         stop again to wait longer"
    );
    Error::new(ErrorKind::StopTimeout, message)
}
