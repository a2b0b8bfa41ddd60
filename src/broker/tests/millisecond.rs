//! Followers by time alone, while the store keeps the events of one millisecond one after the other.

use std::collections::HashSet;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::*;
use crate::error::ErrorKind;

const START: u64 = 1_700_000_000_000;
const LIMIT: Duration = Duration::from_secs(10);

/// A store that acknowledges. A flush returns once the test has released its ticket.
#[derive(Clone, Default)]
struct Stepwise(Arc<(Mutex<Steps>, Condvar)>);

#[derive(Default)]
struct Steps {
    appended: u64,
    released: u64,
    refused: HashSet<u64>,
}

impl Stepwise {
    fn release(&self, ticket: u64) {
        self.0.0.lock().released = ticket;
        self.0.1.notify_all();
    }

    fn refuse(&self, ticket: u64) {
        self.0.0.lock().refused.insert(ticket);
        self.release(ticket);
    }
}

impl Store for Stepwise {
    fn start(&mut self, _: Snapshot, _: &mut dyn FnMut(Record)) -> Result<(), Error> {
        Ok(())
    }

    fn append(&self, _: Record) -> Result<u64, Error> {
        let mut steps = self.0.0.lock();
        steps.appended += 1;
        Ok(steps.appended)
    }

    fn flush(&self, ticket: u64) -> Result<(), Error> {
        let mut steps = self.0.0.lock();
        while steps.released < ticket {
            self.0.1.wait(&mut steps);
        }
        match steps.refused.contains(&ticket) {
            true => Err(Error::new(ErrorKind::Busy, "refused")),
            false => Ok(()),
        }
    }

    fn acknowledges(&self) -> bool {
        true
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }
}

/// A broker whose clock stands still, so that two publishes have the same timestamp.
struct Trial {
    store: Stepwise,
    broker: Broker,
}

/// The tickets of the two events; the start of the run has the first.
const FIRST: u64 = 2;
const SECOND: u64 = 3;

impl Trial {
    fn new(options: BrokerOptions) -> Self {
        let store = Stepwise::default();
        store.release(FIRST - 1);
        let clock = Clock::Manual(ManualClock::at(START));
        let broker = Broker::restore(options, clock, Box::new(store.clone())).unwrap();
        Trial { store, broker }
    }

