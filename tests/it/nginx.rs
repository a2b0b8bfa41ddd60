//! The exact configuration of the guide's page `deploying`, with real nginx before the server: which requests nginx stops,
//! and which it passes. `tests/overload/limits.rs` has the same requests without nginx.
//!
//! These tests need nginx, so they only run with: `cargo test --test it nginx -- --ignored`. `.ci/run` does.
#![cfg(target_os = "linux")]

use crate::nginx_process::{Nginx, PAGE, configuration};
use crate::sse::{Stream, request};
use crate::support;

use std::io::ErrorKind::WouldBlock;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use long_polling::server::Handler;
use long_polling::{BrokerOptions, Cursor, Publisher, Server, Subscriber};
use socket2::{Domain, Socket, Type};
use support::{Connection, LIMIT, info, poll, server, start, until, until_parked};

const BODY: &str = r#"{"category":"c","data":1}"#;

/// The value of a directive in the configuration.
fn directive(name: &str) -> &'static str {
    let mut lines = configuration(PAGE).lines().map(str::trim_start);
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let (value, _) = value.expect(name).split_once(';').expect("a semicolon");
    value
}

/// The value of a directive that is a number with this unit.
fn number(name: &str, unit: &str) -> u64 {
    let number = directive(name).strip_suffix(unit).expect(unit);
    number.parse().expect("a number")
}

impl Nginx {
    fn before(upstream: SocketAddr) -> Self {
        Nginx::changed(upstream, &[])
    }
}

/// A listener in the server's place, to which no request may come.
struct Untouched(TcpListener);

impl Untouched {
    fn new() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (Untouched(listener), address)
    }

    fn has_no_connection(&self) {
        let came = self.0.accept().expect_err("no connection");
        assert_eq!(came.kind(), WouldBlock);
    }
}

/// The defaults of `ServerInfo::timeout` and `BrokerOptions::max_event_size`.
const TIMEOUT: Duration = Duration::from_secs(120);
const MAX_EVENT_SIZE: usize = 1 << 20;

/// A server, and nginx before it.
fn proxied() -> (Server, Nginx) {
    let server = server();
    let nginx = Nginx::before(server.local_addr());
    (server, nginx)
}

