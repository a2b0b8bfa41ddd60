//! The attempts of a `Publisher`: what it repeats, what it asks the server before, and when it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::ports::ClosedPort;
use crate::scripted::{LIMIT, Request, ScriptedServer, Step, id, published, response};
use long_polling::{Credentials, Error, ErrorKind, Headers, PublishRequest, Publisher, publish};
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

const SECOND: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_millis(1);

/// A publisher that waits for 10 ms at most between two attempts.
fn publisher(url: &str) -> Publisher {
    Publisher::new(url).backoff(SOON, SOON).retry_for(LIMIT)
}

fn to(server: &ScriptedServer) -> Publisher {
    publisher(&server.url("/publish"))
}

/// The answer of a server that remembers keys for this number of seconds.
fn window(seconds: &str) -> Step {
    let headers = [("Allow", "POST, OPTIONS"), ("Idempotency-Window", seconds)];
    response(204, &headers, "")
}

/// A 503 of a server of the API.
fn busy() -> Step {
    response(503, &[], r#"{"error":"busy"}"#)
}

/// The methods of the requests that the server got.
fn methods(server: &ScriptedServer, count: usize) -> Vec<String> {
    let methods = (0..count).map(|_| server.request().method).collect();
    assert_eq!(server.count_requests(), 0, "more than {methods:?}");
    methods
}

fn key(request: &Request) -> &str {
    let mut keys = request.all("Idempotency-Key");
    let key = keys.next().expect("a key");
    assert_eq!(keys.next(), None);
    key
}

fn assert_words(error: &Error, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} has no {word:?}");
    }
}

