//! [`OpenBatch`]: events of a log that were published together, until the log has shown whether all of them are there.

use crate::position::EventId;
use crate::store::Record;

/// Events that were published together, of which the log may not have all.
///
/// A store writes its records in order. So a record that was appended after the last event shows that the store had kept all
/// of them, even if some can't be read any more. If the log ends before, or another run starts, none was published.
pub(super) struct OpenBatch {
    last: u64,
    /// The position of the last event.
    position: EventId,
    held: Vec<Record>,
    /// The sequence number of the newest event held.
    newest: u64,
    is_refused: bool,
}

/// What the next record of a log means for the open batch.
pub(super) enum Read {
    /// The record waits.
    Held,
    /// The record has nothing to do with the batch.
    Passed(Record),
    /// The batch has ended: these records count, and then the next one.
    Ended(Vec<Record>, Option<Record>),
}

fn number(id: EventId) -> u64 {
    id.sequence().unwrap_or(0)
}

impl OpenBatch {
    pub(super) fn new(position: EventId) -> Self {
        OpenBatch {
            last: number(position),
            position,
            held: Vec::new(),
            newest: 0,
            is_refused: false,
        }
    }

    pub(super) fn read(&mut self, record: Record) -> Read {
        match record {
            Record::Published { .. } => self.read_event(record),
            Record::Damaged if !self.is_refused => {
                self.held.push(record);
                Read::Held
            }
            Record::Purged { position, .. } | Record::Ended(position)
                if number(position) >= self.last =>
            {
                Read::Ended(std::mem::take(&mut self.held), Some(record))
            }
            // The store has refused at least one of the events, so that none was published.
            Record::Refused(id) if number(id) < self.last => {
                self.is_refused = true;
                self.held = self.damage();
                Read::Passed(Record::Refused(self.position))
            }
            Record::Purged { .. }
            | Record::Ended(_)
            | Record::Refused(_)
            | Record::Started { .. }
            | Record::Batch(_)
            | Record::Torn => Read::Ended(self.damage(), Some(record)),
            other => Read::Passed(other),
        }
    }

    fn read_event(&mut self, record: Record) -> Read {
        let sequence = record.id().map_or(0, number);
        if self.is_refused {
            return match sequence {
                _ if sequence < self.last => Read::Held,
                _ if sequence == self.last => Read::Ended(Vec::new(), None),
                _ => Read::Ended(Vec::new(), Some(record)),
            };
        }
        if sequence > self.last {
            return Read::Ended(std::mem::take(&mut self.held), Some(record));
        }
        // The store did not accept all of the events, and the next one has got a number of them.
        if sequence <= self.newest {
            return Read::Ended(self.damage(), Some(record));
        }
        self.newest = sequence;
        self.held.push(record);
        match sequence == self.last {
            true => Read::Ended(std::mem::take(&mut self.held), None),
            false => Read::Held,
        }
    }

    /// Returns what counts if none of the events does.
    pub(super) fn damage(&mut self) -> Vec<Record> {
        let held = std::mem::take(&mut self.held).into_iter();
        held.filter(|record| matches!(record, Record::Damaged))
            .collect()
    }
}
