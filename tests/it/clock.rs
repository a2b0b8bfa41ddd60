//! Following over HTTP with a clock that the tests set: times as cursors, and events that expire.

use crate::support;

use std::thread;
use std::time::Duration;

use long_polling::server::TimeoutAnswer;
use long_polling::testing::{self, ManualClock, wait_until_parked};
use long_polling::{BrokerOptions, Cursor, EventId, Server, ServerInfo, Subscriber};
use support::{Connection, LIMIT, info, poll};

const START: u64 = 1_700_000_000_000;
const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn start(info: ServerInfo, clock: &ManualClock) -> Server {
    testing::start(info, clock).expect("a server")
}

/// A server whose events expire after an hour.
fn expiring(clock: &ManualClock) -> Server {
    let broker = BrokerOptions::new().event_ttl(HOUR);
    start(info().broker(broker), clock)
}

fn subscriber(server: &Server, from: Cursor) -> Subscriber {
    Subscriber::new(format!("http://{}/events", server.local_addr()), "c").start_at(from)
}

fn text(subscriber: &mut Subscriber) -> String {
    let next = subscriber.next().expect("an event, not the end");
    next.expect("an event, not an error").text().into_owned()
}

#[test]
fn a_subscriber_starts_after_the_millisecond_that_it_names() {
    let clock = ManualClock::at(START);
    let server = start(info(), &clock);
    server.publish("c", "first").unwrap();
    server.publish("c", "in the same millisecond").unwrap();
    clock.advance(MILLISECOND);
    server.publish("c", "in the next").unwrap();
    for (time, expected) in [
        (
            START - 1,
            &["first", "in the same millisecond", "in the next"][..],
        ),
        (START, &["in the next"]),
    ] {
        let mut subscriber = subscriber(&server, Cursor::SinceTime(time));
        for expected in expected {
            assert_eq!(text(&mut subscriber), *expected);
        }
    }
}

#[test]
fn golongpolls_timeout_answer_has_a_time_that_misses_no_event_of_its_millisecond() {
    let clock = ManualClock::at(START);
    let timeout_answer = TimeoutAnswer::Golongpoll;
    let server = start(info().timeout_answer(timeout_answer), &clock);
    let mut connection = Connection::to(&server);
    connection.ask("GET", &poll("c", 0, "&since_time=1&last_id="));
    let nothing = connection.receive();
    assert_eq!(nothing.status, 200);
    nothing.has_the_promised_headers();
    let time = START - 1;
    let expected = format!(r#"{{"timeout":"no events before timeout","timestamp":{time}}}"#);
    assert_eq!(nothing.text(), expected);
    assert!(nothing.position().parse::<EventId>().is_ok());
    server.publish("c", "between two polls").unwrap();
    let since = format!("&since_time={time}&last_id=");
    connection.ask("GET", &poll("c", 60, &since));
    assert_eq!(connection.receive().data(), ["between two polls"]);
    // Never a time before the caller's own.
    let later = START + 1;
    connection.ask("GET", &poll("c", 0, &format!("&since_time={later}")));
    assert_eq!(connection.receive().json()["timestamp"], later);
}

#[test]
fn events_that_expired_while_a_subscriber_was_away_are_a_gap() {
    let clock = ManualClock::at(START);
    let server = expiring(&clock);
    let seen = server.publish("c", "seen").unwrap();
    server.publish("c", "missed").unwrap();
    clock.advance(HOUR);
    server.publish("c", "new").unwrap();
    let mut in_time = subscriber(&server, Cursor::LastId(seen));
    assert_eq!(text(&mut in_time), "missed");
    clock.advance(MILLISECOND);
    let mut late = subscriber(&server, Cursor::LastId(seen));
    assert!(late.next().unwrap().unwrap_err().is_gap());
    assert_eq!(text(&mut late), "new");
    // This subscriber had fetched the event before it expired.
    assert_eq!(text(&mut in_time), "new");
}

#[test]
fn a_subscriber_that_is_parked_while_events_expire_misses_nothing() {
    let clock = ManualClock::at(START);
    let server = expiring(&clock);
    server.publish("c", "old").unwrap();
    let mut subscriber = subscriber(&server, Cursor::Oldest);
    assert_eq!(text(&mut subscriber), "old");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| text(&mut subscriber));
        assert!(wait_until_parked(server.broker(), 1, LIMIT));
        clock.advance(2 * HOUR);
        server.publish("c", "new").unwrap();
        assert_eq!(waiting.join().unwrap(), "new");
    });
    assert_eq!(server.statistics().gaps, 0);
}
