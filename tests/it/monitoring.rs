//! The metrics and the health check: their form, that their values are those of what was done, and who may ask.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use long_polling::server::{Handler, Request, Response};
use long_polling::store::{Record, Snapshot, Store, StoreStatistics};
use long_polling::{BrokerOptions, Cursor, Error, FilePersistorInfo, Server, ServerInfo};
use serde_json::Value;
use support::{
    Answer, Connection, IS_NATIVE, LIMIT, ask, get, info, poll, publish, start, until, until_parked,
};

use crate::exposition::{Families, labelled, names, parse, value};

fn monitored() -> ServerInfo {
    info().metrics_uri("/metrics").health_uri("/health")
}

/// One request with these header lines.
fn ask_with(server: &Server, method: &str, target: &str, lines: &str) -> Answer {
    let mut connection = Connection::to(server);
    connection.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n"
    ));
    connection.read(method == "HEAD").expect("an answer")
}

fn metrics(server: &Server) -> Families {
    let answer = get(server, "/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("Content-Type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    parse(answer.text()).unwrap_or_else(|error| panic!("{error}\n{}", answer.text()))
}

fn metrics_as_json(server: &Server) -> Value {
    let answer = ask_with(server, "GET", "/metrics", "Accept: application/json\r\n");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    answer.json()
}

/// A member of the JSON form, its metric, and the metric's label.
type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// Each number in `Statistics`.
const STATISTICS: [Row; 25] = [
    ("/published", "events_published_total", &[]),
    ("/delivered", "events_delivered_total", &[]),
    ("/timed_out", "polls_timed_out_total", &[]),
    ("/refused", "requests_refused_total", &[]),
    ("/gaps", "gaps_reported_total", &[]),
    (
        "/pushed_out",
        "events_removed_total",
        &[("reason", "pushed_out")],
    ),
    ("/expired", "events_removed_total", &[("reason", "expired")]),
    ("/evicted", "events_removed_total", &[("reason", "evicted")]),
    ("/purged", "events_removed_total", &[("reason", "purged")]),
    ("/parked", "parked_subscribers", &[]),
    ("/categories", "categories", &[]),
    ("/events", "events", &[]),
    ("/event_bytes", "event_bytes", &[]),
    ("/idempotency_keys", "idempotency_keys", &[]),
    ("/repetitions", "publishes_repeated_total", &[]),
    ("/keys_forgotten", "idempotency_keys_forgotten_total", &[]),
    ("/store/loaded", "store_events_loaded_total", &[]),
    ("/store/damaged", "store_lines_damaged_total", &[]),
    ("/store/written", "store_lines_written_total", &[]),
    ("/store/pending", "store_pending_lines", &[]),
    ("/store/pending_bytes", "store_pending_bytes", &[]),
    ("/store/failures", "store_failures_total", &[]),
    ("/store/rewritten", "store_rewrites_total", &[]),
    ("/store/bytes", "store_size_bytes", &[]),
    ("/store/failing", "store_failing", &[]),
];

/// The paths of all members that are not objects, with their numbers. Text and null are 1 and 0, as in `failing`.
fn leaves(value: &Value, path: &str, found: &mut Vec<(String, f64)>) {
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, member)| leaves(member, &format!("{path}/{name}"), found)),
        Value::Null => found.push((path.into(), 0.0)),
        other => found.push((path.into(), other.as_f64().unwrap_or(1.0))),
    }
}

/// Asserts that the text has each number of `Statistics`, and that the JSON is `Statistics`.
fn agree(server: &Server) {
    let expected = serde_json::to_value(server.statistics()).unwrap();
    let families = metrics(server);
    assert_eq!(metrics_as_json(server)["statistics"], expected);
    let mut found = Vec::new();
    leaves(&expected, "", &mut found);
    found.retain(|(path, _)| !path.starts_with("/backplane"));
    assert_eq!(found.len(), STATISTICS.len(), "{found:?}");
    for (path, number) in found {
        let row = STATISTICS.iter().find(|(member, ..)| *member == path);
        let (_, name, labels) = row.unwrap_or_else(|| panic!("no metric for {path}"));
        let name = format!("long_polling_{name}");
        assert_eq!(labelled(&families, &name, labels), number, "{path}");
    }
}

