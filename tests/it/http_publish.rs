//! Publishes over HTTP: which bodies are accepted, byte for byte, and which are refused.

use crate::support;

use std::time::Duration;

use long_polling::{BrokerOptions, ErrorKind, EventId, PublishRequest, Publisher, Server};
use serde_json::json;
use support::{Answer, Connection, IS_NATIVE, ask, buffered, info, publish, server, start, until};

/// A publish to the category `c` of this JSON.
fn of(data: &str) -> String {
    format!(r#"{{"category":"c","data":{data}}}"#)
}

/// The exact JSON of the one event's data.
fn only_data(server: &Server) -> String {
    let answer = buffered(server, "c");
    let (_, rest) = answer.text().split_once(r#""data":"#).expect("data");
    let (data, _) = rest.rsplit_once(r#","id":"#).expect("an id");
    data.to_owned()
}

fn small_events(max_event_size: usize) -> Server {
    start(info().broker(BrokerOptions::new().max_event_size(max_event_size)))
}

#[test]
fn a_publish_is_answered_byte_for_byte_and_with_the_events_id() {
    let server = server();
    let answer = publish(&server, r#"{"category":"c","data":"hello"}"#);
    assert_eq!(
        (answer.status, answer.text()),
        (200, r#"{"success": true}"#)
    );
    answer.has_the_promised_headers();
    assert!(answer.position().parse::<EventId>().is_ok());
    let events = buffered(&server, "c");
    assert_eq!(events.ids(), [answer.position()]);
    assert_eq!(events.data(), ["hello"]);
    let next = publish(&server, of("1"));
    assert!(next.position() > answer.position());
    assert_eq!(server.statistics().published, 2);
}

#[test]
fn the_content_type_and_other_members_do_not_matter() {
    let server = server();
    let body = r#" {"x":null,"data":1,"y":{"category":"z"},"category":"c","":[]} "#;
    for content_type in ["", "Content-Type: text/plain\r\n", "Content-Type: x\r\n"] {
        let mut connection = Connection::to(&server);
        let length = body.len();
        connection.send(format!(
            "POST /publish?ignored=1 HTTP/1.1\r\nHost: t\r\n{content_type}Content-Length: {length}\r\n\r\n{body}"
        ));
        assert_eq!(connection.receive().status, 200);
    }
    assert_eq!(buffered(&server, "c").data(), [1, 1, 1]);
}

#[test]
fn every_kind_of_json_comes_back_unchanged() {
    let long = format!("\"{}\"", "x".repeat(200_000));
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    for data in [
        r#""text""#,
        r#""""#,
        r#""\u00e9 é \ud83d\ude00 😀 \" \\ \/ \n\t\u0000""#,
        "0",
        "-0",
        "-0.0",
        "1.10",
        "1E5",
        "123456789012345678901234567890.000",
        "0.1000000000000000055511151231257827",
        "true",
        "false",
        "[]",
        "{}",
        r#"{ "b" : 1 ,  "a":[ null, {"c":"d"} ], "a":2}"#,
        r#"{"null":null}"#,
        &long,
        &deep,
    ] {
        let server = server();
        let answer = publish(&server, of(data));
        assert_eq!(answer.status, 200, "{data}");
        assert_eq!(only_data(&server), data);
    }
}

#[test]
fn line_breaks_between_the_tokens_of_data_become_spaces() {
    let server = server();
    let answer = publish(&server, of("{\r\n \"a\" :\n[1,\n2]}"));
    assert_eq!(answer.status, 200);
    assert_eq!(only_data(&server), r#"{   "a" : [1, 2]}"#);
}

#[test]
fn a_body_that_is_no_publish_is_refused() {
    let server = server();
    let longest = "x".repeat(1024);
    let deep = of(&format!("{}{}", "[".repeat(5000), "]".repeat(5000)));
    let too_long = format!(r#"{{"category":"{longest}x","data":1}}"#);
    for (body, words) in [
        ("", "not of the form"),
        ("null", "not of the form"),
        ("[]", "no events"),
        (r#"["c",1]"#, ""),
        ("category=c&data=1", "not of the form"),
        ("{}", "not of the form"),
        (r#"{"category":"c"}"#, "data"),
        (r#"{"data":1}"#, "category"),
        (r#"{"category":"c","data":null}"#, "null"),
        (r#"{"category":"c","data": null }"#, "null"),
        (r#"{"category":"","data":1}"#, "1 to 1024 bytes"),
        (&too_long, "1025 bytes"),
        (r#"{"category":1,"data":1}"#, "not of the form"),
        (r#"{"category":null,"data":1}"#, "not of the form"),
        (r#"{"category":"c","category":"d","data":1}"#, "duplicate"),
        (r#"{"category":"c","data":1,"data":2}"#, "duplicate"),
        (r#"{"Category":"c","Data":1}"#, "not of the form"),
        (r#"{"category":"c","data":1}x"#, "not of the form"),
        (r#"{"category":"c","data":1"#, "not of the form"),
        (r#"{"category":"c","data":1}{"category":"c","data":2}"#, ""),
        (r#"{"category":"c","data":01}"#, "not of the form"),
        (r#"{"category":"c","data":NaN}"#, "not of the form"),
        (r#"{"category":"c","data":'x'}"#, "not of the form"),
        (r#"{"category":"c","data":1e999}"#, "could not decode"),
        (r#"{"category":"c","data":[-1e999]}"#, "could not decode"),
        (r#"{"category":"c","data":"\ud800"}"#, ""),
        (r#"{"category":"c","data":{"\udfff":1}}"#, ""),
        (r#"{"category":"\ud800","data":1}"#, "not of the form"),
        (&deep, ""),
        ("{\"category\":\"c\",\"data\":\"\n\"}", "not of the form"),
    ] {
        publish(&server, body).refuses(400, words);
    }
    for body in [
        &b"{\"category\":\"c\",\"data\":\"\xff\"}"[..],
        b"{\"category\":\"\xc3\",\"data\":1}",
        b"{\"category\":\"c\",\"data\":1}\xef\xbb\xbf",
        b"\xff\xfe{\0",
    ] {
        publish(&server, body).refuses(400, "");
    }
    let statistics = server.statistics();
    assert_eq!((statistics.published, statistics.events), (0, 0));
    assert_eq!((statistics.refused, statistics.categories), (34, 0));
    // The longest category that is allowed.
    let body = format!(r#"{{"category":"{longest}","data":1}}"#);
    assert_eq!(publish(&server, body).status, 200);
}

#[test]
fn other_methods_are_refused() {
    let server = server();
    for method in ["GET", "PUT", "PATCH", "FOO"] {
        let answer = ask(&server, method, "/publish");
        answer.refuses(405, "method");
        assert_eq!(answer.header("Allow"), Some("POST, DELETE, OPTIONS"));
    }
    assert_eq!(ask(&server, "HEAD", "/publish").status, 405);
    let options = ask(&server, "OPTIONS", "/publish");
    assert_eq!(options.header("Allow"), Some("POST, DELETE, OPTIONS"));
    options.has_the_promised_headers();
    assert_eq!((options.status, options.body.len()), (204, 0));
    ask(&server, "POST", "/publish/").refuses(404, "not found");
}

#[test]
fn too_much_data_is_refused() {
    let server = small_events(100);
    let fits = format!("\"{}\"", "x".repeat(98));
    let larger = format!("\"{}\"", "x".repeat(99));
    assert_eq!(publish(&server, of(&fits)).status, 200);
    publish(&server, of(&larger)).refuses(413, "100");
    // By the length announced, before the body has come.
    let mut connection = Connection::to(&server);
    connection.send("POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 20000\r\n\r\n{");
    connection.receive().refuses(413, "too large");
    // Without a length, when more has come than may.
    let mut connection = Connection::to(&server);
    connection.send("POST /publish HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.send(format!("{:x}\r\n{}\r\n", 20_000, "x".repeat(20_000)));
    connection.receive().refuses(413, "too large");
    assert_eq!(server.statistics().published, 1);
    // The rest of a body that came too late is not taken for a request.
    let mut connection = Connection::to(&server);
    connection.publish(of(&format!("\"{}\"", "x".repeat(50_000))));
    connection.receive().refuses(413, "too large");
    if IS_NATIVE {
        return assert!(connection.is_over());
    }
    connection.publish(of(&fits));
    assert_eq!(connection.receive().status, 200);
}

#[test]
fn an_event_of_the_default_limit_is_delivered() {
    let server = server();
    let data = format!("\"{}\"", "x".repeat((1 << 20) - 2));
    assert_eq!(publish(&server, of(&data)).status, 200);
    assert_eq!(only_data(&server).len(), 1 << 20);
    let data = format!("\"{}\"", "x".repeat((1 << 20) - 1));
    publish(&server, of(&data)).refuses(413, "limit");
}

#[test]
fn a_chunked_body_is_read_whole() {
    let server = server();
    let mut connection = Connection::to(&server);
    connection.send("POST /publish HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: Chunked\r\n\r\n");
    for part in of(r#""in parts""#).as_bytes().chunks(7) {
        connection.send(format!("{:X}\r\n", part.len()));
        connection.send(part);
        connection.send("\r\n");
    }
    connection.send("0\r\n\r\n");
    assert_eq!(connection.receive().status, 200);
    connection.publish(of("2"));
    assert_eq!(connection.receive().status, 200);
    assert_eq!(buffered(&server, "c").data(), [json!("in parts"), json!(2)]);
}

#[test]
fn a_body_of_another_coding_is_refused_and_the_connection_stays_usable() {
    let server = server();
    let mut connection = Connection::to(&server);
    let body = of("1");
    let length = body.len();
    let chunks = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    for fields in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
    ] {
        connection.send(format!(
            "POST /publish HTTP/1.1\r\nHost: t\r\n{fields}\r\n{chunks}"
        ));
        connection.receive().refuses(501, "Transfer-Encoding");
    }
    connection.publish(&body);
    assert_eq!(connection.receive().status, 200);
    assert_eq!(server.statistics().published, 1);
}

#[test]
fn an_offer_of_another_protocol_is_ignored_whatever_frames_the_body() {
    let server = server();
    let head = "POST /publish HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n";
    let body = of(&format!("\"{}\"", "x".repeat(5000)));
    let sized = format!("{head}Content-Length: {}\r\n", body.len());
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n");
    let chunks: Vec<u8> = body
        .as_bytes()
        .chunks(999)
        .flat_map(|part| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat())
        .chain(*b"0\r\n\r\n")
        .collect();
    for (fields, sent) in [(sized, body.as_bytes()), (chunked, &chunks[..])] {
        for expects in [false, true] {
            let mut connection = Connection::to(&server);
            connection.send(&fields);
            if !IS_NATIVE && fields.contains("chunked") {
                // tiny_http leaves the chunks encoded, and so they are refused.
                connection.send("\r\n");
                connection.receive().refuses(400, "chunked");
                assert!(connection.is_over());
                continue;
            }
            if expects {
                connection.send("Expect: 100-continue\r\n\r\n");
                assert_eq!(connection.receive().status, 100);
            } else {
                connection.send("\r\n");
            }
            // In pieces, as they come over a network.
            for part in sent.chunks(1500) {
                connection.send(part);
            }
            let answer = connection.receive();
            assert_eq!((answer.status, answer.header("Upgrade")), (200, None));
            if !IS_NATIVE {
                // tiny_http reads no further request from a connection that has offered another protocol.
                assert_eq!(answer.header("Connection"), Some("close"));
                assert!(connection.is_over());
            }
        }
    }
    let published = if IS_NATIVE { 4 } else { 2 };
    let data = buffered(&server, "c").data();
    assert_eq!(data, vec!["x".repeat(5000); published]);
}

#[test]
fn a_byte_order_mark_before_the_json_is_ignored() {
    let server = server();
    let marked = publish(&server, format!("\u{feff}{}", of("1")));
    assert_eq!(marked.status, 200);
    assert_eq!(only_data(&server), "1");
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let server = server();
    for body in [of("1"), of(&format!("\"{}\"", "x".repeat(5000)))] {
        let mut connection = Connection::to(&server);
        let length = body.len();
        connection.send(format!(
            "POST /publish HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        ));
        assert_eq!(connection.receive().status, 100);
        connection.send(&body);
        assert_eq!(connection.receive().status, 200);
    }
    assert_eq!(server.statistics().published, 2);
}

#[test]
fn a_body_that_was_cut_off_is_not_published() {
    let server = server();
    let long = of(&format!("\"{}\"", "x".repeat(5000)));
    let announced = |length: usize| {
        format!("POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n")
    };
    let chunked = "POST /publish HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    let whole = of("1");
    for cut in [
        // JSON that is complete, but of which more was announced.
        announced(whole.len() + 1) + &whole,
        announced(9000) + &long,
        announced(long.len()) + &long[..2000],
        format!("{chunked}{:x}\r\n{whole}\r\n", whole.len()),
        format!("{chunked}{:x}\r\n{}", whole.len(), &whole[..9]),
        chunked.into(),
    ] {
        let mut connection = Connection::to(&server);
        connection.send(&cut);
        connection
            .stream()
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
        // An answer may come or not, but no success.
        if let Some(answer) = connection.next_or_end() {
            assert_eq!(answer.status, 400, "{cut:?}: {answer:?}");
        }
        assert!(connection.is_over());
    }
    assert_eq!(server.statistics().published, 0);
    assert_eq!(publish(&server, whole).status, 200);
}

/// Sends a publish with these header fields, and expects an answer that ends the connection.
fn broken(server: &Server, fields: &str, body: &str) -> Answer {
    let mut connection = Connection::to(server);
    connection.send(format!(
        "POST /publish HTTP/1.1\r\nHost: t\r\n{fields}\r\n{body}"
    ));
    let answer = connection.receive();
    assert_eq!(answer.header("Connection"), Some("close"), "{fields:?}");
    answer
}

#[test]
fn a_body_whose_end_can_be_read_in_two_ways_is_refused() {
    let server = server();
    let body = of("1");
    let length = body.len();
    let chunks = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    for fields in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        "Transfer-Encoding: chunked, gzip\r\n".into(),
        "Transfer-Encoding: gzip;a=\"b, chunked\"\r\n".into(),
        "Transfer-Encoding: identity\r\n".into(),
        "Transfer-Encoding: xchunked\r\n".into(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".into(),
    ] {
        broken(&server, &fields, &chunks).refuses(400, "");
    }
    for fields in [
        format!("Content-Length: {length}\r\nContent-Length: 1\r\n"),
        format!("Content-Length: {length}, {length}\r\n"),
        format!("Content-Length: +{length}\r\n"),
        format!("Content-Length: -{length}\r\n"),
        "Content-Length: x\r\n".into(),
        "Content-Length:\r\n".into(),
        "Content-Length: 99999999999999999999999\r\n".into(),
    ] {
        broken(&server, &fields, &body).refuses(400, "Content-Length");
    }
    assert_eq!(server.statistics().published, 0);
    assert_eq!(publish(&server, body).status, 200);
}

#[test]
fn a_publish_may_have_a_time_to_live_in_seconds() {
    let server = server();
    for ttl in ["1000", "0.001", "1e3", "null"] {
        let body = format!(r#"{{"category":"{ttl}","data":1,"ttl":{ttl}}}"#);
        assert_eq!(publish(&server, body).status, 200, "{ttl}");
    }
    // As golongpoll's clients know an event.
    let event = &buffered(&server, "1000").json()["events"][0];
    assert_eq!(event.as_object().unwrap().len(), 4);
    for ttl in ["0", "-1", "\"1\"", "0.0001"] {
        let body = format!(r#"{{"category":"refused","data":1,"ttl":{ttl}}}"#);
        publish(&server, body).refuses(400, "ttl");
    }
    assert_eq!(buffered(&server, "refused").status, 204);

    let publisher = Publisher::new(format!("http://{}/publish", server.local_addr()));
    let request = PublishRequest::new("client", 1).ttl(Duration::from_millis(1));
    publisher.publish_with(&request).unwrap();
    until("the event has expired", || {
        buffered(&server, "client").status == 204
    });
    let refused = publisher.publish_with(&request.ttl(Duration::ZERO));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidRequest);
}
