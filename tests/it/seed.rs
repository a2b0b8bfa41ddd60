//! The tests of the Go package and of its README, translated.

use crate::support;

use std::time::Duration;

use long_polling::server::PollWithoutCursor;
use long_polling::{
    Event, EventId, FilePersistorInfo, Headers, PublishRequest, Server, SubscriptionRequest,
    SubscriptionResponse, publish, subscription,
};
use support::{LIMIT, info, server, start};

const TIMEOUT: Duration = Duration::from_secs(5);

fn url(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.local_addr())
}

fn publish_to(server: &Server, category: &str, data: &str) -> EventId {
    let request = PublishRequest::new(category, data);
    let response = publish(
        &url(server, "/publish"),
        TIMEOUT,
        None,
        &request,
        None,
        None,
    );
    let response = response.expect("an answer");
    // The Go package's test compares both.
    assert_eq!(response.status, 200);
    assert_eq!(response.body, r#"{"success": true}"#);
    assert!(response.success());
    response.id.expect("an id")
}

fn subscribe(server: &Server, request: &SubscriptionRequest) -> SubscriptionResponse {
    let response = subscription(&url(server, "/events"), None, request, None, None);
    let response = response.expect("an answer");
    assert_eq!((response.status, &response.error), (200, &None));
    response
}

/// A poll that starts as in the Go package's tests: after the first millisecond of 1970.
fn from_the_beginning(category: &str) -> SubscriptionRequest {
    SubscriptionRequest::new(category)
        .timeout(TIMEOUT)
        .since_time(1)
}

#[test]
fn a_published_event_is_received_with_since_time_1() {
    let server = server();
    let (category, data) = ("category-1", "data-1");
    let first = publish_to(&server, category, data);
    let response = subscribe(&server, &from_the_beginning(category));
    let [event] = &response.events[..] else {
        panic!("{response:?}")
    };
    assert_eq!((event.category(), event.text()), (category, data.into()));
    assert_eq!(event.id(), first);

    // The next poll continues by the event's time and id, as in the Go package's test.
    let second = publish_to(&server, category, "data-2");
    let response = subscribe(
        &server,
        &SubscriptionRequest::new(category)
            .timeout(TIMEOUT)
            .since_time(event.timestamp())
            .last_id(event.id()),
    );
    let ids: Vec<EventId> = response.events.iter().map(Event::id).collect();
    assert_eq!(ids, [second]);
    assert_eq!(response.last_id, Some(second));
    server.stop(LIMIT).unwrap();
}

#[test]
fn ten_events_are_back_after_a_restart_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("file.db"))
        .write_buffer_size(250)
        .write_flush_period(Duration::from_secs(1));
    let first = Server::start(info().file(file.clone())).unwrap();
    let ids: Vec<EventId> = (0..10)
        .map(|number| publish_to(&first, "category", &format!("data-{number}")))
        .collect();
    first.stop(LIMIT).unwrap();

    let again = info().address(first.local_addr().to_string());
    let second = Server::start(again.file(file)).unwrap();
    let response = subscribe(&second, &from_the_beginning("category"));
    assert!(!response.gap);
    for (number, event) in response.events.iter().enumerate() {
        assert_eq!(event.text(), format!("data-{number}"));
        assert_eq!(event.id(), ids[number]);
    }
    assert_eq!(response.events.len(), 10);
    second.stop(LIMIT).unwrap();
}

/// `TestLongPolling` of the Go package's README. Its subscriber polls after the publish and without a cursor, so the first
/// poll has to start at the oldest event.
#[test]
fn the_readmes_test_long_polling() {
    let server = start(
        info()
            .timeout(Duration::from_secs(10))
            .subscription_uri("/events")
            .publish_uri("/publish")
            .poll_without_cursor(PollWithoutCursor::Oldest),
    );
    publish_to(&server, "test", "hello");
    let request = SubscriptionRequest::new("test").timeout(TIMEOUT);
    let response = subscribe(&server, &request);
    assert!(!response.events.is_empty(), "No events received");
    assert_eq!(response.events[0].text(), "hello");
    server.stop(Duration::from_secs(1)).unwrap();
}

#[test]
fn a_subscription_that_times_out_is_a_204_as_in_the_go_package() {
    let server = server();
    let request = SubscriptionRequest::new("test").timeout(Duration::from_secs(1));
    let response = subscription(&url(&server, "/events"), None, &request, None, None).unwrap();
    assert_eq!(response.status, 204);
    assert!(response.success() && response.events.is_empty());
    assert!(response.last_id.is_some());
}

#[test]
fn a_refusal_is_in_the_response() {
    let server = start(
        info().before_subscription(long_polling::server::Handler::new(|request| match request
            .header("X-Key")
        {
            Some("right") => Ok(()),
            _ => Err(long_polling::server::Response::error(403, "wrong key")),
        })),
    );
    publish_to(&server, "test", "hello");
    let request = from_the_beginning("test");
    let wrong = subscription(&url(&server, "/events"), None, &request, None, None).unwrap();
    assert_eq!((wrong.status, wrong.success()), (403, false));
    assert_eq!(wrong.error.as_deref(), Some("wrong key"));
    let headers = Headers::from([("X-Key", "right")]);
    let right = subscription(
        &url(&server, "/events"),
        Some(&headers),
        &request,
        None,
        None,
    );
    assert_eq!(right.unwrap().events[0].text(), "hello");
}

/// The Go package has to stop a server that was never started. Here a failed start returns no server.
#[test]
fn a_server_that_never_started_needs_no_stop() {
    let failed = Server::start(info().address("nowhere"));
    assert!(failed.is_err());
}
