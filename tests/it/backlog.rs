//! Backlogs larger than one answer: the number of round trips, and that every event comes once and in order.

use crate::support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use long_polling::server::Handler;
use long_polling::testing::{self, ManualClock};
use long_polling::{
    Batch, Broker, BrokerOptions, Cursor, ErrorKind, EventId, FilePersistorInfo, Server, Subscriber,
};
use support::{Connection, LIMIT, ask, get, info, poll, start, until};

const NAMES: [&str; 3] = ["x", "y", "z"];
const START: u64 = 1_700_000_000_000;
/// Bytes of JSON of an event of a category with one letter and a number of three digits.
const SIZE: usize = 97;

/// A batch has at most `count` events of `SIZE` bytes.
fn of_events(count: usize) -> BrokerOptions {
    BrokerOptions::new().max_batch_size(count * (SIZE + 1))
}

fn deleting(count: usize) -> BrokerOptions {
    of_events(count).delete_after_first_retrieval(true)
}

fn serving(broker: BrokerOptions) -> Server {
    start(info().broker(broker))
}

/// Publishes the numbers from 100 on, in one category after the other. Returns the position before the first event, and
/// all ids.
fn publish(broker: &Broker, count: usize) -> (EventId, Vec<EventId>) {
    let before = broker.subscribe(NAMES, Cursor::Now, Duration::ZERO);
    let ids = (0..count).map(|number| {
        let id = broker.publish(NAMES[number % 3], &(100 + number));
        id.unwrap()
    });
    (before.unwrap().last_id(), ids.collect())
}

fn ids(batch: &Batch) -> Vec<EventId> {
    batch.events().iter().map(|event| event.id()).collect()
}

fn numbers(batch: &Batch) -> Vec<usize> {
    let numbers = batch.events().iter().map(|event| event.decode().unwrap());
    numbers.collect()
}

/// The number of events of each poll, going on from batch to batch by `next`, until there are none.
fn counts(broker: &Broker, mut cursor: Cursor, next: fn(&Batch) -> Cursor) -> Vec<usize> {
    let mut counts = Vec::new();
    loop {
        let batch = broker.subscribe(NAMES, cursor, Duration::ZERO).unwrap();
        assert!(!batch.gap());
        if batch.events().is_empty() {
            return counts;
        }
        counts.push(batch.events().len());
        cursor = next(&batch);
    }
}

fn by_id(batch: &Batch) -> Cursor {
    Cursor::LastId(batch.last_id())
}

fn by_time(batch: &Batch) -> Cursor {
    Cursor::SinceTime(batch.events().last().unwrap().timestamp())
}

