//! Redirects: which ones the client follows, and which header fields it sends with them.

use std::net::TcpListener;

use crate::scripted::{
    LIMIT, Request, ScriptedServer, Step, events, id, no_events, published, response,
};
use long_polling::{
    Credentials, Error, ErrorKind, Headers, Publisher, Subscriber, SubscriptionRequest,
    SubscriptionResponse, subscription,
};

fn redirect(status: u16, location: &str) -> Step {
    response(status, &[("Location", location)], "moved")
}

/// Polls with all kinds of authentication.
fn poll(server: &ScriptedServer) -> Result<SubscriptionResponse, Error> {
    let headers = Headers::from([
        ("X-Api-Key", "secret"),
        ("Cookie", "secret"),
        ("Proxy-Authorization", "secret"),
    ]);
    let credentials = Credentials::bearer("secret");
    let request = SubscriptionRequest::new("c");
    let url = server.url("/events");
    subscription(&url, Some(&headers), &request, Some(&credentials), None)
}

/// The header fields for authentication in a request.
fn secrets(request: &Request) -> Vec<&str> {
    let names = [
        "Authorization",
        "Cookie",
        "Proxy-Authorization",
        "X-Api-Key",
    ];
    let sent = names.into_iter();
    sent.filter(|name| request.header(name).is_some()).collect()
}

#[test]
fn a_redirect_within_the_origin_gets_the_credentials() {
    for status in [301, 302, 303, 307, 308] {
        let server = ScriptedServer::start([redirect(status, "moved?x=1"), events(&[1])]);
        let response = poll(&server).unwrap();
        assert_eq!(response.events.len(), 1, "{status}");
        server.request();
        let sent = server.request();
        assert_eq!((&*sent.method, &*sent.target), ("GET", "/moved?x=1"));
        assert_eq!(secrets(&sent).len(), 4, "{status}");
        assert_eq!(sent.connection, 0, "the connection is reused");
    }
}

#[test]
fn a_redirect_to_another_origin_gets_no_credentials_and_headers() {
    let other = ScriptedServer::start([events(&[1])]);
    let server = ScriptedServer::start([redirect(307, &other.url("/there"))]);
    assert_eq!(poll(&server).unwrap().events.len(), 1);
    assert_eq!(secrets(&server.request()).len(), 4);
    let sent = other.request();
    assert_eq!(secrets(&sent), Vec::<&str>::new());
    assert_eq!(sent.header("Host"), Some(&*other.address.to_string()));
}

#[test]
fn a_redirect_back_from_another_origin_gets_no_credentials_and_headers() {
    // The other origin redirects the client back.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = format!("http://{}/again", listener.local_addr().unwrap());
    let other = ScriptedServer::start([redirect(302, &home)]);
    let server = ScriptedServer::on(listener, [redirect(302, &other.url("/")), no_events(1)]);
    assert_eq!(poll(&server).unwrap().status, 204);
    assert_eq!(secrets(&server.request()).len(), 4);
    assert_eq!(secrets(&other.request()), Vec::<&str>::new());
    let again = server.request();
    assert_eq!(again.target, "/again");
    assert_eq!(secrets(&again), Vec::<&str>::new());
}

#[test]
fn a_loop_of_redirects_is_an_error() {
    let server = ScriptedServer::start((0..20).map(|_| redirect(302, "/events")));
    let error = poll(&server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{error}");
    let message = error.to_string();
    assert!(
        message.contains("more than 10 times") && message.contains("loop"),
        "{message}"
    );
    assert_eq!(server.count_requests(), 11);
}

#[test]
fn a_redirect_without_a_usable_location_is_a_refusal_or_an_error() {
    let server = ScriptedServer::start([response(302, &[], "x"), redirect(302, "ftp://h/")]);
    let response = poll(&server).unwrap();
    assert!(!response.success());
    assert_eq!(response.status, 302);
    let error = poll(&server).unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::InvalidResponse, Some(302))
    );
    assert!(
        error.to_string().contains("neither http nor https"),
        "{error}"
    );
}

#[test]
fn a_publish_follows_redirects_that_keep_its_method() {
    for status in [307, 308] {
        let server = ScriptedServer::start([redirect(status, "/moved"), published()]);
        let publisher = Publisher::new(server.url("/publish"))
            .credentials(Credentials::bearer("secret"))
            .timeout(LIMIT);
        let response = publisher.publish("c", "data").unwrap();
        assert_eq!(response.id, Some(id(7).parse().unwrap()));
        let (first, second) = (server.request(), server.request());
        assert_eq!((&*second.method, &*second.target), ("POST", "/moved"));
        assert_eq!(second.body, first.body);
        assert_eq!(second.header("Content-Type"), Some("application/json"));
        assert_eq!(secrets(&second), ["Authorization"]);
    }
}

#[test]
fn a_publish_does_not_become_a_get_and_the_error_names_the_location() {
    for status in [301, 302, 303] {
        let server = ScriptedServer::start([redirect(status, "http://127.0.0.1:1/new?secret")]);
        let publisher = Publisher::new(server.url("/publish"));
        let error = publisher.publish("c", "data").unwrap_err();
        assert_eq!(
            (error.kind(), error.status()),
            (ErrorKind::Refused, Some(status))
        );
        let message = error.to_string();
        assert!(
            message.contains("redirects to http://127.0.0.1:1/new:"),
            "{message}"
        );
        assert!(message.contains("was not published"), "{message}");
        assert!(!message.contains("secret"), "{message}");
        server.request();
        assert_eq!(server.count_requests(), 0);
    }
}

#[test]
fn redirects_work_the_same_with_the_callers_agent() {
    let other = ScriptedServer::start([no_events(1)]);
    let server = ScriptedServer::start([redirect(302, &other.url("/"))]);
    let agent = ureq::Agent::new_with_defaults();
    let headers = Headers::from([("X-Api-Key", "secret")]);
    let request = SubscriptionRequest::new("c");
    let url = server.url("/");
    let polled = subscription(&url, Some(&headers), &request, None, Some(&agent));
    assert_eq!(polled.unwrap().status, 204);
    assert_eq!(secrets(&server.request()), ["X-Api-Key"]);
    assert_eq!(secrets(&other.request()), Vec::<&str>::new());
}

#[test]
fn a_subscriber_sends_each_poll_to_its_own_url() {
    let script = [
        redirect(308, "/b?first"),
        events(&[1]),
        redirect(308, "/b?second"),
        events(&[2]),
    ];
    let server = ScriptedServer::start(script);
    let subscriber = Subscriber::new(server.url("/a"), "c");
    let texts = subscriber
        .take(2)
        .map(|event| event.unwrap().text().into_owned());
    assert_eq!(texts.collect::<Vec<_>>(), ["event 1", "event 2"]);
    let targets = (0..4).map(|_| server.request().target);
    let paths: Vec<String> = targets.map(|target| target[..3].to_owned()).collect();
    assert_eq!(paths, ["/a?", "/b?", "/a?", "/b?"]);
}
