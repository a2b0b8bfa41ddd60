//! Many schedules of the broker's threads, explored by shuttle. It also detects deadlocks, such as a subscriber that waits
//! without a deadline and is not woken. Half of each test's schedules are random, the other half have few changes of
//! priority. There are 50,000 a test, or as many as the environment variable `SCHEDULES` says, and a tenth of that if they
//! are long:
//!
//! ```sh
//! RUSTFLAGS="--cfg shuttle" cargo test --profile schedules --no-default-features --features testing --lib schedules
//! ```

use std::time::Duration;

use shuttle::thread::{self, JoinHandle};

use super::*;
use crate::event::Event;

mod acknowledged;

/// A wait that ends at any moment.
const SOME_TIME: Duration = Duration::from_secs(1);
/// A wait that ends by a wakeup, or in a deadlock.
const FOREVER: Duration = Duration::MAX;

fn schedules() -> usize {
    std::env::var("SCHEDULES").map_or(50_000, |count| count.parse().unwrap())
}

fn explore(schedule: fn()) {
    explore_times(schedule, schedules());
}

fn explore_times(schedule: fn(), count: usize) {
    shuttle::check_random(schedule, count / 2);
    shuttle::check_pct(schedule, count / 2, 3);
}

fn broker(options: BrokerOptions) -> Broker {
    Broker::new(options).unwrap()
}

fn default() -> Broker {
    broker(BrokerOptions::default())
}

fn deleting() -> Broker {
    broker(BrokerOptions::new().delete_after_first_retrieval(true))
}

/// A subscriber that goes on from poll to poll.
struct Follower {
    broker: Broker,
    names: Vec<&'static str>,
    cursor: Cursor,
    /// It goes on from each answer by time alone.
    by_time: bool,
    limit: Option<usize>,
    seen: Vec<EventId>,
    gap: bool,
}

