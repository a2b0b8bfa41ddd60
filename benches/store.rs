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

#[allow(dead_code)]
mod support;

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use long_polling::{
    Broker, BrokerOptions, Durability, FilePersistorInfo, Server, ServerInfo, Statistics,
};
use support::http::{self, Connection};
use support::{LIMIT, is_bench, medians};

/// Rounds of each figure.
const ROUNDS: usize = 5;

fn main() {
    let of = |count: usize| if is_bench() { count } else { count / 1000 };
    let mut files = [None, Some(Durability::Buffered)];
    let rates = medians(ROUNDS, &mut files, |file| {
        [in_process(*file, 1, of(1_000_000))]
    });
    let ([alone], [buffered]) = (rates[0], rates[1]);
    println!("in process, one thread: {alone:.0} events/s without a file, {buffered:.0} Buffered");

    let each = of(10_000);
    let rates = medians(ROUNDS, &mut files, |file| [over_http(*file, each)]);
    let ([alone], [buffered]) = (rates[0], rates[1]);
    println!(
        "over HTTP, 8 connections: {alone:.0} events/s without a file, {buffered:.0} Buffered: {:.0} %",
        100.0 * buffered / alone
    );

    let rates = medians(ROUNDS, &mut [1, 16], |publishers| {
        let count = of(2_000) * *publishers;
        [in_process(
            Some(Durability::Acknowledged),
            *publishers,
            count,
        )]
    });
    let ([one], [many]) = (rates[0], rates[1]);
    println!(
        "Acknowledged: {one:.0} events/s by one publisher, {many:.0} by 16: {:.1} times as many",
        many / one
    );
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
    let category = format!("category {connection}");
    let mut connection = Connection::open(address);
    for number in 0..count {
        connection.ask(&http::publish(&category, &number.to_string()));
    }
}
