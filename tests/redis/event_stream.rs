//! Streams of Server-Sent Events over nodes that share their events, and the clients that each node counts.

use std::time::Duration;

use long_polling::{BrokerOptions, EventId, Server};

use crate::server::RedisServer;
use crate::sse::Stream;
use crate::support::{LIMIT, get, info, until};

fn node(redis: &RedisServer) -> Server {
    let presence = BrokerOptions::new().presence(Duration::from_secs(10));
    Server::start(info().redis(redis.backplane()).broker(presence)).unwrap()
}

#[test]
fn a_stream_has_the_events_of_all_nodes_once_and_goes_on_at_another_node() {
    let redis = RedisServer::start();
    let (one, other) = (node(&redis), node(&redis));
    let mut stream = Stream::open(&one, "category=c", "");
    stream.position();
    for (server, data) in [(&other, 1), (&one, 2), (&other, 3)] {
        server.publish("c", &data).unwrap();
    }
    let seen = [(); 3].map(|()| stream.data().as_u64().unwrap());
    assert_eq!(seen, [1, 2, 3]);

    let position = format!("Last-Event-ID: {}\r\n", stream.last_id.clone().unwrap());
    drop(stream);
    other.publish("c", &4).unwrap();
    let mut stream = Stream::open(&other, "category=c", &position);
    assert_eq!(stream.data(), 4);
    one.publish("c", &5).unwrap();
    assert_eq!(stream.data(), 5);
    for server in [one, other] {
        server.stop(LIMIT).unwrap();
    }
}

/// Where a node has not read yet what the client of another one has: the client must not get it again.
#[test]
fn a_client_that_goes_on_by_time_at_another_node_gets_no_event_twice() {
    let redis = RedisServer::start();
    let nodes = [node(&redis), node(&redis)];
    for round in 0..40 {
        let [one, other] = [&nodes[round % 2], &nodes[1 - round % 2]];
        let (id, query) = published(one);
        let empty = get(other, &format!("/events?{query}&timeout=0"));
        assert_eq!((empty.status, empty.position()), (204, &*id.to_string()));
        let (_, query) = published(one);
        let mut stream = Stream::open(other, &query, "");
        one.publish("c", &round).unwrap();
        assert_eq!(stream.data(), round);
    }
}

/// Publishes an event, and gives the query of a client that has got it.
fn published(node: &Server) -> (EventId, String) {
    let id = node.publish("c", "old").unwrap();
    let newest = || node.broker().category_info("c").unwrap();
    until("the node has it", || newest().newest_id == Some(id));
    let time = newest().newest_timestamp.expect("an event");
    (id, format!("category=c&since_time={time}"))
}

#[test]
fn each_node_counts_its_own_clients() {
    let redis = RedisServer::start();
    let (one, other) = (node(&redis), node(&redis));
    let _ann = Stream::open(&one, "category=c&subscriber=Ann", "");
    let _bob = Stream::open(&other, "category=c&subscriber=Bob", "");
    for (server, name) in [(&one, "Ann"), (&other, "Bob")] {
        until("the client is present", || {
            server.broker().subscriber_names("c") == [name]
        });
        assert_eq!(server.broker().subscribers("c"), 1);
    }
}
