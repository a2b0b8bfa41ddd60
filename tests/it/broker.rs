//! The broker alone: publishing, waiting, cursors, limits, without HTTP.

use std::thread;
use std::time::Duration;

use crate::support::{LIMIT, until};
use long_polling::{Batch, Broker, BrokerOptions, Cursor, ErrorKind, EventId};

fn broker(options: BrokerOptions) -> Broker {
    Broker::new(options).unwrap()
}

fn default() -> Broker {
    broker(BrokerOptions::default())
}

fn texts(batch: &Batch) -> Vec<String> {
    batch
        .events()
        .iter()
        .map(|event| event.text().into_owned())
        .collect()
}

fn now(broker: &Broker, category: &str, cursor: Cursor) -> Vec<String> {
    texts(&broker.subscribe(category, cursor, Duration::ZERO).unwrap())
}

#[test]
fn a_subscriber_sees_what_comes_after_its_cursor_and_nothing_else() {
    let broker = default();
    let first = broker.publish("a", "1").unwrap();
    broker.publish("b", "other").unwrap();
    let second = broker.publish("a", "2").unwrap();
    assert!(first < second);
    assert_eq!(now(&broker, "a", Cursor::Oldest), ["1", "2"]);
    assert_eq!(now(&broker, "a", Cursor::LastId(first)), ["2"]);
    assert!(now(&broker, "a", Cursor::LastId(second)).is_empty());
    assert!(now(&broker, "a", Cursor::Now).is_empty());
    let time = broker
        .subscribe("a", Cursor::Oldest, Duration::ZERO)
        .unwrap()
        .events()[1]
        .timestamp();
    assert!(now(&broker, "a", Cursor::SinceTime(time)).is_empty());
    assert_eq!(
        now(&broker, "a", Cursor::LastIdOrSinceTime(first, time)),
        ["2"]
    );
    let unknown = EventId::from(7);
    assert!(now(&broker, "a", Cursor::LastIdOrSinceTime(unknown, time)).is_empty());
    let everything = broker
        .subscribe("a", Cursor::LastId(unknown), Duration::ZERO)
        .unwrap();
    assert_eq!((texts(&everything).len(), everything.gap()), (2, true));
}

#[test]
fn a_parked_subscriber_is_woken_by_its_category_only() {
    let broker = default();
    let follower = broker.clone();
    let thread = thread::spawn(move || follower.subscribe("mine", Cursor::Now, LIMIT).unwrap());
    until("parked", || broker.statistics().parked == 1);
    broker.publish("other", "no").unwrap();
    let id = broker.publish("mine", "yes").unwrap();
    let batch = thread.join().unwrap();
    assert_eq!(texts(&batch), ["yes"]);
    assert_eq!((batch.last_id(), batch.gap()), (id, false));
    until("gone", || broker.statistics().parked == 0);
}

#[test]
fn a_poll_that_times_out_returns_a_position_that_misses_nothing() {
    let broker = default();
    let batch = broker
        .subscribe("a", Cursor::Now, Duration::from_millis(20))
        .unwrap();
    assert!(batch.events().is_empty() && !batch.gap());
    broker.publish("a", "between two polls").unwrap();
    assert_eq!(
        now(&broker, "a", Cursor::LastId(batch.last_id())),
        ["between two polls"]
    );
    assert_eq!(broker.statistics().timed_out, 1);
}

#[test]
fn several_categories_are_followed_by_one_position_in_publish_order() {
    let broker = default();
    let names = ["x", "y", "z"];
    for number in 0..9 {
        broker.publish(names[number % 3], &number).unwrap();
    }
    let batch = broker
        .subscribe(["z", "x"], Cursor::Oldest, Duration::ZERO)
        .unwrap();
    assert_eq!(texts(&batch), ["0", "2", "3", "5", "6", "8"]);
    let rest = broker
        .subscribe(
            ["x", "y"],
            Cursor::LastId(batch.events()[2].id()),
            Duration::ZERO,
        )
        .unwrap();
    assert_eq!(texts(&rest), ["4", "6", "7"]);
    let follower = broker.clone();
    let thread = thread::spawn(move || follower.subscribe(names, Cursor::Now, LIMIT).unwrap());
    until("parked", || broker.statistics().parked == 1);
    broker.publish("y", "woken").unwrap();
    let batch = thread.join().unwrap();
    assert_eq!(
        (texts(&batch), batch.events()[0].category()),
        (vec!["woken".to_string()], "y")
    );
}

