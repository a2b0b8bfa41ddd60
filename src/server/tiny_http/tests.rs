//! A server whose accept loops fail, time out or end, and one that can't connect to itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::listener::Listener;
use crate::error::{Error, ErrorKind};
use crate::server::backend::Backend;
use crate::server::{Server, ServerInfo};

fn listener(server: &Server) -> &Listener {
    match &server.backend {
        Backend::TinyHttp(backend) => &backend.shared.listener,
        #[cfg(feature = "native-http")]
        Backend::Native(_) => panic!("tiny_http is the default"),
    }
}

fn info() -> ServerInfo {
    ServerInfo::new("127.0.0.1:0").hosts(["*"])
}

/// The status of a publish on a connection of its own; `None` where it is not answered in ten seconds.
fn publish(server: &Server) -> Option<u16> {
    let address = server.local_addr();
    let limit = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).unwrap();
    let body = r#"{"category":"c","data":1}"#;
    let length = body.len();
    let request = format!(
        "POST /publish HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn the_failure_callback_runs_once_when_serving_can_not_be_restored_and_serving_is_tried_again() {
    let restore_timeout = Duration::from_millis(1500);
    let (sender, failures) = bounded(1);
    let info = info()
        .restore_timeout(restore_timeout)
        .on_failure(move |error| sender.send(error).unwrap_or_default());
    let server = Server::start(info).unwrap();
    let broken = Instant::now();
    listener(&server).fail_acceptors(true);
    listener(&server).break_down();
    let early = failures.recv_timeout(restore_timeout - Duration::from_millis(200));
    assert_eq!(early.map(drop), Err(RecvTimeoutError::Timeout));
    let error = failures.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(broken.elapsed() >= restore_timeout);
    assert_eq!(error.kind(), ErrorKind::ServingFailed);
    // What is in process goes on.
    server.publish("a", "x").unwrap();
    listener(&server).fail_acceptors(false);
    until("served again", || publish(&server) == Some(200));
    server.stop(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_listening_socket_that_was_shut_down_listens_again() {
    let server = Server::start(info()).unwrap();
    listener(&server).break_down();
    until("served again", || publish(&server) == Some(200));
    server.stop(Duration::from_secs(5)).unwrap();
}

/// A server that reports a failure after half a second, and the errors that its failure callback got.
fn server_with_short_timeouts(idle_timeout: Duration) -> (Server, Receiver<Error>) {
    let (sender, failures) = bounded(1);
    let failed = move |error: Error| sender.send(error).unwrap_or_default();
    let info = info()
        .restore_timeout(Duration::from_millis(500))
        .idle_timeout(idle_timeout);
    (Server::start(info.on_failure(failed)).unwrap(), failures)
}

/// The same, but it can't connect to itself.
fn server_without_probes(errno: i32, idle_timeout: Duration) -> (Server, Receiver<Error>) {
    let (server, failed) = server_with_short_timeouts(idle_timeout);
    listener(&server).forbid_probes(errno);
    (server, failed)
}

/// EPERM, EACCES, EINVAL, ENETUNREACH, ETIMEDOUT, ECONNREFUSED and EADDRNOTAVAIL of Linux.
const PROBES_FAIL: [i32; 7] = [1, 13, 22, 101, 110, 111, 99];

#[test]
fn a_server_that_can_not_connect_to_itself_serves_on_and_reports_no_failure() {
    let all: Vec<_> = PROBES_FAIL
        .iter()
        .map(|errno| server_without_probes(*errno, Duration::from_secs(5)))
        .collect();
    for _ in 0..3 {
        for (server, failed) in &all {
            assert_eq!(publish(server), Some(200));
            let failed = failed.recv_timeout(Duration::from_millis(100));
            assert_eq!(failed.map(drop), Err(RecvTimeoutError::Timeout));
        }
    }
    for (server, failed) in all {
        assert_eq!(publish(&server), Some(200));
        assert_eq!(listener(&server).acceptors().len(), 1);
        server.stop(Duration::from_secs(5)).unwrap();
        assert!(failed.try_recv().is_err());
    }
}

#[test]
fn an_accept_loop_that_ended_silently_is_replaced_with_and_without_probes() {
    let (with, with_failed) = server_with_short_timeouts(Duration::from_secs(60));
    let (without, without_failed) = server_without_probes(1, Duration::from_secs(60));
    for server in [&with, &without] {
        assert_eq!(publish(server), Some(200));
        listener(server).end_accept_loops_silently();
        until("served again", || publish(server) == Some(200));
    }
    with.stop(Duration::from_secs(5)).unwrap();
    without.stop(Duration::from_secs(5)).unwrap();
    assert!(with_failed.try_recv().is_err());
    assert!(without_failed.try_recv().is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn probes_leave_no_connection_in_time_wait() {
    let server = Server::start(info()).unwrap();
    let acceptor = listener(&server).acceptors().remove(0);
    until("ten probes", || acceptor.heartbeats() >= 10);
    let port = format!(":{:04X}", server.local_addr().port());
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let waiting = table.lines().filter(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        fields[3] == "06" && fields[1..3].iter().any(|address| address.ends_with(&port))
    });
    assert_eq!(waiting.count(), 0);
    drop(acceptor);
    server.stop(Duration::from_secs(5)).unwrap();
}

#[test]
fn an_accept_that_timed_out_is_followed_by_another_and_is_no_failure() {
    let (server, failed) = server_without_probes(1, Duration::from_millis(300));
    let first = listener(&server).acceptors().remove(0);
    for _ in 0..3 {
        let acceptors = listener(&server).acceptors();
        let newest = acceptors.last().unwrap().clone();
        until("another acceptor", || {
            let acceptors = listener(&server).acceptors();
            acceptors
                .last()
                .is_some_and(|last| !Arc::ptr_eq(last, &newest))
        });
        assert_eq!(publish(&server), Some(200));
    }
    until("the first acceptor is closed", || {
        let acceptors = listener(&server).acceptors();
        !acceptors
            .iter()
            .any(|acceptor| Arc::ptr_eq(acceptor, &first))
    });
    drop(first);
    server.stop(Duration::from_secs(5)).unwrap();
    assert!(failed.try_recv().is_err());
}
