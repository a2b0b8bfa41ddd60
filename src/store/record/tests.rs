//! Tests of [`Record`]: its lines, and lines that are none.

use std::num::NonZeroU64;

use super::*;
use crate::event::Draft;
use crate::position::Run;
use crate::store::Loss;

fn event(timestamp: u64, data: &str) -> Event {
    let id = EventId::new(Run::new(1_700_000_000_000, 7), timestamp);
    let draft = Draft::new("category".into(), data).unwrap();
    draft.stamp(timestamp, id)
}

fn published(sequence: u64, event: Event) -> Record {
    Record::Published { sequence, event }
}

/// A record of each kind, with characters in its strings that JSON escapes.
fn records() -> Vec<Record> {
    let event = event(7, "line\nbreak \u{2028} é \" \\");
    let id = event.id();
    let odd: Arc<str> = "c\"\n\u{1}é\\".into();
    let odd_event = Draft::new(odd.clone(), &["x"])
        .unwrap()
        .stamp(0, EventId::from(3));
    let lost = Loss {
        sequence: 7,
        timestamp: u64::MAX,
    };
    vec![
        Record::Started {
            position: id,
            acknowledges: false,
        },
        Record::Started {
            position: id,
            acknowledges: true,
        },
        published(7, event),
        published(MAX_SEQUENCE, odd_event),
        Record::Taken {
            category: odd.clone(),
            seen: id,
            ids: vec![id, EventId::from(0), EventId::from(u128::MAX)],
        },
        Record::Batch(id),
        Record::Keyed {
            key: "a \"key\" \\".into(),
            fingerprint: 7,
            last: id,
            count: u16::MAX,
            timestamp: u64::MAX,
        },
        Record::Purged {
            category: odd.clone(),
            position: id,
            timestamp: u64::MAX,
        },
        Record::Refused(id),
        Record::Ended(id),
        Record::Damaged,
        Record::Torn,
        Record::Compacted {
            position: id,
            timestamp: u64::MAX,
        },
        Record::Lost {
            category: odd,
            sequence: MAX_SEQUENCE,
            timestamp: 1,
        },
        Record::LossTable(LossTable::from_rows(u64::MAX, [(0, lost), (1023, lost)])),
    ]
}

#[test]
fn a_record_written_as_a_line_is_read_unchanged() {
    for record in records() {
        let mut line = Vec::new();
        record.push_line(&mut line);
        assert!(
            line.len() <= record.line_len() && record.line_len() <= line.len() + 64,
            "{record:?}"
        );
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(Record::parse(&line), Ok(Some(record.clone())));
        assert_eq!(record.to_string(), record.to_line());
        assert_eq!(record.to_string().parse::<Record>().unwrap(), record);
        assert_eq!(Record::from_line(record.to_line()).unwrap(), Some(record));
    }
}

#[test]
fn a_sequence_number_that_does_not_fit_an_id_is_damage() {
    let timestamp = 1;
    for sequence in [MAX_SEQUENCE + 1, u64::MAX] {
        let lost = Loss {
            sequence,
            timestamp,
        };
        for record in [
            published(sequence, event(1, "x")),
            Record::Lost {
                category: "c".into(),
                sequence,
                timestamp,
            },
            Record::LossTable(LossTable::from_rows(1, [(0, lost)])),
        ] {
            let error = Record::from_line(record.to_line()).unwrap_err();
            assert!(error.to_string().contains(&sequence.to_string()), "{error}");
        }
    }
}