#[test]
fn followers_of_several_busy_categories_see_every_event_once_and_in_order() {
    let broker = broker(BrokerOptions::new().events_per_category(100_000));
    let names = ["p", "q", "r"];
    const EACH: u64 = 2_000;
    let followers: Vec<_> = (0..3)
        .map(|_| {
            let broker = broker.clone();
            thread::spawn(move || {
                let (mut cursor, mut seen, mut last) = (Cursor::Oldest, [0u64; 3], None);
                while seen != [EACH; 3] {
                    let batch = broker.subscribe(names, cursor, LIMIT).unwrap();
                    assert!(!batch.events().is_empty(), "lost: {seen:?}");
                    assert!(!batch.gap());
                    for event in &*batch {
                        assert!(last < Some(event.id()));
                        last = Some(event.id());
                        let of = names
                            .iter()
                            .position(|name| *name == event.category())
                            .unwrap();
                        assert_eq!(event.decode::<u64>().unwrap(), seen[of]);
                        seen[of] += 1;
                    }
                    cursor = Cursor::LastId(batch.last_id());
                }
            })
        })
        .collect();
    let publishers: Vec<_> = names
        .map(|name| {
            let broker = broker.clone();
            thread::spawn(move || {
                for number in 0..EACH {
                    broker.publish(name, &number).unwrap();
                }
            })
        })
        .into();
    publishers
        .into_iter()
        .chain(followers)
        .for_each(|thread| thread.join().unwrap());
}

#[test]
fn events_pushed_out_of_the_ring_are_a_gap() {
    let broker = broker(BrokerOptions::new().events_per_category(2));
    let ids: Vec<EventId> = (0..4)
        .map(|number| broker.publish("a", &number).unwrap())
        .collect();
    let gap = |cursor| broker.subscribe("a", cursor, Duration::ZERO).unwrap().gap();
    assert!(gap(Cursor::LastId(ids[0])));
    assert!(!gap(Cursor::LastId(ids[1])));
    assert!(!gap(Cursor::LastId(ids[3])));
    assert!(!gap(Cursor::Oldest));
    assert!(gap(Cursor::SinceTime(1)));
    assert_eq!(broker.statistics().pushed_out, 2);
}

#[test]
fn a_gap_is_reported_with_the_next_event() {
    let broker = broker(BrokerOptions::new().events_per_category(1));
    let unknown: EventId = "00000000-0000-8000-8000-000000000001".parse().unwrap();
    let follower = broker.clone();
    let thread = thread::spawn(move || {
        follower
            .subscribe("a", Cursor::LastId(unknown), LIMIT)
            .unwrap()
    });
    until("parked", || broker.statistics().parked == 1);
    broker.publish("a", "x").unwrap();
    let batch = thread.join().unwrap();
    assert_eq!((texts(&batch), batch.gap()), (vec!["x".to_string()], true));
}

#[test]
fn deleted_after_first_retrieval_an_event_goes_to_all_parked_or_else_to_the_first_poll() {
    let broker = broker(BrokerOptions::new().delete_after_first_retrieval(true));
    broker.publish("a", "kept until fetched").unwrap();
    assert_eq!(now(&broker, "a", Cursor::Oldest), ["kept until fetched"]);
    assert!(now(&broker, "a", Cursor::Oldest).is_empty());
    let threads: Vec<_> = (0..3)
        .map(|number| {
            let follower = broker.clone();
            let names = if number == 0 {
                vec!["a", "b"]
            } else {
                vec!["a"]
            };
            thread::spawn(move || texts(&follower.subscribe(names, Cursor::Now, LIMIT).unwrap()))
        })
        .collect();
    until("parked", || broker.statistics().parked == 3);
    let id = broker.publish("a", "to all").unwrap();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), ["to all"]);
    }
    let batch = broker
        .subscribe("a", Cursor::Oldest, Duration::ZERO)
        .unwrap();
    assert!(batch.events().is_empty() && !batch.gap());
    assert!(
        !broker
            .subscribe("a", Cursor::LastId(id), Duration::ZERO)
            .unwrap()
            .gap()
    );
    assert_eq!(
        (broker.statistics().events, broker.statistics().categories),
        (0, 0)
    );
}

