//! Several events in one publish without HTTP: what subscribers, files and stores get of it.

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use long_polling::store::{Record, Snapshot, Store};
use long_polling::{
    Broker, BrokerOptions, Cursor, Durability, Error, ErrorKind, FilePersistorInfo,
};

use crate::publish_all::requests;
use crate::support::{LIMIT, until};

fn numbers(broker: &Broker, category: &str, cursor: Cursor) -> (Vec<usize>, bool) {
    let batch = broker.subscribe(category, cursor, Duration::ZERO).unwrap();
    let numbers = batch.events().iter().map(|event| event.decode().unwrap());
    (numbers.collect(), batch.gap())
}

#[test]
fn parked_subscribers_receive_every_event_however_they_follow() {
    for (deletes, durability) in [
        (false, None),
        (true, None),
        (false, Some(Durability::Acknowledged)),
    ] {
        for (limit, by_time) in [(None, true), (None, false), (Some(1), false)] {
            for of in [&["a"][..], &["a", "b"]] {
                let folder = tempfile::tempdir().unwrap();
                let options = BrokerOptions::new().delete_after_first_retrieval(deletes);
                let broker = match durability {
                    None => Broker::new(options),
                    Some(durability) => {
                        let file = FilePersistorInfo::new(folder.path().join("events.db"));
                        Broker::open(options, file.durability(durability))
                    }
                };
                let broker = broker.unwrap();
                let now = broker.subscribe("a", Cursor::Now, Duration::ZERO).unwrap();
                let first = match by_time {
                    true => Cursor::Now,
                    false => Cursor::LastId(now.last_id()),
                };
                let poll = move |broker: &Broker, cursor, timeout| match limit {
                    None => broker.subscribe(of, cursor, timeout),
                    Some(limit) => broker.subscribe_up_to(limit, of, cursor, timeout),
                };
                let follower = broker.clone();
                let thread = thread::spawn(move || poll(&follower, first, LIMIT).unwrap());
                until("parked", || broker.statistics().parked == 1);
                broker
                    .publish_all(&requests(&["a", "b", "a", "a", "b"]))
                    .unwrap();
                let mut batch = thread.join().unwrap();
                let mut received: Vec<usize> = Vec::new();
                while let Some(last) = batch.events().last() {
                    assert!(!batch.gap());
                    received.extend(
                        batch
                            .events()
                            .iter()
                            .map(|event| event.decode::<usize>().unwrap()),
                    );
                    let cursor = match by_time {
                        true => Cursor::SinceTime(last.timestamp()),
                        false => Cursor::LastId(batch.last_id()),
                    };
                    batch = poll(&broker, cursor, Duration::ZERO).unwrap();
                }
                let expected: &[usize] = match of.len() {
                    1 => &[0, 2, 3],
                    _ => &[0, 1, 2, 3, 4],
                };
                assert_eq!(
                    received, expected,
                    "{deletes} {durability:?} {limit:?} {by_time}"
                );
            }
        }
    }
}

