//! Bodies that are refused before they are read: the answer comes first, and no length that a client announces ends the
//! process. Linux only, where memory can be measured and limited.
#![cfg(target_os = "linux")]

use std::io::Read;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::child::{Limit, Process, Timeouts};
use crate::support::{Connection, IS_NATIVE, LIMIT, server, until};
use crate::turn::Turn;

const PUBLISH: &str = r#"{"category":"c","data":"x"}"#;
const LARGE: usize = 31_000_000;

/// The tests that hold for the native backend alone, each with the reason.
const NATIVE_ONLY: &[(&str, &str)] = &[(
    "bodies_that_are_announced_and_not_sent_take_no_memory",
    "tiny_http allocates the rest of a refused body when its client hangs up, and the allocator keeps that",
)];

/// True where this test ends at once, since it holds for the native backend alone.
fn needs_native(test: &str) -> bool {
    let listed = NATIVE_ONLY.iter().find(|(name, _)| *name == test);
    let (_, reason) = listed.expect("a test of NATIVE_ONLY");
    if !IS_NATIVE {
        println!("on the native backend only: {reason}");
    }
    !IS_NATIVE
}

fn announce(connection: &mut Connection, length: usize, version: &str, fields: &str) {
    connection.send(format!(
        "POST /publish {version}\r\nHost: t\r\n{fields}Content-Length: {length}\r\n\r\n{{\"c"
    ));
}

fn publishes(process: &Process) -> bool {
    let mut connection = Connection::open(process.address);
    connection.publish(PUBLISH);
    connection
        .read(false)
        .is_ok_and(|answer| answer.status == 200)
}

#[test]
fn bodies_that_are_announced_and_not_sent_take_no_memory() {
    let _turn = Turn::take();
    if needs_native("bodies_that_are_announced_and_not_sent_take_no_memory") {
        return;
    }
    let process = Process::start(&Limit::None, &Timeouts(3_000, 500));
    assert!(publishes(&process));
    until("settled", || process.descriptors() < 20);
    let (threads, descriptors) = (process.threads(), process.descriptors());
    let mut clients: Vec<Connection> = (0..100)
        .map(|_| Connection::open(process.address))
        .collect();
    for client in &mut clients {
        announce(client, LARGE, "HTTP/1.1", "");
    }
    for client in &mut clients {
        client.receive().refuses(413, "too large");
    }
    // Byte by byte, for longer than the time limit.
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        for client in &mut clients {
            let _ = client.try_send("x");
        }
    }
    drop(clients);
    until("descriptors are back", || {
        process.descriptors() <= descriptors + 10
    });
    until("threads are back", || process.threads() <= threads + 20);
    let peak = process.peak_memory();
    assert!(peak < 300_000, "{peak} KB");
    assert!(publishes(&process));
    assert!(process.stop());
}

#[test]
fn lengths_that_fit_into_memory_singly_and_not_together_do_not_end_the_process() {
    let _turn = Turn::take();
    let process = Process::start(&Limit::Memory(4 << 20), &Timeouts(3_000, 500));
    for _ in 0..3 {
        let mut clients: Vec<Connection> =
            (0..40).map(|_| Connection::open(process.address)).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            let length = [LARGE, 1_000_000_000, 2_500_000_000][at % 3];
            announce(client, length, "HTTP/1.1", "");
        }
        for client in &mut clients {
            client.receive().refuses(413, "too large");
        }
        for client in &mut clients {
            let _ = client.try_send("x");
        }
        assert!(publishes(&process));
        // All close at once, and tiny_http allocates for each.
        drop(clients);
        assert!(publishes(&process));
    }
    until("descriptors are back", || process.descriptors() < 60);
    assert!(publishes(&process));
    assert!(process.stop());
}

#[test]
fn a_client_that_sends_its_whole_body_first_gets_the_answer() {
    let _turn = Turn::take();
    let server = server();
    let mut client = Connection::to(&server);
    announce(&mut client, LARGE, "HTTP/1.1", "");
    client.send("x".repeat(LARGE - 3));
    let answer = client.receive();
    answer.refuses(413, "too large");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    // A client that closes then is closed for.
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert!(client.is_over());
    // HTTP/1.0 has no informational answers.
    let mut client = Connection::to(&server);
    announce(&mut client, LARGE, "HTTP/1.0", "");
    client.send("x".repeat(LARGE - 3));
    let mut answer = String::new();
    client.stream().read_to_string(&mut answer).unwrap();
    let is_refused = answer.starts_with("HTTP/1.0 413 ") || answer.starts_with("HTTP/1.1 413 ");
    assert!(is_refused, "{answer}");
    assert!(answer.contains("too large"), "{answer}");
}

#[test]
fn qualities_of_te_that_are_no_numbers_do_no_harm() {
    let _turn = Turn::take();
    let server = server();
    let qualities: Vec<String> = (0..50)
        .map(|at| match at % 3 {
            0 => format!("a{at};q=nan"),
            _ => format!("a{at};q=0.{}", at * 37 % 100),
        })
        .collect();
    let te = format!("TE: {}\r\n", qualities.join(", "));
    for length in [2_000_000, LARGE] {
        let mut client = Connection::to(&server);
        announce(&mut client, length, "HTTP/1.1", &te);
        let mut answer = client.receive();
        if answer.status == 103 {
            answer = client.receive();
        }
        answer.refuses(413, "too large");
    }
    let mut client = Connection::to(&server);
    client.publish(PUBLISH);
    assert_eq!(client.receive().status, 200);
}

#[test]
fn a_stop_does_not_wait_for_a_body_that_was_refused() {
    let _turn = Turn::take();
    let server = server();
    let mut client = Connection::to(&server);
    announce(&mut client, LARGE, "HTTP/1.1", "");
    client.receive().refuses(413, "too large");
    let began = Instant::now();
    server.stop(LIMIT).unwrap();
    assert!(began.elapsed() < LIMIT / 2, "{:?}", began.elapsed());
}