impl Follower {
    fn of(broker: &Broker, names: &[&'static str]) -> Self {
        Follower {
            broker: broker.clone(),
            names: names.to_vec(),
            cursor: Cursor::Oldest,
            by_time: false,
            limit: None,
            seen: Vec::new(),
            gap: false,
        }
    }

    /// With polls for one event at a time.
    fn one_by_one(broker: &Broker, names: &[&'static str]) -> Self {
        let limit = Some(1);
        Follower {
            limit,
            ..Follower::of(broker, names)
        }
    }

    fn take(&mut self, batch: &Batch) {
        self.gap |= batch.gap();
        self.seen.extend(batch.events().iter().map(Event::id));
        let in_order = self.seen.is_sorted_by(|a, b| a < b);
        assert!(in_order, "repeated, or out of order: {:?}", self.seen);
        self.cursor = match self.by_time {
            true => Cursor::SinceTime(
                batch
                    .events()
                    .last()
                    .map_or(batch.before(), Event::timestamp),
            ),
            false => Cursor::LastId(batch.last_id()),
        };
    }

    fn poll(&mut self, timeout: Duration) -> Result<Arc<Batch>, Error> {
        let names = self.names.clone();
        let batch = match self.limit {
            None => self.broker.subscribe(names, self.cursor, timeout)?,
            Some(limit) => self
                .broker
                .subscribe_up_to(limit, names, self.cursor, timeout)?,
        };
        self.take(&batch);
        if batch.events().is_empty() {
            thread::yield_now();
        }
        Ok(batch)
    }

    /// Follows until it has `count` events, and has missed none.
    fn until(mut self, count: usize, timeout: Duration) -> JoinHandle<()> {
        thread::spawn(move || {
            while self.seen.len() < count {
                self.poll(timeout).unwrap();
            }
            assert!(self.seen.len() == count && !self.gap);
        })
    }

    fn times(mut self, polls: usize) -> JoinHandle<Follower> {
        thread::spawn(move || {
            for _ in 0..polls {
                self.poll(SOME_TIME).unwrap();
            }
            self
        })
    }
}

fn publisher(broker: &Broker, names: &[&'static str]) -> JoinHandle<Vec<EventId>> {
    let (broker, names) = (broker.clone(), names.to_vec());
    thread::spawn(move || {
        let publish = |name: &&str| broker.publish(name, "x").unwrap();
        names.iter().map(publish).collect()
    })
}

fn join_all<T>(threads: impl IntoIterator<Item = JoinHandle<T>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// The ids of all published events, in order.
fn published(publishers: impl IntoIterator<Item = JoinHandle<Vec<EventId>>>) -> Vec<EventId> {
    let ids = publishers.into_iter().map(|thread| thread.join().unwrap());
    let mut ids: Vec<EventId> = ids.flatten().collect();
    ids.sort();
    ids
}

/// The ids of all events that a follower got, or that are still in memory.
fn accounted_for(broker: &Broker, followers: impl IntoIterator<Item = Follower>) -> Vec<EventId> {
    let mut last = Follower::of(broker, &["a", "b"]);
    last.poll(Duration::ZERO).unwrap();
    let followers = followers.into_iter().chain([last]);
    let mut seen: Vec<EventId> = followers.flat_map(|follower| follower.seen).collect();
    seen.sort();
    seen.dedup();
    seen
}

#[test]
fn a_parked_subscriber_is_woken_by_a_publish() {
    explore(|| {
        let broker = default();
        let followers = [0, 1].map(|_| Follower::of(&broker, &["a"]).until(3, FOREVER));
        join_all([
            publisher(&broker, &["a", "a"]),
            publisher(&broker, &["a", "b"]),
        ]);
        join_all(followers);
        assert_eq!(broker.statistics().parked, 0);
    });
}

#[test]
fn a_subscriber_parked_in_several_categories_gets_their_events_in_order() {
    explore(|| {
        let broker = default();
        let follower = Follower::of(&broker, &["a", "b"]).until(4, FOREVER);
        join_all([
            publisher(&broker, &["a", "b"]),
            publisher(&broker, &["b", "a"]),
        ]);
        join_all([follower]);
    });
}

#[test]
fn a_publish_at_the_moment_of_a_timeout_is_not_lost() {
    explore(|| {
        let broker = default();
        let followers = [&["a"][..], &["a", "b"]]
            .map(|names| Follower::of(&broker, names).until(1 + names.len(), SOME_TIME));
        join_all([publisher(&broker, &["a", "b", "a"])]);
        join_all(followers);
    });
}

#[test]
fn a_publish_to_a_category_that_was_not_there_when_a_poll_looked_is_not_passed_over() {
    explore(|| {
        let broker = default();
        let mut follower = Follower::of(&broker, &["a", "b"]);
        let follower = thread::spawn(move || {
            for _ in 0..2 {
                follower.poll(Duration::ZERO).unwrap();
            }
            follower
        });
        let published = published([publisher(&broker, &["a"]), publisher(&broker, &["b"])]);
        let mut follower = follower.join().unwrap();
        follower.poll(Duration::ZERO).unwrap();
        assert!(follower.seen == published && !follower.gap);
    });
}

#[test]
fn a_deleted_event_was_delivered() {
    explore(|| {
        let broker = deleting();
        let followers =
            [&["a"][..], &["a", "b"]].map(|names| Follower::of(&broker, names).times(2));
        let publishers = [publisher(&broker, &["a", "b"]), publisher(&broker, &["a"])];
        let published = published(publishers);
        let followers = followers.map(|follower| follower.join().unwrap());
        assert_eq!(accounted_for(&broker, followers), published);
    });
}

#[test]
fn polls_for_one_event_at_a_time_get_all_events_in_order() {
    explore(|| {
        let broker = default();
        let follower = Follower::one_by_one(&broker, &["a", "b"]).until(4, FOREVER);
        join_all([
            publisher(&broker, &["a", "b"]),
            publisher(&broker, &["b", "a"]),
        ]);
        join_all([follower]);
    });
}

#[test]
fn events_deleted_one_by_one_were_delivered() {
    explore(|| {
        let broker = deleting();
        let followers =
            [&["a"][..], &["a", "b"]].map(|names| Follower::one_by_one(&broker, names).times(2));
        let publishers = [publisher(&broker, &["a", "b"]), publisher(&broker, &["a"])];
        let published = published(publishers);
        let followers = followers.map(|follower| follower.join().unwrap());
        assert_eq!(accounted_for(&broker, followers), published);
    });
}

/// A follower gets every event, or else a gap.
fn all_or_a_gap(options: BrokerOptions) {
    let broker = broker(options);
    let follower = Follower::of(&broker, &["a", "b"]);
    // Not from the oldest event on: that cursor never has a gap.
    let start = broker.subscribe("a", Cursor::Now, Duration::ZERO).unwrap();
    let cursor = Cursor::LastId(start.last_id());
    let follower = Follower { cursor, ..follower }.times(2);
    let publishers = [
        publisher(&broker, &["a", "b"]),
        publisher(&broker, &["b", "a"]),
    ];
    let published = published(publishers);
    let mut follower = follower.join().unwrap();
    follower.poll(Duration::ZERO).unwrap();
    assert_eq!(follower.gap, follower.seen.len() < published.len());
}

#[test]
fn events_pushed_out_of_their_ring_are_a_gap() {
    explore(|| all_or_a_gap(BrokerOptions::new().events_per_category(1)));
}

#[test]
fn events_evicted_with_their_category_are_a_gap() {
    explore(|| all_or_a_gap(BrokerOptions::new().max_categories(1)));
}

/// Room for two events, and not for three.
fn two_events() -> BrokerOptions {
    BrokerOptions::new().max_event_size(3).max_event_bytes(250)
}

#[test]
fn events_evicted_for_their_bytes_are_a_gap() {
    explore(|| all_or_a_gap(two_events()));
}

#[test]
fn the_limit_of_bytes_holds_when_all_have_published() {
    explore(|| {
        let broker = broker(two_events());
        let publishers = [["a", "b"], ["b", "a"], ["a", "c"]];
        let publishers = publishers.map(|names| publisher(&broker, &names));
        assert_eq!(published(publishers).len(), 6);
        let statistics = broker.statistics();
        assert!(statistics.event_bytes <= 250 && statistics.events > 0);
        assert_eq!(statistics.events as u64 + statistics.evicted, 6);
    });
}

#[test]
fn a_subscriber_that_is_answered_early_to_make_room_misses_nothing() {
    explore(|| {
        let broker = broker(BrokerOptions::new().max_parked(1));
        let followers = [0, 1].map(|_| Follower::of(&broker, &["a"]).until(2, FOREVER));
        join_all([publisher(&broker, &["a", "a"])]);
        join_all(followers);
    });
}

#[test]
fn a_stop_answers_parked_subscribers_and_loses_nothing() {
    explore(|| {
        let broker = default();
        let followers = [0, 1].map(|_| {
            let mut follower = Follower::of(&broker, &["a"]);
            thread::spawn(move || {
                while follower.poll(FOREVER).is_ok() {}
                follower
            })
        });
        let publishing = broker.clone();
        let publisher = thread::spawn(move || {
            let publish = |_| publishing.publish("a", "x").ok();
            (0..2).filter_map(publish).collect::<Vec<EventId>>()
        });
        let stopping = broker.clone();
        let stopper = thread::spawn(move || stopping.stop(Duration::ZERO).unwrap());
        join_all([stopper]);
        let published = publisher.join().unwrap();
        for follower in followers {
            let mut follower = follower.join().unwrap();
            let names = follower.names.clone().into();
            let rest = broker
                .look_after_stop(&names, follower.cursor, None)
                .unwrap();
            follower.take(&rest);
            assert!(follower.seen == published && !follower.gap);
        }
    });
}

fn park(broker: &Broker) -> Option<Parked> {
    match broker.poll(&["a", "b"].into(), Cursor::Oldest, None, PollMode::Park) {
        Ok(Polled::Parked(parked)) => Some(parked),
        _ => None,
    }
}

#[test]
fn a_client_that_hangs_up_retrieves_no_more_than_was_delivered_to_it() {
    explore(|| {
        let broker = deleting();
        let parked = park(&broker).unwrap();
        let waiter = parked.waiter().clone();
        let mut follower = Follower::of(&broker, &["a", "b"]);
        let waiting = thread::spawn(move || {
            follower.take(&parked.wait(None));
            follower
        });
        let hanging_up = thread::spawn(move || waiter.hang_up());
        let published = published([publisher(&broker, &["a", "b", "a"])]);
        join_all([hanging_up]);
        let follower = waiting.join().unwrap();
        assert_eq!(accounted_for(&broker, [follower]), published);
    });
}

#[test]
fn a_subscriber_that_leaves_without_waiting_leaves_nothing_behind() {
    explore(|| {
        let broker = default();
        let leaving = broker.clone();
        let leaver = thread::spawn(move || drop(park(&leaving)));
        let published = published([publisher(&broker, &["a", "a"])]);
        join_all([leaver]);
        assert_eq!(accounted_for(&broker, []), published);
        let statistics = broker.statistics();
        assert_eq!((statistics.parked, statistics.categories), (0, 1));
    });
}
