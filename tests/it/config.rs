//! Settings from configuration files, in JSON and in TOML.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use long_polling::server::{Cors, HttpBackend, PollWithoutCursor, TimeoutAnswer};
use long_polling::{
    Broker, BrokerOptions, CategoryOptions, Durability, Error, FilePersistorInfo, Server,
    ServerInfo,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const SECOND: Duration = Duration::from_secs(1);

fn error<T: DeserializeOwned + Debug>(json: &str) -> String {
    serde_json::from_str::<T>(json).unwrap_err().to_string()
}

/// The names that a file may have, from the error of another name.
fn names<T: DeserializeOwned + Debug>() -> BTreeSet<String> {
    let words = error::<T>(r#"{"no_such_setting": 1}"#);
    assert!(words.contains("unknown field `no_such_setting`"), "{words}");
    let quoted = words.split('`').skip(3).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// The setters of a type in the files of this folder.
fn setters(folder: &str, of: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let begin = format!("\nimpl {of} {{");
    let mut setters = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = fs::read_to_string(path).unwrap();
        for block in source.split(&begin).skip(1) {
            let block = block.split("\n}").next().unwrap();
            let functions = block.split("pub fn ").skip(1);
            let taking_self = functions.filter_map(|function| function.split_once("(mut self"));
            let named = taking_self.filter(|(name, _)| !name.contains(['(', ' ']));
            setters.extend(named.map(|(name, _)| name.to_owned()));
        }
    }
    assert!(!setters.is_empty(), "no setters of {of}");
    setters
}

fn every_setter_is_in_files<T: DeserializeOwned + Debug>(folder: &str, of: &str, code: &[&str]) {
    let mut expected = setters(folder, of);
    for setter in code {
        assert!(expected.remove(*setter), "{of} has no setter {setter}");
    }
    // It takes two values, so the table `categories` of a file calls it for each prefix.
    if expected.remove("for_categories") {
        expected.insert("categories".into());
    }
    // The source has the settings of all features.
    let names = names::<T>();
    if !cfg!(feature = "redis") {
        expected.remove("redis");
    }
    assert_eq!(names, expected, "{of}");
}

#[test]
fn a_file_can_have_every_setting_that_is_not_code() {
    let code = [
        "before_metrics",
        "before_publish",
        "before_subscription",
        "fallback",
        "listener",
        "on_failure",
        "shared_broker",
        "store",
    ];
    every_setter_is_in_files::<ServerInfo>("src/server", "ServerInfo", &code);
    every_setter_is_in_files::<Cors>("src/server", "Cors", &[]);
    every_setter_is_in_files::<BrokerOptions>(
        "src/broker",
        "BrokerOptions",
        &["on_leave", "on_subscribe"],
    );
    every_setter_is_in_files::<CategoryOptions>("src/broker", "CategoryOptions", &[]);
    every_setter_is_in_files::<FilePersistorInfo>(
        "src/store/file",
        "FilePersistorInfo",
        &["on_change"],
    );
}

fn same<T: DeserializeOwned + Debug>(json: &str, expected: T) {
    let read: T = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
    assert_eq!(format!("{read:?}"), format!("{expected:?}"), "{json}");
}

#[test]
fn each_setting_has_the_value_that_its_setter_would_give_it() {
    let info = ServerInfo::default;
    same("{}", info());
    for (json, expected) in [
        (r#"{"address": ":81"}"#, info().address(":81")),
        (r#"{"socket_mode": "660"}"#, info().socket_mode(0o660)),
        (r#"{"socket_mode": "0o600"}"#, info().socket_mode(0o600)),
        (r#"{"timeout": "90s"}"#, info().timeout(90 * SECOND)),
        (r#"{"timeout": 90}"#, info().timeout(90 * SECOND)),
        (r#"{"timeout": 1.5}"#, info().timeout(SECOND * 3 / 2)),
        (r#"{"timeout": "1m30s"}"#, info().timeout(90 * SECOND)),
        (
            r#"{"subscription_uri": "/a"}"#,
            info().subscription_uri("/a"),
        ),
        (r#"{"publish_uri": "/a"}"#, info().publish_uri("/a")),
        (r#"{"metrics_uri": "/a"}"#, info().metrics_uri("/a")),
        (r#"{"health_uri": "/a"}"#, info().health_uri("/a")),
        (r#"{"max_body_size": "1M"}"#, info().max_body_size(1 << 20)),
        (
            r#"{"timeout_answer": "golongpoll"}"#,
            info().timeout_answer(TimeoutAnswer::Golongpoll),
        ),
        (
            r#"{"poll_without_cursor": "oldest"}"#,
            info().poll_without_cursor(PollWithoutCursor::Oldest),
        ),
        (r#"{"cors_origin": "*"}"#, info().cors_origin("*")),
        (
            r#"{"cors": {"origins": ["https://a.example", "null"], "max_age": "5m"}}"#,
            info().cors(
                Cors::new()
                    .origins(["https://a.example", "null"])
                    .max_age(300 * SECOND),
            ),
        ),
        (
            r#"{"cors": {"credentials": true, "allowed_headers": ["X-A"], "exposed_headers": ["X-B"]}}"#,
            info().cors(
                Cors::new()
                    .credentials(true)
                    .allowed_headers(["X-A"])
                    .exposed_headers(["X-B"]),
            ),
        ),
        (
            r#"{"hosts": ["a.example", "[::1]:80"]}"#,
            info().hosts(["a.example", "[::1]:80"]),
        ),
        (
            r#"{"browser_client": "/a.js"}"#,
            info().browser_client("/a.js"),
        ),
        (
            r#"{"idle_timeout": "5m"}"#,
            info().idle_timeout(300 * SECOND),
        ),
        (r#"{"idle_timeout": null}"#, info()),
        (r#"{"idle_timeout": "none"}"#, info()),
        (
            r#"{"write_timeout": "500ms"}"#,
            info().write_timeout(SECOND / 2),
        ),
        (
            r#"{"restore_timeout": 0}"#,
            info().restore_timeout(Duration::ZERO),
        ),
        (
            r#"{"trusted_networks": ["10.0.0.0/8", "::1"]}"#,
            info().trusted_networks(["10.0.0.0/8", "::1"].map(|network| network.parse().unwrap())),
        ),
        (
            r#"{"trusted_proxies": ["10.0.0.1", "::1"]}"#,
            info().trusted_proxies(["10.0.0.1", "::1"].map(|ip| ip.parse().unwrap())),
        ),
        (
            r#"{"trust_unix_peers": true}"#,
            info().trust_unix_peers(true),
        ),
        (
            r#"{"trust_unix_peers": "true"}"#,
            info().trust_unix_peers(true),
        ),
        (
            r#"{"http_backend": "native"}"#,
            info().http_backend(HttpBackend::Native),
        ),
        (r#"{"max_connections": 77}"#, info().max_connections(77)),
        (r#"{"max_connections": "77"}"#, info().max_connections(77)),
        (
            r#"{"thread_stack_size": "512K"}"#,
            info().thread_stack_size(512 << 10),
        ),
        (r#"{"head_timeout": "3s"}"#, info().head_timeout(3 * SECOND)),
        (r#"{"body_timeout": "3s"}"#, info().body_timeout(3 * SECOND)),
        (
            r#"{"broker": {"max_parked": 7}}"#,
            info().broker(BrokerOptions::new().max_parked(7)),
        ),
        (
            r#"{"file": {"file_name": "a.log"}}"#,
            info().file(FilePersistorInfo::new("a.log")),
        ),
    ] {
        same(json, expected);
    }
    same(
        r#"{"events_per_category": 1, "event_ttl": "1h", "delete_after_first_retrieval": true, "max_event_size": "2K",
            "max_parked": 3, "max_categories": 4, "max_batch_size": 5, "max_event_bytes": "6M",
            "idempotency_window": "7s", "max_idempotency_keys": 8, "max_idempotency_bytes": "9K",
            "presence": "10s",
            "categories": {"a/": {"events_per_category": 7}, "b/": {"event_ttl": "2s"}, "c/": {"event_ttl": null}}}"#,
        BrokerOptions::new()
            .events_per_category(1)
            .event_ttl(3600 * SECOND)
            .delete_after_first_retrieval(true)
            .max_event_size(2 << 10)
            .max_parked(3)
            .max_categories(4)
            .max_batch_size(5)
            .max_event_bytes(6 << 20)
            .idempotency_window(7 * SECOND)
            .max_idempotency_keys(8)
            .max_idempotency_bytes(9 << 10)
            .presence(10 * SECOND)
            .for_categories("a/", CategoryOptions::new().events_per_category(7))
            .for_categories("b/", CategoryOptions::new().event_ttl(2 * SECOND))
            .for_categories("c/", CategoryOptions::new().event_ttl(None)),
    );
    same(
        r#"{"file_name": "a.log", "durability": "synced:2s", "write_buffer_size": 0, "write_flush_period": "2s",
            "max_queue_size": "1M", "max_wait": 3, "compact_from": null}"#,
        FilePersistorInfo::new("a.log")
            .durability(Durability::Synced { period: 2 * SECOND })
            .write_buffer_size(0)
            .write_flush_period(2 * SECOND)
            .max_queue_size(1 << 20)
            .max_wait(3 * SECOND)
            .compact_from(None),
    );
    same(
        r#"{"compact_from": "8M"}"#,
        FilePersistorInfo::default().compact_from(8 << 20),
    );
}

#[test]
fn a_value_that_cannot_be_read_names_its_setting() {
    for (json, words) in [
        (
            r#"{"timeout": "soon"}"#,
            r#"timeout: not a duration: "soon"; give a number of seconds"#,
        ),
        (
            r#"{"timeout": -1}"#,
            r#"integer `-1`, expected a duration such as "10s", or a number of seconds, for `timeout`"#,
        ),
        (
            r#"{"timeout": true}"#,
            "boolean `true`, expected a duration",
        ),
        (r#"{"timeout": null}"#, "for `timeout`"),
        (r#"{"timeout": {}}"#, "for `timeout`"),
        (r#"{"idle_timeout": 1e300}"#, "for `idle_timeout`"),
        (
            r#"{"thread_stack_size": "64MB"}"#,
            r#"thread_stack_size: not a size: "64MB""#,
        ),
        (r#"{"thread_stack_size": 0.5}"#, "for `thread_stack_size`"),
        (
            r#"{"max_connections": "many"}"#,
            r#"max_connections: not a number: "many""#,
        ),
        (
            r#"{"trust_unix_peers": 1}"#,
            "expected true or false for `trust_unix_peers`",
        ),
        (
            r#"{"trust_unix_peers": "yes"}"#,
            r#"trust_unix_peers: not a truth value: "yes""#,
        ),
        (
            r#"{"socket_mode": "999"}"#,
            r#"socket_mode: not a mode: "999"; give octal digits"#,
        ),
        (
            r#"{"timeout_answer": "never"}"#,
            r#"timeout_answer: not a timeout answer: "never"; give no_content or golongpoll"#,
        ),
        (r#"{"poll_without_cursor": ""}"#, "poll_without_cursor: "),
        (
            r#"{"http_backend": "hyper"}"#,
            r#"http_backend: not an HTTP backend of this build: "hyper"; give tiny_http or native"#,
        ),
        (
            r#"{"trusted_proxies": ["proxy"]}"#,
            r#"trusted_proxies: "proxy": invalid IP address syntax"#,
        ),
        (
            r#"{"trusted_networks": ["10.0.0.1/8"]}"#,
            r#"trusted_networks: not a network of IP addresses: "10.0.0.1/8": bits after the first 8 are set"#,
        ),
        (
            r#"{"trusted_proxies": "::1"}"#,
            "expected a list for `trusted_proxies`",
        ),
        (r#"{"address": 8080}"#, "expected text for `address`"),
        (
            r#"{"broker": {"event_ttl": "x"}}"#,
            "event_ttl: not a duration",
        ),
        (r#"{"broker": {"evnt_ttl": 1}}"#, "unknown field `evnt_ttl`"),
        (
            r#"{"broker": {"categories": [1]}}"#,
            "expected a table for `categories`",
        ),
        (
            r#"{"broker": {"categories": {"a/": {"max_parked": 1}}}}"#,
            "unknown field `max_parked`",
        ),
        (
            r#"{"broker": 7}"#,
            "expected a map with settings of a broker",
        ),
        (
            r#"{"file": {"durability": "high"}}"#,
            "durability: not a durability",
        ),
        (
            r#"{"timeout": 1, "timeout": 2}"#,
            "duplicate field `timeout`",
        ),
        (
            r#"{"before_publish": "x"}"#,
            "unknown field `before_publish`, expected one of `address`",
        ),
        (r#"[]"#, "expected a map with settings of a server"),
    ] {
        let message = error::<ServerInfo>(json);
        assert!(message.contains(words), "{json}: {message}");
        assert!(message.contains("at line 1 column "), "{json}: {message}");
    }
    // A value that can be read is checked at the start.
    let info: ServerInfo = serde_json::from_str(r#"{"timeout": 0}"#).unwrap();
    let refused = Server::start(info.address("127.0.0.1:0")).unwrap_err();
    assert!(refused.to_string().starts_with("timeout: "), "{refused}");
}

#[test]
fn toml_says_where_the_setting_is() {
    let text = "address = \"127.0.0.1:0\"\n\n[broker]\nmax_event_size = \"64K\"\n\n[file]\nmax_wait = 1.5\n";
    let info: ServerInfo = toml::from_str(text).unwrap();
    let expected = ServerInfo::new("127.0.0.1:0")
        .broker(BrokerOptions::new().max_event_size(64 << 10))
        .file(FilePersistorInfo::default().max_wait(SECOND * 3 / 2));
    assert_eq!(format!("{info:?}"), format!("{expected:?}"));
    let wrong = text.replace("64K", "64 K");
    let message = toml::from_str::<ServerInfo>(&wrong)
        .unwrap_err()
        .to_string();
    assert!(message.contains("line 4"), "{message}");
    assert!(
        message.contains(r#"max_event_size: not a size: "64 K""#),
        "{message}"
    );
}

#[test]
#[cfg(feature = "redis")]
fn redis_needs_its_url_and_excludes_a_file() {
    use long_polling::RedisBackplane;
    // `url` is the argument of `new`.
    let mut expected = setters("src/redis", "RedisBackplane");
    assert!(expected.remove("on_state") && expected.insert("url".into()));
    assert_eq!(names::<RedisBackplane>(), expected);
    let read = |json: &str| serde_json::from_str::<ServerInfo>(json);
    let json = r#"{"redis": {"url": "redis://a", "streams": 2, "read_streams": [0, 1], "max_wait": "1s"}}"#;
    let redis = RedisBackplane::new("redis://a")
        .streams(2)
        .read_streams([0, 1]);
    let expected = ServerInfo::default().redis(redis.max_wait(SECOND));
    assert_eq!(
        format!("{:?}", read(json).unwrap()),
        format!("{expected:?}")
    );
    for (json, words) in [
        (r#"{"redis": {"streams": 2}}"#, "missing field `url`"),
        (
            r#"{"redis": {"url": "redis://a"}, "file": {}}"#,
            "redis: file is given, too",
        ),
        (
            r#"{"redis": {"url": "redis://a", "read_streams": ["x"]}}"#,
            "read_streams: not a number",
        ),
    ] {
        let error = read(json).unwrap_err().to_string();
        assert!(error.contains(words), "{json}: {error}");
    }
}

fn is_its_name<T>(value: T, name: &str)
where
    T: FromStr<Err = Error> + ToString + Serialize + DeserializeOwned + Debug + PartialEq,
{
    assert_eq!(value.to_string(), name);
    assert_eq!(name.parse::<T>().unwrap(), value);
    let json = serde_json::to_string(&value).unwrap();
    assert_eq!(json, format!("{name:?}"));
    assert_eq!(serde_json::from_str::<T>(&json).unwrap(), value);
    assert!(name.to_uppercase().parse::<T>().is_err());
}

#[test]
fn small_enums_are_read_from_the_text_that_they_are_written_as() {
    is_its_name(HttpBackend::TinyHttp, "tiny_http");
    is_its_name(HttpBackend::Native, "native");
    is_its_name(TimeoutAnswer::NoContent, "no_content");
    is_its_name(TimeoutAnswer::Golongpoll, "golongpoll");
    is_its_name(PollWithoutCursor::Now, "now");
    is_its_name(PollWithoutCursor::Oldest, "oldest");
    assert_eq!(format!("{:>7}", PollWithoutCursor::Now), "    now");
}

#[test]
fn statistics_are_written_as_json() {
    let broker = Broker::new(BrokerOptions::new()).unwrap();
    broker.publish("c", "event").unwrap();
    let json = serde_json::to_value(broker.statistics()).unwrap();
    assert_eq!(
        (&json["published"], &json["categories"]),
        (&1.into(), &1.into())
    );
    assert_eq!(json["event_bytes"], broker.statistics().event_bytes);
    assert_eq!(json["store"]["failing"], serde_json::Value::Null);
}
