//! Settings: each setter takes effect, a value that can't be used is named, and where a server listens.

use crate::ports::ClosedPort;
use crate::support;

use std::fmt::Debug;
use std::net::TcpListener;
use std::time::Duration;

use long_polling::server::{Cors, Handler, PollWithoutCursor, Request, Response, TimeoutAnswer};
use long_polling::store::{Record, Snapshot, Store};
use long_polling::{
    Broker, BrokerOptions, Durability, Error, ErrorKind, EventId, FilePersistorInfo, FileState,
    PublishRequest, Server, ServerInfo, SubscriptionRequest,
};
use support::{Connection, ask, get, info, publish, server, start, until};

const BODY: &str = r#"{"category":"c","data":1}"#;

fn refused(info: ServerInfo) -> Error {
    Server::start(info).expect_err("an error")
}

#[test]
fn a_setting_that_cannot_be_used_is_named() {
    let with = |set: fn(ServerInfo) -> ServerInfo| set(info());
    for (info, name) in [
        (with(|info| info.address("")), "address"),
        (with(|info| info.address("127.0.0.1")), "address"),
        (with(|info| info.address("127.0.0.1:x")), "address"),
        (with(|info| info.address("127.0.0.1:65536")), "address"),
        (with(|info| info.address(":")), "address"),
        (with(|info| info.address("no host:0")), "address"),
        (
            with(|info| info.subscription_uri("events")),
            "subscription_uri",
        ),
        (with(|info| info.subscription_uri("")), "subscription_uri"),
        (with(|info| info.publish_uri("publish")), "publish_uri"),
        (with(|info| info.publish_uri("/p?x")), "publish_uri"),
        (with(|info| info.publish_uri("/events")), "publish_uri"),
        (with(|info| info.timeout(Duration::ZERO)), "timeout"),
        (
            with(|info| info.timeout(Duration::from_millis(999))),
            "timeout",
        ),
        (with(|info| info.timeout(Duration::MAX)), "timeout"),
        (
            with(|info| info.idle_timeout(Duration::ZERO)),
            "idle_timeout",
        ),
        (
            with(|info| info.write_timeout(Duration::ZERO)),
            "write_timeout",
        ),
        (
            with(|info| info.stream_heartbeat(Duration::from_millis(99))),
            "stream_heartbeat",
        ),
        (
            with(|info| info.stream_heartbeat(Duration::MAX)),
            "stream_heartbeat",
        ),
        (with(|info| info.cors_origin("")), "cors_origin"),
        (with(|info| info.cors_origin("a\r\nb")), "cors_origin"),
        (
            with(|info| info.cors_origin("https://page.example/")),
            "cors_origin",
        ),
        (with(|info| info.cors_origin("page.example")), "cors_origin"),
        (
            with(|info| info.publish_uri("/a/../publish")),
            "publish_uri",
        ),
        (
            with(|info| info.trusted_proxies(vec![[0, 0, 0, 0].into()])),
            "trusted_proxies",
        ),
        (
            with(|info| info.trusted_networks(["::/128".parse().unwrap()])),
            "trusted_networks",
        ),
        (
            with(|info| info.address("[fe80::1%no-such-zone]:0")),
            "address",
        ),
        (
            with(|info| info.broker(BrokerOptions::new().events_per_category(0))),
            "events_per_category",
        ),
        (
            with(|info| info.broker(BrokerOptions::new().max_event_size(0))),
            "max_event_size",
        ),
        (
            with(|info| info.broker(BrokerOptions::new().max_parked(0))),
            "max_parked",
        ),
        (
            with(|info| info.broker(BrokerOptions::new().max_categories(0))),
            "max_categories",
        ),
        (
            with(|info| info.broker(BrokerOptions::new().event_ttl(Duration::ZERO))),
            "event_ttl",
        ),
    ] {
        let error = refused(info);
        assert_eq!(error.kind(), ErrorKind::InvalidSetting, "{error}");
        assert!(
            error.to_string().starts_with(&format!("{name}: ")),
            "{error}"
        );
    }
}