    /// Publishes two events, both of which the store has and does not keep yet.
    fn publish_two(&self, names: [&'static str; 2]) -> [JoinHandle<Result<EventId, Error>>; 2] {
        let publish = |number: u64| {
            let (broker, name) = (self.broker.clone(), names[number as usize]);
            let publisher = thread::spawn(move || broker.publish(name, &number));
            until(|| self.store.0.0.lock().appended == FIRST + number);
            publisher
        };
        [publish(0), publish(1)]
    }

    fn until_parked(&self) {
        until(|| self.broker.statistics().parked == 1);
    }

    /// Follows by time alone, until two events have come.
    fn follow(&self, names: &[&'static str], timeout: Duration) -> JoinHandle<Vec<u64>> {
        let (broker, names) = (self.broker.clone(), names.to_vec());
        thread::spawn(move || {
            let (mut seen, mut time) = (Vec::new(), START - 1);
            while seen.len() < 2 {
                let cursor = Cursor::SinceTime(time);
                let batch = broker.subscribe(names.clone(), cursor, timeout).unwrap();
                assert!(!batch.gap());
                let Some(last) = batch.events().last() else {
                    break;
                };
                time = last.timestamp();
                seen.extend(numbers(&batch));
            }
            seen
        })
    }
}

fn numbers(batch: &Batch) -> Vec<u64> {
    let events = batch.events().iter();
    events.map(|event| event.decode().unwrap()).collect()
}

fn until(mut met: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !met() {
        assert!(Instant::now() < end);
        thread::yield_now();
    }
}

#[test]
fn a_parked_follower_by_time_waits_for_all_events_of_a_millisecond() {
    for (deletes, names) in [
        (false, &["a"][..]),
        (true, &["a"]),
        (false, &["a", "b"]),
        (true, &["a", "b"]),
    ] {
        let options = BrokerOptions::new().delete_after_first_retrieval(deletes);
        let trial = Trial::new(options);
        let following = trial.follow(names, LIMIT);
        trial.until_parked();
        let [first, second] = trial.publish_two(["a", names[names.len() - 1]]);
        trial.store.release(FIRST);
        first.join().unwrap().unwrap();
        trial.store.release(SECOND);
        second.join().unwrap().unwrap();
        assert_eq!(following.join().unwrap(), [0, 1], "{deletes}, {names:?}");
        let held = trial.broker.statistics().events;
        assert_eq!(held, if deletes { 0 } else { 2 }, "{names:?}");
    }
}

#[test]
fn a_poll_by_time_waits_for_all_events_of_a_millisecond_whatever_its_timeout() {
    for timeout in [Duration::ZERO, LIMIT] {
        for deletes in [false, true] {
            let options = BrokerOptions::new().delete_after_first_retrieval(deletes);
            let trial = Trial::new(options);
            let [first, second] = trial.publish_two(["a", "b"]);
            trial.store.release(FIRST);
            first.join().unwrap().unwrap();
            let following = trial.follow(&["a", "b"], timeout);
            trial.until_parked();
            trial.store.release(SECOND);
            second.join().unwrap().unwrap();
            assert_eq!(following.join().unwrap(), [0, 1], "{timeout:?}, {deletes}");
        }
    }
}

#[test]
fn a_poll_by_time_does_not_wait_for_an_event_that_the_store_has_refused() {
    let trial = Trial::new(BrokerOptions::default());
    let [first, second] = trial.publish_two(["a", "a"]);
    trial.store.release(FIRST);
    first.join().unwrap().unwrap();
    let following = trial.follow(&["a"], Duration::ZERO);
    trial.until_parked();
    trial.store.refuse(SECOND);
    assert!(second.join().unwrap().is_err());
    assert_eq!(following.join().unwrap(), [0]);
}

#[test]
fn polls_by_id_and_with_a_limit_do_not_wait_for_the_rest_of_a_millisecond() {
    let trial = Trial::new(BrokerOptions::default());
    let before = trial.broker.subscribe("a", Cursor::Now, Duration::ZERO);
    let before = Cursor::LastId(before.unwrap().last_id());
    let [first, second] = trial.publish_two(["a", "a"]);
    trial.store.release(FIRST);
    first.join().unwrap().unwrap();
    let broker = &trial.broker;
    let by_id = broker.subscribe("a", before, Duration::ZERO).unwrap();
    let limited = broker.subscribe_up_to(5, "a", Cursor::Oldest, Duration::ZERO);
    for batch in [by_id, limited.unwrap()] {
        assert_eq!(numbers(&batch), [0]);
        let rest = Cursor::LastId(batch.last_id());
        let rest = broker.subscribe("a", rest, Duration::ZERO).unwrap();
        assert!(rest.events().is_empty());
    }
    trial.store.release(SECOND);
    second.join().unwrap().unwrap();
}

#[test]
fn an_answer_without_the_events_of_an_incomplete_millisecond_has_a_position_before_them() {
    let trial = Trial::new(BrokerOptions::default());
    let [first, second] = trial.publish_two(["a", "a"]);
    trial.store.release(FIRST);
    first.join().unwrap().unwrap();
    let broker = &trial.broker;
    let polled = broker.poll(&"a".into(), Cursor::Oldest, None, PollMode::Peek);
    let Ok(Polled::Ready(batch)) = polled else {
        panic!("a poll that does not park");
    };
    assert!(batch.events().is_empty() && !batch.gap());
    trial.store.release(SECOND);
    second.join().unwrap().unwrap();
    for cursor in [
        Cursor::LastId(batch.last_id()),
        Cursor::SinceTime(batch.before()),
    ] {
        let batch = broker.subscribe("a", cursor, Duration::ZERO).unwrap();
        assert_eq!(numbers(&batch), [0, 1]);
    }
}

/// Polls of a follower that goes on from this time alone: one that answers at once, and one that has parked.
fn polled_by_time(broker: &Broker, time: u64) -> [Arc<Batch>; 2] {
    let cursor = Cursor::SinceTime(time);
    [PollMode::NoWait, PollMode::Park].map(|mode| {
        match broker.poll(&["a", "b"].into(), cursor, None, mode).unwrap() {
            Polled::Ready(batch) => batch,
            Polled::Parked(parked) => parked.wait(Deadline::after(Duration::ZERO)),
        }
    })
}

#[test]
fn a_follower_by_time_misses_no_event_after_a_poll_without_events_if_the_clock_steps_back() {
    // By less and by more than a client's clock may be ahead.
    for back in [5_000, 3_600_000] {
        for answer in [0, 1] {
            let clock = ManualClock::at(START);
            let manual = Clock::Manual(clock.clone());
            let broker = Broker::restore(BrokerOptions::new(), manual, Box::new(NoStore)).unwrap();
            broker.publish("a", &0).unwrap();
            clock.advance(Duration::from_secs(30));
            let before = polled_by_time(&broker, START)[answer].before();
            assert_eq!(before, START + 29_999);
            clock.set(START + 30_000 - back);
            let quiet = polled_by_time(&broker, before);
            assert!(quiet.iter().all(|batch| batch.is_empty() && !batch.gap()));
            broker.publish("a", &1).unwrap();
            let batch = &polled_by_time(&broker, before)[0];
            assert_eq!((numbers(batch), batch.gap()), (vec![1], false), "{back}");
            assert_eq!(batch.events()[0].timestamp(), START + 30_000);
        }
    }
}

#[test]
fn polls_without_events_do_not_move_timestamps_ahead_of_the_clock() {
    let clock = ManualClock::at(START);
    let manual = Clock::Manual(clock.clone());
    let broker = Broker::restore(BrokerOptions::new(), manual, Box::new(NoStore)).unwrap();
    let mut time = START - 1;
    for number in 0..50 {
        for batch in [0, 1].map(|answer| polled_by_time(&broker, time)[answer].clone()) {
            assert!(batch.is_empty());
            time = time.max(batch.before());
        }
        clock.advance(Duration::from_millis(1));
        broker.publish("a", &number).unwrap();
        let batch = &polled_by_time(&broker, time)[0];
        assert_eq!(numbers(batch), [number]);
        time = batch.events()[0].timestamp();
        assert_eq!(time, clock.now());
    }
}
