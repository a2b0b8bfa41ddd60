//! The endpoints in a program's own HTTP server: the answers of `Server`, and what only they have.

use crate::support;

use std::fs;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use long_polling::server::{Endpoints, Fallback, Handler, Request, Response, TimeoutAnswer};
use long_polling::{
    Broker, BrokerOptions, ErrorKind, EventId, FilePersistorInfo, Server, ServerInfo,
};
use support::{Answer, Connection, LIMIT, info, poll, start, until};

fn endpoints(info: ServerInfo) -> Endpoints {
    Endpoints::new(info).expect("endpoints")
}

fn get(endpoints: &Endpoints, target: &str) -> Response {
    endpoints.answer(Request::new("GET", target))
}

fn publish(endpoints: &Endpoints, body: impl Into<Vec<u8>>) -> Response {
    endpoints.answer(Request::new("POST", "/publish").with_body(body))
}

fn until_parked(endpoints: &Endpoints, count: usize) {
    until("parked", || endpoints.broker().statistics().parked == count);
}

fn text(response: &Response) -> &str {
    std::str::from_utf8(&response.body).unwrap()
}

/// A request of the table: method, target, header fields and body.
type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

const JSON: &str = r#"{"category":"c","data":"new"}"#;
const PAGE: (&str, &str) = ("Origin", "https://page.example");