#[test]
fn the_metrics_have_every_number_of_the_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("events.log"));
    let options = BrokerOptions::new()
        .events_per_category(2)
        .max_parked(77)
        .max_categories(88)
        .max_event_bytes(9_900_000);
    let server = start(monitored().broker(options).file(file));
    agree(&server);
    let first = server.publish("c", "x").unwrap();
    for data in ["y", "z", "last"] {
        server.publish("c", data).unwrap();
    }
    let answer = get(&server, &poll("c", 0, &format!("&last_id={first}")));
    assert!(answer.gap());
    assert_eq!(get(&server, &poll("other", 0, "")).status, 204);
    get(&server, "/events").refuses(400, "timeout");
    let mut parked = Connection::to(&server);
    parked.ask("GET", &poll("c", 60, ""));
    until_parked(&server, 1);
    until("all is written", || server.statistics().store.pending == 0);
    agree(&server);
    let families = metrics(&server);
    for (name, number) in [
        ("events_published_total", 4.0),
        ("events_delivered_total", 2.0),
        ("polls_timed_out_total", 1.0),
        ("requests_refused_total", 1.0),
        ("gaps_reported_total", 1.0),
        ("parked_subscribers", 1.0),
        ("parked_subscribers_max", 77.0),
        ("categories_max", 88.0),
        ("event_max_bytes", 9_900_000.0),
        ("events", 2.0),
        ("stopping", 0.0),
        ("store_failing", 0.0),
        ("connections_refused_total", 0.0),
    ] {
        assert_eq!(
            value(&families, &format!("long_polling_{name}")),
            number,
            "{name}"
        );
    }
    // Six lines at least: the start and the events.
    assert!(value(&families, "long_polling_store_lines_written_total") >= 5.0);
    let removed = labelled(
        &families,
        "long_polling_events_removed_total",
        &[("reason", "pushed_out")],
    );
    assert_eq!(removed, 2.0);
    server.publish("c", "for the parked one").unwrap();
    assert_eq!(parked.receive().status, 200);
}

#[test]
fn the_metrics_have_version_start_connections_and_answers_by_status() {
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let server = start(monitored());
    assert_eq!(publish(&server, r#"{"category":"c","data":1}"#).status, 200);
    for _ in 0..3 {
        assert_eq!(get(&server, &poll("c", 0, "")).status, 204);
    }
    publish(&server, "[]").refuses(400, "no events");
    get(&server, "/nowhere").refuses(404, "not found");
    assert_eq!(ask(&server, "OPTIONS", "/events").status, 204);
    let mut kept = [Connection::to(&server), Connection::to(&server)];
    for connection in &mut kept {
        connection.ask("HEAD", "/health");
        assert_eq!(connection.read(true).unwrap().status, 200);
    }
    let families = metrics(&server);
    let code = |code| {
        labelled(
            &families,
            "long_polling_http_responses_total",
            &[("code", code)],
        )
    };
    // The publish and two health checks; the answer with the metrics is counted after it was made.
    assert_eq!(code("200"), 3.0);
    assert_eq!((code("204"), code("400"), code("404")), (4.0, 1.0, 1.0));
    let http = if IS_NATIVE { "native" } else { "tiny_http" };
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("http", http)];
    assert_eq!(labelled(&families, "long_polling_build_info", &labels), 1.0);
    let started = value(&families, "long_polling_start_time_seconds");
    assert!((before.as_secs_f64() - 1.0..=before.as_secs_f64() + 60.0).contains(&started));
    // tiny_http's connections are counted by the system's list, which is Linux's.
    if IS_NATIVE || cfg!(target_os = "linux") {
        assert!(value(&families, "long_polling_connections") >= 3.0);
        let json = metrics_as_json(&server);
        assert!(json["connections"].as_u64().unwrap() >= 3, "{json}");
        assert_eq!(json["responses"]["204"], 4);
        assert_eq!(
            (&json["http"], &json["stopping"]),
            (&http.into(), &false.into())
        );
    }
    let all = names(&families);
    assert!(
        all.iter().all(|name| name.starts_with("long_polling_")),
        "{all:?}"
    );
    // Without Redis, there is nothing to say of it.
    assert!(
        !all.iter().any(|name| name.contains("backplane")),
        "{all:?}"
    );
}

#[test]
fn the_form_of_the_metrics_is_negotiated() {
    let server = start(monitored());
    for (accept, is_json) in [
        ("", false),
        ("Accept: */*\r\n", false),
        ("Accept: application/json\r\n", true),
        (
            "Accept: text/plain;q=0.2\r\nAccept: application/json;q=0.3\r\n",
            true,
        ),
        (
            "Accept: application/json;q=0.3, text/plain;version=0.0.4\r\n",
            false,
        ),
        (
            "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n",
            false,
        ),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = ask_with(&server, method, "/metrics?x=y", accept);
            let content_type = answer.header("Content-Type").unwrap();
            assert_eq!(content_type == "application/json", is_json, "{accept:?}");
            assert_eq!(
                (answer.status, answer.header("Vary")),
                (200, Some("Accept"))
            );
            assert_eq!(
                answer.header("Cache-Control"),
                Some("no-cache, no-store, must-revalidate")
            );
            assert_eq!(answer.body.is_empty(), method == "HEAD");
        }
    }
}

