//! How connections end: when clients hang up or do not read, and at a stop.

use std::io::{ErrorKind, Read};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use socket2::{Domain, SockRef, Socket, Type};

use super::{Client, LIMIT, POLL, PUBLISH, connections, info, pair, start, until};
use crate::server::native::connection::{Connection, State};
use crate::server::native::stream::TimedStream;
use crate::server::{Request, Response};

#[test]
fn a_client_that_hangs_up_while_its_poll_is_parked_is_noticed_within_two_seconds() {
    let server = start(info());
    // A category to which nothing is published: a publish behind a poll is served after the client has gone.
    let poll = POLL.replace("category=c", "category=silent");
    for rest in ["", PUBLISH, "GET / HT"] {
        // A machine that is busy with other tests may take longer, but not three times.
        let is_noticed = (0..3).any(|_| {
            let mut client = Client::of(&server);
            client.send(format!("{poll}{rest}"));
            until("parked", || server.statistics().parked == 1);
            let began = Instant::now();
            drop(client);
            until("gone", || server.statistics().parked == 0);
            began.elapsed() < Duration::from_secs(2)
        });
        assert!(is_noticed, "late three times, after {rest:?}");
    }
    // The thread and the descriptor are back.
    until("closed", || connections(&server).join(Instant::now()));
}

#[test]
fn a_client_that_reads_little_by_little_is_given_up_after_the_time_for_the_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    let address = listener.local_addr().unwrap();
    client.connect(&address.into()).unwrap();
    let (stream, peer) = listener.accept().unwrap();
    SockRef::from(&stream).set_send_buffer_size(4096).unwrap();
    let time = Duration::from_millis(600);
    let connection = Connection::new(stream.into(), Some(peer)).unwrap();
    // The client reads a piece at a time until the connection has ended.
    let (ended, end) = bounded::<()>(0);
    let reader = thread::spawn(move || {
        let mut piece = [0; 500];
        let pace = Duration::from_millis(40);
        while (&client).read(&mut piece).is_ok_and(|count| count > 0)
            && end.recv_timeout(pace) == Err(RecvTimeoutError::Timeout)
        {}
    });
    let began = Instant::now();
    let mut stream = TimedStream::new(&connection.stream);
    let error = stream.send(&[b'x'; 60_000], time).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(
        began.elapsed() >= time && began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    drop((connection, ended));
    reader.join().unwrap();
}

#[test]
fn a_connection_that_is_ended_while_idle_serves_no_request_that_comes_in_that_instant() {
    let (stream, _client) = pair();
    let connection = Connection::new(stream.into(), None).unwrap();
    assert!(connection.enter(State::Receiving));
    assert!(!connection.end(false) && connection.idle_since().is_none());
    assert!(connection.enter(State::Idle(Instant::now())));
    assert!(connection.end(false));
    assert!(!connection.enter(State::Receiving) && !connection.end(true));
}

#[test]
fn a_refused_client_that_goes_on_sending_gets_the_answer() {
    let server = start(info());
    let mut client = Client::of(&server);
    client.send("POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 20000000\r\n\r\n");
    client.send("x".repeat(20_000_000));
    let answer = client.receive();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(client.is_over());
}

#[test]
fn a_stop_answers_parked_polls_and_ends_all_other_connections_at_once() {
    for _ in 0..10 {
        let server = start(info());
        let mut parked: Vec<Client> = (0..100).map(|_| Client::of(&server)).collect();
        parked.iter_mut().for_each(|client| client.send(POLL));
        let mut silent = Client::of(&server);
        let mut idle = Client::of(&server);
        idle.send(PUBLISH);
        // Some polls have it.
        assert_eq!(idle.status(), 200);
        let mut half_head = Client::of(&server);
        half_head.send("GET / HT");
        let mut half_body = Client::of(&server);
        half_body.send(&PUBLISH[..PUBLISH.len() - 1]);
        let connections = connections(&server);
        let is_receiving =
            || !connections.service.is_stopping() && server.statistics().published == 1;
        until("published", is_receiving);
        let began = Instant::now();
        server.stop(LIMIT).unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        for client in [&mut silent, &mut idle, &mut half_head, &mut half_body] {
            assert!(client.is_over());
        }
        assert_eq!(server.statistics().published, 1);
        // The port is free.
        TcpListener::bind(server.local_addr()).unwrap();
        // No thread holds anything of the server any more.
        assert_eq!(Arc::strong_count(connections), 1);
    }
}

#[test]
fn a_stop_lets_a_request_in_flight_finish_and_reports_one_that_does_not() {
    for finishes in [true, false] {
        // The hook reports that it runs, and ends when the sender is dropped.
        let ((running, runs), (release, released)) = (bounded(1), bounded::<()>(0));
        let server = start(info().fallback(move |_: &Request| {
            running.send(()).unwrap();
            let _ = released.recv_timeout(LIMIT);
            Response::text(200, "finished")
        }));
        let mut client = Client::of(&server);
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        runs.recv_timeout(LIMIT).unwrap();
        if finishes {
            thread::scope(|scope| {
                let stop = scope.spawn(|| server.stop(LIMIT));
                until("stopping", || connections(&server).service.is_stopping());
                drop(release);
                stop.join().unwrap().unwrap();
            });
        } else {
            let error = server.stop(Duration::from_millis(100)).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::StopTimeout);
            drop(release);
        }
        let answer = client.receive();
        assert!(
            answer.contains("Connection: close") && answer.ends_with("finished"),
            "{answer}"
        );
        assert!(client.is_over());
    }
}
