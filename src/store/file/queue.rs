//! [`Queue`]: the records on their way from those who publish to the thread that writes them.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind};
use crate::store::Record;

/// Records that wait to be written, and how far that is.
pub(super) struct Queue {
    state: Mutex<State>,
    /// Told when there is something for the flusher to do.
    work: Condvar,
    /// Told when something has been settled, when there is room, and when the flusher has ended.
    progress: Condvar,
    limits: Limits,
}

/// When what waits is written, and how much may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Written once so many bytes wait.
    pub(super) enough: usize,
    /// Or this long after the first that waits.
    pub(super) period: Duration,
    /// The most bytes that wait.
    pub(super) max: usize,
    /// How long somebody waits for room.
    pub(super) max_wait: Duration,
    /// Those who publish wait until their event is kept: while the disk fails none is taken, even where there is room.
    pub(super) acknowledged: bool,
}

#[derive(Default)]
struct State {
    records: Vec<Record>,
    /// Bytes of `records`.
    waiting_bytes: usize,
    /// When the first of `records` came.
    waiting_since: Option<Instant>,
    /// Bytes of those that the flusher has taken and not yet written.
    taken_bytes: usize,
    /// How many of `records` are events, and of those that the flusher has taken and not yet settled.
    waiting_events: u64,
    taken_events: u64,
    /// The ticket of the newest record.
    appended: u64,
    /// What became of those up to this ticket is known.
    settled: u64,
    /// Tickets of records that were not kept.
    refused: Vec<RangeInclusive<u64>>,
    /// Somebody waits for all that is here.
    urgent: bool,
    /// Somebody else has something for the flusher to look at.
    wake_requested: bool,
    stopped: bool,
    ended: bool,
    /// Why the last attempt to write failed; `None` where it worked.
    failing: Option<String>,
}

/// What the flusher is to do next.
pub(super) struct Taken {
    pub(super) records: Vec<Record>,
    /// The ticket of the last one, or of the one before where there are none.
    pub(super) up_to: u64,
    /// Nothing comes after these.
    pub(super) stopped: bool,
}

/// What ended a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    Over,
    Stopped,
}

/// For statistics.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) records: u64,
    pub(super) events: u64,
    pub(super) bytes: usize,
    pub(super) failing: Option<String>,
}

impl State {
    fn bytes(&self) -> usize {
        self.waiting_bytes + self.taken_bytes
    }

