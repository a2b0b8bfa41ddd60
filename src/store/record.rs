//! [`Record`]: one entry of the log that a store keeps, and its form as a line of JSON.
//!
//! The line of an event is golongpoll's JSON object with more members at its end, so that each program reads the other's
//! file. The line of any other record is a JSON array of strings, which golongpoll skips. Both end with a checksum:
//!
//! ```text
//! {"timestamp":1700000000000,"category":"c","data":"x","id":"…","sequence":7,"run":"18bcfe568000abc","crc":"0f1e2d3c"}
//! {"timestamp":1700000000000,"category":"c","data":"x","id":"…","sequence":8,"ttl_ms":1500,"run":"18bcfe568000abc","crc":"…"}
//! ["taken","c","…","crc:0f1e2d3c"]
//! ```

use std::sync::Arc;

use super::loss::LossTable;
use crate::event::Event;
use crate::position::{EventId, MAX_SEQUENCE};

mod array;
mod checksum;
mod event;
mod text;

pub(crate) use event::event_line_len;

/// One entry of the log that a [`Store`](super::Store) keeps: an event, or something else that the next start needs to
/// know. The log has them in the order in which they happened.
///
/// A store can keep records as lines of text, with [`to_line`](Record::to_line) and [`from_line`](Record::from_line). It
/// need not know what they mean. `Display` and `FromStr` use the same lines.
///
/// ```
/// use long_polling::store::Record;
///
/// let line = r#"["ended","019a5b3c-1234-8abc-8000-000000000007","crc:1f4d9e35"]"#;
/// let record: Record = line.parse()?;
/// assert!(matches!(record, Record::Ended(_)));
/// assert_eq!(record.to_string(), line);
/// # Ok::<(), long_polling::Error>(())
/// ```
///
/// A *run* is one broker from its start to its end. A *position* is an [`EventId`] from which a subscriber can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// A run began.
    Started {
        /// The position before the first event of the run.
        position: EventId,
        /// True if the run shows no event to a subscriber before the store has [kept](super::Store::acknowledges) it. If
        /// such a run ends by a crash, no event is missing that anybody has seen.
        acknowledges: bool,
    },
    /// An event was published.
    Published {
        /// The event's number in the publish order of the whole broker. The numbers are consecutive. 0 if the number is not
        /// known, as in golongpoll's files.
        sequence: u64,
        /// The event.
        event: Event,
    },
    /// The events up to this position, which follow, were published together. If the log ends before the last of them, none
    /// was published.
    Batch(EventId),
    /// The events up to the last one, which follow, were published with an idempotency key. If the log lacks one of them, but
    /// not because of a compaction, the key is not remembered.
    Keyed {
        /// The key.
        key: Arc<str>,
        /// The fingerprint of the events, by which a repetition with the same key is compared with them.
        fingerprint: u64,
        /// The id of the last event.
        last: EventId,
        /// The number of events, 1 or more. Their ids are consecutive.
        count: u16,
        /// The timestamp of the last event, in Unix milliseconds.
        timestamp: u64,
    },
    /// A category was purged: all its events before this position were deleted. The purge has a number in the publish order,
    /// as an event has.
    Purged {
        /// The category.
        category: Arc<str>,
        /// The position of the purge.
        position: EventId,
        /// The timestamp of the purge, in Unix milliseconds.
        timestamp: u64,
    },
    /// Events of a category were deleted by their retrieval.
    Taken {
        /// The category.
        category: Arc<str>,
        /// The position after the newest event that subscribers could see at that time. Deleted events with a later
        /// position went directly to parked subscribers and were never in the category's ring buffer.
        seen: EventId,
        /// The ids of the deleted events.
        ids: Vec<EventId>,
    },
    /// The events between the previous record and this position could not be kept. Their publishers got an error, and no
    /// subscriber has seen them. A store puts this record in the place of such events.
    Refused(EventId),
    /// The run ended, with this position after its last event. If this record is missing, events at the end of the run may
    /// be missing too, unless the run acknowledges.
    Ended(EventId),
    /// A part of the log could not be read. It may have been an event.
    Damaged,
    /// The log ends within a record, because a crash interrupted the write.
    Torn,
    /// The beginning of a compacted log. Events up to this position that do not follow are no longer in memory.
    /// [`Lost`](Record::Lost) and [`LossTable`](Record::LossTable) say which of them count as lost.
    Compacted {
        /// The position after the newest such event.
        position: EventId,
        /// The newest timestamp of an event so far, in Unix milliseconds. No later event has a smaller one.
        timestamp: u64,
    },
    /// The newest event that a category has lost, or that any category has lost.
    Lost {
        /// The category; empty for any category.
        category: Arc<str>,
        /// The number of the event in the publish order.
        sequence: u64,
        /// The timestamp of the event, in Unix milliseconds.
        timestamp: u64,
    },
    /// The losses of categories that are no longer in memory.
    LossTable(LossTable),
}