/// A log with two events, a publish of three, and one more event, in a file that ends at any byte.
#[test]
fn a_file_that_a_crash_has_cut_has_all_events_of_a_publish_or_none() {
    for durability in [Durability::Buffered, Durability::Acknowledged] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let open = |path: &std::path::Path| {
            let file = FilePersistorInfo::new(path).durability(durability);
            Broker::open(BrokerOptions::new(), file).unwrap()
        };
        let broker = open(&path);
        let before = broker.publish("a", &100).unwrap();
        broker.publish_all(&requests(&["a", "b", "a"])).unwrap();
        broker.publish("b", &200).unwrap();
        broker.stop(LIMIT).unwrap();
        drop(broker);
        let log = fs::read(&path).unwrap();
        let text = String::from_utf8(log.clone()).unwrap();
        // golongpoll reads the lines of events, and skips all others.
        let events = text.lines().filter(|line| line.starts_with('{'));
        assert_eq!(
            events
                .filter(|line| line.starts_with("{\"timestamp\":"))
                .count(),
            5
        );
        let start = text.find("[\"batch\",").unwrap();
        let mut found = HashSet::new();
        for end in start..=log.len() {
            let cut = folder.path().join("cut.db");
            fs::write(&cut, &log[..end]).unwrap();
            // Also the start after the next one, which has a run between.
            for round in 0..2 {
                let broker = open(&cut);
                let (a, gap) = numbers(&broker, "a", Cursor::LastId(before));
                let (mut b, _) = numbers(&broker, "b", Cursor::Oldest);
                b.retain(|number| *number < 200);
                let is_whole = (&a[..], &b[..]) == (&[0, 2], &[1]);
                let is_none = a.is_empty() && b.is_empty();
                assert!(is_whole || is_none, "{end}, {round}: {a:?}, {b:?}");
                found.insert(is_whole);
                if durability == Durability::Acknowledged {
                    assert!(!gap, "{end}: nobody has seen what is missing");
                } else if is_none {
                    // Subscribers may have seen the events.
                    broker.publish("a", &300).unwrap();
                    assert!(numbers(&broker, "a", Cursor::LastId(before)).1, "{end}");
                    break;
                }
                drop(broker);
            }
            let _ = fs::remove_file(&cut);
        }
        assert_eq!(found.len(), 2);
    }
}

/// Keeps records in memory, and fails at the append or flush with this number.
#[derive(Clone)]
struct Failing {
    records: Arc<Mutex<Vec<Record>>>,
    left: Arc<AtomicUsize>,
    acknowledges: bool,
}

impl Failing {
    fn fails(&self) -> Result<(), Error> {
        match self.left.fetch_sub(1, SeqCst) {
            1 => Err(Error::new(ErrorKind::Busy, "full")),
            _ => Ok(()),
        }
    }
}

impl Store for Failing {
    fn start(&mut self, _: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        self.records.lock().unwrap().iter().cloned().for_each(each);
        Ok(())
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        if !self.acknowledges {
            self.fails()?;
        }
        let mut records = self.records.lock().unwrap();
        records.push(record);
        Ok(records.len() as u64)
    }

    fn flush(&self, ticket: u64) -> Result<(), Error> {
        if !self.acknowledges {
            return Ok(());
        }
        self.fails().inspect_err(|_| {
            // Refuses one event of several, and keeps the others.
            let record = &mut self.records.lock().unwrap()[ticket as usize - 1];
            if let Some(event) = record.event() {
                *record = Record::Refused(event.id());
            }
        })
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }

    fn acknowledges(&self) -> bool {
        self.acknowledges
    }
}

#[test]
fn a_store_that_fails_within_a_publish_of_several_events_publishes_none() {
    // One that acknowledges flushes the publish once.
    for (acknowledges, failures) in [(false, 1..=4), (true, 1..=1)] {
        for failure in failures {
            let store = Failing {
                records: Arc::default(),
                left: Arc::new(AtomicUsize::new(1000)),
                acknowledges,
            };
            let open = || Broker::with_store(BrokerOptions::new(), store.clone()).unwrap();
            let broker = open();
            let first = broker.publish("a", &100).unwrap();
            store.left.store(failure, SeqCst);
            broker.publish_all(&requests(&["a", "b", "a"])).unwrap_err();
            store.left.store(1000, SeqCst);
            broker.publish("a", &200).unwrap();
            let broker = {
                assert_eq!(
                    numbers(&broker, "a", Cursor::LastId(first)),
                    (vec![200], false)
                );
                broker.stop(LIMIT).unwrap();
                open()
            };
            let context = format!(
                "{acknowledges}, {failure}: {:?}",
                store.records.lock().unwrap()
            );
            let after = numbers(&broker, "a", Cursor::LastId(first));
            assert_eq!(after, (vec![200], false), "{context}");
            assert_eq!(
                numbers(&broker, "b", Cursor::Oldest).0.len(),
                0,
                "{context}"
            );
            let ids = broker.publish_all(&requests(&["a", "b"])).unwrap();
            assert!(ids[0] > first);
            broker.stop(LIMIT).unwrap();
        }
    }
}