#[test]
fn the_numbers_in_the_readme_fit_the_servers_defaults() {
    assert!(number("proxy_read_timeout", "s") > TIMEOUT.as_secs());
    // nginx, which sends the requests, should be the side that closes a connection kept between requests.
    let idle_timeout = TIMEOUT + Duration::from_secs(10);
    assert!(number("keepalive_timeout", "s") < idle_timeout.as_secs());
    let largest_body = MAX_EVENT_SIZE + 8 * 1024;
    assert!(number("client_max_body_size", "k") * 1024 >= largest_body as u64);
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn nginx_refuses_a_request_line_of_http_2() {
    let (upstream, address) = Untouched::new();
    let nginx = Nginx::before(address);
    for version in ["2.0", "3.0"] {
        let mut connection = nginx.connect();
        connection.send(format!("GET /events HTTP/{version}\r\nHost: t\r\n\r\n"));
        assert_eq!(connection.receive().status, 505);
        assert!(connection.is_over());
    }
    upstream.has_no_connection();
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn nginx_refuses_heads_without_end() {
    let (upstream, address) = Untouched::new();
    let nginx = Nginx::before(address);
    let megabyte = "x".repeat(1_000_000);
    let lines = format!("X-Name: {}\r\n", "x".repeat(100)).repeat(10_000);
    // Complete, so that nginx would pass them if its buffers were large enough.
    for (head, expected) in [
        (
            format!("GET /events?{megabyte} HTTP/1.1\r\nHost: t\r\n\r\n"),
            414,
        ),
        (
            format!("GET /events HTTP/1.1\r\nHost: t\r\nX-Name: {megabyte}\r\n\r\n"),
            400,
        ),
        (
            format!("GET /events HTTP/1.1\r\nHost: t\r\n{megabyte}: 1\r\n\r\n"),
            400,
        ),
        (
            format!("GET /events HTTP/1.1\r\nHost: t\r\n{lines}\r\n"),
            400,
        ),
    ] {
        let mut connection = nginx.connect();
        // nginx answers in the middle, and may hang up with some of this unread; then its answer is lost.
        let _ = connection.try_send(head);
        if let Some(answer) = connection.next_or_end() {
            assert_eq!(answer.status, expected);
        }
    }
    upstream.has_no_connection();
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn nginx_hangs_up_on_a_head_that_trickles() {
    let (upstream, address) = Untouched::new();
    let nginx = Nginx::before(address);
    for head in [
        "",
        "GET /events?category=c",
        "GET /events?category=c&timeout=0 HTTP/1.1\r\nX-Name: ",
    ] {
        let mut connection = nginx.connect();
        connection.send(head);
        let began = Instant::now();
        assert!(!connection.trickle(std::iter::repeat(b'x')));
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    upstream.has_no_connection();
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn nginx_keeps_a_body_that_trickles_to_itself_until_it_is_whole() {
    let (upstream, address) = Untouched::new();
    let nginx = Nginx::before(address);
    let length = BODY.len();
    let heads = [
        format!("Content-Length: {length}\r\n\r\n"),
        "Transfer-Encoding: chunked\r\n\r\n1000\r\n".into(),
    ];
    for head in heads {
        let mut connection = nginx.connect();
        connection.send(format!("POST /publish HTTP/1.1\r\nHost: t\r\n{head}"));
        // All but the last byte, one at a time; that takes longer than nginx waits for any one of them.
        let began = Instant::now();
        assert!(connection.trickle(BODY.bytes().take(length - 1)));
        assert!(began.elapsed() > Duration::from_secs(2));
        upstream.has_no_connection();
        // And the last never.
        let began = Instant::now();
        if let Some(answer) = connection.next_or_end() {
            assert_eq!(answer.status, 408);
        }
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    upstream.has_no_connection();
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn nginx_refuses_large_bodies_and_passes_the_largest_event() {
    let (upstream, address) = Untouched::new();
    let nginx = Nginx::before(address);
    let too_large = "x".repeat(1_200_000);
    let announced = format!("Content-Length: {}\r\n\r\n", too_large.len());
    let chunked = format!(
        "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        too_large.len()
    );
    for head in [announced, chunked] {
        for body in ["", &too_large] {
            if head.starts_with("Transfer") && body.is_empty() {
                continue;
            }
            let mut connection = nginx.connect();
            let _ =
                connection.try_send(format!("POST /publish HTTP/1.1\r\nHost: t\r\n{head}{body}"));
            if let Some(answer) = connection.next_or_end() {
                assert_eq!(answer.status, 413);
            }
        }
    }
    upstream.has_no_connection();

    let (_server, nginx) = proxied();
    let largest = "x".repeat(MAX_EVENT_SIZE - 2);
    let mut connection = nginx.connect();
    connection.publish(format!(r#"{{"category":"c","data":"{largest}"}}"#));
    assert_eq!(connection.receive().status, 200);
    connection.ask("GET", &poll("c", 0, "&since_time=1"));
    assert_eq!(connection.receive().data(), [largest]);
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn nginx_passes_pipelined_requests_one_after_the_other_and_closes_after_its_limit() {
    let (server, nginx) = proxied();
    let length = BODY.len();
    let publish =
        format!("POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{BODY}");

    // Nothing that stands behind a parked poll reaches the server.
    let mut connection = nginx.connect();
    connection.ask("GET", &poll("other", 60, ""));
    connection.send(publish.repeat(5));
    until_parked(&server, 1);
    let mut elsewhere = nginx.connect();
    elsewhere.ask("GET", &poll("c", 0, "&since_time=1"));
    assert_eq!(elsewhere.receive().status, 204);
    assert_eq!(server.statistics().published, 0);
    server.publish("other", "go on").unwrap();
    assert_eq!(connection.receive().data(), ["go on"]);
    for _ in 0..5 {
        assert_eq!(connection.receive().status, 200);
    }

    // And nginx closes the connection after a limited number of requests.
    let before = server.statistics().published;
    let most = 1000;
    let fewer = [("keepalive_requests 10000", "keepalive_requests 1000")];
    let nginx = Nginx::changed(server.local_addr(), &fewer);
    let mut connection = nginx.connect();
    let mut other_half = Connection::over(connection.stream().try_clone().unwrap());
    let sender =
        thread::spawn(move || (0..2 * most).all(|_| other_half.try_send(&publish).is_ok()));
    for _ in 0..most {
        assert_eq!(connection.receive().status, 200);
    }
    assert!(connection.is_over());
    sender.join().unwrap();
    assert_eq!(server.statistics().published, before + most);
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn polls_as_long_as_the_servers_maximum_pass_through_nginx() {
    let longest = Duration::from_secs(3);
    let server = start(info().timeout(longest));
    let written = "proxy_read_timeout 130s";
    // Longer than the longest poll in the same proportion as on the page.
    let in_proportion = [(written, "proxy_read_timeout 3250ms")];
    let nginx = Nginx::changed(server.local_addr(), &in_proportion);
    let mut connection = nginx.connect();
    for _ in 0..2 {
        let began = Instant::now();
        connection.ask("GET", &poll("c", 3600, ""));
        let answer = connection.receive();
        assert_eq!(answer.status, 204);
        assert!(answer.header("Last-Event-ID").is_some());
        // A poll ends up to 0.2 s early, before its client gives up.
        let took = began.elapsed();
        assert!(took >= longest - Duration::from_millis(300), "{took:?}");
    }
    assert_eq!(server.statistics().timed_out, 2);

    // Without that line, or with too short a time, it would be cut off.
    let hasty = [(written, "proxy_read_timeout 1s")];
    let nginx = Nginx::changed(server.local_addr(), &hasty);
    let mut connection = nginx.connect();
    connection.ask("GET", &poll("c", 3600, ""));
    assert_eq!(connection.receive().status, 504);
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn nginx_passes_the_events_of_a_stream_on_as_they_come() {
    let server = start(info().stream_heartbeat(Duration::from_millis(200)));
    // A stream without comments would be cut off.
    let hasty = [("proxy_read_timeout 130s", "proxy_read_timeout 1s")];
    let nginx = Nginx::changed(server.local_addr(), &hasty);
    let mut connection = nginx.connect();
    connection.send(request("GET", "HTTP/1.1", "category=c&timeout=4", ""));
    let mut stream = Stream::read(connection);
    stream.position();
    for number in 0..3 {
        until_parked(&server, 1);
        server.publish("c", &number).unwrap();
        assert_eq!(stream.data(), number);
    }
    // To its end, which comes without another event.
    assert_eq!(stream.rest(), []);
    let id = server.publish("c", "after the end").unwrap();
    let position = format!("Last-Event-ID: {}\r\n", stream.last_id.unwrap());
    let mut connection = nginx.connect();
    connection.send(request("GET", "HTTP/1.1", "category=c", &position));
    let mut stream = Stream::read(connection);
    assert_eq!(stream.data(), "after the end");
    assert_eq!(stream.last_id, Some(id.to_string()));
    // A client that hangs up at nginx frees its place.
    until_parked(&server, 1);
    drop(stream);
    until_parked(&server, 0);
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn a_client_that_hangs_up_at_nginx_frees_its_place_in_the_server() {
    let (server, nginx) = proxied();
    let mut connection = nginx.connect();
    connection.ask("GET", &poll("c", 60, ""));
    until_parked(&server, 1);
    drop(connection);
    // Long before the poll's time is over.
    until_parked(&server, 0);
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn client_addresses_arrive_through_nginx_and_claims_do_not() {
    let (sender, addresses) = mpsc::channel();
    let server = start(
        info()
            .before_subscription(Handler::new(move |request| {
                sender.send(request.remote_address().unwrap()).unwrap();
                Ok(())
            }))
            .trusted_proxies(vec![Ipv4Addr::LOCALHOST.into()]),
    );
    // A client with another address than nginx.
    let client: IpAddr = [127, 0, 0, 2].into();
    let seen_through = |nginx: &Nginx, fields: &str| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(client, 0).into()).unwrap();
        socket.connect(&nginx.address.into()).unwrap();
        let mut connection = Connection::over(socket.into());
        let target = poll("c", 0, "");
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n{fields}\r\n"));
        assert_eq!(connection.receive().status, 204);
        addresses.recv_timeout(LIMIT).unwrap()
    };
    let written = "X-Forwarded-For $remote_addr";
    // And as it has to be where there is another proxy before nginx.
    for tested in [written, "X-Forwarded-For $proxy_add_x_forwarded_for"] {
        let nginx = Nginx::changed(server.local_addr(), &[(written, tested)]);
        for claim in [
            "",
            "X-Forwarded-For: 192.0.2.1\r\n",
            "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 127.0.0.1\r\n",
            "X-Forwarded-For: 192.0.2.1,\r\n",
        ] {
            assert_eq!(seen_through(&nginx, claim), (client, 0).into(), "{claim}");
        }
    }
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn one_address_may_not_have_more_than_its_share_of_requests() {
    let (server, nginx) = proxied();
    let share: usize = directive("limit_conn per_address").parse().unwrap();
    let parked: Vec<Connection> = (0..share)
        .map(|_| {
            let mut connection = nginx.connect();
            connection.ask("GET", &poll("c", 60, ""));
            connection
        })
        .collect();
    until_parked(&server, share);
    let mut one_more = nginx.connect();
    one_more.ask("GET", &poll("c", 60, ""));
    assert_eq!(one_more.receive().status, 429);
    server.publish("c", "hello").unwrap();
    for mut connection in parked {
        assert_eq!(connection.receive().data(), ["hello"]);
    }
    one_more.ask("GET", &poll("c", 60, "&since_time=1"));
    assert_eq!(one_more.receive().data(), ["hello"]);
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn nginx_takes_an_answer_off_the_server_that_its_client_does_not_read() {
    let server = start(
        info()
            .write_timeout(Duration::from_secs(60))
            .broker(BrokerOptions::new().max_batch_size(64 << 20)),
    );
    let nginx = Nginx::before(server.local_addr());
    // More than all sockets on the way can hold.
    let data = "x".repeat(1_000_000);
    for _ in 0..32 {
        server.publish("c", &data).unwrap();
    }
    let mut connection = nginx.connect();
    connection.ask("GET", &poll("c", 60, "&since_time=1"));
    until("the poll is answered", || {
        server.statistics().delivered == 32
    });
    // All requests are done, and so the answer written.
    server.stop(LIMIT).unwrap();
    assert_eq!(connection.receive().data().len(), 32);
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn streams_through_nginx_lose_and_repeat_nothing() {
    const PAIRS: usize = 8;
    const EVENTS: usize = 500;
    let server = start(info().broker(BrokerOptions::new().events_per_category(EVENTS)));
    // So that nginx ends many connections on the way.
    let fewer = [("keepalive_requests 10000", "keepalive_requests 50")];
    let nginx = Nginx::changed(server.local_addr(), &fewer);
    let (events, publishes) = (nginx.url("/events"), nginx.url("/publish"));
    thread::scope(|scope| {
        for pair in 0..PAIRS {
            let (events, publishes) = (&events, &publishes);
            let category = format!("pair{pair}");
            let follower = Subscriber::new(events.clone(), &*category)
                .timeout(Duration::from_secs(2))
                .start_at(Cursor::Oldest);
            scope.spawn(move || {
                let numbers = follower.take(EVENTS).map(|event| event.expect("no gap"));
                let numbers: Vec<usize> = numbers.map(|event| event.decode().unwrap()).collect();
                assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>());
            });
            scope.spawn(move || {
                let publisher = Publisher::new(publishes.clone());
                for number in 0..EVENTS {
                    publisher.publish(&category, &number).unwrap();
                }
            });
        }
    });
    assert_eq!(server.statistics().published, (PAIRS * EVENTS) as u64);
    assert_eq!(server.statistics().gaps, 0);
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn nginx_passes_the_host_on_so_that_pages_of_the_site_publish_and_others_do_not() {
    let server = start(info().hosts(["events.example.com"]));
    let nginx = Nginx::before(server.local_addr());
    let length = BODY.len();
    for (host, origin, status) in [
        ("events.example.com", "https://events.example.com", 200),
        ("events.example.com", "https://evil.example", 403),
        ("evil.example", "https://evil.example", 421),
    ] {
        let mut connection = nginx.connect();
        connection.send(format!(
            "POST /publish HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Length: {length}\r\n\r\n{BODY}"
        ));
        assert_eq!(connection.receive().status, status, "{host} {origin}");
    }
    assert_eq!(server.statistics().published, 1);
    // A configuration that does not pass it on.
    let host = "    proxy_set_header Host $host;";
    let nginx = Nginx::changed(server.local_addr(), &[(host, "#")]);
    let mut connection = nginx.connect();
    connection.ask("GET", &poll("c", 0, ""));
    connection.receive().refuses(421, "long_polling");
}