#[test]
fn other_methods_are_refused_and_without_the_settings_there_is_nothing() {
    let server = start(monitored().cors_origin("https://page.example"));
    for path in ["/metrics", "/health"] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = ask(&server, method, path);
            answer.refuses(405, "method");
            assert_eq!(answer.header("Allow"), Some("GET, HEAD, OPTIONS"));
        }
        let options = ask(&server, "OPTIONS", path);
        assert_eq!(
            (options.status, options.header("Allow")),
            (204, Some("GET, HEAD, OPTIONS"))
        );
        let origin = get(&server, path);
        assert_eq!(
            origin.header("Access-Control-Allow-Origin"),
            Some("https://page.example")
        );
        assert_eq!(get(&server, &format!("{path}/")).status, 404);
    }
    let plain = start(info());
    let fallback = start(info().fallback(|_: &Request| Response::text(200, "mine")));
    for path in ["/metrics", "/health"] {
        get(&plain, path).refuses(404, "not found");
        assert_eq!(get(&fallback, path).text(), "mine");
    }
}

#[test]
fn a_handler_guards_the_metrics_and_none_guards_the_health_check() {
    let server = start(
        monitored()
            .before_subscription(Handler::bearer_token("poll"))
            .before_publish(Handler::bearer_token("publish"))
            .before_metrics(Handler::bearer_token("metrics")),
    );
    for method in ["GET", "HEAD"] {
        assert_eq!(ask(&server, method, "/metrics").status, 401);
        assert_eq!(ask(&server, method, "/health").status, 200);
    }
    let with = |token| {
        let line = format!("Authorization: Bearer {token}\r\n");
        ask_with(&server, "GET", "/metrics", &line).status
    };
    assert_eq!(
        [with("poll"), with("publish"), with("metrics")],
        [401, 401, 200]
    );
    // A preflight request carries no credentials.
    assert_eq!(ask(&server, "OPTIONS", "/metrics").status, 204);
    let panics = start(
        monitored().before_metrics(|_: &Request| -> Result<(), Response> { panic!("on purpose") }),
    );
    assert_eq!(get(&panics, "/metrics").status, 500);
    assert_eq!(get(&panics, "/health").status, 200);
}

/// A store that fails as long as it is set to.
#[derive(Clone, Default)]
struct Unsteady {
    fails: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
}

