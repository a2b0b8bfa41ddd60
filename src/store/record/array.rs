//! The line of a record that is not an event: a JSON array of strings. The first string says which kind of record it is,
//! the last one is the checksum.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;

use super::checksum::{self, ARRAY};
use super::{Record, in_range};
use crate::position::EventId;
use crate::store::loss::{Loss, LossTable};

// The first string of each kind. "taken" and "forgotten" are older names, which the file format keeps.
const STARTED: &str = "started";
const ACKNOWLEDGES: &str = "acknowledges";
const BATCH: &str = "batch";
const KEYED: &str = "keyed";
const PURGED: &str = "purged";
const TAKEN: &str = "taken";
const REFUSED: &str = "refused";
const ENDED: &str = "ended";
const COMPACTED: &str = "compacted";
const LOST: &str = "lost";
const LOSS_TABLE: &str = "forgotten";
const DAMAGED: &str = "damaged";
const TORN: &str = "torn";

/// Appends the line of a record that is not an event.
pub(super) fn push(buffer: &mut Vec<u8>, record: &Record) {
    let start = buffer.len();
    match record {
        // Its line is an object, which `event::push` appends.
        Record::Published { .. } => return,
        Record::Started {
            position,
            acknowledges,
        } => {
            let level = acknowledges.then_some(Cow::from(ACKNOWLEDGES));
            let strings = std::iter::once(id_text(*position)).chain(level);
            push_strings(buffer, STARTED, strings);
        }
        Record::Ended(id) => push_strings(buffer, ENDED, [id_text(*id)]),
        Record::Refused(id) => push_strings(buffer, REFUSED, [id_text(*id)]),
        Record::Compacted {
            position,
            timestamp,
        } => {
            let strings = [id_text(*position), timestamp.to_string().into()];
            push_strings(buffer, COMPACTED, strings);
        }
        Record::Batch(id) => push_strings(buffer, BATCH, [id_text(*id)]),
        Record::Keyed {
            key,
            fingerprint,
            last,
            count,
            timestamp,
        } => {
            let strings = [
                Cow::from(&**key),
                format!("{fingerprint:016x}").into(),
                id_text(*last),
                count.to_string().into(),
                timestamp.to_string().into(),
            ];
            push_strings(buffer, KEYED, strings);
        }
        Record::Purged {
            category,
            position,
            timestamp,
        } => {
            let strings = [
                Cow::from(&**category),
                id_text(*position),
                timestamp.to_string().into(),
            ];
            push_strings(buffer, PURGED, strings);
        }
        Record::Taken {
            category,
            seen,
            ids,
        } => {
            let ids = ids.iter().map(|id| id_text(*id));
            let first = [Cow::from(&**category), id_text(*seen)];
            push_strings(buffer, TAKEN, first.into_iter().chain(ids));
        }
        Record::Lost {
            category,
            sequence,
            timestamp,
        } => {
            let numbers = [sequence.to_string().into(), timestamp.to_string().into()];
            let category = std::iter::once(Cow::from(&**category));
            push_strings(buffer, LOST, category.chain(numbers));
        }
        Record::LossTable(table) => {
            let rows = table
                .rows()
                .map(|(row, loss)| format!("{row}:{}:{}", loss.sequence, loss.timestamp).into());
            let salt = std::iter::once(Cow::from(table.salt().to_string()));
            push_strings(buffer, LOSS_TABLE, salt.chain(rows));
        }
        Record::Damaged => push_strings(buffer, DAMAGED, []),
        Record::Torn => push_strings(buffer, TORN, []),
    }
    checksum::seal(buffer, start, ARRAY);
}

/// Returns about how many bytes [`push`] appends, and not fewer.
pub(super) fn len(record: &Record) -> usize {
    /// `["forgotten",…,"crc:01234567"]` and a line break.
    const FRAME: usize = 32;
    /// An id and what separates it from the next string.
    const ID: usize = 39;
    match record {
        Record::Taken { category, ids, .. } => FRAME + 6 * category.len() + ID * (1 + ids.len()),
        Record::Purged { category, .. } => FRAME + 6 * category.len() + ID + 46,
        Record::Keyed { key, .. } => FRAME + escaped_len(key) + ID + 53,
        Record::Lost { category, .. } => FRAME + 6 * category.len() + 46,
        Record::LossTable(table) => FRAME + 24 + 48 * table.rows().len(),
        Record::Compacted { .. } => FRAME + ID + 23,
        Record::Started { .. } => FRAME + ID + ACKNOWLEDGES.len() + 3,
        _ => FRAME + ID,
    }
}

