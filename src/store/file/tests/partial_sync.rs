//! Power cuts that lose some of what was not synced.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::crash_point::{CrashPoint, Files};
use super::fake_disk::FakeDisk;
use super::*;

const COUNT: u64 = 24;
/// One power cut of this many is followed by others, at each crash point of the next start.
const CUT_AGAIN: usize = 50;
const PUBLISHERS: u64 = 4;

/// The crash points of a disk, and what was published meanwhile.
struct DiskHistory {
    durability: Durability,
    ring: usize,
    compact_from: Option<u64>,
    points: Vec<CrashPoint>,
    /// The position before the first event.
    start: EventId,
    /// The numbers of all events.
    published: BTreeMap<EventId, u64>,
}

/// Data of three sizes. The largest is longer than a sector.
fn data(number: u64) -> String {
    let width = [1, 100, 900][number as usize % 3];
    format!("{number:>width$}")
}

impl DiskHistory {
    fn of(durability: Durability, ring: usize, compact_from: Option<u64>) -> Self {
        let (disk, returned) = FakeDisk::default().recorded();
        let broker = super::broker(&disk, ring, info(durability, compact_from)).unwrap();
        let start = broker
            .subscribe("one", Cursor::Now, Duration::ZERO)
            .unwrap();
        let published = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for publisher in 0..PUBLISHERS {
                let (broker, published, returned) = (&broker, &published, &returned);
                scope.spawn(move || {
                    for number in (publisher..COUNT).step_by(PUBLISHERS as usize) {
                        let id = broker.publish("one", &data(number)).unwrap();
                        returned.lock().push(number);
                        published.lock().insert(id, number);
                    }
                });
            }
        });
        if compact_from.is_some() {
            wait_until(|| broker.statistics().store.rewritten > 0);
        }
        broker.stop(LIMIT).unwrap();
        DiskHistory {
            durability,
            ring,
            compact_from,
            points: disk.history(),
            start: start.last_id(),
            published: published.into_inner(),
        }
    }

    fn open(&self, disk: &FakeDisk) -> Broker {
        super::broker(disk, self.ring, info(self.durability, self.compact_from)).unwrap()
    }

    /// Returns the files after power cuts at each crash point of a start from these files.
    fn cut_again(&self, files: &Files, random: &mut Rng) -> Vec<(String, Files)> {
        let (disk, _) = FakeDisk::with(files).recorded();
        drop(self.open(&disk));
        let points = disk.history();
        points
            .iter()
            .flat_map(|point| point.power_cuts(random))
            .collect()
    }

    /// Starts from these files, publishes, and starts again.
    fn check(&self, files: &Files, returned: &[u64], context: &str) {
        let disk = FakeDisk::with(files);
        let broker = self.open(&disk);
        let restored = self.poll(&broker, Cursor::Oldest, context).0;
        self.assert_gaps(&broker, &restored, returned, context);
        let next = broker.publish("one", "next").unwrap();
        broker.stop(LIMIT).unwrap();
        drop(broker);

        let (killed, cut) = disk.after_crash();
        for files in [killed, cut] {
            let broker = self.open(&FakeDisk::with(&files));
            let batch = broker
                .subscribe("one", Cursor::Oldest, Duration::ZERO)
                .unwrap();
            let ids: Vec<EventId> = batch.events().iter().map(Event::id).collect();
            let mut expected = restored.clone();
            expected.push(next);
            let surplus = expected.len().saturating_sub(self.ring);
            assert_eq!(ids, expected[surplus..], "{context}");
            let after = broker
                .subscribe("one", Cursor::LastId(next), Duration::ZERO)
                .unwrap();
            assert!(after.events().is_empty() && !after.gap(), "{context}");
        }
    }

    /// Polls, and asserts that each event is as it was published, and in order. Returns the ids, and whether there is a gap.
    fn poll(&self, broker: &Broker, cursor: Cursor, context: &str) -> (Vec<EventId>, bool) {
        let batch = broker.subscribe("one", cursor, Duration::ZERO).unwrap();
        for event in batch.events() {
            let number = self.published.get(&event.id()).expect(context);
            let text: String = event.decode().unwrap();
            assert_eq!(text, data(*number), "{context}");
        }
        let ids: Vec<EventId> = batch.events().iter().map(Event::id).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}, {context}");
        (ids, batch.gap())
    }

    /// Asserts that a poll from each position gets every later event or a gap, and that no acknowledged event is lost.
    fn assert_gaps(&self, broker: &Broker, restored: &[EventId], returned: &[u64], context: &str) {
        let acknowledged = |id: &EventId| returned.contains(&self.published[id]);
        let mut missing = self.published.keys().filter(|id| !restored.contains(id));
        if self.durability == Durability::Acknowledged {
            let full = restored.len() == self.ring;
            let pushed_out = |id: &EventId| full && restored.first() > Some(id);
            assert!(
                missing.all(|id| !acknowledged(id) || pushed_out(id)),
                "{context}"
            );
        }
        let positions = [&self.start].into_iter().chain(self.published.keys());
        for id in positions {
            let (got, gap) = self.poll(broker, Cursor::LastId(*id), context);
            let after = restored.iter().filter(|other| *other > id);
            assert!(after.eq(&got), "{context}");
            // An event before one that the poll got is missing, even if its publish has not returned.
            let known = |other: &EventId| acknowledged(other) || got.last() > Some(other);
            let mut after = self.published.keys().filter(|other| *other > id);
            let missing = after.any(|other| known(other) && !got.contains(other));
            assert!(gap || !missing, "{id} misses something, {context}");
        }
    }
}

/// Checks one power cut of `one_of`, chosen at random.
fn run(ring: usize, compact_from: Option<u64>, one_of: usize) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    for durability in LEVELS {
        let history = DiskHistory::of(durability, ring, compact_from);
        for (at, point) in history.points.iter().enumerate() {
            for (what, files) in point.power_cuts(&mut random) {
                if random.usize(..one_of) > 0 {
                    continue;
                }
                let context = format!("{durability:?}, after operation {at}, {what}, seed {seed}");
                history.check(&files, &point.note, &context);
                if random.usize(..CUT_AGAIN) > 0 {
                    continue;
                }
                for (what, files) in history.cut_again(&files, &mut random) {
                    let context = format!("{context}, then {what}");
                    history.check(&files, &point.note, &context);
                }
            }
        }
    }
}

#[test]
fn a_power_cut_that_keeps_some_unsynced_bytes_loses_no_acknowledged_event_and_is_a_gap() {
    run(1000, None, 1);
}

#[test]
fn a_power_cut_at_any_step_of_a_compaction_may_keep_any_of_its_renames() {
    run(RING, Some(1), 3);
}
