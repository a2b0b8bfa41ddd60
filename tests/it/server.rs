//! A server from its start to its stop: stopping, starting again, and many clients at once.

use crate::sse::{Stream, request};
use crate::support;

use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use long_polling::server::{Handler, TimeoutAnswer};
use long_polling::{BrokerOptions, Cursor, ErrorKind, Server};
use support::{
    Connection, IS_NATIVE, LIMIT, buffered, get, info, poll, publish, server, start, until,
    until_parked,
};

const BODY: &str = r#"{"category":"c","data":1}"#;

fn parked_polls(server: &Server, count: usize) -> Vec<Connection> {
    let parked = (0..count)
        .map(|_| {
            let mut connection = Connection::to(server);
            connection.ask("GET", &poll("c", 60, ""));
            connection
        })
        .collect();
    until_parked(server, count);
    parked
}

#[test]
fn stopping_answers_all_parked_polls_as_if_they_had_timed_out() {
    for timeout_answer in [TimeoutAnswer::NoContent, TimeoutAnswer::Golongpoll] {
        let server = start(info().timeout_answer(timeout_answer));
        let id = server.publish("other", "x").unwrap();
        let mut parked = parked_polls(&server, 50);
        let began = Instant::now();
        server.stop(LIMIT).unwrap();
        assert!(began.elapsed() < Duration::from_secs(5));
        for connection in &mut parked {
            let answer = connection.receive();
            answer.has_the_promised_headers();
            assert_eq!(answer.position(), id.to_string());
            match timeout_answer {
                TimeoutAnswer::NoContent => assert_eq!(answer.status, 204),
                TimeoutAnswer::Golongpoll => {
                    assert_eq!(answer.json()["timeout"], "no events before timeout")
                }
            }
        }
        assert_eq!(server.statistics().parked, 0);
    }
}

