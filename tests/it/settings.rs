//! Settings: what can't be used is named, and where a server listens.

use crate::support;

use std::net::TcpListener;
use std::time::Duration;

use long_polling::server::Handler;
use long_polling::{BrokerOptions, Error, ErrorKind, FilePersistorInfo, Server, ServerInfo};
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
            "handler_to_run_before_publish: the bearer token is empty",
        ),
        (
            of_publish(Handler::bearer_token("secret\n")),
            "handler_to_run_before_publish: the bearer token begins or ends",
        ),
        (
            of_poll(Handler::bearer_token(" secret")),
            "handler_to_run_before_subscription: the bearer token begins or ends",
        ),
        (
            of_poll(Handler::bearer_token("secretü")),
            "handler_to_run_before_subscription: the bearer token has",
        ),
        (
            of_publish(Handler::basic_auth("secret:x", "x")),
            "handler_to_run_before_publish: the name",
        ),
        (
            of_publish(Handler::basic_auth("x", "secret\n")),
            "handler_to_run_before_publish: the name or password",
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
fn a_server_that_could_not_start_for_its_file_lets_go_of_the_port() {
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let info = info().address(free.local_addr().unwrap().to_string());
    drop(free);
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
        Some("POST, OPTIONS")
    );
    get(&server, "/events?category=c&timeout=0").refuses(404, "not found");
}
