//! [`Stopping`]: stops a store in a thread of its own, so that a stop keeps its timeout even if the store does not return.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::Shared;
use super::sync::{Condvar, Mutex};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::store::Record;

/// How much longer than its timeout a stop waits for the store's own error, which says more than the broker's.
const GRACE: Duration = Duration::from_millis(100);

/// The thread that stops the store, if there is one.
#[derive(Default)]
pub(super) struct Stopping {
    /// What the thread is doing; `None` if there is no such thread.
    step: Mutex<Option<Step>>,
    /// Notified when the thread ends.
    ended: Condvar,
}

/// The steps of a stop, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Closes the sequencer, after the `append` of an event that a publisher may be in.
    Close,
    /// Appends the record that the run has ended.
    End,
    /// Flushes for the last time, if the store has a flush period.
    Flush,
    /// Stops the store.
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

    /// Stops the store of a broker that is dropped. If an earlier stop still waits for the store, this does not wait again.
    pub(super) fn stop_store(self: &Arc<Self>, timeout: Duration) -> Result<(), Error> {
        let step = *self.stopping.step.lock();
        match step {
            Some(step) => Err(stop_timeout(step, timeout)),
            None => self.stop_within(timeout, false),
        }
    }

    fn stop_within(self: &Arc<Self>, timeout: Duration, ends: bool) -> Result<(), Error> {
        #[cfg(feature = "redis")]
        if let Some(streams) = &self.streams {
            return streams.backplane.stop(timeout);
        }
        if let Some(flushing) = &self.flushing {
            flushing.end();
        }
        // Schedules have no time.
        if self.store.keeps_nothing() || cfg!(all(test, shuttle)) {
            return self.stop_here(timeout, ends);
        }
        let began = Instant::now();
        let deadline = Deadline::after(timeout.saturating_add(GRACE));
        let mut step = self.stopping.step.lock();
        let is_idle = deadline.wait_while(&self.stopping.ended, &mut step, |step| step.is_some());
        if let (false, Some(current)) = (is_idle, *step) {
            return Err(stop_timeout(current, timeout));
        }
        *step = Some(Step::Close);
        drop(step);
        let left = timeout.saturating_sub(began.elapsed());
        match self.spawn_stop(left, ends) {
            Ok(stopped) => {
                let stopped = match deadline.remaining() {
                    None => stopped.recv().ok(),
                    Some(remaining) => stopped.recv_timeout(remaining).ok(),
                };
                stopped.unwrap_or_else(|| {
                    let step = *self.stopping.step.lock();
                    Err(stop_timeout(step.unwrap_or(Step::Stop), timeout))
                })
            }
            Err(error) => {
                log::warn!(
                    "can't start a thread that stops the store, so that a stop may take long: {error}"
                );
                let stopped = self.stop_here(left, ends);
                self.stopping.end();
                stopped
            }
        }
    }

    /// Stops the store in a thread of its own, which sends the result.
    fn spawn_stop(
        self: &Arc<Self>,
        timeout: Duration,
        ends: bool,
    ) -> std::io::Result<Receiver<Result<(), Error>>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let (shared, stopping) = (self.clone(), self.stopping.clone());
        let thread = std::thread::Builder::new().name("long-polling-stop".into());
        thread.spawn(move || {
            let stopped = shared.stop_here(timeout, ends);
            // When the caller goes on, this thread holds nothing of the broker any more.
            drop(shared);
            stopping.end();
            let _ = sender.send(stopped);
        })?;
        Ok(receiver)
    }

    /// Does all steps of a stop in this thread.
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
            let message = "the store panicked in stop, so that it may lack the last events; check its log before the next start";
            Err(Error::new(ErrorKind::File, message))
        })
    }
}

impl Stopping {
    /// Notes the step that the thread has reached, if there is one.
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

fn stop_timeout(step: Step, timeout: Duration) -> Error {
    let waits_for = step.waits_for();
    let message = format!(
        "the store has not stopped within {timeout:?}: {waits_for} has not returned, so that events may not be kept; \
         stop again to wait longer"
    );
    Error::new(ErrorKind::StopTimeout, message)
}
