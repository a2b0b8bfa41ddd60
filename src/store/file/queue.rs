//! [`Queue`]: the records on their way from the publishers to the flusher.
//!
//! A record has a *ticket*, its number in the queue. It is *queued* until the flusher takes it, then *in flight* until the
//! file has it or it is refused; after that it is *settled*.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::store::Record;
use crate::store::refusal::RefusedTickets;

/// The records between the publishers and the flusher.
///
/// No thread keeps the lock during a call of the disk.
pub(super) struct Queue {
    state: Mutex<QueueState>,
    /// The flusher waits here. Notified when it has something to do.
    flusher: Condvar,
    /// All other threads wait here. Notified when records are settled, when there is room, and when the flusher has ended.
    settled: Condvar,
    limits: QueueLimits,
}

/// When the flusher writes queued records, and how many bytes may be queued.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    /// The flusher writes once this many bytes are queued.
    pub(super) buffer_size: usize,
    /// The flusher writes this long after the first queued record.
    pub(super) flush_period: Duration,
    /// The most bytes of queued records and records in flight.
    pub(super) max_bytes: usize,
    /// How long [`Queue::admit`] waits for room.
    pub(super) max_wait: Duration,
    /// Publishers wait until their event is settled. While the disk fails, the queue accepts no event, even if it has room.
    pub(super) acknowledges: bool,
}

#[derive(Default)]
struct QueueState {
    queued: Vec<Record>,
    queued_bytes: usize,
    queued_events: u64,
    /// When the first queued record was appended.
    queued_since: Option<Instant>,
    in_flight_bytes: usize,
    in_flight_events: u64,
    /// The ticket of the newest record.
    last_ticket: u64,
    /// Every record up to this ticket is settled.
    settled_ticket: u64,
    /// The tickets of records that were refused. [`Queue::flush`] removes them.
    refused: RefusedTickets,
    /// A thread waits for the queued records to be settled, or for room.
    flush_requested: bool,
    /// The flusher should look at something that is not a record.
    wake_requested: bool,
    /// [`Queue::stop`] was called: no record is appended any more.
    stopped: bool,
    flusher_ended: bool,
    /// Why the last attempt to write failed; `None` if it succeeded.
    failing: Option<String>,
}

/// What the flusher takes from the queue.
pub(super) struct Work {
    pub(super) records: Vec<Record>,
    /// The ticket of the last of these records. If there are none, that of the record before.
    pub(super) last_ticket: u64,
    /// The queue was stopped: no record comes after these.
    pub(super) stopped: bool,
}

/// What ended a pause of the flusher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    TimedOut,
    Stopped,
}

/// The records that are not settled, for statistics and error messages.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) records: u64,
    pub(super) events: u64,
    pub(super) bytes: usize,
    pub(super) failing: Option<String>,
}

impl QueueState {
    fn bytes(&self) -> usize {
        self.queued_bytes + self.in_flight_bytes
    }

    fn take(&mut self) -> Work {
        self.flush_requested = false;
        self.wake_requested = false;
        self.queued_since = None;
        self.in_flight_bytes += std::mem::take(&mut self.queued_bytes);
        self.in_flight_events += std::mem::take(&mut self.queued_events);
        Work {
            records: std::mem::take(&mut self.queued),
            last_ticket: self.last_ticket,
            stopped: self.stopped,
        }
    }
}