#[test]
fn after_a_stop_publishes_are_refused_and_kept_connections_are_closed() {
    let server = server();
    let address = server.local_addr();
    let mut kept = [(); 3].map(|()| Connection::to(&server));
    for connection in &mut kept {
        connection.publish(BODY);
        assert_eq!(connection.receive().status, 200);
    }
    server.stop(LIMIT).unwrap();
    assert!(TcpStream::connect(address).is_err());
    if IS_NATIVE {
        // The clients come back on new connections.
        assert!(kept.iter_mut().all(|connection| connection.is_over()));
    } else {
        are_served_after_a_stop(kept);
    }
    // In process as well.
    let error = server.publish("c", "late").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    let error = server.subscribe("c", Cursor::Now, LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    assert_eq!(server.statistics().published, 3);
    // Stopping twice is fine, and so is dropping what was stopped.
    server.stop(Duration::ZERO).unwrap();
}

/// tiny_http keeps the connections open: each request on them is answered, and the answer asks to close the connection. The
/// next server may already serve the clients on other connections.
fn are_served_after_a_stop([mut publisher, mut poller, mut page]: [Connection; 3]) {
    publisher.publish(BODY);
    let answer = publisher.receive();
    answer.refuses(503, "stop");
    assert_eq!(answer.header("Retry-After"), Some("1"));
    assert_eq!(answer.header("Connection"), Some("close"));
    poller.ask("GET", &poll("c", 60, ""));
    let nothing = poller.receive();
    assert_eq!(nothing.status, 204);
    assert_eq!(nothing.header("Connection"), Some("close"));
    // Polls still get the events in memory: the next run has no more of them.
    poller.ask("GET", &poll("c", 60, "&since_time=1"));
    let answer = poller.receive();
    assert_eq!(answer.data(), [1, 1, 1]);
    assert_eq!(answer.header("Connection"), Some("close"));
    assert_eq!(nothing.position(), answer.position());
    // A client that the next server has already answered keeps its position, and no gap is reported.
    let later = "ffffffff-ffff-8000-8000-000000000003";
    for time in ["", "&since_time=1"] {
        let target = poll("c", 60, &format!("&last_id={later}{time}"));
        poller.ask("GET", &target);
        let answer = poller.receive();
        assert_eq!((answer.status, answer.position()), (204, later));
    }
    let query = format!("category=c&last_id={later}");
    page.send(request("GET", "HTTP/1.1", &query, ""));
    let mut stream = Stream::read(page);
    assert_eq!((stream.rest(), stream.last_id), (vec![], None));
    // A position that is none of the next server's either is still a gap.
    let earlier = "00000000-0001-8000-8000-000000000003";
    poller.ask("GET", &poll("c", 60, &format!("&last_id={earlier}")));
    assert_eq!(poller.receive().json()["gap"], true);
}

/// A server whose publishes block until a message comes through the sender; the receiver gets one when a publish blocks.
fn blocking_server() -> (Server, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (release, held) = mpsc::channel::<()>();
    let (entered, entry) = mpsc::channel();
    let (held, entered) = (Mutex::new(held), Mutex::new(entered));
    let server = start(info().before_publish(Handler::new(move |_| {
        let _ = entered.lock().unwrap().send(());
        let _ = held.lock().unwrap().recv_timeout(LIMIT);
        Ok(())
    })));
    (server, release, entry)
}

#[test]
fn stopping_waits_for_a_request_in_flight() {
    let (server, release, entry) = blocking_server();
    let mut publisher = Connection::to(&server);
    publisher.publish(BODY);
    entry.recv_timeout(LIMIT).unwrap();
    let address = server.local_addr();
    thread::scope(|scope| {
        let stop = scope.spawn(|| server.stop(LIMIT));
        until("the port is closed", || {
            TcpStream::connect(address).is_err()
        });
        assert!(!stop.is_finished());
        release.send(()).unwrap();
        stop.join().unwrap().unwrap();
    });
    assert_eq!(publisher.receive().text(), r#"{"success": true}"#);
    assert_eq!(server.statistics().published, 1);
}

#[test]
fn stopping_does_not_wait_for_the_rest_of_a_body_and_publishes_nothing_of_it() {
    let server = server();
    // Read by the HTTP library, by this crate, in chunks, and not at all.
    let length = BODY.len();
    let mut half = [
        format!("Content-Length: {length}\r\n\r\n{{"),
        "Content-Length: 5000\r\n\r\n{".to_owned(),
        format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{{"),
        "Content-Length: 31000000\r\n\r\n{".to_owned(),
    ]
    .map(|request| {
        let mut connection = Connection::to(&server);
        connection.send(format!("POST /publish HTTP/1.1\r\nHost: t\r\n{request}"));
        connection
    });
    assert_eq!(half[3].receive().status, 413);
    // The server has read what came before this, too.
    assert_eq!(publish(&server, BODY).status, 200);
    let began = Instant::now();
    server.stop(LIMIT).unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let rest = &BODY[1..];
    let ends = [
        rest.to_owned(),
        format!("{rest}{}", " ".repeat(5000 - length)),
        format!("{rest}\r\n0\r\n\r\n"),
    ];
    for (connection, rest) in half.iter_mut().zip(ends) {
        if connection.try_send(rest).is_ok()
            && let Some(answer) = connection.next_or_end()
        {
            answer.refuses(503, "stop");
        }
    }
    assert_eq!(server.statistics().published, 1);
}

#[test]
fn a_request_that_takes_longer_than_the_stop_is_an_error_and_publishes_nothing() {
    let (server, release, entry) = blocking_server();
    let mut publisher = Connection::to(&server);
    publisher.publish(BODY);
    entry.recv_timeout(LIMIT).unwrap();
    let error = server.stop(Duration::from_millis(10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StopTimeout);
    assert!(error.to_string().contains("10ms"), "{error}");
    release.send(()).unwrap();
    let answer = publisher.receive();
    answer.refuses(503, "stopped");
    assert_eq!(server.statistics().published, 0);
}

#[test]
fn dropping_a_server_stops_it() {
    let server = server();
    let address = server.local_addr();
    let mut parked = parked_polls(&server, 5);
    drop(server);
    for connection in &mut parked {
        assert_eq!(connection.receive().status, 204);
    }
    assert!(TcpStream::connect(address).is_err());
    assert!(TcpListener::bind(address).is_ok());
}

#[test]
fn the_same_port_serves_again_at_once_twenty_times() {
    let first = server();
    let info = info().address(first.local_addr().to_string());
    let mut kept = Vec::new();
    let mut server = first;
    for round in 0..20 {
        // Connections of earlier rounds stay open, some with a poll that the stop has answered.
        let mut connection = Connection::to(&server);
        connection.publish(BODY);
        assert_eq!(connection.receive().status, 200, "round {round}");
        connection.ask("GET", &poll("c", 60, ""));
        until_parked(&server, 1);
        server.stop(LIMIT).unwrap();
        kept.push(connection);
        server = start(info.clone());
    }
    for connection in &mut kept {
        assert_eq!(connection.receive().status, 204);
        if IS_NATIVE {
            assert!(connection.is_over());
        } else {
            connection.publish(BODY);
            assert_eq!(connection.receive().status, 503);
        }
    }
    assert_eq!(server.statistics().published, 0);
}

#[test]
fn what_is_published_in_process_reaches_http_and_the_other_way_round() {
    let server = server();
    let mut parked = parked_polls(&server, 1);
    let id = server.publish("c", &["in process"]).unwrap();
    let answer = parked[0].receive();
    assert_eq!(answer.ids(), [id.to_string()]);
    assert_eq!(answer.json()["events"][0]["data"][0], "in process");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| server.subscribe(["c", "d"], Cursor::LastId(id), LIMIT));
        until_parked(&server, 1);
        let body = r#"{"category":"d","data":"over HTTP"}"#;
        let position = publish(&server, body).position().to_owned();
        let batch = waiting.join().unwrap().unwrap();
        assert_eq!(batch.events()[0].text(), "over HTTP");
        assert_eq!(batch.last_id().to_string(), position);
    });
    assert_eq!(server.broker().statistics(), server.statistics());
}

#[test]
fn statistics_count_what_happened() {
    let server = start(info().broker(BrokerOptions::new().events_per_category(2)));
    for _ in 0..3 {
        assert_eq!(publish(&server, BODY).status, 200);
    }
    assert_eq!(buffered(&server, "c").data().len(), 2);
    assert_eq!(get(&server, &poll("none", 0, "")).status, 204);
    assert_eq!(get(&server, "/events").status, 400);
    assert_eq!(get(&server, "/nowhere").status, 404);
    let _parked = parked_polls(&server, 3);
    let statistics = server.statistics();
    assert_eq!((statistics.published, statistics.pushed_out), (3, 1));
    assert_eq!((statistics.delivered, statistics.gaps), (2, 1));
    assert_eq!((statistics.timed_out, statistics.refused), (1, 2));
    assert_eq!((statistics.parked, statistics.categories), (3, 1));
    assert_eq!((statistics.events, statistics.store.written), (2, 0));
}

#[test]
fn two_hundred_parked_subscribers_leave_room_for_publishes() {
    let server = server();
    let mut parked = parked_polls(&server, 200);
    let mut publisher = Connection::to(&server);
    let began = Instant::now();
    for _ in 0..50 {
        publisher.publish(r#"{"category":"other","data":1}"#);
        assert_eq!(publisher.receive().status, 200);
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    publisher.publish(BODY);
    assert_eq!(publisher.receive().status, 200);
    for connection in &mut parked {
        assert_eq!(connection.receive().data(), [1]);
    }
}

#[test]
fn a_burst_of_connections_is_answered_to_the_last() {
    let server = server();
    let mut burst: Vec<Connection> = (0..300).map(|_| Connection::to(&server)).collect();
    for connection in &mut burst {
        connection.publish(BODY);
    }
    for connection in &mut burst {
        assert_eq!(connection.receive().status, 200);
    }
    assert_eq!(server.statistics().published, 300);
    // And with all of them parked.
    for connection in &mut burst {
        connection.ask("GET", &poll("d", 60, ""));
    }
    until_parked(&server, 300);
    server.publish("d", "to all").unwrap();
    for connection in &mut burst {
        assert_eq!(connection.receive().data(), ["to all"]);
    }
}

#[test]
fn a_silent_connection_is_closed() {
    let second = Duration::from_secs(1);
    let mut info = info().timeout(second).idle_timeout(second);
    if IS_NATIVE {
        info = info.head_timeout(second).body_timeout(second);
    }
    let server = start(info);
    let mut silent = Connection::to(&server);
    let mut half = Connection::to(&server);
    half.send("POST /publish HTTP/1.1\r\nContent-Le");
    let mut body = Connection::to(&server);
    body.send("POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 5000\r\n\r\n{");
    for connection in [&mut silent, &mut half] {
        if let Some(answer) = connection.next_or_end() {
            assert_eq!(answer.status, 408);
            assert!(connection.is_over());
        }
    }
    if let Some(answer) = body.next_or_end() {
        assert!(matches!(answer.status, 400 | 408), "{answer:?}");
        assert!(body.is_over());
    }
    assert_eq!(publish(&server, BODY).status, 200);
    assert_eq!(server.statistics().published, 1);
}
