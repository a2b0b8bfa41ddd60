//! [`EventId`], the id of an event and a position in the stream of events, and [`Cursor`], where a poll starts.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::text::serde_as_text;

/// The id of an event: a UUID whose order is the publish order, so that an id is a position, too.
///
/// # Layout
///
/// Ids that this crate makes are UUIDs of version 8 (RFC 9562, section 5.8: custom), most significant bits first:
///
/// | bits | content |
/// |---|---|
/// | 48 | the run: Unix time in milliseconds of the broker's start, greater than that of every run in its file |
/// | 4 | the version, `8` |
/// | 12 | the run, too: random bits, so that two brokers that start in one millisecond differ |
/// | 2 | the variant, `10` |
/// | 62 | the sequence number: 1 for a broker's first event, then one more for each, across all categories; with a file it continues from the last run |
///
/// Ids therefore grow in publish order, within a run and from run to run, and a broker recognises an id of a run that it
/// does not know. It keeps other ids, such as golongpoll's random ones, as they are, and finds them only among the events
/// that it still buffers.
///
/// # Text
///
/// `FromStr` and `Deserialize` accept digits in either case; `Display` and `Serialize` write lower case.
///
/// ```
/// use long_polling::EventId;
///
/// let id: EventId = "019A5B3C-1234-8ABC-8000-000000000007".parse()?;
/// assert_eq!(id.to_string(), "019a5b3c-1234-8abc-8000-000000000007");
/// # Ok::<(), long_polling::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(u128);

/// The run of a broker, as an id has it: 48 bits of time and 12 random bits. Later runs are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(not(feature = "_server"), allow(dead_code))]
pub(crate) struct Run(u64);

#[cfg_attr(not(feature = "_server"), allow(dead_code))]
impl Run {
    /// Creates a run that starts at `milliseconds` of Unix time, with the low 12 bits of `random`.
    pub(crate) const fn new(milliseconds: u64, random: u64) -> Self {
        Run((milliseconds & 0xffff_ffff_ffff) << 12 | random & 0xfff)
    }

    /// Returns the 60 bits.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// Returns the Unix time in milliseconds at which the run started.
    pub(crate) fn started(self) -> u64 {
        self.0 >> 12
    }
}

/// The greatest sequence number that an id can have.
#[cfg_attr(not(feature = "_server"), allow(dead_code))]
pub(crate) const MAX_SEQUENCE: u64 = SEQUENCE_MASK as u64;

const VERSION_8: u128 = 8 << 76;
const VERSION_MASK: u128 = 0xf << 76;
const VARIANT: u128 = 0b10 << 62;
const VARIANT_MASK: u128 = 0b11 << 62;
const SEQUENCE_MASK: u128 = (1 << 62) - 1;

#[cfg_attr(not(feature = "_server"), allow(dead_code))]
impl EventId {
    pub(crate) fn new(run: Run, sequence: u64) -> Self {
        let time = u128::from(run.started()) << 80;
        let random = u128::from(run.0 & 0xfff) << 64;
        EventId(time | VERSION_8 | random | VARIANT | u128::from(sequence) & SEQUENCE_MASK)
    }

    /// Returns the run and the sequence number, or `None` if the id does not have this crate's layout.
    pub(crate) fn parts(self) -> Option<(Run, u64)> {
        if self.0 & VERSION_MASK != VERSION_8 || self.0 & VARIANT_MASK != VARIANT {
            return None;
        }
        let run = Run::new((self.0 >> 80) as u64, (self.0 >> 64) as u64);
        Some((run, (self.0 & SEQUENCE_MASK) as u64))
    }

    /// Returns the sequence number, or `None` if the id does not have this crate's layout.
    #[cfg(feature = "_server")]
    pub(crate) fn sequence(self) -> Option<u64> {
        self.parts().map(|(_, sequence)| sequence)
    }

    /// Returns the 128 bits of the UUID.
    pub fn as_u128(self) -> u128 {
        self.0
    }
}

impl From<u128> for EventId {
    fn from(bits: u128) -> Self {
        EventId(bits)
    }
}

