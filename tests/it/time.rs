//! Time: stamps, ids and expiry by a clock that the tests set, across restarts and steps back.

use std::thread;
use std::time::Duration;

use long_polling::testing::{self, ManualClock};
use long_polling::{
    Broker, BrokerOptions, Cursor, Event, EventId, FilePersistorInfo, Server, ServerInfo,
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);
const START: u64 = 1_700_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);
const HOUR_MS: u64 = 3_600_000;

fn roomy() -> BrokerOptions {
    BrokerOptions {
        events_per_category: 100_000,
        ..BrokerOptions::default()
    }
}

fn short_lived(ttl: Duration) -> BrokerOptions {
    BrokerOptions {
        event_ttl: Some(ttl),
        ..BrokerOptions::default()
    }
}

fn file_in(folder: &TempDir) -> Option<FilePersistorInfo> {
    Some(FilePersistorInfo::new(folder.path().join("events.db")))
}

fn after(broker: &Broker, cursor: Cursor) -> Vec<Event> {
    let batch = broker.subscribe("a", cursor, Duration::ZERO).unwrap();
    assert!(!batch.gap());
    batch.events().to_vec()
}

fn stamps(broker: &Broker) -> Vec<u64> {
    after(broker, Cursor::Oldest)
        .iter()
        .map(Event::timestamp)
        .collect()
}

#[test]
fn ten_thousand_events_of_one_millisecond_have_ids_that_grow_and_are_told_once_from_each() {
    let clock = ManualClock::at(START);
    let broker = testing::broker(roomy(), None, &clock).unwrap();
    let ids: Vec<EventId> = (0..10_000)
        .map(|number| broker.publish("a", &number).unwrap())
        .collect();
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert!(stamps(&broker).iter().all(|stamp| *stamp == START));
    for (at, id) in ids.iter().enumerate().step_by(997) {
        let rest = after(&broker, Cursor::LastId(*id));
        assert!(rest.iter().map(Event::id).eq(ids[at + 1..].iter().copied()));
    }
}

#[test]
fn a_clock_set_back_an_hour_holds_timestamps_and_loses_and_repeats_nothing() {
    let clock = ManualClock::at(START);
    let broker = testing::broker(roomy(), None, &clock).unwrap();
    let mut ids = vec![broker.publish("a", "before").unwrap()];
    clock.set(START - HOUR_MS);
    ids.push(broker.publish("a", "behind").unwrap());
    clock.set(START + 5);
    ids.push(broker.publish("a", "ahead").unwrap());
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert_eq!(stamps(&broker), [START, START, START + 5]);
    let rest = after(&broker, Cursor::LastId(ids[0]));
    assert_eq!(
        rest.iter().map(|event| event.text()).collect::<Vec<_>>(),
        ["behind", "ahead"]
    );
}

#[test]
fn a_run_that_starts_an_hour_before_the_end_of_its_file_goes_on_after_it() {
    let folder = TempDir::new().unwrap();
    let clock = ManualClock::at(START);
    let mut ids = Vec::new();
    // Each run starts earlier than the one before, and all events of the file lie in its future.
    for run in 0..4 {
        let broker = testing::broker(roomy(), file_in(&folder), &clock).unwrap();
        if let Some(last) = ids.last() {
            assert!(after(&broker, Cursor::LastId(*last)).is_empty());
        }
        for number in 0..3 {
            ids.push(broker.publish("a", &(run, number)).unwrap());
        }
        assert_eq!(stamps(&broker), vec![START; ids.len()]);
        for (at, id) in ids.iter().enumerate() {
            let rest = after(&broker, Cursor::LastId(*id));
            assert!(rest.iter().map(Event::id).eq(ids[at + 1..].iter().copied()));
        }
        broker.stop(LIMIT).unwrap();
        clock.set(clock.now() - HOUR_MS);
    }
    assert!(ids.is_sorted_by(|a, b| a < b));
}

