//! Polls over HTTP: which answer they get, and when.

use crate::support;

use std::collections::BTreeSet;
use std::thread;

use long_polling::server::PollWithoutCursor;
use long_polling::{BrokerOptions, EventId};
use support::{Connection, ask, buffered, get, info, poll, server, start, until_parked};

#[test]
fn a_200_has_golongpolls_members_in_its_order_and_every_promised_header() {
    let server = server();
    let first = server.publish("c", &serde_json::json!({"a": [1, null]}));
    let second = server.publish("c", "x\n\"é");
    let ids = [first.unwrap(), second.unwrap()];
    let answer = buffered(&server, "c");
    let json = answer.json();
    let times = [0, 1].map(|at| json["events"][at]["timestamp"].as_u64().unwrap());
    assert!(times[0] <= times[1] && times[0] > 1_600_000_000_000);
    let expected = format!(
        r#"{{"events":[{{"timestamp":{},"category":"c","data":{{"a":[1,null]}},"id":"{}"}},{{"timestamp":{},"category":"c","data":"x\n\"é","id":"{}"}}]}}"#,
        times[0], ids[0], times[1], ids[1]
    );
    assert_eq!(answer.text(), expected);
    answer.has_the_promised_headers();
    assert_eq!(answer.position(), ids[1].to_string());
    for id in answer.ids() {
        assert_eq!(id.parse::<EventId>().unwrap().to_string(), id);
    }
    assert!(answer.header("Date").is_some() && answer.header("Connection").is_none());
}

#[test]
fn a_position_without_events_misses_nothing() {
    let server = server();
    server.publish("c", "before").unwrap();
    let mut connection = Connection::to(&server);
    connection.ask("GET", &poll("c", 1, ""));
    let nothing = connection.receive();
    assert_eq!((nothing.status, nothing.body.len()), (204, 0));
    nothing.has_the_promised_headers();
    server.publish("other", "x").unwrap();
    server.publish("c", "between two polls").unwrap();
    let position = format!("&last_id={}", nothing.position());
    connection.ask("GET", &poll("c", 60, &position));
    let answer = connection.receive();
    assert_eq!(answer.data(), ["between two polls"]);
    assert!(!answer.gap());
    let position = format!("&last_id={}", answer.position());
    connection.ask("GET", &poll("c", 60, &position));
    until_parked(&server, 1);
    server.publish("c", "while parked").unwrap();
    assert_eq!(connection.receive().data(), ["while parked"]);
}

