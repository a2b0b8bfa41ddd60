//! `Subscriber` and `Publisher` against this crate's server.

use crate::support;

use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use long_polling::server::{Handler, TimeoutAnswer};
use long_polling::{
    BrokerOptions, Credentials, Cursor, ErrorKind, Event, EventId, FilePersistorInfo, Publisher,
    Server, Subscriber,
};
use support::{LIMIT, info, server, start, until, until_parked};

fn url(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.local_addr())
}

/// A subscriber with a short backoff.
fn subscriber(server: &Server, categories: &[&str]) -> Subscriber {
    Subscriber::new(url(server, "/events"), categories)
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
}

fn publisher(server: &Server) -> Publisher {
    Publisher::new(url(server, "/publish"))
}

fn next(subscriber: &mut Subscriber) -> Event {
    let next = subscriber.next().expect("an event, not the end");
    next.expect("an event, not an error")
}

fn text(subscriber: &mut Subscriber) -> String {
    next(subscriber).text().into_owned()
}

#[test]
fn a_subscriber_starts_now_with_the_oldest_or_after_an_id() {
    let server = server();
    let publisher = publisher(&server);
    let first = publisher.publish("c", "first").unwrap().id.unwrap();
    let mut oldest = subscriber(&server, &["c"]).start_at(Cursor::Oldest);
    let event = next(&mut oldest);
    assert_eq!((event.text(), event.id()), ("first".into(), first));
    publisher.publish("c", "second").unwrap();
    let id = Cursor::LastId(first);
    assert_eq!(
        text(&mut subscriber(&server, &["c"]).start_at(id)),
        "second"
    );
    assert_eq!(text(&mut oldest), "second");

    let mut now = subscriber(&server, &["c"]);
    thread::scope(|scope| {
        let third = scope.spawn(|| text(&mut now));
        until_parked(&server, 1);
        publisher.publish("c", "third").unwrap();
        assert_eq!(third.join().unwrap(), "third");
    });
    // With a position it misses no event between two polls.
    publisher.publish("c", "fourth").unwrap();
    assert_eq!(text(&mut now), "fourth");
}

#[test]
fn several_categories_come_in_publish_order() {
    let server = server();
    let publisher = publisher(&server);
    for number in 0..30 {
        let category = ["a b", "ü", "other"][number % 3];
        publisher.publish(category, &number).unwrap();
    }
    let subscriber = subscriber(&server, &["ü", "a b"]).start_at(Cursor::Oldest);
    let numbers: Vec<usize> = subscriber
        .take(20)
        .map(|event| event.unwrap().decode().unwrap())
        .collect();
    let expected: Vec<usize> = (0..30).filter(|number| number % 3 != 2).collect();
    assert_eq!(numbers, expected);
}

/// Publishes numbers in process and over HTTP while followers read. Each follower reads all of them once and in order.
#[test]
fn followers_read_every_event_once_and_in_order() {
    for timeout_answer in [TimeoutAnswer::NoContent, TimeoutAnswer::Golongpoll] {
        let server = start(info().timeout_answer(timeout_answer));
        thread::scope(|scope| {
            let followers: Vec<_> = (0..4)
                .map(|_| {
                    let subscriber = subscriber(&server, &["c"]).start_at(Cursor::Oldest);
                    scope.spawn(move || {
                        let events = subscriber.take(200).map(|event| event.unwrap());
                        events
                            .map(|event| event.decode().unwrap())
                            .collect::<Vec<usize>>()
                    })
                })
                .collect();
            let publisher = publisher(&server);
            for number in 0..200 {
                if number % 2 == 0 {
                    server.publish("c", &number).unwrap();
                } else {
                    publisher.publish("c", &number).unwrap();
                }
            }
            for follower in followers {
                let seen = follower.join().unwrap();
                assert_eq!(seen, (0..200).collect::<Vec<_>>());
            }
        });
    }
}

#[test]
fn restarts_with_a_file_neither_lose_nor_repeat_events() {
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("events.db"));
    let mut server = Server::start(info().file(file.clone())).unwrap();
    let same_port = info().address(server.local_addr().to_string());
    let (events, seen) = mpsc::channel();
    let follower = subscriber(&server, &["c"]).start_at(Cursor::Oldest);
    let stopper = follower.stopper();
    let thread = thread::spawn(move || {
        for event in follower {
            events
                .send(event.map(|event| event.decode::<u32>()))
                .unwrap();
        }
    });
    for run in 0..4 {
        for number in 0..10 {
            // The follower waits during some publishes and receives during others. The last come just before the stop.
            server.publish("c", &(run * 10 + number)).unwrap();
        }
        server.stop(LIMIT).unwrap();
        server = Server::start(same_port.clone().file(file.clone())).unwrap();
        let published = server.publish("other", &run);
        assert!(published.is_ok());
    }
    for expected in 0..40 {
        let number = seen.recv_timeout(LIMIT).expect("an event");
        assert_eq!(number.expect("no gap").unwrap(), expected);
    }
    stopper.stop();
    thread.join().unwrap();
    assert!(seen.try_recv().is_err());
}

#[test]
fn a_publisher_with_connections_to_a_stopped_server_reaches_the_next_one() {
    const CONNECTIONS: usize = 5;
    let all_at_once = Arc::new(Barrier::new(CONNECTIONS));
    let server = start(info().before_publish(Handler::new(move |_| {
        all_at_once.wait();
        Ok(())
    })));
    let publisher = publisher(&server);
    thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let publisher = &publisher;
            scope.spawn(move || publisher.publish("c", &number).unwrap());
        }
    });
    server.stop(LIMIT).unwrap();
    let next = start(info().address(server.local_addr().to_string()));
    // The connections to the stopped server are still open.
    for number in 0..CONNECTIONS {
        publisher.publish("c", &number).unwrap();
    }
    assert_eq!(next.statistics().published, CONNECTIONS as u64);
}

