//! Who listens: the count of subscribers, the state of a category over HTTP, and clients that stay present between polls.

use crate::support;

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use long_polling::server::{Request, Response};
use long_polling::testing::{self, ManualClock};
use long_polling::{
    Broker, BrokerOptions, Cursor, Error, ErrorKind, Presence, Server, ServerInfo, Subscriber,
};
use serde_json::{Value, json};
use support::{Connection, LIMIT, ask, get, info, poll, publish, start, until, until_parked};

const TIME: Duration = Duration::from_secs(10);
const ALMOST: Duration = Duration::from_millis(9999);
const MILLISECOND: Duration = Duration::from_millis(1);
const BODY: &str = r#"{"category":"c","data":1}"#;

fn counting() -> BrokerOptions {
    BrokerOptions::new().presence(TIME)
}

/// A server that counts by this clock.
fn counting_server() -> (Server, ManualClock) {
    let clock = ManualClock::at(1_700_000_000_000);
    let server = testing::start(info().broker(counting()), &clock).unwrap();
    (server, clock)
}

/// A poll that is parked, as the one with this number.
fn parked(server: &Server, target: &str, number: usize) -> Connection {
    let mut connection = Connection::to(server);
    connection.ask("GET", target);
    until_parked(server, number);
    connection
}

/// Waits until a category has this number of subscribers: a poll counts just after it was parked.
fn until_subscribers(broker: &Broker, category: &str, count: usize) {
    until(&format!("{count} subscribers of {category}"), || {
        broker.subscribers(category) == count
    });
}

/// Polls in process, without a wait.
fn visit(broker: &Broker, category: &str) {
    broker
        .subscribe(category, Cursor::Now, Duration::ZERO)
        .unwrap();
}

/// A hook that sends what it is called with: `what`, the category, the name, and the number of subscribers.
type Call = (&'static str, String, Option<String>, usize);

fn reporting(options: BrokerOptions) -> (BrokerOptions, Receiver<Call>) {
    let (sender, receiver) = mpsc::channel();
    let report = |what: &'static str| {
        let sender = sender.clone();
        move |presence: &Presence| {
            let name = presence.name().map(str::to_owned);
            let category = presence.category().to_owned();
            let _ = sender.send((what, category, name, presence.subscribers()));
        }
    };
    let options = options
        .on_subscribe(report("came"))
        .on_leave(report("left"));
    (options, receiver)
}

fn call(what: &'static str, category: &str, name: Option<&str>, subscribers: usize) -> Call {
    (what, category.into(), name.map(str::to_owned), subscribers)
}

fn next<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(LIMIT).expect("a call of the hook")
}

#[test]
fn without_the_setting_the_parked_polls_of_a_category_count() {
    let server = start(info());
    let broker = server.broker();
    assert_eq!(broker.subscribers("c"), 0);
    let one = parked(&server, &poll("c", 60, "&subscriber=alice"), 1);
    let mut both = parked(&server, &poll("c", 60, "&category=d"), 2);
    assert_eq!((broker.subscribers("c"), broker.subscribers("d")), (2, 1));
    assert_eq!(broker.subscriber_names("c"), Vec::<String>::new());
    assert_eq!(broker.statistics().present, None);
    server.publish("d", "to one of them").unwrap();
    assert_eq!(both.receive().data(), ["to one of them"]);
    until_parked(&server, 1);
    assert_eq!((broker.subscribers("c"), broker.subscribers("d")), (1, 0));
    drop(one);
    until_subscribers(broker, "c", 0);
}

