//! Several events in one publish: all of them are published, or none.

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use long_polling::server::{Request, Response};
use long_polling::store::{Record, Snapshot, Store};
use long_polling::{
    Broker, BrokerOptions, Cursor, Durability, Error, ErrorKind, EventId, FilePersistorInfo,
    PublishRequest, Publisher,
};

use crate::support::{LIMIT, buffered, info, publish, server, start, until};

fn requests(of: &[&str]) -> Vec<PublishRequest<usize>> {
    let numbered = of.iter().enumerate();
    numbered
        .map(|(number, category)| PublishRequest::new(*category, number))
        .collect()
}

fn numbers(broker: &Broker, category: &str, cursor: Cursor) -> (Vec<usize>, bool) {
    let batch = broker.subscribe(category, cursor, Duration::ZERO).unwrap();
    let numbers = batch.events().iter().map(|event| event.decode().unwrap());
    (numbers.collect(), batch.gap())
}

#[test]
fn an_array_publishes_its_events_in_order_with_consecutive_ids() {
    let server = server();
    let body = r#" [{"category":"a","data":1},{"category":"b","data":2},{"category":"a","data":3,"ttl":60}]"#;
    let answer = publish(&server, body);
    assert_eq!(answer.status, 200);
    answer.has_the_promised_headers();
    let json = answer.json();
    assert_eq!(json["success"], true);
    let ids: Vec<&str> = json["ids"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|id| id.as_str())
        .collect();
    assert_eq!((ids.len(), ids[2]), (3, answer.position()));
    assert_eq!(buffered(&server, "a").ids(), [ids[0], ids[2]]);
    assert_eq!(buffered(&server, "b").ids(), [ids[1]]);
    let number = |id: &str| id.parse::<EventId>().unwrap().as_u128() & ((1 << 62) - 1);
    assert_eq!(number(ids[1]), number(ids[0]) + 1);
    assert_eq!(number(ids[2]), number(ids[0]) + 2);

    let publisher = Publisher::new(format!("http://{}/publish", server.local_addr()));
    let response = publisher.publish_all(&requests(&["c", "d"])).unwrap();
    assert_eq!(response.ids().len(), 2);
    assert_eq!(response.id, response.ids().last().copied());
    let one = publisher.publish("c", &5).unwrap();
    assert_eq!(one.ids(), [one.id.unwrap()]);
    let too_many = publisher.publish_all(&requests(&["c"; 1001]));
    assert_eq!(too_many.unwrap_err().kind(), ErrorKind::TooLarge);
    let all = publisher.publish_all(&requests(&["e"; 1000])).unwrap();
    assert_eq!(all.ids().len(), 1000);
}

#[test]
fn one_event_that_can_not_be_published_refuses_all() {
    let options = BrokerOptions::new().max_event_size(10);
    let server = start(info().broker(options));
    let good = r#"{"category":"c","data":1}"#;
    for (events, status, words) in [
        (
            format!("[{good},{{\"category\":\"\",\"data\":1}}]"),
            400,
            "event 2 of 2",
        ),
        (
            format!("[{good},{{\"category\":\"c\"}}]"),
            400,
            "event 2 of 2",
        ),
        (
            format!("[{good},{{\"category\":\"c\",\"data\":null}}]"),
            400,
            "null",
        ),
        (
            format!("[{{\"category\":\"c\",\"data\":\"longer than 10\"}},{good}]"),
            413,
            "max_event_size",
        ),
        (
            format!("[{good},{{\"category\":\"c\",\"data\":1,\"ttl\":-1}}]"),
            400,
            "ttl",
        ),
        (format!("[{good},[\"c\",1]]"), 400, "event 2 of 2"),
        (format!("[{good}"), 400, "the body is not"),
        ("[]".into(), 400, "no events"),
    ] {
        publish(&server, events).refuses(status, words);
    }
    assert_eq!(buffered(&server, "c").status, 204);
    let many = vec![r#"{"category":"c","data":1}"#; 1001].join(",");
    let server = crate::support::server();
    publish(&server, format!("[{many}]")).refuses(413, "1001 events");
    assert_eq!(buffered(&server, "c").status, 204);

    let broker = Broker::new(BrokerOptions::new().max_event_size(10).max_event_bytes(200)).unwrap();
    for (events, kind) in [
        (requests(&[]), ErrorKind::InvalidRequest),
        (requests(&["c"; 1001]), ErrorKind::TooLarge),
        (requests(&["c"; 10]), ErrorKind::TooLarge),
        (requests(&["c", ""]), ErrorKind::InvalidRequest),
    ] {
        assert_eq!(broker.publish_all(&events).unwrap_err().kind(), kind);
    }
    assert_eq!(broker.statistics().published, 0);
    assert_eq!(broker.statistics().refused, 4);
}

#[test]
fn the_hook_of_publishes_runs_for_each_event_and_can_refuse_all() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = calls.clone();
    let server = start(info().before_publish(move |request: &Request| {
        let category = request.category().unwrap_or_default().to_owned();
        let data = request.data().unwrap_or_default().to_owned();
        noted.lock().unwrap().push((category.clone(), data));
        match category.as_str() {
            "theirs" => Err(Response::error(403, "not yours")),
            _ => Ok(()),
        }
    }));
    let body = r#"[{"category":"mine","data":1},{"category":"theirs","data":2},{"category":"mine","data":3}]"#;
    publish(&server, body).refuses(403, "not yours");
    assert_eq!(buffered(&server, "mine").status, 204);
    let call = |category: &str, data: &str| (category.to_owned(), data.to_owned());
    let expected = [call("mine", "1"), call("theirs", "2")];
    assert_eq!(*calls.lock().unwrap(), expected);
    let body = r#"[{"category":"mine","data":1},{"category":"mine","data":3}]"#;
    assert_eq!(publish(&server, body).status, 200);
    assert_eq!(calls.lock().unwrap().len(), 4);
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
