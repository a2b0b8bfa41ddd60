//! Streams of Server-Sent Events over nodes that share their events, and the clients that each node counts.

use std::time::Duration;

use long_polling::{BrokerOptions, Server};

use crate::server::RedisServer;
use crate::sse::Stream;
use crate::support::{LIMIT, info, until};

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