#[test]
fn in_process_a_backlog_comes_in_as_many_batches_as_it_needs_and_no_more() {
    let broker = Broker::new(of_events(12)).unwrap();
    let (before, published) = publish(&broker, 100);
    let (mut seen, mut cursor) = (Vec::new(), Cursor::LastId(before));
    for round in 1..=9 {
        let batch = broker.subscribe(NAMES, cursor, Duration::ZERO).unwrap();
        assert_eq!(batch.events().len(), if round < 9 { 12 } else { 4 });
        assert!(!batch.gap());
        assert_eq!(Some(&batch.last_id()), ids(&batch).last());
        seen.extend(ids(&batch));
        cursor = by_id(&batch);
    }
    assert_eq!(seen, published);
    let batch = broker.subscribe(NAMES, cursor, Duration::ZERO).unwrap();
    assert!(batch.events().is_empty());
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
fn an_event_larger_than_a_batch_comes_alone() {
    let broker = Broker::new(of_events(3)).unwrap();
    let large = "x".repeat(10 * SIZE);
    let (before, _) = publish(&broker, 2);
    broker.publish("z", &large).unwrap();
    broker.publish("x", &large).unwrap();
    publish(&broker, 2);
    let counts = counts(&broker, Cursor::LastId(before), by_id);
    assert_eq!(counts, [2, 1, 1, 2]);
}

#[test]
fn a_follower_by_time_alone_gets_whole_milliseconds() {
    let clock = ManualClock::at(START);
    let broker = testing::broker(of_events(7), &clock).unwrap();
    let mut before = None;
    for count in [5, 5, 12, 1, 1, 5] {
        before = before.or(Some(publish(&broker, count).0));
        clock.advance(Duration::from_millis(1));
    }
    for start in [Cursor::Oldest, Cursor::SinceTime(START - 1)] {
        // What does not fit into an answer is stamped a millisecond later.
        assert_eq!(counts(&broker, start, by_time), [5, 5, 7, 7, 5]);
        // By the id, only the first poll returns whole milliseconds.
        assert_eq!(counts(&broker, start, by_id), [5, 7, 7, 7, 3]);
    }
    let unknown = EventId::from(7);
    let start = Cursor::LastIdOrSinceTime(unknown, START - 1);
    assert_eq!(counts(&broker, start, by_time), [5, 5, 7, 7, 5]);
    let start = Cursor::LastId(before.unwrap());
    assert_eq!(counts(&broker, start, by_id), [7, 7, 7, 7, 1]);
    // A limit cuts where it says.
    for limit in [3, 7, 100] {
        let batch = broker.subscribe_up_to(limit, NAMES, Cursor::Oldest, Duration::ZERO);
        assert_eq!(batch.unwrap().events().len(), limit.min(7));
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
fn only_delivered_events_are_deleted_and_the_rest_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("events.db"));
    let broker = Broker::open(deleting(7), file.clone()).unwrap();
    let (before, published) = publish(&broker, 30);
    let after = Cursor::LastId(before);
    let some = broker.subscribe(NAMES, after, Duration::ZERO).unwrap();
    assert_eq!(numbers(&some), (100..107).collect::<Vec<_>>());
    let of_two = broker.subscribe_up_to(2, ["x", "z"], by_id(&some), Duration::ZERO);
    assert_eq!(numbers(&of_two.unwrap()), [108, 109]);
    let after = Cursor::LastId(published[10]);
    let from_the_middle = broker.subscribe_up_to(1, "y", after, Duration::ZERO);
    assert_eq!(numbers(&from_the_middle.unwrap()), [113]);
    assert_eq!(broker.statistics().events, 20);
    broker.stop(LIMIT).unwrap();

    let broker = Broker::open(deleting(7), file).unwrap();
    let mut rest = Vec::new();
    let mut cursor = Cursor::LastId(before);
    for _ in 0..3 {
        let batch = broker.subscribe(NAMES, cursor, Duration::ZERO).unwrap();
        assert!(!batch.gap());
        rest.extend(numbers(&batch));
        cursor = by_id(&batch);
    }
    let left = |number: &usize| ![108, 109, 113].contains(number);
    assert_eq!(rest, (107..130).filter(left).collect::<Vec<_>>());
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

#[test]
fn an_event_that_a_killed_run_may_have_lost_is_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let [file, copy] = ["events.db", "copy.db"].map(|name| folder.path().join(name));
    let broker = Broker::open(
        of_events(2),
        FilePersistorInfo::new(&file).write_buffer_size(0),
    )
    .unwrap();
    let (_, published) = publish(&broker, 4);
    until("written", || broker.statistics().store.pending == 0);
    // As a kill would leave it.
    std::fs::copy(&file, &copy).unwrap();
    let broker = Broker::open(of_events(2), FilePersistorInfo::new(&copy)).unwrap();
    let look = |cursor| broker.subscribe(NAMES, cursor, Duration::ZERO).unwrap();
    let cut_off = look(Cursor::LastId(published[0]));
    assert_eq!(
        (ids(&cut_off), cut_off.gap()),
        (published[1..3].to_vec(), true)
    );
    // The lost event may have come before the rest, and also after it.
    let rest = look(by_id(&cut_off));
    assert_eq!((ids(&rest), rest.gap()), (published[3..].to_vec(), true));
    assert!(rest.last_id() > published[3]);
    let nothing = look(by_id(&rest));
    assert!(nothing.events().is_empty() && !nothing.gap());
}
