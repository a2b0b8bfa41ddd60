//! What a publish can ask for besides, at several nodes: times to live, purges, and several events at once.

use std::thread;
use std::time::Duration;

use long_polling::{Broker, BrokerOptions, CategoryOptions, Cursor, ErrorKind, PublishRequest};

use crate::basics::held;
use crate::server::RedisServer;
use crate::support::{LIMIT, until};

#[test]
fn every_node_gives_an_event_its_time_to_live() {
    let redis = RedisServer::start();
    let (one, other) = (redis.node(), redis.node());
    let short = PublishRequest::new("c", "short").ttl(Duration::from_millis(300));
    one.publish_with(&short).unwrap();
    one.publish("c", "kept").unwrap();
    until("both nodes have both", || {
        [&one, &other]
            .iter()
            .all(|node| node.statistics().backplane.unwrap().read == 2)
    });
    // A node that starts meanwhile reads the time to live from the stream.
    let third = redis.node();
    for node in [&one, &other, &third] {
        until("the event has expired", || held(node, "c") == ["kept"]);
    }
    let options =
        BrokerOptions::new().for_categories("last/", CategoryOptions::new().events_per_category(1));
    let node = Broker::connect(options, redis.backplane()).unwrap();
    for number in ["1", "2"] {
        one.publish("last/c", number).unwrap();
    }
    until("the node has the last event", || {
        held(&node, "last/c") == ["2"]
    });
}

#[test]
fn a_purge_reaches_every_node_in_the_order_of_the_stream() {
    let redis = RedisServer::start();
    let (one, other) = (redis.node(), redis.node());
    let first = one.publish("c", "first").unwrap();
    one.publish("d", "kept").unwrap();
    until("the other node has the event", || {
        held(&other, "c").len() == 1
    });
    let follower = other.clone();
    let thread = thread::spawn(move || follower.subscribe("c", Cursor::LastId(first), LIMIT));
    until("parked", || other.statistics().parked == 1);
    let position = one.purge("c").unwrap();
    let next = other.publish("c", "next").unwrap();
    assert!(first < position && position < next);
    let batch = thread.join().unwrap().unwrap();
    assert!(batch.gap() && batch.events()[0].id() == next);
    // Also one that starts later.
    let third = redis.node();
    for node in [&one, &other, &third] {
        until("the node has the next event", || {
            held(node, "c") == ["next"]
        });
        assert_eq!(held(node, "d"), ["kept"]);
        for (cursor, gap) in [
            (Cursor::LastId(first), true),
            (Cursor::LastId(position), false),
        ] {
            let batch = node.subscribe("c", cursor, Duration::ZERO).unwrap();
            assert_eq!((batch.events().len(), batch.gap()), (1, gap));
        }
        let batch = node
            .subscribe("d", Cursor::LastId(first), Duration::ZERO)
            .unwrap();
        assert!(!batch.gap(), "nothing of the other category is missing");
        assert_eq!(node.statistics().backplane.unwrap().losses, 0);
    }
}

#[test]
fn several_events_are_one_append() {
    let redis = RedisServer::start();
    let (one, other) = (redis.node(), redis.node());
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let node = [&one, &other][publisher % 2].clone();
            thread::spawn(move || {
                for round in 0..20 {
                    let requests: Vec<_> = (0..30)
                        .map(|number| {
                            PublishRequest::new(
                                format!("c{}", number % 2),
                                [publisher, round, number],
                            )
                        })
                        .collect();
                    let ids = node.publish_all(&requests).unwrap();
                    assert_eq!(ids.len(), 30);
                    let number = |at: usize| ids[at].as_u128();
                    assert!((1..30).all(|at| number(at) == number(0) + at as u128));
                }
            })
        })
        .collect();
    publishers
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let options = BrokerOptions::new().events_per_category(10_000);
    let node = Broker::connect(options, redis.backplane()).unwrap();
    let batch = node.subscribe(["c0", "c1"], Cursor::Oldest, LIMIT).unwrap();
    assert_eq!(batch.events().len(), 4 * 20 * 30);
    // Nothing comes between the events of one publish.
    for publish in batch.events().chunks(30) {
        let numbers = publish
            .iter()
            .map(|event| event.decode::<[usize; 3]>().unwrap());
        let numbers: Vec<_> = numbers.collect();
        let [publisher, round, _] = numbers[0];
        assert!((0..30).all(|number| numbers[number] == [publisher, round, number]));
    }
    let most = vec![PublishRequest::new("c0", 1); 1000];
    assert_eq!(one.publish_all(&most).unwrap().len(), 1000);
}

#[test]
fn events_of_several_streams_can_not_be_one_publish() {
    let redis = RedisServer::start();
    let node = Broker::connect(BrokerOptions::new(), redis.backplane().streams(8)).unwrap();
    let requests: Vec<_> = (0..20)
        .map(|number| PublishRequest::new(format!("c{number}"), 1))
        .collect();
    let refused = node.publish_all(&requests).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    assert!(refused.to_string().contains("different streams"));
    let requests: Vec<_> = (0..20)
        .map(|number| PublishRequest::new(format!("{{c}}{number}"), 1))
        .collect();
    assert_eq!(node.publish_all(&requests).unwrap().len(), 20);
}
