//! `Subscriber` against a scripted server: its position, its retries, and its end.

mod saving;
mod stopping;
mod waiting;

use crate::ports::ClosedPort;
use crate::scripted;

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use long_polling::{Cursor, ErrorKind, EventId, Subscriber};
use scripted::{LIMIT, ScriptedServer, Step, event, events, id, no_events, response};

fn subscriber(server: &ScriptedServer) -> Subscriber {
    Subscriber::new(server.url("/events"), "c")
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
}

fn position(number: u32) -> EventId {
    id(number).parse().unwrap()
}

/// The text of the next event.
fn text(subscriber: &mut Subscriber) -> String {
    let next = subscriber.next().expect("an event, not the end");
    next.expect("an event, not an error").text().into_owned()
}

#[test]
fn the_position_moves_with_responses_with_and_without_events() {
    let server =
        ScriptedServer::start([no_events(4), events(&[5, 6]), no_events(9), events(&[10])]);
    let mut subscriber = subscriber(&server);
    assert_eq!(subscriber.position(), None);
    assert_eq!(text(&mut subscriber), "event 5");
    assert_eq!(subscriber.position(), Some(position(5)));
    assert_eq!(text(&mut subscriber), "event 6");
    assert_eq!(subscriber.position(), Some(position(6)));
    assert_eq!(text(&mut subscriber), "event 10");

    for last_id in [None, Some(id(4)), Some(id(6)), Some(id(9))] {
        let sent = server.request();
        assert_eq!(
            sent.parameter("last_id"),
            last_id.as_deref(),
            "{}",
            sent.target
        );
        assert_eq!(sent.parameter("since_time"), None, "{}", sent.target);
        assert_eq!(sent.connection, 0, "one connection serves all polls");
    }
}

