//! Idempotency keys, which Redis knows for all nodes: a repetition at any of them publishes nothing.

use std::thread;
use std::time::Duration;

use long_polling::testing::Relay;
use long_polling::{
    Broker, BrokerOptions, ErrorKind, EventId, PublishRequest, RedisBackplane, Server,
};

use crate::basics::held;
use crate::server::RedisServer;
use crate::support::{Connection, LIMIT, info, until};

fn published(node: &Broker) -> u64 {
    node.statistics().backplane.unwrap().published
}

#[test]
fn a_repetition_at_another_node_gets_the_first_answer() {
    let redis = RedisServer::start();
    let (one, other) = (redis.node(), redis.node());
    let id = one.publish_once("k", "c", "x").unwrap();
    let two = [
        PublishRequest::new("c", 1),
        PublishRequest::new("d", 2).ttl(LIMIT),
    ];
    let ids = other.publish_all_once("k2", &two).unwrap();
    for node in [&other, &one, &redis.node()] {
        assert_eq!(node.publish_once("k", "c", "x").unwrap(), id);
        assert_eq!(node.publish_all_once("k2", &two).unwrap(), ids);
        for error in [
            node.publish_once("k", "c", "y").unwrap_err(),
            node.publish_all_once("k2", &two[..1]).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::KeyReused);
        }
        assert_eq!(node.statistics().repetitions, 2);
    }
    assert_eq!((published(&one), published(&other)), (1, 2));
    let next = one.publish("c", "next").unwrap();
    assert_eq!(next.as_u128(), ids[1].as_u128() + 1);
    until("the node has all", || {
        held(&other, "c") == ["x", "1", "next"]
    });
}

#[test]
fn one_key_at_two_nodes_at_once_is_one_event_with_one_id() {
    let redis = RedisServer::start();
    let nodes = [redis.node(), redis.node()];
    for round in 0..30 {
        let key = format!("key {round}");
        let ids: Vec<EventId> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|number| {
                    let (node, key) = (&nodes[number % 2], &key);
                    scope.spawn(move || {
                        // Others of the same batch get their own ids.
                        let own = node.publish("own", &number).unwrap();
                        let id = node.publish_once(key, "c", &round).unwrap();
                        assert!(node.publish("own", &number).unwrap() > own);
                        id
                    })
                })
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join().unwrap());
            joined.collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
    let expected: Vec<String> = (0..30).map(|round| round.to_string()).collect();
    let options = BrokerOptions::new().events_per_category(1000);
    let later = Broker::connect(options, redis.backplane()).unwrap();
    assert_eq!(held(&later, "c"), expected);
    assert_eq!(held(&later, "own").len(), 30 * 8 * 2);
    for node in nodes {
        assert_eq!(node.statistics().backplane.unwrap().losses, 0);
    }
}

#[test]
fn redis_forgets_keys_after_the_window_and_past_the_most_of_them() {
    let redis = RedisServer::start();
    let options = BrokerOptions::new()
        .idempotency_window(Duration::from_secs(2))
        .max_idempotency_keys(3);
    let node = Broker::connect(options, redis.backplane()).unwrap();
    let id = node.publish_once("k", "c", "x").unwrap();
    until("the window is over", || {
        node.publish_once("k", "c", "x").unwrap() != id
    });
    let ids = ["a", "b", "c", "d"].map(|key| node.publish_once(key, "c", key).unwrap());
    let keys = |command: &str| redis::from_redis_value::<i64>(redis.run(command)).unwrap();
    for command in ["HLEN lp:{0}:keys", "ZCARD lp:{0}:keys:times"] {
        let count = keys(command);
        assert!((1..=3).contains(&count), "{command}: {count}");
    }
    assert_ne!(node.publish_once("a", "c", "a").unwrap(), ids[0]);
    // Nothing is left of them.
    until("the keys have expired", || {
        keys("EXISTS lp:{0}:keys lp:{0}:keys:times") == 0
    });
    let options = BrokerOptions::new().idempotency_window(Duration::ZERO);
    let node = Broker::connect(options, redis.backplane()).unwrap();
    let id = node.publish_once("k", "c", "x").unwrap();
    assert_ne!(node.publish_once("k", "c", "x").unwrap(), id);
    assert_eq!(keys("EXISTS lp:{0}:keys"), 0);
}

#[test]
fn an_append_with_keys_whose_answer_is_cut_off_has_the_same_answer_again() {
    let redis = RedisServer::start();
    let relay = Relay::to(([127, 0, 0, 1], redis.port).into()).unwrap();
    let url = format!("redis://{}", relay.local_addr());
    let cut = RedisBackplane::new(url).max_wait(LIMIT);
    let node = Broker::connect(BrokerOptions::new(), cut).unwrap();
    let plain = redis.node();
    for number in 0..60 {
        relay.cut_next_response(number);
        let key = format!("key {number}");
        let id = node.publish_once(&key, "c", &number).unwrap();
        relay.cut_next_response(60 - number);
        assert_eq!(node.publish_once(&key, "c", &number).unwrap(), id);
        assert_eq!(plain.publish_once(&key, "c", &number).unwrap(), id);
    }
    let expected: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    for node in [&node, &plain] {
        until("all events are read", || held(node, "c") == expected);
        assert_eq!(node.statistics().backplane.unwrap().losses, 0);
    }
}

#[test]
fn keys_are_known_after_a_restart_of_redis_that_keeps_its_events() {
    let mut redis = RedisServer::with_appendfsync_always();
    let node = redis.node();
    let id = node.publish_once("k", "c", "x").unwrap();
    redis.kill();
    redis.start_again();
    until("Redis is back", || {
        node.publish_once("k", "c", "x").ok() == Some(id)
    });
    assert_eq!(redis.node().publish_once("k", "c", "x").unwrap(), id);
    assert_eq!(held(&redis.node(), "c"), ["x"]);
}

#[test]
fn over_http_a_repetition_at_another_node_says_that_it_is_one() {
    let redis = RedisServer::start();
    let [one, other] = [0, 1].map(|_| Server::start(info().redis(redis.backplane())).unwrap());
    let ask = |server: &Server, body: &str| {
        let mut connection = Connection::to(server);
        let length = body.len();
        connection.send(format!(
            "POST /publish HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: k\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        connection.receive()
    };
    let body = r#"[{"category":"c","data":1},{"category":"c","data":2}]"#;
    let first = ask(&one, body);
    let again = ask(&other, body);
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(
        (first.text(), first.position()),
        (again.text(), again.position())
    );
    assert_eq!(first.header("Idempotency-Replayed"), None);
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    let other_events = r#"{"category":"c","data":1}"#;
    ask(&other, other_events).refuses(422, "a key of its own");
}
