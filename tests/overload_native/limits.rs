//! The limits of the native backend: the requests that tiny_http reads without end are refused, each within its time.

use std::time::{Duration, Instant};

use long_polling::Server;

use crate::support::{Connection, info, serves_others, start};
use crate::turn::Turn;

const TIMEOUT: Duration = Duration::from_secs(1);

/// Sends bytes until the server refuses them. Returns the answer's status.
fn refused(server: &Server, bytes: impl AsRef<[u8]>) -> u16 {
    let mut connection = Connection::to(server);
    // The server may answer before it has all.
    let _ = connection.try_send(bytes);
    let answer = connection.receive();
    assert_eq!(answer.header("Connection"), Some("close"), "{answer:?}");
    assert!(connection.is_over());
    answer.status
}

#[test]
fn what_has_no_end_is_refused_by_its_size() {
    let _turn = Turn::take();
    let server = start(info());
    let long = "x".repeat(100_000);
    let post = "POST /publish HTTP/1.1\r\nHost: t\r\n";
    for (status, bytes) in [
        (414, format!("GET /{long}")),
        (431, format!("GET / HTTP/1.1\r\nHost: t\r\nX-Name: {long}")),
        (
            431,
            format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(20_000)),
        ),
        (
            431,
            format!(
                "GET / HTTP/1.1\r\nHost: t\r\n{}\r\n",
                "X: y\r\n".repeat(100)
            ),
        ),
        (
            413,
            format!("{post}Content-Length: 9223372036854775807\r\n\r\n"),
        ),
        (
            413,
            format!("{post}Transfer-Encoding: chunked\r\n\r\nfffffff\r\n{long}"),
        ),
        (
            400,
            format!("{post}Transfer-Encoding: chunked\r\n\r\n1;{long}"),
        ),
        (
            431,
            format!("{post}Transfer-Encoding: chunked\r\n\r\n0\r\nT: {long}"),
        ),
        (
            505,
            "GET /events?category=c&timeout=0 HTTP/2.0\r\nHost: t\r\n\r\n".to_owned(),
        ),
    ] {
        let start: String = bytes.chars().take(80).collect();
        assert_eq!(refused(&server, bytes), status, "{start}");
        serves_others(&server);
    }
}

#[test]
fn what_trickles_is_refused_when_its_time_is_over() {
    let _turn = Turn::take();
    let server = start(info().head_timeout(TIMEOUT).body_timeout(TIMEOUT));
    let post = "POST /publish HTTP/1.1\r\nHost: t\r\n";
    for (at_once, trickled) in [
        ("GET / HTTP/1.1\r\nHost: t\r\nX: ".to_owned(), "x"),
        (format!("{post}Content-Length: 1000\r\n\r\n"), "x"),
        (
            format!("{post}Transfer-Encoding: chunked\r\n\r\n"),
            "1\r\nx\r\n",
        ),
    ] {
        let mut connection = Connection::to(&server);
        connection.send(&at_once);
        let began = Instant::now();
        assert!(!connection.trickle(trickled.bytes().cycle()));
        assert!(began.elapsed() >= TIMEOUT * 9 / 10, "{:?}", began.elapsed());
        assert!(began.elapsed() < TIMEOUT * 5, "{:?}", began.elapsed());
        assert_eq!(connection.receive().status, 408, "{at_once}");
        serves_others(&server);
    }
}
