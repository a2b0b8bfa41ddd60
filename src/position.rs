//! Where a follower stands: [`EventId`], the id of an event that is also a position, and [`Cursor`], where a poll starts.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

/// The id of an event: a UUID whose order is the publish order, so that an id alone is a position.
///
/// # Layout
///
/// Ids made by this crate are UUIDs of version 8 (RFC 9562, section 5.8: custom), most significant bits first:
///
/// | bits | content |
/// |---|---|
/// | 48 | the run: Unix time in milliseconds when the broker was started, greater than that of every run in its file |
/// | 4 | the version, `8` |
/// | 12 | the run, too: random, so that two brokers started in one millisecond differ |
/// | 2 | the variant, `10` |
/// | 62 | the sequence number: 1 for a broker's first event, then one more for each, across all categories; with a file it goes on where the last run ended |
///
/// So ids grow in publish order, within a run and from run to run, and an id whose run is not known to a broker is
/// recognised as such. Ids of any other kind (golongpoll's are random) are kept as they are; those are compared with
/// events still buffered only.
///
/// Text is read in either case and written in lower case.
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

/// The run of a broker that an id tells: 48 bits of time and 12 random ones, in the order of starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(not(feature = "server"), allow(dead_code))]
pub(crate) struct Run(u64);

#[cfg_attr(not(feature = "server"), allow(dead_code))]
impl Run {
    /// A run starting at `milliseconds` of Unix time, told apart from others by the low 12 bits of `random`.
    pub(crate) const fn new(milliseconds: u64, random: u64) -> Self {
        Run((milliseconds & 0xffff_ffff_ffff) << 12 | random & 0xfff)
    }

    /// The 60 bits.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// The Unix time in milliseconds at which the run started.
    pub(crate) fn started(self) -> u64 {
        self.0 >> 12
    }
}

/// The greatest sequence number that an id can tell.
#[cfg_attr(not(feature = "server"), allow(dead_code))]
pub(crate) const MAX_SEQUENCE: u64 = SEQUENCE_MASK as u64;

const VERSION_8: u128 = 8 << 76;
const VERSION_MASK: u128 = 0xf << 76;
const VARIANT: u128 = 0b10 << 62;
const VARIANT_MASK: u128 = 0b11 << 62;
const SEQUENCE_MASK: u128 = (1 << 62) - 1;

#[cfg_attr(not(feature = "server"), allow(dead_code))]
impl EventId {
    pub(crate) fn new(run: Run, sequence: u64) -> Self {
        let time = u128::from(run.started()) << 80;
        let random = u128::from(run.0 & 0xfff) << 64;
        EventId(time | VERSION_8 | random | VARIANT | u128::from(sequence) & SEQUENCE_MASK)
    }

    /// The run and the sequence number, where the id is of this crate's layout.
    pub(crate) fn parts(self) -> Option<(Run, u64)> {
        if self.0 & VERSION_MASK != VERSION_8 || self.0 & VARIANT_MASK != VARIANT {
            return None;
        }
        let run = Run::new((self.0 >> 80) as u64, (self.0 >> 64) as u64);
        Some((run, (self.0 & SEQUENCE_MASK) as u64))
    }

    /// The 128 bits of the UUID.
    pub fn as_u128(self) -> u128 {
        self.0
    }
}

impl From<u128> for EventId {
    fn from(bits: u128) -> Self {
        EventId(bits)
    }
}

/// Length of a UUID's text.
pub(crate) const ID_TEXT_LEN: usize = 36;

impl EventId {
    /// The text, as ASCII bytes: formatted without `fmt`, since every publish pays for it.
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

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = EventId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UUID")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<EventId, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Where a poll starts. The wire's parameters `since_time` and `last_id`, or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Only what is published from now on. Over HTTP: neither parameter.
    Now,
    /// Everything that is still buffered. Over HTTP: `since_time=1`, as the Go package's tests have it.
    Oldest,
    /// Events with a timestamp strictly greater than this one, in Unix milliseconds. 0 and 1: everything still
    /// buffered. More than a minute ahead of the server's time, so that no event can have had it: everything still
    /// buffered, with `gap` set.
    SinceTime(u64),
    /// Everything published after the event, or position, with this id. Where it can't be placed: everything still
    /// buffered, with [`gap`](crate::Batch::gap) set.
    LastId(EventId),
    /// After the id where it can be placed, else since the time (Unix milliseconds).
    LastIdOrSinceTime(EventId, u64),
}

#[cfg(feature = "client")]
impl Cursor {
    /// The wire's two parameters: `since_time` and `last_id`.
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
    fn text_that_is_no_uuid_is_refused() {
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
}
