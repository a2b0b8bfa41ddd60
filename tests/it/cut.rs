//! Answers that do not arrive whole, and polls again: nothing is lost and nothing comes twice.

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

/// A subscriber behind the relay, and how often it has tried again.
fn subscriber(relay: &Relay, from: Cursor) -> (Subscriber, Arc<AtomicUsize>) {
    let retries = Arc::new(AtomicUsize::new(0));
    let count = retries.clone();
    let subscriber = Subscriber::new(format!("http://{}/events", relay.address()), ["a", "b"])
        .start_at(from)
        .backoff(SOON, SOON)
        .on_retry(move |_| _ = count.fetch_add(1, SeqCst));
    (subscriber, retries)
}

fn three(server: &Server) -> Vec<EventId> {
    let events = [("a", "1"), ("b", "2"), ("a", "3")];
    events
        .map(|(category, data)| server.publish(category, data).unwrap())
        .into()
}

fn next(subscriber: &mut Subscriber) -> EventId {
    subscriber.next().unwrap().unwrap().id()
}

#[test]
fn an_answer_cut_off_at_any_byte_is_asked_for_again_and_every_event_comes_once() {
    const THREADS: usize = 8;
    let server = server();
    let ids = three(&server);
    let cut_every_so_many_bytes = |first: usize| {
        let relay = Relay::to(server.local_addr()).unwrap();
        for bytes in (first..).step_by(THREADS) {
            relay.cut_next_answer(bytes);
            let (mut subscriber, retries) = subscriber(&relay, Cursor::Oldest);
            let got: Vec<EventId> = ids.iter().map(|_| next(&mut subscriber)).collect();
            assert_eq!(got, ids, "cut after {bytes} bytes");
            if retries.load(SeqCst) == 0 {
                assert!(bytes > 300, "an answer of {bytes} bytes");
                return;
            }
        }
    };
    // Each waits before it tries again, most of the time.
    let cut = &cut_every_so_many_bytes;
    thread::scope(|scope| {
        for first in 0..THREADS {
            scope.spawn(move || cut(first));
        }
    });
}

#[test]
fn an_answer_to_a_parked_poll_that_gets_lost_is_fetched_again() {
    let server = server();
    let relay = Relay::to(server.local_addr()).unwrap();
    let (mut subscriber, retries) = subscriber(&relay, Cursor::Oldest);
    for _ in 0..20 {
        let published = thread::scope(|scope| {
            let broker = server.broker();
            let publisher = scope.spawn(|| {
                assert!(wait_until_parked(broker, 1, LIMIT));
                relay.drop_next_answer();
                three(&server)
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

/// A proxy that gives up each poll that waits, while it is told to: with a 504 or by hanging up. It reports each.
struct Impatient {
    address: SocketAddr,
    cuts: Arc<AtomicBool>,
    cut: mpsc::Receiver<()>,
}

impl Impatient {
    fn before(server: SocketAddr, says: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = Arc::new(AtomicBool::new(true));
        let (report, cut) = mpsc::channel();
        let cutting = cuts.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (cuts, report) = (cutting.clone(), report.clone());
                thread::spawn(move || pass_or_cut(client?, server, says, &cuts, &report));
            }
        });
        Impatient { address, cuts, cut }
    }
}

fn pass_or_cut(
    mut client: TcpStream,
    server: SocketAddr,
    says: &str,
    cuts: &AtomicBool,
    report: &mpsc::Sender<()>,
) -> io::Result<()> {
    let mut head = String::new();
    let mut lines = BufReader::new(client.try_clone()?);
    while !head.ends_with("\r\n\r\n") && lines.read_line(&mut head)? > 0 {}
    let mut to_server = TcpStream::connect(server)?;
    // One request a connection, so that the answer ends with it.
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    to_server.write_all(head.as_bytes())?;
    if cuts.load(SeqCst) && !head.contains("timeout=0&") {
        to_server.shutdown(Shutdown::Both)?;
        client.write_all(says.as_bytes())?;
        client.shutdown(Shutdown::Both)?;
        let _ = report.send(());
        return Ok(());
    }
    io::copy(&mut to_server, &mut client)?;
    client.shutdown(Shutdown::Both)
}

/// What a subscriber is given, on a thread of its own.
fn texts(subscriber: Subscriber) -> mpsc::Receiver<String> {
    let (given, texts) = mpsc::channel();
    thread::spawn(move || {
        for event in subscriber {
            if given.send(event.unwrap().text().into_owned()).is_err() {
                break;
            }
        }
    });
    texts
}

fn six() -> Vec<String> {
    (0..6).map(|number| number.to_string()).collect()
}

/// Expects these texts, each in time.
fn arrive(texts: &mpsc::Receiver<String>, expected: &[String]) {
    for text in expected {
        assert_eq!(texts.recv_timeout(LIMIT).as_ref(), Ok(text));
    }
}

#[test]
fn a_subscriber_from_now_whose_polls_a_proxy_cuts_off_loses_nothing() {
    let gateway_timeout = "HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n";
    for says in [gateway_timeout, ""] {
        let server = server();
        let proxy = Impatient::before(server.local_addr(), says);
        let subscriber = Subscriber::new(format!("http://{}/events", proxy.address), "c")
            .backoff(Duration::from_millis(10), Duration::from_millis(20));
        let (expected, seen) = (six(), texts(subscriber));
        // Not one poll that waits is answered before all of them are published.
        for number in &expected {
            proxy.cut.recv_timeout(LIMIT).expect("a poll that is cut");
            server.publish("c", number).unwrap();
        }
        proxy.cuts.store(false, SeqCst);
        arrive(&seen, &expected);
    }
}

#[test]
fn a_subscriber_from_now_whose_server_is_killed_while_its_first_poll_waits_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("events.log"));
    let server = Server::start(info().file(file.clone())).unwrap();
    let same_port = info().address(server.local_addr().to_string());
    let relay = Relay::to(server.local_addr()).unwrap();
    let (restarted, restart) = mpsc::channel::<()>();
    let subscriber = Subscriber::new(format!("http://{}/events", relay.address()), "c")
        .backoff(SOON, SOON)
        // It comes back when all is published; from then on the channel is closed.
        .on_retry(move |_| _ = restart.recv_timeout(LIMIT));
    let (expected, seen) = (six(), texts(subscriber));
    assert!(wait_until_parked(server.broker(), 1, LIMIT));
    relay.drop_next_answer();
    server.stop(LIMIT).unwrap();
    let server = Server::start(same_port.file(file)).unwrap();
    for number in &expected {
        server.publish("c", number).unwrap();
    }
    drop(restarted);
    arrive(&seen, &expected);
}
