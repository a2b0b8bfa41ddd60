//! Publishes with an idempotency key without HTTP: which keys are known, after compactions and crashes, too.

use std::fs;
use std::path::Path;
use std::time::Duration;

use long_polling::{Broker, BrokerOptions, Cursor, Durability, ErrorKind, EventId, PublishRequest};

use crate::idempotency::{events, file};
use crate::support::{LIMIT, until};

#[test]
fn requests_that_are_published_together_have_one_key() {
    let broker = Broker::new(BrokerOptions::new()).unwrap();
    let requests = [
        PublishRequest::new("c", 1),
        PublishRequest::new("c", 2).idempotency_key("k"),
    ];
    for error in [
        broker.publish_all(&requests).unwrap_err(),
        broker.publish_all_once("all", &requests).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        let message = error.to_string();
        assert!(message.contains("event 2 of 2") && message.contains("publish_all_once"));
    }
    assert_eq!(broker.statistics().published, 0);
}

#[test]
fn past_a_limit_the_oldest_keys_are_forgotten_first() {
    for options in [
        BrokerOptions::new().max_idempotency_keys(3),
        // A key counts with 128 bytes more than it has.
        BrokerOptions::new().max_idempotency_bytes(3 * 130 + 129),
    ] {
        let broker = Broker::new(options).unwrap();
        let publish = |number: u64| broker.publish_once(&format!("k{number}"), "c", &number);
        let ids: Vec<EventId> = (0..5).map(|number| publish(number).unwrap()).collect();
        let statistics = broker.statistics();
        let counts = (statistics.idempotency_keys, statistics.keys_forgotten);
        assert_eq!(counts, (3, 2));
        for number in (2..5).rev() {
            assert_eq!(publish(number).unwrap(), ids[number as usize]);
        }
        assert_ne!(publish(1).unwrap(), ids[1]);
        assert_ne!(publish(2).unwrap(), ids[2]);
    }
    for options in [
        BrokerOptions::new().max_idempotency_keys(0),
        BrokerOptions::new().max_idempotency_bytes(0),
    ] {
        let error = Broker::new(options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSetting);
    }
    // The newest key stays, however long it is.
    let broker = Broker::new(BrokerOptions::new().max_idempotency_bytes(1)).unwrap();
    let id = broker.publish_once("k", "c", "x").unwrap();
    assert_eq!(broker.publish_once("k", "c", "x").unwrap(), id);
}

#[test]
fn keys_outlive_compactions_whatever_became_of_their_events() {
    for durability in [Durability::Buffered, Durability::Acknowledged] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let options = || {
            BrokerOptions::new()
                .events_per_category(3)
                .delete_after_first_retrieval(true)
        };
        let open = || {
            let file = file(&path, durability).compact_from(4000);
            Broker::open(options(), file).unwrap()
        };
        let broker = open();
        let publish = |broker: &Broker, key: &str| {
            let two = [PublishRequest::new(key, 1), PublishRequest::new(key, 2)];
            broker.publish_all_once(key, &two).unwrap()
        };
        let keys = ["pushed out", "purged", "retrieved", "held"];
        let first = keys.map(|key| publish(&broker, key));
        broker.purge("purged").unwrap();
        let retrieved = broker.subscribe("retrieved", Cursor::Oldest, Duration::ZERO);
        assert_eq!(retrieved.unwrap().events().len(), 2);
        let mut broker = broker;
        for round in 0..3 {
            let before = broker.statistics().store.rewritten;
            let mut number = 0;
            until("compacted", || {
                number += 1;
                for of in ["pushed out", "other"] {
                    broker.publish(of, &format!("{number:>100}")).unwrap();
                }
                broker.statistics().store.rewritten > before
            });
            broker.stop(LIMIT).unwrap();
            let log = fs::read_to_string(&path).unwrap();
            assert!(log.starts_with("[\"compacted\","), "{log}");
            broker = open();
            let again = keys.map(|key| publish(&broker, key));
            assert_eq!(again, first, "{durability:?}, {round}, {log}");
        }
        assert_eq!(events(&broker, "held"), first[3]);
    }
}

/// A file that ends at any byte of the publishes, as after a crash: a repetition gives each event once.
#[test]
fn after_a_crash_at_any_byte_a_repetition_publishes_exactly_what_is_missing() {
    for durability in [Durability::Buffered, Durability::Acknowledged] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let open =
            |path: &Path| Broker::open(BrokerOptions::new(), file(path, durability)).unwrap();
        let all = [
            PublishRequest::new("c", 2),
            PublishRequest::new("d", 3),
            PublishRequest::new("c", 4),
        ];
        let publish = |broker: &Broker| {
            let mut ids = vec![broker.publish_once("one", "c", &1).unwrap()];
            ids.extend(broker.publish_all_once("all", &all).unwrap());
            ids
        };
        let broker = open(&path);
        broker.publish("c", &0).unwrap();
        let ids = publish(&broker);
        broker.stop(LIMIT).unwrap();
        let log = fs::read(&path).unwrap();
        let text = String::from_utf8(log.clone()).unwrap();
        let begin = text.find("[\"keyed\",\"one\"").unwrap();
        let cut = folder.path().join("cut.db");
        let mut found = [0; 3];
        for end in begin..=log.len() {
            fs::write(&cut, &log[..end]).unwrap();
            let broker = open(&cut);
            let again = publish(&broker);
            let known = ids
                .iter()
                .zip(&again)
                .filter(|(first, again)| first == again);
            // None, the first publish alone, or both.
            let known = known.count();
            found[known.div_ceil(3)] += 1;
            assert!(matches!(known, 0 | 1 | 4), "{end}: {known}");
            let mut broker = broker;
            // Each start syncs the file, which takes its time.
            for _ in 0..1 + usize::from(end % 16 == 0) {
                let held = [events(&broker, "c"), events(&broker, "d")].map(|ids| ids.len());
                assert_eq!(held, [4, 1], "{end}");
                assert_eq!(publish(&broker), again, "{end}");
                broker.stop(LIMIT).unwrap();
                broker = open(&cut);
            }
            drop(broker);
            fs::remove_file(&cut).unwrap();
        }
        assert!(found.iter().all(|count| *count > 0), "{found:?}");
    }
}