impl Store for Unsteady {
    fn start(&mut self, _: Snapshot, _: &mut dyn FnMut(Record)) -> Result<(), Error> {
        Ok(())
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

    fn statistics(&self) -> StoreStatistics {
        assert!(!self.panics.load(SeqCst), "on purpose");
        let mut statistics = StoreStatistics::default();
        statistics.failing = self
            .fails
            .load(SeqCst)
            .then(|| "secret/path: disk on fire".into());
        statistics
    }
}

#[test]
fn the_health_check_fails_while_the_store_fails() {
    let store = Unsteady::default();
    let server = start(monitored().store(store.clone()));
    let healthy = get(&server, "/health");
    assert_eq!(
        (healthy.status, healthy.text()),
        (200, r#"{"status":"ok"}"#)
    );
    healthy.has_the_promised_headers();
    store.fails.store(true, SeqCst);
    let failing = get(&server, "/health");
    assert_eq!(failing.status, 503);
    assert_eq!(
        failing.text(),
        r#"{"status":"failing","reason":"the store can't keep events"}"#
    );
    failing.has_the_promised_headers();
    assert_eq!(failing.header("Retry-After"), Some("1"));
    assert_eq!(ask(&server, "HEAD", "/health").status, 503);
    assert_eq!(value(&metrics(&server), "long_polling_store_failing"), 1.0);
    let json = metrics_as_json(&server);
    assert_eq!(
        json["statistics"]["store"]["failing"],
        "secret/path: disk on fire"
    );
    store.fails.store(false, SeqCst);
    assert_eq!(get(&server, "/health").status, 200);
    // A health check is not a refused request.
    assert_eq!(server.statistics().refused, 0);
    store.panics.store(true, SeqCst);
    assert_eq!(get(&server, "/health").status, 500);
    store.panics.store(false, SeqCst);
    assert_eq!(get(&server, "/health").status, 200);
}

#[cfg(unix)]
#[test]
fn the_health_check_fails_while_another_process_has_taken_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.log");
    let file = || FilePersistorInfo::new(&path).durability(long_polling::Durability::Acknowledged);
    let server = start(monitored().file(file()));
    server.publish("c", &1).unwrap();
    assert_eq!(get(&server, "/health").status, 200);
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(folder.path().join("events.log.lock")).unwrap();
    let other = start(info().file(file()));
    until("the health check fails", || {
        assert!(server.publish("c", &2).is_err());
        get(&server, "/health").status == 503
    });
    assert!(server.stop(LIMIT).is_err());
    other.stop(LIMIT).unwrap();
}

#[test]
fn the_health_check_fails_from_the_begin_of_a_stop_on() {
    // The broker alone is stopped.
    let server = start(monitored());
    server.broker().stop(LIMIT).unwrap();
    let failing = get(&server, "/health");
    assert_eq!(failing.status, 503);
    assert!(failing.text().contains("the server stops"), "{failing:?}");
    assert_eq!(value(&metrics(&server), "long_polling_stopping"), 1.0);
    // The native backend closes idle connections at the stop.
    if !IS_NATIVE {
        let server = start(monitored());
        let mut connection = Connection::to(&server);
        connection.ask("GET", "/health");
        assert_eq!(connection.receive().status, 200);
        server.stop(LIMIT).unwrap();
        connection.ask("GET", "/health");
        let failing = connection.receive();
        assert_eq!(failing.status, 503);
        assert_eq!(failing.header("Connection"), Some("close"));
    }
}

#[test]
fn the_paths_are_checked_as_those_of_the_endpoints_are() {
    type Set = fn(ServerInfo) -> ServerInfo;
    for (set, words) in [
        ((|info| info.metrics_uri("metrics")) as Set, "metrics_uri: "),
        (|info| info.health_uri("/health?x"), "health_uri: "),
        (|info| info.health_uri("/a/../health"), "health_uri: "),
        (
            |info| info.metrics_uri("/events"),
            "metrics_uri: \"/events\" is the subscription_uri, too",
        ),
        (
            |info| info.health_uri("/publish"),
            "health_uri: \"/publish\" is the publish_uri, too",
        ),
        (
            |info| info.metrics_uri("/m").health_uri("/m"),
            "health_uri: \"/m\" is the metrics_uri, too",
        ),
        (
            |info| info.publish_uri("/events"),
            "publish_uri: \"/events\" is the subscription_uri, too",
        ),
        (
            |info| info.before_metrics(Handler::bearer_token("")),
            "before_metrics: the bearer token is empty",
        ),
    ] {
        let error = Server::start(set(info())).expect_err("an error");
        assert!(error.to_string().starts_with(words), "{error}");
    }
}

#[test]
fn the_metrics_show_what_is_done_in_the_program_too() {
    let server = start(monitored());
    server.publish("c", &1).unwrap();
    let batch = server.subscribe("c", Cursor::Oldest, Duration::ZERO);
    assert_eq!(batch.unwrap().events().len(), 1);
    agree(&server);
    let families = metrics(&server);
    assert_eq!(value(&families, "long_polling_events_delivered_total"), 1.0);
}
