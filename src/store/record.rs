//! [`Record`]: what a store keeps, a line of JSON each.
//!
//! An event is golongpoll's JSON object with members added behind, so that each program reads the other's file; what
//! else is to be known is a JSON array of texts, which golongpoll passes over. Both end with a checksum:
//!
//! ```text
//! {"timestamp":1700000000000,"category":"c","data":"x","id":"…","sequence":7,"run":"18bcfe568000abc","crc":"0f1e2d3c"}
//! ["taken","c","…","crc:0f1e2d3c"]
//! ```

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::loss::{Loss, LossTable};
use crate::event::Event;
use crate::position::{EventId, MAX_SEQUENCE};

mod line;

/// One entry of the log that a [`Store`](crate::Store) keeps: an event, or what a broker needs to know besides, in the
/// order in which it happened.
///
/// A store may keep records as lines of text, by [`to_line`](Record::to_line) and [`from_line`](Record::from_line), and
/// need not know what they say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// A run of a broker began.
    Started {
        /// The position before its first event.
        position: EventId,
        /// Nobody sees an event of it before it is [kept](crate::Store::acknowledges): a run that did not end has lost
        /// nothing of which anybody knew.
        acknowledges: bool,
    },
    /// An event was published.
    Published {
        /// Its place in the publish order of the whole broker, without holes; 0 where it is not known, in a file of
        /// golongpoll's.
        sequence: u64,
        /// The event.
        event: Event,
    },
    /// Events of a category were deleted by their retrieval.
    Taken {
        /// The category.
        category: Arc<str>,
        /// The position after the newest event that could be seen then. Those of the events that come after it were handed
        /// to whoever was parked, and never took anybody's place in the ring buffer.
        seen: EventId,
        /// The ids of the events.
        ids: Vec<EventId>,
    },
    /// Events after the last one recorded, up to this position, could not be kept: their publishers were told so, and no
    /// subscriber has seen them. A store says this in their place.
    Refused(EventId),
    /// The run ended, with this position after its last event. Without it, the end of a run that does not acknowledge may
    /// have been lost.
    Ended(EventId),
    /// Something that could not be read stood here: an event, perhaps.
    Damaged,
    /// The log ends within a record, as a crash leaves it that came while this was being written.
    Torn,
    /// The start of a log made smaller. Events up to this position that do not follow are no longer held, and what
    /// followers need to be told of that is said by [`Loss`](Record::Lost) and [`LossTable`](Record::LossTable).
    Compacted {
        /// The position after the last of them.
        position: EventId,
        /// The newest timestamp given so far, in Unix milliseconds: none that follows is less.
        timestamp: u64,
    },
    /// Events of a category were lost, and this was the newest; of any category, where it has no name.
    Lost {
        /// The category; empty for any.
        category: Arc<str>,
        /// The newest lost event's place in the publish order.
        sequence: u64,
        /// The newest lost event's timestamp, in Unix milliseconds.
        timestamp: u64,
    },
    /// What was lost with categories that are no longer held.
    LossTable(LossTable),
}

const STARTED: &str = "started";
const ACKNOWLEDGES: &str = "acknowledges";
const TAKEN: &str = "taken";
const REFUSED: &str = "refused";
const ENDED: &str = "ended";
const COMPACTED: &str = "compacted";
const LOST: &str = "lost";
const FORGOTTEN: &str = "forgotten";
const DAMAGED: &str = "damaged";
const TORN: &str = "torn";

/// Why a line is no record, in words for the log.
const MAX_REASON_CHARS: usize = 200;

impl Record {
    /// The event, where this is one.
    pub fn event(&self) -> Option<&Event> {
        match self {
            Record::Published { event, .. } => Some(event),
            _ => None,
        }
    }

    /// The record as one line of JSON with a checksum, without the line break.
    pub fn to_line(&self) -> String {
        let mut line = Vec::new();
        self.push_line(&mut line);
        line.pop();
        String::from_utf8(line).unwrap_or_default()
    }