#[test]
fn info_gives_the_state_of_a_category_at_once_and_the_position() {
    let server = start(info());
    let unused = get(&server, "/events?category=c&info");
    assert_eq!(unused.status, 200);
    unused.has_the_promised_headers();
    let mut expected = json!({
        "category": "c", "subscribers": 0, "events": 0, "bytes": 0,
        "oldest_id": null, "newest_id": null, "newest_timestamp": null,
        "position": unused.position(),
    });
    assert_eq!(unused.json(), expected);
    assert_eq!(server.statistics().categories, 0);

    let first = server.publish("c", "one").unwrap();
    let last = server.publish("c", "two").unwrap();
    server.publish("other", "not counted").unwrap();
    let _poll = parked(&server, &poll("c", 60, ""), 1);
    let events = get(&server, &poll("c", 0, "&since_time=1")).json();
    let events = events["events"].as_array().unwrap();
    let bytes: usize = events.iter().map(|event| event.to_string().len()).sum();
    let info = get(&server, "/events?info&category=c");
    expected["subscribers"] = 1.into();
    expected["events"] = 2.into();
    expected["bytes"] = bytes.into();
    expected["oldest_id"] = first.to_string().into();
    expected["newest_id"] = last.to_string().into();
    expected["newest_timestamp"] = events[1]["timestamp"].clone();
    expected["position"] = info.position().into();
    assert_eq!(info.json(), expected);
    let in_process = serde_json::to_value(server.broker().category_info("c").unwrap()).unwrap();
    assert_eq!(in_process, expected);

    let head = ask(&server, "HEAD", "/events?info&category=c");
    assert_eq!((head.status, head.position()), (200, info.position()));
    assert_eq!(
        head.header("Content-Length"),
        Some(&*info.body.len().to_string())
    );
    server.publish("c", "three").unwrap();
    let rest = poll("c", 0, &format!("&last_id={}", info.position()));
    assert_eq!(get(&server, &rest).data(), ["three"]);
}

#[test]
fn info_of_no_category_or_of_several_or_with_a_value_is_refused() {
    let server = start(info());
    for (query, words) in [
        ("info", "a category is missing"),
        ("category=&info", "an empty category"),
        ("category=a&category=b&info", "several categories"),
        ("category=a&info=1", "info has a value"),
    ] {
        get(&server, &format!("/events?{query}")).refuses(400, words);
    }
    assert_eq!(
        get(&server, "/events?category=a&category=a&info").status,
        200
    );
    assert_eq!(server.statistics().refused, 4);
}

#[test]
fn the_hook_of_polls_decides_about_info_too() {
    let only_own = |request: &Request| match request.category() {
        Some("mine") => Ok(()),
        _ => Err(Response::error(403, "not yours")),
    };
    let server = start(info().before_subscription(only_own));
    get(&server, "/events?category=c&info").refuses(403, "not yours");
    assert_eq!(get(&server, "/events?category=mine&info").status, 200);
}

#[test]
fn a_client_with_a_name_stays_present_for_the_time_after_its_last_poll() {
    let (server, clock) = counting_server();
    let broker = server.broker();
    let target = poll("c", 60, "&category=d&subscriber=alice");
    let mut tab = parked(&server, &target, 1);
    let mut other_tab = parked(&server, &target, 2);
    let _bob = parked(&server, &poll("d", 60, "&subscriber=bob+%26"), 3);
    until_subscribers(broker, "d", 2);
    assert_eq!(broker.subscriber_names("c"), ["alice"]);
    assert_eq!(broker.subscriber_names("d"), ["alice", "bob &"]);
    assert_eq!(broker.statistics().present, Some(3));
    clock.advance(100 * TIME);
    assert_eq!(broker.subscribers("c"), 1);

    server.publish("c", "hello").unwrap();
    for tab in [&mut tab, &mut other_tab] {
        assert_eq!(tab.receive().status, 200);
    }
    clock.advance(ALMOST);
    assert_eq!(broker.subscribers("c"), 1);
    assert_eq!(
        get(&server, "/events?category=c&info").json()["subscribers"],
        1
    );
    // A poll that does not wait counts, too.
    let short = poll("c", 0, "&subscriber=alice");
    assert_eq!(get(&server, &short).status, 204);
    clock.advance(MILLISECOND);
    assert_eq!(broker.subscriber_names("d"), ["bob &"]);
    assert_eq!(broker.subscriber_names("c"), ["alice"]);
    clock.advance(ALMOST);
    assert_eq!((broker.subscribers("c"), broker.subscribers("d")), (0, 1));
    assert_eq!(broker.statistics().present, Some(1));
}

#[test]
fn polls_without_a_name_take_over_the_places_of_earlier_ones() {
    let (server, clock) = counting_server();
    let broker = server.broker();
    let target = poll("c", 60, "");
    for _ in 0..3 {
        let mut polls = [parked(&server, &target, 1), parked(&server, &target, 2)];
        until_subscribers(broker, "c", 2);
        assert_eq!(publish(&server, BODY).status, 200);
        for poll in &mut polls {
            assert_eq!(poll.receive().status, 200);
        }
        until_parked(&server, 0);
        clock.advance(ALMOST);
        assert_eq!(broker.subscribers("c"), 2);
    }
    visit(broker, "c");
    assert_eq!(broker.subscribers("c"), 2);
    clock.advance(MILLISECOND);
    assert_eq!(broker.subscribers("c"), 1);
    assert_eq!(broker.subscriber_names("c"), Vec::<String>::new());
}

