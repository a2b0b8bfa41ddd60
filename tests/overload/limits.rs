//! The limits of the server without a proxy before it, since its HTTP library reads a request's head by itself: what happens
//! to such requests, and that other clients are served in the meantime. `tests/it/nginx.rs` has the same requests with nginx,
//! which stops all of them.

use crate::support;
use crate::turn::Turn;

use std::io::ErrorKind::WouldBlock;
use std::thread;
use std::time::{Duration, Instant};

use long_polling::Server;
use long_polling::server::{Fallback, Response};
use support::{Connection, info, poll, serves_others, start};

const BODY: &str = r#"{"category":"c","data":1}"#;
/// Short, so that a test can outlast it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

fn impatient_server() -> Server {
    start(info().idle_timeout(IDLE_TIMEOUT))
}

#[test]
fn a_request_line_of_http_2_holds_its_own_connection_for_ever_and_no_other() {
    let _turn = Turn::take();
    let server = impatient_server();
    let held: Vec<Connection> = (0..20)
        .map(|_| {
            let mut connection = Connection::to(&server);
            connection.send("GET /events?category=c&timeout=0 HTTP/2.0\r\nHost: t\r\n\r\n");
            connection
        })
        .collect();
    serves_others(&server);
    // Neither an answer nor an end, though any other connection would be closed by now.
    let mut silent = Connection::to(&server);
    assert!(silent.is_over());
    for connection in &held {
        let stream = connection.stream();
        let soon = Some(Duration::from_millis(10));
        stream.set_read_timeout(soon).unwrap();
        let nothing = stream.peek(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), WouldBlock);
    }
    serves_others(&server);
}

#[test]
fn a_header_line_is_read_whole_however_long() {
    let _turn = Turn::take();
    let server = start(info().fallback(Fallback::new(|request| {
        let length = request.header("X-Name").map_or(0, str::len);
        Response::text(200, length.to_string())
    })));
    let mut connection = Connection::to(&server);
    let megabyte = "x".repeat(1_000_000);
    // The last line is still to come: all of this is in memory, and no request has come out of the library.
    connection.send(format!(
        "GET / HTTP/1.1\r\nHost: t\r\nX-Name: {megabyte}\r\n"
    ));
    serves_others(&server);
    connection.send("\r\n");
    assert_eq!(connection.receive().text(), "1000000");
}

#[test]
fn a_client_that_trickles_is_waited_for_as_long_as_bytes_come() {
    let _turn = Turn::take();
    let server = impatient_server();
    let length = BODY.len();
    let poll = poll("c", 0, "&since_time=1");
    server.publish("c", "x").unwrap();
    let requests = [
        format!("GET {poll} HTTP/1.1\r\nHost: a.name.of.some.length\r\n\r\n"),
        format!("POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{BODY}"),
        format!(
            "POST /publish HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{BODY}\r\n0\r\n\r\n"
        ),
    ];
    thread::scope(|scope| {
        for request in &requests {
            let server = &server;
            scope.spawn(move || {
                let (last, rest) = request.as_bytes().split_last().unwrap();
                // Of the head in the first request, of the body in the others.
                let (at_once, trickled) = rest.split_at(rest.len() - 24);
                let mut connection = Connection::to(server);
                connection.send(at_once);
                let began = Instant::now();
                assert!(connection.trickle(trickled.iter().copied()));
                assert!(began.elapsed() > 2 * IDLE_TIMEOUT);
                serves_others(server);
                connection.send([*last]);
                assert_eq!(connection.receive().status, 200);
            });
        }
    });
}
