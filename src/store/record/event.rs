//! The line of an event: a JSON object.
//!
//! A line whose checksum matches is read without a JSON parser if [`push`] wrote it. Every other line is parsed.

use std::borrow::Cow;
use std::num::NonZeroU64;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::checksum::{self, OBJECT};
use super::{Record, in_range};
use crate::event::{Event, decimal};
use crate::position::{EventId, ID_TEXT_LEN};

const RUN_DIGITS: usize = 15;
const TIMESTAMP: &[u8] = br#"{"timestamp":"#;
const CATEGORY: &[u8] = br#","category":"#;
const DATA: &[u8] = br#","data":"#;
const ID: &[u8] = br#","id":""#;
const SEQUENCE: &[u8] = br#"","sequence":"#;
const TTL: &[u8] = br#","ttl_ms":"#;
const RUN: &[u8] = br#","run":""#;

/// The most bytes that a line has besides the event's own JSON.
const MAX_ADDED: usize =
    SEQUENCE.len() + 20 + TTL.len() + 20 + RUN.len() + RUN_DIGITS + 1 + OBJECT.len();

/// Returns the most bytes that an event's line has, by the bytes of the event's JSON.
pub(crate) fn event_line_len(json: usize) -> usize {
    json + MAX_ADDED
}

/// Appends the line of an event.
pub(super) fn push(buffer: &mut Vec<u8>, sequence: u64, event: &Event) {
    let start = buffer.len();
    let json = event.as_json().as_bytes();
    buffer.reserve(json.len() + MAX_ADDED);
    // SEQUENCE begins with the quotation mark that closes the id; OBJECT ends with the brace.
    buffer.extend_from_slice(&json[..json.len() - 2]);
    buffer.extend_from_slice(SEQUENCE);
    let mut digits = [0; 20];
    buffer.extend_from_slice(decimal(sequence, &mut digits).as_bytes());
    if let Some(ttl) = event.own_ttl() {
        buffer.extend_from_slice(TTL);
        buffer.extend_from_slice(decimal(ttl, &mut digits).as_bytes());
    }
    if let Some((run, _)) = event.id().parts() {
        buffer.extend_from_slice(RUN);
        checksum::push_hex(buffer, run.bits(), RUN_DIGITS);
        buffer.push(b'"');
    }
    checksum::seal(buffer, start, OBJECT);
}

/// Reads a line whose checksum matches. `sealed` is the part before the checksum.
pub(super) fn parse_sealed(line: &[u8], sealed: &[u8]) -> Result<Record, String> {
    #[derive(Deserialize)]
    struct Added {
        #[serde(default)]
        sequence: u64,
        #[serde(default)]
        ttl_ms: u64,
    }
    if let Some((sequence, event)) = scan(sealed) {
        return published(sequence, event);
    }
    let Added { sequence, ttl_ms } =
        serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let event: Event = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    published(sequence, event.with_own_ttl(NonZeroU64::new(ttl_ms)))
}

/// Reads a line without a checksum: one that golongpoll wrote. It has golongpoll's members in any order. A line with any
/// other member had a checksum once, and is damaged.
pub(super) fn parse_plain(line: &[u8]) -> Result<Record, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Golongpoll {
        #[serde(rename = "timestamp")]
        _timestamp: IgnoredAny,
        #[serde(rename = "category")]
        _category: IgnoredAny,
        #[serde(rename = "data")]
        _data: IgnoredAny,
        #[serde(rename = "id")]
        _id: IgnoredAny,
    }
    let _: Golongpoll =
        serde_json::from_slice(line).map_err(|error| format!("no checksum, and {error}"))?;
    let event: Event = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    // Damage may have removed everything from the id to the checksum.
    if event.id().parts().is_some() {
        return Err("no checksum, and an id of this crate".into());
    }
    published(0, event)
}

fn published(sequence: u64, event: Event) -> Result<Record, String> {
    let sequence = in_range(sequence)?;
    Ok(Record::Published { sequence, event })
}

/// Reads the part before the checksum of a line that [`push`] wrote. Returns `None` if another program wrote the line.
fn scan(sealed: &[u8]) -> Option<(u64, Event)> {
    let rest = match sealed.strip_suffix(b"\"") {
        Some(rest) => {
            let (rest, run) = rest.split_at_checked(rest.len().checked_sub(RUN_DIGITS)?)?;
            checksum::hex(run)?;
            rest.strip_suffix(RUN)?
        }
        None => sealed,
    };
    let (mut rest, mut sequence) = split_digits(rest);
    let mut ttl = None;
    if let Some(before) = rest.strip_suffix(TTL) {
        ttl = NonZeroU64::new(number(sequence)?);
        (rest, sequence) = split_digits(before);
    }
    let sequence = number(sequence)?;
    let json = rest.strip_suffix(SEQUENCE)?;
    let (before, id) = json.split_at_checked(json.len().checked_sub(ID_TEXT_LEN)?)?;
    let id: EventId = std::str::from_utf8(id).ok()?.parse().ok()?;
    let before = before.strip_suffix(ID)?;

    let after = before.strip_prefix(TIMESTAMP)?;
    let digits = after.iter().position(|byte| !byte.is_ascii_digit())?;
    let (timestamp, after) = after.split_at(digits);
    let after = after.strip_prefix(CATEGORY)?;
    let (category, after) = after.split_at(string_len(after)?);
    let data = after.strip_prefix(DATA)?;
    if data.is_empty() {
        return None;
    }
    let start = before.len() - data.len();
    let json = [std::str::from_utf8(json).ok()?, "\"}"].concat();
    let category: Cow<'_, str> = match category {
        [b'"', plain @ .., b'"'] if !plain.contains(&b'\\') => {
            std::str::from_utf8(plain).ok()?.into()
        }
        escaped => serde_json::from_slice::<String>(escaped).ok()?.into(),
    };
    let data = start..before.len();
    let event = Event::from_parts(number(timestamp)?, id, &category, json, data);
    Some((sequence, event.with_own_ttl(ttl)))
}

/// Splits off the digits at the end.
fn split_digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    let digits = bytes.iter().rev().take_while(|byte| byte.is_ascii_digit());
    bytes.split_at(bytes.len() - digits.count())
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Returns the length of the JSON string that these bytes begin with.
fn string_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    (bytes.first() == Some(&b'"')).then_some(())?;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}