#[test]
fn after_the_last_event_the_position_is_that_of_the_response() {
    let body = format!(r#"{{"events":[{},{}],"gap":true}}"#, event(5), event(6));
    let with_gap = response(200, &[("Last-Event-ID", &id(8))], &body);
    let server = ScriptedServer::start([with_gap, events(&[9])]);
    let mut subscriber = subscriber(&server).start_at(Cursor::LastId(position(1)));
    assert!(subscriber.next().unwrap().unwrap_err().is_gap());
    assert_eq!(subscriber.position(), Some(position(1)));
    assert_eq!(text(&mut subscriber), "event 5");
    assert_eq!(subscriber.position(), Some(position(5)));
    assert_eq!(text(&mut subscriber), "event 6");
    assert_eq!(subscriber.position(), Some(position(8)));
    assert_eq!(text(&mut subscriber), "event 9");
    assert_eq!(server.request().parameter("last_id"), Some(&*id(1)));
    assert_eq!(server.request().parameter("last_id"), Some(&*id(8)));
}

#[test]
fn the_limit_is_a_parameter_of_the_poll() {
    let server = ScriptedServer::start([events(&[1]), events(&[2])]);
    let url = server.url("/events");
    for (limit, sent) in [(7, "7"), (0, "1")] {
        text(&mut Subscriber::new(&url, "c").limit(limit));
        assert_eq!(server.request().parameter("limit"), Some(sent));
    }
}

#[test]
fn there_is_no_poll_while_an_event_is_pending() {
    let server = ScriptedServer::start([events(&[1, 2]), events(&[3])]);
    let mut subscriber = subscriber(&server);
    text(&mut subscriber);
    text(&mut subscriber);
    assert_eq!(server.count_requests(), 1);
    text(&mut subscriber);
    assert_eq!(server.count_requests(), 1);
}

#[test]
fn a_subscriber_starts_at_its_cursor_and_follows_all_categories_in_one_poll() {
    for (cursor, query) in [
        (Cursor::Now, String::new()),
        (Cursor::Oldest, "&since_time=1".into()),
        (Cursor::SinceTime(7), "&since_time=7".into()),
        (Cursor::LastId(position(3)), format!("&last_id={}", id(3))),
    ] {
        let server = ScriptedServer::start([events(&[8])]);
        let mut subscriber = Subscriber::new(server.url("/events"), ["a", "b"])
            .timeout(Duration::from_secs(30))
            .header("X-Own", "1")
            .start_at(cursor);
        text(&mut subscriber);
        let sent = server.request();
        // With `Now` the first poll only learns the position, and does not wait.
        let timeout = if cursor == Cursor::Now { 0 } else { 30 };
        let expected = format!("/events?timeout={timeout}&category=a&category=b{query}");
        assert_eq!(sent.target, expected);
        assert_eq!(sent.header("X-Own"), Some("1"));
    }
}

#[test]
fn golongpolls_server_is_followed_by_times_and_ids() {
    let timeout = |timestamp: u32| {
        let body = format!(r#"{{"timeout":"no events before timeout","timestamp":{timestamp}}}"#);
        response(200, &[], &body)
    };
    let one = |number| response(200, &[], &format!(r#"{{"events":[{}]}}"#, event(number)));
    let refusal = || {
        response(
            200,
            &[],
            r#"{"error": "Invalid timeout arg.  Must be 1-180."}"#,
        )
    };
    let script = [refusal(), timeout(40), one(50), timeout(60), one(70)];
    let server = ScriptedServer::start(script);
    let mut subscriber = subscriber(&server);
    text(&mut subscriber);
    assert_eq!(subscriber.position(), Some(position(50)));
    text(&mut subscriber);
    assert_eq!(subscriber.position(), Some(position(70)));
    for (wait, time, last_id) in [
        // It refuses a timeout of zero, so the next poll has its shortest timeout.
        ("0", None, None),
        ("1", None, None),
        ("60", Some("40"), None),
        ("60", Some("50"), Some(id(50))),
        ("60", Some("60"), Some(id(50))),
    ] {
        let sent = server.request();
        assert_eq!(sent.parameter("timeout"), Some(wait));
        assert_eq!(sent.parameter("since_time"), time);
        assert_eq!(sent.parameter("last_id"), last_id.as_deref());
    }
}

#[test]
fn a_busy_server_is_polled_again_after_its_retry_after() {
    let server = ScriptedServer::start([
        response(503, &[("Retry-After", "1")], r#"{"error":"full"}"#),
        response(429, &[], ""),
        response(200, &[], "<html>"),
        Step::Close,
        events(&[1]),
    ]);
    let retried = Arc::new(Mutex::new(Vec::new()));
    let retries = retried.clone();
    let mut subscriber = subscriber(&server).on_retry(move |error| {
        retries.lock().unwrap().push((error.kind(), error.status()));
    });
    let began = Instant::now();
    assert_eq!(text(&mut subscriber), "event 1");
    assert!(began.elapsed() >= Duration::from_secs(1));
    let expected = [
        (ErrorKind::Refused, Some(503)),
        (ErrorKind::Refused, Some(429)),
        (ErrorKind::InvalidResponse, Some(200)),
        (ErrorKind::Unreachable, None),
    ];
    assert_eq!(*retried.lock().unwrap(), expected);
}

#[test]
fn a_server_that_starts_later_is_found() {
    let port = ClosedPort::new();
    let address = port.address;
    let (retry, retries) = mpsc::channel();
    let mut subscriber = Subscriber::new(format!("http://{address}/"), "c")
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
        .on_retry(move |error| retry.send(error.kind()).unwrap());
    let next = thread::spawn(move || text(&mut subscriber));
    for _ in 0..2 {
        let kind = retries.recv_timeout(LIMIT);
        assert_eq!(kind, Ok(ErrorKind::Unreachable));
    }
    let _server = ScriptedServer::on(port.listen(), [events(&[1])]);
    assert_eq!(next.join().unwrap(), "event 1");
}

#[test]
fn a_refusal_that_a_retry_would_not_change_ends_the_subscriber() {
    for status in [400, 401, 403, 404, 405, 410] {
        let server = ScriptedServer::start([
            events(&[1]),
            response(status, &[], r#"{"error":"because"}"#),
        ]);
        let mut subscriber = subscriber(&server);
        text(&mut subscriber);
        let error = subscriber.next().unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.status()),
            (ErrorKind::Refused, Some(status))
        );
        assert!(error.to_string().contains("because"), "{error}");
        assert!(subscriber.next().is_none());
        assert_eq!(subscriber.position(), Some(position(1)));
        assert_eq!(server.count_requests(), 2);
    }
}

#[test]
fn an_invalid_request_ends_the_subscriber() {
    let valid = "http://127.0.0.1:1/";
    let none: [&str; 0] = [];
    for mut subscriber in [
        Subscriber::new("nonsense", "c"),
        Subscriber::new(valid, ""),
        Subscriber::new(valid, none),
        Subscriber::new(valid, "c").header("a b", "c"),
    ] {
        let error = subscriber.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
        assert!(subscriber.next().is_none());
    }
}

#[test]
fn an_agent_that_is_shut_down_ends_the_subscriber() {
    let server = ScriptedServer::start([events(&[1])]);
    let agent = ureq::Agent::new_with_defaults();
    let mut subscriber = subscriber(&server).agent(agent.clone());
    text(&mut subscriber);
    agent.shutdown();
    let error = subscriber.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
    assert!(subscriber.next().is_none());
}

#[test]
fn a_gap_comes_before_the_events_after_it() {
    let gap = |number| {
        let body = format!(r#"{{"events":[{}],"gap":true}}"#, event(number));
        response(200, &[("Last-Event-ID", &id(number))], &body)
    };
    let server = ScriptedServer::start([gap(5), gap(9)]);
    let mut subscriber = subscriber(&server).start_at(Cursor::LastId(position(2)));
    for (before, after) in [(2, 5), (5, 9)] {
        let error = subscriber.next().unwrap().unwrap_err();
        assert!(error.is_gap());
        let message = error.to_string();
        assert!(
            message.contains("\"c\"") && message.contains(&id(before)),
            "{message}"
        );
        assert_eq!(subscriber.position(), Some(position(before)));
        assert_eq!(text(&mut subscriber), format!("event {after}"));
    }
}

#[test]
fn a_gap_before_the_oldest_event_is_not_an_error() {
    let gap = |number| {
        let body = format!(r#"{{"events":[{}],"gap":true}}"#, event(number));
        response(200, &[("Last-Event-ID", &id(number))], &body)
    };
    let server = ScriptedServer::start([response(503, &[], ""), gap(5), gap(9)]);
    let mut subscriber = subscriber(&server).start_at(Cursor::Oldest);
    assert_eq!(text(&mut subscriber), "event 5");
    assert!(subscriber.next().unwrap().unwrap_err().is_gap());
    assert_eq!(text(&mut subscriber), "event 9");
}

#[test]
fn a_server_that_never_holds_a_poll_is_not_polled_in_a_busy_loop() {
    for step in [
        || response(200, &[], r#"{"events":[]}"#),
        || response(200, &[], "{}"),
        || no_events(1),
    ] {
        let script = (0..9).map(|_| step()).chain([events(&[2])]);
        let server = ScriptedServer::start(script);
        let mut subscriber =
            subscriber(&server).backoff(Duration::from_millis(40), Duration::from_millis(40));
        let began = Instant::now();
        assert_eq!(text(&mut subscriber), "event 2");
        // Three of the nine responses cause no wait, and a wait may be shorter by a half.
        let took = began.elapsed();
        assert!(took >= 6 * Duration::from_millis(20), "{took:?}");
        assert_eq!(server.count_requests(), 10);
    }
}

/// A subscriber whose waits are 20 milliseconds or more, and the errors after which it retried.
fn with_retries(server: &ScriptedServer) -> (Subscriber, mpsc::Receiver<(ErrorKind, Option<u16>)>) {
    let (retried, retries) = mpsc::channel();
    let subscriber = subscriber(server)
        .backoff(Duration::from_millis(40), Duration::from_millis(40))
        .on_retry(move |error| retried.send((error.kind(), error.status())).unwrap());
    (subscriber, retries)
}

#[test]
fn a_stale_response_is_a_failed_poll_and_its_events_come_once() {
    let gap = || {
        let body = format!(r#"{{"events":[{},{}],"gap":true}}"#, event(5), event(6));
        response(200, &[("Last-Event-ID", &id(6))], &body)
    };
    // The same events, older ones, some of them, and the same with a gap.
    let stale = [events(&[5, 6]), events(&[3, 4]), events(&[6]), gap(), gap()];
    let script = [events(&[5, 6])].into_iter().chain(stale);
    let server = ScriptedServer::start(script.chain([events(&[6, 7])]));
    let (mut subscriber, retries) = with_retries(&server);
    assert_eq!(text(&mut subscriber), "event 5");
    assert_eq!(text(&mut subscriber), "event 6");
    let began = Instant::now();
    // The gap is reported once.
    assert!(subscriber.next().unwrap().unwrap_err().is_gap());
    assert_eq!(text(&mut subscriber), "event 7");
    let took = began.elapsed();
    assert!(took >= 5 * Duration::from_millis(20), "{took:?}");
    let stale = (ErrorKind::InvalidResponse, Some(200));
    assert_eq!(retries.try_iter().collect::<Vec<_>>(), [stale; 5]);
    server.request();
    for _ in 0..6 {
        assert_eq!(server.request().parameter("last_id"), Some(&*id(6)));
    }
}

#[test]
fn a_repeated_response_of_golongpoll_returns_its_events_once() {
    let random = |digit: u32| {
        let id = format!("d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f6{digit}");
        format!(r#"{{"timestamp":9,"category":"c","data":"event {digit}","id":"{id}"}}"#)
    };
    let list = |numbers: &[u32]| {
        let list: Vec<String> = numbers.iter().copied().map(random).collect();
        response(200, &[], &format!(r#"{{"events":[{}]}}"#, list.join(",")))
    };
    let server = ScriptedServer::start([list(&[7, 2]), list(&[7, 2]), list(&[7]), list(&[2, 5])]);
    let (subscriber, retries) = with_retries(&server);
    let texts = subscriber
        .take(3)
        .map(|event| event.unwrap().text().into_owned());
    assert_eq!(texts.collect::<Vec<_>>(), ["event 7", "event 2", "event 5"]);
    assert_eq!(retries.try_iter().count(), 2);
}

#[test]
fn there_is_a_wait_after_a_response_that_is_incomplete_or_not_json() {
    let cut =
        |head: &str| Step::SendAndClose(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{{\"events\":["));
    let script = [
        cut("Content-Length: 100"),
        cut("Connection: close"),
        cut("Transfer-Encoding: chunked"),
        response(200, &[], "<html>"),
        response(200, &[], "[]"),
        events(&[1]),
    ];
    let server = ScriptedServer::start(script);
    let (mut subscriber, retries) = with_retries(&server);
    let began = Instant::now();
    assert_eq!(text(&mut subscriber), "event 1");
    let took = began.elapsed();
    assert!(took >= 5 * Duration::from_millis(20), "{took:?}");
    assert_eq!(retries.try_iter().count(), 5);
}

#[test]
fn the_position_never_moves_back() {
    let server = ScriptedServer::start([no_events(6), no_events(4), events(&[7])]);
    let mut subscriber = subscriber(&server);
    assert_eq!(text(&mut subscriber), "event 7");
    server.request();
    for _ in 0..2 {
        assert_eq!(server.request().parameter("last_id"), Some(&*id(6)));
    }
}

#[test]
fn a_first_poll_that_fails_is_repeated_without_waiting() {
    let server = ScriptedServer::start([
        Step::Close,
        response(504, &[], ""),
        no_events(4),
        response(504, &[], ""),
        events(&[5]),
    ]);
    let mut subscriber = subscriber(&server);
    assert_eq!(text(&mut subscriber), "event 5");
    for (timeout, last_id) in [
        ("0", None),
        ("0", None),
        ("0", None),
        ("60", Some(id(4))),
        ("60", Some(id(4))),
    ] {
        let sent = server.request();
        assert_eq!(sent.parameter("timeout"), Some(timeout));
        assert_eq!(sent.parameter("last_id"), last_id.as_deref());
    }
}

#[test]
fn a_server_without_positions_gets_longer_timeouts_after_the_first_polls() {
    let refusal = || response(400, &[], r#"{"error":"timeout"}"#);
    let none = || response(204, &[], "");
    for (script, timeouts) in [
        (vec![none(), none(), events(&[1])], vec!["0", "60", "60"]),
        (vec![refusal(), none(), events(&[1])], vec!["0", "1", "60"]),
        (
            vec![refusal(), refusal(), events(&[1])],
            vec!["0", "1", "60"],
        ),
    ] {
        let server = ScriptedServer::start(script);
        let mut subscriber = subscriber(&server);
        assert_eq!(text(&mut subscriber), "event 1");
        for timeout in timeouts {
            assert_eq!(server.request().parameter("timeout"), Some(timeout));
        }
    }
    // A refusal of all three timeouts ends the subscriber.
    let server = ScriptedServer::start([refusal(), refusal(), refusal()]);
    let mut subscriber = subscriber(&server);
    let error = subscriber.next().unwrap().unwrap_err();
    assert_eq!(error.status(), Some(400));
    assert!(subscriber.next().is_none());
}
