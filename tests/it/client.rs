//! `subscription`, `publish` and `Publisher`: the request that they send, and how they read the response.

use crate::ports::ClosedPort;
use crate::scripted;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use long_polling::{
    Credentials, Error, ErrorKind, EventId, Headers, PublishRequest, PublishResponse, Publisher,
    SubscriptionRequest, SubscriptionResponse, publish, subscription,
};
use scripted::{LIMIT, ScriptedServer, Step, event, events, id, no_events, published, response};

fn poll(server: &ScriptedServer) -> Result<SubscriptionResponse, Error> {
    let request = SubscriptionRequest::new("c");
    subscription(&server.url("/events"), None, &request, None, None)
}

fn post(server: &ScriptedServer) -> Result<PublishResponse, Error> {
    let request = PublishRequest::new("c", "hello");
    publish(&server.url("/publish"), LIMIT, None, &request, None, None)
}

#[test]
fn a_poll_is_a_get_with_its_query() {
    let server = ScriptedServer::start([events(&[1, 2])]);
    let request = SubscriptionRequest::new(["a b&c", "é"])
        .timeout(Duration::from_millis(1500))
        .since_time(5)
        .last_id(id(9).parse::<EventId>().unwrap());
    let response = subscription(&server.url("/events"), None, &request, None, None).unwrap();
    assert!(response.success() && !response.gap);
    assert_eq!(response.status, 200);
    let texts: Vec<_> = response.events.iter().map(|event| event.text()).collect();
    assert_eq!(texts, ["event 1", "event 2"]);
    assert_eq!(response.last_id, Some(id(2).parse().unwrap()));
    assert_eq!(response.headers.get("last-event-id"), Some(&*id(2)));

    let sent = server.request();
    assert_eq!(sent.method, "GET");
    let query = format!(
        "/events?timeout=2&category=a%20b%26c&category=%C3%A9&since_time=5&last_id={}",
        id(9)
    );
    assert_eq!(sent.target, query);
    assert_eq!(sent.header("Host"), Some(&*server.address.to_string()));
    assert_eq!(sent.header("Authorization"), None);
}

#[test]
fn a_query_in_the_url_is_kept_and_a_fragment_dropped() {
    let server = ScriptedServer::start([no_events(1), no_events(1), no_events(1)]);
    for (path, sent) in [
        (
            "/events?key=a%20b#top",
            "/events?key=a%20b&timeout=60&category=c",
        ),
        ("/events?", "/events?timeout=60&category=c"),
        ("", "/?timeout=60&category=c"),
    ] {
        let request = SubscriptionRequest::new("c");
        let _ = subscription(&server.url(path), None, &request, None, None).unwrap();
        assert_eq!(server.request().target, sent);
    }
}

