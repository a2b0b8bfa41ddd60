//! One call of the client: what goes over the wire, and what is made of the answer.

use crate::scripted;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use long_polling::{
    Credentials, Error, ErrorKind, EventId, Headers, PublishRequest, PublishResponse, Publisher,
    SubscriptionRequest, SubscriptionResponse, publish, subscription,
};
use scripted::{LIMIT, Reply, Server, answer, event, events, id, nothing};

fn poll(server: &Server) -> Result<SubscriptionResponse, Error> {
    let request = SubscriptionRequest::new("c");
    subscription(&server.url("/events"), None, &request, None, None)
}

fn post(server: &Server) -> Result<PublishResponse, Error> {
    let request = PublishRequest::new("c", "hello");
    publish(&server.url("/publish"), LIMIT, None, &request, None, None)
}

fn taken() -> Reply {
    answer(200, &[("Last-Event-ID", &id(7))], r#"{"success": true}"#)
}

#[test]
fn a_poll_is_a_get_with_its_query() {
    let server = Server::start([events(&[1, 2])]);
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
    let server = Server::start([nothing(1), nothing(1), nothing(1)]);
    for (path, sent) in [
        (
            "/events?key=a%20b#top",
            "/events?key=a%20b&timeout=60&category=c",
        ),
        ("/events?", "/events?timeout=60&category=c"),
        ("", "/?timeout=60&category=c"),
    ] {
        let request = SubscriptionRequest::new("c");
        subscription(&server.url(path), None, &request, None, None).unwrap();
        assert_eq!(server.request().target, sent);
    }
}

#[test]
fn a_publish_is_a_post_with_its_json() {
    let server = Server::start([taken(), taken()]);
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
    let types = sent
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    assert_eq!(
        types.map(|(_, value)| &**value).collect::<Vec<_>>(),
        ["text/plain"]
    );
    let own = sent
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("x-own"));
    assert_eq!(
        own.map(|(_, value)| &**value).collect::<Vec<_>>(),
        ["1", "2"]
    );
}

