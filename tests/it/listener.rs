//! A listener of the program's own: the first server takes it. `tests/native/unix.rs` has more.

use crate::support;

use std::net::TcpListener;

use long_polling::{ErrorKind, Server};
use support::{Connection, LIMIT, info, poll, publish, start, until_parked};

const BODY: &str = r#"{"category":"c","data":1}"#;

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn a_listener_of_the_program_is_served_and_its_port_is_free_after_the_stop() {
    let listener = listener();
    // As programs with an event loop have it.
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let server = start(info().listener(listener));
    assert_eq!(server.local_addr(), address);
    let mut parked = Connection::to(&server);
    parked.ask("GET", &poll("c", 60, ""));
    until_parked(&server, 1);
    assert_eq!(publish(&server, BODY).status, 200);
    assert_eq!(parked.receive().data(), [1]);
    server.stop(LIMIT).unwrap();
    let again = start(info().address(address.to_string()));
    assert_eq!(publish(&again, BODY).status, 200);
}

#[test]
fn a_listener_is_taken_by_the_first_server_and_replaced_by_an_address() {
    let info = info().listener(listener());
    let first = start(info.clone());
    let error = Server::start(info.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSetting);
    assert!(error.to_string().starts_with("listener: "), "{error}");
    let other = start(info.address("127.0.0.1:0"));
    assert_ne!(other.local_addr(), first.local_addr());
    for server in [first, other] {
        assert_eq!(publish(&server, BODY).status, 200);
    }
}

/// Duplicates of a socket have one mode: a program with an event loop may set it while it takes the socket over.
#[test]
fn a_listener_that_another_program_makes_non_blocking_is_served_on() {
    let listener = listener();
    let duplicate = listener.try_clone().unwrap();
    let server = start(info().listener(listener));
    let mut idle = Connection::to(&server);
    idle.publish(BODY);
    assert_eq!(idle.receive().status, 200);
    for _ in 0..3 {
        duplicate.set_nonblocking(true).unwrap();
        // The accept loop may wait in a call from before.
        assert_eq!(publish(&server, BODY).status, 200);
    }
    idle.publish(BODY);
    assert_eq!(idle.receive().status, 200);
}
