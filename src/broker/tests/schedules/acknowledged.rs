//! Schedules with a store that acknowledges: no subscriber may see an event before the disk, a thread of the store, has
//! settled its ticket.

use shuttle::rand::{Rng, thread_rng};

use super::*;
use crate::broker::sync::Condvar;
use crate::error::ErrorKind;

/// A store that keeps the records that its disk has settled, a batch at a time. Clones share one disk.
#[derive(Clone)]
struct Acknowledging(Arc<Disk>);

struct Disk {
    state: Mutex<DiskState>,
    /// Notified when the disk has something to do.
    work: Condvar,
    /// Notified when a batch has been settled, and when the disk has ended.
    progress: Condvar,
    /// The most batches that the disk refuses.
    refusals: usize,
    /// The disk replaces what it keeps by a snapshot at random times.
    compacts: bool,
}

#[derive(Default)]
struct DiskState {
    /// All appended records. A record's ticket is its place, counted from 1.
    appended: Vec<Record>,
    settled: usize,
    refused: Vec<EventId>,
    /// The records that the next start reads.
    kept: Vec<Record>,
    /// The ids of all events that ever were in `kept`.
    events: Vec<EventId>,
    stopped: bool,
    ended: bool,
}

/// Starts, stops and the disk make these schedules long, so there are fewer.
fn explore_some(schedule: fn()) {
    explore_times(schedule, schedules() / 10);
}

fn ids(records: &[Record]) -> Vec<EventId> {
    let events = records.iter().filter_map(Record::event);
    events.map(Event::id).collect()
}

impl Acknowledging {
    fn new(refusals: usize, compacts: bool, kept: Vec<Record>) -> Self {
        let state = DiskState {
            events: ids(&kept),
            kept,
            ..DiskState::default()
        };
        Acknowledging(Arc::new(Disk {
            state: Mutex::new(state),
            work: Condvar::default(),
            progress: Condvar::default(),
            refusals,
            compacts,
        }))
    }

    fn broker(&self, options: BrokerOptions) -> Broker {
        Broker::with_store(options, self.clone()).unwrap()
    }

    /// Checks that these events, which a subscriber has seen, were kept.
    fn has(&self, seen: &[EventId]) {
        let events = &self.0.state.lock().events;
        assert!(seen.iter().all(|id| events.contains(id)), "seen too early");
    }

    fn kept(&self) -> Vec<Record> {
        self.0.state.lock().kept.clone()
    }

    fn run_disk(self, snapshot: Snapshot) {
        let Disk { state, work, .. } = &*self.0;
        let mut refusals = self.0.refusals;
        loop {
            let mut held = state.lock();
            while held.settled == held.appended.len() && !held.stopped {
                work.wait(&mut held);
            }
            let batch = held.appended[held.settled..].to_vec();
            if batch.is_empty() {
                break;
            }
            drop(held);
            // What is appended meanwhile is of the next batch.
            let refused = refusals > 0 && thread_rng().r#gen();
            refusals -= usize::from(refused);
            self.settle(batch, refused);
            if self.0.compacts && thread_rng().r#gen() {
                self.compact(&snapshot);
            }
        }
        state.lock().ended = true;
        self.0.progress.notify_all();
    }

    fn settle(&self, batch: Vec<Record>, refused: bool) {
        let mut held = self.0.state.lock();
        held.settled += batch.len();
        let (events, others): (Vec<Record>, Vec<Record>) = batch
            .into_iter()
            .partition(|record| record.event().is_some() || record.precedes_its_events());
        let of_batch = ids(&events);
        if !refused {
            held.events.extend(&of_batch);
            held.kept.extend(events);
        } else if let Some(last) = of_batch.last() {
            held.kept.push(Record::Refused(*last));
            held.refused.extend(&of_batch);
        }
        // An end comes after all events, and a retrieval after the events that it names.
        held.kept.extend(others);
        drop(held);
        self.0.progress.notify_all();
    }

    /// Replaces the records that the disk keeps by a snapshot, as a store that compacts its log does.
    fn compact(&self, snapshot: &Snapshot) {
        let held = self.0.state.lock();
        let known = held.events.iter().chain(&held.refused);
        let reached = known.filter_map(|id| id.parts()).map(|(_, number)| number);
        let reached = reached.max().unwrap_or(0);
        let kept = ids(&held.kept);
        let ended = held.kept.last().cloned();
        let ended = ended.filter(|record| matches!(record, Record::Ended(_)));
        drop(held);
        let mut records = snapshot.records(reached);
        // The broker has not started yet, or is gone.
        if records.is_empty() {
            return;
        }
        assert_eq!(ids(&records), kept, "the snapshot has other events");
        records.extend(ended);
        self.0.state.lock().kept = records;
    }
}

impl Store for Acknowledging {
    fn start(&mut self, snapshot: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        self.kept().into_iter().for_each(each);
        let store = self.clone();
        thread::spawn(move || store.run_disk(snapshot));
        Ok(())
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        self.append_batch(vec![record])
    }

