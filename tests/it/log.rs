//! The log of a broker: golongpoll's files, compaction, when the file is written, settings, and stores of other programs.

use crate::support;

use std::fs;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use long_polling::store::{Record, Snapshot, Store};
use long_polling::{
    Broker, BrokerOptions, Cursor, Durability, Error, ErrorKind, Event, EventId, FilePersistorInfo,
};
use serde_json::json;
use support::{LIMIT, until};

fn events(broker: &Broker, category: &str, cursor: Cursor) -> (Vec<Event>, bool) {
    let batch = broker.subscribe(category, cursor, Duration::ZERO).unwrap();
    (batch.events().to_vec(), batch.gap())
}

fn numbers(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.decode().unwrap()).collect()
}

/// golongpoll's `FilePersistorAddOn` writes a line break before each event, and none at the end.
#[test]
fn a_golongpoll_file_is_read_completely_compacted_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let ids: Vec<String> = (0..4)
        .map(|at| format!("d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f6{at}"))
        .collect();
    let long = "x".repeat(70_000);
    let mut text = String::new();
    for (id, (timestamp, data)) in ids.iter().zip([
        (1_600_000_000_300u64, json!(long)),
        (1_600_000_000_100, json!("earlier")),
        (1_600_000_000_200, json!({"html": "\u{3c}b\u{3e}"})),
        (1_600_000_000_200, json!([1.10])),
    ]) {
        text += &format!(
            "\n{{\"timestamp\":{timestamp},\"category\":\"c\",\"data\":{data},\"id\":\"{id}\"}}"
        );
    }
    fs::write(&file, &text).unwrap();
    let info = FilePersistorInfo::new(&file)
        .compact_from(1)
        .write_buffer_size(0);
    let options = BrokerOptions::new().events_per_category(6);
    let broker = Broker::open(options.clone(), info.clone()).unwrap();
    let (read, gap) = events(&broker, "c", Cursor::Oldest);
    let found: Vec<String> = read.iter().map(|event| event.id().to_string()).collect();
    // In the order of their timestamps.
    assert_eq!(found, [&*ids[1], &ids[2], &ids[3], &ids[0]]);
    assert_eq!((read[3].text().len(), gap), (70_000, false));
    assert_eq!(broker.statistics().store.damaged, 0);
    // golongpoll's ids are positions while their events are in memory, before and after a compaction.
    let mut last = read[3].id();
    until("the file is compacted", || {
        last = broker.publish("d", "makes the file grow").unwrap();
        until("written", || broker.statistics().store.pending == 0);
        broker.statistics().store.rewritten > 0
    });
    broker.publish("c", "ours").unwrap();
    broker.stop(LIMIT).unwrap();

    let broker = Broker::open(options, info).unwrap();
    let (again, _) = events(&broker, "c", Cursor::Oldest);
    assert_eq!(again[..4], read);
    let third: EventId = ids[3].parse().unwrap();
    let (rest, gap) = events(&broker, "c", Cursor::LastId(third));
    assert_eq!(
        (rest.len(), rest[1].text().as_ref(), gap),
        (2, "ours", false)
    );
    assert!(!events(&broker, "d", Cursor::LastId(last)).1);
}

/// golongpoll stops reading at a line of more than 64 KiB.
#[test]
fn only_the_line_of_a_large_event_can_be_too_long_for_golongpoll() {
    let folder = tempfile::tempdir().unwrap();
    let options = BrokerOptions::new()
        .events_per_category(5000)
        .max_categories(1)
        .delete_after_first_retrieval(true);
    let path = folder.path().join("events.db");
    let info = FilePersistorInfo::new(&path).compact_from(1);
    let longest = |kind: &str| {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| line.contains(kind));
        lines.map(str::len).max().unwrap_or(0)
    };
    let name = "c".repeat(1024);
    let broker = Broker::open(options.clone(), info.clone()).unwrap();
    let start = broker.subscribe(name.as_str(), Cursor::Now, Duration::ZERO);
    let start = Cursor::LastId(start.unwrap().last_id());
    for number in 0..2500 {
        broker.publish(&name, &number).unwrap();
    }
    let (retrieved, _) = events(&broker, &name, start);
    broker.stop(LIMIT).unwrap();
    assert!(retrieved.len() == 2500 && longest("taken") < 64 << 10 && longest("taken") > 20_000);
    let broker = Broker::open(options.clone(), info.clone()).unwrap();
    assert_eq!(events(&broker, &name, start), (vec![], false));

    // Each of these categories evicts the one before, whose loss the file records.
    let mut number = 0;
    let mut rewritten = 0;
    until("a compacted file has the losses", || {
        for _ in 0..4000 {
            number += 1;
            broker.publish(&number.to_string(), "x").unwrap();
        }
        until("written", || broker.statistics().store.pending == 0);
        let before = std::mem::replace(&mut rewritten, broker.statistics().store.rewritten);
        number > 10_000 && rewritten > before
    });
    broker.stop(LIMIT).unwrap();
    assert!(
        longest("forgotten") < 64 << 10 && longest("forgotten") > 20_000,
        "{}",
        longest("forgotten")
    );
}

