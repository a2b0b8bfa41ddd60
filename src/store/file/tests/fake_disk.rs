//! [`FakeDisk`]: a disk in memory. A test can make its operations fail or stall, and see what a killed process or a power
//! cut would leave.

mod file;
mod state;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::file::FakeFile;
use self::state::{DiskState, Node, Outage, Stall};
pub(super) use self::state::{Fault, Operation};
use super::LIMIT;
use super::crash_point::{CrashPoint, Files};
use crate::store::file::disk::Disk;

/// A disk in memory. A clone is another handle to the same disk.
#[derive(Clone, Default)]
pub(super) struct FakeDisk(Arc<Device>);

#[derive(Default)]
struct Device {
    state: Mutex<DiskState>,
    /// Notified when an operation begins to wait, and when it may go on.
    stalled: Condvar,
}

impl FakeDisk {
    /// Returns a disk with these files.
    pub(super) fn with(files: &Files) -> Self {
        let disk = FakeDisk::default();
        for (name, data) in files {
            let node = Node::with(data);
            let mut state = disk.state();
            state.names.insert(name.clone(), node.clone());
            state.synced_names.insert(name.clone(), node);
        }
        disk
    }

    fn state(&self) -> MutexGuard<'_, DiskState> {
        self.0.state.lock()
    }

    /// Makes the operation with this number fail. The first operation has number 1.
    pub(super) fn fail(self, number: usize, fault: Fault) -> Self {
        self.state().faults.insert(number, fault);
        self
    }

    /// Makes these operations fail from this number on, until [`repair`](FakeDisk::repair).
    pub(super) fn break_down(&self, from: usize, operations: &'static [Operation]) {
        self.break_down_after(None, from, operations);
    }

    /// As [`break_down`](FakeDisk::break_down), after one operation `first` has failed.
    pub(super) fn break_down_after(
        &self,
        first: Option<Operation>,
        from: usize,
        operations: &'static [Operation],
    ) {
        self.state().outage = Some(Outage {
            from,
            first,
            operations,
        });
    }

    /// Ends an outage.
    pub(super) fn repair(&self) {
        self.state().outage = None;
    }

    /// Makes every rename fail, as if the log were a mount.
    pub(super) fn without_renames(self) -> Self {
        self.state().is_mount = true;
        self
    }

    /// Removes a file, as another process can.
    pub(super) fn remove_file(&self, path: &str) {
        self.state().names.remove(Path::new(path));
    }

    /// Truncates a file to nothing, as another process can.
    pub(super) fn truncate_file(&self, path: &str) {
        if let Some(node) = self.state().names.get(Path::new(path)) {
            node.lock().data.clear();
        }
    }

    /// Replaces a file, as another process can.
    pub(super) fn replace_file(&self, path: &str, data: &[u8]) {
        self.state().names.insert(path.into(), Node::with(data));
    }

    /// Makes these operations wait from now on.
    pub(super) fn stall(&self, operation: Operation) {
        self.state().stall = Some(Stall {
            operation,
            waiting: 0,
            released: 0,
        });
    }

    /// Waits until an operation waits.
    pub(super) fn wait_until_stalled(&self) {
        let idle =
            |state: &mut DiskState| state.stall.as_ref().is_none_or(|stall| stall.waiting == 0);
        let mut state = self.state();
        let waited = self.0.stalled.wait_while_for(&mut state, idle, LIMIT);
        assert!(!waited.timed_out(), "no operation waits");
    }

    /// Releases one operation that waits or will wait.
    pub(super) fn release_one(&self) {
        if let Some(stall) = &mut self.state().stall {
            stall.released += 1;
        }
        self.0.stalled.notify_all();
    }

    /// Releases all operations, and makes none wait any more.
    pub(super) fn release(&self) {
        self.state().stall = None;
        self.0.stalled.notify_all();
    }

    /// Begins an operation, and waits if it stalls.
    fn begin(&self, operation: Operation) -> MutexGuard<'_, DiskState> {
        let mut state = self.state();
        if let Some(stall) = state
            .stall
            .as_mut()
            .filter(|stall| stall.operation == operation)
        {
            stall.waiting += 1;
            self.0.stalled.notify_all();
            while state
                .stall
                .as_ref()
                .is_some_and(|stall| stall.released == 0)
            {
                self.0.stalled.wait(&mut state);
            }
            if let Some(stall) = &mut state.stall {
                stall.released -= 1;
                stall.waiting -= 1;
            }
        }
        state
    }

    /// Records a crash point after each operation. Each has a copy of the numbers that the caller puts into the note.
    pub(super) fn recorded(self) -> (Self, Arc<Mutex<Vec<u64>>>) {
        let note = self.state().note.clone();
        self.state().history = Some(Vec::new());
        (self, note)
    }

    /// Returns the crash points, and records no more.
    pub(super) fn history(&self) -> Vec<CrashPoint> {
        self.state().history.take().unwrap_or_default()
    }

    /// Returns the number of operations so far.
    pub(super) fn operations(&self) -> usize {
        self.state().operations
    }

    /// Returns the files that a kill and a power cut would leave now.
    pub(super) fn after_crash(&self) -> (Files, Files) {
        let point = self.state().crash_point();
        (point.killed(), point.power_cut())
    }

    /// Does an operation, unless it is to fail.
    fn operation<T>(
        &self,
        operation: Operation,
        work: impl FnOnce(&mut DiskState) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.begin(operation);
        match state.count(operation) {
            None => {}
            Some(Fault::Error(kind)) => return Err(kind.into()),
            Some(Fault::Short | Fault::Torn) => return Err(io::ErrorKind::StorageFull.into()),
        }
        let done = work(&mut state);
        state.done();
        done
    }
}

impl Disk for FakeDisk {
    type File = FakeFile;
    type LockFile = ();

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.into())
    }

    fn resolve_folder(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(match path == Path::new(".") {
            true => PathBuf::new(),
            false => path.into(),
        })
    }

    fn open(&self, path: &Path) -> io::Result<FakeFile> {
        let node = self.operation(Operation::Open, |state| {
            let is_new = !state.names.contains_key(path);
            let node = state.names.entry(path.into()).or_default().clone();
            if is_new {
                state.renamed();
            }
            Ok(node)
        })?;
        Ok(FakeFile::new(self.clone(), node))
    }

    fn create(&self, path: &Path, _: &FakeFile) -> io::Result<FakeFile> {
        let node = self.operation(Operation::Create, |state| {
            let node = Arc::new(Mutex::new(Node::default()));
            state.names.insert(path.into(), node.clone());
            state.renamed();
            Ok(node)
        })?;
        Ok(FakeFile::new(self.clone(), node))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation(Operation::Rename, |state| {
            if state.is_mount {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.into(), node);
            state.renamed();
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operation(Operation::Remove, |state| {
            state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
            state.renamed();
            Ok(())
        })
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.operation(Operation::SyncFolder, |state| {
            state.synced_names = state.names.clone();
            state.changed_names.clear();
            Ok(())
        })
    }

    fn lock(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, (): ()) {}

    fn is_at(&self, file: &FakeFile, path: &Path) -> io::Result<bool> {
        let found = self.state().names.get(path).cloned();
        Ok(found.is_some_and(|node| Arc::ptr_eq(&node, &file.node)))
    }

    fn check_replaceable(&self, _: &FakeFile, _: &Path, _: &Path) -> Result<(), String> {
        match self.state().is_mount {
            true => Err("the file itself is a mount".into()),
            false => Ok(()),
        }
    }
}
