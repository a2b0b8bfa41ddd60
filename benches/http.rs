//! A server over loopback, end to end: publishes, the delivery to one parked subscriber and to 1,000, and streams.
//!
//! ```text
//! cargo bench --bench http
//! cargo bench --bench http -- --address 127.0.0.1:8080
//! ```
//!
//! The program starts a server with each backend, in the same process, and measures them in alternating rounds. With
//! `--address`, it measures a server of this crate that runs already, and whose settings are the default ones. Each figure
//! is the median of the rounds. Fan-out needs two descriptors for each subscriber: `ulimit -n 4096`.
//!
//! One thread has all connections of a measurement, apart from the streams, so that the client needs little of the
//! processors that it shares with the server. Without `--bench`, as `cargo test --bench http` runs it, everything is small
//! and the figures mean nothing.

#[allow(dead_code)]
mod support;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use long_polling::server::HttpBackend;
use long_polling::{Event, Server, ServerInfo};
use serde::Deserialize;
use support::http::{Connection, poll, publish};
use support::{LIMIT, is_bench, medians, quantile, until};

/// The servers that are compared: the name of each backend, and settings with it.
fn servers() -> Vec<(&'static str, ServerInfo)> {
    let on = |backend| ServerInfo::new("127.0.0.1:0").http_backend(backend);
    // The crate's dev-dependency on itself brings both backends.
    vec![
        ("tiny_http", on(HttpBackend::TinyHttp)),
        ("native", on(HttpBackend::Native)),
    ]
}

/// How much is measured.
struct Amount {
    rounds: usize,
    /// The time of one measurement of publishes.
    publishing: Duration,
    /// Events of one measurement of deliveries to one subscriber.
    deliveries: usize,
    /// Subscribers of a fan-out.
    subscribers: usize,
    /// Events of one measurement of fan-out.
    fan_outs: usize,
    /// Events of each stream.
    streamed: usize,
}

impl Amount {
    fn new() -> Self {
        if is_bench() {
            Amount {
                rounds: 5,
                publishing: Duration::from_secs(1),
                deliveries: 500,
                subscribers: 1000,
                fan_outs: 9,
                streamed: 2000,
            }
        } else {
            Amount {
                rounds: 1,
                publishing: Duration::from_millis(20),
                deliveries: 5,
                subscribers: 20,
                fan_outs: 1,
                streamed: 50,
            }
        }
    }
}

fn main() {
    let mut targets = match address() {
        Some(address) => vec![Target::running(address)],
        None => servers().into_iter().map(Target::start).collect(),
    };
    let amount = Amount::new();
    let Amount {
        rounds,
        publishing,
        subscribers,
        ..
    } = amount;
    let names: Vec<&str> = targets.iter().map(|target| &*target.name).collect();
    println!("| work | figure | {} |", names.join(" | "));
    println!("|---|---|{}", "---|".repeat(targets.len()));
    let rates = ["publishes/s", "p99 of a publish, ms"];
    let figures = medians(rounds, &mut targets, |target| {
        publishes(target, 8, 64, publishing)
    });
    print("publish, 8 connections, 64 bytes", rates, &figures);
    let figures = medians(rounds, &mut targets, |target| {
        publishes(target, 64, 1024, publishing)
    });
    print("publish, 64 connections, 1 KiB", rates, &figures);
    let figures = medians(rounds, &mut targets, |target| {
        deliveries(target, amount.deliveries)
    });
    print(
        "one parked subscriber",
        ["publish to delivery, ms", "p99, ms"],
        &figures,
    );
    let figures = medians(rounds, &mut targets, |target| {
        fan_out(target, subscribers, amount.fan_outs)
    });
    print(
        &format!("fan-out to {subscribers}"),
        ["publish to last delivery, ms"],
        &figures,
    );
    let figures = medians(rounds, &mut targets, |target| {
        streams(target, 8, amount.streamed)
    });
    print("8 streams", ["events/s"], &figures);
}

/// The address that the arguments give.
fn address() -> Option<SocketAddr> {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let option = arguments.next()?;
    assert_eq!(
        option, "--address",
        "the only option is --address HOST:PORT"
    );
    let address = arguments.next().expect("--address HOST:PORT");
    let mut addresses = address.to_socket_addrs().expect("an address HOST:PORT");
    Some(addresses.next().expect("an address of that host"))
}

/// Prints a row for each figure, with a column for each server.
fn print<const FIGURES: usize>(work: &str, names: [&str; FIGURES], servers: &[[f64; FIGURES]]) {
    for (at, name) in names.iter().enumerate() {
        let figures = servers.iter().map(|figures| match figures[at] {
            large if large >= 1000.0 => format!("{large:.0}"),
            small => format!("{small:.3}"),
        });
        let figures: Vec<String> = figures.collect();
        println!("| {work} | {name} | {} |", figures.join(" | "));
    }
}

/// A server that is measured.
struct Target {
    name: String,
    address: SocketAddr,
    /// `None` if it runs elsewhere.
    server: Option<Server>,
}

impl Target {
    fn start((name, info): (&str, ServerInfo)) -> Self {
        let server = Server::start(info).expect("a server");
        Target {
            name: name.to_owned(),
            address: server.local_addr(),
            server: Some(server),
        }
    }

