//! Time: timestamps, ids and expiry by a clock that the tests set, across restarts and steps back.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::support::LIMIT;
use long_polling::testing::{self, ManualClock};
use long_polling::{
    Broker, BrokerOptions, Cursor, Event, EventId, FilePersistorInfo, Server, ServerInfo,
};
use tempfile::TempDir;

const START: u64 = 1_700_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);
const HOUR_MS: u64 = 3_600_000;
const YEAR_2100: u64 = 4_102_444_800_000;

fn roomy() -> BrokerOptions {
    BrokerOptions::new().events_per_category(100_000)
}

fn short_lived(ttl: Duration) -> BrokerOptions {
    BrokerOptions::new().event_ttl(ttl)
}

fn path_in(folder: &TempDir) -> PathBuf {
    folder.path().join("events.db")
}

fn file_in(folder: &TempDir) -> FilePersistorInfo {
    FilePersistorInfo::new(path_in(folder))
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
fn ten_thousand_events_of_one_millisecond_have_ascending_ids_and_come_once_from_each() {
    let clock = ManualClock::at(START);
    let broker = testing::broker(roomy(), &clock).unwrap();
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
    let broker = testing::broker(roomy(), &clock).unwrap();
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
        let broker = testing::open(roomy(), file_in(&folder), &clock).unwrap();
        if let Some(last) = ids.last() {
            assert!(after(&broker, Cursor::LastId(*last)).is_empty());
        }
        for number in 0..3 {
            ids.push(broker.publish("a", &(run, number)).unwrap());
        }
        // A follower may stand at the last timestamp of each run, so that the next run starts after it.
        let expected: Vec<u64> = (0..ids.len() as u64).map(|at| START + at / 3).collect();
        assert_eq!(stamps(&broker), expected);
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
fn expired_events_are_a_gap_and_take_no_memory() {
    let clock = ManualClock::at(START);
    let broker = testing::broker(short_lived(HOUR), &clock).unwrap();
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
fn expired_events_make_room_before_any_is_evicted() {
    let clock = ManualClock::at(START);
    let options = short_lived(HOUR).max_event_size(1000).max_event_bytes(4000);
    let broker = testing::broker(options, &clock).unwrap();
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
fn an_event_expires_after_its_time_to_live_even_if_the_clock_is_wrong() {
    for wrong in [START - 2 * HOUR_MS, 0, YEAR_2100, u64::MAX] {
        let clock = ManualClock::at(START);
        let broker = testing::broker(short_lived(HOUR), &clock).unwrap();
        broker.publish("a", "before").unwrap();
        clock.set(wrong);
        broker.publish("a", "meanwhile").unwrap();
        clock.set(START);
        broker.publish("a", "after").unwrap();
        clock.advance(HOUR);
        assert_eq!(broker.statistics().expired, 0);
        assert_eq!(stamps(&broker).len(), 3, "{wrong}");
        clock.advance(Duration::from_millis(1));
        assert!(after(&broker, Cursor::Oldest).is_empty(), "{wrong}");
        assert_eq!(broker.statistics().expired, 3, "{wrong}");
    }
}

#[test]
fn an_event_whose_timestamp_is_ahead_of_the_clock_expires_no_other_early() {
    let folder = TempDir::new().unwrap();
    let clock = ManualClock::at(START);
    let open = || testing::open(short_lived(HOUR), file_in(&folder), &clock).unwrap();
    let broker = open();
    broker.publish("a", "as old as events may be").unwrap();
    clock.advance(HOUR);
    // The follower may go on from this time alone, so that the next event has a later one.
    after(&broker, Cursor::SinceTime(START + HOUR_MS));
    broker.publish("a", "ahead").unwrap();
    assert_eq!(stamps(&broker), [START, START + HOUR_MS + 1]);
    assert_eq!(broker.statistics().expired, 0);
    broker.stop(LIMIT).unwrap();
    let broker = open();
    assert_eq!(stamps(&broker), [START, START + HOUR_MS + 1]);
    clock.advance(Duration::from_millis(1));
    assert_eq!(stamps(&broker), [START + HOUR_MS + 1]);
}

#[test]
fn a_server_uses_the_clock_of_the_test() {
    let clock = ManualClock::at(START);
    let info = ServerInfo::new("127.0.0.1:0");
    let server: Server = testing::start(info, &clock).unwrap();
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
fn an_event_that_was_retrieved_and_would_have_expired_since_is_not_lost_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(START);
    let options = short_lived(HOUR).delete_after_first_retrieval(true);
    let open = || testing::open(options.clone(), file_in(&folder), &clock).unwrap();
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

/// The events of one poll of a follower by time alone, which goes on from `since`.
fn by_time(broker: &Broker, since: &mut u64) -> Vec<u64> {
    let batch = broker
        .subscribe("a", Cursor::SinceTime(*since), Duration::ZERO)
        .unwrap();
    assert!(!batch.gap());
    if let Some(last) = batch.events().last() {
        *since = last.timestamp();
    }
    batch
        .events()
        .iter()
        .map(|event| event.decode().unwrap())
        .collect()
}

#[test]
fn a_follower_by_time_alone_loses_and_repeats_nothing_while_the_clock_is_held_or_set_back() {
    for step in [0, HOUR_MS] {
        let clock = ManualClock::at(START);
        let broker = testing::broker(roomy(), &clock).unwrap();
        let (mut since, mut seen) = (0, Vec::new());
        for number in 0..300u64 {
            broker.publish("a", &number).unwrap();
            // Polls after one event, and after three.
            if number % 4 != 1 && number % 4 != 2 {
                seen.extend(by_time(&broker, &mut since));
            }
            if number == 100 {
                clock.set(START - step);
            }
        }
        assert_eq!(seen, (0..300).collect::<Vec<u64>>());
        assert!((START..START + 300).contains(&since));
        assert!(by_time(&broker, &mut since).is_empty());
    }
}

#[test]
fn a_follower_by_time_alone_that_is_parked_gets_the_next_event_of_the_same_millisecond_too() {
    let clock = ManualClock::at(START);
    let broker = testing::broker(roomy(), &clock).unwrap();
    for categories in [&["a"][..], &["a", "b"]] {
        for start in [
            Cursor::Now,
            Cursor::Oldest,
            Cursor::SinceTime(START + 1_000),
        ] {
            let broker = testing::broker(roomy(), &clock).unwrap();
            let follower = broker.clone();
            let thread = thread::spawn(move || follower.subscribe(categories, start, LIMIT));
            assert!(testing::wait_until_parked(&broker, 1, LIMIT));
            for number in 0..5 {
                broker.publish("a", &number).unwrap();
            }
            let first = thread.join().unwrap().unwrap();
            let mut since = first.events().last().unwrap().timestamp();
            let rest = by_time(&broker, &mut since);
            assert_eq!(first.events().len() + rest.len(), 5, "{start:?}");
        }
    }
    // No follower goes by time here, so that events may have the clock's time.
    let id = broker.publish("a", &1).unwrap();
    assert_eq!(after(&broker, Cursor::LastId(id)).len(), 0);
    broker.publish("a", &2).unwrap();
    broker.publish("a", &3).unwrap();
    let rest = after(&broker, Cursor::LastId(id));
    assert!(rest.iter().all(|event| event.timestamp() == START));
}

#[test]
fn ten_thousand_events_of_one_millisecond_reach_a_follower_by_time_alone_in_bounded_answers() {
    const MAX: usize = 20_000;
    let clock = ManualClock::at(START);
    let options = roomy().max_batch_size(MAX);
    let broker = testing::broker(options, &clock).unwrap();
    for number in 0..10_000u64 {
        broker.publish("a", &number).unwrap();
    }
    let (mut since, mut seen) = (1, Vec::new());
    while seen.len() < 10_000 {
        let batch = broker
            .subscribe("a", Cursor::SinceTime(since), Duration::ZERO)
            .unwrap();
        let sizes = batch.events().iter().map(|event| event.as_json().len() + 1);
        assert!(sizes.sum::<usize>() <= MAX && !batch.events().is_empty());
        seen.extend(by_time(&broker, &mut since));
    }
    assert_eq!(seen, (0..10_000).collect::<Vec<u64>>());
}

#[test]
fn since_time_0_and_1_ask_for_everything_even_where_the_clock_shows_less() {
    for now in [0, 1] {
        let clock = ManualClock::at(now);
        let broker = testing::broker(roomy(), &clock).unwrap();
        broker.publish("a", &0u64).unwrap();
        broker.publish("a", &1u64).unwrap();
        for start in [0, 1] {
            let mut since = start;
            assert_eq!(by_time(&broker, &mut since), [0, 1]);
            assert!(by_time(&broker, &mut since).is_empty());
        }
        broker.publish("a", &2u64).unwrap();
        let mut since = 0;
        assert_eq!(by_time(&broker, &mut since), [0, 1, 2]);
    }
}

#[test]
fn one_wrong_clock_does_no_lasting_harm_across_restarts() {
    for wrong in [YEAR_2100, u64::MAX] {
        let folder = TempDir::new().unwrap();
        let clock = ManualClock::at(START);
        let options = roomy().event_ttl(HOUR);
        let open = || testing::open(options.clone(), file_in(&folder), &clock).unwrap();
        let broker = open();
        broker.publish("a", &0u64).unwrap();
        clock.set(wrong);
        let mut last = broker.publish("a", &1u64).unwrap();
        clock.set(START);
        let mut since = START - 1;
        let (mut seen, mut number) = (by_time(&broker, &mut since), 2u64);
        broker.stop(LIMIT).unwrap();
        for _ in 0..3 {
            let broker = open();
            for _ in 0..5 {
                let id = broker.publish("a", &number).unwrap();
                number += 1;
                seen.extend(by_time(&broker, &mut since));
                assert_eq!(after(&broker, Cursor::LastId(last)).len(), 1);
                last = id;
            }
            // A follower that starts with the right time gets events, not nothing until then.
            let now = Cursor::SinceTime(START);
            assert!(
                !broker
                    .subscribe("a", now, Duration::ZERO)
                    .unwrap()
                    .events()
                    .is_empty()
            );
            broker.stop(LIMIT).unwrap();
        }
        assert_eq!(seen, (0..number).collect::<Vec<u64>>());
        // The time to live ends, too: a log's event from the future is new at the start, and then grows old.
        let broker = open();
        clock.advance(HOUR + Duration::from_secs(1) + Duration::from_millis(1));
        assert!(after(&broker, Cursor::Oldest).is_empty());
        assert!(broker.statistics().expired > 0);
    }
}

#[test]
fn a_time_that_no_event_can_have_had_is_a_gap_and_returns_every_event() {
    let clock = ManualClock::at(START);
    let broker = testing::broker(roomy(), &clock).unwrap();
    let id = broker.publish("a", &0u64).unwrap();
    let unknown = EventId::from(7);
    for cursor in [
        Cursor::SinceTime(YEAR_2100),
        Cursor::SinceTime(u64::MAX),
        Cursor::LastIdOrSinceTime(unknown, YEAR_2100),
    ] {
        let batch = broker.subscribe("a", cursor, Duration::ZERO).unwrap();
        assert_eq!((batch.events().len(), batch.gap()), (1, true), "{cursor:?}");
    }
    // By an id that is known, the time does not matter; and a client's clock may be a little ahead.
    assert!(after(&broker, Cursor::LastIdOrSinceTime(id, YEAR_2100)).is_empty());
    assert!(after(&broker, Cursor::SinceTime(START + 10_000)).is_empty());
}

#[test]
fn a_golongpoll_line_of_the_year_2100_keeps_its_timestamp_and_delays_no_event() {
    for far in [YEAR_2100, u64::MAX] {
        let folder = TempDir::new().unwrap();
        let file = file_in(&folder);
        let line = format!(
            r#"{{"timestamp":{far},"category":"a","data":0,"id":"d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60"}}"#
        );
        std::fs::write(path_in(&folder), format!("{line}\n")).unwrap();
        let clock = ManualClock::at(START);
        let broker = testing::open(roomy(), file, &clock).unwrap();
        let mut ids = Vec::new();
        for number in 1..4u64 {
            ids.push(broker.publish("a", &number).unwrap());
        }
        let all = after(&broker, Cursor::Oldest);
        assert_eq!((all.len(), all[0].timestamp()), (4, far));
        assert_eq!(after(&broker, Cursor::LastId(all[0].id())).len(), 3);
        assert_eq!(after(&broker, Cursor::LastId(ids[0])).len(), 2);
        let mut since = all[3].timestamp();
        broker.publish("a", &4u64).unwrap();
        broker.publish("a", &5u64).unwrap();
        assert_eq!(by_time(&broker, &mut since), [4, 5]);
        broker.publish("a", &6u64).unwrap();
        assert_eq!(by_time(&broker, &mut since), [6]);
    }
}

#[test]
fn a_log_with_more_in_one_millisecond_than_an_answer_holds_is_cut_with_a_gap() {
    let folder = TempDir::new().unwrap();
    let file = file_in(&folder);
    let lines = (0..100).map(|number| {
        format!(
            r#"{{"timestamp":{YEAR_2100},"category":"a","data":{number},"id":"d1f5a7c2-5d5e-4b0e-9c39-{number:012x}"}}"#
        ) + "\n"
    });
    std::fs::write(path_in(&folder), lines.collect::<String>()).unwrap();
    let clock = ManualClock::at(START);
    let options = roomy().max_batch_size(1000);
    let broker = testing::open(options, file, &clock).unwrap();
    for start in [Cursor::Oldest, Cursor::LastId(EventId::from(7))] {
        let first = broker.subscribe("a", start, Duration::ZERO).unwrap();
        let sizes = first.events().iter().map(|event| event.as_json().len() + 1);
        assert!(sizes.sum::<usize>() <= 1000 && !first.events().is_empty());
        // By the id, every event comes.
        let (mut cursor, mut count) = (Cursor::LastId(first.last_id()), first.events().len());
        while count < 100 {
            let batch = broker.subscribe("a", cursor, Duration::ZERO).unwrap();
            assert!(!batch.gap() && !batch.events().is_empty());
            count += batch.events().len();
            cursor = Cursor::LastId(batch.last_id());
        }
        // By the time alone it does not, which is a gap.
        let by_time = Cursor::SinceTime(first.events().last().unwrap().timestamp());
        assert!(
            broker
                .subscribe("a", by_time, Duration::ZERO)
                .unwrap()
                .gap()
        );
    }
}
