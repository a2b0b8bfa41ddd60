//! The cost of a file: rates with a file and without, in process and over HTTP, and of one publisher and many that wait for
//! the same disk.
//!
//! ```text
//! cargo bench --bench store
//! ```
//!
//! The file lies in a temporary folder; `TMPDIR` says where, which matters where that is memory. Each figure is the
//! median of several rounds, taken in turns. Without `--bench`, as `cargo test --bench store` runs it, there are few events
//! and the figures mean nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use long_polling::{
    Broker, BrokerOptions, Durability, FilePersistorInfo, Server, ServerInfo, Statistics,
};

/// Rounds of each figure.
const ROUNDS: usize = 5;
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let of = |count: usize| if is_bench { count } else { count / 1000 };
    let [alone, buffered] = medians([&|| in_process(None, 1, of(1_000_000)), &|| {
        in_process(Some(Durability::Buffered), 1, of(1_000_000))
    }]);
    println!("in process, one thread: {alone:.0} events/s without a file, {buffered:.0} Buffered");

    let each = of(10_000);
    let [alone, buffered] = medians([&|| over_http(None, each), &|| {
        over_http(Some(Durability::Buffered), each)
    }]);
    println!(
        "over HTTP, 8 connections: {alone:.0} events/s without a file, {buffered:.0} Buffered: {:.0} %",
        100.0 * buffered / alone
    );

    let acknowledged = |publishers: usize| {
        in_process(
            Some(Durability::Acknowledged),
            publishers,
            of(2_000) * publishers,
        )
    };
    let [one, many] = medians([&|| acknowledged(1), &|| acknowledged(16)]);
    println!(
        "Acknowledged: {one:.0} events/s by one publisher, {many:.0} by 16: {:.1} times as many",
        many / one
    );
}

/// The medians of several measurements, taken in turns, so that a slow moment of the machine affects all of them.
fn medians<const COUNT: usize>(measure: [&dyn Fn() -> f64; COUNT]) -> [f64; COUNT] {
    let mut rates = [const { Vec::new() }; COUNT];
    for _ in 0..ROUNDS {
        for (rates, measure) in rates.iter_mut().zip(measure) {
            rates.push(measure());
        }
    }
    rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    })
}

/// A file for one measurement, gone with the folder.
fn file(durability: Option<Durability>) -> (tempfile::TempDir, Option<FilePersistorInfo>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let info = durability.map(|durability| {
        FilePersistorInfo::new(folder.path().join("events.db")).durability(durability)
    });
    (folder, info)
}

/// Events per second, with nothing lost: all must have been published, and be in the file after the stop.
fn rate(count: usize, took: Duration, statistics: &Statistics, file: bool) -> f64 {
    assert_eq!(statistics.published, count as u64);
    if file {
        let store = &statistics.store;
        // The records of the start and the end are lines, too.
        assert_eq!(
            (store.written, store.pending, store.failures),
            (count as u64 + 2, 0, 0)
        );
    }
    count as f64 / took.as_secs_f64()
}

fn in_process(durability: Option<Durability>, threads: usize, count: usize) -> f64 {
    let (_folder, info) = file(durability);
    let options = BrokerOptions::default();
    let broker = match info {
        None => Broker::new(options),
        Some(info) => Broker::open(options, info),
    }
    .expect("a broker");
    let barrier = Barrier::new(threads + 1);
    let took = thread::scope(|scope| {
        for thread in 0..threads {
            let (broker, barrier) = (&broker, &barrier);
            scope.spawn(move || {
                let category = format!("category {thread}");
                barrier.wait();
                for number in 0..count / threads {
                    broker.publish(&category, &number).expect("published");
                }
                barrier.wait();
            });
        }
        barrier.wait();
        let start = Instant::now();
        barrier.wait();
        start.elapsed()
    });
    broker.stop(LIMIT).expect("stopped");
    rate(count, took, &broker.statistics(), durability.is_some())
}

/// The rate with `each` events on each connection.
fn over_http(durability: Option<Durability>, each: usize) -> f64 {
    const CONNECTIONS: usize = 8;
    let (_folder, info) = file(durability);
    let mut server_info = ServerInfo::new("127.0.0.1:0");
    if let Some(info) = info {
        server_info = server_info.file(info);
    }
    let server = Server::start(server_info).expect("a server");
    let address = server.local_addr();
    let start = Instant::now();
    thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            scope.spawn(move || publish_over_http(address, connection, each));
        }
    });
    let took = start.elapsed();
    server.stop(LIMIT).expect("stopped");
    rate(
        CONNECTIONS * each,
        took,
        &server.statistics(),
        durability.is_some(),
    )
}

/// One publish after the other on one connection.
fn publish_over_http(address: SocketAddr, connection: usize, count: usize) {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut writer = stream;
    for number in 0..count {
        let body = format!(r#"{{"category":"category {connection}","data":{number}}}"#);
        let request = format!(
            "POST /publish HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        writer.write_all(request.as_bytes()).expect("written");
        let mut line = String::new();
        reader.read_line(&mut line).expect("an answer");
        assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
        let mut length = 0;
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).expect("a head");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
    }
}
