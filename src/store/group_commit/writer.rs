//! [`Writer`]: the log, and the records that it is to write next.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::store::refusal::refuse_events;
use crate::store::{Record, RecordLog, Snapshot};

/// How long after a compaction that failed the next one is tried.
const COMPACTION_PAUSE: Duration = Duration::from_secs(60);

pub(super) struct Writer<L> {
    log: L,
    is_open: bool,
    snapshot: Snapshot,
    /// The records that the log does not have yet, after a write that failed.
    batch: Vec<Record>,
    /// The log has every event up to this sequence number, or a record that it was refused.
    last_sequence: u64,
    /// The log has the record that the run has ended.
    has_ended: bool,
    /// No compaction is tried before this time.
    next_compaction: Option<Instant>,
}

/// The records that are not in the log yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    pub(super) records: u64,
    pub(super) bytes: usize,
}

impl Pending {
    pub(super) fn of(records: &[Record]) -> Self {
        Pending {
            records: records.len() as u64,
            bytes: records.iter().map(Record::line_len).sum(),
        }
    }
}

impl<L: RecordLog> Writer<L> {
    pub(super) fn new(log: L) -> Self {
        Writer {
            log,
            is_open: false,
            snapshot: Snapshot::default(),
            batch: Vec::new(),
            last_sequence: 0,
            has_ended: false,
            next_compaction: None,
        }
    }

    pub(super) fn open(
        &mut self,
        snapshot: Snapshot,
        each: &mut dyn FnMut(Record),
    ) -> Result<(), Error> {
        self.log.open(each)?;
        self.snapshot = snapshot;
        self.is_open = true;
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn add(&mut self, records: Vec<Record>) {
        self.batch.extend(records);
    }

    pub(super) fn pending(&self) -> Pending {
        Pending::of(&self.batch)
    }

    /// Writes the batch, and returns how many records it had.
    pub(super) fn write(&mut self) -> Result<u64, Error> {
        if self.batch.is_empty() {
            return Ok(0);
        }
        self.log.write(&self.batch)?;
        for record in &self.batch {
            let sequence = match record {
                Record::Published { .. } | Record::Purged { .. } => record.sequence(),
                // A run starts after all events that the log had before.
                Record::Started { position: id, .. } | Record::Refused(id) => id.sequence(),
                _ => None,
            };
            self.last_sequence = self.last_sequence.max(sequence.unwrap_or(0));
            self.has_ended |= matches!(record, Record::Ended(_));
        }
        Ok(self.batch.drain(..).count() as u64)
    }

    /// Puts one record in the place of the batch's events.
    pub(super) fn refuse_events(&mut self) {
        refuse_events(&mut self.batch);
    }

    /// Replaces the log if it has grown enough. Everything was written, so that the snapshot has the effect of each record
    /// that the log has, except that of the run's end. Returns whether it was replaced.
    pub(super) fn compact(&mut self) -> Result<bool, Error> {
        let is_paused = self
            .next_compaction
            .is_some_and(|next| Instant::now() < next);
        let Some(live_bytes) = self.snapshot.bytes() else {
            return Ok(false);
        };
        if self.has_ended || is_paused || !self.log.is_due_for_compaction(live_bytes) {
            return Ok(false);
        }
        self.next_compaction = Some(Instant::now() + COMPACTION_PAUSE);
        let records = self.snapshot.records(self.last_sequence);
        if records.is_empty() {
            return Ok(false);
        }
        self.log.replace(&records)?;
        self.next_compaction = None;
        Ok(true)
    }

    pub(super) fn close(&mut self) -> Result<(), Error> {
        self.is_open = false;
        self.log.close()
    }
}
