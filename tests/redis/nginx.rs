//! nginx before the nodes, with the configuration of the guide: it needs nginx, and is ignored otherwise.

use std::net::SocketAddr;
use std::time::Duration;

use long_polling::{Cursor, Publisher, Server, Subscriber};

use crate::nginx_process::Nginx;
use crate::server::RedisServer;
use crate::support::{LIMIT, info};

const PAGE: &str = include_str!("../../src/guide/redis.md");

/// Starts nginx with the guide's configuration, but for the addresses.
fn nginx(nodes: &[SocketAddr]) -> Nginx {
    let nodes: Vec<String> = nodes.iter().map(SocketAddr::to_string).collect();
    let replacements = [
        ("10.0.0.1:8080", &*nodes[0]),
        ("10.0.0.2:8080", &nodes[1]),
        ("10.0.0.3:8080", &nodes[2]),
    ];
    Nginx::start(PAGE, "listen 80;", &replacements)
}

#[test]
#[ignore = "needs nginx"]
fn a_follower_behind_nginx_misses_nothing_while_nodes_come_and_go() {
    let redis = RedisServer::start();
    let start = |address: &str| {
        let info = info().address(address).redis(redis.backplane());
        Server::start(info).unwrap()
    };
    let mut nodes: Vec<Server> = (0..3).map(|_| start("127.0.0.1:0")).collect();
    let addresses: Vec<SocketAddr> = nodes.iter().map(Server::local_addr).collect();
    let nginx = nginx(&addresses);
    let soon = Duration::from_millis(10);
    let events = Subscriber::new(nginx.url("/events"), "c")
        .start_at(Cursor::Oldest)
        .backoff(soon, soon);
    let publisher = Publisher::new(nginx.url("/publish"));
    publisher.publish("c", &0).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..300 {
                // A publish over nginx could meet a node that stops, and nginx does not repeat it.
                nodes[number % 3].publish("c", &number).unwrap();
                if number % 100 == 50 {
                    let at = number / 100;
                    nodes[at].stop(LIMIT).unwrap();
                    nodes[at] = start(&addresses[at].to_string());
                }
            }
        });
        let mut seen = Vec::new();
        for event in events.take(300) {
            seen.push(event.unwrap().decode::<usize>().unwrap());
        }
        assert_eq!(seen, (0..300).collect::<Vec<_>>());
    });
}
