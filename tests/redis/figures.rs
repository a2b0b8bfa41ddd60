//! The figures of the guide: `cargo test --release --features redis --test redis figures -- --ignored --nocapture`.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use long_polling::{Broker, BrokerOptions, Cursor};

use crate::server::RedisServer;
use crate::support::until;

const TIME: Duration = Duration::from_secs(3);

/// Publishes per second by this many threads for each node, with 64 bytes of data.
fn rate(nodes: &[Broker], threads: usize) -> f64 {
    let data = "x".repeat(62);
    let began = Instant::now();
    let count: usize = thread::scope(|scope| {
        let publishers = nodes
            .iter()
            .flat_map(|node| (0..threads).map(move |_| node));
        let publishers: Vec<_> = publishers
            .map(|node| {
                let data = &data;
                scope.spawn(move || {
                    let mut count = 0;
                    while began.elapsed() < TIME {
                        node.publish("c", data).unwrap();
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        publishers
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    count as f64 / began.elapsed().as_secs_f64()
}

/// The median and the 99th percentile of the time from a publish at one node until a parked subscriber of another has it.
fn delivery(publisher: &Broker, follower: &Broker) -> (Duration, Duration) {
    let (sender, received) = mpsc::channel();
    let (follower, parked) = (follower.clone(), follower.clone());
    let count = 1000;
    let mut position = Cursor::LastId(publisher.publish("c", "first").unwrap());
    let thread = thread::spawn(move || {
        for _ in 0..count {
            let batch = follower
                .subscribe("c", position, Duration::from_secs(30))
                .unwrap();
            let now = Instant::now();
            assert_eq!(batch.events().len(), 1);
            position = Cursor::LastId(batch.last_id());
            sender.send(now).unwrap();
        }
    });
    let mut times: Vec<Duration> = (0..count)
        .map(|number| {
            until("the follower is parked", || parked.statistics().parked == 1);
            let began = Instant::now();
            publisher.publish("c", &number).unwrap();
            received.recv().unwrap().saturating_duration_since(began)
        })
        .collect();
    thread.join().unwrap();
    times.sort_unstable();
    (times[count / 2], times[count * 99 / 100])
}

#[test]
#[ignore = "prints figures"]
fn figures() {
    let memory = || vec![Broker::new(BrokerOptions::new()).unwrap()];
    println!(
        "without Redis: 1 thread {:.0}/s, 16 threads {:.0}/s",
        rate(&memory(), 1),
        rate(&memory(), 16)
    );
    for (name, options) in [
        ("no persistence", &[][..]),
        ("everysec", &["--appendonly", "yes"]),
        (
            "always",
            &["--appendonly", "yes", "--appendfsync", "always"],
        ),
    ] {
        for count in [1, 3] {
            let redis = RedisServer::with(options);
            let nodes: Vec<Broker> = (0..count).map(|_| redis.node()).collect();
            for threads in [1, 16, 64] {
                println!(
                    "{name}, {count} node(s), {threads} threads each: {:.0}/s",
                    rate(&nodes, threads)
                );
            }
        }
    }
    let one = memory();
    println!(
        "delivery without Redis: median and p99 {:?}",
        delivery(&one[0], &one[0])
    );
    let redis = RedisServer::start();
    let nodes = [redis.node(), redis.node()];
    println!(
        "delivery across nodes: median and p99 {:?}",
        delivery(&nodes[0], &nodes[1])
    );
}