    fn take(&mut self) -> Taken {
        self.urgent = false;
        self.wake_requested = false;
        self.waiting_since = None;
        self.taken_bytes += std::mem::take(&mut self.waiting_bytes);
        self.taken_events += std::mem::take(&mut self.waiting_events);
        Taken {
            records: std::mem::take(&mut self.records),
            up_to: self.appended,
            stopped: self.stopped,
        }
    }
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Queue {
            state: Mutex::default(),
            work: Condvar::new(),
            progress: Condvar::new(),
            limits,
        }
    }

    /// Waits until so many bytes have room.
    ///
    /// # Errors
    ///
    /// `Busy` where they have none, and where the disk fails and nothing can be taken for that.
    pub(super) fn admit(&self, bytes: usize) -> Result<(), Error> {
        let mut state = self.state.lock();
        let mut deadline = None;
        loop {
            let full = state.bytes() > 0 && state.bytes() + bytes > self.limits.max;
            if let Some(reason) = &state.failing
                && (full || self.limits.acknowledged)
            {
                let message = format!("events can't be written to the file: {reason}; try again");
                return Err(Error::new(ErrorKind::Busy, message));
            }
            if !full || state.stopped {
                return Ok(());
            }
            // Also where nobody waits for that: there will be room for the next one.
            state.urgent = true;
            self.work.notify_one();
            let max_wait = self.limits.max_wait;
            let deadline = *deadline.get_or_insert_with(|| {
                let now = Instant::now();
                now.checked_add(max_wait)
                    .unwrap_or(now + Duration::from_secs(1 << 32))
            });
            if Instant::now() >= deadline {
                let max = self.limits.max;
                let message = format!(
                    "more events wait for the file than may (max_queue_size, {max} bytes): the disk is slower than \
                     those who publish; try again"
                );
                return Err(Error::new(ErrorKind::Busy, message));
            }
            self.progress.wait_until(&mut state, deadline);
        }
    }

    /// # Errors
    ///
    /// `Stopped` after the stop.
    pub(super) fn append(&self, record: Record) -> Result<u64, Error> {
        let bytes = record.line_len();
        let mut state = self.state.lock();
        if state.stopped || state.ended {
            return Err(Error::new(
                ErrorKind::Stopped,
                "the file has been closed already",
            ));
        }
        // Nobody asks for what is not an event.
        let flush_requested = self.limits.acknowledged && record.event().is_none();
        state.urgent |= flush_requested;
        state.waiting_events += u64::from(record.event().is_some());
        state.records.push(record);
        let before = state.waiting_bytes;
        if before == 0 {
            state.waiting_since = Some(Instant::now());
        }
        state.waiting_bytes += bytes;
        state.appended += 1;
        let ticket = state.appended;
        let enough = self.limits.enough;
        let wake = match self.limits.acknowledged {
            true => flush_requested,
            false => before == 0 || (before < enough && before + bytes >= enough),
        };
        drop(state);
        if wake {
            self.work.notify_one();
        }
        Ok(ticket)
    }

    /// Waits until it is known what became of a record.
    ///
    /// # Errors
    ///
    /// `Busy` where it was refused, and where it is still tried, without success so far.
    pub(super) fn flush(&self, ticket: u64) -> Result<(), Error> {
        let mut state = self.state.lock();
        loop {
            // Tickets are asked for in their order.
            state.refused.retain(|tickets| *tickets.end() >= ticket);
            let refused = state
                .refused
                .iter()
                .any(|tickets| tickets.contains(&ticket));
            let open = state.settled < ticket;
            let tried_on = open && !self.limits.acknowledged && state.failing.is_some();
            if refused || tried_on || (open && state.ended) {
                let reason = state.failing.as_deref().unwrap_or("the disk failed");
                let message =
                    format!("the event could not be written to the file: {reason}; try again");
                return Err(Error::new(ErrorKind::Busy, message));
            }
            if !open {
                return Ok(());
            }
            if !state.urgent {
                state.urgent = true;
                self.work.notify_one();
            }
            self.progress.wait(&mut state);
        }
    }

    pub(super) fn settled(&self) -> u64 {
        self.state.lock().settled
    }

    /// Has the flusher look at something that is not a record.
    pub(super) fn wake(&self) {
        self.state.lock().wake_requested = true;
        self.work.notify_one();
    }

    /// Waits until there is something to write and a reason to do so.
    pub(super) fn take(&self) -> Taken {
        let mut state = self.state.lock();
        let idle =
            |state: &State| state.records.is_empty() && !state.wake_requested && !state.stopped;
        while idle(&state) {
            self.work.wait(&mut state);
        }
        let since = state.waiting_since.unwrap_or_else(Instant::now);
        let deadline = since.checked_add(self.limits.period);
        let due = |state: &State| {
            state.urgent
                || state.wake_requested
                || state.stopped
                || state.waiting_bytes >= self.limits.enough
        };
        while !due(&state) {
            match deadline {
                None => self.work.wait(&mut state),
                Some(deadline) => {
                    if self.work.wait_until(&mut state, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        state.take()
    }

    /// What has come meanwhile.
    pub(super) fn take_now(&self) -> Taken {
        self.state.lock().take()
    }

    /// So many bytes have been written.
    pub(super) fn written(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.taken_bytes = state.taken_bytes.saturating_sub(bytes);
        drop(state);
        self.progress.notify_all();
    }

    /// Everything up to this ticket is kept, and so many events of what was taken are not.
    pub(super) fn settle(&self, up_to: u64, events_left: u64) {
        let mut state = self.state.lock();
        state.settled = state.settled.max(up_to);
        if state.records.is_empty() {
            // Whoever asked for flush_requested has it; the next records may take their time.
            state.urgent = false;
        }
        state.taken_events = events_left;
        drop(state);
        self.progress.notify_all();
    }

    /// What has not been settled up to this ticket is not kept and will not be.
    pub(super) fn refuse(&self, up_to: u64) {
        let mut state = self.state.lock();
        let first = state.settled + 1;
        if first <= up_to {
            state.refused.push(first..=up_to);
            state.settled = up_to;
        }
        state.taken_events = 0;
        drop(state);
        self.progress.notify_all();
    }

    /// Says whether the disk works, and whether that is news.
    pub(super) fn set_failing(&self, failing: Option<&str>) -> bool {
        let mut state = self.state.lock();
        let news = state.failing.is_some() != failing.is_some();
        state.failing = failing.map(str::to_owned);
        drop(state);
        self.progress.notify_all();
        news
    }

    /// Waits for a while, but not past the stop.
    pub(super) fn pause(&self, duration: Duration) -> Pause {
        let mut state = self.state.lock();
        let deadline = Instant::now().checked_add(duration);
        while !state.stopped {
            match deadline {
                None => self.work.wait(&mut state),
                Some(deadline) => {
                    if self.work.wait_until(&mut state, deadline).timed_out() {
                        return Pause::Over;
                    }
                }
            }
        }
        Pause::Stopped
    }

    /// Nothing is taken any more.
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.work.notify_one();
        self.progress.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// The flusher has ended.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.progress.notify_all();
    }

    /// Waits until the flusher has ended; false where the deadline came first.
    pub(super) fn wait_for_end(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        while !state.ended {
            match deadline {
                None => self.progress.wait(&mut state),
                Some(deadline) => {
                    if self.progress.wait_until(&mut state, deadline).timed_out() {
                        return state.ended;
                    }
                }
            }
        }
        true
    }

    /// True where somebody waits for what is here, or for room.
    #[cfg(test)]
    pub(super) fn is_urgent(&self) -> bool {
        self.state.lock().urgent
    }

    pub(super) fn backlog(&self) -> Backlog {
        let state = self.state.lock();
        Backlog {
            records: state.appended - state.settled,
            events: state.waiting_events + state.taken_events,
            bytes: state.bytes(),
            failing: state.failing.clone(),
        }
    }
}
