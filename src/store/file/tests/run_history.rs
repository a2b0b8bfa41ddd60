//! [`RunHistory`]: a file of several runs, and what subscribers know of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use fastrand::Rng;

use super::fake_disk::FakeDisk;
use super::*;
use crate::broker::{PollMode, Polled};

const CATEGORIES: [&str; 3] = ["a", "b", "c"];

/// A file of several runs, in which events were pushed out, evicted, retrieved and refused, and the file was compacted.
pub(super) struct RunHistory {
    options: BrokerOptions,
    pub(super) bytes: Vec<u8>,
    /// The category of each published event. A kill may have lost some of them; refused events are not included.
    published: BTreeMap<EventId, &'static str>,
    /// Events that were deleted by their retrieval.
    retrieved: HashSet<EventId>,
    /// Positions that publishers and subscribers know.
    positions: BTreeSet<EventId>,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stopped,
    Killed,
    /// Killed before its last records were written.
    KilledEarly,
}

pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n')
}

/// Returns the records of a file, and `None` for each line that is not a record.
pub(super) fn records(bytes: &[u8]) -> Vec<Option<Record>> {
    lines(bytes)
        .map(|line| Record::from_line(line).ok().flatten())
        .collect()
}

pub(super) fn number(id: EventId) -> u64 {
    id.sequence().unwrap_or(0)
}

/// Returns the sequence number up to which a compaction may have removed events.
pub(super) fn compacted_to(records: &[Option<Record>]) -> u64 {
    let compacted = records.iter().flatten().filter_map(|record| match record {
        Record::Compacted { position, .. } => Some(number(*position)),
        _ => None,
    });
    compacted.max().unwrap_or(0)
}

fn disk_with(bytes: &[u8]) -> FakeDisk {
    FakeDisk::with(&[(PathBuf::from("events.log"), bytes.to_vec())].into())
}

fn bytes_of(disk: &FakeDisk) -> Vec<u8> {
    disk.after_crash()
        .0
        .remove(Path::new("events.log"))
        .unwrap()
}

impl RunHistory {
    pub(super) fn new(random: &mut Rng) -> Self {
        let options = BrokerOptions::new()
            .events_per_category(6)
            .max_categories(2)
            .delete_after_first_retrieval(random.bool());
        let mut history = RunHistory {
            options,
            bytes: Vec::new(),
            published: BTreeMap::new(),
            retrieved: HashSet::new(),
            positions: BTreeSet::new(),
        };
        for _ in 0..random.usize(2..5) {
            history.run(random);
        }
        history.refuse_one(random);
        history
    }

    /// Adds a run with publishes and polls, in which the file may be compacted.
    fn run(&mut self, random: &mut Rng) {
        let (compacts, acknowledges) = (random.bool(), random.bool());
        let durability = match acknowledges {
            true => Durability::Acknowledged,
            false => Durability::Buffered,
        };
        let disk = disk_with(&self.bytes);
        let broker = self.open(&disk, info(durability, compacts.then_some(1)));
        for _ in 0..random.usize(..20) {
            self.step(&broker, random);
        }
        while compacts && broker.statistics().store.rewritten == 0 {
            self.step(&broker, random);
            wait_until(|| broker.statistics().store.pending == 0);
        }
        for _ in 0..random.usize(..8) {
            self.step(&broker, random);
        }
        wait_until(|| broker.statistics().store.pending == 0);
        let mut killed = bytes_of(&disk);
        broker.stop(LIMIT).unwrap();
        let end = random
            .choice([End::Stopped, End::Killed, End::KilledEarly])
            .unwrap();
        if end == End::KilledEarly && !acknowledges && !compacts {
            remove_last_records(&mut killed, random);
        }
        self.bytes = match end {
            End::Stopped => bytes_of(&disk),
            End::Killed | End::KilledEarly => killed,
        };
    }

    fn step(&mut self, broker: &Broker, random: &mut Rng) {
        let category = random.choice(CATEGORIES).unwrap();
        if random.u8(..3) > 0 {
            let data = "x".repeat(random.usize(1..100));
            let id = broker.publish(category, &data).unwrap();
            self.published.insert(id, category);
            self.positions.insert(id);
            return;
        }
        let limit = random.usize(1..4);
        let batch = broker.subscribe_up_to(limit, category, Cursor::Oldest, Duration::ZERO);
        let batch = batch.unwrap();
        self.positions.insert(batch.last_id());
        if self.options.delete_after_first_retrieval {
            self.retrieved.extend(batch.events().iter().map(Event::id));
        }
    }