const TABLE: [Row; 48] = [
    ("GET", "/events?category=c&timeout=0&since_time=1", &[], ""),
    (
        "GET",
        "/events?category=c&timeout=60&since_time=1&limit=1",
        &[],
        "",
    ),
    (
        "GET",
        "http://host/events?category=c&timeout=0&since_time=1",
        &[],
        "",
    ),
    (
        "GET",
        "/%65vents?category=c&timeout=0&since_time=1",
        &[],
        "",
    ),
    (
        "GET",
        "/events?category=c&category=other&timeout=0&since_time=1",
        &[],
        "",
    ),
    (
        "GET",
        "/events?category=lost&timeout=0&since_time=1",
        &[],
        "",
    ),
    ("GET", "/events?category=quiet&timeout=0", &[], ""),
    ("GET", "/events?category=quiet&timeout=1", &[PAGE], ""),
    ("GET", "/events?category=c", &[], ""),
    ("GET", "/events?timeout=1", &[], ""),
    ("GET", "/events?category=&timeout=1", &[], ""),
    ("GET", "/events?category=c&timeout=x", &[], ""),
    ("GET", "/events?category=c&timeout=1&last_id=x", &[], ""),
    ("GET", "/events?category=c&timeout=1&limit=0", &[], ""),
    ("GET", "/events?category=forbidden&timeout=1", &[], ""),
    ("GET", "/events?category=panics&timeout=1", &[], ""),
    (
        "HEAD",
        "/events?category=c&timeout=60&since_time=1",
        &[],
        "",
    ),
    ("HEAD", "/events?category=quiet&timeout=60", &[], ""),
    ("HEAD", "/events", &[], ""),
    ("OPTIONS", "/events?category=c", &[], ""),
    (
        "OPTIONS",
        "/events",
        &[PAGE, ("Access-Control-Request-Headers", "x-a")],
        "",
    ),
    ("POST", "/events?category=c&timeout=1", &[], JSON),
    ("PATCH", "/events?category=c&timeout=1", &[], ""),
    ("POST", "/publish", &[], JSON),
    (
        "POST",
        "/publish",
        &[("Content-Type", "text/plain")],
        "\u{feff} {\"data\":[1],\"category\":\"c\",\"x\":0}",
    ),
    ("POST", "/publish?category=ignored", &[PAGE], JSON),
    ("POST", "/publish", &[], ""),
    ("POST", "/publish", &[], "{"),
    ("POST", "/publish", &[], r#"{"category":"","data":1}"#),
    ("POST", "/publish", &[], r#"{"category":"c","data":null}"#),
    (
        "POST",
        "/publish",
        &[],
        r#"{"category":"forbidden","data":1}"#,
    ),
    ("POST", "/publish", &[], r#"{"category":"panics","data":1}"#),
    (
        "POST",
        "/publish",
        &[],
        r#"{"category":"c","data":"0123456789012345678901234567890123456789"}"#,
    ),
    ("GET", "/publish", &[], ""),
    ("OPTIONS", "/publish", &[PAGE], ""),
    ("GET", "/", &[], ""),
    ("HEAD", "/echo", &[], ""),
    ("POST", "/echo?a=b", &[("X-A", "1"), ("x-a", "2")], "a body"),
    (
        "GET",
        "/echo",
        &[("X-Forwarded-For", "198.51.100.7, 203.0.113.9")],
        "",
    ),
    ("DELETE", "/panics", &[], ""),
    ("GET", "/odd", &[], ""),
    ("GET", "/health", &[], ""),
    ("HEAD", "/health", &[], ""),
    ("PUT", "/health", &[], ""),
    ("OPTIONS", "/metrics", &[], ""),
    ("OPTIONS", "*", &[], ""),
    ("GET", "events", &[], ""),
    ("CONNECT", "host:80", &[], ""),
];

/// Settings with every hook, of which each shows what it sees.
fn with_hooks(info: ServerInfo) -> ServerInfo {
    let hook = |request: &Request| match request.category() {
        Some("forbidden") => Err(Response::error(403, "forbidden").with_header("X-Hook", "1")),
        Some("panics") => panic!("on purpose"),
        _ => Ok(()),
    };
    let fallback = Fallback::new(|request| match request.path() {
        "/panics" => panic!("on purpose"),
        "/odd" => Response::text(999, "odd")
            .with_added_header("X-Bad", "a\r\nb")
            .with_added_header("Set-Cookie", "a=1")
            .with_added_header("Set-Cookie", "b=2")
            .with_header("Cache-Control", "max-age=5")
            .with_header("Content-Length", "77"),
        _ => {
            let ip = request.remote_address().map(|address| address.ip());
            let fields: Vec<_> = request.headers().get_all("X-A").collect();
            let body = String::from_utf8_lossy(request.body());
            let (method, query) = (request.method(), request.query());
            let seen = format!(
                "{method} {} {query} {ip:?} {fields:?} {body}",
                request.path()
            );
            Response::text(201, seen)
        }
    });
    info.timeout(Duration::from_secs(2))
        .before_subscription(hook)
        .before_publish(hook)
        .fallback(fallback)
        .cors_origin("https://page.example")
        .trusted_proxies([[127, 0, 0, 1].into()])
        .timeout_answer(TimeoutAnswer::NoContent)
        .metrics_uri("/metrics")
        .health_uri("/health")
}

/// An answer in a form in which two can be compared: without what frames the message, and without ids of new events.
#[derive(Debug, PartialEq)]
struct Comparable {
    status: u16,
    fields: Vec<(String, String)>,
    length: usize,
    body: String,
}

fn comparable(
    status: u16,
    fields: impl IntoIterator<Item = (String, String)>,
    length: usize,
    body: &[u8],
) -> Comparable {
    let is_new = body.starts_with(br#"{"success"#);
    let fields = fields
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value));
    let fields = fields
        .filter(|(name, _)| !["date", "content-length", "connection"].contains(&name.as_str()));
    let mut fields: Vec<_> = fields
        .map(|(name, value)| match &*name {
            "last-event-id" if is_new => (
                name,
                value.parse::<EventId>().map(|_| "new".into()).unwrap(),
            ),
            _ => (name, value),
        })
        .collect();
    fields.sort();
    Comparable {
        status,
        fields,
        length,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

fn of_server(server: &Server, (method, target, fields, body): Row) -> Comparable {
    let mut connection = Connection::to(server);
    let lines: String = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    connection.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: test\r\n{lines}{length}\r\n{body}"
    ));
    let answer: Answer = connection.read(method == "HEAD").expect("an answer");
    let length = answer
        .header("Content-Length")
        .map_or(0, |length| length.parse().unwrap());
    comparable(answer.status, answer.headers, length, &answer.body)
}

fn of_endpoints(endpoints: &Endpoints, (method, target, fields, body): Row) -> Comparable {
    let request = Request::new(method, target)
        .with_header("Host", "test")
        .with_remote_address(([127, 0, 0, 1], 4711).into())
        .with_body(body);
    let request = fields.iter().fold(request, |request, (name, value)| {
        request.with_added_header(name, value)
    });
    let response = endpoints.answer(request);
    let body = if method == "HEAD" {
        &[]
    } else {
        &*response.body
    };
    comparable(response.status, response.headers, response.body.len(), body)
}

#[test]
fn the_endpoints_answer_as_the_server_does() {
    let options = BrokerOptions::new()
        .events_per_category(2)
        .max_event_size(40);
    let server = start(with_hooks(info()).broker(options));
    let broker = server.broker();
    let mounted = endpoints(with_hooks(info()).shared_broker(broker.clone()));
    for row in TABLE {
        for (category, count) in [("c", 2), ("other", 1), ("lost", 3)] {
            for number in 0..count {
                broker.publish(category, &number).unwrap();
            }
        }
        assert_eq!(
            of_endpoints(&mounted, row),
            of_server(&server, row),
            "{row:?}"
        );
    }
    let statuses: Vec<u16> = TABLE.map(|row| of_endpoints(&mounted, row).status).into();
    for status in [200, 201, 204, 400, 403, 404, 405, 413, 500, 501] {
        // No path is left for a 404: the fallback answers them all.
        assert!(statuses.contains(&status) || status == 404, "no {status}");
    }
}

#[test]
fn a_body_has_the_size_that_the_server_allows_and_no_more() {
    let options = BrokerOptions::new().max_event_size(100);
    let mounted = endpoints(info().broker(options));
    let body = format!("{JSON:<0$}", mounted.max_body_size());
    assert_eq!(publish(&mounted, body.clone()).status, 200);
    let larger = publish(&mounted, body + " ");
    assert_eq!(larger.status, 413);
    assert!(text(&larger).contains(&mounted.max_body_size().to_string()));
    let statistics = mounted.broker().statistics();
    assert_eq!((statistics.published, statistics.refused), (1, 1));
}

#[test]
fn a_head_that_no_http_server_would_pass_on_is_refused() {
    let seen = Arc::new(Mutex::new(0));
    let count = seen.clone();
    let mounted = endpoints(info().fallback(move |_: &Request| {
        *count.lock().unwrap() += 1;
        Response::new(204)
    }));
    for request in [
        Request::new("G ET", "/"),
        Request::new("", "/"),
        Request::new("GET", "/ x"),
        Request::new("GET", "/#x"),
        Request::new("GET", "/").with_header("X-A", "a\r\nb"),
        Request::new("GET", "/").with_header("X A", "a"),
        Request::new("GET", "/").with_header("Host", "a b"),
        Request::new("GET", "/")
            .with_added_header("Host", "a")
            .with_added_header("Host", "a"),
        Request::new("GET", ""),
    ] {
        let response = mounted.answer(request.clone());
        assert_eq!(response.status, 400, "{request:?}");
        assert!(text(&response).starts_with(r#"{"error":"#));
    }
    // Whether a request needs a Host is for the program's server to decide.
    assert_eq!(get(&mounted, "/").status, 204);
    assert_eq!(*seen.lock().unwrap(), 1);
}

#[test]
fn a_parked_poll_gets_the_next_event_and_times_out_without_one() {
    let mounted = endpoints(info());
    let (sender, receiver) = mpsc::channel();
    for _ in 0..3 {
        let (mounted, sender) = (mounted.clone(), sender.clone());
        thread::spawn(move || sender.send(get(&mounted, &poll("c", 60, ""))));
    }
    until_parked(&mounted, 3);
    let published = publish(&mounted, JSON);
    for _ in 0..3 {
        let response = receiver.recv_timeout(LIMIT).unwrap();
        assert_eq!(response.status, 200);
        assert!(text(&response).contains(r#""data":"new""#));
        assert_eq!(
            response.headers.get("Last-Event-ID"),
            published.headers.get("Last-Event-ID")
        );
    }
    let before = Instant::now();
    let nothing = get(&mounted, &poll("c", 1, ""));
    assert_eq!((nothing.status, nothing.body.len()), (204, 0));
    assert!(before.elapsed() > Duration::from_millis(700));
    assert!(nothing.headers.get("Last-Event-ID").is_some());
    assert_eq!(nothing.headers.get("Content-Type"), None);
}

#[test]
fn a_stop_answers_parked_polls_and_refuses_publishes() {
    let mounted = endpoints(info().health_uri("/health"));
    let parked = mounted.clone();
    let parked = thread::spawn(move || get(&parked, &poll("c", 60, "")));
    until_parked(&mounted, 1);
    mounted.stop(LIMIT).unwrap();
    assert_eq!(parked.join().unwrap().status, 204);
    let refused = publish(&mounted, JSON);
    assert_eq!(
        (refused.status, refused.headers.get("Retry-After")),
        (503, Some("1"))
    );
    let health = get(&mounted, "/health");
    assert_eq!(health.status, 503);
    assert!(text(&health).contains("the server stops"));
    // A poll does not park any more.
    assert_eq!(get(&mounted, &poll("c", 60, "")).status, 204);
    assert_eq!(
        mounted.broker().publish("c", &1).unwrap_err().kind(),
        ErrorKind::Stopped
    );
    mounted.stop(LIMIT).unwrap();
}

#[test]
fn a_stop_waits_for_requests_in_flight_until_its_timeout() {
    let (entered, enters) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (entered, released) = (Mutex::new(entered), Mutex::new(released));
    let mounted = endpoints(info().before_publish(move |_: &Request| {
        entered.lock().unwrap().send(()).unwrap();
        let _ = released.lock().unwrap().recv_timeout(LIMIT);
        Ok(())
    }));
    let publishing = mounted.clone();
    let publishing = thread::spawn(move || publish(&publishing, JSON));
    enters.recv_timeout(LIMIT).unwrap();
    let error = mounted.stop(Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StopTimeout);
    let stopping = mounted.clone();
    let stopping = thread::spawn(move || stopping.stop(LIMIT));
    release.send(()).unwrap();
    // The broker is stopped already.
    assert_eq!(publishing.join().unwrap().status, 503);
    stopping.join().unwrap().unwrap();
}

#[test]
fn a_program_may_have_paths_of_its_own() {
    let mounted = endpoints(
        info()
            .subscription_uri("/e")
            .publish_uri("/p")
            .metrics_uri("/m"),
    );
    let served =
        ["/e", "/p", "/m", "/health", "/events", "/", "*"].map(|path| mounted.serves(path));
    assert_eq!(served, [true, true, true, false, false, false, false]);
    assert_eq!(
        get(&mounted, "/users/7/inbox?category=c&timeout=0").status,
        404
    );
    let path = "/users/7/inbox?category=c&timeout=0&since_time=1";
    let published = mounted.publish(Request::new("POST", path).with_body(JSON));
    assert_eq!(published.status, 200);
    let polled = mounted.subscribe(Request::new("GET", path));
    assert_eq!(polled.status, 200);
    // Also where the path is that of another endpoint.
    assert_eq!(mounted.publish(Request::new("GET", "/e")).status, 405);
    assert_eq!(mounted.subscribe(Request::new("POST", "/m")).status, 405);
}

#[test]
fn a_secret_is_asked_for_with_the_servers_handlers() {
    let mounted = endpoints(info().before_publish(Handler::bearer_token("secret")));
    let request = || Request::new("POST", "/publish").with_body(JSON);
    let refused = mounted.answer(request());
    assert_eq!(refused.status, 401);
    assert_eq!(refused.headers.get("WWW-Authenticate"), Some("Bearer"));
    let granted = request().with_header("authorization", "Bearer secret");
    assert_eq!(mounted.answer(granted).status, 200);
}

#[test]
fn the_metrics_say_that_the_endpoints_are_mounted() {
    let mounted = endpoints(info().metrics_uri("/metrics"));
    assert_eq!(publish(&mounted, JSON).status, 200);
    let families = crate::exposition::parse(text(&get(&mounted, "/metrics"))).unwrap();
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("http", "mounted")];
    let labelled = |name, labels| crate::exposition::labelled(&families, name, labels);
    assert_eq!(labelled("long_polling_build_info", &labels), 1.0);
    assert_eq!(
        labelled("long_polling_http_responses_total", &[("code", "200")]),
        1.0
    );
    assert!(!families.contains_key("long_polling_connections"));
}

#[test]
fn endpoints_keep_their_events_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.log");
    let settings = || info().file(FilePersistorInfo::new(&path));
    let mounted = endpoints(settings());
    assert_eq!(publish(&mounted, JSON).status, 200);
    mounted.stop(LIMIT).unwrap();
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .contains(r#""data":"new""#)
    );
    let again = endpoints(settings());
    assert_eq!(get(&again, &poll("c", 0, "&since_time=1")).status, 200);
}

#[test]
fn a_shared_broker_goes_on_after_the_stop() {
    let broker = Broker::new(BrokerOptions::new()).unwrap();
    let [one, other] = [(); 2].map(|()| endpoints(info().shared_broker(broker.clone())));
    let (sender, receiver) = mpsc::channel();
    let parked = other.clone();
    thread::spawn(move || sender.send(get(&parked, &poll("c", 60, ""))));
    until_parked(&other, 1);
    one.stop(LIMIT).unwrap();
    assert_eq!(publish(&one, JSON).status, 503);
    assert_eq!(get(&one, &poll("c", 60, "")).status, 204);
    assert_eq!(publish(&other, JSON).status, 200);
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap().status, 200);
    assert!(broker.publish("c", &1).is_ok());
}

#[test]
fn settings_are_checked_but_for_those_of_connections() {
    let refused = |info| Endpoints::new(info).unwrap_err().to_string();
    assert!(refused(info().publish_uri("/events")).starts_with("publish_uri: "));
    assert!(refused(info().timeout(Duration::ZERO)).starts_with("timeout: "));
    assert!(refused(info().cors_origin("x")).starts_with("cors_origin: "));
    let options = BrokerOptions::new().max_parked(0);
    assert!(refused(info().broker(options)).starts_with("max_parked: "));
    assert!(refused(info().health_uri("")).starts_with("health_uri: "));
    endpoints(info().address("no address").max_connections(0));
}
