//! [`Story`]: a file of several runs, and what happened in them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use fastrand::Rng;

use super::fake_disk::FakeDisk;
use super::*;
use crate::broker::{PollMode, Polled};

const CATEGORIES: [&str; 3] = ["a", "b", "c"];

/// A file of several runs, in which events were pushed out, evicted, handed out and refused, and the file made smaller.
pub(super) struct Story {
    options: BrokerOptions,
    pub(super) bytes: Vec<u8>,
    /// The category of all that was published, what a kill has cost too, but not what was refused.
    published: BTreeMap<EventId, &'static str>,
    handed_out: HashSet<EventId>,
    told: BTreeSet<EventId>,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stopped,
    Killed,
    /// With its last records still on their way.
    KilledEarly,
}

pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n')
}

/// The records of a file, and `None` for each line that is none.
pub(super) fn records(bytes: &[u8]) -> Vec<Option<Record>> {
    lines(bytes)
        .map(|line| Record::from_line(line).ok().flatten())
        .collect()
}

pub(super) fn number(id: EventId) -> u64 {
    id.parts().map_or(0, |(_, number)| number)
}

/// Of events up to this number, those that a file does not have may have been let go of when it was made smaller.
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
    disk.left().0.remove(Path::new("events.log")).unwrap()
}

impl Story {
    pub(super) fn new(random: &mut Rng) -> Self {
        let options = BrokerOptions::new()
            .events_per_category(6)
            .max_categories(2)
            .delete_after_first_retrieval(random.bool());
        let mut story = Story {
            options,
            bytes: Vec::new(),
            published: BTreeMap::new(),
            handed_out: HashSet::new(),
            told: BTreeSet::new(),
        };
        for _ in 0..random.usize(2..5) {
            story.run(random);
        }
        story.refuse_one(random);
        story
    }

    /// A run with publishes and polls, in which the file may be made smaller.
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
            lose_the_last(&mut killed, random);
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
            self.told.insert(id);
            return;
        }
        let limit = random.usize(1..4);
        let batch = broker.subscribe_up_to(limit, category, Cursor::Oldest, Duration::ZERO);
        let batch = batch.unwrap();
        self.told.insert(batch.last_id());
        if self.options.delete_after_first_retrieval {
            self.handed_out.extend(batch.events().iter().map(Event::id));
        }
    }

    /// Makes one of the events one that was refused.
    fn refuse_one(&mut self, random: &mut Rng) {
        let records = records(&self.bytes);
        let compacted_to = compacted_to(&records);
        let later = records.iter().enumerate().filter_map(|(at, record)| {
            let event = record.as_ref()?.event()?;
            let is_later =
                number(event.id()) > compacted_to && !self.handed_out.contains(&event.id());
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

    /// Starts from a damaged file, goes on, and starts again. Where the damage can be `known`, whoever misses something is
    /// told of a gap.
    pub(super) fn check(&self, damaged: &[u8], known: bool, context: &str) {
        let disk = disk_with(damaged);
        let info = || info(Durability::Acknowledged, None);
        let written = records(&self.bytes);
        let events = written.iter().flatten().filter_map(Record::event);
        let events: HashMap<EventId, &Event> = events.map(|event| (event.id(), event)).collect();

        let broker = self.open(&disk, info());
        let positions = self.told.iter().map(|id| Cursor::LastId(*id));
        for cursor in positions.chain([Cursor::Oldest]) {
            for of in [&["a"][..], &["b"], &["c"], &CATEGORIES] {
                let context = format!("{context}, {of:?}, {cursor:?}");
                let (served, gap) = look(&broker, of, cursor);
                let ids: Vec<EventId> = served.iter().map(Event::id).collect();
                let once: HashSet<_> = ids.iter().collect();
                let in_order = ids.is_sorted_by(|a, b| a < b) || !known;
                assert!(once.len() == ids.len() && in_order, "{ids:?}, {context}");
                let same = |event: &Event| events.get(&event.id()) == Some(&event);
                assert!(served.iter().all(same), "{served:?}, {context}");
                let missing = self.after(cursor, of).find(|id| !ids.contains(id));
                if let (true, false, Cursor::LastId(_)) = (known, gap, cursor) {
                    assert_eq!(missing, None, "{ids:?}, {context}");
                }
            }
        }
        let before = look(&broker, &["a"], Cursor::Oldest).0;
        let next = broker.publish("a", "next").unwrap();
        broker.stop(LIMIT).unwrap();

        let broker = self.open(&disk, info());
        let after = look(&broker, &["a"], Cursor::Oldest).0;
        let (last, others) = after.split_last().expect(context);
        assert_eq!((last.id(), last.text()), (next, "next".into()), "{context}");
        assert!(before.ends_with(others) || !known, "{context}");
    }

    /// What is to be found after a position, if nothing of it is missing.
    fn after(&self, cursor: Cursor, of: &[&str]) -> impl Iterator<Item = EventId> {
        let is_after =
            move |id: &EventId| !matches!(cursor, Cursor::LastId(position) if *id <= position);
        self.published
            .iter()
            .filter(move |(id, category)| is_after(id) && of.contains(category))
            .map(|(id, _)| *id)
            .filter(|id| !self.handed_out.contains(id))
    }
}

/// What a poll finds that leaves everything there.
fn look(broker: &Broker, of: &[&str], cursor: Cursor) -> (Vec<Event>, bool) {
    let Ok(Polled::Ready(batch)) = broker.poll(&of.into(), cursor, None, PollMode::Peek) else {
        panic!("a poll that does not park");
    };
    (batch.events().to_vec(), batch.gap())
}

/// Of the last run, at most three records that follow its start.
fn lose_the_last(bytes: &mut Vec<u8>, random: &mut Rng) {
    let started = |record: &Option<Record>| matches!(record, Some(Record::Started { .. }));
    let records = records(bytes);
    let of_the_run = records
        .iter()
        .rev()
        .take_while(|record| !started(record))
        .count();
    let lost = random.usize(..=of_the_run.min(3));
    let kept = lines(bytes).take(records.len() - lost);
    let len = kept.map(|line| line.len()).sum();
    bytes.truncate(len);
}