    fn running(address: SocketAddr) -> Self {
        Target {
            name: address.to_string(),
            address,
            server: None,
        }
    }

    fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Waits until the polls that were sent are parked.
    fn until_parked(&self, count: usize) {
        match &self.server {
            Some(server) => until("parked", || server.statistics().parked == count),
            // Nothing tells a client that its poll is parked.
            None => thread::sleep(Duration::from_micros(5000 + 300 * count as u64)),
        }
    }
}

/// The name of a category that no measurement has used before.
fn new_category() -> String {
    static USED: AtomicUsize = AtomicUsize::new(0);
    format!(
        "bench-{}-{}",
        std::process::id(),
        USED.fetch_add(1, Relaxed)
    )
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Publishes on connections that each send the next event once the one before is answered. Returns the rate, and the
/// quantile 0.99 of the time from a request to its answer, in milliseconds.
fn publishes(target: &Target, connections: usize, bytes: usize, time: Duration) -> [f64; 2] {
    let request = publish(&new_category(), &format!(r#""{}""#, "x".repeat(bytes - 2)));
    let mut connections: Vec<Connection> = (0..connections).map(|_| target.connect()).collect();
    // The server accepts connections in the background: not part of the measurement.
    for connection in &mut connections {
        connection.ask(&request);
    }
    let start = Instant::now();
    let mut sent: Vec<Instant> = Vec::new();
    for connection in &mut connections {
        sent.push(Instant::now());
        connection.send(&request);
    }
    let mut took = Vec::new();
    while start.elapsed() < time {
        for (connection, sent) in connections.iter_mut().zip(&mut sent) {
            connection.read();
            took.push(milliseconds(*sent));
            *sent = Instant::now();
            connection.send(&request);
        }
    }
    let rate = took.len() as f64 / start.elapsed().as_secs_f64();
    for connection in &mut connections {
        connection.read();
    }
    [rate, quantile(took, 0.99)]
}

/// Publishes to one parked subscriber. Returns the median and the quantile 0.99 of the time until it has the event, in
/// milliseconds.
fn deliveries(target: &Target, count: usize) -> [f64; 2] {
    let category = new_category();
    let (mut subscriber, mut publisher) = (target.connect(), target.connect());
    let took = (0..count).map(|_| {
        subscriber.send(&poll(&category, ""));
        target.until_parked(1);
        let start = Instant::now();
        publisher.send(&publish(&category, "1"));
        subscriber.read();
        let took = milliseconds(start);
        publisher.read();
        took
    });
    let took: Vec<f64> = took.collect();
    [quantile(took.clone(), 0.5), quantile(took, 0.99)]
}

/// Publishes to parked subscribers. Returns the median of the time until the last one has the event, in milliseconds.
fn fan_out(target: &Target, subscribers: usize, count: usize) -> [f64; 1] {
    let category = new_category();
    let (poll, publish) = (poll(&category, ""), publish(&category, "1"));
    let mut publisher = target.connect();
    let mut subscribers: Vec<Connection> = (0..subscribers).map(|_| target.connect()).collect();
    let mut deliver = || {
        for subscriber in &mut subscribers {
            subscriber.send(&poll);
        }
        target.until_parked(subscribers.len());
        let start = Instant::now();
        publisher.send(&publish);
        for subscriber in &mut subscribers {
            subscriber.read();
        }
        let took = milliseconds(start);
        publisher.read();
        took
    };
    // The first polls find connections that the server may not have accepted yet.
    deliver();
    [quantile((0..count).map(|_| deliver()).collect(), 0.5)]
}

/// The most events that a publisher may be ahead of its subscriber.
const WINDOW: usize = 32;

/// Publishers that publish numbered events, each to a subscriber of its own, which polls on from the last id. Returns the
/// rate of events delivered.
fn streams(target: &Target, streams: usize, events: usize) -> [f64; 1] {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..streams {
            let category = new_category();
            let (sent, received) = sync_channel(WINDOW);
            let publisher = (target.connect(), category.clone());
            scope.spawn(move || publish_stream(publisher, sent, events));
            let subscriber = (target.connect(), category);
            scope.spawn(move || follow_stream(subscriber, received, events));
        }
    });
    [(streams * events) as f64 / start.elapsed().as_secs_f64()]
}

fn publish_stream(
    (mut connection, category): (Connection, String),
    sent: SyncSender<()>,
    events: usize,
) {
    for number in 0..events {
        sent.send(()).expect("a subscriber");
        connection.ask(&publish(&category, &number.to_string()));
    }
}

/// The body of an answer to a poll.
#[derive(Deserialize)]
struct Answer {
    events: Vec<Event>,
}

fn follow_stream(
    (mut connection, category): (Connection, String),
    received: Receiver<()>,
    events: usize,
) {
    let mut position = "&since_time=1".to_owned();
    let mut next = 0;
    while next < events {
        let body = connection.ask(&poll(&category, &position));
        let answer: Answer = serde_json::from_slice(body).expect("events");
        for event in answer.events {
            assert_eq!(
                event.data(),
                next.to_string(),
                "an event is lost or comes twice"
            );
            received.recv_timeout(LIMIT).expect("a publisher");
            position = format!("&last_id={}", event.id());
            next += 1;
        }
    }
}
