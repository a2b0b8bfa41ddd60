//! What is read of a request, how much of it, and for how long.

use std::time::{Duration, Instant};

use super::{Client, LIMIT, POLL, PUBLISH, info, start};
use crate::server::forwarded::TrustedProxies;
use crate::server::head::BodyLength;
use crate::server::native::reader::Reader;
use crate::server::{Handler, Request, Response};

fn head(reader: &mut Reader<&[u8]>) -> Result<Box<Request>, Response> {
    reader.head(None, &TrustedProxies::default())
}

fn refusal<T>(result: Result<T, Response>) -> u16 {
    result.err().map_or(0, |response| response.status)
}

#[test]
fn a_head_is_read_to_its_empty_line_and_no_further() {
    let mut reader = Reader::new(&b"\r\n\r\nGET / HTTP/1.1\r\nA: b\r\n\r\nrest"[..]);
    assert!(reader.wait());
    let request = head(&mut reader).unwrap();
    let fields: Vec<_> = request.headers().iter().collect();
    assert_eq!(fields, [("A", "b")]);
    assert_eq!(reader.body(BodyLength::Known(4), 4).unwrap(), b"rest");
    assert!(!reader.wait());
}

#[test]
fn a_head_that_another_program_may_read_otherwise_or_too_large_a_one_is_refused() {
    let long = |start: &str| format!("{start}{}", "x".repeat(20_000));
    for (status, head) in [
        (400, "GET / HTTP/1.1\nHost: t\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\rHost: t\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nA: b\0\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nA: b\n\r\n".into()),
        (400, "GET / HTTP/1.1\r\nA: b\r\n".into()),
        (400, "GET /\r\n\r\n".into()),
        (400, "GET / http/1.1\r\n\r\n".into()),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        (505, "GET / HTTP/1.2\r\n\r\n".into()),
        (414, long("GET /")),
        (431, long("GET / HTTP/1.1\r\nA: ")),
        (
            431,
            format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(3000)),
        ),
    ] {
        let refused = refusal(self::head(&mut Reader::new(head.as_bytes())));
        assert_eq!(refused, status, "{head:?}");
    }
}

#[test]
fn what_is_not_http_is_refused_at_its_first_byte_or_line() {
    let server = start(info());
    for garbage in [
        "\x16\x03\x01\x02",
        "SSH-2.0-x\r\n",
        " GET / HTTP/1.1",
        "GET /\r\n",
        "GET / HTTP/1.1\rX",
    ] {
        let mut client = Client::of(&server);
        client.send(garbage);
        assert_eq!(client.status(), 400, "{garbage:?}");
        assert!(client.is_over());
    }
}

#[test]
fn a_body_takes_memory_as_it_comes() {
    let mut body = Vec::new();
    let mut reader = Reader::new(&b"0123456789"[..]);
    assert_eq!(refusal(reader.append(&mut body, 1 << 40, 1 << 40)), 400);
    assert_eq!(body, b"0123456789");
    assert!(body.capacity() < 100_000, "{}", body.capacity());
}

fn chunked(bytes: &[u8], max: usize) -> Result<Vec<u8>, Response> {
    Reader::new(bytes).body(BodyLength::Chunked, max)
}

#[test]
fn chunks_are_a_body_to_their_end_whatever_extensions_and_trailers_they_have() {
    for (bytes, expected) in [
        (&b"0\r\n\r\n"[..], &b""[..]),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (
            b"3\r\nabc\r\n00a;x=\"y\" ; z\r\n0123456789\r\n0\r\n\r\n",
            b"abc0123456789",
        ),
        (b"1 \t;x\r\na\r\n0;y\r\nA: b\r\nC:\r\n\r\n", b"a"),
    ] {
        assert_eq!(chunked(bytes, 20).unwrap(), expected);
    }
}

