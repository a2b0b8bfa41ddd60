//! The file store keeps the rules of the trait, by the conformance tests that programs use for their own stores.

use super::fake_disk::{FakeDisk, Operation};
use super::*;
use crate::testing::{Fault, StoreConformance, StorePlace};

/// A disk in memory, which can stall, fail and lose its power.
struct DiskPlace {
    disk: FakeDisk,
    durability: Durability,
}

impl DiskPlace {
    fn store(&self, disk: FakeDisk) -> Result<Box<dyn Store>, Error> {
        let info = info(self.durability, None);
        Ok(Box::new(FilePersistor::new(disk, info)?))
    }
}

impl StorePlace for DiskPlace {
    fn open(&self) -> Result<Box<dyn Store>, Error> {
        self.store(self.disk.clone())
    }

    fn after_kill(&self) -> Result<Option<Box<dyn Store>>, Error> {
        let (killed, power_cut) = self.disk.after_crash();
        let files = match self.durability {
            Durability::Buffered => killed,
            _ => power_cut,
        };
        self.store(FakeDisk::with(&files)).map(Some)
    }

    fn set_fault(&self, fault: Option<Fault>) -> bool {
        self.disk.repair();
        match fault {
            None => self.disk.release(),
            Some(Fault::Stall) => self.disk.stall(Operation::Append),
            Some(Fault::Fail) => self
                .disk
                .break_down(self.disk.operations() + 1, &[Operation::Append]),
        }
        true
    }
}

#[test]
fn on_a_disk_that_stalls_fails_and_loses_its_power_every_rule_is_kept() {
    for durability in LEVELS {
        let conformance = StoreConformance::new(|| DiskPlace {
            disk: FakeDisk::default(),
            durability,
        });
        let report = conformance.run();
        report.assert_kept();
        assert!(report.not_checked().is_empty(), "{durability:?}: {report}");
    }
}

/// A folder of the system's.
struct FolderPlace {
    folder: tempfile::TempDir,
    durability: Durability,
}

impl FolderPlace {
    fn store(&self, name: &str) -> Result<Box<dyn Store>, Error> {
        let file = FilePersistorInfo::new(self.folder.path().join(name));
        store(file.durability(self.durability), MAX_EVENT_SIZE)
    }
}

impl StorePlace for FolderPlace {
    fn open(&self) -> Result<Box<dyn Store>, Error> {
        self.store("events.log")
    }

    fn after_kill(&self) -> Result<Option<Box<dyn Store>>, Error> {
        let path = |name| self.folder.path().join(name);
        std::fs::copy(path("events.log"), path("killed.log"))?;
        self.store("killed.log").map(Some)
    }
}

#[test]
fn on_the_systems_disk_the_rules_are_kept() {
    for durability in LEVELS {
        let conformance = StoreConformance::new(|| FolderPlace {
            folder: tempfile::tempdir().unwrap(),
            durability,
        });
        conformance.run().assert_kept();
    }
}
