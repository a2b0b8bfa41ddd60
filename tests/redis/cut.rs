//! Connections to Redis that are cut in the middle of an answer.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use long_polling::testing::Relay;
use long_polling::{Broker, BrokerOptions, Cursor, ErrorKind, RedisBackplane};

use crate::basics::held;
use crate::server::RedisServer;
use crate::support::{LIMIT, until};

/// A plain relay on this very address, for a node that comes back. It ends with the process.
pub(crate) fn relay_on(address: SocketAddr, target: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(target) else {
                continue;
            };
            let pairs = [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            ];
            for (mut from, mut to) in pairs {
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = from.read(&mut buffer) {
                        if to.write_all(&buffer[..read]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Both);
                    let _ = from.shutdown(Shutdown::Both);
                });
            }
        }
    });
}

/// Two nodes: the first one's connections to Redis go through a relay.
fn nodes(redis: &RedisServer) -> (Relay, [Broker; 2]) {
    let relay = Relay::to(([127, 0, 0, 1], redis.port).into()).unwrap();
    let url = format!("redis://{}", relay.local_addr());
    let cut = RedisBackplane::new(url).max_wait(LIMIT);
    let options = BrokerOptions::new().events_per_category(10_000);
    let node = Broker::connect(options.clone(), cut).unwrap();
    let plain = Broker::connect(options, redis.backplane()).unwrap();
    (relay, [node, plain])
}

#[test]
fn an_append_whose_answer_is_cut_off_anywhere_is_in_the_stream_once() {
    let redis = RedisServer::start();
    let (relay, [node, plain]) = nodes(&redis);
    let events = 120;
    for number in 0..events {
        // The next answer may be one to the reader, or to the publisher's commands after a connection.
        relay.cut_next_response(number % 60);
        let id = node.publish("c", &number).unwrap();
        until("the node has the event", || {
            let batch = plain
                .subscribe("c", Cursor::Oldest, Duration::ZERO)
                .unwrap();
            batch.events().last().is_some_and(|event| event.id() == id)
        });
    }
    let expected: Vec<String> = (0..events).map(|number| number.to_string()).collect();
    for node in [&node, &plain] {
        until("all events are read", || held(node, "c") == expected);
        assert_eq!(node.statistics().backplane.unwrap().losses, 0);
    }
    assert!(node.statistics().backplane.unwrap().reconnects > 0);
}

#[test]
fn publishes_of_many_threads_over_cut_connections_are_in_the_stream_once() {
    let redis = RedisServer::start();
    let (relay, [node, plain]) = nodes(&redis);
    let published = AtomicUsize::new(0);
    thread::scope(|scope| {
        for publisher in 0..8 {
            let (node, published) = (&node, &published);
            scope.spawn(move || {
                for number in 0..100 {
                    node.publish("c", &(publisher * 100 + number)).unwrap();
                    published.fetch_add(1, SeqCst);
                }
            });
        }
        for at in 0..40 {
            until("publishes go on", || published.load(SeqCst) >= at * 20);
            relay.cut_next_response(at * 7);
        }
    });
    until("all events are read", || held(&plain, "c").len() == 800);
    let mut numbers: Vec<usize> = held(&plain, "c")
        .iter()
        .map(|n| n.parse().unwrap())
        .collect();
    until("the order is the same", || {
        held(&plain, "c") == held(&node, "c")
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (0..800).collect::<Vec<_>>());
}

/// A try that Redis reads late, after a later try and later batches, must not take effect again.
#[test]
fn a_redis_that_pauses_for_longer_than_it_may_answer_takes_each_publish_once() {
    let redis = RedisServer::start();
    let hasty = redis
        .backplane()
        .response_timeout(Duration::from_millis(150))
        .max_wait(LIMIT);
    let options = BrokerOptions::new().events_per_category(10_000);
    let node = Broker::connect(options.clone(), hasty).unwrap();
    let plain = Broker::connect(options, redis.backplane()).unwrap();
    let published = AtomicUsize::new(0);
    thread::scope(|scope| {
        for publisher in 0..8 {
            let (node, published) = (&node, &published);
            scope.spawn(move || {
                for number in 0..100 {
                    node.publish("c", &(publisher * 100 + number)).unwrap();
                    published.fetch_add(1, SeqCst);
                    // Some are left for each pause.
                    thread::park_timeout(Duration::from_millis(10));
                }
            });
        }
        for pause in 1..=4 {
            redis.pause();
            // Longer than two tries.
            thread::park_timeout(Duration::from_millis(400));
            redis.resume();
            until("publishes go on", || published.load(SeqCst) >= pause * 100);
        }
    });
    until("all events are read", || held(&plain, "c").len() >= 800);
    let mut numbers: Vec<usize> = held(&plain, "c")
        .iter()
        .map(|n| n.parse().unwrap())
        .collect();
    until("the order is the same", || {
        held(&plain, "c") == held(&node, "c")
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (0..800).collect::<Vec<_>>());
}

#[test]
fn a_publish_without_an_answer_at_the_stop_is_not_called_unpublished() {
    let redis = RedisServer::start();
    let plain = redis.node();
    let mut kinds = Vec::new();
    for round in 0..5 {
        let impatient = redis
            .backplane()
            .response_timeout(Duration::from_millis(200));
        let node = Broker::connect(BrokerOptions::new(), impatient).unwrap();
        node.publish("c", "before").unwrap();
        redis.pause();
        let doubtful = format!("doubtful {round}");
        let error = thread::scope(|scope| {
            let publish = scope.spawn(|| node.publish("c", &doubtful).unwrap_err());
            until("Redis is away", || {
                !node.statistics().backplane.unwrap().connected
            });
            assert!(node.stop(Duration::ZERO).is_err());
            publish.join().unwrap()
        });
        redis.resume();
        plain.publish("c", "after").unwrap();
        until("the end is read", || {
            held(&plain, "c").last().is_some_and(|last| last == "after")
        });
        match error.kind() {
            ErrorKind::TimedOut => {}
            ErrorKind::Busy => assert!(!held(&plain, "c").contains(&doubtful), "{error}"),
            _ => panic!("{error}"),
        }
        kinds.push(error.kind());
    }
    assert!(kinds.contains(&ErrorKind::TimedOut), "{kinds:?}");
}