#[test]
fn a_file_is_compacted_while_several_threads_publish() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let options = BrokerOptions::new().events_per_category(20);
    let info = FilePersistorInfo::new(&file)
        .compact_from(20_000)
        .write_flush_period(Duration::from_millis(5));
    let broker = Broker::open(options.clone(), info.clone()).unwrap();
    std::thread::scope(|scope| {
        for publisher in 0..4 {
            let broker = &broker;
            scope.spawn(move || {
                for number in 0..5000u64 {
                    broker.publish(&publisher.to_string(), &number).unwrap();
                }
            });
        }
    });
    until("the file is compacted", || {
        broker.publish("other", "one more").unwrap();
        until("written", || broker.statistics().store.pending == 0);
        broker.statistics().store.bytes < 80_000
    });
    assert!(broker.statistics().store.rewritten > 0);
    let positions: Vec<EventId> = (0..4)
        .map(|publisher| events(&broker, &publisher.to_string(), Cursor::Oldest).0[5].id())
        .collect();
    broker.stop(LIMIT).unwrap();
    assert!(fs::metadata(&file).unwrap().len() < 100_000);

    let again = Broker::open(options.clone(), info.clone()).unwrap();
    for (publisher, position) in positions.into_iter().enumerate() {
        let category = publisher.to_string();
        let (rest, gap) = events(&again, &category, Cursor::LastId(position));
        assert_eq!((numbers(&rest), gap), ((4986..5000).collect(), false));
        let (all, _) = events(&again, &category, Cursor::Oldest);
        assert_eq!(numbers(&all), (4980..5000).collect::<Vec<u64>>());
    }
    again.stop(LIMIT).unwrap();

    // Without compaction, the file has the full history.
    let path = folder.path().join("history.db");
    let info = FilePersistorInfo::new(&path).compact_from(None);
    let broker = Broker::open(options, info.clone()).unwrap();
    for number in 0..2000 {
        broker.publish("c", &number).unwrap();
    }
    broker.stop(LIMIT).unwrap();
    let lines = fs::read_to_string(&path).unwrap();
    assert_eq!(lines.lines().count(), 2002);
}

#[test]
fn the_file_is_written_when_the_buffer_is_full_or_the_flush_period_is_over_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, write_buffer_size, write_flush_period| {
        let info = FilePersistorInfo::new(folder.path().join(name))
            .write_buffer_size(write_buffer_size)
            .write_flush_period(write_flush_period);
        Broker::open(BrokerOptions::default(), info).unwrap()
    };
    let broker = open("buffer", 20_000, Duration::MAX);
    let written = || broker.statistics().store.written;
    let started = written();
    assert_eq!(started, 1);
    while broker.statistics().store.pending_bytes < 19_000 {
        broker.publish("c", &"x".repeat(500)).unwrap();
        assert_eq!(written(), started);
    }
    broker.publish("c", &"x".repeat(1000)).unwrap();
    until("written", || broker.statistics().store.pending == 0);
    broker.stop(LIMIT).unwrap();

    let period = Duration::from_millis(100);
    let broker = open("period", usize::MAX, period);
    let began = Instant::now();
    broker.publish("c", "x").unwrap();
    until("written", || broker.statistics().store.pending == 0);
    assert!(began.elapsed() >= period);
    broker.stop(LIMIT).unwrap();
}