    /// Reads a line, with or without its line break; `None` for a blank one, such as golongpoll's first.
    ///
    /// A line without a checksum is accepted where it has golongpoll's four members and no others, and an id that is not
    /// [ours](EventId).
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest): why the line is not a record, or that its checksum does not
    /// fit.
    pub fn from_line(line: impl AsRef<[u8]>) -> Result<Option<Record>, crate::Error> {
        Record::parse(line.as_ref()).map_err(crate::Error::request)
    }

    /// Adds the record to `buffer` as a line with its line break.
    pub(crate) fn push_line(&self, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        match self {
            Record::Published { sequence, event } => {
                line::push_event(buffer, *sequence, event);
                return line::seal(buffer, start, line::OBJECT);
            }
            Record::Started {
                position,
                acknowledges,
            } => {
                let level = acknowledges.then_some(Cow::from(ACKNOWLEDGES));
                let texts = std::iter::once(text_of(*position)).chain(level);
                push_texts(buffer, STARTED, texts);
            }
            Record::Ended(id) => push_texts(buffer, ENDED, [text_of(*id)]),
            Record::Refused(id) => push_texts(buffer, REFUSED, [text_of(*id)]),
            Record::Compacted {
                position,
                timestamp,
            } => {
                let texts = [text_of(*position), timestamp.to_string().into()];
                push_texts(buffer, COMPACTED, texts);
            }
            Record::Taken {
                category,
                seen,
                ids,
            } => {
                let ids = ids.iter().map(|id| text_of(*id));
                let first = [Cow::from(&**category), text_of(*seen)];
                push_texts(buffer, TAKEN, first.into_iter().chain(ids));
            }
            Record::Lost {
                category,
                sequence,
                timestamp,
            } => push_texts(
                buffer,
                LOST,
                [
                    Cow::from(&**category),
                    sequence.to_string().into(),
                    timestamp.to_string().into(),
                ],
            ),
            Record::LossTable(LossTable { salt, lines }) => {
                let lines = lines.iter().map(|(line, lost)| {
                    Cow::from(format!("{line}:{}:{}", lost.sequence, lost.timestamp))
                });
                push_texts(
                    buffer,
                    FORGOTTEN,
                    std::iter::once(Cow::from(salt.to_string())).chain(lines),
                );
            }
            Record::Damaged => push_texts(buffer, DAMAGED, []),
            Record::Torn => push_texts(buffer, TORN, []),
        }
        line::seal(buffer, start, line::ARRAY);
    }

    /// About how many bytes [`push_line`](Record::push_line) adds; not fewer.
    pub(crate) fn line_len(&self) -> usize {
        /// `["forgotten",…,"crc:01234567"]` and a line break.
        const MARK: usize = 32;
        match self {
            Record::Published { event, .. } => event_line_len(event.as_json().len()),
            Record::Taken { category, ids, .. } => MARK + 6 * category.len() + 39 * (1 + ids.len()),
            Record::Lost { category, .. } => MARK + 6 * category.len() + 46,
            Record::LossTable(LossTable { lines, .. }) => MARK + 24 + 48 * lines.len(),
            Record::Compacted { .. } => MARK + 39 + 23,
            Record::Started { .. } => MARK + 39 + ACKNOWLEDGES.len() + 3,
            _ => MARK + 39,
        }
    }

    /// [`from_line`](Record::from_line), with the reason in few words.
    pub(crate) fn parse(line: &[u8]) -> Result<Option<Record>, String> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(None);
        }
        let parsed = match line::open(line)? {
            line::Opened::Sealed(sealed) if line[0] == b'{' => match line::event(sealed) {
                Some((sequence, event)) => published(sequence, event),
                None => sealed_event(line),
            },
            line::Opened::Sealed(_) => mark(line),
            line::Opened::Plain if line[0] == b'{' => plain_event(line),
            line::Opened::Plain => Err("neither an event nor sealed by a checksum".into()),
        };
        // serde's messages quote the value that is wrong, however long it is.
        parsed
            .map(Some)
            .map_err(|why| why.chars().take(MAX_REASON_CHARS).collect())
    }
}