#[test]
fn a_gap_is_reported_where_events_after_the_cursor_were_lost_and_nowhere_else() {
    let server = start(info().broker(BrokerOptions::new().events_per_category(3)));
    let ids: Vec<EventId> = (0..5)
        .map(|number| server.publish("c", &number).unwrap())
        .collect();
    let after = |at: usize| get(&server, &poll("c", 0, &format!("&last_id={}", ids[at])));
    let lost = after(0);
    assert_eq!(lost.data(), [2, 3, 4]);
    assert!(lost.text().ends_with(r#"],"gap":true}"#), "{}", lost.text());
    assert_eq!(lost.json().get("error"), None);
    for at in [1, 2, 3] {
        let answer = after(at);
        assert!(!answer.text().contains("gap"), "{}", answer.text());
        assert_eq!(answer.data().len(), 4 - at);
    }
    assert_eq!(after(4).status, 204);
    assert!(buffered(&server, "c").gap());
    assert_eq!(server.statistics().gaps, 2);
}

#[test]
fn a_poll_without_a_cursor_starts_now_or_with_the_oldest_event_as_set() {
    for (poll_without_cursor, expected) in [
        (PollWithoutCursor::Now, vec![]),
        (PollWithoutCursor::Oldest, vec!["old"]),
    ] {
        let server = start(info().poll_without_cursor(poll_without_cursor));
        server.publish("c", "old").unwrap();
        let answer = get(&server, &poll("c", 0, "&last_id=&since_time="));
        assert_eq!(answer.data(), expected);
        assert!(!answer.gap());
    }
}

#[test]
fn head_and_options_neither_park_nor_consume() {
    let server = start(info().broker(BrokerOptions::new().delete_after_first_retrieval(true)));
    let everything = poll("c", 60, "&since_time=1");
    assert_eq!(ask(&server, "HEAD", &everything).status, 204);
    let id = server.publish("c", "once").unwrap();
    for _ in 0..2 {
        let head = ask(&server, "HEAD", &everything);
        assert_eq!((head.status, head.position()), (200, &*id.to_string()));
        assert_eq!(head.header("Content-Type"), Some("application/json"));
        let options = ask(&server, "OPTIONS", &everything);
        assert_eq!(options.header("Allow"), Some("GET, HEAD, OPTIONS"));
        assert_eq!(options.status, 204);
        options.has_the_promised_headers();
    }
    assert_eq!(ask(&server, "HEAD", "/events").status, 400);
    // On one connection: what follows HEAD's answer is the next answer, not a body.
    let mut connection = Connection::to(&server);
    connection.ask("HEAD", &everything);
    let head = connection.read(true).unwrap();
    connection.ask("GET", &everything);
    let answer = connection.receive();
    assert_eq!(answer.data(), ["once"]);
    assert_eq!(
        head.header("Content-Length"),
        answer.header("Content-Length")
    );
    assert_eq!(buffered(&server, "c").status, 204);
    assert_eq!(server.statistics().parked, 0);
}

#[test]
fn other_methods_and_paths_are_refused() {
    let server = server();
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "FOO"] {
        let answer = ask(&server, method, &poll("c", 60, ""));
        answer.refuses(405, "method");
        assert_eq!(answer.header("Allow"), Some("GET, HEAD, OPTIONS"));
    }
    for path in [
        "/",
        "/event",
        "/events/",
        "/events/x",
        "//events",
        "/Events",
    ] {
        let target = format!("{path}?category=c&timeout=0");
        get(&server, &target).refuses(404, "not found");
    }
    // A path may come encoded.
    let encoded = get(&server, "/%65vents?category=c&timeout=0");
    assert_eq!(encoded.status, 204);
}

#[test]
fn a_parked_poll_is_woken_by_its_category_and_many_by_one_event() {
    let server = server();
    let mut parked: Vec<Connection> = (0..20)
        .map(|_| {
            let mut connection = Connection::to(&server);
            connection.ask("GET", &poll("c", 60, ""));
            connection
        })
        .collect();
    until_parked(&server, 20);
    server.publish("other", "no").unwrap();
    let id = server.publish("c", "yes").unwrap();
    for connection in &mut parked {
        let answer = connection.receive();
        answer.has_the_promised_headers();
        assert_eq!(answer.data(), ["yes"]);
        assert_eq!(answer.position(), id.to_string());
    }
    until_parked(&server, 0);
    assert_eq!(server.statistics().delivered, 20);
}

#[test]
fn past_max_parked_the_one_parked_longest_is_answered_early() {
    let server = start(info().broker(BrokerOptions::new().max_parked(2)));
    let mut parked: Vec<Connection> = Vec::new();
    for count in 1..=3 {
        let mut connection = Connection::to(&server);
        connection.ask("GET", &poll("c", 60, ""));
        parked.push(connection);
        if count <= 2 {
            until_parked(&server, count);
        }
    }
    let early = parked[0].receive();
    assert_eq!(early.status, 204);
    assert!(early.position().parse::<EventId>().is_ok());
    until_parked(&server, 2);
    server.publish("c", "for the others").unwrap();
    for connection in &mut parked[1..] {
        assert_eq!(connection.receive().data(), ["for the others"]);
    }
}

#[test]
fn an_event_to_be_deleted_goes_to_all_who_are_parked_or_to_one_poll() {
    let server = start(info().broker(BrokerOptions::new().delete_after_first_retrieval(true)));
    let mut parked = [Connection::to(&server), Connection::to(&server)];
    parked
        .iter_mut()
        .for_each(|connection| connection.ask("GET", &poll("c", 60, "")));
    until_parked(&server, 2);
    server.publish("c", "to both").unwrap();
    for connection in &mut parked {
        assert_eq!(connection.receive().data(), ["to both"]);
    }
    assert_eq!(buffered(&server, "c").status, 204);
    server.publish("c", "to one").unwrap();
    let taken = buffered(&server, "c");
    assert_eq!(taken.data(), ["to one"]);
    let next = get(
        &server,
        &poll("c", 0, &format!("&last_id={}", taken.position())),
    );
    assert_eq!((next.status, server.statistics().events), (204, 0));
    // A delivered event is not lost.
    assert_eq!(server.statistics().gaps, 0);
}

#[test]
fn forty_followers_each_see_every_event_once_and_in_order() {
    let server = server();
    let followers: Vec<_> = (0..40)
        .map(|_| {
            let mut connection = Connection::to(&server);
            thread::spawn(move || {
                let (mut seen, mut cursor) = (Vec::new(), "&since_time=1".to_string());
                while seen.len() < 50 {
                    connection.ask("GET", &poll("c", 20, &cursor));
                    let answer = connection.receive();
                    seen.extend(answer.data().iter().map(|data| data.as_u64().unwrap()));
                    cursor = format!("&last_id={}", answer.position());
                }
                seen
            })
        })
        .collect();
    for number in 0..50_u64 {
        server.publish("c", &number).unwrap();
    }
    let expected: Vec<u64> = (0..50).collect();
    let seen: BTreeSet<Vec<u64>> = followers
        .into_iter()
        .map(|follower| follower.join().unwrap())
        .collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [expected]);
}
