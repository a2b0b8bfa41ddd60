//! Header fields of a poll that count where a parameter is missing: `Last-Event-ID` and `Prefer: wait`.

use std::time::{Duration, Instant};

use crate::support::{Answer, Connection, info, poll, server, start, until_parked};

use long_polling::Server;
use long_polling::server::TimeoutAnswer;

fn ask_with(server: &Server, target: &str, fields: &str) -> Answer {
    let mut connection = Connection::to(server);
    connection.send(format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"
    ));
    connection.receive()
}

#[test]
fn the_field_last_event_id_counts_where_the_parameter_is_missing() {
    let server = server();
    let first = server.publish("c", "first").unwrap();
    let second = server.publish("c", "second").unwrap();
    let field = format!("last-event-id: {first}\r\n");
    let answer = ask_with(&server, &poll("c", 0, ""), &field);
    assert_eq!(answer.ids(), [second.to_string()]);
    // The parameter takes precedence; without it, a time stays the fallback.
    let target = poll("c", 0, &format!("&last_id={second}"));
    assert_eq!(ask_with(&server, &target, &field).status, 204);
    let unknown = "Last-Event-ID: 00000000-0000-4000-8000-000000000000\r\n";
    let answer = ask_with(&server, &poll("c", 0, "&since_time=1"), unknown);
    assert_eq!(answer.ids().len(), 2);
    assert!(!answer.gap());
    // As with the parameter.
    let wrong = ask_with(&server, &poll("c", 0, ""), "Last-Event-ID: 7\r\n");
    wrong.refuses(400, "Last-Event-ID");
    let empty = ask_with(&server, &poll("c", 0, ""), "Last-Event-ID:\r\n");
    assert_eq!(empty.status, 204);
}

#[test]
fn the_preference_wait_counts_where_the_timeout_is_missing() {
    let server = server();
    let began = Instant::now();
    let answer = ask_with(&server, "/events?category=c", "Prefer: wait=1\r\n");
    assert_eq!(answer.status, 204);
    assert!(began.elapsed() >= Duration::from_millis(900));
    assert_eq!(answer.header("Preference-Applied"), Some("wait=1"));

    // Of two followers that are parked for the same event, only one has a preference.
    let (mut preferring, mut other) = (Connection::to(&server), Connection::to(&server));
    preferring.send("GET /events?category=c HTTP/1.1\r\nHost: test\r\nPrefer: x, wait=50\r\n\r\n");
    other.ask("GET", &poll("c", 50, ""));
    until_parked(&server, 2);
    server.publish("c", "event").unwrap();
    let answer = preferring.receive();
    assert_eq!(answer.header("Preference-Applied"), Some("wait=50"));
    let plain = other.receive();
    assert_eq!(plain.header("Preference-Applied"), None);
    assert_eq!(answer.body, plain.body);

    // The parameter takes precedence, and then no preference is applied.
    let answer = ask_with(&server, &poll("c", 0, ""), "Prefer: wait=50\r\n");
    assert_eq!(
        (answer.status, answer.header("Preference-Applied")),
        (204, None)
    );
    for ignored in ["Prefer: wait=soon\r\n", "Prefer: return=minimal\r\n", ""] {
        let refused = ask_with(&server, "/events?category=c", ignored);
        refused.refuses(400, "timeout is missing");
    }
}

#[test]
fn a_preference_past_the_servers_maximum_is_applied_as_the_maximum() {
    let info = info()
        .timeout(Duration::from_secs(1))
        .timeout_answer(TimeoutAnswer::Golongpoll);
    let server = start(info);
    let answer = ask_with(&server, "/events?category=c", "Prefer: wait=600\r\n");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Preference-Applied"), Some("wait=1"));
}

#[test]
fn pages_of_another_origin_may_send_and_read_these_fields() {
    let server = start(info().cors_origin("https://a.example"));
    let mut connection = Connection::to(&server);
    connection.ask("OPTIONS", "/events");
    let preflight = connection.receive();
    let allowed = preflight.header("Access-Control-Allow-Headers").unwrap();
    assert_eq!(
        allowed,
        "Content-Type, Idempotency-Key, Last-Event-ID, Prefer"
    );
    let answer = ask_with(&server, &poll("c", 0, ""), "");
    let exposed = answer.header("Access-Control-Expose-Headers").unwrap();
    assert!(exposed.contains("Preference-Applied") && exposed.contains("Last-Event-ID"));
}