#[test]
fn expired_events_are_gone_told_as_a_gap_and_take_no_memory() {
    let clock = ManualClock::at(START);
    let broker = testing::broker(short_lived(HOUR), None, &clock).unwrap();
    let first = broker.publish("a", "first").unwrap();
    broker.publish("a", "second").unwrap();
    clock.advance(HOUR);
    assert_eq!(stamps(&broker).len(), 2);
    clock.advance(Duration::from_millis(1));
    broker.publish("other", "to a category of its own").unwrap();
    let statistics = broker.statistics();
    assert_eq!((statistics.expired, statistics.categories), (2, 1));
    let batch = broker
        .subscribe("a", Cursor::LastId(first), Duration::ZERO)
        .unwrap();
    assert!(batch.events().is_empty() && batch.gap());
    clock.advance(HOUR + HOUR);
    let batch = broker
        .subscribe("other", Cursor::Oldest, Duration::ZERO)
        .unwrap();
    assert!(batch.events().is_empty());
    let statistics = broker.statistics();
    assert_eq!(
        (
            statistics.events,
            statistics.event_bytes,
            statistics.categories
        ),
        (0, 0, 0)
    );
}

#[test]
fn what_has_expired_makes_room_before_anything_is_evicted() {
    let clock = ManualClock::at(START);
    let options = BrokerOptions {
        max_event_size: 1000,
        max_event_bytes: 4000,
        ..short_lived(HOUR)
    };
    let broker = testing::broker(options, None, &clock).unwrap();
    let publish = |category| broker.publish(category, &"x".repeat(900)).unwrap();
    publish("b");
    clock.advance(HOUR / 2);
    publish("a");
    publish("b");
    publish("b");
    // The first of b has expired, and a was published to least recently.
    clock.advance(HOUR / 2 + Duration::from_millis(1));
    publish("c");
    let statistics = broker.statistics();
    assert_eq!((statistics.expired, statistics.evicted), (1, 0));
    assert_eq!(stamps(&broker).len(), 1);
}

#[test]
fn an_event_lives_no_shorter_for_a_clock_that_steps_back() {
    let clock = ManualClock::at(START);
    let broker = testing::broker(short_lived(HOUR), None, &clock).unwrap();
    broker.publish("a", "x").unwrap();
    clock.set(START - 2 * HOUR_MS);
    broker.publish("a", "y").unwrap();
    clock.set(START + HOUR_MS);
    assert_eq!(stamps(&broker), [START, START]);
    clock.advance(Duration::from_millis(1));
    assert!(after(&broker, Cursor::Oldest).is_empty());
}

#[test]
fn a_server_goes_by_the_clock_that_it_was_given() {
    let clock = ManualClock::at(START);
    let info = ServerInfo {
        address: "127.0.0.1:0".into(),
        ..ServerInfo::default()
    };
    let server: Server = testing::start(info, None, &clock).unwrap();
    server.publish("a", "x").unwrap();
    assert_eq!(stamps(server.broker()), [START]);
    server.stop(LIMIT).unwrap();
}

#[test]
fn waiting_for_subscribers_to_park_sees_them_come_and_go() {
    let broker = Broker::new(BrokerOptions::default()).unwrap();
    assert!(testing::wait_until_parked(&broker, 0, Duration::ZERO));
    assert!(!testing::wait_until_parked(
        &broker,
        1,
        Duration::from_millis(1)
    ));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let broker = broker.clone();
            thread::spawn(move || broker.subscribe("a", Cursor::Now, LIMIT).unwrap())
        })
        .collect();
    assert!(testing::wait_until_parked(&broker, 3, LIMIT));
    broker.publish("a", "x").unwrap();
    assert!(testing::wait_until_parked(&broker, 0, LIMIT));
    for thread in threads {
        assert_eq!(thread.join().unwrap().events().len(), 1);
    }
}

#[test]
fn what_was_handed_out_and_would_have_expired_since_is_no_loss_to_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(START);
    let options = BrokerOptions {
        delete_after_first_retrieval: true,
        ..short_lived(HOUR)
    };
    let open = || testing::broker(options.clone(), file_in(&folder), &clock).unwrap();
    let poll = |broker: &Broker, category: &str, cursor| {
        let batch = broker.subscribe(category, cursor, Duration::ZERO).unwrap();
        (batch.events().len(), batch.gap())
    };
    let broker = open();
    let before = broker.subscribe("a", Cursor::Now, Duration::ZERO).unwrap();
    let before = Cursor::LastId(before.last_id());
    broker.publish("a", "taken").unwrap();
    broker.publish("a", "taken with it").unwrap();
    broker.publish("b", "left").unwrap();
    assert_eq!(poll(&broker, "a", before), (2, false));
    broker.stop(LIMIT).unwrap();

    clock.advance(2 * HOUR);
    let broker = open();
    assert_eq!(poll(&broker, "a", before), (0, false));
    assert_eq!(poll(&broker, "b", before), (0, true));
}