#[test]
fn a_secret_that_no_request_can_carry_is_refused_at_start_and_stays_secret() {
    let of_publish = |handler| info().before_publish(handler);
    let of_poll = |handler| info().before_subscription(handler);
    for (info, words) in [
        (
            of_publish(Handler::bearer_token("")),
            "before_publish: the bearer token is empty",
        ),
        (
            of_publish(Handler::bearer_token("secret\n")),
            "before_publish: the bearer token begins or ends",
        ),
        (
            of_poll(Handler::bearer_token(" secret")),
            "before_subscription: the bearer token begins or ends",
        ),
        (
            of_poll(Handler::bearer_token("secretü")),
            "before_subscription: the bearer token has",
        ),
        (
            of_publish(Handler::basic_auth("secret:x", "x")),
            "before_publish: the name",
        ),
        (
            of_publish(Handler::basic_auth("x", "secret\n")),
            "before_publish: the name or password",
        ),
    ] {
        let error = refused(info);
        assert_eq!(error.kind(), ErrorKind::InvalidSetting, "{error}");
        let said = error.to_string();
        assert!(
            said.starts_with(words) && !said.contains("secret"),
            "{said}"
        );
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_address_with_a_zone_is_listened_on() {
    if TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let server = start(info().address("[::1%1]:0"));
    let port = server.local_addr().port();
    let mut connection = Connection::open(format!("[::1]:{port}").parse().unwrap());
    connection.publish(BODY);
    assert_eq!(connection.receive().status, 200);
}

#[test]
fn an_address_in_use_or_not_of_this_machine_cannot_be_listened_on() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = taken.local_addr().unwrap().to_string();
    let first = server();
    for address in [in_use, first.local_addr().to_string()] {
        let error = refused(info().address(address.clone()));
        assert_eq!(error.kind(), ErrorKind::Listen);
        let words = error.report().to_string();
        assert!(
            words.contains("address") && words.contains(&address),
            "{words}"
        );
        assert!(words.contains("in use"), "{words}");
    }
    // Of the range for documentation (RFC 5737).
    let foreign = refused(info().address("192.0.2.1:0"));
    assert_eq!(foreign.kind(), ErrorKind::Listen, "{foreign}");
    assert_eq!(publish(&first, BODY).status, 200);
}

#[test]
fn events_that_are_too_large_for_a_line_of_a_file_are_refused_at_the_start() {
    const MAX: usize = (64 << 20) - (8 << 10);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let options = |size: usize| {
        BrokerOptions::new()
            .max_event_size(size)
            .max_event_bytes(size)
    };
    for size in [MAX + 1, 100 << 20, usize::MAX] {
        let file = FilePersistorInfo::new(&path);
        let server = info().broker(options(size)).file(file.clone());
        for error in [
            refused(server),
            Broker::open(options(size), file).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidSetting, "{error}");
            let words = error.to_string();
            let limit = MAX.to_string();
            assert!(
                words.starts_with("max_event_size: ") && words.contains(&limit),
                "{words}"
            );
        }
    }
    assert!(!path.exists());
    // Without a file, there are no lines.
    Broker::new(options(100 << 20)).unwrap();
    let broker = Broker::open(options(MAX), FilePersistorInfo::new(&path)).unwrap();
    broker.stop(Duration::from_secs(10)).unwrap();
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let start = |file| Server::start(info().file(file));
    let missing = folder.path().join("missing/events.db");
    let error = start(FilePersistorInfo::new(&missing)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::File);
    assert!(error.to_string().contains("missing"), "{error}");
    let error = start(FilePersistorInfo::new(folder.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::File, "{error}");
    let never =
        FilePersistorInfo::new(folder.path().join("events.db")).write_flush_period(Duration::ZERO);
    let error = start(never).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSetting);
    assert!(error.to_string().contains("write_flush_period"), "{error}");
}