#[test]
fn credentials_are_sent_unless_the_caller_has_an_authorization_of_its_own() {
    let server = Server::start([nothing(1), nothing(1)]);
    let request = SubscriptionRequest::new("c");
    let credentials = Credentials::basic("Aladdin", "open sesame");
    let own = Headers::from([("authorization", "Bearer token")]);
    for (headers, sent) in [
        (None, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        (Some(&own), "Bearer token"),
    ] {
        let url = server.url("/events");
        subscription(&url, headers, &request, Some(&credentials), None).unwrap();
        let request = server.request();
        let fields = request.headers.iter();
        let fields = fields.filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        assert_eq!(
            fields.map(|(_, value)| &**value).collect::<Vec<_>>(),
            [sent]
        );
    }
}

#[test]
fn a_refusal_is_an_answer_with_its_status_and_words() {
    let long = "x".repeat(100_000);
    let server = Server::start([
        answer(
            401,
            &[("WWW-Authenticate", "Basic")],
            r#"{"error":"who are you?"}"#,
        ),
        answer(502, &[], "<h1>Bad\r\nGateway</h1>"),
        answer(404, &[], ""),
        answer(500, &[], &long),
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
fn no_event_before_the_timeout_is_told_in_either_way() {
    let golongpoll = r#"{"timeout":"no events before timeout","timestamp":1616210844178}"#;
    let server = Server::start([nothing(3), answer(200, &[], golongpoll)]);
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
fn a_gap_and_golongpolls_refusal_are_told() {
    let gap = format!(r#"{{"events":[{}],"gap":true}}"#, event(4));
    let server = Server::start([
        answer(200, &[], &gap),
        answer(200, &[], r#"{"error":"Invalid timeout arg"}"#),
    ]);
    assert!(poll(&server).unwrap().gap);
    let refused = poll(&server).unwrap();
    assert!(!refused.success());
    assert_eq!(refused.error.as_deref(), Some("Invalid timeout arg"));
}

#[test]
fn a_byte_order_mark_before_an_answer_is_passed_over() {
    let list = format!("\u{feff}{{\"events\":[{}]}}", event(4));
    let server = Server::start([
        answer(200, &[], &list),
        answer(200, &[], "\u{feff}{\"success\": true}"),
    ]);
    assert_eq!(poll(&server).unwrap().events[0].text(), "event 4");
    assert!(post(&server).unwrap().success());
}

#[test]
fn an_ipv6_address_may_have_a_zone_which_the_server_does_not_see() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: no IPv6 on this machine");
        return;
    };
    let server = Server::on(listener, [nothing(1), nothing(1)]);
    let port = server.address.port();
    // The loopback interface's number; its name serves link-local addresses only.
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
fn an_answer_that_is_not_of_the_api_is_an_error_that_shows_its_start() {
    let cut = format!(r#"{{"events":[{},"#, event(1));
    for body in ["<html>Log in here</html>", "{}", &*cut] {
        let server = Server::start([answer(200, &[], body)]);
        let error = poll(&server).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidAnswer, "{error}");
        assert_eq!(error.status(), Some(200));
        let message = error.to_string();
        assert!(message.contains(&body[..1]), "{message}");
        assert!(message.contains(&server.url("/events")), "{message}");
    }
    let server = Server::start([Reply::Bytes("SSH-2.0-OpenSSH\r\n\r\n".into())]);
    assert_eq!(poll(&server).unwrap_err().kind(), ErrorKind::InvalidAnswer);
}

#[test]
fn a_body_that_breaks_off_is_no_answer() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"success\": true, \"events\": []}";
    let server = Server::start([Reply::Last(cut.into()), Reply::Last(cut.into())]);
    let error = poll(&server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    let error = post(&server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(
        error.to_string().contains("may have been published"),
        "{error}"
    );
}

#[test]
fn a_server_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://user:secret@{address}/events?token=secret");
    let error = subscription(&url, None, &SubscriptionRequest::new("c"), None, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    let message = error.to_string();
    assert!(
        message.contains(&format!("http://{address}/events")),
        "{message}"
    );
    assert!(!message.contains("secret"), "{message}");

    let error = Publisher::new(url).publish("c", "data").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("was not published"), "{error}");
}

#[test]
fn a_publish_that_is_not_answered_ends_with_its_timeout() {
    let server = Server::start([]);
    let began = Instant::now();
    let publisher = Publisher::new(server.url("/publish")).timeout(Duration::from_millis(200));
    let error = publisher.publish("c", "data").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(
        error.to_string().contains("may have been published"),
        "{error}"
    );
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(200)..LIMIT).contains(&took),
        "{took:?}"
    );
    assert_eq!(server.hang_up(), 0);
}

#[test]
fn a_connection_that_breaks_leaves_open_whether_the_event_was_published() {
    let server = Server::start([Reply::HangUp]);
    let error = post(&server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(
        error.to_string().contains("may have been published"),
        "{error}"
    );
}

#[test]
fn a_connection_is_used_again() {
    let server = Server::start([taken(), nothing(7), answer(503, &[], "busy"), taken()]);
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
fn the_limits_and_errors_of_the_callers_agent_are_not_used() {
    let server = Server::start([answer(403, &[], "no"), Reply::Silence]);
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
fn what_makes_no_sense_is_refused_before_anything_is_sent() {
    let server = Server::start([]);
    let url = server.url("/");
    let bad = Headers::from([("X-Bad", "a\nb")]);
    let request = SubscriptionRequest::new("c");
    let none: [&str; 0] = [];
    let null = PublishRequest::new("c", None::<u8>);
    let empty = PublishRequest::new("", 1);
    let fine = PublishRequest::new("c", 1);
    let errors = [
        subscription("nonsense", None, &request, None, None).unwrap_err(),
        subscription(&url, Some(&bad), &request, None, None).unwrap_err(),
        subscription(&url, None, &SubscriptionRequest::new(none), None, None).unwrap_err(),
        publish(&url, LIMIT, None, &null, None, None).unwrap_err(),
        publish(&url, LIMIT, None, &empty, None, None).unwrap_err(),
        publish(&url, Duration::ZERO, None, &fine, None, None).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    }
    assert_eq!(server.pending(), 0);
}

#[test]
fn a_publisher_turns_a_refusal_into_an_error() {
    let server = Server::start([
        answer(403, &[], r#"{"error":"not you"}"#),
        answer(504, &[], "too slow"),
        answer(200, &[], "<html>"),
        taken(),
    ]);
    let publisher = Publisher::new(server.url("/publish"))
        .header("X-Own", "1")
        .credentials(Credentials::bearer("token"));
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

#[test]
fn a_publisher_tries_once_more_where_a_server_is_being_stopped() {
    let stopping = || answer(503, &[("Connection", "close")], r#"{"error":"stopping"}"#);
    let server = Server::start([stopping(), taken(), stopping(), stopping()]);
    let publisher = Publisher::new(server.url("/publish"));
    assert!(publisher.publish("c", "data").unwrap().success());
    assert_ne!(server.request().connection, server.request().connection);
    let error = publisher.publish("c", "data").unwrap_err();
    assert_eq!(error.status(), Some(503));
    assert!(error.to_string().contains("was not published"), "{error}");
    assert_eq!(server.pending(), 2);
}
