//! A server whose accept loops fail, time out or end, and one that can't connect to itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::listener::Listener;
use crate::error::{Error, ErrorKind};
use crate::server::backend::Backend;
use crate::server::{Server, ServerInfo};

fn backend(server: &Server) -> &super::Backend {
    match &server.backend {
        Backend::TinyHttp(backend) => backend,
        #[cfg(feature = "native-http")]
        Backend::Native(_) => panic!("tiny_http is the default"),
    }
}

fn listener(server: &Server) -> &Listener {
    &backend(server).listener
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
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
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

/// A server with these timeouts, and the errors that its failure callback got.
fn start(idle_timeout: Duration, restore_timeout: Duration) -> (Server, Receiver<Error>) {
    let (sender, failures) = bounded(1);
    let info = ServerInfo::new("127.0.0.1:0")
        .restore_timeout(restore_timeout)
        .idle_timeout(idle_timeout)
        .on_failure(move |error| sender.send(error).unwrap_or_default());
    (Server::start(info).unwrap(), failures)
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(500);

#[test]
fn the_failure_callback_runs_once_when_serving_can_not_be_restored_and_serving_is_tried_again() {
    let restore_timeout = Duration::from_millis(1500);
    let (server, failures) = start(LONG, restore_timeout);
    let broken = Instant::now();
    listener(&server).fail_accept(true);
    let error = failures.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(broken.elapsed() >= restore_timeout);
    assert_eq!(error.kind(), ErrorKind::ServingFailed);
    // What is in process goes on.
    server.publish("a", "x").unwrap();
    listener(&server).fail_accept(false);
    until("served again", || publish(&server) == Some(200));
    server.stop(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_server_that_can_not_connect_to_itself_serves_on_and_reports_no_failure() {
    let (server, failed) = start(Duration::from_secs(5), SHORT);
    listener(&server).is_unreachable.store(true, SeqCst);
    let first = listener(&server).newest();
    for _ in 0..4 {
        assert_eq!(publish(&server), Some(200));
        let failed = failed.recv_timeout(Duration::from_millis(500));
        assert_eq!(failed.map(drop), Err(RecvTimeoutError::Timeout));
    }
    assert!(Arc::ptr_eq(&listener(&server).newest(), &first));
    drop(first);
    server.stop(Duration::from_secs(5)).unwrap();
    assert!(failed.try_recv().is_err());
}

#[test]
fn an_accept_loop_that_ended_silently_is_replaced() {
    let (server, failed) = start(LONG, SHORT);
    assert_eq!(publish(&server), Some(200));
    let lost = listener(&server).newest();
    lost.is_lost.store(true, SeqCst);
    until("another acceptor", || {
        !Arc::ptr_eq(&listener(&server).newest(), &lost)
    });
    drop(lost);
    until("served again", || publish(&server) == Some(200));
    server.stop(Duration::from_secs(5)).unwrap();
    assert!(failed.try_recv().is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn heartbeats_and_probes_leave_no_connection_in_time_wait() {
    let (server, _) = start(LONG, LONG);
    let acceptor = listener(&server).newest();
    for _ in 0..3 {
        let last = *acceptor.last_request.lock();
        until("a heartbeat", || *acceptor.last_request.lock() > last);
    }
    drop(acceptor);
    let port = format!(":{:04X}", server.local_addr().port());
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let waiting = table.lines().filter(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        fields[3] == "06" && fields[1..3].iter().any(|address| address.ends_with(&port))
    });
    // Each heartbeat and each probe would leave one. Another program may have left one at a port of this number.
    assert!(waiting.count() < 3);
    server.stop(Duration::from_secs(5)).unwrap();
}

#[test]
fn an_accept_that_timed_out_is_followed_by_another_and_is_no_failure() {
    let (server, failed) = start(Duration::from_millis(700), LONG);
    listener(&server).is_unreachable.store(true, SeqCst);
    for _ in 0..3 {
        let newest = listener(&server).newest();
        until("another acceptor", || {
            !Arc::ptr_eq(&listener(&server).newest(), &newest)
        });
        assert_eq!(publish(&server), Some(200));
    }
    server.stop(Duration::from_secs(5)).unwrap();
    assert!(failed.try_recv().is_err());
}

/// Another connection may have the port of one that was refused, long before the idle timeout.
#[cfg(target_os = "linux")]
#[test]
fn a_client_is_refused_until_its_connection_has_ended() {
    let (server, _) = start(LONG, LONG);
    let connections = &backend(&server).connections;
    let [mut stays, mut goes] = [(); 2].map(|()| {
        let stream = TcpStream::connect(server.local_addr()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    });
    for stream in [&mut stays, &mut goes] {
        let two_lengths = "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let request = format!("POST /publish HTTP/1.1\r\nHost: localhost\r\n{two_lengths}");
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
    }
    assert_eq!(connections.refused(Duration::ZERO).len(), 2);
    drop(goes);
    let stays = stays.local_addr().unwrap();
    until("the client that has gone is forgotten", || {
        connections.refused(Duration::ZERO) == [stays]
    });
    server.stop(Duration::from_secs(5)).unwrap();
}
