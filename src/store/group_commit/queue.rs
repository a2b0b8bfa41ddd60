//! [`Queue`]: the records on their way to the log.

use std::ops::RangeInclusive;

use super::writer::Pending;
use crate::error::{Error, ErrorKind};
use crate::store::refusal::RefusedTickets;
use crate::store::{Record, StoreStatistics};

/// The records that no thread writes yet, and how far the log has got. Its lock is never held during a call of the log.
#[derive(Debug, Default)]
pub(super) struct Queue {
    records: Vec<Record>,
    bytes: usize,
    /// The records that a thread writes, or that a write has failed for.
    in_flight: Pending,
    /// The ticket of the newest record.
    last_ticket: u64,
    /// Every record up to this ticket is in the log, or refused.
    settled: u64,
    refused: RefusedTickets,
    stopped: bool,
    /// What was counted; the rest of the statistics is in the other fields.
    counted: StoreStatistics,
}

/// What [`Queue::take`] returns.
pub(super) struct Writing {
    pub(super) records: Vec<Record>,
    /// The tickets of the records that are not settled, up to the newest of these records.
    pub(super) tickets: RangeInclusive<u64>,
}

impl Queue {
    pub(super) fn append(&mut self, record: Record) -> Result<u64, Error> {
        if self.stopped {
            let message = "the store has been stopped";
            return Err(Error::new(ErrorKind::Stopped, message));
        }
        self.bytes += record.line_len();
        self.records.push(record);
        self.last_ticket += 1;
        Ok(self.last_ticket)
    }

    pub(super) fn take(&mut self) -> Writing {
        let records = std::mem::take(&mut self.records);
        self.in_flight.records += records.len() as u64;
        self.in_flight.bytes += std::mem::take(&mut self.bytes);
        Writing {
            records,
            tickets: self.settled + 1..=self.last_ticket,
        }
    }

    /// Notes the result of a write of the records up to the last of these tickets. `pending` is what is left of them.
    pub(super) fn progressed(
        &mut self,
        written: &Result<u64, Error>,
        pending: Pending,
        tickets: RangeInclusive<u64>,
        acknowledges: bool,
    ) {
        self.in_flight = pending;
        match written {
            Ok(records) => self.counted.written += records,
            // The same records are written again.
            Err(_) if !acknowledges => return,
            Err(_) => self.refused.add(tickets.clone()),
        }
        self.settled = self.settled.max(*tickets.end());
    }

    /// Returns whether the record with this ticket is in the log or refused; `None` if neither is decided.
    pub(super) fn outcome(&mut self, ticket: u64) -> Option<Result<(), Error>> {
        if self.refused.take(ticket) {
            let reason = self.counted.failing.as_deref();
            let message = format!(
                "the event could not be written to the store's log: {}; try again",
                reason.unwrap_or("a write failed")
            );
            return Some(Err(Error::new(ErrorKind::Busy, message)));
        }
        (ticket <= self.settled).then_some(Ok(()))
    }

    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Returns `true` if there is no room for a record of this many bytes. One that is larger than the queue has room in an
    /// empty one.
    pub(super) fn is_full(&self, bytes: usize, max: usize) -> bool {
        let queued = self.bytes + self.in_flight.bytes;
        queued > 0 && queued + bytes > max && !self.stopped
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn count_loaded(&mut self, record: &Record) {
        self.counted.loaded += u64::from(record.event().is_some());
        self.counted.damaged += u64::from(matches!(record, Record::Damaged));
    }

    pub(super) fn count_failure(&mut self) {
        self.counted.failures += 1;
    }

    pub(super) fn count_rewrite(&mut self) {
        self.counted.rewritten += 1;
    }

    /// Notes why the last write failed, or that it succeeded. Returns `true` if the one before differs.
    pub(super) fn set_failing(&mut self, error: Option<&Error>) -> bool {
        let failing = error.map(|error| error.report().to_string());
        let before = std::mem::replace(&mut self.counted.failing, failing);
        before != self.counted.failing
    }

    /// Returns how many records are not in the log.
    pub(super) fn pending(&self) -> u64 {
        self.records.len() as u64 + self.in_flight.records
    }

    pub(super) fn statistics(&self) -> StoreStatistics {
        StoreStatistics {
            pending: self.pending(),
            pending_bytes: (self.bytes + self.in_flight.bytes) as u64,
            ..self.counted.clone()
        }
    }
}
