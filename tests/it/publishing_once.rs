//! A `Publisher` and a server over a network that loses and repeats requests and answers: each event is published once.

use crate::scripted::{self, ScriptedServer};
use crate::support;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use long_polling::testing::Relay;
use long_polling::{Cursor, Error, EventId, PublishRequest, PublishResponse, Publisher, Server};
use support::{LIMIT, server};

const SOON: Duration = Duration::from_millis(1);
/// Each spends most of its time waiting before another attempt.
const THREADS: usize = 8;

fn publisher(address: SocketAddr) -> Publisher {
    Publisher::new(format!("http://{address}/publish"))
        .backoff(SOON, SOON)
        .retry_for(LIMIT)
}

/// Publishes one event, or three in one publish.
fn publish(publisher: &Publisher, category: &str, count: usize) -> Result<PublishResponse, Error> {
    match count {
        1 => publisher.publish(category, "1"),
        _ => {
            let request = |number: usize| PublishRequest::new(category, number.to_string());
            publisher.publish_all(&(1..=count).map(request).collect::<Vec<_>>())
        }
    }
}

/// Asserts that the category has the events of one publish, and that the response has their ids.
fn assert_published_once(
    server: &Server,
    category: &str,
    count: usize,
    response: &PublishResponse,
) {
    let broker = server.broker();
    let batch = broker.subscribe(category, Cursor::Oldest, Duration::ZERO);
    let batch = batch.unwrap();
    let events = batch.events().iter();
    let texts: Vec<String> = events.map(|event| event.text().into_owned()).collect();
    let expected: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
    assert_eq!(texts, expected, "{category}");
    let ids: Vec<EventId> = batch.events().iter().map(|event| event.id()).collect();
    assert_eq!(response.ids(), ids, "{category}");
    assert_eq!(response.id, ids.last().copied(), "{category}");
}

fn was_repeated(response: &PublishResponse) -> bool {
    response.headers.get("Idempotency-Replayed") == Some("true")
}

#[test]
fn after_a_cut_at_any_byte_of_an_answer_the_event_is_published_once() {
    for count in [1, 3] {
        let server = server();
        let cut_at_every_nth_byte = |first: usize| {
            let relay = Relay::to(server.local_addr()).unwrap();
            for bytes in (first..).step_by(THREADS) {
                let category = bytes.to_string();
                relay.cut_next_response(bytes);
                let publisher = publisher(relay.local_addr());
                let response = publish(&publisher, &category, count).unwrap();
                assert_published_once(&server, &category, count, &response);
                if !was_repeated(&response) {
                    assert!(bytes > 100, "an answer of {bytes} bytes");
                    return;
                }
            }
        };
        let cut = &cut_at_every_nth_byte;
        thread::scope(|scope| {
            for first in 0..THREADS {
                scope.spawn(move || cut(first));
            }
        });
    }
}

/// The number of bytes of the request of a publish.
fn request_length(category: &str, count: usize) -> usize {
    let server = ScriptedServer::start([scripted::published()]);
    let _ = publish(&publisher(server.address), category, count).unwrap();
    let sent = server.request();
    let fields = sent.headers.iter();
    let fields: usize = fields
        .map(|(name, value)| name.len() + value.len() + 4)
        .sum();
    let line = format!("{} {} HTTP/1.1\r\n", sent.method, sent.target);
    line.len() + fields + 2 + sent.body.len()
}

#[test]
fn after_a_cut_at_any_byte_of_a_request_the_event_is_published_once() {
    for count in [1, 3] {
        let server = server();
        let length = request_length("0000", count);
        let cut_at_every_nth_byte = |first: usize| {
            let relay = Relay::to(server.local_addr()).unwrap();
            for bytes in (first..length).step_by(THREADS) {
                let category = format!("{bytes:04}");
                relay.cut_next_request(bytes);
                let publisher = publisher(relay.local_addr());
                let response = publish(&publisher, &category, count).unwrap();
                assert_published_once(&server, &category, count, &response);
            }
        };
        let cut = &cut_at_every_nth_byte;
        thread::scope(|scope| {
            for first in 0..THREADS {
                scope.spawn(move || cut(first));
            }
        });
        assert_eq!(server.statistics().published, (length * count) as u64);
    }
}