#[test]
fn categories_without_events_and_subscribers_are_removed() {
    let broker = default();
    for number in 0..1000 {
        assert!(now(&broker, &format!("stranger {number}"), Cursor::Now).is_empty());
        broker
            .subscribe(
                format!("stranger {number}"),
                Cursor::Now,
                Duration::from_nanos(1),
            )
            .unwrap();
    }
    assert_eq!(broker.statistics().categories, 0);
}

#[test]
fn past_the_limit_of_parked_subscribers_the_longest_parked_is_answered_early() {
    let broker = broker(BrokerOptions::new().max_parked(2));
    let park = |name: &'static str| {
        let follower = broker.clone();
        thread::spawn(move || follower.subscribe(name, Cursor::Now, LIMIT).unwrap())
    };
    let oldest = park("a");
    until("parked", || broker.statistics().parked == 1);
    let second = park("a");
    until("parked", || broker.statistics().parked == 2);
    let third = park("a");
    assert!(oldest.join().unwrap().events().is_empty());
    until("parked", || broker.statistics().parked == 2);
    broker.publish("a", "x").unwrap();
    assert_eq!(texts(&second.join().unwrap()), ["x"]);
    assert_eq!(texts(&third.join().unwrap()), ["x"]);
}

#[test]
fn a_refused_event_is_not_published() {
    let broker = broker(BrokerOptions::new().max_event_size(10));
    for (category, data, kind) in [
        ("", "x", ErrorKind::InvalidRequest),
        (&"é".repeat(513), "x", ErrorKind::InvalidRequest),
        ("a", "123456789", ErrorKind::TooLarge),
    ] {
        assert_eq!(broker.publish(category, data).unwrap_err().kind(), kind);
    }
    assert_eq!(
        broker.publish("a", &None::<u8>).unwrap_err().kind(),
        ErrorKind::InvalidRequest
    );
    broker.publish("a", "12345678").unwrap();
    let none: [&str; 0] = [];
    assert_eq!(
        broker
            .subscribe(none, Cursor::Now, LIMIT)
            .unwrap_err()
            .kind(),
        ErrorKind::InvalidRequest
    );
    let statistics = broker.statistics();
    assert_eq!(
        (statistics.published, statistics.events, statistics.refused),
        (1, 1, 5)
    );
}

#[test]
fn a_stopped_broker_answers_parked_subscribers_and_refuses_later_calls() {
    let broker = default();
    let follower = broker.clone();
    let thread = thread::spawn(move || follower.subscribe("a", Cursor::Now, LIMIT).unwrap());
    until("parked", || broker.statistics().parked == 1);
    broker.stop(LIMIT).unwrap();
    broker.stop(LIMIT).unwrap();
    assert!(thread.join().unwrap().events().is_empty());
    assert_eq!(
        broker.publish("a", "x").unwrap_err().kind(),
        ErrorKind::Stopped
    );
    assert_eq!(
        broker
            .subscribe("a", Cursor::Oldest, LIMIT)
            .unwrap_err()
            .kind(),
        ErrorKind::Stopped
    );
}

#[test]
fn an_invalid_option_is_named_by_the_error() {
    let zero = |change: fn(BrokerOptions) -> BrokerOptions| {
        let options = change(BrokerOptions::new());
        Broker::new(options).unwrap_err().to_string()
    };
    assert!(zero(|options| options.events_per_category(0)).starts_with("events_per_category"));
    assert!(zero(|options| options.max_parked(0)).starts_with("max_parked"));
    assert!(zero(|options| options.max_categories(0)).starts_with("max_categories"));
    assert!(zero(|options| options.max_event_size(0)).starts_with("max_event_size"));
    assert!(zero(|options| options.max_batch_size(0)).starts_with("max_batch_size"));
    let too_few = zero(|options| options.max_event_size(100).max_event_bytes(99));
    assert!(too_few.starts_with("max_event_bytes") && too_few.contains("max_event_size"));
    assert!(zero(|options| options.event_ttl(Duration::ZERO)).starts_with("event_ttl"));
}