#[test]
fn a_restart_without_a_file_is_a_gap() {
    let server = server();
    server.publish("c", "before").unwrap();
    let mut follower = subscriber(&server, &["c"]).start_at(Cursor::Oldest);
    assert_eq!(text(&mut follower), "before");
    let again = info().address(server.local_addr().to_string());
    server.stop(LIMIT).unwrap();
    let server = start(again);
    server.publish("c", "after").unwrap();
    let gap = follower.next().unwrap().unwrap_err();
    assert!(gap.is_gap(), "{gap}");
    assert_eq!(text(&mut follower), "after");
    // There is no second gap.
    server.publish("c", "later").unwrap();
    assert_eq!(text(&mut follower), "later");
}

#[test]
fn evicted_events_are_one_gap() {
    let server = start(info().broker(BrokerOptions::new().events_per_category(5)));
    let first = server.publish("c", &0).unwrap();
    for number in 1..=10 {
        server.publish("c", &number).unwrap();
    }
    let mut follower = subscriber(&server, &["c"]).start_at(Cursor::LastId(first));
    let gap = follower.next().unwrap().unwrap_err();
    assert_eq!(gap.kind(), ErrorKind::Gap);
    assert_eq!(follower.position(), Some(first));
    for number in 6..=10 {
        assert_eq!(next(&mut follower).decode::<u32>().unwrap(), number);
    }
    server.publish("c", &11).unwrap();
    assert_eq!(next(&mut follower).decode::<u32>().unwrap(), 11);
    // A subscriber that starts at the oldest event gets no gap before it.
    let mut oldest = subscriber(&server, &["c"]).start_at(Cursor::Oldest);
    assert_eq!(next(&mut oldest).decode::<u32>().unwrap(), 7);
}

#[test]
fn another_subscriber_continues_from_a_saved_position() {
    let server = server();
    let mut positions: Vec<EventId> = Vec::new();
    for round in 0..3 {
        server.publish("c", &round).unwrap();
        let from = positions
            .last()
            .map_or(Cursor::Oldest, |id| Cursor::LastId(*id));
        let mut follower = subscriber(&server, &["c"]).start_at(from);
        assert_eq!(next(&mut follower).decode::<u32>().unwrap(), round);
        positions.push(follower.position().unwrap());
    }
    assert!(positions.is_sorted());
}

#[test]
fn a_server_with_authentication_requires_credentials() {
    let server = start(
        info()
            .before_subscription(Handler::basic_auth("alice", "secret"))
            .before_publish(Handler::bearer_token("token")),
    );
    let error = publisher(&server).publish("c", "x").unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::Refused, Some(401))
    );
    let bearer = Credentials::bearer("token");
    let response = publisher(&server).credentials(bearer).publish("c", "x");
    assert!(response.unwrap().success());

    let wrong = Credentials::basic("alice", "wrong");
    let mut follower = subscriber(&server, &["c"])
        .start_at(Cursor::Oldest)
        .credentials(wrong);
    let error = follower.next().unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::Refused, Some(401))
    );
    assert!(follower.next().is_none());
    let right = Credentials::basic("alice", "secret");
    let mut follower = subscriber(&server, &["c"])
        .start_at(Cursor::Oldest)
        .credentials(right);
    assert_eq!(text(&mut follower), "x");
}

#[test]
fn a_subscriber_stops_promptly_while_its_poll_is_parked() {
    let server = server();
    let times = [(); 3].map(|()| {
        let mut follower = subscriber(&server, &["c"]);
        let stopper = follower.stopper();
        thread::scope(|scope| {
            let waiting = scope.spawn(move || {
                let ended = follower.next().is_none();
                (ended, Instant::now())
            });
            until_parked(&server, 1);
            let began = Instant::now();
            stopper.stop();
            let (ended, at) = waiting.join().unwrap();
            assert!(ended);
            until_parked(&server, 0);
            at.saturating_duration_since(began)
        })
    });
    // The documentation promises 100 ms; other tests may keep the machine busy for longer, but not three times.
    let is_prompt = times.iter().any(|time| *time < Duration::from_millis(200));
    assert!(is_prompt, "{times:?}");
}

#[test]
fn deletion_after_retrieval_is_not_a_gap() {
    let server = start(info().broker(BrokerOptions::new().delete_after_first_retrieval(true)));
    let publisher = publisher(&server);
    let mut follower = subscriber(&server, &["c"]).start_at(Cursor::Oldest);
    for round in 0..5 {
        for number in 0..3 {
            publisher.publish("c", &(round * 3 + number)).unwrap();
        }
        for number in 0..3 {
            let event = next(&mut follower);
            assert_eq!(event.decode::<u32>().unwrap(), round * 3 + number);
        }
        assert_eq!(server.statistics().events, 0);
    }
}

#[test]
fn polls_that_time_out_keep_the_position() {
    let server = server();
    let mut follower = subscriber(&server, &["c"]).timeout(Duration::from_secs(1));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| text(&mut follower));
        until("one poll timed out", || server.statistics().timed_out >= 1);
        // The subscriber may be between two polls.
        server.publish("c", "x").unwrap();
        assert_eq!(waiting.join().unwrap(), "x");
    });
    assert_eq!(server.statistics().gaps, 0);
}