/// Which of the two answers a proxy passes on.
#[derive(Clone, Copy, Debug)]
enum Repetition {
    /// The second request begins after the first answer.
    After,
    /// Both requests are on their way at once.
    AtOnce,
}

/// Starts a proxy that sends each request twice, each time on a connection of its own, and passes on the answer to the second
/// one. It ends with the test program.
fn repeating_proxy(server: SocketAddr, repetition: Repetition) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            thread::spawn(move || pass_on_twice(client?, server, repetition));
        }
    });
    address
}

fn pass_on_twice(
    mut client: TcpStream,
    server: SocketAddr,
    repetition: Repetition,
) -> io::Result<()> {
    let request = read_request(&client)?;
    let mut first = TcpStream::connect(server)?;
    let mut second = TcpStream::connect(server)?;
    let (mut lost, mut answer) = (Vec::new(), Vec::new());
    first.write_all(&request)?;
    if let Repetition::After = repetition {
        first.read_to_end(&mut lost)?;
    }
    second.write_all(&request)?;
    second.read_to_end(&mut answer)?;
    if let Repetition::AtOnce = repetition {
        first.read_to_end(&mut lost)?;
    }
    assert!(!lost.is_empty() && !answer.is_empty());
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Both)
}

/// Reads a request with a body of known length, and has the server close the connection after it.
fn read_request(client: &TcpStream) -> io::Result<Vec<u8>> {
    let mut reader = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let lines = head.lines().map(str::to_ascii_lowercase);
    let length = lines
        .filter_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .next();
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    Ok([head.into_bytes(), body].concat())
}

#[test]
fn through_a_proxy_that_repeats_each_request_every_event_is_published_once() {
    for repetition in [Repetition::After, Repetition::AtOnce] {
        let server = server();
        let publisher = publisher(repeating_proxy(server.local_addr(), repetition));
        for number in 0..20 {
            for count in [1, 3] {
                let category = format!("{number} of {count}");
                let response = publish(&publisher, &category, count).unwrap();
                assert_published_once(&server, &category, count, &response);
                if let Repetition::After = repetition {
                    assert!(was_repeated(&response), "{category}");
                }
            }
        }
        assert_eq!(server.statistics().published, 80);
    }
}

#[test]
fn a_server_that_is_out_of_reach_after_it_published_the_event_answers_the_repetition_with_its_id() {
    let server = server();
    let relay = Relay::to(server.local_addr()).unwrap();
    // The answer is held back until the connections are closed.
    relay.delay_responses(Duration::from_secs(3600));
    let publisher = publisher(relay.local_addr());
    thread::scope(|scope| {
        let publishing = scope.spawn(|| publish(&publisher, "c", 1));
        support::until("published", || server.statistics().published == 1);
        relay.refuse_connections(true);
        relay.delay_responses(Duration::ZERO);
        relay.refuse_connections(false);
        let response = publishing.join().unwrap().unwrap();
        assert!(was_repeated(&response));
        assert_published_once(&server, "c", 1, &response);
    });
}

#[test]
fn a_program_that_was_ended_repeats_a_publish_with_the_key_that_it_saved() {
    let server = server();
    let publish = |data: &str| {
        let request = PublishRequest::new("c", data).idempotency_key("order 7");
        publisher(server.local_addr()).publish_with(&request)
    };
    let first = publish("1").unwrap();
    let second = publish("1").unwrap();
    assert!(!was_repeated(&first) && was_repeated(&second));
    assert_eq!(first.id, second.id);
    assert_published_once(&server, "c", 1, &second);
    let error = publish("2").unwrap_err();
    assert_eq!(error.status(), Some(422), "{error}");
    assert!(error.to_string().contains("\"order 7\""), "{error}");
}
