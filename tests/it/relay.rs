//! `testing::Relay` in place of a server that is down, slow or busy, and of a network that loses requests.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Connection, LIMIT, info, until};
use long_polling::server::Response;
use long_polling::testing::Relay;
use long_polling::{Cursor, ErrorKind, PublishRequest, Publisher, Server, Subscriber, publish};

fn start() -> (Server, Relay, String) {
    let server = Server::start(info()).unwrap();
    let relay = Relay::to(server.local_addr()).unwrap();
    let url = format!("http://{}", relay.local_addr());
    (server, relay, url)
}

/// A publisher that does not retry.
fn one_attempt(url: &str) -> Publisher {
    Publisher::new(format!("{url}/publish")).retry_for(Duration::ZERO)
}

fn subscriber(url: &str) -> Subscriber {
    let soon = Duration::from_millis(1);
    Subscriber::new(format!("{url}/events"), "c")
        .start_at(Cursor::Oldest)
        .backoff(soon, soon)
}

#[test]
fn a_relay_that_refuses_connections_is_a_server_that_is_down_until_it_accepts_them_again() {
    let (server, relay, url) = start();
    let publisher = one_attempt(&url);
    publisher.publish("c", "kept alive").unwrap();
    relay.refuse_connections(true);
    for _ in 0..3 {
        let error = publisher.publish("c", "lost").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    }
    assert_eq!(server.statistics().published, 1);
    relay.refuse_connections(false);
    publisher.publish("c", "again").unwrap();
    assert_eq!(server.statistics().published, 2);
}

#[test]
fn a_relay_that_delays_responses_delays_each_and_passes_them_on_when_the_delay_ends() {
    let (server, relay, url) = start();
    let publisher = Publisher::new(format!("{url}/publish"));
    let delay = Duration::from_millis(100);
    relay.delay_responses(delay);
    for number in 1..=2 {
        let began = Instant::now();
        publisher.publish("c", &number).unwrap();
        assert!(began.elapsed() >= delay);
        assert_eq!(server.statistics().published, number);
    }
    relay.delay_responses(Duration::from_secs(3600));
    let publishing = std::thread::spawn(move || publisher.publish("c", &3).map(drop));
    until("published", || server.statistics().published == 3);
    assert!(!publishing.is_finished());
    relay.delay_responses(Duration::ZERO);
    publishing.join().unwrap().unwrap();
}

#[test]
fn a_relay_that_is_dropped_does_not_wait_for_its_delay() {
    let (server, relay, url) = start();
    relay.delay_responses(Duration::from_secs(3600));
    let publisher = one_attempt(&url);
    let publishing = std::thread::spawn(move || publisher.publish("c", "x").map(drop));
    until("published", || server.statistics().published == 1);
    drop(relay);
    publishing.join().unwrap().unwrap_err();
}

#[test]
fn a_request_that_the_relay_cuts_off_is_not_processed_and_the_next_one_is() {
    let (server, relay, url) = start();
    let publisher = one_attempt(&url);
    for after_bytes in [0, 1, 100] {
        relay.cut_next_request(after_bytes);
        let error = publisher.publish("c", "x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
        assert_eq!(server.statistics().published, 0);
    }
    // More bytes than the first request has.
    relay.cut_next_request(2000);
    let mut connection = Connection::open(relay.local_addr());
    connection.publish(r#"{"category":"c","data":"x"}"#);
    assert_eq!(connection.receive().status, 200);
    let long = "x".repeat(2000);
    connection.publish(format!(r#"{{"category":"c","data":"{long}"}}"#));
    assert!(connection.is_over());
    assert_eq!(server.statistics().published, 1);
}

#[test]
fn an_answer_of_the_relay_takes_the_place_of_the_servers_for_one_request_each() {
    let (server, relay, url) = start();
    for status in [503, 403] {
        let response = Response::error(status, "not now").with_header("Retry-After", "7");
        relay.answer_next_request(response);
    }
    assert_eq!(relay.unused_answers(), 2);
    // A body of some length, which the relay reads to its end.
    let request = PublishRequest::new("c", "x".repeat(100_000));
    let publish = || publish(&format!("{url}/publish"), LIMIT, None, &request, None, None);
    let response = publish().unwrap();
    assert_eq!(
        (response.status, &*response.body),
        (503, r#"{"error":"not now"}"#)
    );
    assert_eq!(response.headers.get("Retry-After"), Some("7"));
    assert_eq!(publish().unwrap().status, 403);
    assert_eq!(relay.unused_answers(), 0);
    assert_eq!(server.statistics().published, 0);
    assert_eq!(publish().unwrap().status, 200);
    assert_eq!(server.statistics().published, 1);
}

#[test]
fn an_answer_of_the_relay_has_its_status_fields_and_body_and_ends_a_connection_that_is_to_end() {
    let (_server, relay, _) = start();
    for (method, body) in [("GET", "{\"error\":\"busy\"}"), ("HEAD", "")] {
        relay.answer_next_request(Response::error(503, "busy").with_header("Retry-After", "3"));
        let mut stream = TcpStream::connect(relay.local_addr()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(
            stream,
            "{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, found) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
            "{head}"
        );
        assert!(head.contains("\r\nRetry-After: 3") && head.contains("\r\nConnection: close"));
        assert_eq!(found, body);
    }
}

#[test]
fn after_an_answer_of_the_relay_the_connection_goes_on_to_the_server() {
    let (server, relay, url) = start();
    let publisher = one_attempt(&url);
    for number in 1..=3 {
        relay.answer_next_request(Response::error(503, "busy"));
        let error = publisher.publish("c", "refused").unwrap_err();
        assert_eq!(
            (error.kind(), error.status()),
            (ErrorKind::Refused, Some(503))
        );
        publisher.publish("c", "accepted").unwrap();
        assert_eq!(server.statistics().published, number);
    }
}

#[test]
fn a_subscriber_reads_every_event_once_from_a_server_that_is_busy_down_and_slow() {
    let (server, relay, url) = start();
    relay.answer_next_request(Response::error(503, "busy").with_header("Retry-After", "0"));
    let mut events = subscriber(&url);
    server.publish("c", &1).unwrap();
    assert_eq!(events.next().unwrap().unwrap().data(), "1");
    assert_eq!(relay.unused_answers(), 0);
    relay.refuse_connections(true);
    server.publish("c", &2).unwrap();
    let reading =
        std::thread::spawn(move || events.next().unwrap().map(|event| event.data().to_owned()));
    relay.delay_responses(Duration::from_millis(20));
    relay.refuse_connections(false);
    assert_eq!(reading.join().unwrap().unwrap(), "2");
}
