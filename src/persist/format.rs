//! One line of the file for one event: golongpoll's JSON object, so that each program reads the other's file.

use crate::event::Event;

/// The longest line that is read or written, in bytes.
///
/// Far more than any event that is worth delivering to a thousand subscribers, and little enough to read into memory:
/// a file whose line breaks were overwritten would else be one line of its whole size.
pub(super) const MAX_LINE_BYTES: usize = 64 << 20;

/// Why a line is no event, in words for the log.
const MAX_REASON_CHARS: usize = 200;

/// Adds the event as a line to `buffer`.
pub(super) fn push_line(buffer: &mut Vec<u8>, event: &Event) {
    buffer.extend_from_slice(event.as_json().as_bytes());
    buffer.push(b'\n');
}

/// The bytes that [`push_line`] adds.
pub(super) fn line_len(event: &Event) -> usize {
    event.as_json().len() + 1
}

/// How many lines end within `bytes`, and so how many events: [`Event::as_json`] holds no line break.
pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Reads a line, with or without its line break; `None` for a blank one, such as golongpoll's first.
///
/// # Errors
///
/// Why the line is not an event, in a few words.
pub(super) fn parse_line(line: &[u8]) -> Result<Option<Event>, String> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    // serde's messages quote the value that is wrong, however long it is.
    serde_json::from_slice(line)
        .map(Some)
        .map_err(|error| error.to_string().chars().take(MAX_REASON_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::tests::event;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let event = event(7, "line\nbreak \u{2028} é");
        let mut line = Vec::new();
        push_line(&mut line, &event);
        assert_eq!(line.len(), line_len(&event));
        assert_eq!(count_lines(&line), 1);
        assert!(line.ends_with(b"}\n"));
        assert_eq!(parse_line(&line), Ok(Some(event.clone())));
        line.truncate(line.len() - 1);
        assert_eq!(parse_line(&line), Ok(Some(event)));
    }

    #[test]
    fn members_may_stand_in_any_order_and_others_among_them() {
        let line = br#" {"id":"d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60","x":[{}],"data":null,"category":"c","timestamp":3} "#;
        let event = parse_line(line).unwrap().unwrap();
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
