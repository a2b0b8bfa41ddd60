//! The bytes of a line: its checksum, and an event's members, written and read without a parser where the checksum says
//! that they are as they were written.

use std::borrow::Cow;

use crate::event::{Event, decimal};
use crate::position::{EventId, ID_TEXT_LEN};

/// How a line ends after its checksum, in an object and in an array.
pub(super) const OBJECT: Ends = Ends {
    before: br#","crc":""#,
    after: br#""}"#,
};
pub(super) const ARRAY: Ends = Ends {
    before: br#","crc:"#,
    after: br#""]"#,
};

#[derive(Clone, Copy)]
pub(super) struct Ends {
    before: &'static [u8],
    after: &'static [u8],
}

const CRC_DIGITS: usize = 8;
const RUN_DIGITS: usize = 15;
const TIMESTAMP: &[u8] = br#"{"timestamp":"#;
const CATEGORY: &[u8] = br#","category":"#;
const DATA: &[u8] = br#","data":"#;
const ID: &[u8] = br#","id":""#;
const SEQUENCE: &[u8] = br#"","sequence":"#;
const RUN: &[u8] = br#","run":""#;

/// The most bytes that a line has besides the event's own JSON.
pub(super) const MAX_ADDED: usize =
    SEQUENCE.len() + 20 + RUN.len() + RUN_DIGITS + 1 + OBJECT.before.len() + CRC_DIGITS + 3;

/// The event's members and ours, all but the checksum and what closes the object.
pub(super) fn push_event(buffer: &mut Vec<u8>, sequence: u64, event: &Event) {
    let json = event.as_json().as_bytes();
    buffer.reserve(json.len() + MAX_ADDED);
    // What closes the id's text and the object comes later.
    buffer.extend_from_slice(&json[..json.len() - 2]);
    buffer.extend_from_slice(SEQUENCE);
    let mut digits = [0; 20];
    buffer.extend_from_slice(decimal(sequence, &mut digits).as_bytes());
    if let Some((run, _)) = event.id().parts() {
        buffer.extend_from_slice(RUN);
        push_hex(buffer, run.bits(), RUN_DIGITS);
        buffer.push(b'"');
    }
}

/// Adds the checksum of all since `start`, and ends the line.
pub(super) fn seal(buffer: &mut Vec<u8>, start: usize, ends: Ends) {
    let crc = crc32c::crc32c(&buffer[start..]);
    buffer.extend_from_slice(ends.before);
    push_hex(buffer, crc.into(), CRC_DIGITS);
    buffer.extend_from_slice(ends.after);
    buffer.push(b'\n');
}

fn push_hex(buffer: &mut Vec<u8>, number: u64, digits: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digit = |at: usize| HEX[(number >> (4 * at) & 0xf) as usize];
    buffer.extend((0..digits).rev().map(digit));
}

/// A line, once its checksum has been looked at.
pub(super) enum Opened<'a> {
    /// It fits; what stands before it.
    Sealed(&'a [u8]),
    /// There is none.
    Plain,
}

/// # Errors
///
/// Where there is a checksum that does not fit.
pub(super) fn open(line: &[u8]) -> Result<Opened<'_>, String> {
    for ends in [OBJECT, ARRAY] {
        let Some((sealed, digits)) = line.strip_suffix(ends.after).and_then(|line| {
            let (line, digits) = line.split_at_checked(line.len().checked_sub(CRC_DIGITS)?)?;
            Some((line.strip_suffix(ends.before)?, digits))
        }) else {
            continue;
        };
        let crc = u32::try_from(hex(digits).ok_or("the checksum is damaged")?).unwrap_or_default();
        if crc != crc32c::crc32c(sealed) {
            return Err("the checksum does not fit".into());
        }
        return Ok(Opened::Sealed(sealed));
    }
    Ok(Opened::Plain)
}

/// Lower case only, as it was written: another case is another line.
fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(digit))
    })
}

/// The event of a line whose checksum fits, without it: read as [`push_event`] writes. `None` where some other program
/// has written the line: then a parser has to look.
pub(super) fn event(sealed: &[u8]) -> Option<(u64, Event)> {
    let rest = match sealed.strip_suffix(b"\"") {
        Some(rest) => {
            let (rest, run) = rest.split_at_checked(rest.len().checked_sub(RUN_DIGITS)?)?;
            hex(run)?;
            rest.strip_suffix(RUN)?
        }
        None => sealed,
    };
    let digits = rest.iter().rev().take_while(|byte| byte.is_ascii_digit());
    let (rest, sequence) = rest.split_at(rest.len() - digits.count());
    let sequence = number(sequence)?;
    let rest = rest.strip_suffix(SEQUENCE)?;
    let (before, id) = rest.split_at_checked(rest.len().checked_sub(ID_TEXT_LEN)?)?;
    let id: EventId = std::str::from_utf8(id).ok()?.parse().ok()?;
    let json = rest;
    let before = before.strip_suffix(ID)?;

    let after = before.strip_prefix(TIMESTAMP)?;
    let digits = after.iter().position(|byte| !byte.is_ascii_digit())?;
    let (timestamp, after) = after.split_at(digits);
    let after = after.strip_prefix(CATEGORY)?;
    let end = end_of_text(after)?;
    let (category, after) = after.split_at(end);
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
    Some((sequence, event))
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Where the JSON string ends that these bytes begin with.
fn end_of_text(bytes: &[u8]) -> Option<usize> {
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
