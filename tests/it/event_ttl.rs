//! Times to live: of single events, and of categories by prefix.

use std::time::Duration;

use long_polling::testing::{self, ManualClock};
use long_polling::{
    Broker, BrokerOptions, CategoryOptions, Cursor, ErrorKind, EventId, FilePersistorInfo,
    PublishRequest,
};

const START: u64 = 1_700_000_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn publish_for(broker: &Broker, category: &str, data: &str, ttl: Duration) -> EventId {
    let request = PublishRequest::new(category, data).ttl(ttl);
    broker.publish_with(&request).unwrap()
}

/// The data of the events after a position, and whether there is a gap.
fn after(broker: &Broker, category: &str, cursor: Cursor) -> (Vec<String>, bool) {
    let batch = broker.subscribe(category, cursor, Duration::ZERO).unwrap();
    let texts = batch.events().iter().map(|event| event.text().into_owned());
    (texts.collect(), batch.gap())
}

fn texts(broker: &Broker, category: &str) -> Vec<String> {
    after(broker, category, Cursor::Oldest).0
}

#[test]
fn an_event_expires_between_others_and_its_followers_get_a_gap() {
    let clock = ManualClock::at(START);
    let broker = testing::broker(BrokerOptions::new(), &clock).unwrap();
    let first = broker.publish("c", "first").unwrap();
    let short = publish_for(&broker, "c", "short", SECOND);
    broker.publish("c", "last").unwrap();
    clock.advance(SECOND);
    assert_eq!(texts(&broker, "c"), ["first", "short", "last"]);
    clock.advance(Duration::from_millis(1));
    assert_eq!(texts(&broker, "c"), ["first", "last"]);
    // The follower before it misses it; the follower that has it does not.
    let last = || vec!["last".to_owned()];
    assert_eq!(after(&broker, "c", Cursor::LastId(first)), (last(), true));
    assert_eq!(after(&broker, "c", Cursor::LastId(short)), (last(), false));
    let statistics = broker.statistics();
    assert_eq!((statistics.expired, statistics.events), (1, 2));
}

#[test]
fn the_shorter_time_to_live_counts() {
    let clock = ManualClock::at(START);
    let options = BrokerOptions::new()
        .event_ttl(10 * SECOND)
        .for_categories("short/", CategoryOptions::new().event_ttl(SECOND))
        .for_categories("kept/", CategoryOptions::new().event_ttl(None));
    let broker = testing::broker(options, &clock).unwrap();
    for category in ["c", "short/c", "kept/c"] {
        broker.publish(category, "plain").unwrap();
        publish_for(&broker, category, "own", 5 * SECOND);
        publish_for(&broker, category, "long", 500 * SECOND);
        publish_for(&broker, category, "longest", Duration::MAX);
    }
    let millisecond = Duration::from_millis(1);
    clock.advance(SECOND + millisecond);
    assert!(texts(&broker, "short/c").is_empty());
    clock.advance(4 * SECOND);
    assert_eq!(texts(&broker, "c"), ["plain", "long", "longest"]);
    clock.advance(5 * SECOND);
    assert!(texts(&broker, "c").is_empty());
    assert_eq!(texts(&broker, "kept/c"), ["plain", "long", "longest"]);
    clock.advance(500 * SECOND);
    assert_eq!(texts(&broker, "kept/c"), ["plain", "longest"]);
}

/// Publishes look for expired events, so that these do not fill the memory.
#[test]
fn expired_events_of_categories_that_nobody_polls_are_removed() {
    let clock = ManualClock::at(START);
    let broker = testing::broker(BrokerOptions::new(), &clock).unwrap();
    for number in 0..100 {
        publish_for(&broker, &format!("c{number}"), "x", SECOND);
    }
    assert_eq!(broker.statistics().events, 100);
    clock.advance(3 * SECOND);
    broker.publish("other", "x").unwrap();
    let statistics = broker.statistics();
    assert_eq!((statistics.events, statistics.expired), (1, 100));
}

#[test]
fn a_restart_keeps_the_time_to_live_of_each_event() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(START);
    let open = |options| {
        let info = FilePersistorInfo::new(folder.path().join("events.db"));
        testing::open(options, info, &clock).unwrap()
    };
    let broker = open(BrokerOptions::new());
    publish_for(&broker, "c", "short", SECOND);
    publish_for(&broker, "c", "long", 3 * SECOND);
    broker.publish("c", "kept").unwrap();
    broker.stop(10 * SECOND).unwrap();
    clock.advance(2 * SECOND);
    let broker = open(BrokerOptions::new());
    assert_eq!(texts(&broker, "c"), ["long", "kept"]);
    broker.stop(10 * SECOND).unwrap();
    clock.advance(2 * SECOND);
    let broker = open(BrokerOptions::new());
    assert_eq!(texts(&broker, "c"), ["kept"]);
    broker.stop(10 * SECOND).unwrap();
    // golongpoll's members come first in each line.
    let log = std::fs::read_to_string(folder.path().join("events.db")).unwrap();
    let line = log.lines().find(|line| line.contains("short")).unwrap();
    assert!(line.starts_with("{\"timestamp\":"), "{line}");
    assert!(line.contains("\"ttl_ms\":1000,"), "{line}");
}

#[test]
fn a_category_has_the_size_that_its_longest_prefix_says() {
    let options = BrokerOptions::new()
        .events_per_category(3)
        .for_categories("m/", CategoryOptions::new().events_per_category(1))
        .for_categories("m/big/", CategoryOptions::new().events_per_category(5));
    let broker = Broker::new(options).unwrap();
    for number in 0..9 {
        for category in ["m", "m/a", "m/big/a"] {
            broker.publish(category, &number).unwrap();
        }
    }
    for (category, count) in [("m", 3), ("m/a", 1), ("m/big/a", 5)] {
        assert_eq!(texts(&broker, category).len(), count, "{category}");
    }
}

#[test]
fn a_time_to_live_of_nothing_is_refused() {
    let broker = Broker::new(BrokerOptions::new()).unwrap();
    for ttl in [Duration::ZERO, Duration::from_micros(999)] {
        let refused = broker.publish_with(&PublishRequest::new("c", 1).ttl(ttl));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidRequest);
    }
    assert_eq!(broker.statistics().refused, 2);
    assert!(texts(&broker, "c").is_empty());
}