/// The most bytes that the line of an event has which is so many bytes of JSON.
pub(crate) fn event_line_len(json: usize) -> usize {
    json + line::MAX_ADDED
}

fn text_of(id: EventId) -> Cow<'static, str> {
    id.to_string().into()
}

/// `["taken","category","id","id"`: a text for each.
fn push_texts<'a>(buffer: &mut Vec<u8>, what: &str, texts: impl IntoIterator<Item = Cow<'a, str>>) {
    let mut array = format!("[\"{what}\"");
    for text in texts {
        let _ = write!(array, ",{}", serde_json::Value::from(text));
    }
    buffer.extend_from_slice(array.as_bytes());
}

/// An event's members in any order, as other programs may write them, with a checksum that fits.
fn sealed_event(line: &[u8]) -> Result<Record, String> {
    #[derive(Deserialize)]
    struct Ours {
        #[serde(default)]
        sequence: u64,
    }
    let Ours { sequence } = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let event = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    published(sequence, event)
}

fn published(sequence: u64, event: Event) -> Result<Record, String> {
    let sequence = possible(sequence)?;
    Ok(Record::Published { sequence, event })
}

/// Refuses a sequence number that no id can tell.
fn possible(sequence: u64) -> Result<u64, String> {
    match sequence <= MAX_SEQUENCE {
        true => Ok(sequence),
        false => Err(format!("no sequence number is as great as {sequence}")),
    }
}

/// golongpoll's members in any order. Where there is any other, there was a checksum, however many names are damaged.
fn plain_event(line: &[u8]) -> Result<Record, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Golongpolls {
        #[serde(rename = "timestamp")]
        _timestamp: IgnoredAny,
        #[serde(rename = "category")]
        _category: IgnoredAny,
        #[serde(rename = "data")]
        _data: IgnoredAny,
        #[serde(rename = "id")]
        _id: IgnoredAny,
    }
    let _: Golongpolls =
        serde_json::from_slice(line).map_err(|error| format!("no checksum, and {error}"))?;
    let event: Event = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    // What damage took out of a line may have reached from its id to its checksum.
    if event.id().parts().is_some() {
        return Err("no checksum, and an id of ours".into());
    }
    let sequence = 0;
    Ok(Record::Published { sequence, event })
}

/// An array of texts, the last of which is the checksum.
fn mark(line: &[u8]) -> Result<Record, String> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let texts: Vec<Text<'_>> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let texts: Vec<&str> = texts.iter().map(|Text(text)| &**text).collect();
    let id = |text: &str| {
        text.parse::<EventId>()
            .map_err(|error: crate::Error| error.to_string())
    };
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|error| format!("{text:?}: {error}"))
    };
    match &texts[..texts.len().saturating_sub(1)] {
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
        [DAMAGED] => Ok(Record::Damaged),
        [TORN] => Ok(Record::Torn),
        [TAKEN, category, seen, ids @ ..] => Ok(Record::Taken {
            category: (*category).into(),
            seen: id(seen)?,
            ids: ids.iter().map(|text| id(text)).collect::<Result<_, _>>()?,
        }),
        [LOST, category, sequence, timestamp] => Ok(Record::Lost {
            category: (*category).into(),
            sequence: possible(number(sequence)?)?,
            timestamp: number(timestamp)?,
        }),
        [FORGOTTEN, salt, lines @ ..] => {
            let line = |text: &&str| {
                let mut parts = text.splitn(3, ':').map(number);
                let mut next = || parts.next().unwrap_or_else(|| Err("too short".into()));
                let line = next()? as usize;
                let (sequence, timestamp) = (possible(next()?)?, next()?);
                Ok::<_, String>((
                    line,
                    Loss {
                        sequence,
                        timestamp,
                    },
                ))
            };
            Ok(Record::LossTable(LossTable {
                salt: number(salt)?,
                lines: lines.iter().map(line).collect::<Result<_, _>>()?,
            }))
        }
        _ => Err("an array of no known kind".into()),
    }
}

#[cfg(test)]
mod tests;