#[test]
fn a_server_that_could_not_start_for_its_file_frees_the_port() {
    let folder = tempfile::tempdir().unwrap();
    let port = ClosedPort::for_a_server();
    let info = info().address(port.address.to_string());
    let file = FilePersistorInfo::new(folder.path());
    let error = Server::start(info.clone().file(file)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::File);
    let mut started = None;
    until("the port is free", || {
        started = Server::start(info.clone()).ok();
        started.is_some()
    });
    assert_eq!(publish(&started.unwrap(), BODY).status, 200);
}

#[test]
fn port_0_takes_a_free_one_on_one_address_or_on_all() {
    for address in [":0", "127.0.0.1:0", "localhost:0", "0.0.0.0:0"] {
        let server = start(info().address(address));
        let port = server.local_addr().port();
        assert_ne!(port, 0);
        let mut connection = Connection::open(([127, 0, 0, 1], port).into());
        connection.publish(BODY);
        assert_eq!(connection.receive().status, 200, "{address}");
    }
    if TcpListener::bind("[::1]:0").is_ok() {
        for address in ["[::1]:0", ":0"] {
            let server = start(info().address(address));
            let port = server.local_addr().port();
            let mut connection = Connection::open(format!("[::1]:{port}").parse().unwrap());
            connection.publish(BODY);
            assert_eq!(connection.receive().status, 200, "{address}");
        }
    }
}

#[test]
fn the_endpoints_are_where_the_settings_say() {
    let server = start(
        info()
            .subscription_uri("/api/v1/über events")
            .publish_uri("/"),
    );
    let events = "/api/v1/%C3%BCber%20events?category=c&timeout=0";
    assert_eq!(get(&server, events).status, 204);
    assert_eq!(
        ask(&server, "OPTIONS", "/").header("Allow"),
        Some("POST, DELETE, OPTIONS")
    );
    get(&server, "/events?category=c&timeout=0").refuses(404, "not found");
}

/// Each setter puts its value into the settings, and a setting that is given twice has the last value. A value shows in
/// the `Debug` text, where it is neither before its setter has run nor after the other value has replaced it.
fn each_setter_takes_effect<T: Clone + Debug>(unset: &T, setters: &[Setter<T>]) {
    for Setter { first, last, text } in setters {
        let [before, set, replaced, set_again] = [
            format!("{unset:?}"),
            format!("{:?}", last(unset.clone())),
            format!("{:?}", first(last(unset.clone()))),
            format!("{:?}", last(first(unset.clone()))),
        ];
        assert!(!before.contains(text), "{text:?} is a default: {before}");
        assert!(set.contains(text), "{text:?} was not set: {set}");
        assert!(!replaced.contains(text), "{text:?} was kept: {replaced}");
        assert_eq!(set, set_again, "{text:?}: the last value does not win");
    }
}

/// One setter with two values, and how the second one shows in the `Debug` text.
struct Setter<T> {
    first: fn(T) -> T,
    last: fn(T) -> T,
    text: &'static str,
}