#[test]
fn a_client_that_hangs_up_leaves_after_the_time() {
    let (server, clock) = counting_server();
    let connection = parked(&server, &poll("c", 60, "&subscriber=alice"), 1);
    until_subscribers(server.broker(), "c", 1);
    drop(connection);
    until("the poll has ended", || {
        clock.advance(TIME);
        server.broker().subscribers("c") == 0
    });
}

#[test]
fn the_client_of_a_stream_is_present_for_all_of_it() {
    let (server, clock) = counting_server();
    let mut stream = Connection::to(&server);
    let target = poll("c", 60, "&subscriber=alice");
    stream.send(format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n"
    ));
    until_parked(&server, 1);
    for _ in 0..3 {
        clock.advance(TIME);
        assert_eq!(server.broker().subscriber_names("c"), ["alice"]);
        server.publish("c", "does not end it").unwrap();
        until_parked(&server, 1);
    }
    drop(stream);
    until("the stream has ended", || {
        clock.advance(TIME);
        server.broker().subscribers("c") == 0
    });
}

#[test]
fn a_request_that_is_no_poll_or_is_refused_makes_nobody_present() {
    let (server, _clock) = counting_server();
    let named = "&subscriber=alice";
    let head = ask(&server, "HEAD", &poll("c", 60, named));
    assert_eq!(head.status, 204);
    let target = format!("/events?category=c&info{named}");
    assert_eq!(get(&server, &target).json()["subscribers"], 0);
    get(&server, &poll("c", 0, "&limit=0&subscriber=alice")).refuses(400, "limit");
    assert_eq!(publish(&server, BODY).status, 200);
    let long = format!("&subscriber={}", "x".repeat(256));
    get(&server, &poll("c", 0, &long)).refuses(400, "subscriber has 256 bytes");
    assert_eq!(server.statistics().present, Some(0));
    assert_eq!(
        get(&server, &poll("c", 0, &long[..long.len() - 1])).status,
        204
    );
    assert_eq!(server.statistics().present, Some(1));
}

#[test]
fn the_name_that_a_hook_gives_takes_precedence_over_the_parameter() {
    let sign_in = |request: &Request| -> Result<(), Response> {
        request.identify(request.header("X-User").unwrap_or_default())?;
        request.identify("not the first")?;
        Ok(())
    };
    let server = start(info().before_subscription(sign_in).broker(counting()));
    let mut connection = Connection::to(&server);
    let target = poll("c", 0, "&subscriber=mallory");
    connection.send(format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\nX-User: alice\r\n\r\n"
    ));
    assert_eq!(connection.receive().status, 204);
    assert_eq!(server.broker().subscriber_names("c"), ["alice"]);
    get(&server, &target).refuses(400, "subscriber has 0 bytes");
}

#[test]
fn the_client_names_itself() {
    let server = start(info().broker(counting()));
    let url = format!("http://{}/events", server.local_addr());
    server.publish("c", "hello").unwrap();
    let mut events = Subscriber::new(&url, "c")
        .name("ä & b")
        .start_at(Cursor::Oldest);
    assert_eq!(events.next().unwrap().unwrap().text(), "hello");
    assert_eq!(server.broker().subscriber_names("c"), ["ä & b"]);
    let mut nameless = Subscriber::new(url, "c").name("");
    let error = nameless.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    assert!(nameless.next().is_none());
}

