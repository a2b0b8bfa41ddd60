//! The stores of the documentation and of the examples keep the rules of the trait.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use long_polling::store::{GroupCommit, Record, RecordLog, Snapshot, Store};
use long_polling::testing::{
    ManualClock, StoreConformance, StorePlace, broker_with_store, start_with_store,
};
use long_polling::{BrokerOptions, Cursor, Error, ErrorKind, Server};

use crate::support::{Connection, LIMIT, info};

/// The store of the trait's documentation.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<String>>>);

impl Store for Memory {
    fn start(&mut self, _: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        for line in self.0.lock().unwrap().iter() {
            each(line.parse()?);
        }
        Ok(())
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        let mut lines = self.0.lock().unwrap();
        lines.push(record.to_string());
        Ok(lines.len() as u64)
    }

    fn flush(&self, _: u64) -> Result<(), Error> {
        Ok(())
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }
}

struct MemoryPlace(Memory);

impl StorePlace for MemoryPlace {
    fn open(&self) -> Result<Box<dyn Store>, Error> {
        Ok(Box::new(self.0.clone()))
    }

    fn after_kill(&self) -> Result<Option<Box<dyn Store>>, Error> {
        let copy = Memory::default();
        *copy.0.lock().unwrap() = self.0.0.lock().unwrap().clone();
        Ok(Some(Box::new(copy)))
    }
}

#[test]
fn the_store_of_the_documentation_keeps_the_rules() {
    StoreConformance::new(|| MemoryPlace(Memory::default()))
        .run()
        .assert_kept();
}

/// A log that is `Send`, and not `Sync`.
struct CellLog {
    records: Arc<Mutex<Vec<Record>>>,
    _not_sync: std::cell::Cell<()>,
}

impl RecordLog for CellLog {
    fn open(&mut self, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        self.records.lock().unwrap().iter().cloned().for_each(each);
        Ok(())
    }

    fn write(&mut self, records: &[Record]) -> Result<(), Error> {
        self.records.lock().unwrap().extend_from_slice(records);
        Ok(())
    }
}

#[test]
fn a_log_that_is_not_sync_keeps_the_rules_in_a_group_commit_with_and_without_acknowledgement() {
    for period in [None, Some(Duration::from_millis(5))] {
        let report = StoreConformance::new(|| {
            let records = Arc::<Mutex<Vec<Record>>>::default();
            move || {
                let records = records.clone();
                let store = GroupCommit::new(CellLog {
                    records,
                    _not_sync: Default::default(),
                });
                Ok(match period {
                    Some(period) => store.flush_every(period),
                    None => store,
                })
            }
        })
        .run();
        report.assert_kept();
    }
}

#[test]
fn a_server_with_a_store_and_a_manual_clock_stamps_its_events_by_the_clock() {
    let clock = ManualClock::at(1_700_000_000_000);
    let store = Memory::default();
    let start = || start_with_store(info(), store.clone(), &clock).unwrap();
    let server = start();
    server.publish("c", &1).unwrap();
    server.stop(LIMIT).unwrap();
    clock.advance(Duration::from_secs(3600));
    let server = start();
    let batch = server
        .subscribe("c", Cursor::Oldest, Duration::ZERO)
        .unwrap();
    assert_eq!(batch.events()[0].timestamp(), 1_700_000_000_000);
    server.stop(LIMIT).unwrap();

    let broker = broker_with_store(BrokerOptions::new(), store, &clock).unwrap();
    let id = broker.publish("c", &2).unwrap();
    let batch = broker.subscribe("c", Cursor::SinceTime(clock.now() - 1), Duration::ZERO);
    assert_eq!(batch.unwrap().last_id(), id);
    broker.stop(LIMIT).unwrap();
}

/// A store whose disk has failed.
struct OnFire;

impl Store for OnFire {
    fn start(&mut self, _: Snapshot, _: &mut dyn FnMut(Record)) -> Result<(), Error> {
        Ok(())
    }

    fn append(&self, _: Record) -> Result<u64, Error> {
        Err(std::io::Error::other("disk on fire"))?
    }

    fn flush(&self, _: u64) -> Result<(), Error> {
        Ok(())
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn the_systems_error_of_a_store_in_a_box_is_a_503_over_http() {
    let store: Box<dyn Store> = Box::new(OnFire);
    let server = Server::start(info().store(store)).unwrap();
    let error = server.publish("c", &1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    let mut connection = Connection::to(&server);
    connection.publish(r#"{"category":"c","data":1}"#);
    let answer = connection.receive();
    answer.refuses(503, "the store failed: disk on fire");
    assert_eq!(answer.header("Retry-After"), Some("1"));
}