fn setter<T>(first: fn(T) -> T, last: fn(T) -> T, text: &'static str) -> Setter<T> {
    Setter { first, last, text }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn each_setter_of_a_server_takes_effect() {
    each_setter_takes_effect(
        &ServerInfo::default(),
        &[
            setter(
                |info| info.address("a:1"),
                |info| info.address("b:2"),
                "\"b:2\"",
            ),
            setter(
                |info| info.address("127.0.0.1:8080"),
                |info| info.listener(TcpListener::bind("127.0.0.1:0").unwrap()),
                "ListeningSocket",
            ),
            setter(
                |info| info.socket_mode(0o600),
                |info| info.socket_mode(99),
                "99",
            ),
            setter(
                |info| info.trust_unix_peers(false),
                |info| info.trust_unix_peers(true),
                "true",
            ),
            setter(
                |info| info.max_connections(None),
                |info| info.max_connections(99),
                "99",
            ),
            setter(
                |info| info.thread_stack_size(65_536),
                |info| info.thread_stack_size(99_997),
                "99997",
            ),
            setter(
                |info| info.head_timeout(None),
                |info| info.head_timeout(99 * SECOND),
                "99s",
            ),
            setter(
                |info| info.body_timeout(None),
                |info| info.body_timeout(99 * SECOND),
                "99s",
            ),
            setter(
                |info| info.max_body_size(None),
                |info| info.max_body_size(99),
                "99",
            ),
            setter(
                |info| info.timeout(SECOND),
                |info| info.timeout(99 * SECOND),
                "99s",
            ),
            setter(
                |info| info.subscription_uri("/a"),
                |info| info.subscription_uri("/b"),
                "\"/b\"",
            ),
            setter(
                |info| info.publish_uri("/a"),
                |info| info.publish_uri("/b"),
                "\"/b\"",
            ),
            setter(
                |info| info.timeout_answer(TimeoutAnswer::NoContent),
                |info| info.timeout_answer(TimeoutAnswer::Golongpoll),
                "Golongpoll",
            ),
            setter(
                |info| info.poll_without_cursor(PollWithoutCursor::Now),
                |info| info.poll_without_cursor(PollWithoutCursor::Oldest),
                "Oldest",
            ),
            setter(
                |info| info.broker(BrokerOptions::new()),
                |info| info.broker(BrokerOptions::new().max_parked(99)),
                "99",
            ),
            setter(
                |info| info.cors_origin("*"),
                |info| info.cors_origin("null"),
                "\"null\"",
            ),
            setter(
                |info| info.cors_origin("*"),
                |info| info.cors(Cors::new().origins(["null"])),
                "\"null\"",
            ),
            setter(
                |info| info.hosts(["a.example"]),
                |info| info.hosts(["b.example"]),
                "b.example",
            ),
            setter(
                |info| info.browser_client("/a.js"),
                |info| info.browser_client("/b.js"),
                "/b.js",
            ),
            setter(
                |info| info.idle_timeout(None),
                |info| info.idle_timeout(99 * SECOND),
                "99s",
            ),
            setter(
                |info| info.write_timeout(SECOND),
                |info| info.write_timeout(99 * SECOND),
                "99s",
            ),
            setter(
                |info| info.restore_timeout(SECOND),
                |info| info.restore_timeout(99 * SECOND),
                "99s",
            ),
            setter(
                |info| info.trusted_proxies([]),
                |info| info.trusted_proxies([[192, 0, 2, 1].into()]),
                "192.0.2.1",
            ),
            setter(
                |info| info.trusted_networks([]),
                |info| info.trusted_networks(["198.51.100.0/24".parse().unwrap()]),
                "198.51.100.0",
            ),
            setter(
                |info| info.store(FailingStore),
                |info| info.file(FilePersistorInfo::new("a.log")),
                "a.log",
            ),
        ],
    );
}

/// Hooks and callbacks have no text, so they are seen by what they do.
#[test]
fn the_last_hook_of_each_kind_takes_effect() {
    let refuse = |status| move |_: &Request| Err(Response::error(status, "refused"));
    let answer = |status| move |_: &Request| Response::new(status);
    let server = start(
        info()
            .before_subscription(Handler::bearer_token("first"))
            .before_subscription(refuse(470))
            .before_publish(refuse(471))
            .before_publish(Handler::bearer_token("last"))
            .fallback(answer(472))
            .fallback(answer(473))
            .on_failure(|_| ()),
    );
    assert_eq!(get(&server, "/events?category=c&timeout=0").status, 470);
    assert_eq!(publish(&server, BODY).status, 401);
    assert_eq!(get(&server, "/").status, 473);
}

/// A store that can't be started.
struct FailingStore;

impl Store for FailingStore {
    fn start(&mut self, _: Snapshot, _: &mut dyn FnMut(Record)) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Busy, "this store was started"))
    }

    fn append(&self, _: Record) -> Result<u64, Error> {
        Ok(0)
    }

    fn flush(&self, _: u64) -> Result<(), Error> {
        Ok(())
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn the_last_one_of_file_and_store_takes_effect() {
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("events.log"));
    let error = refused(info().file(file.clone()).store(FailingStore));
    assert_eq!(error.to_string(), "this store was started");
    drop(start(info().store(FailingStore).file(file)));
    assert!(folder.path().join("events.log").exists());
}

