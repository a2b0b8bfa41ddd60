//! The events that a broker loses if it holds too many categories or bytes.

use std::thread;
use std::time::Duration;

use long_polling::{Broker, BrokerOptions, Cursor, FilePersistorInfo};

fn broker(options: BrokerOptions) -> Broker {
    Broker::new(options).unwrap()
}

fn now(broker: &Broker, category: &str, cursor: Cursor) -> Vec<String> {
    let batch = broker.subscribe(category, cursor, Duration::ZERO).unwrap();
    let texts = batch.events().iter().map(|event| event.text().into_owned());
    texts.collect()
}

#[test]
fn past_the_limit_of_categories_the_least_recently_published_lose_their_events() {
    let broker = broker(BrokerOptions::new().max_categories(100));
    let first = broker.publish("0", "x").unwrap();
    broker.publish("kept", "old").unwrap();
    for number in 1..1000 {
        broker.publish(&number.to_string(), "x").unwrap();
        broker.publish("kept", &number).unwrap();
    }
    let statistics = broker.statistics();
    assert!(statistics.categories <= 100, "{statistics:?}");
    assert!(statistics.evicted >= 900);
    assert_eq!(now(&broker, "kept", Cursor::Oldest).len(), 250);
    assert_eq!(now(&broker, "999", Cursor::Oldest), ["x"]);
    let zero = broker
        .subscribe("0", Cursor::SinceTime(1), Duration::ZERO)
        .unwrap();
    assert!(zero.events().is_empty() && zero.gap());
    assert!(
        !broker
            .subscribe("999", Cursor::LastId(first), Duration::ZERO)
            .unwrap()
            .events()
            .is_empty()
    );
}

#[test]
fn past_the_limit_of_bytes_the_least_recently_published_lose_their_oldest() {
    let data = "x".repeat(1000);
    let broker = broker(
        BrokerOptions::new()
            .max_event_size(2000)
            .max_event_bytes(32 * 1100),
    );
    let mut ids = Vec::new();
    for number in 0..32 {
        let name = ["a", "b"][number / 16];
        ids.push(broker.publish(name, &data).unwrap());
    }
    let held = broker.statistics();
    let one = held.event_bytes / 32;
    assert_eq!((held.events, held.evicted), (32, 0));
    assert!(one <= 1100);
    // One more is too many, if it is long enough: down to a sixteenth below the limit, and no further.
    let long = "x".repeat(1990);
    let last = broker.publish("c", &long).unwrap();
    let after = broker.statistics();
    let evicted = after.evicted as usize;
    assert_eq!(after.events + evicted, 33);
    assert!((29 * 1100..=30 * 1100).contains(&after.event_bytes));
    // All of them were the oldest of a, and a follower that has not seen the last of these gets a gap.
    let look = |name: &str, id| {
        let batch = broker.subscribe(name, Cursor::LastId(id), Duration::ZERO);
        let batch = batch.unwrap();
        (batch.events().len(), batch.gap())
    };
    assert_eq!(look("a", ids[evicted - 2]), (16 - evicted, true));
    assert_eq!(look("a", ids[evicted - 1]), (16 - evicted, false));
    assert_eq!(look("b", ids[0]), (16, false));
    assert_eq!(look("c", ids[0]), (1, false));
    assert!(!look("c", last).1);
}

#[test]
fn past_the_limit_of_bytes_a_category_alone_loses_its_oldest_and_never_its_newest() {
    let broker = broker(
        BrokerOptions::new()
            .max_event_size(1000)
            .max_event_bytes(1000),
    );
    for number in 0..100 {
        broker.publish("a", &number).unwrap();
        assert!(broker.statistics().event_bytes <= 1000);
    }
    assert_eq!(now(&broker, "a", Cursor::Oldest).last().unwrap(), "99");
    // With its category and id, it has more bytes than all events together may have.
    let largest = "x".repeat(998);
    broker.publish("a", &largest).unwrap();
    assert_eq!(now(&broker, "a", Cursor::Oldest), [&*largest]);
    broker.publish("b", "next").unwrap();
    assert!(now(&broker, "a", Cursor::Oldest).is_empty());
    assert_eq!(now(&broker, "b", Cursor::Oldest), ["next"]);
}

#[test]
fn the_limit_of_bytes_holds_when_many_have_published_at_once() {
    let broker = broker(
        BrokerOptions::new()
            .max_event_size(1000)
            .max_event_bytes(20_000),
    );
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let broker = broker.clone();
            thread::spawn(move || {
                for number in 0..2000 {
                    let name = format!("{}", (publisher + number) % 9);
                    broker.publish(&name, &"x".repeat(number % 900)).unwrap();
                    // One event of each thread, at the most, is held beyond.
                    assert!(broker.statistics().event_bytes <= 20_000 + 4 * 1000);
                }
            })
        })
        .collect();
    publishers
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let statistics = broker.statistics();
    assert!(statistics.event_bytes <= 20_000);
    assert_eq!(
        statistics.published,
        statistics.events as u64 + statistics.evicted
    );
}

#[test]
fn a_file_with_more_than_may_be_held_is_loaded_as_far_as_its_newest_events_go() {
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("events.db"));
    let all = Broker::open(BrokerOptions::default(), file.clone()).unwrap();
    let names = ["a", "b", "c"];
    let mut ids = Vec::new();
    for number in 0..300 {
        ids.push(all.publish(names[number / 100], &number).unwrap());
    }
    all.stop(Duration::from_secs(20)).unwrap();
    let options = BrokerOptions::new()
        .max_event_size(1000)
        .max_event_bytes(15_000);
    let some = Broker::open(options, file).unwrap();
    let statistics = some.statistics();
    assert!((14_000..=15_000).contains(&statistics.event_bytes));
    assert_eq!(statistics.evicted + statistics.events as u64, 300);
    let batch = some
        .subscribe(names, Cursor::LastId(ids[0]), Duration::ZERO)
        .unwrap();
    assert!(batch.gap());
    let held = batch.events().iter().map(|event| event.id());
    assert!(held.eq(ids[300 - statistics.events..].iter().copied()));
}
