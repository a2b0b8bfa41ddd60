//! One line of the file for one record: an event as golongpoll's JSON object, so that each program reads the other's
//! file, and what else is to be known as a JSON array, which golongpoll passes over.

use std::borrow::Cow;

use serde::Deserialize;

use crate::broker::Record;
use crate::event::Event;
use crate::position::EventId;

/// The longest line that is read or written, in bytes.
///
/// Far more than any event that is worth delivering to a thousand subscribers, and little enough to read into memory:
/// a file whose line breaks were overwritten would else be one line of its whole size.
pub(super) const MAX_LINE_BYTES: usize = 64 << 20;

/// Why a line is no event, in words for the log.
const MAX_REASON_CHARS: usize = 200;

const STARTED: &str = "started";
const TAKEN: &str = "taken";
const ENDED: &str = "ended";

/// Adds the record as a line to `buffer`.
pub(super) fn push_line(buffer: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Published(event) => buffer.extend_from_slice(event.as_json().as_bytes()),
        Record::Started(id) => push_array(buffer, STARTED, None, &[*id]),
        Record::Taken(category, ids) => push_array(buffer, TAKEN, Some(category), ids),
        Record::Ended(id) => push_array(buffer, ENDED, None, &[*id]),
    }
    buffer.push(b'\n');
}

/// `["taken","category","id","id"]`: a text for each.
fn push_array(buffer: &mut Vec<u8>, what: &str, category: Option<&str>, ids: &[EventId]) {
    let category = category.map(|category| serde_json::Value::from(category).to_string());
    buffer.extend_from_slice(format!("[\"{what}\"").as_bytes());
    for text in category
        .into_iter()
        .chain(ids.iter().map(|id| format!("\"{id}\"")))
    {
        buffer.push(b',');
        buffer.extend_from_slice(text.as_bytes());
    }
    buffer.push(b']');
}

/// The bytes that [`push_line`] adds.
pub(super) fn line_len(record: &Record) -> usize {
    match record {
        Record::Published(event) => event.as_json().len() + 1,
        mark => {
            let mut line = Vec::new();
            push_line(&mut line, mark);
            line.len()
        }
    }
}

/// How many lines end within `bytes`, and so how many records: none holds a line break.
pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Reads a line, with or without its line break; `None` for a blank one, such as golongpoll's first.
///
/// # Errors
///
/// Why the line is not a record, in a few words.
pub(super) fn parse_line(line: &[u8]) -> Result<Option<Record>, String> {
    let line = line.trim_ascii();
    let parsed = match line.first() {
        None => return Ok(None),
        Some(b'[') => parse_mark(line),
        Some(_) => serde_json::from_slice::<Event>(line)
            .map(Record::Published)
            .map_err(|error| error.to_string()),
    };
    // serde's messages quote the value that is wrong, however long it is.
    parsed
        .map(Some)
        .map_err(|why| why.chars().take(MAX_REASON_CHARS).collect())
}

fn parse_mark(line: &[u8]) -> Result<Record, String> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let texts: Vec<Text<'_>> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let texts: Vec<&str> = texts.iter().map(|Text(text)| &**text).collect();
    let id = |text: &str| {
        text.parse()
            .map_err(|error: crate::Error| error.to_string())
    };
    match texts[..] {
        [STARTED, position] => Ok(Record::Started(id(position)?)),
        [TAKEN, category, ref ids @ ..] => {
            let ids = ids.iter().map(|text| id(text)).collect::<Result<_, _>>()?;
            Ok(Record::Taken(category.into(), ids))
        }
        [ENDED, position] => Ok(Record::Ended(id(position)?)),
        _ => Err("an array of no known kind".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::tests::event;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let event = event(7, "line\nbreak \u{2028} é");
        let id = event.id();
        for record in [
            Record::Started(id),
            Record::Published(event),
            Record::Taken(
                "c\"\n\u{1}é".into(),
                vec![id, EventId::from(0), EventId::from(u128::MAX)],
            ),
            Record::Ended(id),
        ] {
            let mut line = Vec::new();
            push_line(&mut line, &record);
            assert_eq!(line.len(), line_len(&record));
            assert_eq!(count_lines(&line), 1);
            assert_eq!(parse_line(&line), Ok(Some(record.clone())));
            line.truncate(line.len() - 1);
            assert_eq!(parse_line(&line), Ok(Some(record)));
        }
    }

    #[test]
    fn members_may_stand_in_any_order_and_others_among_them() {
        let line = br#" {"id":"d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60","x":[{}],"data":null,"category":"c","timestamp":3} "#;
        let Ok(Some(Record::Published(event))) = parse_line(line) else {
            panic!("no event");
        };
        assert_eq!(
            (event.timestamp(), event.category(), event.data()),
            (3, "c", "null")
        );
    }

    #[test]
    fn blank_lines_are_no_events_and_no_errors() {
        for line in [&b""[..], b"\n", b"\r\n", b"  \t\n"] {
            assert_eq!(parse_line(line), Ok(None));
        }
    }

    #[test]
    fn what_is_no_event_is_refused_with_a_short_reason() {
        let long = format!(r#"{{"timestamp":"{}"}}"#, "x".repeat(100_000));
        let deep = "[".repeat(100_000);
        for line in [
            &b"{"[..],
            b"null",
            b"[]",
            b"[1]",
            br#"["unknown","d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60"]"#,
            br#"["ended"]"#,
            br#"["ended","7"]"#,
            b"{}",
            b"\0\0\0\0",
            b"\xff\xfe",
            br#"{"timestamp":1,"category":"c","data":1}"#,
            br#"{"timestamp":-1,"category":"c","data":1,"id":"d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60"}"#,
            br#"{"timestamp":1,"category":"c","data":1,"id":"7"}"#,
            br#"{"timestamp":1,"category":"c","id":"d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60"}"#,
            b"{\"timestamp\":1,\"category\":\"c\",\"data\":\"\xff\",\"id\":\"d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60\"}",
            long.as_bytes(),
            deep.as_bytes(),
        ] {
            let reason = parse_line(line).unwrap_err();
            assert!(!reason.is_empty() && reason.len() < 1000, "{reason}");
        }
    }
}
