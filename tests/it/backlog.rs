//! Backlogs larger than one answer: the number of round trips, and that every event comes once and in order.

use crate::support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use long_polling::server::Handler;
use long_polling::{Broker, BrokerOptions, Cursor, ErrorKind, EventId, Server, Subscriber};
use support::{Connection, LIMIT, ask, get, info, poll, start};

pub(crate) const NAMES: [&str; 3] = ["x", "y", "z"];
/// Bytes of JSON of an event of a category with one letter and a number of three digits.
pub(crate) const SIZE: usize = 97;

/// A batch has at most `count` events of `SIZE` bytes.
pub(crate) fn of_events(count: usize) -> BrokerOptions {
    BrokerOptions::new().max_batch_size(count * (SIZE + 1))
}

pub(crate) fn deleting(count: usize) -> BrokerOptions {
    of_events(count).delete_after_first_retrieval(true)
}

fn serving(broker: BrokerOptions) -> Server {
    start(info().broker(broker))
}

/// Publishes the numbers from 100 on, in one category after the other. Returns the position before the first event, and
/// all ids.
pub(crate) fn publish(broker: &Broker, count: usize) -> (EventId, Vec<EventId>) {
    let before = broker.subscribe(NAMES, Cursor::Now, Duration::ZERO);
    let ids = (0..count).map(|number| {
        let id = broker.publish(NAMES[number % 3], &(100 + number));
        id.unwrap()
    });
    (before.unwrap().last_id(), ids.collect())
}

#[test]
fn over_http_a_backlog_comes_in_as_many_answers_as_it_needs_and_no_more() {
    let server = serving(of_events(12));
    let (before, published) = publish(server.broker(), 100);
    let mut connection = Connection::to(&server);
    let (mut seen, mut position) = (Vec::new(), before.to_string());
    for round in 1..=9 {
        let more = format!("&category=y&category=z&last_id={position}");
        connection.ask("GET", &poll("x", 60, &more));
        let answer = connection.receive();
        let count = if round < 9 { 12 } else { 4 };
        assert_eq!(
            answer.body.len(),
            r#"{"events":[]}"#.len() + count * (SIZE + 1) - 1
        );
        assert_eq!(Some(answer.position()), answer.ids().last().map(|id| &**id));
        seen.extend(answer.ids());
        position = answer.position().to_owned();
    }
    let published: Vec<String> = published.iter().map(EventId::to_string).collect();
    assert_eq!(seen, published);
}

#[test]
fn a_subscriber_fetches_a_backlog_in_as_many_polls_as_it_needs_and_no_more() {
    for (limit, polls) in [(None, 9), (Some(10), 10), (Some(50), 9)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let server = start(
            info()
                .broker(of_events(12))
                .before_subscription(Handler::new(move |_| {
                    count.fetch_add(1, SeqCst);
                    Ok(())
                })),
        );
        let (before, published) = publish(server.broker(), 100);
        let url = format!("http://{}/events", server.local_addr());
        let mut subscriber = Subscriber::new(url, NAMES).start_at(Cursor::LastId(before));
        if let Some(limit) = limit {
            subscriber = subscriber.limit(limit);
        }
        let seen: Vec<EventId> = subscriber
            .by_ref()
            .take(100)
            .map(|event| event.expect("no gap").id())
            .collect();
        assert_eq!(seen, published);
        assert_eq!(asked.load(SeqCst), polls);
        assert_eq!(subscriber.position(), published.last().copied());
    }
}

