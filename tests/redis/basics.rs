//! Two or three nodes in one process: what one publishes, all show, in one order and by the same ids.

use std::thread;
use std::time::{Duration, Instant};

use long_polling::{Broker, BrokerOptions, Cursor, EventId, Server};

use crate::server::RedisServer;
use crate::support::{LIMIT, info, until};

/// The data of all events that a node has of a category.
pub(crate) fn held(node: &Broker, category: &str) -> Vec<String> {
    let batch = node.subscribe(category, Cursor::Oldest, Duration::ZERO);
    let batch = batch.unwrap();
    batch
        .events()
        .iter()
        .map(|event| event.text().into())
        .collect()
}

#[test]
fn an_event_of_one_node_reaches_a_subscriber_parked_at_another() {
    let redis = RedisServer::start();
    let (one, other) = (redis.node(), redis.node());
    let follower = other.clone();
    let thread = thread::spawn(move || follower.subscribe("c", Cursor::Now, LIMIT));
    until("parked", || other.statistics().parked == 1);
    let id = one.publish("c", "first").unwrap();
    let batch = thread.join().unwrap().unwrap();
    assert_eq!(batch.events()[0].text(), "first");
    assert_eq!(batch.last_id(), id);
    assert!(!batch.gap());
    // The node that published shows the event with the same id and timestamp.
    let own = one.subscribe("c", Cursor::Oldest, LIMIT).unwrap();
    assert_eq!(own.events(), batch.events());
    let statistics = one.statistics().backplane.unwrap();
    assert_eq!((statistics.published, statistics.connected), (1, true));
}

#[test]
fn a_follower_that_changes_nodes_at_every_poll_misses_and_repeats_nothing() {
    let redis = RedisServer::start();
    let nodes = [redis.node(), redis.node(), redis.node()];
    let publisher = nodes[0].clone();
    let publishing = thread::spawn(move || {
        for number in 0..500 {
            publisher
                .publish(&format!("c{}", number % 3), &number)
                .unwrap();
        }
    });
    let mut cursor = Cursor::Oldest;
    let mut seen = Vec::new();
    for at in 0.. {
        let batch = nodes[at % 3]
            .subscribe(["c0", "c1", "c2"], cursor, LIMIT)
            .unwrap();
        assert!(!batch.gap());
        seen.extend(
            batch
                .events()
                .iter()
                .map(|event| event.decode::<usize>().unwrap()),
        );
        cursor = Cursor::LastId(batch.last_id());
        if seen.len() >= 500 {
            break;
        }
    }
    publishing.join().unwrap();
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
}

#[test]
fn the_id_of_a_publish_is_a_position_at_every_node_at_once() {
    let redis = RedisServer::start();
    let (one, other) = (redis.node(), redis.node());
    for number in 0..200 {
        let id = one.publish("c", &number).unwrap();
        // The other node may not have read the event yet: it waits, and does not repeat it.
        let batch = other
            .subscribe("c", Cursor::LastId(id), Duration::ZERO)
            .unwrap();
        assert!(
            !batch.gap() && batch.events().is_empty(),
            "{number}: {batch:?}"
        );
        assert_eq!(batch.last_id(), id);
    }
}

#[test]
fn a_node_that_starts_later_has_the_events_of_the_stream_and_knows_every_position() {
    let redis = RedisServer::start();
    let first = redis.node();
    let ids: Vec<EventId> = (0..20).map(|n| first.publish("c", &n).unwrap()).collect();
    let later = redis.node();
    assert_eq!(held(&later, "c").len(), 20);
    for (at, id) in ids.iter().enumerate() {
        let batch = later
            .subscribe("c", Cursor::LastId(*id), Duration::ZERO)
            .unwrap();
        assert!(!batch.gap());
        assert_eq!(batch.events().len(), 19 - at);
    }
    // Nothing was lost before the first event.
    let everything = later
        .subscribe("c", Cursor::SinceTime(1), Duration::ZERO)
        .unwrap();
    assert!(!everything.gap());
}

#[test]
fn a_position_that_redis_never_gave_out_gets_a_gap_and_all_that_is_buffered() {
    let redis = RedisServer::start();
    let node = redis.node();
    let id = node.publish("c", "x").unwrap();
    until("the event is read", || held(&node, "c").len() == 1);
    let of_another = Broker::new(BrokerOptions::new()).unwrap();
    let unknown = of_another.publish("c", "x").unwrap();
    let ahead = EventId::from(id.as_u128() + 5);
    for wrong in [unknown, ahead] {
        let began = Instant::now();
        let batch = node.subscribe("c", Cursor::LastId(wrong), LIMIT).unwrap();
        assert!(batch.gap() && batch.events().len() == 1, "{batch:?}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn followers_by_time_alone_miss_nothing_and_repeat_nothing() {
    let redis = RedisServer::start();
    let nodes = [redis.node(), redis.node()];
    let publishers: Vec<_> = (0..4)
        .map(|number| {
            let node = nodes[number % 2].clone();
            thread::spawn(move || {
                for at in 0..250 {
                    node.publish("c", &(number * 250 + at)).unwrap();
                }
            })
        })
        .collect();
    let options = [0, 1].map(|at| nodes[at].clone());
    let mut time = 1;
    let mut seen = Vec::new();
    let end = Instant::now() + 3 * LIMIT;
    while seen.len() < 1000 {
        assert!(Instant::now() < end, "{} events came", seen.len());
        let batch = options[seen.len() % 2].subscribe("c", Cursor::SinceTime(time), LIMIT);
        let batch = batch.unwrap();
        for event in batch.events() {
            assert!(event.timestamp() > time);
            seen.push(event.decode::<usize>().unwrap());
        }
        time = batch
            .events()
            .last()
            .map_or(time, |event| event.timestamp());
        if batch.gap() {
            // More than a ring's worth was published meanwhile.
            assert!(seen.len() > 100);
            break;
        }
    }
    publishers
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), seen.len(), "an event came twice");
}

#[test]
fn servers_share_their_events_over_http() {
    let redis = RedisServer::start();
    let server = || Server::start(info().redis(redis.backplane())).unwrap();
    let (one, other) = (server(), server());
    let answer = crate::support::publish(&one, r#"{"category":"c","data":"x"}"#);
    assert_eq!(answer.status, 200);
    let id = answer.position().to_owned();
    let polled = crate::support::get(&other, "/events?category=c&timeout=10&since_time=1");
    assert_eq!((polled.status, polled.position()), (200, &*id));
    for server in [one, other] {
        server.stop(LIMIT).unwrap();
    }
}

#[test]
fn a_stopped_node_refuses_publishes_and_its_threads_end() {
    let redis = RedisServer::start();
    let node = redis.node();
    node.publish("c", "x").unwrap();
    node.stop(LIMIT).unwrap();
    let error = node.publish("c", "y").unwrap_err();
    assert_eq!(error.kind(), long_polling::ErrorKind::Stopped);
    let connections = || {
        let clients: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query(&mut redis.connection())
            .unwrap();
        clients.lines().count()
    };
    // Only the connection that asks.
    until("the connections are closed", || connections() == 1);
}
