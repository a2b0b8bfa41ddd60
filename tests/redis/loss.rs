//! What Redis loses is reported as a gap, and nothing else is.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use long_polling::{Broker, BrokerOptions, Cursor, EventId, RedisState};

use crate::basics::held;
use crate::server::RedisServer;
use crate::support::{LIMIT, until};

fn publish(node: &Broker, numbers: std::ops::Range<usize>) -> Vec<EventId> {
    let publish = |number| node.publish("c", &number).unwrap();
    numbers.map(publish).collect()
}

fn losses(node: &Broker) -> u64 {
    node.statistics().backplane.unwrap().losses
}

fn connected(node: &Broker) -> bool {
    node.statistics().backplane.unwrap().connected
}

/// A node that waits long enough for a redis-server that starts again.
fn patient(redis: &RedisServer) -> Broker {
    let backplane = redis.backplane().max_wait(LIMIT);
    Broker::connect(BrokerOptions::new(), backplane).unwrap()
}

#[test]
fn after_flushall_every_follower_is_told_of_a_gap_and_goes_on() {
    let redis = RedisServer::start();
    let nodes = [redis.node(), redis.node()];
    let ids = publish(&nodes[0], 0..10);
    for node in &nodes {
        until("all events are read", || held(node, "c").len() == 10);
    }
    let parked: Vec<_> = nodes
        .iter()
        .map(|node| {
            let (node, last) = (node.clone(), ids[9]);
            thread::spawn(move || {
                let mut cursor = Cursor::LastId(last);
                loop {
                    let batch = node.subscribe("c", cursor, LIMIT).unwrap();
                    if !batch.events().is_empty() {
                        return batch;
                    }
                    // Over HTTP, a client keeps its position then.
                    if !batch.gap() {
                        cursor = Cursor::LastId(batch.last_id());
                    }
                }
            })
        })
        .collect();
    until("parked", || {
        nodes.iter().all(|node| node.statistics().parked == 1)
    });
    redis.run("FLUSHALL");
    for node in &nodes {
        until("the loss is noticed, without a publish", || {
            losses(node) == 1
        });
    }
    let id = nodes[1].publish("c", "after").unwrap();
    for thread in parked {
        let batch = thread.join().unwrap();
        assert!(batch.gap());
        assert_eq!(
            (batch.events()[0].text(), batch.last_id()),
            ("after".into(), id)
        );
    }
    for node in &nodes {
        // An older position, and one by time, get the gap, too.
        for cursor in [Cursor::LastId(ids[3]), Cursor::SinceTime(2)] {
            let batch = node.subscribe("c", cursor, LIMIT).unwrap();
            assert!(batch.gap(), "{cursor}");
            assert_eq!(batch.events().len(), 1);
            let next = node
                .subscribe("c", Cursor::from(batch.last_id()), Duration::ZERO)
                .unwrap();
            assert!(!next.gap() && next.events().is_empty());
        }
        assert!(connected(node) && losses(node) == 1);
    }
    assert!(nodes.iter().all(|node| held(node, "c") == ["after"]));
}

#[test]
fn a_restart_of_redis_that_keeps_every_event_makes_no_gap() {
    let mut redis = RedisServer::with_appendfsync_always();
    let nodes = [patient(&redis), patient(&redis)];
    let mut ids = publish(&nodes[0], 0..10);
    // Followers by time get the events of a millisecond once it is over for certain.
    until("all events are read", || held(&nodes[0], "c").len() == 10);
    redis.kill();
    until("the node notices", || !connected(&nodes[1]));
    // What is buffered is served on.
    assert_eq!(held(&nodes[0], "c").len(), 10);
    let publishing = {
        let node = nodes[1].clone();
        thread::spawn(move || publish(&node, 10..20))
    };
    redis.start_again();
    ids.extend(publishing.join().unwrap());
    let later = redis.node();
    for node in nodes.iter().chain([&later]) {
        until("all events are read", || held(node, "c").len() == 20);
        for (at, id) in ids.iter().enumerate() {
            let batch = node
                .subscribe("c", Cursor::from(*id), Duration::ZERO)
                .unwrap();
            assert!(!batch.gap(), "position {at}");
            assert_eq!(batch.events().len(), 19 - at);
        }
        assert_eq!(losses(node), 0);
    }
    assert!(
        nodes
            .iter()
            .all(|node| node.statistics().backplane.unwrap().reconnects > 0)
    );
}

#[test]
fn a_restart_of_redis_without_its_events_is_told_as_a_gap() {
    let mut redis = RedisServer::start();
    let states = Arc::new(Mutex::new(Vec::new()));
    let backplane = redis.backplane().max_wait(LIMIT).on_state({
        let states = states.clone();
        move |state: &RedisState| states.lock().unwrap().push(state.clone())
    });
    let node = Broker::connect(BrokerOptions::new(), backplane).unwrap();
    let ids = publish(&node, 0..10);
    until("all events are read", || held(&node, "c").len() == 10);
    redis.kill();
    until("the node notices", || !connected(&node));
    redis.start_again();
    until("the node notices the loss", || losses(&node) == 1);
    let id = node.publish("c", "after").unwrap();
    let batch = node.subscribe("c", Cursor::from(ids[9]), LIMIT).unwrap();
    assert!(batch.gap());
    assert_eq!((batch.events().len(), batch.last_id()), (1, id));
    until("the callback has had every change", || {
        let states = states.lock().unwrap();
        let is = |at: usize, expected: &str| {
            states
                .get(at)
                .is_some_and(|state| format!("{state:?}").starts_with(expected))
        };
        is(0, "Away")
            && states
                .iter()
                .any(|s| matches!(s, RedisState::Lost { stream: 0, .. }))
            && states.contains(&RedisState::Connected)
    });
}