/// The length of a UUID's text, in bytes.
pub(crate) const ID_TEXT_LEN: usize = 36;

impl EventId {
    /// Returns the text as ASCII bytes. Every publish does this, so it avoids the slower `fmt`.
    pub(crate) fn to_text(self) -> [u8; ID_TEXT_LEN] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; ID_TEXT_LEN];
        let mut at = 0;
        for byte in self.0.to_be_bytes() {
            if matches!(at, 8 | 13 | 18 | 23) {
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 0xf)];
            at += 2;
        }
        text
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_text();
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

impl FromStr for EventId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            let start: String = text.chars().take(64).collect();
            Error::request(format!("not an event id (a UUID is expected): {start:?}"))
        };
        if text.len() != ID_TEXT_LEN {
            return Err(wrong());
        }
        let mut bits = 0u128;
        for (at, byte) in text.bytes().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return Err(wrong());
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or_else(wrong)?;
            bits = bits << 4 | u128::from(digit);
        }
        Ok(EventId(bits))
    }
}

serde_as_text!(EventId, "a UUID");

/// Where a poll starts in the stream of events.
///
/// # Text
///
/// `Display` and `FromStr`, and likewise `Serialize` and `Deserialize`, use a text for configuration and state files:
/// `now`, `oldest`, or the parameters of the HTTP API, `since_time=…`, `last_id=…` or both, joined by `&`.
///
/// ```
/// use long_polling::{Cursor, EventId};
///
/// let id: EventId = "019a5b3c-1234-8abc-8000-000000000007".parse()?;
/// for (cursor, text) in [
///     (Cursor::default(), "now"),
///     (Cursor::Oldest, "oldest"),
///     (Cursor::SinceTime(1616040198889), "since_time=1616040198889"),
///     (
///         Cursor::from(id),
///         "last_id=019a5b3c-1234-8abc-8000-000000000007",
///     ),
///     (
///         Cursor::LastIdOrSinceTime(id, 5),
///         "last_id=019a5b3c-1234-8abc-8000-000000000007&since_time=5",
///     ),
/// ] {
///     assert_eq!(cursor.to_string(), text);
///     assert_eq!(text.parse::<Cursor>()?, cursor);
/// }
/// # Ok::<(), long_polling::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cursor {
    /// Only events published from now on: the default. Over HTTP: neither parameter.
    #[default]
    Now,
    /// All events that are still buffered. Over HTTP: `since_time=1`, as in the Go package's tests.
    Oldest,
    /// Events with a timestamp greater than this one, in Unix milliseconds. 0 and 1: all events that are still buffered.
    ///
    /// With a time more than a minute ahead of the server's clock, which no event can have: all events that are still
    /// buffered, with [`gap`](crate::Batch::gap) set.
    SinceTime(u64),
    /// Events published after the event, or position, with this id. If the server does not know the id: all events that
    /// are still buffered, with [`gap`](crate::Batch::gap) set.
    LastId(EventId),
    /// Events after the id if the server knows it, otherwise events since the time (Unix milliseconds).
    LastIdOrSinceTime(EventId, u64),
}

/// [`Cursor::LastId`].
impl From<EventId> for Cursor {
    fn from(id: EventId) -> Self {
        Cursor::LastId(id)
    }
}

/// [`Cursor::LastId`], or [`Cursor::Now`] for `None`.
impl From<Option<EventId>> for Cursor {
    fn from(id: Option<EventId>) -> Self {
        id.map_or(Cursor::Now, Cursor::LastId)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cursor::Now => f.write_str("now"),
            Cursor::Oldest => f.write_str("oldest"),
            Cursor::SinceTime(time) => write!(f, "since_time={time}"),
            Cursor::LastId(id) => write!(f, "last_id={id}"),
            Cursor::LastIdOrSinceTime(id, time) => write!(f, "last_id={id}&since_time={time}"),
        }
    }
}

impl FromStr for Cursor {
    type Err = Error;

