//! Schedules with a store that acknowledges: nobody may see an event before a disk, a thread of the store's own, has
//! settled its ticket.

use shuttle::rand::{Rng, thread_rng};

use super::*;
use crate::broker::sync::Condvar;
use crate::error::ErrorKind;

/// Keeps what its disk has settled, a batch at a time. A handle to one that is shared.
#[derive(Clone)]
struct Acknowledging(Arc<Platter>);

struct Platter {
    tray: Mutex<Tray>,
    /// Told when there is something for the disk to do.
    work: Condvar,
    /// Told when a batch has been settled, and when the disk has ended.
    progress: Condvar,
    /// How many batches may be refused.
    refusals: usize,
    /// Whether what is held is written anew now and then, in place of what is kept.
    compacts: bool,
}

#[derive(Default)]
struct Tray {
    /// All that was appended; a record's ticket is its place, counted from 1.
    taken: Vec<Record>,
    settled: usize,
    refused: Vec<EventId>,
    /// What a next start reads.
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
        let tray = Tray {
            events: ids(&kept),
            kept,
            ..Tray::default()
        };
        Acknowledging(Arc::new(Platter {
            tray: Mutex::new(tray),
            work: Condvar::default(),
            progress: Condvar::default(),
            refusals,
            compacts,
        }))
    }

    fn broker(&self, options: BrokerOptions) -> Broker {
        Broker::with_store(options, self.clone()).unwrap()
    }

    /// What was seen had been kept.
    fn has(&self, seen: &[EventId]) {
        let events = &self.0.tray.lock().events;
        assert!(seen.iter().all(|id| events.contains(id)), "seen too early");
    }

    fn kept(&self) -> Vec<Record> {
        self.0.tray.lock().kept.clone()
    }

    fn disk(self, live: Snapshot) {
        let Platter { tray, work, .. } = &*self.0;
        let mut refusals = self.0.refusals;
        loop {
            let mut held = tray.lock();
            while held.settled == held.taken.len() && !held.stopped {
                work.wait(&mut held);
            }
            let batch = held.taken[held.settled..].to_vec();
            if batch.is_empty() {
                break;
            }
            drop(held);
            // What is appended meanwhile is of the next batch.
            let refused = refusals > 0 && thread_rng().r#gen();
            refusals -= usize::from(refused);
            self.settle(batch, refused);
            if self.0.compacts && thread_rng().r#gen() {
                self.compact(&live);
            }
        }
        tray.lock().ended = true;
        self.0.progress.notify_all();
    }

    fn settle(&self, batch: Vec<Record>, refused: bool) {
        let mut held = self.0.tray.lock();
        held.settled += batch.len();
        let (events, others): (Vec<Record>, Vec<Record>) = batch
            .into_iter()
            .partition(|record| record.event().is_some());
        let of_batch = ids(&events);
        if !refused {
            held.events.extend(&of_batch);
            held.kept.extend(events);
        } else if let Some(last) = of_batch.last() {
            held.kept.push(Record::Refused(*last));
            held.refused.extend(&of_batch);
        }
        // An end comes after all events, and what was taken after those that it tells of.
        held.kept.extend(others);
        drop(held);
        self.0.progress.notify_all();
    }

    /// Puts what is held in place of what is kept: as a store does that makes its log smaller.
    fn compact(&self, live: &Snapshot) {
        let held = self.0.tray.lock();
        let known = held.events.iter().chain(&held.refused);
        let reached = known.filter_map(|id| id.parts()).map(|(_, number)| number);
        let reached = reached.max().unwrap_or(0);
        let kept = ids(&held.kept);
        let ended = held.kept.last().cloned();
        let ended = ended.filter(|record| matches!(record, Record::Ended(_)));
        drop(held);
        let mut records = live.records(reached);
        // The broker has not started yet, or is gone.
        if records.is_empty() {
            return;
        }
        assert_eq!(ids(&records), kept, "a snapshot of what is held");
        records.extend(ended);
        self.0.tray.lock().kept = records;
    }
}

