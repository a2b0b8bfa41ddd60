//! Incomplete responses and retried polls: no event is lost, and none comes twice.

use crate::support;

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{io, thread};

use long_polling::testing::{Relay, wait_until_parked};
use long_polling::{Cursor, EventId, FilePersistorInfo, Server, Subscriber};
use support::{LIMIT, info, server};

const SOON: Duration = Duration::from_millis(1);

/// A subscriber through the relay, and the number of its retries.
fn subscriber(relay: &Relay, from: Cursor) -> (Subscriber, Arc<AtomicUsize>) {
    let retries = Arc::new(AtomicUsize::new(0));
    let count = retries.clone();
    let subscriber = Subscriber::new(format!("http://{}/events", relay.local_addr()), ["a", "b"])
        .start_at(from)
        .backoff(SOON, SOON)
        .on_retry(move |_| _ = count.fetch_add(1, SeqCst));
    (subscriber, retries)
}

fn publish_three(server: &Server) -> Vec<EventId> {
    let events = [("a", "1"), ("b", "2"), ("a", "3")];
    events
        .map(|(category, data)| server.publish(category, data).unwrap())
        .into()
}

fn next(subscriber: &mut Subscriber) -> EventId {
    subscriber.next().unwrap().unwrap().id()
}

#[test]
fn after_a_cut_at_any_byte_of_a_response_every_event_comes_once() {
    const THREADS: usize = 8;
    let server = server();
    let ids = publish_three(&server);
    let cut_at_every_nth_byte = |first: usize| {
        let relay = Relay::to(server.local_addr()).unwrap();
        for bytes in (first..).step_by(THREADS) {
            relay.cut_next_response(bytes);
            let (mut subscriber, retries) = subscriber(&relay, Cursor::Oldest);
            let got: Vec<EventId> = ids.iter().map(|_| next(&mut subscriber)).collect();
            assert_eq!(got, ids, "cut after {bytes} bytes");
            if retries.load(SeqCst) == 0 {
                assert!(bytes > 300, "a response of {bytes} bytes");
                return;
            }
        }
    };
    // Several threads, because each spends most of its time waiting before a retry.
    let cut = &cut_at_every_nth_byte;
    thread::scope(|scope| {
        for first in 0..THREADS {
            scope.spawn(move || cut(first));
        }
    });
}

#[test]
fn a_lost_response_to_a_parked_poll_is_retrieved_again() {
    let server = server();
    let relay = Relay::to(server.local_addr()).unwrap();
    let (mut subscriber, retries) = subscriber(&relay, Cursor::Oldest);
    for _ in 0..20 {
        let published = thread::scope(|scope| {
            let broker = server.broker();
            let publisher = scope.spawn(|| {
                assert!(wait_until_parked(broker, 1, LIMIT));
                relay.drop_next_response();
                publish_three(&server)
            });
            let first = next(&mut subscriber);
            let published = publisher.join().unwrap();
            assert_eq!(first, published[0]);
            published
        });
        assert_eq!(next(&mut subscriber), published[1]);
        assert_eq!(next(&mut subscriber), published[2]);
    }
    assert_eq!(retries.load(SeqCst), 20);
}

/// A proxy that ends each poll with a timeout, by a 504 or by closing the connection, as long as `enabled` is true.
struct CuttingProxy {
    address: SocketAddr,
    enabled: Arc<AtomicBool>,
    /// One message for each poll that was cut.
    cuts: mpsc::Receiver<()>,
}

impl CuttingProxy {
    fn before(server: SocketAddr, response: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let enabled = Arc::new(AtomicBool::new(true));
        let (cut, cuts) = mpsc::channel();
        let cutting = enabled.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (enabled, cut) = (cutting.clone(), cut.clone());
                thread::spawn(move || forward_or_cut(client?, server, response, &enabled, &cut));
            }
        });
        CuttingProxy {
            address,
            enabled,
            cuts,
        }
    }
}

fn forward_or_cut(
    mut client: TcpStream,
    server: SocketAddr,
    response: &str,
    enabled: &AtomicBool,
    cut: &mpsc::Sender<()>,
) -> io::Result<()> {
    let mut head = String::new();
    let mut lines = BufReader::new(client.try_clone()?);
    while !head.ends_with("\r\n\r\n") && lines.read_line(&mut head)? > 0 {}
    let mut to_server = TcpStream::connect(server)?;
    // One request for each connection, so that the response ends with the connection.
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    to_server.write_all(head.as_bytes())?;
    if enabled.load(SeqCst) && !head.contains("timeout=0&") {
        to_server.shutdown(Shutdown::Both)?;
        client.write_all(response.as_bytes())?;
        client.shutdown(Shutdown::Both)?;
        let _ = cut.send(());
        return Ok(());
    }
    io::copy(&mut to_server, &mut client)?;
    client.shutdown(Shutdown::Both)
}

/// Reads the texts of a subscriber's events on a thread of its own.
fn texts(subscriber: Subscriber) -> mpsc::Receiver<String> {
    let (text, texts) = mpsc::channel();
    thread::spawn(move || {
        for event in subscriber {
            if text.send(event.unwrap().text().into_owned()).is_err() {
                break;
            }
        }
    });
    texts
}

fn six_texts() -> Vec<String> {
    (0..6).map(|number| number.to_string()).collect()
}

/// Expects these texts.
fn expect_texts(texts: &mpsc::Receiver<String>, expected: &[String]) {
    for text in expected {
        assert_eq!(texts.recv_timeout(LIMIT).as_ref(), Ok(text));
    }
}

#[test]
fn a_subscriber_from_now_loses_no_event_when_a_proxy_cuts_its_polls() {
    let gateway_timeout = "HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n";
    for response in [gateway_timeout, ""] {
        let server = server();
        let proxy = CuttingProxy::before(server.local_addr(), response);
        let subscriber = Subscriber::new(format!("http://{}/events", proxy.address), "c")
            .backoff(Duration::from_millis(10), Duration::from_millis(20));
        let (expected, seen) = (six_texts(), texts(subscriber));
        // No poll with a timeout gets its response before all events are published.
        for number in &expected {
            proxy.cuts.recv_timeout(LIMIT).expect("a poll that is cut");
            server.publish("c", number).unwrap();
        }
        proxy.enabled.store(false, SeqCst);
        expect_texts(&seen, &expected);
    }
}

#[test]
fn a_subscriber_from_now_loses_no_event_when_its_server_restarts_during_the_first_poll() {
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("events.log"));
    let server = Server::start(info().file(file.clone())).unwrap();
    let same_port = info().address(server.local_addr().to_string());
    let relay = Relay::to(server.local_addr()).unwrap();
    let (not_published, published) = mpsc::channel::<()>();
    let subscriber = Subscriber::new(format!("http://{}/events", relay.local_addr()), "c")
        .backoff(SOON, SOON)
        // The first retry comes after all events are published. Then the channel is closed.
        .on_retry(move |_| _ = published.recv_timeout(LIMIT));
    let (expected, seen) = (six_texts(), texts(subscriber));
    assert!(wait_until_parked(server.broker(), 1, LIMIT));
    relay.drop_next_response();
    server.stop(LIMIT).unwrap();
    let server = Server::start(same_port.file(file)).unwrap();
    for number in &expected {
        server.publish("c", number).unwrap();
    }
    drop(not_published);
    expect_texts(&seen, &expected);
}
