//! Truncated and damaged files: events that can be read are served unchanged, and the others are a gap.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::LIMIT;
use fastrand::Rng;
use long_polling::store::Record;
use long_polling::{Broker, BrokerOptions, Cursor, Durability, Event, EventId, FilePersistorInfo};

const EVENTS: usize = 12;

fn open(file: &Path) -> Broker {
    Broker::open(BrokerOptions::default(), FilePersistorInfo::new(file)).unwrap()
}

fn poll(broker: &Broker, cursor: Cursor) -> (Vec<Event>, bool) {
    let batch = broker.subscribe("c", cursor, Duration::ZERO).unwrap();
    (batch.events().to_vec(), batch.gap())
}

/// Writes a file of a run that has ended. Returns its bytes and its events.
fn written(file: &Path, durability: Durability) -> (Vec<u8>, Vec<Event>) {
    let info = FilePersistorInfo::new(file).durability(durability);
    let broker = Broker::open(BrokerOptions::default(), info).unwrap();
    for number in 0..EVENTS {
        let data = serde_json::json!({"number": number, "text": "some text, é and \"quotes\""});
        broker.publish("c", &data).unwrap();
    }
    let (events, _) = poll(&broker, Cursor::Oldest);
    broker.stop(LIMIT).unwrap();
    (fs::read(file).unwrap(), events)
}

#[test]
fn a_file_truncated_at_any_byte_of_its_last_records_loses_only_the_truncated_one() {
    for durability in [Durability::Buffered, Durability::Acknowledged] {
        truncate_at_any_byte(durability);
    }
}

fn truncate_at_any_byte(durability: Durability) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let (bytes, events) = written(&file, durability);
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    // The last two events and the end of the run.
    let last_three: usize = lines[lines.len() - 3..].iter().map(|line| line.len()).sum();
    for cut in bytes.len() - last_three..=bytes.len() {
        fs::write(&file, &bytes[..cut]).unwrap();
        let mut start = 0;
        let mut complete = 0;
        for line in &lines {
            // A line is complete without its line break, too.
            if start + line.len() - 1 > cut {
                break;
            }
            start += line.len();
            complete += 1;
        }
        // The first line records the start of the run.
        let kept = &events[..(complete - 1).min(EVENTS)];
        let torn = start < cut;
        let ended = complete == lines.len();

        let broker = open(&file);
        let context = format!("truncated at {cut} of {}", bytes.len());
        assert_eq!(poll(&broker, Cursor::Oldest).0, kept, "{context}");
        assert_eq!(
            broker.statistics().store.damaged,
            u64::from(torn),
            "{context}"
        );
        let corrupt = folder.path().join(format!("events.db.corrupt-{start}"));
        assert_eq!(corrupt.exists(), torn, "{context}");
        if torn {
            assert_eq!(fs::read(&corrupt).unwrap(), &bytes[start..cut], "{context}");
            fs::remove_file(corrupt).unwrap();
        }
        // More events may have followed the last one that was kept, unless the run has ended, or has acknowledged each event
        // only after it was written.
        let last = Cursor::LastId(kept.last().unwrap().id());
        let known = ended || durability == Durability::Acknowledged;
        assert_eq!(poll(&broker, last).1, !known, "{context}");

        broker.publish("c", "afterwards").unwrap();
        broker.stop(LIMIT).unwrap();
        let broker = open(&file);
        let (now, _) = poll(&broker, Cursor::Oldest);
        assert_eq!(&now[..kept.len()], kept, "{context}");
        assert_eq!(now[kept.len()..].len(), 1, "{context}");
        assert_eq!(broker.statistics().store.damaged, 0, "{context}");
    }
}

fn random() -> Rng {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    Rng::with_seed(seed)
}

