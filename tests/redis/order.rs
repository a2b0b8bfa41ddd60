//! Three nodes in three processes, publishers and followers that change nodes, and everything that can go wrong meanwhile:
//! one order everywhere, nothing lost, nothing repeated.
//!
//! `REDIS_EVENTS` sets the number of events, 2,000 by default.

use std::collections::HashMap;
use std::env;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use long_polling::{BrokerOptions, RedisBackplane, Server, ServerInfo};

use crate::ports::ClosedPort;
use crate::process::{self, Process};
use crate::server::RedisServer;
use crate::support::Connection;

const NODES: usize = 3;
const PUBLISHERS: usize = 8;
const FOLLOWERS: usize = 24;
const CATEGORIES: [&str; 2] = ["a", "b"];

fn events() -> usize {
    env::var("REDIS_EVENTS").map_or(2_000, |events| events.parse().unwrap())
}

#[test]
#[ignore = "not a test: the process of a node"]
fn serve_as_a_process() {
    let Some(arguments) = process::argument() else {
        return;
    };
    let (url, address) = arguments.split_once(' ').expect("a URL and an address");
    let broker = BrokerOptions::new().events_per_category(500_000);
    let backplane = RedisBackplane::new(url)
        .max_stream_length(500_000)
        .max_wait(Duration::from_secs(120));
    let info = ServerInfo::new(address).broker(broker).redis(backplane);
    let end = Instant::now() + Duration::from_secs(60);
    // Redis may be away when a node is started again.
    let server = loop {
        match Server::start(info.clone()) {
            Ok(server) => break server,
            Err(error) => assert!(Instant::now() < end, "{}", error.report()),
        }
        thread::park_timeout(Duration::from_millis(50));
    };
    println!("listening on {}", server.local_addr());
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let statistics = server.statistics();
    assert_eq!(statistics.gaps, 0);
    let _ = server.stop(Duration::from_secs(10));
}

/// A node in a process of its own, which keeps its address over restarts.
struct Node {
    url: String,
    port: ClosedPort,
    process: Mutex<Process>,
}

fn start_process(url: &str, address: SocketAddr) -> Process {
    let argument = format!("{url} {address}");
    let mut command = process::this_program("order::serve_as_a_process", &argument);
    Process::start_server(&mut command).0
}

impl Node {
    fn start(url: &str) -> Self {
        let port = ClosedPort::for_a_server();
        Node {
            url: url.to_owned(),
            process: Mutex::new(start_process(url, port.address)),
            port,
        }
    }

    fn kill_and_start(&self) {
        let mut process = self.process.lock().unwrap();
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        *process = start_process(&self.url, self.port.address);
    }
}

/// What all clients of a run share.
struct Run {
    nodes: Vec<Node>,
    /// How many events each publisher publishes.
    each: usize,
    published: AtomicUsize,
    followed: AtomicUsize,
    is_over: AtomicBool,
    end: Instant,
}

/// An exchange with a node: the status, the position and the body. `None` if the connection broke.
fn exchange(address: SocketAddr, request: &str) -> Option<(u16, Option<String>, Vec<u8>)> {
    let stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_nodelay(true).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(150)))
        .ok()?;
    let mut connection = Connection::on(stream);
    connection.try_send(request).ok()?;
    let answer = connection.read(false).ok()?;
    let position = answer.header("Last-Event-ID").map(str::to_owned);
    Some((answer.status, position, answer.body))
}