/// The length to which the reason for a bad line is cut: messages of serde quote the whole wrong value.
const MAX_REASON_CHARS: usize = 200;

impl Record {
    /// Returns the event, if this record is one.
    pub fn event(&self) -> Option<&Event> {
        match self {
            Record::Published { event, .. } => Some(event),
            _ => None,
        }
    }

    /// Returns the sequence number of a record that has a place in the publish order: an event or a purge.
    pub(crate) fn sequence(&self) -> Option<u64> {
        match self {
            Record::Published { sequence, .. } => Some(*sequence),
            Record::Purged { position, .. } => Some(position.sequence().unwrap_or(0)),
            _ => None,
        }
    }

    /// Returns the id of an event or a purge.
    pub(crate) fn id(&self) -> Option<EventId> {
        match self {
            Record::Published { event, .. } => Some(event.id()),
            Record::Purged { position, .. } => Some(*position),
            _ => None,
        }
    }

    /// Returns `true` for a record that says something of the events that follow it.
    pub(crate) fn precedes_its_events(&self) -> bool {
        matches!(self, Record::Batch(_) | Record::Keyed { .. })
    }

    /// Returns the record as one line of JSON with a checksum, without the line break.
    pub fn to_line(&self) -> String {
        let mut line = Vec::new();
        self.push_line(&mut line);
        line.pop();
        String::from_utf8(line).unwrap_or_default()
    }

    /// Reads a line, with or without its line break. Returns `None` for a blank line; golongpoll's files begin with one.
    ///
    /// A line without a checksum is accepted if it has golongpoll's four members, no others, and an id that is not
    /// [this crate's](EventId).
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) if the line is not a record or its checksum does not match.
    /// The message says why.
    pub fn from_line(line: impl AsRef<[u8]>) -> Result<Option<Record>, crate::Error> {
        Record::parse(line.as_ref()).map_err(crate::Error::request)
    }

    /// Appends the record to `buffer` as a line with its line break.
    pub(crate) fn push_line(&self, buffer: &mut Vec<u8>) {
        match self {
            Record::Published { sequence, event } => event::push(buffer, *sequence, event),
            other => array::push(buffer, other),
        }
    }

    /// Returns about how many bytes [`push_line`](Record::push_line) appends, and not fewer.
    pub(crate) fn line_len(&self) -> usize {
        match self {
            Record::Published { event, .. } => event_line_len(event.as_json().len()),
            other => array::len(other),
        }
    }

    /// [`from_line`](Record::from_line), with the reason alone as the error.
    pub(crate) fn parse(line: &[u8]) -> Result<Option<Record>, String> {
        let line = line.trim_ascii();
        let Some(first) = line.first() else {
            return Ok(None);
        };
        let parsed = match checksum::open(line)? {
            checksum::Opened::Sealed(sealed) if *first == b'{' => event::parse_sealed(line, sealed),
            checksum::Opened::Sealed(_) => array::parse(line),
            checksum::Opened::Plain if *first == b'{' => event::parse_plain(line),
            checksum::Opened::Plain => Err("neither an event nor a line with a checksum".into()),
        };
        parsed
            .map(Some)
            .map_err(|reason| reason.chars().take(MAX_REASON_CHARS).collect())
    }
}

/// Refuses a sequence number that does not fit into an [`EventId`].
fn in_range(sequence: u64) -> Result<u64, String> {
    match sequence <= MAX_SEQUENCE {
        true => Ok(sequence),
        false => Err(format!("no sequence number is as great as {sequence}")),
    }
}

#[cfg(test)]
mod tests;
