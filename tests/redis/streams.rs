//! More than one stream: categories are divided, and nodes may read some streams only.

use std::time::Duration;

use long_polling::{Broker, BrokerOptions, Cursor, ErrorKind, Server};

use crate::basics::held;
use crate::server::RedisServer;
use crate::support::{LIMIT, get, info, publish, until};

const STREAMS: usize = 4;

/// The stream of a category, as the key of Redis that has its event shows.
fn stream_of(redis: &RedisServer, category: &str) -> usize {
    let find = |stream: &usize| {
        let range = redis.run(&format!("XRANGE lp:{{{stream}}}:events - +"));
        format!("{range:?}").contains(&format!("{:?}", redis::Value::BulkString(category.into())))
    };
    (0..STREAMS).find(find).expect("a stream with the category")
}

#[test]
fn categories_are_divided_among_streams_and_braces_keep_them_together() {
    let redis = RedisServer::start();
    let backplane = || redis.backplane().streams(STREAMS);
    let nodes = [0, 1].map(|_| Broker::connect(BrokerOptions::new(), backplane()).unwrap());
    let categories: Vec<String> = (0..20).map(|number| format!("category {number}")).collect();
    for category in &categories {
        nodes[0].publish(category, category).unwrap();
    }
    for category in &categories {
        until("the other node has the event", || {
            held(&nodes[1], category).len() == 1
        });
    }
    let used: std::collections::HashSet<usize> = categories
        .iter()
        .map(|category| stream_of(&redis, category))
        .collect();
    assert_eq!(used.len(), STREAMS);
    let apart = categories
        .iter()
        .find(|other| stream_of(&redis, other) != stream_of(&redis, &categories[0]));
    let apart = [&*categories[0], apart.unwrap()];
    let error = nodes[0]
        .subscribe(apart, Cursor::Oldest, Duration::ZERO)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("different streams"), "{error}");

    let together = ["{room 7}:chat", "{room 7}:typing"];
    let id = nodes[0].publish(together[0], "hello").unwrap();
    nodes[0].publish(together[1], "…").unwrap();
    let batch = nodes[1]
        .subscribe(together, Cursor::LastId(id), LIMIT)
        .unwrap();
    assert_eq!(batch.events()[0].text(), "…");
}

#[test]
fn a_node_answers_421_for_the_streams_that_it_does_not_read() {
    let redis = RedisServer::start();
    let all = Broker::connect(BrokerOptions::new(), redis.backplane().streams(STREAMS)).unwrap();
    let names: Vec<String> = (0..20).map(|number| format!("c{number}")).collect();
    names
        .iter()
        .for_each(|name| _ = all.publish(name, name).unwrap());
    let of_two = names
        .iter()
        .find(|name| stream_of(&redis, name) == 2)
        .unwrap();
    let of_one = names
        .iter()
        .find(|name| stream_of(&redis, name) == 1)
        .unwrap();

    let some = redis.backplane().streams(STREAMS).read_streams([1]);
    let server = Server::start(info().redis(some)).unwrap();
    get(&server, &format!("/events?category={of_two}&timeout=1")).refuses(421, "stream 2");
    let body = format!(r#"{{"category":"{of_two}","data":1}}"#);
    publish(&server, body).refuses(421, "stream 2");
    let body = format!(r#"{{"category":"{of_one}","data":1}}"#);
    assert_eq!(publish(&server, body).status, 200);
    until("both events are read", || {
        held(server.broker(), of_one).len() == 2
    });
    let both = get(
        &server,
        &format!("/events?category={of_one}&category={of_two}&timeout=1"),
    );
    assert!(matches!(both.status, 400 | 421));
}

#[test]
fn each_stream_goes_on_by_itself_after_a_loss_of_one() {
    let redis = RedisServer::start();
    let node = Broker::connect(BrokerOptions::new(), redis.backplane().streams(STREAMS)).unwrap();
    let names: Vec<String> = (0..20).map(|number| format!("c{number}")).collect();
    let ids: Vec<_> = names
        .iter()
        .map(|name| node.publish(name, name).unwrap())
        .collect();
    for name in &names {
        until("the event is read", || held(&node, name).len() == 1);
    }
    let streams: Vec<usize> = names.iter().map(|name| stream_of(&redis, name)).collect();
    redis.run("DEL lp:{2}:events lp:{2}:state");
    until("the loss is noticed", || {
        node.statistics().backplane.unwrap().losses == 1
    });
    for ((name, id), stream) in names.iter().zip(ids).zip(streams) {
        let batch = node
            .subscribe(name, Cursor::from(id), Duration::ZERO)
            .unwrap();
        assert_eq!(batch.gap(), stream == 2, "{name} of stream {stream}");
        assert_eq!(held(&node, name).len(), usize::from(stream != 2));
    }
}
