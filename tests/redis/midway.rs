//! A batch that Redis refuses for one of its publishes: no event of it is in the stream.

use std::thread;
use std::time::Duration;

use long_polling::{Broker, BrokerOptions, ErrorKind};

use crate::basics::held;
use crate::server::RedisServer;
use crate::support::until;

fn waiting(node: &Broker) -> u64 {
    node.statistics().backplane.unwrap().waiting
}

/// Publishes three events, of which the last two wait at the same time, so that they are in one batch. Only the last one has
/// a key. Adds those that were accepted.
fn publish_together(redis: &RedisServer, node: &Broker, name: &str, accepted: &mut Vec<String>) {
    redis.pause();
    let publish = |data: String, key: Option<String>| {
        let node = node.clone();
        let before = waiting(&node);
        let thread = thread::spawn({
            let node = node.clone();
            move || {
                let result = match key {
                    Some(key) => node.publish_once(&key, "c", &data),
                    None => node.publish("c", &data),
                };
                (data, result)
            }
        });
        until("the publish waits", || waiting(&node) > before);
        thread
    };
    let threads = [
        publish(format!("{name} first"), None),
        publish(format!("{name} plain"), None),
        publish(format!("{name} keyed"), Some(name.into())),
    ];
    redis.resume();
    let mut refused = 0;
    for thread in threads {
        let (data, result) = thread.join().unwrap();
        match result {
            Ok(_) => accepted.push(data),
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.report());
            }
        }
    }
    assert!(refused > 0, "{name}: nothing was refused");
}

#[track_caller]
fn has_exactly(node: &Broker, accepted: &mut Vec<String>) {
    let id = node.publish("c", "next").unwrap();
    accepted.push("next".into());
    until("the newest event is read", || {
        let newest = node.subscribe("c", long_polling::Cursor::Oldest, Duration::ZERO);
        newest.unwrap().last_id() >= id
    });
    assert_eq!(held(node, "c"), *accepted);
    assert_eq!(node.statistics().backplane.unwrap().losses, 0);
}

#[test]
fn a_key_of_another_type_refuses_a_batch_as_a_whole() {
    let redis = RedisServer::start();
    let nodes = [redis.node(), redis.node()];
    let mut accepted = Vec::new();
    for key in ["lp:{0}:keys", "lp:{0}:keys:times"] {
        redis.run(&format!("SET {key} precious"));
        publish_together(&redis, &nodes[0], key, &mut accepted);
        redis.run(&format!("DEL {key}"));
        has_exactly(&nodes[0], &mut accepted);
    }
    until("the other node has all", || {
        held(&nodes[1], "c") == accepted
    });
    assert_eq!(nodes[1].statistics().backplane.unwrap().losses, 0);
}

#[test]
fn a_user_without_a_command_for_keys_is_refused_a_batch_as_a_whole() {
    let redis = RedisServer::start();
    let node = redis.node();
    let mut accepted = Vec::new();
    for command in [
        "hget",
        "hdel",
        "zadd",
        "zrem",
        "zcard",
        "zrange",
        "zrangebyscore",
    ] {
        redis.run(&format!("ACL SETUSER default -{command}"));
        publish_together(&redis, &node, command, &mut accepted);
        redis.run(&format!("ACL SETUSER default +{command}"));
        has_exactly(&node, &mut accepted);
    }
    for command in ["hset", "expire", "xadd"] {
        redis.run(&format!("ACL SETUSER default -{command}"));
        let error = node.publish("c", "refused").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.report());
        redis.run(&format!("ACL SETUSER default +{command}"));
        has_exactly(&node, &mut accepted);
    }
}

#[test]
fn the_longest_window_for_keys_is_no_reason_to_refuse_a_publish() {
    let redis = RedisServer::start();
    let options = BrokerOptions::new().idempotency_window(Duration::MAX);
    let node = Broker::connect(options, redis.backplane()).unwrap();
    let id = node.publish_once("k", "c", "x").unwrap();
    assert_eq!(node.publish_once("k", "c", "x").unwrap(), id);
    has_exactly(&node, &mut vec!["x".into()]);
}
