//! Connections: hostile lengths, pipelining, HTTP/1.0, keeping alive and closing, and malformed heads.

use crate::support;

use long_polling::Server;
use long_polling::server::{Fallback, Handler, Response};
use support::{
    Answer, Connection, IS_NATIVE, LIMIT, buffered, get, info, poll, publish, server, start,
    until_parked,
};

const BODY: &str = r#"{"category":"c","data":1}"#;

fn serves_on(server: &Server) {
    let before = server.statistics().published;
    assert_eq!(publish(server, BODY).status, 200);
    assert_eq!(server.statistics().published, before + 1);
}

#[test]
fn a_length_that_no_memory_holds_is_refused_and_the_server_goes_on() {
    let server = server();
    let mut kept = Vec::new();
    for length in [
        "99999999999999",
        "9223372036854775807",
        "18446744073709551615",
    ] {
        for target in ["/publish", "/events?category=c&timeout=60", "/nowhere"] {
            for body in ["", BODY] {
                let mut connection = Connection::to(&server);
                connection.send(format!(
                    "POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}"
                ));
                connection.receive().refuses(413, "");
                serves_on(&server);
                kept.push(connection);
            }
        }
    }
    // Whether these clients stay or go.
    drop(kept);
    serves_on(&server);
    assert_eq!(server.statistics().published, 19);
}

#[test]
fn a_length_beyond_every_number_is_refused() {
    let server = server();
    let mut connection = Connection::to(&server);
    connection
        .send("POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 18446744073709551616\r\n\r\n");
    let answer = connection.receive();
    answer.refuses(400, "Content-Length");
    assert_eq!(answer.header("Connection"), Some("close"));
    serves_on(&server);
}