    /// Replaces one of the events by the record that it was refused.
    fn refuse_one(&mut self, random: &mut Rng) {
        let records = records(&self.bytes);
        let compacted_to = compacted_to(&records);
        let later = records.iter().enumerate().filter_map(|(at, record)| {
            let event = record.as_ref()?.event()?;
            let is_later =
                number(event.id()) > compacted_to && !self.retrieved.contains(&event.id());
            is_later.then(|| (at, event.id()))
        });
        let Some((at, id)) = random.choice(later.collect::<Vec<_>>()) else {
            return;
        };
        let mut lines: Vec<&[u8]> = lines(&self.bytes).collect();
        let refused = format!("{}\n", Record::Refused(id).to_line());
        lines[at] = refused.as_bytes();
        self.bytes = lines.concat();
        self.published.remove(&id);
    }

    fn open(&self, disk: &FakeDisk, info: FilePersistorInfo) -> Broker {
        let store = FilePersistor::new(disk.clone(), info).unwrap();
        Broker::restore(self.options.clone(), Clock::System, Box::new(store)).unwrap()
    }

    /// Starts from a damaged file, publishes, and starts again. If the damage can be `known`, asserts that a poll that misses
    /// an event gets a gap.
    pub(super) fn check(&self, damaged: &[u8], known: bool, context: &str) {
        let disk = disk_with(damaged);
        let info = || info(Durability::Acknowledged, None);
        let written = records(&self.bytes);
        let events = written.iter().flatten().filter_map(Record::event);
        let events: HashMap<EventId, &Event> = events.map(|event| (event.id(), event)).collect();

        let broker = self.open(&disk, info());
        let positions = self.positions.iter().map(|id| Cursor::LastId(*id));
        for cursor in positions.chain([Cursor::Oldest]) {
            for of in [&["a"][..], &["b"], &["c"], &CATEGORIES] {
                let context = format!("{context}, {of:?}, {cursor:?}");
                let (found, gap) = peek(&broker, of, cursor);
                let ids: Vec<EventId> = found.iter().map(Event::id).collect();
                let once: HashSet<_> = ids.iter().collect();
                let in_order = ids.is_sorted_by(|a, b| a < b) || !known;
                assert!(once.len() == ids.len() && in_order, "{ids:?}, {context}");
                let same = |event: &Event| events.get(&event.id()) == Some(&event);
                assert!(found.iter().all(same), "{found:?}, {context}");
                let missing = self.after(cursor, of).find(|id| !ids.contains(id));
                if let (true, false, Cursor::LastId(_)) = (known, gap, cursor) {
                    assert_eq!(missing, None, "{ids:?}, {context}");
                }
            }
        }
        let before = peek(&broker, &["a"], Cursor::Oldest).0;
        let next = broker.publish("a", "next").unwrap();
        broker.stop(LIMIT).unwrap();

        let broker = self.open(&disk, info());
        let after = peek(&broker, &["a"], Cursor::Oldest).0;
        let (last, others) = after.split_last().expect(context);
        assert_eq!((last.id(), last.text()), (next, "next".into()), "{context}");
        assert!(before.ends_with(others) || !known, "{context}");
    }

    /// Returns the events after a position, if none is missing.
    fn after(&self, cursor: Cursor, of: &[&str]) -> impl Iterator<Item = EventId> {
        let is_after =
            move |id: &EventId| !matches!(cursor, Cursor::LastId(position) if *id <= position);
        self.published
            .iter()
            .filter(move |(id, category)| is_after(id) && of.contains(category))
            .map(|(id, _)| *id)
            .filter(|id| !self.retrieved.contains(id))
    }
}

/// Polls without deleting what the poll returns.
fn peek(broker: &Broker, of: &[&str], cursor: Cursor) -> (Vec<Event>, bool) {
    let Ok(Polled::Ready(batch)) = broker.poll(&of.into(), cursor, None, PollMode::Peek) else {
        panic!("a poll that does not park");
    };
    (batch.events().to_vec(), batch.gap())
}

/// Removes at most three records of the last run, but not its start.
fn remove_last_records(bytes: &mut Vec<u8>, random: &mut Rng) {
    let is_start = |record: &Option<Record>| matches!(record, Some(Record::Started { .. }));
    let records = records(bytes);
    let after_start = records
        .iter()
        .rev()
        .take_while(|record| !is_start(record))
        .count();
    let lost = random.usize(..=after_start.min(3));
    let kept = lines(bytes).take(records.len() - lost);
    let len = kept.map(|line| line.len()).sum();
    bytes.truncate(len);
}
