//! The log of the example `sqlite_store` keeps the rules of the trait.

use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use long_polling::store::{GroupCommit, Record, RecordLog, Store};
use long_polling::testing::{Fault, StoreConformance, StorePlace};
use long_polling::{Broker, BrokerOptions, Cursor, Error, ErrorKind};

use crate::support::LIMIT;

#[path = "../../examples/sqlite_store/sqlite_log.rs"]
mod sqlite_log;

use sqlite_log::SqliteLog;

/// Writes of SQLite that stall or fail when a test wants it.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<Option<Fault>>, Condvar)>);

struct FaultyLog {
    log: SqliteLog,
    gate: Gate,
}

impl RecordLog for FaultyLog {
    fn open(&mut self, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        self.log.open(each)
    }

    fn write(&mut self, records: &[Record]) -> Result<(), Error> {
        let (fault, changed) = &*self.gate.0;
        let fault = fault.lock().unwrap();
        let stalls = |fault: &mut Option<Fault>| *fault == Some(Fault::Stall);
        let fault = changed.wait_while(fault, stalls).unwrap();
        if *fault == Some(Fault::Fail) {
            return Err(Error::store("disk on fire"));
        }
        drop(fault);
        self.log.write(records)
    }

    fn close(&mut self) -> Result<(), Error> {
        self.log.close()
    }
}

struct DatabasePlace {
    folder: tempfile::TempDir,
    gate: Gate,
}

impl DatabasePlace {
    fn store(&self, folder: &str) -> Box<dyn Store> {
        let log = SqliteLog::new(self.folder.path().join(folder).join("events.sqlite"));
        let gate = self.gate.clone();
        Box::new(GroupCommit::new(FaultyLog { log, gate }))
    }
}

impl StorePlace for DatabasePlace {
    fn open(&self) -> Result<Box<dyn Store>, Error> {
        std::fs::create_dir_all(self.folder.path().join("live"))?;
        Ok(self.store("live"))
    }

    fn after_kill(&self) -> Result<Option<Box<dyn Store>>, Error> {
        // A process of its own: closing a file here would end SQLite's locks on it.
        let (live, killed) = ("live", "killed");
        let _ = std::fs::remove_dir_all(self.folder.path().join(killed));
        let mut copy = Command::new("cp");
        let copied = copy
            .current_dir(self.folder.path())
            .args(["-r", live, killed]);
        assert!(copied.status()?.success());
        Ok(Some(self.store(killed)))
    }

    fn set_fault(&self, fault: Option<Fault>) -> bool {
        *self.gate.0.0.lock().unwrap() = fault;
        self.gate.0.1.notify_all();
        true
    }
}

#[test]
fn sqlite_keeps_every_rule() {
    let report = StoreConformance::new(|| DatabasePlace {
        folder: tempfile::tempdir().unwrap(),
        gate: Gate::default(),
    })
    .run();
    report.assert_kept();
    assert!(report.not_checked().is_empty(), "{report}");
}

#[test]
fn a_database_that_has_grown_is_compacted_and_a_second_broker_may_not_open_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.sqlite");
    let open = || {
        let options = BrokerOptions::new().events_per_category(10);
        Broker::with_store(options, GroupCommit::new(SqliteLog::new(&path)))
    };
    let broker = open().unwrap();
    let second = open().unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Store);
    assert!(
        second.report().to_string().contains("locked"),
        "{}",
        second.report()
    );
    let data = "x".repeat(100 << 10);
    for _ in 0..100 {
        broker.publish("c", &data).unwrap();
    }
    broker.stop(LIMIT).unwrap();
    drop(broker);
    // The pages of deleted records are used again.
    assert!(std::fs::metadata(&path).unwrap().len() < 8 << 20);
    let broker = open().unwrap();
    let loaded = broker.statistics().store.loaded;
    assert!((10..=60).contains(&loaded), "{loaded}");
    let batch = broker
        .subscribe("c", Cursor::Oldest, Duration::ZERO)
        .unwrap();
    assert_eq!(batch.events().len(), 10);
    broker.stop(LIMIT).unwrap();
}

#[test]
fn the_guide_shows_the_log_of_the_example() {
    let example = include_str!("../../examples/sqlite_store/sqlite_log.rs");
    let code = &example[example.find("use std::path").unwrap()..];
    assert!(
        include_str!("../../src/guide/durability.md").contains(code),
        "copy examples/sqlite_store/sqlite_log.rs into src/guide/durability.md"
    );
}