#[test]
fn a_poll_with_a_body_is_answered_and_its_body_is_not_taken_for_a_request() {
    let server = server();
    server.publish("c", "x").unwrap();
    let mut connection = Connection::to(&server);
    let target = poll("c", 60, "&since_time=1");
    for length in [3, 5000] {
        let body = "x".repeat(length);
        connection.send(format!(
            "GET {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        assert_eq!(connection.receive().data(), ["x"]);
    }
    connection.ask("GET", &target);
    assert_eq!(connection.receive().data(), ["x"]);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = server();
    let mut connection = Connection::to(&server);
    let length = BODY.len();
    let mut requests = String::new();
    for at in 0..20 {
        requests.push_str(&match at % 3 {
            0 => format!(
                "POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{BODY}"
            ),
            1 => format!("GET /nowhere{at} HTTP/1.1\r\nHost: t\r\n\r\n"),
            _ => format!("GET {} HTTP/1.1\r\nHost: t\r\n\r\n", poll("other", 0, "")),
        });
    }
    connection.send(requests);
    for at in 0..20 {
        let expected = [200, 404, 204][at % 3];
        assert_eq!(connection.receive().status, expected, "answer {at}");
    }
    assert_eq!(server.statistics().published, 7);
}

#[test]
fn requests_pipelined_behind_parked_polls_hold_up_nobody_else() {
    let server = server();
    let mut pipelined: Vec<Connection> = (0..20)
        .map(|_| {
            let mut connection = Connection::to(&server);
            connection.ask("GET", &poll("c", 60, ""));
            for _ in 0..5 {
                connection.publish(r#"{"category":"later","data":1}"#);
            }
            connection
        })
        .collect();
    until_parked(&server, 20);
    for _ in 0..5 {
        serves_on_other(&server);
    }
    server.publish("c", "now").unwrap();
    for connection in &mut pipelined {
        assert_eq!(connection.receive().data(), ["now"]);
        for _ in 0..5 {
            assert_eq!(connection.receive().status, 200);
        }
    }
    assert_eq!(buffered(&server, "later").data().len(), 100);
}

fn serves_on_other(server: &Server) {
    let answer = publish(server, r#"{"category":"other","data":1}"#);
    assert_eq!(answer.status, 200);
}

fn http_1_0(connection: &mut Connection, fields: &str) -> Answer {
    let target = poll("c", 0, "");
    connection.send(format!("GET {target} HTTP/1.0\r\n{fields}\r\n"));
    connection.receive()
}

#[test]
fn http_1_0_closes_unless_it_asks_to_keep_the_connection() {
    let server = server();
    let mut connection = Connection::to(&server);
    for _ in 0..3 {
        let answer = http_1_0(&mut connection, "Connection: Keep-Alive\r\n");
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("Connection"), Some("keep-alive"));
    }
    let answer = http_1_0(&mut connection, "");
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(connection.is_over());
}

#[test]
fn a_connection_is_kept_until_the_client_wants_it_closed() {
    let server = server();
    let mut connection = Connection::to(&server);
    for _ in 0..3 {
        connection.publish(BODY);
        assert_eq!(connection.receive().header("Connection"), None);
    }
    // After each kind of refusal, too.
    for (method, target) in [("GET", "/events"), ("GET", "/x"), ("PUT", "/publish")] {
        connection.ask(method, target);
        assert_eq!(connection.receive().status / 100, 4);
    }
    connection.send("GET /x HTTP/1.1\r\nHost: t\r\nConnection: Close\r\n\r\n");
    assert_eq!(connection.receive().header("Connection"), Some("close"));
    assert!(connection.is_over());
}

/// The server keeps little of it, whatever the client may do.
#[test]
fn a_body_that_is_of_no_use_is_refused_where_it_is_large() {
    let server = start(info().health_uri("/health").metrics_uri("/metrics"));
    let host = "Host: t\r\n";
    for (head, host) in [
        (format!("GET {}", poll("c", 0, "")), host),
        ("GET /health".into(), host),
        ("GET /metrics".into(), host),
        ("POST /nowhere".into(), host),
        // Malformed: a good one may need a token.
        ("POST /publish".into(), ""),
    ] {
        let mut connection = Connection::to(&server);
        connection.send(format!(
            "{head} HTTP/1.1\r\n{host}Content-Length: 10000\r\n\r\n{{"
        ));
        connection.receive().refuses(413, "too large");
    }
    let mut connection = Connection::to(&server);
    connection.send("GET /health HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(connection.receive().status, 200);
}

#[test]
fn connection_close_is_honoured_after_a_parked_poll() {
    let server = server();
    let mut connection = Connection::to(&server);
    let target = poll("c", 60, "");
    connection.send(format!(
        "GET {target} HTTP/1.1\r\nHost: t\r\nConnection: x, close\r\n\r\n"
    ));
    until_parked(&server, 1);
    server.publish("c", "last").unwrap();
    let answer = connection.receive();
    assert_eq!(answer.data(), ["last"]);
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(connection.is_over());
}

#[test]
fn a_target_may_be_absolute() {
    let server = server();
    server.publish("c", "x").unwrap();
    let target = poll("c", 0, "&since_time=1");
    for absolute in [
        format!("http://test{target}"),
        format!("HTTP://user@test:80{target}"),
    ] {
        assert_eq!(get(&server, &absolute).data(), ["x"], "{absolute}");
    }
    get(&server, "http://test").refuses(404, "not found");
    get(&server, "http://test?category=c").refuses(404, "not found");
}

#[test]
fn a_malformed_head_ends_its_connection_and_nothing_else() {
    let server = server();
    // Empty lines may precede a request (RFC 9112, section 2.2), which tiny_http does not know.
    let empty = if IS_NATIVE {
        "\r\n\r\nGET\r\n\r\n"
    } else {
        "\r\n\r\n"
    };
    for head in [
        empty,
        "GET\r\n\r\n",
        "GET / \r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/7.3\r\n\r\n",
        "GET /é HTTP/1.1\r\n\r\n",
        "\0\0\0\r\n\r\n",
        "GET / HTTP/1.1\r\nExpect: something\r\n\r\n",
    ] {
        let mut connection = Connection::to(&server);
        connection.send(head);
        if let Some(answer) = connection.next_or_end() {
            let refused = matches!(answer.status, 400..=499 | 505);
            assert!(refused, "{head:?}: {answer:?}");
            assert!(connection.is_over(), "{head:?}");
        }
        serves_on(&server);
    }
}

#[test]
fn nothing_that_a_client_sends_becomes_a_header_field_of_an_answer() {
    let server = start(info().cors_origin("*"));
    let evil = "%0D%0AX-Evil:%201%0D%0A%0D%0A";
    for target in [
        poll(evil, 0, ""),
        poll("c", 0, &format!("&last_id={evil}")),
        poll("c", 0, &format!("&since_time={evil}")),
        format!("/events?category=c&timeout={evil}"),
        format!("/{evil}"),
        format!("/events?{evil}={evil}"),
    ] {
        let answer = get(&server, &target);
        assert_eq!(answer.header("X-Evil"), None, "{answer:?}");
        assert!(matches!(answer.status, 204 | 400 | 404), "{answer:?}");
    }
    let body = r#"{"category":"c\r\nX-Evil: 1\r\n\r\n","data":"\r\nX-Evil: 1"}"#;
    let answer = publish(&server, body);
    assert_eq!((answer.status, answer.header("X-Evil")), (200, None));
    let answer = buffered(&server, "c%0D%0AX-Evil:%201%0D%0A%0D%0A");
    assert_eq!(answer.data(), ["\r\nX-Evil: 1"]);
    assert_eq!(answer.header("X-Evil"), None);
    // The answer to a preflight repeats the header names of the request; a lone CR is no end of a line for tiny_http.
    let mut connection = Connection::to(&server);
    connection.send(
        "OPTIONS /publish HTTP/1.1\r\nHost: t\r\nAccess-Control-Request-Headers: a\nX-Evil: 1\r\n\r\n",
    );
    match connection.next_or_end() {
        Some(answer) => assert_eq!(answer.header("X-Evil"), None, "{answer:?}"),
        None => serves_on(&server),
    }
}

#[test]
fn a_header_field_of_a_handler_that_would_become_two_is_left_out() {
    let evil = |response: Response| {
        response
            .with_header("X-Good", "1")
            .with_header("X-A", "1\r\nX-Evil: 1")
            .with_header("X-B\r\nX-Evil", "1")
            .with_header("Content-Length", "7")
            .with_header("Transfer-Encoding", "chunked")
    };
    let server = start(
        info()
            .before_publish(Handler::new(move |_| Err(evil(Response::text(403, "no")))))
            .fallback(Fallback::new(move |_| evil(Response::text(200, "yes")))),
    );
    let streamed = format!(r#"{{"category":"c","data":"{}"}}"#, "x".repeat(5000));
    for (answer, text) in [
        (publish(&server, BODY), "no"),
        (publish(&server, streamed), "no"),
        (get(&server, "/"), "yes"),
    ] {
        assert_eq!(answer.text(), text);
        assert_eq!(answer.header("X-Good"), Some("1"));
        for name in ["X-Evil", "X-A", "X-B", "Transfer-Encoding"] {
            assert_eq!(answer.header(name), None, "{answer:?}");
        }
    }
}

#[test]
fn a_client_that_hangs_up_while_parked_harms_no_other() {
    let server = server();
    let gone: Vec<Connection> = (0..20)
        .map(|_| {
            let mut connection = Connection::to(&server);
            connection.ask("GET", &poll("c", 60, ""));
            connection
        })
        .collect();
    until_parked(&server, 20);
    drop(gone);
    serves_on_other(&server);
    server.publish("c", "into the void").unwrap();
    until_parked(&server, 0);
    let mut stays = Connection::to(&server);
    stays.ask("GET", &poll("c", 60, ""));
    until_parked(&server, 1);
    server.publish("c", "still here").unwrap();
    assert_eq!(stays.receive().data(), ["still here"]);
    server.stop(LIMIT).unwrap();
}
