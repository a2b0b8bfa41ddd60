//! The log records of servers and clients: no secret is in them, and the guide's table has their targets and levels. In a
//! process of its own, since a process has one logger.

#[allow(dead_code)]
#[path = "../support/ports.rs"]
mod ports;
#[allow(dead_code)]
#[path = "../it/scripted.rs"]
mod scripted;
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

mod table;

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use long_polling::server::{Handler, HttpBackend, Request, Response};
use long_polling::{
    Credentials, Cursor, FilePersistorInfo, Headers, Publisher, Server, Subscriber,
    SubscriptionRequest, subscription,
};
use ports::ClosedPort;
use scripted::{ScriptedServer, response};
use support::{Answer, Connection, LIMIT, info, start, until, until_parked};

/// A secret, as it is and as base64 has it within `user:…`.
const SECRET: &str = "s3cr3t-0f-this-t3st";
const ENCODED: &str = "czNjcjN0";

#[derive(Debug)]
struct Entry {
    level: Level,
    target: String,
    text: String,
}

static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let entry = Entry {
            level: record.level(),
            target: record.target().into(),
            text: record.args().to_string(),
        };
        ENTRIES.lock().unwrap().push(entry);
    }

    fn flush(&self) {}
}

fn is_logged(level: Level, target: &str, text: &str) -> bool {
    let entries = ENTRIES.lock().unwrap();
    entries.iter().any(|entry| {
        entry.level == level && entry.target.starts_with(target) && entry.text.contains(text)
    })
}

#[test]
fn no_record_has_a_secret_of_a_request_an_answer_an_event_or_a_url() {
    log::set_logger(&Logger).expect("no other test sets a logger");
    log::set_max_level(LevelFilter::Trace);
    for backend in [HttpBackend::TinyHttp, HttpBackend::Native] {
        served(backend);
    }
    followed();
    retried();
    for (level, target, text) in [
        (Level::Info, "long_polling::server", "the server listens on"),
        (
            Level::Error,
            "long_polling::server",
            "a handler panicked on GET",
        ),
        (
            Level::Error,
            "long_polling::server",
            "\"X-Bad\" of an answer is left out",
        ),
        (Level::Info, "long_polling::store", "events read in"),
        (
            Level::Warn,
            "long_polling::store",
            "is damaged and is skipped",
        ),
        (Level::Debug, "long_polling::client", "redirects to"),
        (Level::Warn, "long_polling::client", "trying again in"),
        (Level::Info, "long_polling::server", "stopped after"),
    ] {
        assert!(is_logged(level, target, text), "{level} {target}: {text}");
    }
    for entry in ENTRIES.lock().unwrap().iter() {
        // ureq's records have whole URLs at the level debug, and what it sends and receives at trace, as the guide says.
        if entry.target.starts_with("ureq") && entry.level >= Level::Debug {
            continue;
        }
        let leaks = entry.text.contains(SECRET) || entry.text.contains(ENCODED);
        assert!(!leaks, "{entry:?}");
    }
}

/// A server that logs as much as it can, with secrets in all that clients send and hooks answer.
fn served(backend: HttpBackend) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.log");
    // A damaged line with a secret in it.
    let damaged = format!("{{\"timestamp\":1,\"category\":\"{SECRET}\",\"data\":\"{SECRET}\n\n");
    fs::write(&path, damaged).unwrap();
    let server = start(
        info()
            .http_backend(backend)
            .file(FilePersistorInfo::new(&path))
            .before_publish(Handler::bearer_token(SECRET))
            .before_metrics(Handler::basic_auth("user", SECRET))
            .metrics_uri("/metrics")
            .fallback(|request: &Request| match request.path() {
                "/bad" => {
                    Response::new(200).with_header("X-Bad", &format!("token={SECRET}\r\nX-B: c"))
                }
                _ => panic!("on purpose"),
            }),
    );
    let publish = format!("{{\"category\":\"{SECRET}\",\"data\":\"{SECRET}\"}}");
    for (expected, method, target, body) in [
        (200, "POST", format!("/publish?token={SECRET}"), &*publish),
        (
            200,
            "GET",
            format!("/events?token={SECRET}&category={SECRET}&timeout=0&since_time=1"),
            "",
        ),
        (
            400,
            "GET",
            format!("/events?token={SECRET}&category=c&timeout=0&last_id={SECRET}"),
            "",
        ),
        (
            400,
            "POST",
            format!("/publish?token={SECRET}"),
            &publish[..20],
        ),
        (401, "GET", format!("/metrics?token={SECRET}"), ""),
        (200, "GET", format!("/bad?token={SECRET}"), ""),
        (500, "GET", format!("/panics?token={SECRET}"), ""),
        (400, "GET", format!("/events?token={SECRET}\u{7f}"), ""),
    ] {
        let answer = ask(&server, method, &target, body);
        assert_eq!(answer.status, expected, "{method} {target}");
    }
    // A client that does not wait for the answer to its poll.
    let mut connection = Connection::to(&server);
    send(
        &mut connection,
        "GET",
        &format!("/events?category=c&timeout=60&token={SECRET}"),
        "",
    );
    until_parked(&server, 1);
    drop(connection);
    server.publish("c", SECRET).unwrap();
    server.stop(LIMIT).unwrap();
}

fn send(connection: &mut Connection, method: &str, target: &str, body: &str) {
    let length = body.len();
    connection.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {SECRET}\r\nCookie: {SECRET}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    ));
}

fn ask(server: &Server, method: &str, target: &str, body: &str) -> Answer {
    let mut connection = Connection::to(server);
    send(&mut connection, method, target, body);
    connection.receive()
}

/// A client whose URL has a password and a token in its query, and that is redirected.
fn followed() {
    let server = start(info().before_publish(Handler::basic_auth("user", SECRET)));
    let (address, query) = (server.local_addr(), format!("?token={SECRET}"));
    let headers = Headers::from([("X-Api-Key", SECRET)]);
    Publisher::new(format!("http://user:{SECRET}@{address}/publish{query}"))
        .header("X-Api-Key", SECRET)
        .publish("c", SECRET)
        .unwrap();
    let location = format!("http://{address}/events{query}&category=c&timeout=0&since_time=1");
    let redirecting = ScriptedServer::start([response(302, &[("Location", &location)], "")]);
    let url = redirecting.url(&format!("/old{query}"));
    let url = url.replace("http://", &format!("http://user:{SECRET}@"));
    let request = SubscriptionRequest::new("c");
    let token = Credentials::bearer(SECRET);
    let polled = subscription(&url, Some(&headers), &request, Some(&token), None).unwrap();
    assert_eq!(polled.events[0].text(), SECRET);
}

/// A subscriber whose server is away, and then there.
fn retried() {
    let port = ClosedPort::new();
    let address = port.address;
    let url = format!("http://user:{SECRET}@{address}/events?token={SECRET}");
    let (sender, retries) = std::sync::mpsc::channel();
    let mut subscriber = Subscriber::new(url, "c")
        .start_at(Cursor::Oldest)
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
        .on_retry(move |_| sender.send(()).unwrap());
    let stopper = subscriber.stopper();
    let thread = std::thread::spawn(move || subscriber.next().is_none());
    retries.recv_timeout(LIMIT).unwrap();
    stopper.stop();
    until("the subscriber has ended", || thread.is_finished());
    assert!(thread.join().unwrap());
}