#[test]
fn chunks_that_are_malformed_or_endless_are_refused() {
    for (status, bytes) in [
        (400, "".to_owned()),
        (400, "\r\n".into()),
        (400, "-1\r\n".into()),
        (400, "+1\r\na\r\n0\r\n\r\n".into()),
        (400, "0x1\r\na\r\n0\r\n\r\n".into()),
        (400, "1 \r\na\r\n0\r\n\r\n".into()),
        (400, "1\na\r\n0\r\n\r\n".into()),
        (400, "1\r\nab\r\n0\r\n\r\n".into()),
        (400, "1\r\na\n0\r\n\r\n".into()),
        (400, "1;\x01\r\na\r\n0\r\n\r\n".into()),
        (400, "00000000000000001\r\na\r\n0\r\n\r\n".into()),
        (400, "0\r\nno field\r\n\r\n".into()),
        (400, "0\r\nA: \x01\r\n\r\n".into()),
        (400, format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(2000))),
        (
            400,
            format!(
                "{}0\r\n\r\n",
                format!("1;{}\r\na\r\n", "x".repeat(900)).repeat(20)
            ),
        ),
        (431, format!("0\r\n{}\r\n", "A: b\r\n".repeat(3000))),
        (413, "ffffffffffffffff\r\n".into()),
        (413, format!("64\r\n{}\r\n1\r\n", "x".repeat(100))),
    ] {
        assert_eq!(refusal(chunked(bytes.as_bytes(), 100)), status, "{bytes:?}");
    }
}

#[test]
fn a_head_or_body_that_trickles_is_given_up_after_its_time_as_a_whole() {
    let time = Duration::from_millis(600);
    let server = start(info().head_timeout(time).body_timeout(time));
    for start in [
        "G",
        "POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 90\r\n\r\n",
    ] {
        let mut client = Client::of(&server);
        client.send(start);
        let began = Instant::now();
        client
            .0
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        while client.0.peek(&mut [0]).is_err() {
            assert!(began.elapsed() < LIMIT);
            client.send("x");
        }
        assert!(began.elapsed() >= time - Duration::from_millis(50));
        client.0.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(client.status(), 408);
        assert!(client.is_over());
    }
}

#[test]
fn an_idle_connection_is_closed_without_an_answer_also_after_an_empty_line() {
    let server = start(info().idle_timeout(Duration::from_millis(300)));
    let mut client = Client::of(&server);
    client.send(format!("{PUBLISH}\r\n"));
    assert_eq!(client.status(), 200);
    assert!(client.is_over());
}

#[test]
fn a_client_is_asked_for_its_body_after_its_authorization() {
    let server = start(info().before_publish(Handler::bearer_token("secret")));
    let head =
        "POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 25\r\nExpect: 100-Continue\r\n";
    let body = r#"{"category":"c","data":1}"#;
    let mut stranger = Client::of(&server);
    stranger.send(format!("{head}\r\n"));
    assert!(stranger.receive().contains("Connection: close\r\n"));
    let mut client = Client::of(&server);
    client.send(format!("{head}Authorization: Bearer secret\r\n\r\n"));
    assert_eq!(client.receive(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(body);
    assert_eq!(client.status(), 200);
    // What comes unasked is passed over: the connection goes on.
    let mut hasty = Client::of(&server);
    hasty.send(format!("{head}\r\n{body}{POLL}"));
    assert_eq!(hasty.status(), 401);
    super::until("parked", || server.statistics().parked == 1);
    server.publish("c", &2).unwrap();
    assert_eq!(hasty.status(), 200);
    let mut other = Client::of(&server);
    other.send("GET / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue, tea\r\n\r\n");
    assert_eq!(other.status(), 417);
}

#[test]
fn requests_that_come_at_once_are_answered_in_order_also_behind_a_parked_poll() {
    let server = start(info());
    let mut client = Client::of(&server);
    client.send(format!(
        "{PUBLISH}{POLL}{PUBLISH}GET /x HTTP/1.1\r\nHost: t\r\n\r\n"
    ));
    assert_eq!(client.status(), 200);
    super::until("parked", || server.statistics().parked == 1);
    // Looks at the client receive this.
    let parked = &super::connections(&server).open()[0];
    super::until("a look", || parked.received_while_parked().is_some());
    let before = parked.received_while_parked().unwrap();
    client.send(PUBLISH);
    super::until("another", || {
        parked.received_while_parked() == Some(before + PUBLISH.len())
    });
    assert_eq!(server.statistics().parked, 1);
    server.publish("c", &"end").unwrap();
    assert!(client.receive().contains("\"end\""));
    assert_eq!(
        [client.status(), client.status(), client.status()],
        [200, 404, 200]
    );
}