#[test]
fn a_limit_over_http_is_a_whole_number_of_events() {
    let server = serving(of_events(12));
    let (_, published) = publish(server.broker(), 30);
    let first = |more: &str| get(&server, &poll("x&category=y&category=z", 0, more));
    for (limit, count) in [
        ("1", 1),
        ("011", 11),
        ("12", 12),
        ("99999999999999999999", 12),
    ] {
        let answer = first(&format!("&since_time=1&limit={limit}"));
        assert_eq!(answer.ids().len(), count, "{limit}");
        assert_eq!(answer.position(), published[count - 1].to_string());
    }
    let all = first("&since_time=1");
    assert_eq!(first("&since_time=1&limit=").ids(), all.ids());
    let twice = first("&since_time=1&limit=2&limit=3");
    assert_eq!(twice.ids().len(), 2);
    let refused = server.statistics().refused;
    for wrong in ["0", "00", "-1", "1.5", "+1", "%201", "x", "1x", "%D9%A1"] {
        first(&format!("&since_time=1&limit={wrong}")).refuses(400, "limit");
    }
    assert_eq!(server.statistics().refused, refused + 9);
    let none = server
        .broker()
        .subscribe_up_to(0, NAMES, Cursor::Oldest, LIMIT);
    assert_eq!(none.unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[test]
fn a_work_queue_delivers_each_event_to_one_subscriber_and_loses_none() {
    let server = serving(deleting(12));
    let (_, published) = publish(server.broker(), 150);
    let target = poll("x&category=y&category=z", 0, "&since_time=1&limit=1");
    for _ in 0..3 {
        let head = ask(&server, "HEAD", &target);
        assert_eq!(head.position(), published[0].to_string());
    }
    assert_eq!(server.statistics().events, 150);
    let consume = || {
        let mut connection = Connection::to(&server);
        let mut consumed = Vec::new();
        loop {
            connection.ask("GET", &target);
            let answer = connection.receive();
            if answer.status == 204 {
                return consumed;
            }
            assert!(!answer.gap());
            assert_eq!(answer.ids().len(), 1);
            consumed.extend(answer.ids());
        }
    };
    let consumed = thread::scope(|scope| {
        let consumers = [scope.spawn(consume), scope.spawn(consume)];
        consumers.map(|consumer| consumer.join().unwrap())
    });
    assert!(consumed.iter().all(|consumed| consumed.is_sorted()));
    let all = consumed.concat();
    let different: BTreeSet<&String> = all.iter().collect();
    assert_eq!(all.len(), 150);
    assert!(
        different
            .into_iter()
            .eq(&published.iter().map(EventId::to_string).collect::<Vec<_>>())
    );
    let statistics = server.statistics();
    assert_eq!((statistics.events, statistics.event_bytes), (0, 0));
}

#[test]
fn subscribers_with_a_limit_of_1_share_the_events_of_a_work_queue() {
    let server = serving(deleting(12));
    publish(server.broker(), 20);
    let url = format!("http://{}/events", server.local_addr());
    let subscriber = || {
        let subscriber = Subscriber::new(&url, NAMES).start_at(Cursor::Oldest);
        // The client takes 0 for 1.
        subscriber.limit(0)
    };
    let (mut first, mut second) = (subscriber(), subscriber());
    for number in (100..120).step_by(2) {
        for (at, consumer) in [&mut first, &mut second].into_iter().enumerate() {
            let event = consumer.next().unwrap().expect("no gap");
            assert_eq!(event.decode::<usize>().unwrap(), number + at);
        }
    }
    assert_eq!(server.statistics().events, 0);
}

#[test]
fn events_lost_after_the_last_event_of_an_answer_are_one_gap() {
    let server = serving(deleting(12).events_per_category(1));
    let broker = server.broker();
    let (before, published) = publish(broker, 4);
    // Of x, the first was pushed out by the fourth, which is then consumed: y and z are what is left.
    broker
        .subscribe("x", Cursor::Oldest, Duration::ZERO)
        .unwrap();
    let url = format!("http://{}/events", server.local_addr());
    let mut subscriber = Subscriber::new(url, ["x", "y"]).start_at(Cursor::LastId(before));
    assert!(subscriber.next().unwrap().unwrap_err().is_gap());
    assert_eq!(subscriber.next().unwrap().unwrap().id(), published[1]);
    let next = broker.publish("y", "next").unwrap();
    assert_eq!(subscriber.next().unwrap().expect("no gap").id(), next);
}
