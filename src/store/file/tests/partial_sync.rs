//! Power cuts that take some of what was not synced, and leave the rest.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::crash_point::{Left, Moment};
use super::fake_disk::FakeDisk;
use super::*;

const COUNT: u64 = 24;
/// So many of the cuts are followed by others, at each moment of the next start.
const CUT_AGAIN: usize = 50;
const PUBLISHERS: u64 = 4;

/// A disk's history, and what was published meanwhile.
struct History {
    durability: Durability,
    ring: usize,
    compact_from: Option<u64>,
    moments: Vec<Moment>,
    /// The position before the first event.
    start: EventId,
    /// The numbers of all events.
    published: BTreeMap<EventId, u64>,
}

/// Data of several sizes, the largest of more than a sector.
fn data(number: u64) -> String {
    let width = [1, 100, 900][number as usize % 3];
    format!("{number:>width$}")
}

impl History {
    fn of(durability: Durability, ring: usize, compact_from: Option<u64>) -> Self {
        let (disk, returned) = FakeDisk::default().remember();
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
        History {
            durability,
            ring,
            compact_from,
            moments: disk.history(),
            start: start.last_id(),
            published: published.into_inner(),
        }
    }

    fn open(&self, disk: &FakeDisk) -> Broker {
        super::broker(disk, self.ring, info(self.durability, self.compact_from)).unwrap()
    }

    /// What is left by a power cut at a moment of a start from what another one left.
    fn cut_again(&self, left: &Left, random: &mut Rng) -> Vec<(String, Left)> {
        let (disk, _) = FakeDisk::with(left).remember();
        drop(self.open(&disk));
        let moments = disk.history();
        moments
            .iter()
            .flat_map(|moment| moment.cuts(random))
            .collect()
    }

    /// Starts from what is left, goes on, and starts again.
    fn check(&self, left: &Left, returned: &[u64], context: &str) {
        let disk = FakeDisk::with(left);
        let broker = self.open(&disk);
        let held = self.served(&broker, Cursor::Oldest, context).0;
        self.misses_nothing_unsaid(&broker, &held, returned, context);
        let next = broker.publish("one", "next").unwrap();
        broker.stop(LIMIT).unwrap();
        drop(broker);

        let (killed, cut) = disk.left();
        for left in [killed, cut] {
            let broker = self.open(&FakeDisk::with(&left));
            let batch = broker
                .subscribe("one", Cursor::Oldest, Duration::ZERO)
                .unwrap();
            let ids: Vec<EventId> = batch.events().iter().map(Event::id).collect();
            let mut expected = held.clone();
            expected.push(next);
            let surplus = expected.len().saturating_sub(self.ring);
            assert_eq!(ids, expected[surplus..], "{context}");
            let after = broker
                .subscribe("one", Cursor::LastId(next), Duration::ZERO)
                .unwrap();
            assert!(after.events().is_empty() && !after.gap(), "{context}");
        }
    }

    /// What a poll finds, which must be as it was published, and in its order.
    fn served(&self, broker: &Broker, cursor: Cursor, context: &str) -> (Vec<EventId>, bool) {
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

    /// Whoever stood anywhere has all that is after it, or is told of a gap; and of what was acknowledged nothing is gone.
    fn misses_nothing_unsaid(
        &self,
        broker: &Broker,
        held: &[EventId],
        returned: &[u64],
        context: &str,
    ) {
        let acknowledged = |id: &EventId| returned.contains(&self.published[id]);
        let mut missing = self.published.keys().filter(|id| !held.contains(id));
        if self.durability == Durability::Acknowledged {
            let full = held.len() == self.ring;
            let pushed_out = |id: &EventId| full && held.first() > Some(id);
            assert!(
                missing.all(|id| !acknowledged(id) || pushed_out(id)),
                "{context}"
            );
        }
        let stood = [&self.start].into_iter().chain(self.published.keys());
        for id in stood {
            let (got, gap) = self.served(broker, Cursor::LastId(*id), context);
            let after = held.iter().filter(|other| *other > id);
            assert!(after.eq(&got), "{context}");
            // Those between are missing, whether their publishers knew of them or not.
            let known = |other: &EventId| acknowledged(other) || got.last() > Some(other);
            let mut after = self.published.keys().filter(|other| *other > id);
            let missing = after.any(|other| known(other) && !got.contains(other));
            assert!(gap || !missing, "{id} misses something, {context}");
        }
    }
}

/// Checks one of so many cuts, chosen at random.
fn run(ring: usize, compact_from: Option<u64>, one_of: usize) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    for durability in LEVELS {
        let history = History::of(durability, ring, compact_from);
        for (at, moment) in history.moments.iter().enumerate() {
            for (what, left) in moment.cuts(&mut random) {
                if random.usize(..one_of) > 0 {
                    continue;
                }
                let context = format!("{durability:?}, after operation {at}, {what}, seed {seed}");
                history.check(&left, &moment.note, &context);
                if random.usize(..CUT_AGAIN) > 0 {
                    continue;
                }
                for (what, left) in history.cut_again(&left, &mut random) {
                    let context = format!("{context}, then {what}");
                    history.check(&left, &moment.note, &context);
                }
            }
        }
    }
}

#[test]
fn a_power_cut_that_keeps_some_of_what_was_not_synced_costs_nothing_acknowledged_and_is_told_of() {
    run(1000, None, 1);
}

#[test]
fn a_power_cut_at_any_step_of_a_compaction_may_keep_any_of_its_renames() {
    run(RING, Some(1), 3);
}
