//! What hooks can use: the server's broker, `?`, and the body of a request to the fallback.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use long_polling::server::{Fallback, Handler, Request, Response};
use long_polling::{Broker, BrokerOptions, Cursor, Error, EventId};
use support::{Connection, buffered, get, info, poll, publish, start};

const BODY: &str = r#"{"category":"c","data":1}"#;

#[test]
fn every_hook_can_use_the_broker_of_its_server() {
    let noting = |category: &'static str| {
        Handler::with_broker(move |request, broker| {
            broker.publish(category, request.path())?;
            Ok(())
        })
    };
    let server = start(
        info()
            .before_subscription(noting("polls"))
            .before_publish(noting("publishes"))
            .fallback(Fallback::with_broker(|request, broker| {
                match request.path() {
                    "/statistics" => Response::json(200, &broker.statistics()),
                    _ => Response::error(404, "not found"),
                }
            })),
    );
    assert_eq!(publish(&server, BODY).status, 200);
    assert_eq!(buffered(&server, "c").data(), [1]);
    assert_eq!(buffered(&server, "publishes").data(), ["/publish"]);
    assert_eq!(buffered(&server, "polls").data().len(), 3);
    let statistics = get(&server, "/statistics").json();
    assert_eq!(statistics["published"], 5);
    assert_eq!(statistics["store"]["pending"], 0);
}

#[test]
fn a_closure_finds_the_broker_in_its_request() {
    let server = start(
        info().fallback(|request: &Request| -> Result<Response, Error> {
            let Some(broker) = request.broker() else {
                return Ok(Response::error(500, "no broker"));
            };
            let batch = broker.subscribe("c", Cursor::Oldest, Duration::ZERO)?;
            Ok(Response::json(200, &batch.len()))
        }),
    );
    assert_eq!(publish(&server, BODY).status, 200);
    assert_eq!(get(&server, "/count").text(), "1");
}

#[test]
fn question_marks_in_hooks_become_answers() {
    fn signed_in(request: &Request) -> Result<&str, Response> {
        let user = request.header("X-User");
        user.ok_or_else(|| Response::error(401, "who are you?"))
    }
    let server = start(
        info()
            .before_subscription(|request: &Request| {
                signed_in(request)?;
                Ok(())
            })
            .before_publish(Handler::with_broker(|_, broker| {
                broker.publish("", "no category")?;
                Ok(())
            }))
            .fallback(|request: &Request| -> Result<Response, Response> {
                let user = signed_in(request)?;
                let id: EventId = request.query().parse()?;
                Ok(Response::text(200, format!("{user} {id}")))
            }),
    );
    get(&server, &poll("c", 0, "")).refuses(401, "who are you?");
    publish(&server, BODY).refuses(400, "an empty category");
    let mut connection = Connection::to(&server);
    let id = "019a5b3c-1234-8abc-8000-000000000007";
    for (query, user, status, text) in [
        (id, "", 401, r#"{"error":"who are you?"}"#.to_owned()),
        (id, "X-User: a\r\n", 200, format!("a {id}")),
        (
            "x",
            "X-User: a\r\n",
            400,
            r#"{"error":"not an event id (a UUID is expected): \"x\""}"#.to_owned(),
        ),
    ] {
        connection.send(format!(
            "GET /page?{query} HTTP/1.1\r\nHost: t\r\n{user}\r\n"
        ));
        let answer = connection.receive();
        assert_eq!((answer.status, answer.text()), (status, &*text));
    }
}

#[test]
fn a_request_of_a_test_has_the_broker_that_the_test_gives_it() {
    let handler = Handler::with_broker(|_, broker| {
        broker.publish("c", &1)?;
        Ok(())
    });
    let fallback = Fallback::with_broker(|_, broker| Response::json(200, &broker.statistics()));
    let request = Request::new("GET", "/page");
    assert!(request.broker().is_none());
    for answer in [handler.run(&request).unwrap_err(), fallback.run(&request)] {
        assert_eq!(answer.status, 500);
        let words = String::from_utf8(answer.body).unwrap();
        assert!(words.contains("Request::with_broker"), "{words}");
    }
    let broker = Broker::new(BrokerOptions::new()).unwrap();
    let request = request.with_broker(broker.clone());
    handler.run(&request).unwrap();
    assert_eq!(broker.statistics().published, 1);
    assert_eq!(fallback.run(&request).status, 200);
}

#[test]
fn a_body_over_the_limit_of_the_fallback_is_refused_before_it_runs() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let fallback = move |request: &Request| {
        counted.fetch_add(1, SeqCst);
        Response::json(200, &request.body().len())
    };
    let server = start(info().max_body_size(10).fallback(fallback.clone()));
    let mut connection = Connection::to(&server);
    connection.send("POST /page HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n0123456789");
    assert_eq!(connection.receive().text(), "10");
    for too_long in [
        "Content-Length: 11\r\n\r\n01234567890",
        "Transfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n",
    ] {
        let mut connection = Connection::to(&server);
        connection.send(format!("POST /page HTTP/1.1\r\nHost: t\r\n{too_long}"));
        connection.receive().refuses(413, "too large");
    }
    assert_eq!(runs.load(SeqCst), 1);
    // The endpoints have their own limits.
    assert_eq!(publish(&server, BODY).status, 200);

    // More than a publish may have, and by default as much as a publish.
    let body = "x".repeat(20_000);
    let options = BrokerOptions::new().max_event_size(1000);
    for (max, status) in [(Some(20_000), 200), (None, 413)] {
        let info = info().broker(options.clone()).max_body_size(max);
        let server = start(info.fallback(fallback.clone()));
        let mut connection = Connection::to(&server);
        connection.send(format!(
            "POST /page HTTP/1.1\r\nHost: t\r\nContent-Length: 20000\r\n\r\n{body}"
        ));
        assert_eq!(connection.receive().status, status);
    }
}
