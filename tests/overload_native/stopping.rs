//! Stops with many polls parked: none takes long, and nothing is left behind.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use crate::connections::crowd;
use crate::support::{Connection, LIMIT, info, poll, start, until, until_parked};
use crate::turn::Turn;

const ROUNDS: usize = 100;
const PARKED: usize = 500;

/// Threads of this process whose names begin with the server's prefix, as far as the system keeps it.
fn server_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names
        .filter(|name| name.starts_with("long-polling-c"))
        .count()
}

#[test]
fn a_hundred_stops_with_500_polls_parked_and_a_body_half_sent_take_less_than_a_second_each() {
    let _turn = Turn::take();
    let mut slow = Vec::new();
    for round in 0..ROUNDS {
        let server = start(info());
        let mut parked = crowd(server.local_addr(), PARKED);
        for connection in &mut parked {
            connection.ask("GET", &poll("c", 60, ""));
        }
        let mut half = Connection::to(&server);
        half.send("POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 25\r\n\r\n{\"category\":");
        until_parked(&server, PARKED);
        let began = Instant::now();
        server.stop(LIMIT).unwrap();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "round {round}: {took:?}");
        slow.extend((took > Duration::from_secs(1)).then_some(took));
        for connection in &mut parked {
            assert_eq!(connection.receive().status, 204);
            assert!(connection.is_over());
        }
        assert!(half.is_over());
        assert_eq!(server.statistics().published, 0);
    }
    // A machine that is busy with other tests may take longer, once or twice.
    assert!(slow.len() <= 2, "{slow:?}");
    // Servers of other tests have threads of the same names, and end.
    until("no thread is left", || server_threads() < PARKED / 2);
}