    /// # Errors
    ///
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest).
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            let start: String = text.chars().take(64).collect();
            Error::request(format!(
                "not a cursor: {start:?}; give now, oldest, since_time=… (Unix time in milliseconds) or last_id=… (a UUID)"
            ))
        };
        match text {
            "now" => return Ok(Cursor::Now),
            "oldest" => return Ok(Cursor::Oldest),
            _ => {}
        }
        let (mut time, mut id) = (None, None);
        for parameter in text.split('&') {
            match parameter.split_once('=') {
                Some(("since_time", value)) if time.is_none() => {
                    time = Some(value.parse::<u64>().map_err(|_| wrong())?);
                }
                Some(("last_id", value)) if id.is_none() => {
                    id = Some(value.parse::<EventId>()?);
                }
                _ => return Err(wrong()),
            }
        }
        match (id, time) {
            (Some(id), Some(time)) => Ok(Cursor::LastIdOrSinceTime(id, time)),
            (Some(id), None) => Ok(Cursor::LastId(id)),
            (None, Some(time)) => Ok(Cursor::SinceTime(time)),
            (None, None) => Err(wrong()),
        }
    }
}

serde_as_text!(Cursor, "a cursor: now, oldest, since_time=… or last_id=…");

#[cfg(any(feature = "client", feature = "_server"))]
impl Cursor {
    /// Returns the HTTP API's two parameters: `since_time` and `last_id`.
    pub(crate) fn parameters(self) -> (Option<u64>, Option<EventId>) {
        match self {
            Cursor::Now => (None, None),
            Cursor::Oldest => (Some(1), None),
            Cursor::SinceTime(time) => (Some(time), None),
            Cursor::LastId(id) => (None, Some(id)),
            Cursor::LastIdOrSinceTime(id, time) => (Some(time), Some(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_run_and_sequence_and_grows_with_both() {
        let early = Run::new(1_700_000_000_000, 0xabc);
        let late = Run::new(1_700_000_000_001, 0x001);
        let ids = [
            EventId::new(early, 0),
            EventId::new(early, 1),
            EventId::new(early, (1 << 62) - 1),
            EventId::new(late, 5),
        ];
        assert!(ids.is_sorted());
        for (id, parts) in
            ids.iter()
                .zip([(early, 0), (early, 1), (early, (1 << 62) - 1), (late, 5)])
        {
            assert_eq!(id.parts(), Some(parts));
            assert_eq!(id.to_string().parse::<EventId>().unwrap(), *id);
        }
        assert_eq!(late.started(), 1_700_000_000_001);
    }

    #[test]
    fn a_random_uuid_has_no_run() {
        let id: EventId = "d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60".parse().unwrap();
        assert_eq!(id.parts(), None);
        assert_eq!(id.to_string(), "d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60");
    }

    #[test]
    fn text_that_is_not_a_uuid_is_refused() {
        for text in [
            "",
            "1",
            "d1f5a7c25d5e4b0e9c391d2c3b4a5f60",
            "{d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60}",
            "g1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60",
            "d1f5a7c2-5d5e-4b0e-9c39+1d2c3b4a5f60",
            "d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f6é",
            "+1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60",
        ] {
            assert!(text.parse::<EventId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_cursor_is_its_text_in_json_and_parameters_have_no_order() {
        let id = EventId::from(7);
        for cursor in [
            Cursor::Now,
            Cursor::Oldest,
            Cursor::SinceTime(1),
            Cursor::from(Some(id)),
            Cursor::LastIdOrSinceTime(id, u64::MAX),
        ] {
            let json = serde_json::to_string(&cursor).unwrap();
            assert_eq!(json, format!("\"{cursor}\""));
            assert_eq!(serde_json::from_str::<Cursor>(&json).unwrap(), cursor);
        }
        let swapped = format!("since_time=5&last_id={id}").parse::<Cursor>();
        assert_eq!(swapped.unwrap(), Cursor::LastIdOrSinceTime(id, 5));
        assert_eq!(Cursor::from(None), Cursor::default());
    }

    #[test]
    fn text_that_is_not_a_cursor_is_refused() {
        for text in [
            "",
            "Now",
            "since_time=",
            "since_time=-1",
            "since_time=1&since_time=2",
            "last_id=7",
            "category=c",
            "now&since_time=1",
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text:?}");
        }
    }
}