#[test]
fn each_setter_of_a_broker_takes_effect() {
    each_setter_takes_effect(
        &BrokerOptions::new(),
        &[
            setter(
                |o| o.events_per_category(1),
                |o| o.events_per_category(99),
                "99",
            ),
            setter(|o| o.event_ttl(None), |o| o.event_ttl(99 * SECOND), "99s"),
            setter(
                |o| o.delete_after_first_retrieval(false),
                |o| o.delete_after_first_retrieval(true),
                "true",
            ),
            setter(|o| o.max_event_size(1), |o| o.max_event_size(99), "99"),
            setter(|o| o.max_parked(1), |o| o.max_parked(99), "99"),
            setter(|o| o.max_categories(1), |o| o.max_categories(99), "99"),
            setter(|o| o.max_batch_size(1), |o| o.max_batch_size(99), "99"),
            setter(|o| o.max_event_bytes(1), |o| o.max_event_bytes(99), "99"),
            setter(
                |o| o.idempotency_window(SECOND),
                |o| o.idempotency_window(99 * SECOND),
                "99s",
            ),
            setter(
                |o| o.max_idempotency_keys(1),
                |o| o.max_idempotency_keys(99),
                "99",
            ),
            setter(
                |o| o.max_idempotency_bytes(1),
                |o| o.max_idempotency_bytes(99),
                "99",
            ),
            setter(|o| o.presence(None), |o| o.presence(99 * SECOND), "99s"),
        ],
    );
}

#[test]
fn each_setter_of_a_file_takes_effect() {
    each_setter_takes_effect(
        &FilePersistorInfo::new("a.log"),
        &[
            setter(
                |file| file.durability(Durability::Buffered),
                |file| file.durability(Durability::Acknowledged),
                "Acknowledged",
            ),
            setter(
                |f| f.write_buffer_size(1),
                |f| f.write_buffer_size(99),
                "99",
            ),
            setter(
                |file| file.write_flush_period(SECOND),
                |file| file.write_flush_period(99 * SECOND),
                "99s",
            ),
            setter(|f| f.max_queue_size(1), |f| f.max_queue_size(99), "99"),
            setter(|f| f.max_wait(SECOND), |f| f.max_wait(99 * SECOND), "99s"),
            setter(|f| f.compact_from(None), |f| f.compact_from(99), "99"),
        ],
    );
    // A callback has no text, but shows that it is there.
    let unset = FilePersistorInfo::new("a.log");
    let set = unset.clone().on_change(|_: &FileState| ());
    assert_ne!(format!("{unset:?}"), format!("{set:?}"));
}

#[test]
fn each_setter_of_a_poll_takes_effect() {
    const ID: &str = "123e4567-e89b-12d3-a456-426614174000";
    each_setter_takes_effect(
        &SubscriptionRequest::new("a"),
        &[
            setter(
                |poll| poll.categories("b"),
                |poll| poll.categories(["c", "d"]),
                "\"d\"",
            ),
            setter(
                |poll| poll.timeout(SECOND),
                |poll| poll.timeout(99 * SECOND),
                "99s",
            ),
            setter(
                |poll| poll.since_time(None),
                |poll| poll.since_time(99),
                "99",
            ),
            setter(
                |poll| poll.last_id(None),
                |poll| poll.last_id(ID.parse::<EventId>().unwrap()),
                ID,
            ),
            setter(|poll| poll.limit(None), |poll| poll.limit(99), "99"),
            setter(
                |poll| poll.subscriber("b"),
                |poll| poll.subscriber("c"),
                "\"c\"",
            ),
        ],
    );
}

#[test]
fn each_setter_of_a_publish_takes_effect() {
    each_setter_takes_effect(
        &PublishRequest::new("a", 1),
        &[
            setter(
                |publish| publish.category("b"),
                |publish| publish.category("c"),
                "\"c\"",
            ),
            setter(|publish| publish.data(2), |publish| publish.data(99), "99"),
        ],
    );
}
