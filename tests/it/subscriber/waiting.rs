//! Waiting for an event of a `Subscriber` for some time, or not at all.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use long_polling::{Cursor, ErrorKind, Event, Subscriber};

use super::{position, subscriber, text};
use crate::scripted::{LIMIT, ScriptedServer, event, events, response};
use crate::support;

const SHORT: Duration = Duration::from_millis(20);
/// Far longer than `SHORT`, and far shorter than a poll.
const PROMPTLY: Duration = Duration::from_secs(5);

/// The text of an event that comes within the time.
fn text_within(subscriber: &mut Subscriber, timeout: Duration) -> Option<String> {
    let next = subscriber.next_timeout(timeout).expect("not the end");
    let event = next.expect("no error");
    event.map(|event| event.text().into_owned())
}

#[test]
fn a_poll_goes_on_after_the_timeout_and_a_later_call_takes_its_event() {
    let server = support::server();
    let url = format!("http://{}/events", server.local_addr());
    let mut subscriber = Subscriber::new(url, "c").start_at(Cursor::Oldest);
    let began = Instant::now();
    assert_eq!(text_within(&mut subscriber, SHORT), None);
    assert!(began.elapsed() >= SHORT);
    support::until_parked(&server, 1);
    assert_eq!(text_within(&mut subscriber, SHORT), None);
    assert!(subscriber.try_next().unwrap().unwrap().is_none());
    // It is one poll still.
    assert_eq!(server.statistics().parked, 1);
    assert_eq!(server.statistics().timed_out, 0);
    let id = server.publish("c", "late").unwrap();
    assert_eq!(text_within(&mut subscriber, LIMIT).as_deref(), Some("late"));
    assert_eq!(subscriber.position(), Some(id));
    // `next` takes over as well.
    assert_eq!(text_within(&mut subscriber, SHORT), None);
    support::until_parked(&server, 1);
    server.publish("c", "later").unwrap();
    assert_eq!(text(&mut subscriber), "later");
    assert_eq!(server.statistics().timed_out, 0);
}

#[test]
fn an_event_of_an_earlier_poll_is_returned_at_once() {
    let server = ScriptedServer::start([events(&[1, 2])]);
    let mut subscriber = subscriber(&server);
    assert_eq!(
        text_within(&mut subscriber, LIMIT).as_deref(),
        Some("event 1")
    );
    let next = subscriber.try_next().unwrap().unwrap();
    assert_eq!(next.as_ref().map(Event::text).as_deref(), Some("event 2"));
    assert_eq!(server.count_requests(), 1);
    let began = Instant::now();
    for _ in 0..3 {
        assert!(subscriber.try_next().unwrap().unwrap().is_none());
    }
    assert!(began.elapsed() < PROMPTLY);
    assert_eq!(
        server.request().parameter("last_id"),
        Some(&*crate::scripted::id(2))
    );
    assert_eq!(server.count_requests(), 0, "one poll for all of the calls");
}

#[test]
fn a_wait_before_a_retry_is_time_without_an_event() {
    let server = ScriptedServer::start([response(503, &[("Retry-After", "300")], "")]);
    let (retry, retries) = mpsc::channel();
    let mut subscriber = subscriber(&server).on_retry(move |_| retry.send(()).unwrap());
    let began = Instant::now();
    support::until("the poll has failed", || {
        assert_eq!(text_within(&mut subscriber, SHORT), None);
        retries.try_recv().is_ok()
    });
    assert_eq!(text_within(&mut subscriber, SHORT), None);
    assert!(began.elapsed() < LIMIT);
    assert_eq!(server.count_requests(), 1);
}

#[test]
fn a_retry_happens_in_later_calls() {
    let server = ScriptedServer::start([response(503, &[], ""), events(&[7])]);
    let mut subscriber = subscriber(&server);
    let mut came = None;
    support::until("the event has come", || {
        came = text_within(&mut subscriber, Duration::from_millis(1));
        came.is_some()
    });
    assert_eq!(came.as_deref(), Some("event 7"));
}

#[test]
fn errors_and_the_end_are_those_of_next() {
    let body = format!(r#"{{"events":[{}],"gap":true}}"#, event(5));
    let refusal = response(403, &[], r#"{"error":"no"}"#);
    let server = ScriptedServer::start([response(200, &[], &body), refusal]);
    let mut subscriber = subscriber(&server).start_at(position(1));
    let gap = subscriber.next_timeout(LIMIT).unwrap().unwrap_err();
    assert!(gap.is_gap());
    assert_eq!(
        text_within(&mut subscriber, SHORT).as_deref(),
        Some("event 5")
    );
    let refused = subscriber.next_timeout(LIMIT).unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(subscriber.next_timeout(SHORT).is_none());
    assert!(subscriber.try_next().is_none());
}

#[test]
fn a_stop_ends_the_wait() {
    let server = ScriptedServer::start([]);
    let mut subscriber = subscriber(&server);
    let stopper = subscriber.stopper();
    let waiting = thread::spawn(move || subscriber.next_timeout(Duration::MAX).is_none());
    server.request();
    stopper.stop();
    assert!(waiting.join().unwrap(), "the end, not a timeout");
}