#[test]
fn hooks_are_called_once_for_each_client_that_comes_and_leaves_in_order() {
    let clock = ManualClock::at(1_700_000_000_000);
    let (options, calls) = reporting(counting());
    let server = testing::start(info().broker(options), &clock).unwrap();
    let alice = poll("c", 0, "&category=d&subscriber=alice");
    for _ in 0..3 {
        assert_eq!(get(&server, &alice).status, 204);
    }
    assert_eq!(next(&calls), call("came", "c", Some("alice"), 1));
    assert_eq!(next(&calls), call("came", "d", Some("alice"), 1));
    clock.advance(TIME / 2);
    visit(server.broker(), "c");
    assert_eq!(next(&calls), call("came", "c", None, 2));
    clock.advance(TIME / 2);
    assert_eq!(next(&calls), call("left", "c", Some("alice"), 1));
    assert_eq!(next(&calls), call("left", "d", Some("alice"), 0));
    assert_eq!(get(&server, &poll("d", 0, "&subscriber=alice")).status, 204);
    assert_eq!(next(&calls), call("came", "d", Some("alice"), 1));
    clock.advance(TIME / 2);
    assert_eq!(next(&calls), call("left", "c", None, 0));

    // Who is present at the stop does not leave by that.
    let _parked = parked(&server, &poll("c", 60, "&subscriber=bob"), 1);
    assert_eq!(next(&calls), call("came", "c", Some("bob"), 1));
    server.stop(LIMIT).unwrap();
    clock.advance(100 * TIME);
    // The stop has waited for the thread that calls the hooks.
    assert!(calls.try_recv().is_err());
}

#[test]
fn a_hook_is_called_when_the_time_is_over_with_the_clock_of_the_system() {
    let (options, calls) = reporting(BrokerOptions::new().presence(Duration::from_millis(20)));
    let broker = Broker::new(options).unwrap();
    for _ in 0..3 {
        let began = Instant::now();
        visit(&broker, "c");
        assert_eq!(next(&calls).0, "came");
        assert_eq!(next(&calls), call("left", "c", None, 0));
        assert!(began.elapsed() >= Duration::from_millis(19));
    }
}

#[test]
fn a_hook_can_publish_and_list_who_is_there_and_a_panic_costs_one_call() {
    let publish_names = |presence: &Presence| {
        if presence.category() == "people" {
            return;
        }
        if presence.name() == Some("eve") {
            panic!("on purpose");
        }
        let broker = presence.broker();
        let names = broker.subscriber_names(presence.category());
        broker.publish("people", &names).unwrap();
    };
    let clock = ManualClock::at(1_700_000_000_000);
    let options = counting()
        .on_subscribe(publish_names)
        .on_leave(publish_names);
    let server = testing::start(info().broker(options), &clock).unwrap();
    let named = |name: &str| poll("room", 0, &format!("&subscriber={name}"));
    let mut position = Cursor::Oldest;
    let mut people = || -> Value {
        let batch = server
            .broker()
            .subscribe_up_to(1, "people", position, LIMIT)
            .unwrap();
        position = Cursor::LastId(batch.last_id());
        batch.events()[0].decode().unwrap()
    };
    assert_eq!(get(&server, &named("alice")).status, 204);
    assert_eq!(people(), json!(["alice"]));
    assert_eq!(get(&server, &named("eve")).status, 204);
    clock.advance(MILLISECOND);
    assert_eq!(get(&server, &named("bob")).status, 204);
    assert_eq!(people(), json!(["alice", "bob", "eve"]));
    clock.advance(ALMOST);
    assert_eq!(people(), json!(["bob"]));
    clock.advance(MILLISECOND);
    assert_eq!(people(), json!([]));
}

#[test]
fn a_blocked_hook_delays_no_poll_and_a_stop_by_its_timeout_alone() {
    let (entered, has_entered) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let options = counting().on_subscribe(move |_| {
        let _ = entered.send(());
        let _ = released.lock().unwrap().recv_timeout(LIMIT);
    });
    let server = start(info().broker(options));
    visit(server.broker(), "c");
    next(&has_entered);
    for number in 0..100 {
        let target = poll("c", 0, &format!("&subscriber={number}"));
        assert_eq!(get(&server, &target).status, 204);
    }
    assert_eq!(server.broker().subscribers("c"), 101);
    let began = Instant::now();
    let timeout = Duration::from_millis(200);
    let error = server.broker().stop(timeout).unwrap_err();
    let took = began.elapsed();
    assert!(took >= timeout && took < LIMIT / 2, "{took:?}");
    assert_eq!(error.kind(), ErrorKind::StopTimeout);
    assert!(error.to_string().contains("on_subscribe"), "{error}");
    release.send(()).unwrap();
    server.stop(LIMIT).unwrap();
    // None of the other hundred was called.
    assert!(has_entered.try_recv().is_err());
}