/// A copy of the data as it was some time ago, as after a fail-over to a replica that lagged behind.
#[test]
fn positions_of_events_that_a_fail_over_lost_are_told_a_gap_also_when_their_numbers_come_again() {
    let mut redis = RedisServer::with_appendfsync_always();
    let node = patient(&redis);
    let kept = publish(&node, 0..5);
    let log = redis.folder.path().join("appendonlydir");
    let saved = tempfile::tempdir().unwrap();
    copy(&log, saved.path());
    let lost = publish(&node, 5..10);
    until("all events are read", || held(&node, "c").len() == 10);
    redis.kill();
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    copy(saved.path(), &log);
    redis.start_again();
    // A node that never saw the lost events publishes as many again.
    let other = redis.node();
    let again = publish(&other, 100..110);
    for node in [&node, &other] {
        until("both nodes know of the loss", || {
            let batch = node.subscribe("c", Cursor::from(kept[0]), Duration::ZERO);
            batch.unwrap().gap()
        });
    }
    let expected: Vec<String> = (0..5).chain(100..110).map(|n| n.to_string()).collect();
    for node in [&node, &other] {
        until("all events are read", || held(node, "c") == expected);
        for position in lost.iter().chain(&kept) {
            let batch = node
                .subscribe("c", Cursor::from(*position), Duration::ZERO)
                .unwrap();
            assert!(batch.gap(), "{position}");
            assert_eq!(batch.events().last().unwrap().id(), *again.last().unwrap());
        }
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_node_that_was_too_slow_for_the_length_of_the_stream_tells_a_gap_and_the_others_do_not() {
    let redis = RedisServer::with(&["--stream-node-max-entries", "10"]);
    let backplane = |length| redis.backplane().max_stream_length(length);
    let relay = long_polling::testing::Relay::to(([127, 0, 0, 1], redis.port).into()).unwrap();
    let url = format!("redis://{}", relay.local_addr());
    let slow = long_polling::RedisBackplane::new(url);
    let slow = Broker::connect(BrokerOptions::new(), slow).unwrap();
    let node = Broker::connect(BrokerOptions::new(), backplane(20)).unwrap();
    let first = node.publish("c", "first").unwrap();
    until("the event is read", || held(&slow, "c").len() == 1);
    // The slow node's connections end, and it can't come back before the stream has gone on.
    let address = relay.local_addr();
    drop(relay);
    publish(&node, 0..100);
    until("the slow node notices", || !connected(&slow));
    let target = ([127, 0, 0, 1], redis.port).into();
    crate::cut::relay_on(address, target);
    until("the slow node is back", || {
        losses(&slow) == 1 && connected(&slow)
    });
    until("the slow node has the newest event", || {
        held(&slow, "c").last().is_some_and(|last| last == "99")
    });
    let batch = slow.subscribe("c", Cursor::from(first), LIMIT).unwrap();
    assert!(batch.gap());
    assert!(batch.events().len() < 100);
    assert_eq!(batch.events().last().unwrap().text(), "99");
    let batch = node.subscribe("c", Cursor::from(first), LIMIT).unwrap();
    assert!(!batch.gap());
    assert_eq!((batch.events().len(), losses(&node)), (100, 0));
}

/// As at a fail-over to a replica whose clock is behind, with all events.
#[test]
fn an_event_after_the_clock_went_back_is_no_older_than_what_a_node_has_shown_by_time() {
    let redis = RedisServer::start();
    let nodes = [redis.node(), redis.node()];
    let first = publish(&nodes[0], 0..1)[0];
    let ahead = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap() + LIMIT;
    redis.run(&format!(
        "HSET lp:{{0}}:state timestamp {}",
        ahead.as_millis()
    ));
    publish(&nodes[0], 1..2);
    let newest = |node: &Broker| {
        let batch = node.subscribe("c", Cursor::from(first), Duration::ZERO);
        let batch = batch.unwrap();
        let event = batch.events().last();
        event.map(|event| (event.text().to_string(), event.timestamp()))
    };
    let shown = |text: &str| {
        for node in &nodes {
            until("the event is shown", || {
                newest(node).is_some_and(|(of, _)| of == text)
            });
        }
        newest(&nodes[1]).unwrap().1
    };
    let before = shown("1");
    assert!(u128::from(before) >= ahead.as_millis());
    redis.run("DEL lp:{0}:events");
    redis.run("HSET lp:{0}:state timestamp 1");
    publish(&nodes[1], 2..3);
    assert!(shown("2") >= before);
    assert!(nodes.iter().all(|node| losses(node) == 0));
}

#[test]
fn an_entry_of_another_program_in_the_stream_is_left_out() {
    let redis = RedisServer::start();
    let node = redis.node();
    publish(&node, 0..3);
    redis.run("XADD lp:{0}:events * some thing");
    redis.run("FLUSHALL");
    redis.run("XADD lp:{0}:events * some thing");
    until("the loss is noticed", || losses(&node) == 1);
    publish(&node, 3..5);
    until("the events are read", || held(&node, "c") == ["3", "4"]);
    assert!(connected(&node));
}
