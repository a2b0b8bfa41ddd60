//! Records for the conformance tests: one of each kind, and events of a run.

use std::num::NonZeroU64;

use super::session::Seen;
use crate::event::Draft;
use crate::position::{EventId, MAX_SEQUENCE, Run};
use crate::store::{Loss, LossTable, Record};

const TIMESTAMP: u64 = 1_700_000_000_000;

fn run() -> Run {
    Run::new(TIMESTAMP, 0xabc)
}

/// Returns the position with this sequence number.
pub(super) fn position(sequence: u64) -> EventId {
    EventId::new(run(), sequence)
}

/// Returns an event with this sequence number and data.
pub(super) fn event_with(sequence: u64, category: &str, data: &str) -> Seen<Record> {
    let draft = Draft::new(category.into(), data).map_err(|error| error.to_string())?;
    let event = draft.stamp(TIMESTAMP + sequence, position(sequence));
    Ok(Record::Published { sequence, event })
}

/// Returns a small event with this sequence number.
pub(super) fn event(sequence: u64) -> Seen<Record> {
    event_with(sequence, "category", &format!("event {sequence}"))
}

/// Returns small events with these sequence numbers.
pub(super) fn events(sequences: std::ops::RangeInclusive<u64>) -> Seen<Vec<Record>> {
    sequences.map(event).collect()
}

/// Returns the name of a record's kind. A new kind needs a name here, and records in [`of_each_kind`].
pub(super) fn kind(record: &Record) -> &'static str {
    match record {
        Record::Started { .. } => "Started",
        Record::Published { .. } => "Published",
        Record::Taken { .. } => "Taken",
        Record::Batch(_) => "Batch",
        Record::Keyed { .. } => "Keyed",
        Record::Purged { .. } => "Purged",
        Record::Refused(_) => "Refused",
        Record::Ended(_) => "Ended",
        Record::Damaged => "Damaged",
        Record::Torn => "Torn",
        Record::Compacted { .. } => "Compacted",
        Record::Lost { .. } => "Lost",
        Record::LossTable(_) => "LossTable",
    }
}

/// Returns records of each kind, with texts and numbers that a store may get wrong. A broker passes all kinds but
/// [`Record::Damaged`] and [`Record::Torn`] to its store; a store that copies a log has these, too.
pub(super) fn of_each_kind() -> Seen<Vec<Record>> {
    let odd = "\u{1}\"\\/é🌊\n\r\t\0'; DROP TABLE record; --";
    let loss = Loss {
        sequence: MAX_SEQUENCE,
        timestamp: TIMESTAMP,
    };
    let mut losses = LossTable::new();
    for category in ["a", "b", odd] {
        losses.add(category, loss);
    }
    let lost = |category: &str, sequence| Record::Lost {
        category: category.into(),
        sequence,
        timestamp: TIMESTAMP,
    };
    let started = |acknowledges| Record::Started {
        position: position(7),
        acknowledges,
    };
    let keyed = |key: &str, last| Record::Keyed {
        key: key.into(),
        fingerprint: u64::MAX,
        last: position(last),
        count: u16::MAX,
        timestamp: TIMESTAMP,
    };
    let taken = |category: &str, ids: Vec<EventId>| Record::Taken {
        category: category.into(),
        seen: position(8),
        ids,
    };
    Ok(vec![
        Record::Compacted {
            position: position(7),
            timestamp: u64::MAX,
        },
        lost("", 3),
        lost(odd, MAX_SEQUENCE),
        keyed(&r#"a "'\ key; --"#.repeat(15), 7),
        Record::LossTable(losses),
        started(false),
        started(true),
        event_with(8, odd, odd)?,
        event_with(9, &"long ".repeat(200), &"x".repeat(1 << 20))?,
        event_with(10, "empty", "")?,
        taken(
            odd,
            vec![position(8), EventId::from(u128::MAX), EventId::from(0)],
        ),
        taken("none", Vec::new()),
        expiring(event_with(11, "c", "expires")?),
        keyed("k", 12),
        Record::Batch(position(12)),
        event_with(12, "c", "together")?,
        Record::Purged {
            category: odd.into(),
            position: position(13),
            timestamp: TIMESTAMP,
        },
        Record::Refused(position(14)),
        Record::Damaged,
        Record::Torn,
        Record::Ended(position(14)),
    ])
}

/// Gives an event a time to live of its own.
fn expiring(record: Record) -> Record {
    match record {
        Record::Published { sequence, event } => Record::Published {
            sequence,
            event: event.with_own_ttl(NonZeroU64::new(1500)),
        },
        other => other,
    }
}

/// Returns how the records that a store replayed differ from those that it was to have; `None` if they are the same.
pub(super) fn difference(expected: &[Record], replayed: &[Record]) -> Option<String> {
    let pairs = expected.iter().zip(replayed);
    // Two events with different times to live are equal, and their lines are not.
    let at = pairs.take_while(|(expected, replayed)| expected.to_line() == replayed.to_line());
    let at = at.count();
    if at == expected.len() && at == replayed.len() {
        return None;
    }
    let number = at + 1;
    let counts = format!(
        "{} records appended, {} replayed",
        expected.len(),
        replayed.len()
    );
    Some(match (expected.get(at), replayed.get(at)) {
        (Some(expected), None) => {
            format!(
                "{counts}: record {number}, a {}, is missing: {}",
                kind(expected),
                short(expected)
            )
        }
        (None, Some(replayed)) => {
            format!(
                "{counts}: record {number} was never appended: {}",
                short(replayed)
            )
        }
        (Some(expected), Some(replayed)) => format!(
            "{counts}: record {number}, a {}, was {} and is {}",
            kind(expected),
            short(expected),
            short(replayed)
        ),
        (None, None) => counts,
    })
}

/// Returns the beginning of a record's line.
fn short(record: &Record) -> String {
    const CHARS: usize = 160;
    let line = record.to_line();
    match line.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_have_every_kind() {
        let mut kinds: Vec<&str> = of_each_kind().unwrap().iter().map(kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        // The number of names in `kind`.
        assert_eq!(kinds.len(), 13);
    }

    #[test]
    fn a_difference_names_the_first_record_that_differs() {
        let records = events(1..=3).unwrap();
        assert_eq!(difference(&records, &records), None);
        let missing = difference(&records, &records[..2]).unwrap();
        assert!(
            missing.contains("record 3, a Published, is missing"),
            "{missing}"
        );
        let added = difference(&records[..2], &records).unwrap();
        assert!(added.contains("record 3 was never appended"), "{added}");
        let wrong = difference(&records[..2], &records[1..]).unwrap();
        assert!(wrong.contains("record 1, a Published, was"), "{wrong}");
    }
}