#[test]
fn a_hook_may_stop_the_broker_or_drop_its_last_handle() {
    let (sender, receiver) = mpsc::channel();
    let options = counting().on_subscribe(move |presence: &Presence| {
        let _ = sender.send(presence.broker().stop(LIMIT).map_err(|error| error.kind()));
    });
    let broker = Broker::new(options).unwrap();
    visit(&broker, "c");
    assert_eq!(next(&receiver), Ok(()));
    broker.stop(LIMIT).unwrap();

    let (sender, receiver) = mpsc::channel();
    let (entered, has_entered) = mpsc::channel();
    let (dropped, is_dropped) = mpsc::channel();
    let is_dropped = std::sync::Mutex::new(is_dropped);
    let options = counting().on_subscribe(move |_: &Presence| {
        let _ = entered.send(());
        let _ = is_dropped.lock().unwrap().recv_timeout(LIMIT);
        let _ = sender.send(());
    });
    let broker = Broker::new(options).unwrap();
    visit(&broker, "c");
    next(&has_entered);
    drop(broker);
    dropped.send(()).unwrap();
    next(&receiver);
    let end = receiver.recv_timeout(LIMIT);
    assert_eq!(end, Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn the_thread_of_the_hooks_ends_with_the_broker() {
    let (options, calls) = reporting(counting());
    let broker = Broker::new(options).unwrap();
    visit(&broker, "c");
    next(&calls);
    drop(broker);
    let end = calls.recv_timeout(LIMIT);
    assert_eq!(end, Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn settings_of_presence_that_can_not_work_are_refused() {
    let refused = |options: BrokerOptions| -> Error { Broker::new(options).unwrap_err() };
    let quick = BrokerOptions::new().presence(Duration::from_micros(999));
    let hook = |_: &Presence| {};
    for (options, words) in [
        (quick, "presence: 999µs is less than a millisecond"),
        (BrokerOptions::new().on_subscribe(hook), "on_subscribe: "),
        (BrokerOptions::new().on_leave(hook), "on_leave: "),
        (counting().presence(None).on_leave(hook), "on_leave: "),
    ] {
        let error = refused(options);
        assert_eq!(error.kind(), ErrorKind::InvalidSetting);
        assert!(error.to_string().starts_with(words), "{error}");
    }
    // A time without an end.
    let (options, calls) = reporting(BrokerOptions::new().presence(Duration::MAX));
    let broker = Broker::new(options).unwrap();
    visit(&broker, "c");
    assert_eq!(next(&calls).0, "came");
    assert_eq!(broker.subscribers("c"), 1);
    broker.stop(LIMIT).unwrap();
}

#[test]
fn the_metrics_have_the_present_clients_if_they_are_counted() {
    let metric = "\nlong_polling_present_subscribers ";
    let server = start(info().metrics_uri("/metrics"));
    assert!(!get(&server, "/metrics").text().contains(metric));
    let monitored = ServerInfo::metrics_uri(info(), "/metrics").broker(counting());
    let server = start(monitored);
    assert_eq!(get(&server, &poll("c", 0, "&category=d")).status, 204);
    let metrics = get(&server, "/metrics");
    let (_, rest) = metrics.text().split_once(metric).expect("the gauge");
    assert!(rest.starts_with("2\n"), "{rest}");
    let statistics = serde_json::to_value(server.statistics()).unwrap();
    assert_eq!(statistics["present"], 2);
}

#[test]
fn ten_thousand_names_at_once_are_counted_and_leave() {
    let clock = ManualClock::at(1_700_000_000_000);
    let (options, calls) = reporting(counting());
    let server = testing::start(info().broker(options), &clock).unwrap();
    let endpoints = ServerInfo::default().shared_broker(server.broker().clone());
    let endpoints = long_polling::server::Endpoints::new(endpoints).unwrap();
    thread::scope(|scope| {
        for part in 0..4 {
            let endpoints = endpoints.clone();
            scope.spawn(move || {
                for number in 0..2500 {
                    let target = poll("c", 0, &format!("&subscriber={part}-{number}"));
                    assert_eq!(endpoints.answer(Request::new("GET", &target)).status, 204);
                }
            });
        }
    });
    assert_eq!(server.broker().subscribers("c"), 10_000);
    clock.advance(TIME);
    assert_eq!(server.broker().subscribers("c"), 0);
    // A client that has left before its hook was called gets both calls.
    let mut count = (0, 0);
    while count != (10_000, 10_000) {
        match next(&calls).0 {
            "came" => count.0 += 1,
            _ => count.1 += 1,
        }
    }
}
