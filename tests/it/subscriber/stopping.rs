//! Stopping and dropping a `Subscriber`.

use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use long_polling::Subscriber;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::{position, subscriber, text};
use crate::scripted::{LIMIT, ScriptedServer, events, response};

/// Much shorter than what a stop has to interrupt. The time that the documentation promises is checked in `follow`.
const PROMPTLY: Duration = Duration::from_secs(5);

/// Stops a subscriber that is in `next` after `ready` has returned, and expects that it ends promptly and stays ended.
fn stops_promptly(mut subscriber: Subscriber, ready: impl FnOnce()) {
    let stopper = subscriber.stopper();
    let (ended, end) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let next = subscriber
            .next()
            .map(|next| next.map_err(|error| error.to_string()));
        ended.send((next, Instant::now())).unwrap();
        subscriber
    });
    ready();
    let began = Instant::now();
    stopper.stop();
    let (next, at) = end.recv_timeout(LIMIT).expect("an end");
    assert_eq!(next, None);
    let took = at.saturating_duration_since(began);
    assert!(took < PROMPTLY, "{took:?}");
    assert!(stopper.is_stopped());
    let mut subscriber = waiting.join().unwrap();
    assert!(subscriber.next().is_none());
    let began = Instant::now();
    drop(subscriber);
    assert!(began.elapsed() < PROMPTLY);
}

#[test]
fn stopping_ends_a_poll_and_closes_the_connection() {
    let server = ScriptedServer::start([]);
    stops_promptly(subscriber(&server), || drop(server.request()));
    assert_eq!(server.closed_connection(), 0);
}

#[test]
fn stopping_ends_the_wait_before_a_retry() {
    let server = ScriptedServer::start([response(503, &[("Retry-After", "300")], "")]);
    let (retry, retries) = mpsc::channel();
    let subscriber = subscriber(&server).on_retry(move |_| retry.send(()).unwrap());
    stops_promptly(subscriber, || retries.recv_timeout(LIMIT).unwrap());
}

/// A resolver that returns only after the test.
#[derive(Debug)]
struct HangingResolver {
    called: mpsc::Sender<()>,
    test_end: Mutex<mpsc::Receiver<()>>,
}

impl Resolver for HangingResolver {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let _ = self.called.send(());
        let _ = self.test_end.lock().unwrap().recv();
        Err(ureq::Error::HostNotFound)
    }
}

#[test]
fn stopping_ends_a_connect_that_hangs() {
    let (called, calls) = mpsc::channel();
    let (_running, test_end) = mpsc::channel();
    let resolver = HangingResolver {
        called,
        test_end: Mutex::new(test_end),
    };
    let agent = ureq::Agent::with_parts(<_>::default(), DefaultConnector::default(), resolver);
    let subscriber = Subscriber::new("http://localhost/", "c").agent(agent);
    stops_promptly(subscriber, || calls.recv_timeout(LIMIT).unwrap());
}

#[test]
fn a_stopped_subscriber_returns_no_pending_event() {
    let server = ScriptedServer::start([events(&[1, 2])]);
    let mut subscriber = subscriber(&server);
    text(&mut subscriber);
    subscriber.stopper().stop();
    assert!(subscriber.next().is_none());
    assert_eq!(subscriber.position(), Some(position(1)));
    assert_eq!(server.closed_connection(), 0);

    let server = ScriptedServer::start([]);
    let mut subscriber = Subscriber::new(server.url("/"), "c");
    subscriber.stopper().stop();
    assert!(subscriber.next().is_none());
    assert_eq!(server.count_requests(), 0);
}

#[test]
fn dropping_a_subscriber_closes_its_connection() {
    let server = ScriptedServer::start([events(&[1])]);
    let mut subscriber = subscriber(&server);
    let stopper = subscriber.stopper();
    text(&mut subscriber);
    drop(subscriber);
    assert_eq!(server.closed_connection(), 0);
    assert!(stopper.is_stopped());
}