impl Run {
    /// Publishes numbers, each until a node has accepted it. Only an answer counts; an exchange that broke is repeated with
    /// the same content, so that a publish that took effect may come twice: `content` tells the tries apart.
    fn publish(&self, publisher: usize, random: &mut fastrand::Rng) -> Vec<(usize, Vec<String>)> {
        let mut accepted = Vec::new();
        for number in 0..self.each {
            let mut tries = Vec::new();
            loop {
                assert!(
                    Instant::now() < self.end,
                    "a publish was not accepted in time"
                );
                let content = format!("{publisher}/{number}/{}", tries.len());
                let category = CATEGORIES[random.usize(..CATEGORIES.len())];
                let body = format!(r#"{{"category":"{category}","data":"{content}"}}"#);
                let request = format!(
                    "POST /publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                tries.push(content);
                let node = &self.nodes[random.usize(..NODES)];
                match exchange(node.port.address, &request) {
                    Some((200, ..)) => break,
                    Some((503, ..)) | None => thread::park_timeout(Duration::from_millis(20)),
                    Some((status, _, body)) => {
                        panic!("{status}: {}", String::from_utf8_lossy(&body))
                    }
                }
            }
            accepted.push((number, tries));
            self.published.fetch_add(1, SeqCst);
        }
        accepted
    }

    /// Follows all categories, at another node with every poll. Returns the ids and contents.
    fn follow(&self, random: &mut fastrand::Rng) -> Vec<(String, String)> {
        let mut seen = Vec::new();
        let mut position: Option<String> = None;
        loop {
            assert!(
                Instant::now() < self.end,
                "{} events came in time",
                seen.len()
            );
            let from = position
                .as_ref()
                .map_or("since_time=1".into(), |id| format!("last_id={id}"));
            let request = format!(
                "GET /events?category=a&category=b&timeout=2&{from} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            );
            let was_over = self.is_over.load(SeqCst);
            let node = &self.nodes[random.usize(..NODES)];
            let Some((status, reached, body)) = exchange(node.port.address, &request) else {
                thread::park_timeout(Duration::from_millis(20));
                continue;
            };
            match status {
                200 => {
                    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                    assert_eq!(
                        body.get("gap"),
                        None,
                        "a gap after {from} at {}",
                        node.port.address
                    );
                    let events = body["events"].as_array().unwrap();
                    let text = |event: &serde_json::Value, name: &str| {
                        event[name].as_str().unwrap().to_owned()
                    };
                    seen.extend(
                        events
                            .iter()
                            .map(|event| (text(event, "id"), text(event, "data"))),
                    );
                    self.followed.fetch_add(events.len(), SeqCst);
                }
                204 if was_over => return seen,
                204 => {}
                // A node that stops or starts.
                503 => continue,
                other => panic!("{other}: {}", String::from_utf8_lossy(&body)),
            }
            position = reached.or(position);
        }
    }
}

/// Runs publishers and followers while `disturb` does its worst, until it has returned and all is published.
fn run(url: &str, seconds: u64, disturb: impl FnOnce(&Run)) {
    let seed = env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SEED={seed} in the environment draws the same numbers again");
    let run = Run {
        nodes: (0..NODES).map(|_| Node::start(url)).collect(),
        each: events() / PUBLISHERS,
        published: AtomicUsize::new(0),
        followed: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
        end: Instant::now() + Duration::from_secs(seconds + events() as u64 / 40),
    };
    let run = Arc::new(run);
    let began = Instant::now();
    let (accepted, orders) = thread::scope(|scope| {
        let random = |number: usize| fastrand::Rng::with_seed(seed ^ number as u64);
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| {
                let run = run.clone();
                scope.spawn(move || run.publish(number, &mut random(number)))
            })
            .collect();
        let followers: Vec<_> = (0..FOLLOWERS)
            .map(|number| {
                let run = run.clone();
                scope.spawn(move || run.follow(&mut random(number + PUBLISHERS)))
            })
            .collect();
        disturb(&run);
        let accepted: Vec<_> = publishers
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        run.is_over.store(true, SeqCst);
        let orders: Vec<_> = followers
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        (accepted, orders)
    });
    check(&accepted, &orders);
    let total: usize = accepted.iter().map(Vec::len).sum();
    println!(
        "{total} events, {FOLLOWERS} followers over {NODES} nodes, {:?}: one order, lost 0, repeated 0",
        began.elapsed()
    );
}

fn check(accepted: &[Vec<(usize, Vec<String>)>], orders: &[Vec<(String, String)>]) {
    for order in orders {
        assert_eq!(order.len(), orders[0].len());
        assert!(order == &orders[0], "two followers have different orders");
        assert!(
            order.is_sorted_by(|one, other| one.0 < other.0),
            "ids do not ascend"
        );
    }
    let contents = orders[0].iter().map(|(_, content)| content.as_str());
    let mut places = HashMap::new();
    for (place, content) in contents.enumerate() {
        assert_eq!(places.insert(content, place), None, "{content} is repeated");
    }
    for (publisher, numbers) in accepted.iter().enumerate() {
        let mut last = 0;
        for (number, tries) in numbers {
            // The last try was accepted. An earlier one may have taken effect, too: its node was killed.
            let content = tries.last().unwrap();
            let place = places.get(content.as_str());
            let place = place.unwrap_or_else(|| panic!("lost: {publisher}/{number}"));
            assert!(
                *place >= last,
                "a publisher's events are not in their order"
            );
            last = *place;
        }
    }
}

fn at_shares(run: &Run, shares: usize, mut work: impl FnMut(usize)) {
    let all = run.each * PUBLISHERS;
    for share in 1..=shares {
        while run.published.load(SeqCst) < all * share / (shares + 1) {
            assert!(
                Instant::now() < run.end,
                "{} events were published",
                run.published.load(SeqCst)
            );
            thread::park_timeout(Duration::from_millis(5));
        }
        work(share);
    }
}

#[test]
fn nodes_that_are_killed_at_random_lose_and_repeat_nothing() {
    let redis = RedisServer::start();
    run(&redis.url(), 240, |run| {
        at_shares(run, 6, |share| run.nodes[share % NODES].kill_and_start());
    });
}

#[test]
fn a_redis_that_is_killed_and_paused_loses_and_repeats_nothing_with_appendfsync_always() {
    let mut redis = RedisServer::with_appendfsync_always();
    let url = redis.url();
    let pause = Duration::from_secs(10);
    run(&url, 300, |run| {
        at_shares(run, 3, |share| match share {
            1 | 3 => {
                redis.kill();
                redis.start_again();
            }
            _ => {
                redis.pause();
                // The length of the pause is what is tested.
                thread::sleep(pause);
                redis.resume();
            }
        });
    });
}

#[test]
fn nodes_and_redis_that_fail_at_the_same_time_lose_and_repeat_nothing() {
    let mut redis = RedisServer::with_appendfsync_always();
    let url = redis.url();
    run(&url, 300, |run| {
        at_shares(run, 4, |share| {
            redis.kill();
            run.nodes[share % NODES]
                .process
                .lock()
                .unwrap()
                .child
                .kill()
                .unwrap();
            redis.start_again();
            run.nodes[share % NODES].kill_and_start();
        });
    });
}