    /// The disk settles the records together.
    fn append_batch(&self, records: Vec<Record>) -> Result<u64, Error> {
        let mut held = self.0.state.lock();
        held.appended.extend(records);
        let ticket = held.appended.len() as u64;
        drop(held);
        self.0.work.notify_one();
        Ok(ticket)
    }

    fn flush(&self, ticket: u64) -> Result<(), Error> {
        let mut held = self.0.state.lock();
        while (held.settled as u64) < ticket {
            self.0.progress.wait(&mut held);
        }
        match held.appended[ticket as usize - 1].event() {
            Some(event) if held.refused.contains(&event.id()) => {
                Err(Error::new(ErrorKind::Busy, "refused"))
            }
            _ => Ok(()),
        }
    }

    fn settled(&self) -> u64 {
        self.0.state.lock().settled as u64
    }

    fn acknowledges(&self) -> bool {
        true
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        let mut held = self.0.state.lock();
        held.stopped = true;
        self.0.work.notify_one();
        while !held.ended {
            self.0.progress.wait(&mut held);
        }
        Ok(())
    }
}

/// Publishes, and returns the ids of the events that were not refused.
fn trying(broker: &Broker, names: &[&'static str]) -> JoinHandle<Vec<EventId>> {
    let (broker, names) = (broker.clone(), names.to_vec());
    thread::spawn(move || {
        let publish = |name: &&str| broker.publish(name, "x").ok();
        names.iter().filter_map(publish).collect()
    })
}

/// Follows until it sees the event that [`last`] publishes.
fn follow(
    mut follower: Follower,
    store: &Acknowledging,
    timeout: Duration,
) -> JoinHandle<Follower> {
    let store = store.clone();
    thread::spawn(move || {
        loop {
            let batch = follower.poll(timeout).unwrap();
            store.has(&follower.seen);
            if batch.events().iter().any(|event| event.text() == LAST) {
                return follower;
            }
        }
    })
}

const LAST: &str = "the last";

fn last(broker: &Broker) -> EventId {
    loop {
        if let Ok(id) = broker.publish("a", LAST) {
            return id;
        }
    }
}

/// Two threads publish. Each of these followers sees all acknowledged events and no other.
fn all_is_seen(store: &Acknowledging, followers: &[&[&'static str]], timeout: Duration) {
    let broker = store.broker(BrokerOptions::default());
    let followers = followers
        .iter()
        .map(|names| follow(Follower::of(&broker, names), store, timeout));
    let followers: Vec<JoinHandle<Follower>> = followers.collect();
    let mut published = published([trying(&broker, &["a", "b"]), trying(&broker, &["b", "a"])]);
    published.push(last(&broker));
    for follower in followers {
        let follower = follower.join().unwrap();
        let of_these = |id: &EventId| follower.names.len() > 1 || of(store, "a").contains(id);
        let expected: Vec<EventId> = published.iter().copied().filter(of_these).collect();
        assert!(follower.seen == expected && !follower.gap);
    }
    assert_eq!(ids(&store.kept()), published);
    broker.stop(Duration::ZERO).unwrap();
    starts_again(store, &published);
}

/// The ids of the events of a category that were appended to the store.
fn of(store: &Acknowledging, name: &str) -> Vec<EventId> {
    let held = store.0.state.lock();
    let events = held.appended.iter().filter_map(Record::event);
    let of_this = events.filter(|event| event.category() == name);
    of_this.map(Event::id).collect()
}

/// The next start has all acknowledged events, and no follower gets a gap.
fn starts_again(store: &Acknowledging, published: &[EventId]) {
    let again = Acknowledging::new(0, false, store.kept());
    let broker = again.broker(BrokerOptions::default());
    let mut follower = Follower::of(&broker, &["a", "b"]);
    follower.poll(Duration::ZERO).unwrap();
    assert_eq!(follower.seen, published);
    if let Some(first) = published.first() {
        let mut follower = Follower::of(&broker, &["a", "b"]);
        follower.cursor = Cursor::LastId(*first);
        follower.poll(Duration::ZERO).unwrap();
        assert!(follower.seen == published[1..] && !follower.gap);
    }
}

#[test]
fn parked_subscribers_see_acknowledged_events_in_order_and_not_before() {
    explore_some(|| {
        let store = Acknowledging::new(0, false, Vec::new());
        all_is_seen(&store, &[&["a", "b"], &["a"]], FOREVER);
    });
}

#[test]
fn a_refused_event_is_never_visible_and_delays_no_other() {
    explore_some(|| {
        let store = Acknowledging::new(2, false, Vec::new());
        all_is_seen(&store, &[&["a", "b"]], FOREVER);
    });
}

#[test]
fn the_stores_own_thread_gets_a_snapshot_while_publishers_wait_for_it() {
    explore_some(|| {
        let store = Acknowledging::new(1, true, Vec::new());
        all_is_seen(&store, &[&["a", "b"]], FOREVER);
    });
}

#[test]
fn an_event_that_is_committed_at_the_moment_of_a_timeout_is_not_lost() {
    explore_some(|| {
        let store = Acknowledging::new(1, false, Vec::new());
        all_is_seen(&store, &[&["a"], &["a", "b"]], SOME_TIME);
    });
}

/// Events of one schedule have one timestamp or few.
#[test]
fn a_follower_by_time_alone_sees_all_events_of_a_millisecond() {
    for timeout in [FOREVER, SOME_TIME] {
        by_time(timeout);
    }
}

fn by_time(timeout: Duration) {
    let schedule = move || {
        let store = Acknowledging::new(1, false, Vec::new());
        let broker = store.broker(BrokerOptions::default());
        let following = [&["a"][..], &["a", "b"]].map(|names| {
            let follower = Follower::of(&broker, names);
            let by_time = true;
            follow(
                Follower {
                    by_time,
                    ..follower
                },
                &store,
                timeout,
            )
        });
        let mut published = published([trying(&broker, &["a", "b"]), trying(&broker, &["b", "a"])]);
        published.push(last(&broker));
        for follower in following {
            let follower = follower.join().unwrap();
            let of_these = |id: &EventId| follower.names.len() > 1 || of(&store, "a").contains(id);
            let expected: Vec<EventId> = published.iter().copied().filter(of_these).collect();
            assert!(follower.seen == expected && !follower.gap);
        }
        broker.stop(Duration::ZERO).unwrap();
    };
    let count = schedules() / 20;
    shuttle::check_random(schedule, count / 2);
    shuttle::check_pct(schedule, count / 2, 3);
}

#[test]
fn a_stop_while_publishers_wait_for_the_disk_loses_nothing_that_was_acknowledged() {
    explore_some(|| {
        let store = Acknowledging::new(1, true, Vec::new());
        let broker = store.broker(BrokerOptions::default());
        let (mut follower, seen) = (Follower::of(&broker, &["a", "b"]), store.clone());
        let following = thread::spawn(move || {
            while follower.poll(FOREVER).is_ok() {
                seen.has(&follower.seen);
            }
            follower
        });
        let publishers = [trying(&broker, &["a", "b"]), trying(&broker, &["b"])];
        let stopping = broker.clone();
        let stopper = thread::spawn(move || stopping.stop(Duration::ZERO).unwrap());
        let published = published(publishers);
        join_all([stopper]);
        let mut follower = following.join().unwrap();
        let names = follower.names.clone().into();
        let rest = broker.look_after_stop(&names, follower.cursor, None);
        follower.take(&rest.unwrap());
        assert!(follower.seen == published && !follower.gap);
        assert_eq!(ids(&store.kept()), published);
        starts_again(&store, &published);
    });
}

#[test]
fn a_deleted_event_was_acknowledged_and_delivered() {
    explore_some(|| {
        let store = Acknowledging::new(1, false, Vec::new());
        let broker = store.broker(BrokerOptions::new().delete_after_first_retrieval(true));
        let followers =
            [&["a"][..], &["a", "b"]].map(|names| Follower::of(&broker, names).times(2));
        let published = published([trying(&broker, &["a", "b"]), trying(&broker, &["a"])]);
        let followers = followers.map(|follower| follower.join().unwrap());
        assert_eq!(accounted_for(&broker, followers), published);
        broker.stop(Duration::ZERO).unwrap();
        // All events were delivered, and stay deleted.
        let again = Acknowledging::new(0, false, store.kept());
        let broker = again.broker(BrokerOptions::default());
        assert_eq!(broker.statistics().events, 0);
    });
}

/// Publishes with one key in a thread of its own.
fn publish_once(broker: &Broker, data: &'static str) -> JoinHandle<Result<EventId, Error>> {
    let broker = broker.clone();
    thread::spawn(move || broker.publish_once("key", "a", data))
}

#[test]
fn publishes_with_one_key_at_the_same_time_make_one_event() {
    explore_some(|| {
        let store = Acknowledging::new(1, true, Vec::new());
        let broker = store.broker(BrokerOptions::default());
        let same = [publish_once(&broker, "x"), publish_once(&broker, "x")];
        let other = publish_once(&broker, "y");
        let same = same.map(|thread| thread.join().unwrap().ok());
        let other = other.join().unwrap();
        let mut published: Vec<EventId> = same.iter().flatten().copied().collect();
        published.dedup();
        if let Ok(id) = other {
            // The store has refused the first of the others, or they came later.
            assert!(published.is_empty());
            published.push(id);
        }
        assert!(published.len() <= 1);
        let mut follower = Follower::of(&broker, &["a"]);
        follower.poll(Duration::ZERO).unwrap();
        assert_eq!(follower.seen, published);
        broker.stop(Duration::ZERO).unwrap();
        let broker = Acknowledging::new(0, false, store.kept()).broker(BrokerOptions::default());
        assert_eq!(broker.statistics().idempotency_keys, published.len());
        if let Some(id) = published.first() {
            let data = if same.contains(&Some(*id)) { "x" } else { "y" };
            assert_eq!(broker.publish_once("key", "a", data).ok(), Some(*id));
        }
    });
}