#[test]
fn golongpoll_members_come_first_and_the_checksum_last() {
    let event = event(7, "x");
    let line = published(9, event.clone()).to_line();
    let run = "18bcfe56800007";
    let start = format!(
        r#"{},"sequence":9,"run":"0{run}","crc":""#,
        event.as_json().trim_end_matches('}')
    );
    assert!(line.starts_with(&start), "{line}");
    let crc = crc32c::crc32c(&line.as_bytes()[..start.len() - r#","crc":""#.len()]);
    assert_eq!(line[start.len()..], format!("{crc:08x}\"}}"));
    // Any JSON parser reads it, golongpoll's included.
    assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
}

#[test]
fn a_line_with_any_bit_flipped_is_refused_or_reads_the_same() {
    for record in records() {
        let line = record.to_line().into_bytes();
        for bit in 0..8 * line.len() {
            let mut flipped = line.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match Record::parse(&flipped) {
                Err(_) | Ok(None) => {}
                Ok(Some(read)) => {
                    assert_eq!(read, record, "{}", String::from_utf8_lossy(&flipped))
                }
            }
        }
    }
}

#[test]
fn a_line_truncated_anywhere_is_refused() {
    for record in records() {
        let line = record.to_line().into_bytes();
        for cut in 1..line.len() {
            assert!(Record::parse(&line[..cut]).is_err(), "{record:?} at {cut}");
        }
    }
}

#[test]
fn members_may_be_in_any_order_and_a_line_with_a_checksum_may_have_others() {
    let members =
        r#""id":"d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60","data":null,"category":"c","timestamp":3"#;
    let mut sealed = format!(r#"{{"x":[{{}}],{members},"sequence":7"#).into_bytes();
    checksum::seal(&mut sealed, 0, checksum::OBJECT);
    for (line, number) in [(format!(" {{ {members} }} ").into_bytes(), 0), (sealed, 7)] {
        let Ok(Some(Record::Published { sequence, event })) = Record::parse(&line) else {
            panic!("no event");
        };
        assert_eq!(
            (sequence, event.timestamp(), event.category(), event.data()),
            (number, 3, "c", "null")
        );
    }
}

#[test]
fn a_line_that_golongpoll_does_not_write_needs_a_checksum() {
    let event = event(7, "x");
    let line = published(9, event.clone()).to_line();
    let (before, _) = line.rsplit_once(r#","crc""#).unwrap();
    assert!(Record::parse(format!("{before}}}").as_bytes()).is_err());
    // Also if the names of our members, and the bits of the id that mark it as ours, are damaged.
    let id = event.id().to_string();
    let damaged = line.replace("crc", "crd").replace("sequence", "sequencf");
    let foreign = "d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60";
    // Also if everything between the id and the checksum is missing, which can join the two into another id.
    assert!(Record::parse(event.as_json().as_bytes()).is_err());
    assert!(Record::parse(event.as_json().replace(&id, foreign).as_bytes()).is_ok());
    assert!(Record::parse(damaged.replace(&id, foreign).as_bytes()).is_err());
    let ended = Record::Ended(event.id()).to_line();
    let (before, _) = ended.rsplit_once(r#","crc"#).unwrap();
    assert!(Record::parse(format!("{before}]").as_bytes()).is_err());
}

#[test]
fn a_blank_line_is_neither_a_record_nor_an_error() {
    for line in [&b""[..], b"\n", b"\r\n", b"  \t\n"] {
        assert_eq!(Record::parse(line), Ok(None));
    }
    let error = " ".parse::<Record>().unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::InvalidRequest);
}

#[test]
fn a_line_that_is_not_a_record_is_refused_with_a_short_reason() {
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
        br#"["lost","c","1"]"#,
        br#"["forgotten","1","2:3"]"#,
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
        let reason = Record::parse(line).unwrap_err();
        assert!(!reason.is_empty() && reason.len() < 1000, "{reason}");
    }
}

#[test]
fn the_line_of_an_event_keeps_its_time_to_live() {
    for (sequence, ttl) in [(0, 1), (7, 1500), (MAX_SEQUENCE, u64::MAX)] {
        let ttl = NonZeroU64::new(ttl);
        let record = published(sequence, event(7, "x").with_own_ttl(ttl));
        let line = record.to_line();
        assert!(line.len() <= record.line_len(), "{line}");
        let Ok(Some(Record::Published {
            sequence: read,
            event,
        })) = Record::from_line(&line)
        else {
            panic!("not an event: {line}");
        };
        assert_eq!(
            (read, event.own_ttl()),
            (sequence, ttl.map(NonZeroU64::get))
        );
        // The members of another order are read by the parser of JSON.
        let text = line.as_bytes();
        let Ok(checksum::Opened::Sealed(sealed)) = checksum::open(text) else {
            panic!("no checksum: {line}");
        };
        let mut other = b"{\"new\":1,".to_vec();
        other.extend_from_slice(&sealed[1..]);
        checksum::seal(&mut other, 0, checksum::OBJECT);
        let Ok(Some(Record::Published { event, .. })) = Record::from_line(&other) else {
            panic!("not an event");
        };
        assert_eq!(event.own_ttl(), ttl.map(NonZeroU64::get));
    }
}