/// Returns the bytes that a JSON string has for this text, without its quotation marks.
fn escaped_len(text: &str) -> usize {
    let bytes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' => 2,
        0..b' ' => 6,
        _ => 1,
    });
    bytes.sum()
}

/// Reads a line whose checksum matches.
pub(super) fn parse(line: &[u8]) -> Result<Record, String> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let strings: Vec<Text<'_>> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let strings: Vec<&str> = strings.iter().map(|Text(text)| &**text).collect();
    match &strings[..strings.len().saturating_sub(1)] {
        [STARTED, position, level @ ..] if matches!(level, [] | [ACKNOWLEDGES]) => {
            Ok(Record::Started {
                position: id(position)?,
                acknowledges: !level.is_empty(),
            })
        }
        [REFUSED, position] => Ok(Record::Refused(id(position)?)),
        [ENDED, position] => Ok(Record::Ended(id(position)?)),
        [COMPACTED, position, timestamp] => Ok(Record::Compacted {
            position: id(position)?,
            timestamp: number(timestamp)?,
        }),
        [BATCH, position] => Ok(Record::Batch(id(position)?)),
        [PURGED, category, position, timestamp] => Ok(Record::Purged {
            category: (*category).into(),
            position: id(position)?,
            timestamp: number(timestamp)?,
        }),
        [KEYED, key, fingerprint, last, count, timestamp] => {
            let fingerprint = u64::from_str_radix(fingerprint, 16);
            Ok(Record::Keyed {
                key: (*key).into(),
                fingerprint: fingerprint.map_err(|error| error.to_string())?,
                last: id(last)?,
                count: u16::try_from(number(count)?)
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or("a key of no events, or of too many")?,
                timestamp: number(timestamp)?,
            })
        }
        [DAMAGED] => Ok(Record::Damaged),
        [TORN] => Ok(Record::Torn),
        [TAKEN, category, seen, ids @ ..] => Ok(Record::Taken {
            category: (*category).into(),
            seen: id(seen)?,
            ids: ids.iter().map(|text| id(text)).collect::<Result<_, _>>()?,
        }),
        [LOST, category, sequence, timestamp] => Ok(Record::Lost {
            category: (*category).into(),
            sequence: in_range(number(sequence)?)?,
            timestamp: number(timestamp)?,
        }),
        [LOSS_TABLE, salt, rows @ ..] => {
            let rows = rows.iter().map(|text| row(text));
            let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
            let table = LossTable::from_rows(number(salt)?, rows);
            Ok(Record::LossTable(table))
        }
        _ => Err("an array of no known kind".into()),
    }
}

/// Reads `row:sequence:timestamp`.
fn row(text: &str) -> Result<(usize, Loss), String> {
    let mut parts = text.splitn(3, ':').map(number);
    let mut next = || parts.next().unwrap_or_else(|| Err("too short".into()));
    let row = next()? as usize;
    let (sequence, timestamp) = (in_range(next()?)?, next()?);
    let loss = Loss {
        sequence,
        timestamp,
    };
    Ok((row, loss))
}

fn id(text: &str) -> Result<EventId, String> {
    text.parse()
        .map_err(|error: crate::Error| error.to_string())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

fn id_text(id: EventId) -> Cow<'static, str> {
    id.to_string().into()
}

/// Appends an array up to its checksum: `["taken","category","id","id"`.
fn push_strings<'a>(
    buffer: &mut Vec<u8>,
    kind: &str,
    strings: impl IntoIterator<Item = Cow<'a, str>>,
) {
    let mut array = format!("[\"{kind}\"");
    for text in strings {
        let _ = write!(array, ",{}", serde_json::Value::from(text));
    }
    buffer.extend_from_slice(array.as_bytes());
}
