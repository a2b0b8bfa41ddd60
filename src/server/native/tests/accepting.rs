//! Who is accepted: up to the limit of connections, and in spite of errors.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use super::{Client, POLL, PUBLISH, connections, info, start, until};
use crate::ErrorKind;
use crate::server::native::acceptor::Acceptor;
use crate::server::native::capacity;
use crate::server::native::connection::Connection;
use crate::server::server_socket::ServerSocket;
use crate::server::{HttpBackend, Request, Response, Server, ServerInfo};

fn published(client: &mut Client) -> bool {
    client.send(PUBLISH);
    client.status() == 200
}

#[test]
fn past_the_limit_the_connection_idle_longest_makes_room() {
    let server = start(info().max_connections(2));
    let (mut first, mut second) = (Client::of(&server), Client::of(&server));
    // A connection is idle soon after its answer.
    let are_idle = || {
        let open = connections(&server).open();
        open.iter()
            .all(|connection| connection.idle_since().is_some())
    };
    assert!(published(&mut first) && published(&mut second));
    until("idle", are_idle);
    // Now the second one has been idle longest.
    assert!(published(&mut first));
    until("idle", are_idle);
    let mut third = Client::of(&server);
    assert!(published(&mut third));
    assert!(second.is_over());
    assert!(published(&mut first) && published(&mut third));
}

#[test]
fn past_the_limit_with_no_idle_connection_a_new_one_is_refused() {
    let server = start(info().max_connections(1));
    let mut parked = Client::of(&server);
    parked.send(POLL);
    until("parked", || server.statistics().parked == 1);
    for _ in 0..3 {
        let mut refused = Client::of(&server);
        refused.send(PUBLISH);
        let answer = refused.receive();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("Retry-After: ") && answer.contains("Connection: close"));
        assert!(refused.is_over());
    }
    server.publish("c", &1).unwrap();
    assert_eq!(parked.status(), 200);
    assert_eq!(server.statistics().refused, 3);
    // The poll's connection is idle soon after its answer.
    until("idle", || published(&mut Client::of(&server)));
}

#[test]
fn a_thread_that_cannot_be_had_refuses_one_connection_and_is_reported_once() {
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = failures.clone();
    let server = start(
        info()
            .thread_stack_size(1 << (usize::BITS - 2))
            .restore_timeout(Duration::from_millis(100))
            .on_failure(move |error| {
                assert_eq!(error.kind(), ErrorKind::ServingFailed);
                counted.fetch_add(1, SeqCst);
            }),
    );
    let refused = || Client::of(&server).status() == 503;
    until("reported", || refused() && failures.load(SeqCst) == 1);
    assert!(refused() && refused());
    assert_eq!(failures.load(SeqCst), 1);
}

#[test]
fn accepting_outlives_every_error_and_a_long_failure_is_reported_once() {
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = failures.clone();
    let server = start(
        info()
            .restore_timeout(Duration::from_millis(200))
            .on_failure(move |_| {
                counted.fetch_add(1, SeqCst);
            }),
    );
    let mut idle = Client::of(&server);
    assert!(published(&mut idle));
    // An accept loop that fails, beside the other one.
    let elsewhere = ServerSocket::open(&info()).unwrap();
    let address = elsewhere.local_addr();
    let fails = Arc::new(AtomicBool::new(true));
    let acceptor = Acceptor::new(connections(&server).clone());
    let flag = fails.clone();
    let accepting = thread::spawn(move || {
        let errors = [24, 23, 12, 103, 4, 71].into_iter().cycle();
        let errors = parking_lot::Mutex::new(errors);
        acceptor.run(|| match flag.load(SeqCst) {
            true => Err(io::Error::from_raw_os_error(errors.lock().next().unwrap())),
            false => elsewhere.accept(),
        });
    });
    // For want of a descriptor, the idle connection is closed.
    assert!(idle.is_over());
    until("reported", || failures.load(SeqCst) == 1);
    let mut client = Client(std::net::TcpStream::connect(address).unwrap());
    fails.store(false, SeqCst);
    assert!(published(&mut client));
    assert_eq!(failures.load(SeqCst), 1);
    server.stop(super::LIMIT).unwrap();
    drop(std::net::TcpStream::connect(address));
    accepting.join().unwrap();
}

#[test]
fn a_panic_in_a_connections_thread_leaves_nothing_behind() {
    let server = start(info());
    let (stream, _client) = super::pair();
    let connection = Arc::new(Connection::new(stream.into(), None).unwrap());
    let started = connections(&server).start(&connection, |_, _| panic!("on purpose"));
    started.unwrap();
    until("no thread holds the connection", || {
        Arc::strong_count(&connection) == 1
    });
    assert!(published(&mut Client::of(&server)));
    server.stop(super::LIMIT).unwrap();
}

#[test]
fn the_default_stack_holds_a_hook_that_parses_json_nested_as_deep_as_serde_json_allows() {
    let server = start(info().fallback(|request: &Request| {
        let parsed: Result<serde_json::Value, _> = serde_json::from_slice(request.body());
        Response::text(
            200,
            parsed.map_or_else(|error| error.to_string(), |json| json.to_string()),
        )
    }));
    let json = format!("{}{}", "[".repeat(127), "]".repeat(127));
    let mut client = Client::of(&server);
    let length = json.len();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{json}"
    ));
    assert!(client.receive().ends_with(&json));
}

#[test]
fn the_system_allows_some_connections_and_settings_that_make_no_sense_are_refused() {
    assert!((1..=10_000).contains(&capacity::max_connections(None, 256 * 1024)));
    for (name, info) in [
        ("max_connections", info().max_connections(0)),
        ("thread_stack_size", info().thread_stack_size(1000)),
        ("head_timeout", info().head_timeout(Duration::ZERO)),
        ("body_timeout", info().body_timeout(Duration::ZERO)),
    ] {
        let error = Server::start(info).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSetting);
        assert!(
            error.to_string().starts_with(&format!("{name}: ")),
            "{error}"
        );
    }
}

#[cfg(feature = "server")]
#[test]
fn a_limit_that_tiny_http_does_not_have_is_refused_with_it() {
    let info = || ServerInfo::new("127.0.0.1:0").http_backend(HttpBackend::TinyHttp);
    let second = Duration::from_secs(1);
    for (name, info) in [
        ("max_connections", info().max_connections(10)),
        ("head_timeout", info().head_timeout(second)),
        ("body_timeout", info().body_timeout(second)),
    ] {
        let error = Server::start(info).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{name}: ")), "{error}");
        assert!(error.contains("HttpBackend::Native"), "{error}");
    }
}