impl Store for Acknowledging {
    fn start(&mut self, live: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        self.kept().into_iter().for_each(each);
        let store = self.clone();
        thread::spawn(move || store.disk(live));
        Ok(())
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        let mut held = self.0.tray.lock();
        held.taken.push(record);
        let ticket = held.taken.len() as u64;
        drop(held);
        self.0.work.notify_one();
        Ok(ticket)
    }

    fn flush(&self, ticket: u64) -> Result<(), Error> {
        let mut held = self.0.tray.lock();
        while (held.settled as u64) < ticket {
            self.0.progress.wait(&mut held);
        }
        match held.taken[ticket as usize - 1].event() {
            Some(event) if held.refused.contains(&event.id()) => {
                Err(Error::new(ErrorKind::Busy, "refused"))
            }
            _ => Ok(()),
        }
    }

    fn settled(&self) -> u64 {
        self.0.tray.lock().settled as u64
    }

    fn acknowledges(&self) -> bool {
        true
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        let mut held = self.0.tray.lock();
        held.stopped = true;
        self.0.work.notify_one();
        while !held.ended {
            self.0.progress.wait(&mut held);
        }
        Ok(())
    }
}

/// Publishes, and tells of what was not refused.
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

/// Two publish, and each of these follows and sees all that was acknowledged, and nothing else.
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

/// The ids of the events of a category that were handed to the store.
fn of(store: &Acknowledging, name: &str) -> Vec<EventId> {
    let held = store.0.tray.lock();
    let events = held.taken.iter().filter_map(Record::event);
    let of_this = events.filter(|event| event.category() == name);
    of_this.map(Event::id).collect()
}

/// What was acknowledged is there after the next start, and nobody is told of a gap.
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
fn whoever_is_parked_sees_all_that_is_acknowledged_in_order_and_not_before() {
    explore_some(|| {
        let store = Acknowledging::new(0, false, Vec::new());
        all_is_seen(&store, &[&["a", "b"], &["a"]], FOR_EVER);
    });
}

#[test]
fn what_is_refused_is_seen_by_nobody_and_holds_up_nothing() {
    explore_some(|| {
        let store = Acknowledging::new(2, false, Vec::new());
        all_is_seen(&store, &[&["a", "b"]], FOR_EVER);
    });
}

#[test]
fn what_is_held_is_told_to_the_stores_own_thread_while_publishers_wait_for_it() {
    explore_some(|| {
        let store = Acknowledging::new(1, true, Vec::new());
        all_is_seen(&store, &[&["a", "b"]], FOR_EVER);
    });
}

#[test]
fn an_event_that_is_committed_at_the_moment_of_a_time_out_is_not_lost() {
    explore_some(|| {
        let store = Acknowledging::new(1, false, Vec::new());
        all_is_seen(&store, &[&["a"], &["a", "b"]], SOME_TIME);
    });
}

#[test]
fn a_stop_while_publishers_wait_for_the_disk_loses_nothing_that_was_acknowledged() {
    explore_some(|| {
        let store = Acknowledging::new(1, true, Vec::new());
        let broker = store.broker(BrokerOptions::default());
        let (mut follower, seen) = (Follower::of(&broker, &["a", "b"]), store.clone());
        let following = thread::spawn(move || {
            while follower.poll(FOR_EVER).is_ok() {
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
fn what_is_deleted_by_its_retrieval_was_acknowledged_and_handed_to_someone() {
    explore_some(|| {
        let store = Acknowledging::new(1, false, Vec::new());
        let broker = store.broker(BrokerOptions::new().delete_after_first_retrieval(true));
        let followers =
            [&["a"][..], &["a", "b"]].map(|names| Follower::of(&broker, names).times(2));
        let published = published([trying(&broker, &["a", "b"]), trying(&broker, &["a"])]);
        let followers = followers.map(|follower| follower.join().unwrap());
        assert_eq!(accounted_for(&broker, followers), published);
        broker.stop(Duration::ZERO).unwrap();
        // All has been handed out, and stays deleted.
        let again = Acknowledging::new(0, false, store.kept());
        let broker = again.broker(BrokerOptions::default());
        assert_eq!(broker.statistics().events, 0);
    });
}