/// The methods of publishers and of other threads outside the flusher.
impl Queue {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Queue {
            state: Mutex::default(),
            flusher: Condvar::new(),
            settled: Condvar::new(),
            limits,
        }
    }

    /// Waits until the queue has room for a record of this many bytes. A record larger than the queue has room in an empty
    /// one.
    ///
    /// # Errors
    ///
    /// `Busy` if there is no room after `max_wait`, and at once if the disk fails and the queue can't accept an event
    /// therefore.
    pub(super) fn admit(&self, bytes: usize) -> Result<(), Error> {
        let QueueLimits {
            max_bytes,
            max_wait,
            acknowledges,
            ..
        } = self.limits;
        let is_full = |state: &QueueState| state.bytes() > 0 && state.bytes() + bytes > max_bytes;
        let is_failing =
            |state: &QueueState| state.failing.is_some() && (acknowledges || is_full(state));
        let must_wait = |state: &mut MutexGuard<'_, QueueState>| {
            let must_wait = is_full(state) && !is_failing(state) && !state.stopped;
            if must_wait {
                // Also if this thread does not wait: then the next publisher finds room.
                state.flush_requested = true;
                self.flusher.notify_one();
            }
            must_wait
        };
        let mut state = self.state.lock();
        if must_wait(&mut state) {
            Deadline::after(max_wait).wait_while(&self.settled, &mut state, must_wait);
        }
        if let Some(reason) = state.failing.as_ref().filter(|_| is_failing(&state)) {
            let message = format!("events can't be written to the file: {reason}; try again");
            return Err(Error::new(ErrorKind::Busy, message));
        }
        if is_full(&state) && !state.stopped {
            let message = format!(
                "more events wait for the file than may (max_queue_size, {max_bytes} bytes): the disk is slower than \
                 the publishers; try again"
            );
            return Err(Error::new(ErrorKind::Busy, message));
        }
        Ok(())
    }

    /// Appends a record, and returns its ticket.
    ///
    /// # Errors
    ///
    /// `Stopped` after the stop.
    pub(super) fn append(&self, record: Record) -> Result<u64, Error> {
        self.append_all(std::iter::once(record))
    }

    /// Appends records that the flusher takes together, and returns the ticket of the last one.
    ///
    /// # Errors
    ///
    /// `Stopped` after the stop. No record is appended then.
    pub(super) fn append_all(
        &self,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<u64, Error> {
        let mut state = self.state.lock();
        if state.stopped || state.flusher_ended {
            return Err(Error::new(
                ErrorKind::Stopped,
                "the file has been closed already",
            ));
        }
        let before = state.queued_bytes;
        if before == 0 {
            state.queued_since = Some(Instant::now());
        }
        let mut requests_flush = false;
        let mut bytes = 0;
        for record in records {
            bytes += record.line_len();
            // No publisher waits for a record that is no event, purge, batch or key, so nothing else would have it written soon.
            let is_awaited = record.id().is_some() || record.precedes_its_events();
            requests_flush |= self.limits.acknowledges && !is_awaited;
            state.queued_events += u64::from(record.event().is_some());
            state.queued.push(record);
            state.last_ticket += 1;
        }
        state.flush_requested |= requests_flush;
        state.queued_bytes += bytes;
        let ticket = state.last_ticket;
        let buffer_size = self.limits.buffer_size;
        let wakes_flusher = match self.limits.acknowledges {
            true => requests_flush,
            false => before == 0 || (before < buffer_size && before + bytes >= buffer_size),
        };
        drop(state);
        if wakes_flusher {
            self.flusher.notify_one();
        }
        Ok(ticket)
    }

    /// Waits until a record is settled.
    ///
    /// # Errors
    ///
    /// `Busy` if the record was refused, and if the flusher still tries to write it and has failed so far.
    pub(super) fn flush(&self, ticket: u64) -> Result<(), Error> {
        let mut state = self.state.lock();
        loop {
            let is_refused = state.refused.take(ticket);
            let is_open = state.settled_ticket < ticket;
            let is_retried = is_open && !self.limits.acknowledges && state.failing.is_some();
            if is_refused || is_retried || (is_open && state.flusher_ended) {
                let reason = state.failing.as_deref().unwrap_or("the disk failed");
                let message =
                    format!("the event could not be written to the file: {reason}; try again");
                return Err(Error::new(ErrorKind::Busy, message));
            }
            if !is_open {
                return Ok(());
            }
            if !state.flush_requested {
                state.flush_requested = true;
                self.flusher.notify_one();
            }
            self.settled.wait(&mut state);
        }
    }

    /// Returns the ticket up to which every record is settled, so that [`flush`](Queue::flush) returns at once.
    pub(super) fn settled_ticket(&self) -> u64 {
        self.state.lock().settled_ticket
    }

    /// Wakes the flusher for something that is not a record.
    pub(super) fn wake_flusher(&self) {
        self.state.lock().wake_requested = true;
        self.flusher.notify_one();
    }

    /// Stops the queue: it accepts no record any more, and the flusher ends after the last one.
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.flusher.notify_one();
        self.settled.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Waits until the flusher has ended. Returns `false` if the deadline came first.
    pub(super) fn wait_for_end(&self, deadline: Deadline) -> bool {
        let mut state = self.state.lock();
        deadline.wait_while(&self.settled, &mut state, |state| !state.flusher_ended)
    }

    /// Returns `true` if a thread waits for the queued records to be settled, or for room.
    #[cfg(test)]
    pub(super) fn is_flush_requested(&self) -> bool {
        self.state.lock().flush_requested
    }

    pub(super) fn backlog(&self) -> Backlog {
        let state = self.state.lock();
        Backlog {
            records: state.last_ticket - state.settled_ticket,
            events: state.queued_events + state.in_flight_events,
            bytes: state.bytes(),
            failing: state.failing.clone(),
        }
    }
}