#[test]
fn a_publish_is_a_post_with_its_json() {
    let server = ScriptedServer::start([published(), published()]);
    let response = post(&server).unwrap();
    assert!(response.success());
    assert_eq!(response.id, Some(id(7).parse().unwrap()));
    assert_eq!(response.body, r#"{"success": true}"#);

    let sent = server.request();
    assert_eq!((&*sent.method, &*sent.target), ("POST", "/publish"));
    assert_eq!(sent.body, r#"{"category":"c","data":"hello"}"#);
    assert_eq!(sent.header("Content-Type"), Some("application/json"));

    let headers = Headers::from([
        ("content-type", "text/plain"),
        ("X-Own", "1"),
        ("X-Own", "2"),
    ]);
    let request = PublishRequest::new("c", [1, 2]);
    publish(
        &server.url("/"),
        LIMIT,
        Some(&headers),
        &request,
        None,
        None,
    )
    .unwrap();
    let sent = server.request();
    assert_eq!(sent.body, r#"{"category":"c","data":[1,2]}"#);
    let types: Vec<_> = sent.all("content-type").collect();
    assert_eq!(types, ["text/plain"]);
    let own: Vec<_> = sent.all("x-own").collect();
    assert_eq!(own, ["1", "2"]);
}

#[test]
fn credentials_are_sent_unless_the_headers_have_an_authorization() {
    let server = ScriptedServer::start([no_events(1), no_events(1)]);
    let request = SubscriptionRequest::new("c");
    let credentials = Credentials::basic("Aladdin", "open sesame");
    let own = Headers::from([("authorization", "Bearer token")]);
    for (headers, sent) in [
        (None, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        (Some(&own), "Bearer token"),
    ] {
        let url = server.url("/events");
        let _ = subscription(&url, headers, &request, Some(&credentials), None).unwrap();
        let request = server.request();
        assert_eq!(request.all("authorization").collect::<Vec<_>>(), [sent]);
    }
}

#[test]
fn a_refusal_is_a_response_with_its_status_and_message() {
    let long = "x".repeat(100_000);
    let server = ScriptedServer::start([
        response(
            401,
            &[("WWW-Authenticate", "Basic")],
            r#"{"error":"who are you?"}"#,
        ),
        response(502, &[], "<h1>Bad\r\nGateway</h1>"),
        response(404, &[], ""),
        response(500, &[], &long),
    ]);
    let first = poll(&server).unwrap();
    assert_eq!(
        (first.status, first.error.as_deref()),
        (401, Some("who are you?"))
    );
    assert!(!first.success() && first.events.is_empty());
    assert_eq!(first.headers.get("WWW-Authenticate"), Some("Basic"));
    let second = poll(&server).unwrap();
    assert_eq!(
        (second.status, second.error.as_deref()),
        (502, Some("<h1>Bad Gateway</h1>"))
    );
    let third = poll(&server).unwrap();
    assert_eq!((third.status, third.error), (404, None));
    let fourth = post(&server).unwrap();
    assert_eq!((fourth.status, fourth.body.len()), (500, 65_536));
    assert!(!fourth.success());
}

#[test]
fn a_timeout_without_events_has_two_forms() {
    let golongpoll = r#"{"timeout":"no events before timeout","timestamp":1616210844178}"#;
    let server = ScriptedServer::start([no_events(3), response(200, &[], golongpoll)]);
    let ours = poll(&server).unwrap();
    assert!(ours.success() && ours.events.is_empty());
    assert_eq!(
        (ours.status, ours.last_id),
        (204, Some(id(3).parse().unwrap()))
    );
    let theirs = poll(&server).unwrap();
    assert!(theirs.success() && theirs.events.is_empty());
    assert_eq!(
        (theirs.last_id, theirs.timestamp),
        (None, Some(1_616_210_844_178))
    );
}

#[test]
fn a_gap_and_golongpolls_refusal_are_in_the_response() {
    let gap = format!(r#"{{"events":[{}],"gap":true}}"#, event(4));
    let server = ScriptedServer::start([
        response(200, &[], &gap),
        response(200, &[], r#"{"error":"Invalid timeout arg"}"#),
    ]);
    assert!(poll(&server).unwrap().gap);
    let refused = poll(&server).unwrap();
    assert!(!refused.success());
    assert_eq!(refused.error.as_deref(), Some("Invalid timeout arg"));
}

#[test]
fn a_byte_order_mark_before_a_response_is_ignored() {
    let list = format!("\u{feff}{{\"events\":[{}]}}", event(4));
    let server = ScriptedServer::start([
        response(200, &[], &list),
        response(200, &[], "\u{feff}{\"success\": true}"),
    ]);
    assert_eq!(poll(&server).unwrap().events[0].text(), "event 4");
    assert!(post(&server).unwrap().success());
}

#[test]
fn an_ipv6_address_may_have_a_zone_that_is_not_sent() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: no IPv6 on this machine");
        return;
    };
    let server = ScriptedServer::on(listener, [no_events(1), no_events(1)]);
    let port = server.address.port();
    // The number of the loopback interface. Its name is valid for link-local addresses only.
    for zone in ["%251", "%1"] {
        let url = format!("http://[::1{zone}]:{port}/events");
        let request = SubscriptionRequest::new("c");
        let polled = subscription(&url, None, &request, None, None);
        assert_eq!(polled.unwrap().status, 204, "{url}");
        let host = format!("[::1]:{port}");
        assert_eq!(server.request().header("Host"), Some(&*host));
    }
}

#[test]
fn an_invalid_response_is_an_error_with_its_first_characters() {
    let cut = format!(r#"{{"events":[{},"#, event(1));
    for body in ["<html>Log in here</html>", "{}", &*cut] {
        let server = ScriptedServer::start([response(200, &[], body)]);
        let error = poll(&server).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{error}");
        assert_eq!(error.status(), Some(200));
        let message = error.to_string();
        assert!(message.contains(&body[..1]), "{message}");
        assert!(message.contains(&server.url("/events")), "{message}");
    }
    let server = ScriptedServer::start([Step::Send("SSH-2.0-OpenSSH\r\n\r\n".into())]);
    assert_eq!(
        poll(&server).unwrap_err().kind(),
        ErrorKind::InvalidResponse
    );
}

fn assert_maybe_published(error: &Error, kind: ErrorKind) {
    assert_eq!(error.kind(), kind, "{error}");
    let message = error.to_string();
    assert!(message.contains("may have been published"), "{message}");
}

#[test]
fn an_incomplete_body_is_an_error() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"success\": true, \"events\": []}";
    let server = ScriptedServer::start([
        Step::SendAndClose(cut.into()),
        Step::SendAndClose(cut.into()),
    ]);
    let error = poll(&server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert_maybe_published(&post(&server).unwrap_err(), ErrorKind::Unreachable);
}

#[test]
fn a_server_that_does_not_listen_is_unreachable() {
    let port = ClosedPort::new();
    let address = port.address;
    let url = format!("http://user:secret@{address}/events?token=secret");
    let error = subscription(&url, None, &SubscriptionRequest::new("c"), None, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    let message = error.to_string();
    assert!(
        message.contains(&format!("http://{address}/events")),
        "{message}"
    );
    assert!(!message.contains("secret"), "{message}");

    let publisher = Publisher::new(url).retry_for(Duration::ZERO);
    let error = publisher.publish("c", "data").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("was not published"), "{error}");
}

#[test]
fn a_publish_without_a_response_times_out() {
    let server = ScriptedServer::start([]);
    let began = Instant::now();
    let publisher = Publisher::new(server.url("/publish"))
        .timeout(Duration::from_millis(200))
        .retry_for(Duration::ZERO);
    let error = publisher.publish("c", "data").unwrap_err();
    assert_maybe_published(&error, ErrorKind::TimedOut);
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(200)..LIMIT).contains(&took),
        "{took:?}"
    );
    assert_eq!(server.closed_connection(), 0);
}

#[test]
fn after_a_broken_connection_the_event_may_have_been_published() {
    let server = ScriptedServer::start([Step::Close]);
    assert_maybe_published(&post(&server).unwrap_err(), ErrorKind::Unreachable);
}

#[test]
fn a_connection_is_reused() {
    let server = ScriptedServer::start([
        published(),
        no_events(7),
        response(503, &[], "busy"),
        published(),
    ]);
    let agent = ureq::Agent::new_with_defaults();
    let publisher = Publisher::new(server.url("/publish")).agent(agent.clone());
    publisher.publish("c", "data").unwrap();
    let request = SubscriptionRequest::new("c");
    for status in [204, 503] {
        let url = server.url("/events");
        let response = subscription(&url, None, &request, None, Some(&agent)).unwrap();
        assert_eq!(response.status, status);
    }
    publisher.publish("c", "data").unwrap();
    for _ in 0..4 {
        assert_eq!(server.request().connection, 0);
    }
}

#[test]
fn the_timeouts_and_status_errors_of_the_callers_agent_are_not_used() {
    let server = ScriptedServer::start([response(403, &[], "no"), Step::Wait]);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::ZERO))
        .timeout_per_read(Some(Duration::from_nanos(1)))
        .http_status_as_error(true)
        .build()
        .into();
    let request = SubscriptionRequest::new("c");
    let polled = subscription(&server.url("/"), None, &request, None, Some(&agent));
    assert_eq!(polled.unwrap().status, 403);
}

#[test]
fn an_invalid_request_is_not_sent() {
    let server = ScriptedServer::start([]);
    let url = server.url("/");
    let bad = Headers::from([("X-Bad", "a\nb")]);
    let request = SubscriptionRequest::new("c");
    let none: [&str; 0] = [];
    let null = PublishRequest::new("c", None::<u8>);
    let empty = PublishRequest::new("", 1);
    let valid = PublishRequest::new("c", 1);
    let errors = [
        subscription("nonsense", None, &request, None, None).unwrap_err(),
        subscription(&url, Some(&bad), &request, None, None).unwrap_err(),
        subscription(&url, None, &SubscriptionRequest::new(none), None, None).unwrap_err(),
        publish(&url, LIMIT, None, &null, None, None).unwrap_err(),
        publish(&url, LIMIT, None, &empty, None, None).unwrap_err(),
        publish(&url, Duration::ZERO, None, &valid, None, None).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    }
    assert_eq!(server.count_requests(), 0);
}

#[test]
fn a_publisher_turns_a_refusal_into_an_error() {
    let server = ScriptedServer::start([
        response(403, &[], r#"{"error":"not you"}"#),
        response(504, &[], "too slow"),
        response(200, &[], "<html>"),
        published(),
    ]);
    let publisher = Publisher::new(server.url("/publish"))
        .header("X-Own", "1")
        .credentials(Credentials::bearer("token"))
        .retry_for(Duration::ZERO);
    for (status, words) in [
        (403, ["not you", "was not published"]),
        (504, ["too slow", "may have been published"]),
        (200, ["<html>", "may have been published"]),
    ] {
        let error = publisher.publish("c", "data").unwrap_err();
        assert_eq!(
            (error.kind(), error.status()),
            (ErrorKind::Refused, Some(status))
        );
        for word in words {
            assert!(error.to_string().contains(word), "{error}");
        }
    }
    std::thread::scope(|scope| {
        let published = scope
            .spawn(|| publisher.publish("c", &[1, 2]))
            .join()
            .unwrap();
        assert_eq!(published.unwrap().id, Some(id(7).parse().unwrap()));
    });
    let sent = server.request();
    assert_eq!(sent.header("Authorization"), Some("Bearer token"));
    assert_eq!(sent.header("X-Own"), Some("1"));
    assert!(!format!("{publisher:?}").contains("token"));
}