/// Flips this many random bits.
fn flip(bytes: &mut [u8], count: usize, random: &mut Rng) {
    for _ in 0..count {
        let bit = random.usize(..8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn ten_thousand_flipped_bits_change_no_event() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, events) = written(&folder.path().join("events.db"), Durability::Buffered);
    let mut random = random();
    for round in 0..10_000 {
        let mut flipped = bytes.clone();
        flip(&mut flipped, 1 + round % 3 * 10, &mut random);
        for line in flipped.split(|byte| *byte == b'\n') {
            if let Ok(Some(Record::Published { event, .. })) = Record::from_line(line) {
                assert!(events.contains(&event), "{event}");
            }
        }
    }
}

#[test]
fn a_broker_with_a_damaged_file_serves_what_is_readable_and_the_rest_is_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let (bytes, events) = written(&file, Durability::Buffered);
    let mut random = random();
    for round in 0..300 {
        let mut flipped = bytes.clone();
        flip(&mut flipped, 1 + round % 4, &mut random);
        fs::write(&file, &flipped).unwrap();
        let broker = open(&file);
        let (now, _) = poll(&broker, Cursor::Oldest);
        let text = String::from_utf8_lossy(&flipped);
        assert!(now.iter().all(|event| events.contains(event)), "{text}");
        assert!(now.is_sorted_by_key(Event::id), "{text}");
        // A poll from the first event gets a gap if any event after it is missing.
        let (rest, gap) = poll(&broker, Cursor::LastId(events[0].id()));
        let missing = rest.len() < EVENTS - 1;
        assert!(gap || !missing, "{rest:?}\n{text}");
        if missing {
            assert!(broker.statistics().store.damaged > 0, "{text}");
        }
        drop(broker);
        for entry in fs::read_dir(folder.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
}

/// An id of a run that started at this time, in Unix milliseconds, with this sequence number.
fn id(started: u64, sequence: u64) -> EventId {
    let bits = u128::from(started) << 80 | 8 << 76 | 0b10 << 62 | u128::from(sequence);
    EventId::from(bits)
}

/// The greatest sequence number and the latest start of a run that fit an id.
const MAX_SEQUENCE: u64 = (1 << 62) - 1;
const MAX_START: u64 = (1 << 48) - 1;

/// Records with the greatest numbers and latest runs, possible and impossible ones.
fn extreme_records(event: &Event) -> Vec<Record> {
    let sequences = [
        u64::MAX,
        u64::MAX - 1,
        1 << 63,
        MAX_SEQUENCE + 1,
        MAX_SEQUENCE,
        MAX_SEQUENCE - 1,
        MAX_SEQUENCE - 3,
    ];
    let starts = [MAX_START, MAX_START - 1, 1_700_000_000_000];
    let (c, none) = ("c".into(), "".into());
    let mut records = Vec::new();
    for sequence in sequences {
        let event = event.clone();
        records.push(Record::Published { sequence, event });
        for category in [&c, &none] {
            records.push(Record::Lost {
                category: std::sync::Arc::clone(category),
                sequence,
                timestamp: u64::MAX,
            });
        }
    }
    for (at, start) in starts.into_iter().enumerate() {
        for sequence in [MAX_SEQUENCE, MAX_SEQUENCE - 1, 1000] {
            // A plausible number of a run in the past is valid.
            if at == 2 && sequence == 1000 {
                continue;
            }
            let position = id(start, sequence);
            records.push(Record::Started {
                position,
                acknowledges: false,
            });
            records.push(Record::Ended(position));
            records.push(Record::Refused(position));
            records.push(Record::Compacted {
                position,
                timestamp: 1,
            });
            records.push(Record::Taken {
                category: "d".into(),
                seen: position,
                ids: vec![position],
            });
        }
    }
    records
}

/// Whatever numbers a log has, with checksums that match: the next runs keep what they publish, and subscribers go on from
/// one to the next.
#[test]
fn extreme_numbers_leave_room_for_the_next_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let (bytes, events) = written(&file, Durability::Buffered);
    for record in extreme_records(&events[0]) {
        for at_start in [false, true] {
            let line = record.to_line() + "\n";
            let content = match at_start {
                true => [line.as_bytes(), &bytes].concat(),
                false => [&bytes, line.as_bytes()].concat(),
            };
            fs::write(&file, content).unwrap();
            let mut last = events[EVENTS - 1].id();
            for run in 1..=3 {
                let broker = open(&file);
                let (now, _) = poll(&broker, Cursor::Oldest);
                assert_eq!(now.len(), EVENTS + 2 * (run - 1), "{line}");
                let (rest, gap) = poll(&broker, Cursor::LastId(last));
                assert!(rest.is_empty(), "{line}");
                // The damage is one gap.
                assert!(!gap || run == 1, "{line}");
                for number in 0..2 {
                    let next = broker.publish("c", &number).unwrap();
                    assert!(next > last, "{line}");
                    last = next;
                }
                let (_, gap) = poll(&broker, Cursor::LastId(last));
                assert!(!gap, "{line}");
                broker.stop(LIMIT).unwrap();
            }
        }
    }
}

#[test]
fn an_extreme_timestamp_does_not_cost_the_next_runs_their_events() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let (bytes, events) = written(&file, Durability::Buffered);
    let timestamp = u64::MAX;
    let foreign = "7d4f1f5e-8a0e-4d3b-9c59-0f1c5a2b3d41";
    let golongpolls =
        format!(r#"{{"timestamp":{timestamp},"category":"d","data":1,"id":"{foreign}"}}"#);
    let compacted = Record::Compacted {
        position: EventId::from(0),
        timestamp,
    };
    let compacted = compacted.to_line();
    for content in [
        [&bytes, golongpolls.as_bytes()].concat(),
        [compacted.as_bytes(), b"\n", &bytes].concat(),
    ] {
        fs::write(&file, content).unwrap();
        let mut last = events[EVENTS - 1].id();
        for run in 0..3 {
            let broker = open(&file);
            assert_eq!(poll(&broker, Cursor::Oldest).0.len(), EVENTS + run);
            assert_eq!(poll(&broker, Cursor::LastId(last)), (vec![], false));
            last = broker.publish("c", &run).unwrap();
            broker.stop(LIMIT).unwrap();
        }
    }
}