/// The methods of the flusher.
impl Queue {
    /// Waits until there is something to do, and a reason to do it now; then takes all queued records.
    pub(super) fn wait_for_work(&self) -> Work {
        let QueueLimits {
            buffer_size,
            flush_period,
            ..
        } = self.limits;
        let mut state = self.state.lock();
        let is_idle = |state: &mut MutexGuard<'_, QueueState>| {
            state.queued.is_empty() && !state.wake_requested && !state.stopped
        };
        Deadline::NEVER.wait_while(&self.flusher, &mut state, is_idle);
        let since = state.queued_since.unwrap_or_else(Instant::now);
        let may_wait = |state: &mut MutexGuard<'_, QueueState>| {
            !state.flush_requested
                && !state.wake_requested
                && !state.stopped
                && state.queued_bytes < buffer_size
        };
        // A period beyond what an `Instant` can hold never ends.
        let deadline = Deadline::from(since.checked_add(flush_period));
        deadline.wait_while(&self.flusher, &mut state, may_wait);
        state.take()
    }

    /// Takes all queued records, without waiting.
    pub(super) fn take_work(&self) -> Work {
        self.state.lock().take()
    }

    /// Frees the room of records in flight: this many bytes of them need no room any more.
    pub(super) fn free(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.in_flight_bytes = state.in_flight_bytes.saturating_sub(bytes);
        drop(state);
        self.settled.notify_all();
    }

    /// Settles every record up to this ticket: the file has it. This many events stay in flight.
    pub(super) fn settle(&self, ticket: u64, events_in_flight: u64) {
        let mut state = self.state.lock();
        state.settled_ticket = state.settled_ticket.max(ticket);
        if state.queued.is_empty() {
            // The threads that have requested a flush wait for records that are settled now.
            state.flush_requested = false;
        }
        state.in_flight_events = events_in_flight;
        drop(state);
        self.settled.notify_all();
    }

    /// Settles every record up to this ticket that is not settled yet, as refused: the file will not have it.
    pub(super) fn refuse(&self, ticket: u64) {
        let mut state = self.state.lock();
        let first = state.settled_ticket + 1;
        state.refused.add(first..=ticket);
        state.settled_ticket = state.settled_ticket.max(ticket);
        state.in_flight_events = 0;
        drop(state);
        self.settled.notify_all();
    }

    /// Sets why the disk fails, or that it works. Returns `true` if the disk worked before and fails now, or the other way
    /// round.
    pub(super) fn set_failing(&self, failing: Option<&str>) -> bool {
        let mut state = self.state.lock();
        let has_changed = state.failing.is_some() != failing.is_some();
        state.failing = failing.map(str::to_owned);
        drop(state);
        self.settled.notify_all();
        has_changed
    }

    /// Waits for this long, or until the queue is stopped.
    pub(super) fn pause(&self, duration: Duration) -> Pause {
        let mut state = self.state.lock();
        let is_running = |state: &mut MutexGuard<'_, QueueState>| !state.stopped;
        match Deadline::after(duration).wait_while(&self.flusher, &mut state, is_running) {
            true => Pause::Stopped,
            false => Pause::TimedOut,
        }
    }

    /// Says that the flusher has ended.
    pub(super) fn end(&self) {
        self.state.lock().flusher_ended = true;
        self.settled.notify_all();
    }
}
