//! The loop of a subscriber: its position, its retries, and its end.

use crate::scripted;

use std::net::TcpListener;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use long_polling::{Cursor, ErrorKind, EventId, Subscriber};
use scripted::{LIMIT, Reply, Server, answer, event, events, id, nothing};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// 100 ms are promised; the rest is for a machine that is busy with other tests.
const PROMPTLY: Duration = Duration::from_millis(500);

fn subscriber(server: &Server) -> Subscriber {
    Subscriber::new(server.url("/events"), "c")
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
}

fn position(number: u32) -> EventId {
    id(number).parse().unwrap()
}

/// The next event's text.
fn text(subscriber: &mut Subscriber) -> String {
    let next = subscriber.next().expect("an event, not the end");
    next.expect("an event, not an error").text().into_owned()
}

/// Stops a subscriber that is in `next`, and expects that it ends at once, and for good.
fn stops_promptly(mut subscriber: Subscriber, once: impl FnOnce()) {
    let stopper = subscriber.stopper();
    let (ended, end) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let next = subscriber
            .next()
            .map(|next| next.map_err(|error| error.to_string()));
        ended.send((next, Instant::now())).unwrap();
        subscriber
    });
    once();
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
fn the_position_is_kept_over_answers_with_and_without_events() {
    let server = Server::start([nothing(4), events(&[5, 6]), nothing(9), events(&[10])]);
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
fn after_the_last_event_of_an_answer_the_position_is_where_the_answer_ends() {
    let body = format!(r#"{{"events":[{},{}],"gap":true}}"#, event(5), event(6));
    let with_gap = answer(200, &[("Last-Event-ID", &id(8))], &body);
    let server = Server::start([with_gap, events(&[9])]);
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
fn the_most_events_of_a_poll_are_asked_for() {
    let server = Server::start([events(&[1]), events(&[2])]);
    let url = server.url("/events");
    for (limit, asked) in [(7, "7"), (0, "1")] {
        text(&mut Subscriber::new(&url, "c").limit(limit));
        assert_eq!(server.request().parameter("limit"), Some(asked));
    }
}

#[test]
fn nothing_is_polled_while_an_event_is_held() {
    let server = Server::start([events(&[1, 2]), events(&[3])]);
    let mut subscriber = subscriber(&server);
    text(&mut subscriber);
    text(&mut subscriber);
    assert_eq!(server.pending(), 1);
    text(&mut subscriber);
    assert_eq!(server.pending(), 1);
}

#[test]
fn a_subscriber_starts_where_it_is_told_and_follows_all_categories_at_once() {
    for (cursor, query) in [
        (Cursor::Now, String::new()),
        (Cursor::Oldest, "&since_time=1".into()),
        (Cursor::SinceTime(7), "&since_time=7".into()),
        (Cursor::LastId(position(3)), format!("&last_id={}", id(3))),
    ] {
        let server = Server::start([events(&[8])]);
        let mut subscriber = Subscriber::new(server.url("/events"), ["a", "b"])
            .timeout(Duration::from_secs(30))
            .header("X-Own", "1")
            .start_at(cursor);
        text(&mut subscriber);
        let sent = server.request();
        // From now on there is no position yet: it is asked for without waiting.
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
        answer(200, &[], &body)
    };
    let one = |number| answer(200, &[], &format!(r#"{{"events":[{}]}}"#, event(number)));
    let refusal = || {
        answer(
            200,
            &[],
            r#"{"error": "Invalid timeout arg.  Must be 1-180."}"#,
        )
    };
    let script = [refusal(), timeout(40), one(50), timeout(60), one(70)];
    let server = Server::start(script);
    let mut subscriber = subscriber(&server);
    text(&mut subscriber);
    assert_eq!(subscriber.position(), Some(position(50)));
    text(&mut subscriber);
    assert_eq!(subscriber.position(), Some(position(70)));
    for (wait, time, last_id) in [
        // It refuses to answer at once, and is asked for its shortest wait.
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
fn a_server_that_is_busy_is_asked_again_when_it_said() {
    let server = Server::start([
        answer(503, &[("Retry-After", "1")], r#"{"error":"full"}"#),
        answer(429, &[], ""),
        answer(200, &[], "<html>"),
        Reply::HangUp,
        events(&[1]),
    ]);
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let mut subscriber = subscriber(&server).on_retry(move |error| {
        tell.lock().unwrap().push((error.kind(), error.status()));
    });
    let began = Instant::now();
    assert_eq!(text(&mut subscriber), "event 1");
    assert!(began.elapsed() >= Duration::from_secs(1));
    let expected = [
        (ErrorKind::Refused, Some(503)),
        (ErrorKind::Refused, Some(429)),
        (ErrorKind::InvalidAnswer, Some(200)),
        (ErrorKind::Unreachable, None),
    ];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn a_server_that_comes_up_later_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (refused, retries) = mpsc::channel();
    let mut subscriber = Subscriber::new(format!("http://{address}/"), "c")
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
        .on_retry(move |error| refused.send(error.kind()).unwrap());
    let next = thread::spawn(move || text(&mut subscriber));
    for _ in 0..2 {
        let kind = retries.recv_timeout(LIMIT);
        assert_eq!(kind, Ok(ErrorKind::Unreachable));
    }
    let _server = Server::on(TcpListener::bind(address).unwrap(), [events(&[1])]);
    assert_eq!(next.join().unwrap(), "event 1");
}

#[test]
fn a_refusal_that_asking_again_cannot_mend_ends_the_subscriber() {
    for status in [400, 401, 403, 404, 405, 410] {
        let server = Server::start([events(&[1]), answer(status, &[], r#"{"error":"because"}"#)]);
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
        assert_eq!(server.pending(), 2);
    }
}

#[test]
fn what_cannot_be_asked_ends_the_subscriber() {
    let fine = "http://127.0.0.1:1/";
    let none: [&str; 0] = [];
    for mut subscriber in [
        Subscriber::new("nonsense", "c"),
        Subscriber::new(fine, ""),
        Subscriber::new(fine, none),
        Subscriber::new(fine, "c").header("a b", "c"),
    ] {
        let error = subscriber.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
        assert!(subscriber.next().is_none());
    }
}

#[test]
fn an_agent_that_was_shut_down_ends_the_subscriber() {
    let server = Server::start([events(&[1])]);
    let agent = ureq::Agent::new_with_defaults();
    let mut subscriber = subscriber(&server).agent(agent.clone());
    text(&mut subscriber);
    agent.shutdown();
    let error = subscriber.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
    assert!(subscriber.next().is_none());
}

#[test]
fn a_gap_is_told_before_the_events_that_follow_it() {
    let gap = |number| {
        let body = format!(r#"{{"events":[{}],"gap":true}}"#, event(number));
        answer(200, &[("Last-Event-ID", &id(number))], &body)
    };
    let server = Server::start([gap(5), gap(9)]);
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
fn from_the_oldest_on_the_first_gap_is_none() {
    let gap = |number| {
        let body = format!(r#"{{"events":[{}],"gap":true}}"#, event(number));
        answer(200, &[("Last-Event-ID", &id(number))], &body)
    };
    let server = Server::start([answer(503, &[], ""), gap(5), gap(9)]);
    let mut subscriber = subscriber(&server).start_at(Cursor::Oldest);
    assert_eq!(text(&mut subscriber), "event 5");
    assert!(subscriber.next().unwrap().unwrap_err().is_gap());
    assert_eq!(text(&mut subscriber), "event 9");
}

#[test]
fn a_server_that_never_holds_a_poll_is_not_asked_in_a_tight_loop() {
    for reply in [
        || answer(200, &[], r#"{"events":[]}"#),
        || answer(200, &[], "{}"),
        || nothing(1),
    ] {
        let script = (0..9).map(|_| reply()).chain([events(&[2])]);
        let server = Server::start(script);
        let mut subscriber =
            subscriber(&server).backoff(Duration::from_millis(40), Duration::from_millis(40));
        let began = Instant::now();
        assert_eq!(text(&mut subscriber), "event 2");
        // Of nine waits three may be left out, and each may be less by a half.
        let took = began.elapsed();
        assert!(took >= 6 * Duration::from_millis(20), "{took:?}");
        assert_eq!(server.pending(), 10);
    }
}

/// A subscriber whose waits are 20 milliseconds or more, and the kinds of error that it retried.
fn counted(server: &Server) -> (Subscriber, mpsc::Receiver<(ErrorKind, Option<u16>)>) {
    let (retried, retries) = mpsc::channel();
    let subscriber = subscriber(server)
        .backoff(Duration::from_millis(40), Duration::from_millis(40))
        .on_retry(move |error| retried.send((error.kind(), error.status())).unwrap());
    (subscriber, retries)
}

#[test]
fn an_answer_that_brings_nothing_new_is_a_failed_poll_and_its_events_come_once() {
    let gap = || {
        let body = format!(r#"{{"events":[{},{}],"gap":true}}"#, event(5), event(6));
        answer(200, &[("Last-Event-ID", &id(6))], &body)
    };
    // The same again, older ones, a part of them, and the same with a gap.
    let stale = [events(&[5, 6]), events(&[3, 4]), events(&[6]), gap(), gap()];
    let script = [events(&[5, 6])].into_iter().chain(stale);
    let server = Server::start(script.chain([events(&[6, 7])]));
    let (mut subscriber, retries) = counted(&server);
    assert_eq!(text(&mut subscriber), "event 5");
    assert_eq!(text(&mut subscriber), "event 6");
    let began = Instant::now();
    // The gap says that something was lost: that is passed on, once.
    assert!(subscriber.next().unwrap().unwrap_err().is_gap());
    assert_eq!(text(&mut subscriber), "event 7");
    let took = began.elapsed();
    assert!(took >= 5 * Duration::from_millis(20), "{took:?}");
    let stale = (ErrorKind::InvalidAnswer, Some(200));
    assert_eq!(retries.try_iter().collect::<Vec<_>>(), [stale; 5]);
    server.request();
    for _ in 0..6 {
        assert_eq!(server.request().parameter("last_id"), Some(&*id(6)));
    }
}

#[test]
fn golongpolls_answer_given_again_brings_its_events_once() {
    let random = |digit: u32| {
        let id = format!("d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f6{digit}");
        format!(r#"{{"timestamp":9,"category":"c","data":"event {digit}","id":"{id}"}}"#)
    };
    let list = |numbers: &[u32]| {
        let list: Vec<String> = numbers.iter().copied().map(random).collect();
        answer(200, &[], &format!(r#"{{"events":[{}]}}"#, list.join(",")))
    };
    let server = Server::start([list(&[7, 2]), list(&[7, 2]), list(&[7]), list(&[2, 5])]);
    let (subscriber, retries) = counted(&server);
    let texts = subscriber
        .take(3)
        .map(|event| event.unwrap().text().into_owned());
    assert_eq!(texts.collect::<Vec<_>>(), ["event 7", "event 2", "event 5"]);
    assert_eq!(retries.try_iter().count(), 2);
}

#[test]
fn an_answer_that_is_cut_off_or_no_json_is_not_asked_for_again_at_full_speed() {
    let cut = |head: &str| Reply::Last(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{{\"events\":["));
    let script = [
        cut("Content-Length: 100"),
        cut("Connection: close"),
        cut("Transfer-Encoding: chunked"),
        answer(200, &[], "<html>"),
        answer(200, &[], "[]"),
        events(&[1]),
    ];
    let server = Server::start(script);
    let (mut subscriber, retries) = counted(&server);
    let began = Instant::now();
    assert_eq!(text(&mut subscriber), "event 1");
    let took = began.elapsed();
    assert!(took >= 5 * Duration::from_millis(20), "{took:?}");
    assert_eq!(retries.try_iter().count(), 5);
}

#[test]
fn a_position_that_goes_back_is_not_taken() {
    let server = Server::start([nothing(6), nothing(4), events(&[7])]);
    let mut subscriber = subscriber(&server);
    assert_eq!(text(&mut subscriber), "event 7");
    server.request();
    for _ in 0..2 {
        assert_eq!(server.request().parameter("last_id"), Some(&*id(6)));
    }
}

#[test]
fn a_first_poll_that_is_cut_is_asked_again_at_once_answered_and_then_parked() {
    let server = Server::start([
        Reply::HangUp,
        answer(504, &[], ""),
        nothing(4),
        answer(504, &[], ""),
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
fn a_server_that_tells_no_position_is_followed_from_now_as_well_as_it_can_be() {
    let refusal = || answer(400, &[], r#"{"error":"timeout"}"#);
    let none = || answer(204, &[], "");
    for (script, timeouts) in [
        (vec![none(), none(), events(&[1])], vec!["0", "60", "60"]),
        (vec![refusal(), none(), events(&[1])], vec!["0", "1", "60"]),
        (
            vec![refusal(), refusal(), events(&[1])],
            vec!["0", "1", "60"],
        ),
    ] {
        let server = Server::start(script);
        let mut subscriber = subscriber(&server);
        assert_eq!(text(&mut subscriber), "event 1");
        for timeout in timeouts {
            assert_eq!(server.request().parameter("timeout"), Some(timeout));
        }
    }
    // What the wait has nothing to do with ends it, once it was asked with each.
    let server = Server::start([refusal(), refusal(), refusal()]);
    let mut subscriber = subscriber(&server);
    let error = subscriber.next().unwrap().unwrap_err();
    assert_eq!(error.status(), Some(400));
    assert!(subscriber.next().is_none());
}

#[test]
fn stopping_ends_a_poll_and_hangs_up() {
    let server = Server::start([]);
    stops_promptly(subscriber(&server), || drop(server.request()));
    assert_eq!(server.hang_up(), 0);
}

#[test]
fn stopping_ends_a_wait_before_the_next_attempt() {
    let server = Server::start([answer(503, &[("Retry-After", "300")], "")]);
    let (retry, retries) = mpsc::channel();
    let subscriber = subscriber(&server).on_retry(move |_| retry.send(()).unwrap());
    stops_promptly(subscriber, || retries.recv_timeout(LIMIT).unwrap());
}

/// Finds no name until the test is over.
#[derive(Debug)]
struct Hanging {
    asked: mpsc::Sender<()>,
    over: Mutex<mpsc::Receiver<()>>,
}

impl Resolver for Hanging {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let _ = self.asked.send(());
        let _ = self.over.lock().unwrap().recv();
        Err(ureq::Error::HostNotFound)
    }
}

#[test]
fn stopping_ends_a_connect_that_hangs() {
    let (asked, asks) = mpsc::channel();
    let (_running, over) = mpsc::channel();
    let over = Mutex::new(over);
    let connector = DefaultConnector::default();
    let agent = ureq::Agent::with_parts(<_>::default(), connector, Hanging { asked, over });
    let subscriber = Subscriber::new("http://localhost/", "c").agent(agent);
    stops_promptly(subscriber, || asks.recv_timeout(LIMIT).unwrap());
}

#[test]
fn a_stopped_subscriber_gives_no_event_though_it_holds_one() {
    let server = Server::start([events(&[1, 2])]);
    let mut subscriber = subscriber(&server);
    text(&mut subscriber);
    subscriber.stopper().stop();
    assert!(subscriber.next().is_none());
    assert_eq!(subscriber.position(), Some(position(1)));
    assert_eq!(server.hang_up(), 0);

    let server = Server::start([]);
    let mut subscriber = Subscriber::new(server.url("/"), "c");
    subscriber.stopper().stop();
    assert!(subscriber.next().is_none());
    assert_eq!(server.pending(), 0);
}

#[test]
fn dropping_a_subscriber_closes_its_connection() {
    let server = Server::start([events(&[1])]);
    let mut subscriber = subscriber(&server);
    let stopper = subscriber.stopper();
    text(&mut subscriber);
    drop(subscriber);
    assert_eq!(server.hang_up(), 0);
    assert!(stopper.is_stopped());
}
