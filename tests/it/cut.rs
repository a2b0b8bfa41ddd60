//! Answers that do not arrive whole, and polls again: nothing is lost and nothing comes twice.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use long_polling::testing::{Relay, wait_until_parked};
use long_polling::{Cursor, EventId, Server, Subscriber};
use support::{LIMIT, server};

const SOON: Duration = Duration::from_millis(1);

/// A subscriber behind the relay, and how often it has tried again.
fn subscriber(relay: &Relay, from: Cursor) -> (Subscriber, Arc<AtomicUsize>) {
    let retries = Arc::new(AtomicUsize::new(0));
    let count = retries.clone();
    let subscriber = Subscriber::new(format!("http://{}/events", relay.address()), ["a", "b"])
        .from(from)
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
        let relay = Relay::to(server.local_address()).unwrap();
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
    let relay = Relay::to(server.local_address()).unwrap();
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
