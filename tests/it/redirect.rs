//! Redirects: which are followed, and what is sent along.

use std::net::TcpListener;

use crate::scripted::{LIMIT, Reply, Request, Server, answer, events, id, nothing};
use long_polling::{
    Credentials, Error, ErrorKind, Headers, Publisher, Subscriber, SubscriptionRequest,
    SubscriptionResponse, subscription,
};

fn redirect(status: u16, location: &str) -> Reply {
    answer(status, &[("Location", location)], "over there")
}

/// A poll with all that a caller can give for authentication.
fn poll(server: &Server) -> Result<SubscriptionResponse, Error> {
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

/// The fields for authentication of a request.
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

fn published() -> Reply {
    answer(200, &[("Last-Event-ID", &id(7))], r#"{"success": true}"#)
}

#[test]
fn a_redirect_within_the_origin_is_asked_with_the_credentials() {
    for status in [301, 302, 303, 307, 308] {
        let server = Server::start([redirect(status, "moved?x=1"), events(&[1])]);
        let response = poll(&server).unwrap();
        assert_eq!(response.events.len(), 1, "{status}");
        server.request();
        let sent = server.request();
        assert_eq!((&*sent.method, &*sent.target), ("GET", "/moved?x=1"));
        assert_eq!(secrets(&sent).len(), 4, "{status}");
        assert_eq!(sent.connection, 0, "the connection is used again");
    }
}

#[test]
fn a_redirect_to_another_origin_is_asked_without_anything_that_the_caller_gave() {
    let other = Server::start([events(&[1])]);
    let server = Server::start([redirect(307, &other.url("/there"))]);
    assert_eq!(poll(&server).unwrap().events.len(), 1);
    assert_eq!(secrets(&server.request()).len(), 4);
    let sent = other.request();
    assert_eq!(secrets(&sent), Vec::<&str>::new());
    assert_eq!(sent.header("Host"), Some(&*other.address.to_string()));
}

#[test]
fn what_the_caller_gave_is_not_sent_again_once_another_origin_has_redirected() {
    // The other origin sends the client back to where it came from.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = format!("http://{}/again", listener.local_addr().unwrap());
    let other = Server::start([redirect(302, &home)]);
    let server = Server::on(listener, [redirect(302, &other.url("/")), nothing(1)]);
    assert_eq!(poll(&server).unwrap().status, 204);
    assert_eq!(secrets(&server.request()).len(), 4);
    assert_eq!(secrets(&other.request()), Vec::<&str>::new());
    let again = server.request();
    assert_eq!(again.target, "/again");
    assert_eq!(secrets(&again), Vec::<&str>::new());
}

#[test]
fn a_loop_of_redirects_is_an_error_that_says_so() {
    let server = Server::start((0..20).map(|_| redirect(302, "/events")));
    let error = poll(&server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidAnswer, "{error}");
    let message = error.to_string();
    assert!(
        message.contains("more than 10 times") && message.contains("loop"),
        "{message}"
    );
    assert_eq!(server.pending(), 11);
}

#[test]
fn a_redirect_that_leads_nowhere_is_a_refusal_or_an_error() {
    let server = Server::start([answer(302, &[], "x"), redirect(302, "ftp://h/")]);
    let response = poll(&server).unwrap();
    assert!(!response.success());
    assert_eq!(response.status, 302);
    let error = poll(&server).unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::InvalidAnswer, Some(302))
    );
    assert!(
        error.to_string().contains("neither http nor https"),
        "{error}"
    );
}

#[test]
fn a_publish_is_sent_again_whole_where_a_redirect_keeps_its_method() {
    for status in [307, 308] {
        let server = Server::start([redirect(status, "/moved"), published()]);
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
fn a_publish_is_not_turned_into_a_get_and_the_error_tells_the_new_location() {
    for status in [301, 302, 303] {
        let server = Server::start([redirect(status, "http://127.0.0.1:1/new?secret")]);
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
        assert_eq!(server.pending(), 0);
    }
}

#[test]
fn redirects_are_followed_the_same_way_with_an_agent_of_the_callers() {
    let other = Server::start([nothing(1)]);
    let server = Server::start([redirect(302, &other.url("/"))]);
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
fn a_subscriber_asks_each_poll_at_its_own_url() {
    let script = [
        redirect(308, "/b?first"),
        events(&[1]),
        redirect(308, "/b?second"),
        events(&[2]),
    ];
    let server = Server::start(script);
    let subscriber = Subscriber::new(server.url("/a"), "c");
    let texts = subscriber
        .take(2)
        .map(|event| event.unwrap().text().into_owned());
    assert_eq!(texts.collect::<Vec<_>>(), ["event 1", "event 2"]);
    let targets = (0..4).map(|_| server.request().target);
    let paths: Vec<String> = targets.map(|target| target[..3].to_owned()).collect();
    assert_eq!(paths, ["/a?", "/b?", "/a?", "/b?"]);
}