#[test]
fn the_error_of_an_invalid_setting_names_it() {
    let info = FilePersistorInfo::new("events.db");
    for (info, name) in [
        (FilePersistorInfo::new(""), "file_name"),
        (
            info.clone().write_flush_period(Duration::ZERO),
            "write_flush_period",
        ),
        (
            info.clone().durability(Durability::Synced {
                period: Duration::ZERO,
            }),
            "durability",
        ),
        (info.max_queue_size(0), "max_queue_size"),
    ] {
        let error = Broker::open(BrokerOptions::default(), info).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSetting);
        let start = format!("FilePersistorInfo::{name}:");
        assert!(error.to_string().starts_with(&start), "{error}");
    }
}

#[test]
fn a_queue_that_is_smaller_than_the_buffer_is_written_when_it_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let info = FilePersistorInfo::new(&path)
        .max_queue_size(1000)
        .max_wait(Duration::ZERO)
        .write_flush_period(Duration::MAX);
    let broker = Broker::open(BrokerOptions::default(), info).unwrap();
    let refused = loop {
        match broker.publish("c", &1) {
            Ok(_) => assert!(broker.statistics().store.pending_bytes <= 1000),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Busy);
    until("written", || broker.statistics().store.pending == 0);
    broker.publish("c", &2).unwrap();
    broker.stop(LIMIT).unwrap();
}

/// A store in memory whose calls a test can make fail.
#[derive(Clone, Default)]
struct MemoryStore(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    records: Vec<Record>,
    start_fails: bool,
    append_fails: bool,
    flush_fails: bool,
    acknowledges: bool,
}

fn busy() -> Error {
    Error::new(ErrorKind::Busy, "made to fail")
}

impl Store for MemoryStore {
    fn start(&mut self, _: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        let state = self.0.lock().unwrap();
        state.records.iter().cloned().for_each(each);
        if state.start_fails {
            Err(busy())
        } else {
            Ok(())
        }
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        let mut state = self.0.lock().unwrap();
        if state.append_fails && record.event().is_some() {
            return Err(busy());
        }
        state.records.push(record);
        Ok(state.records.len() as u64)
    }

    fn flush(&self, ticket: u64) -> Result<(), Error> {
        let mut state = self.0.lock().unwrap();
        if !state.flush_fails {
            return Ok(());
        }
        // A store puts this record in the place of an event that it does not keep.
        let at = ticket as usize - 1;
        if let Some(event) = state.records[at].event() {
            state.records[at] = Record::Refused(event.id());
        }
        Err(busy())
    }

    fn acknowledges(&self) -> bool {
        self.0.lock().unwrap().acknowledges
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn another_store_that_fails_refuses_what_it_could_not_keep() {
    for acknowledges in [false, true] {
        let store = MemoryStore::default();
        store.0.lock().unwrap().acknowledges = acknowledges;
        let broker = Broker::with_store(BrokerOptions::default(), store.clone()).unwrap();
        let first = broker.publish("c", &1).unwrap();
        store.0.lock().unwrap().append_fails = true;
        let refused = broker.publish("c", &2).unwrap_err();
        assert_eq!(
            (refused.kind(), refused.to_string()),
            (ErrorKind::Busy, "made to fail".into())
        );
        store.0.lock().unwrap().append_fails = false;
        store.0.lock().unwrap().flush_fails = acknowledges;
        assert_eq!(broker.publish("c", &3).is_err(), acknowledges);
        store.0.lock().unwrap().flush_fails = false;
        let last = broker.publish("c", &4).unwrap();
        let expected: &[u64] = if acknowledges { &[1, 4] } else { &[1, 3, 4] };
        assert_eq!(numbers(&events(&broker, "c", Cursor::Oldest).0), expected);
        broker.stop(LIMIT).unwrap();

        let broker = Broker::with_store(BrokerOptions::default(), store.clone()).unwrap();
        let (rest, gap) = events(&broker, "c", Cursor::LastId(first));
        assert_eq!((numbers(&rest), gap), (expected[1..].to_vec(), false));
        assert_eq!(rest.last().unwrap().id(), last);
        store.0.lock().unwrap().start_fails = true;
        assert!(Broker::with_store(BrokerOptions::default(), store).is_err());
    }
}

#[test]
fn the_store_of_a_broker_without_one_has_no_statistics() {
    let broker = Broker::new(BrokerOptions::default()).unwrap();
    broker.publish("c", &1).unwrap();
    assert_eq!(numbers(&events(&broker, "c", Cursor::Oldest).0), [1]);
    assert_eq!(broker.statistics().store, Default::default());
    broker.stop(LIMIT).unwrap();
}