#[test]
fn each_publish_has_a_random_key_in_quotation_marks() {
    let server = ScriptedServer::start((0..3).map(|_| published()));
    for _ in 0..3 {
        to(&server).publish("c", "same").unwrap();
    }
    let requests: Vec<Request> = (0..3).map(|_| server.request()).collect();
    let keys: Vec<&str> = requests.iter().map(key).collect();
    for key in &keys {
        let digits = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
        let digits = digits.expect("quotation marks");
        assert_eq!(digits.len(), 32, "{digits}");
        assert!(digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    }
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
}

#[test]
fn a_key_of_the_program_is_sent_as_a_string_of_structured_fields() {
    let server = ScriptedServer::start((0..3).map(|_| published()));
    let url = server.url("/publish");
    let request = PublishRequest::new("c", 1).idempotency_key(r#"order "7" \ a"#);
    to(&server).publish_with(&request).unwrap();
    publish(&url, LIMIT, None, &request, None, None).unwrap();
    let all = [PublishRequest::new("c", 1), PublishRequest::new("c", 2)];
    let _ = to(&server).publish_all_once("all", &all).unwrap();
    for expected in [r#""order \"7\" \\ a""#, r#""order \"7\" \\ a""#, r#""all""#] {
        assert_eq!(key(&server.request()), expected);
    }
}

#[test]
fn a_single_request_has_no_key_unless_it_is_given_one() {
    let server = ScriptedServer::start([published()]);
    let (url, request) = (server.url("/publish"), PublishRequest::new("c", 1));
    publish(&url, LIMIT, None, &request, None, None).unwrap();
    assert_eq!(server.request().header("Idempotency-Key"), None);
}

#[test]
fn a_key_that_cannot_be_used_is_not_sent() {
    let server = ScriptedServer::start([]);
    let publisher = to(&server);
    let long = "x".repeat(256);
    for key in ["", "é", "a\nb", &long] {
        let request = PublishRequest::new("c", 1).idempotency_key(key);
        let error = publisher.publish_with(&request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
        assert_words(&error, &["idempotency key"]);
        let error = publisher.publish_all_once(key, &[request]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    }
    let request = PublishRequest::new("c", 1).idempotency_key("of one event");
    let error = publisher.publish_all(&[request]).unwrap_err();
    assert_words(&error, &["event 1 of 1", "publish_all_once"]);
    let fixed = publisher.header("idempotency-key", "\"always\"");
    let error = fixed.publish("c", &1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    assert_words(&error, &["PublishRequest::idempotency_key"]);
    assert_eq!(server.count_requests(), 0);
}

#[test]
fn a_lost_answer_is_repeated_with_the_same_key_once_the_server_is_known_to_know_keys() {
    let script = [
        Step::Close,
        window("600"),
        published(),
        Step::Close,
        published(),
    ];
    let server = ScriptedServer::start(script);
    let publisher = to(&server)
        .header("X-Own", "1")
        .credentials(Credentials::bearer("token"));
    let response = publisher.publish("c", "first").unwrap();
    assert_eq!(response.id, Some(id(7).parse().unwrap()));
    let (first, asked, second) = (server.request(), server.request(), server.request());
    assert_eq!((&*asked.method, &*asked.target), ("OPTIONS", "/publish"));
    assert_eq!((&*asked.body, asked.header("Content-Type")), ("", None));
    assert_eq!(asked.header("Idempotency-Key"), None);
    for request in [&first, &asked, &second] {
        assert_eq!(request.header("Authorization"), Some("Bearer token"));
        assert_eq!(request.header("X-Own"), Some("1"));
    }
    assert_eq!((key(&first), &first.body), (key(&second), &second.body));
    // A clone does not ask again.
    publisher.clone().publish("c", "second").unwrap();
    assert_eq!(methods(&server, 2), ["POST", "POST"]);
}

#[test]
fn a_server_that_knows_no_keys_gets_no_publish_twice() {
    for answer in [
        response(405, &[], r#"{"error":"Method not allowed"}"#),
        response(204, &[("Allow", "POST, OPTIONS")], ""),
        response(401, &[], ""),
        response(501, &[], ""),
        response(302, &[("Location", "/other")], ""),
        window("0"),
        window("soon"),
    ] {
        let server = ScriptedServer::start([Step::Close, answer, published()]);
        let error = to(&server).publish("c", "data").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
        let words = ["may have been published", "Idempotency-Window", "twice"];
        assert_words(&error, &words);
        assert_eq!(methods(&server, 2), ["POST", "OPTIONS"]);
        // The publish was lost, so the next one is not a repetition.
        to(&server).publish("c", "data").unwrap();
    }
}

#[test]
fn a_status_that_leaves_open_whether_the_event_was_published_is_repeated_with_the_key() {
    for answer in [
        response(500, &[], r#"{"error":"a hook panicked"}"#),
        response(502, &[], "<html>Bad Gateway</html>"),
        response(503, &[], "upstream connect error or disconnect/reset"),
        response(504, &[], ""),
        response(520, &[], ""),
        Step::Send("SSH-2.0-OpenSSH\r\n\r\n".into()),
        Step::SendAndClose("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"succ".into()),
        // Without a length, a body that was cut off ends as a whole one does.
        Step::SendAndClose("HTTP/1.1 200 OK\r\n\r\n{\"success\": t".into()),
    ] {
        let server = ScriptedServer::start([answer, window("600"), published()]);
        assert!(to(&server).publish("c", "data").unwrap().success());
        assert_eq!(methods(&server, 3), ["POST", "OPTIONS", "POST"]);
    }
}

#[test]
fn a_status_that_says_that_nothing_was_published_is_repeated_at_any_server() {
    for status in [408, 425, 429, 503] {
        let refused = response(status, &[], r#"{"error":"later"}"#);
        let server = ScriptedServer::start([refused, published()]);
        to(&server).publish("c", "data").unwrap();
        assert_eq!(methods(&server, 2), ["POST", "POST"], "{status}");
    }
}

#[test]
fn other_refusals_are_not_repeated() {
    for (status, body, words) in [
        (400, "", "was not published"),
        (401, "", "was not published"),
        (403, "", "was not published"),
        (404, "", "was not published"),
        (413, "", "was not published"),
        (501, "", "may have been published"),
        (200, r#"{"success": false}"#, "may have been published"),
    ] {
        let server = ScriptedServer::start([response(status, &[], body), published()]);
        let error = to(&server).publish("c", "data").unwrap_err();
        assert_eq!(
            (error.kind(), error.status()),
            (ErrorKind::Refused, Some(status))
        );
        assert_words(&error, &[words]);
        assert_eq!(methods(&server, 1), ["POST"], "{status}");
    }
}

#[test]
fn a_key_with_other_content_is_not_repeated_and_the_error_names_the_key() {
    let refused = response(422, &[], r#"{"error":"the key is of another event"}"#);
    let server = ScriptedServer::start([refused]);
    let request = PublishRequest::new("c", 1).idempotency_key("order-7");
    let error = to(&server).publish_with(&request).unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::Refused, Some(422))
    );
    let expected = format!(
        "{} refused the event, which was not published, with status 422: the key is of another \
         event; the idempotency key is \"order-7\": give each publish a key of its own",
        server.url("/publish")
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(methods(&server, 1), ["POST"]);
}

/// Resolves every name to these addresses in turn, and then to the last one.
#[derive(Debug)]
struct InTurn {
    addresses: Vec<Option<SocketAddr>>,
    lookups: Arc<AtomicUsize>,
}

impl Resolver for InTurn {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let lookup = self.lookups.fetch_add(1, SeqCst);
        let address = self.addresses[lookup.min(self.addresses.len() - 1)];
        let mut resolved = self.empty();
        resolved.push(address.ok_or(ureq::Error::HostNotFound)?);
        Ok(resolved)
    }
}

/// An agent whose connections go to these addresses in turn, and the number of its lookups.
fn agent_to(addresses: Vec<Option<SocketAddr>>) -> (ureq::Agent, Arc<AtomicUsize>) {
    let lookups = Arc::new(AtomicUsize::new(0));
    let resolver = InTurn {
        addresses,
        lookups: lookups.clone(),
    };
    let config = ureq::config::Config::builder().proxy(None).build();
    let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver);
    (agent, lookups)
}

#[test]
fn a_publish_without_a_connection_is_repeated_at_any_server() {
    let server = ScriptedServer::start([published()]);
    let port = ClosedPort::new();
    let closed = Some(port.address);
    let (agent, lookups) = agent_to(vec![closed, None, closed, Some(server.address)]);
    let publisher = publisher("http://events.test/publish").agent(agent);
    publisher.publish("c", "data").unwrap();
    assert_eq!(lookups.load(SeqCst), 4);
    assert_eq!(methods(&server, 1), ["POST"]);
}

#[test]
fn an_error_says_how_many_attempts_failed_and_that_nothing_was_published() {
    let port = ClosedPort::new();
    let address = port.address;
    let publisher = publisher(&format!("http://{address}/publish")).retry_for(SECOND);
    let error = publisher.publish("c", "data").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    let message = error.to_string();
    let (attempts, rest) = message.split_once(" attempts in ").expect("attempts");
    let attempts: u32 = attempts.strip_prefix("after ").unwrap().parse().unwrap();
    // Each wait is 5 to 10 ms.
    assert!((2..=201).contains(&attempts), "{message}");
    let (took, reason) = rest.split_once(": ").expect("a time");
    assert!(took.ends_with("s"), "{message}");
    let expected = format!("the event was not published: can't reach http://{address}/publish");
    assert!(reason.starts_with(&expected), "{message}");
}

#[test]
fn with_a_time_of_zero_a_publish_is_one_attempt_without_a_question() {
    for step in [Step::Close, busy(), response(502, &[], "")] {
        let server = ScriptedServer::start([step, window("600"), published()]);
        let publisher = to(&server).retry_for(Duration::ZERO);
        let message = publisher.publish("c", "data").unwrap_err().to_string();
        assert!(!message.contains("attempts"), "{message}");
        assert_eq!(methods(&server, 1), ["POST"]);
    }
}

#[test]
fn a_question_without_an_answer_is_an_attempt_and_is_repeated() {
    let script = [
        Step::Close,
        Step::Close,
        Step::SendAndClose("HTTP/1.1 204 No Con".into()),
        busy(),
        response(502, &[], ""),
        window("600"),
        published(),
    ];
    let server = ScriptedServer::start(script);
    to(&server).publish("c", "data").unwrap();
    let mut expected = ["OPTIONS"; 7];
    (expected[0], expected[6]) = ("POST", "POST");
    assert_eq!(methods(&server, 7), expected);

    let server = ScriptedServer::start((0..1000).map(|number| match number {
        0 => Step::Close,
        _ => busy(),
    }));
    let error = to(&server)
        .retry_for(SECOND)
        .publish("c", "data")
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::Refused, Some(503))
    );
    assert_words(
        &error,
        &[
            "after ",
            " attempts in ",
            "may have been published",
            "OPTIONS",
            "busy",
        ],
    );
    assert_eq!(server.request().method, "POST");
    assert!(server.count_requests() > 1);
}

#[test]
fn an_event_that_may_have_been_published_by_an_earlier_attempt_is_named_so_in_the_error() {
    for last in [
        response(403, &[], "no more"),
        response(503, &[("Retry-After", "300")], r#"{"error":"busy"}"#),
    ] {
        let server = ScriptedServer::start([Step::Close, window("600"), last]);
        let error = to(&server).publish("c", "data").unwrap_err();
        assert_words(
            &error,
            &["after 2 attempts in ", "which may have been published"],
        );
        assert_eq!(methods(&server, 3), ["POST", "OPTIONS", "POST"]);
    }
}

#[test]
fn a_retry_after_is_kept_and_one_that_is_too_long_ends_the_publish() {
    let later = |seconds| response(503, &[("Retry-After", seconds)], r#"{"error":"busy"}"#);
    let server = ScriptedServer::start([later("1"), published()]);
    let began = Instant::now();
    to(&server).publish("c", "data").unwrap();
    assert!(began.elapsed() >= SECOND);

    let server = ScriptedServer::start([later("60"), published()]);
    let began = Instant::now();
    let error = to(&server)
        .retry_for(5 * SECOND)
        .publish("c", "data")
        .unwrap_err();
    assert!(began.elapsed() < 5 * SECOND);
    assert_words(&error, &["was not published", "60s", "`retry_for`", "5s"]);
    assert_eq!(methods(&server, 1), ["POST"]);
}

#[test]
fn no_attempt_begins_after_the_server_may_have_forgotten_the_key() {
    let script = (0..1000).map(|number| match number {
        0 => Step::Close,
        1 => window("1"),
        _ => response(502, &[], ""),
    });
    let server = ScriptedServer::start(script);
    let began = Instant::now();
    let error = to(&server).publish("c", "data").unwrap_err();
    assert!(began.elapsed() < 10 * SECOND);
    assert_words(
        &error,
        &["may have been published", "for 1s only", "attempts in"],
    );
    assert!(server.count_requests() > 3);
}

#[test]
fn no_attempt_lasts_longer_than_the_server_remembers_the_key() {
    let server = ScriptedServer::start([Step::Close, window("1"), Step::Wait]);
    let began = Instant::now();
    let error = to(&server).timeout(LIMIT).publish("c", "data").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(began.elapsed() < 10 * SECOND, "{error}");
    assert_eq!(methods(&server, 3), ["POST", "OPTIONS", "POST"]);
}

#[test]
fn a_timeout_is_of_one_attempt() {
    let server = ScriptedServer::start([Step::Wait, window("600"), published()]);
    to(&server)
        .timeout(SECOND / 2)
        .publish("c", "data")
        .unwrap();
    assert_eq!(methods(&server, 3), ["POST", "OPTIONS", "POST"]);
}

#[test]
fn after_a_redirect_the_publisher_asks_and_repeats_where_the_publish_went() {
    let other = ScriptedServer::start([Step::Close, window("600"), published()]);
    let moved = response(307, &[("Location", &other.url("/there?a=b"))], "moved");
    let server = ScriptedServer::start([moved]);
    let publisher = to(&server)
        .header("X-Api-Key", "secret")
        .credentials(Credentials::bearer("secret"));
    publisher.publish("c", "data").unwrap();
    let first = server.request();
    assert_eq!(first.header("X-Api-Key"), Some("secret"));
    for method in ["POST", "OPTIONS", "POST"] {
        let sent = other.request();
        assert_eq!((&*sent.method, &*sent.target), (method, "/there?a=b"));
        assert_eq!(sent.header("X-Api-Key"), None);
        assert_eq!(sent.header("Authorization"), None);
        if method == "POST" {
            assert_eq!((key(&sent), &sent.body), (key(&first), &first.body));
        }
    }
    assert_eq!((server.count_requests(), other.count_requests()), (0, 0));
}

#[test]
fn a_server_that_is_being_stopped_is_asked_again_at_once_on_a_new_connection() {
    let stopping = || {
        let headers = [("Connection", "close"), ("Retry-After", "1")];
        response(503, &headers, r#"{"error":"stopping"}"#)
    };
    let server = ScriptedServer::start([stopping(), published(), stopping(), stopping()]);
    // A wait of `Retry-After` would be longer.
    let publisher = to(&server).retry_for(SECOND / 2);
    assert!(publisher.publish("c", "data").unwrap().success());
    assert_ne!(server.request().connection, server.request().connection);
    let error = publisher.publish("c", "data").unwrap_err();
    assert_eq!(error.status(), Some(503));
    assert_words(&error, &["after 2 attempts in ", "was not published"]);
    assert_eq!(server.count_requests(), 2);
}

#[test]
fn an_attempt_after_a_failure_uses_a_new_connection() {
    let server = ScriptedServer::start([published(), busy(), published()]);
    let publisher = to(&server);
    publisher.publish("c", &1).unwrap();
    publisher.publish("c", &2).unwrap();
    let connections = [(); 3].map(|()| server.request().connection);
    assert_eq!(connections[0], connections[1]);
    assert_ne!(connections[1], connections[2]);
}

#[test]
fn a_header_of_a_single_request_may_have_the_key() {
    let server = ScriptedServer::start([published()]);
    let headers = Headers::from([("Idempotency-Key", "\"mine\"")]);
    let (url, request) = (server.url("/publish"), PublishRequest::new("c", 1));
    publish(&url, LIMIT, Some(&headers), &request, None, None).unwrap();
    assert_eq!(key(&server.request()), "\"mine\"");
}
