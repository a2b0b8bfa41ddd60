//! [`DiskState`]: the files of a fake disk, and which of its operations fail or stall.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::store::file::tests::crash_point::{Content, CrashPoint};

/// An operation of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Operation {
    Open,
    Create,
    Rename,
    Remove,
    SyncFolder,
    Append,
    Sync,
    Truncate,
}

impl Operation {
    pub(in super::super) const ALL: [Operation; 8] = [
        Operation::Open,
        Operation::Create,
        Operation::Rename,
        Operation::Remove,
        Operation::SyncFolder,
        Operation::Append,
        Operation::Sync,
        Operation::Truncate,
    ];
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fault {
    Error(io::ErrorKind),
    /// A write writes half of its bytes, and the next one finds the disk full. Any other operation fails.
    Short,
    /// A write writes half of its bytes and returns an error. Any other operation fails.
    Torn,
}

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) data: Vec<u8>,
    /// The data at the last sync that succeeded.
    pub(super) synced: Vec<u8>,
    /// The ranges that failed syncs have dropped. The next sync succeeds without writing them.
    pub(super) dropped: Vec<(usize, usize)>,
}

impl Node {
    /// A file with these bytes, all of them synced.
    pub(super) fn with(data: &[u8]) -> Arc<Mutex<Node>> {
        let node = Node {
            data: data.to_vec(),
            synced: data.to_vec(),
            ..Node::default()
        };
        Arc::new(Mutex::new(node))
    }

    pub(super) fn sync(&mut self) {
        self.synced = self.data.clone();
        for &(from, to) in &self.dropped {
            let to = to.min(self.synced.len());
            self.synced[from.min(to)..to].fill(0);
        }
    }
}

/// The files of a folder by name.
pub(super) type Names = HashMap<PathBuf, Arc<Mutex<Node>>>;

#[derive(Default)]
pub(super) struct DiskState {
    pub(super) names: Names,
    /// The names when the folder was last synced.
    pub(super) synced_names: Names,
    /// The names after each change since the folder was last synced.
    pub(super) changed_names: Vec<Names>,
    /// The number of operations so far.
    pub(super) operations: usize,
    /// Faults by the number of the operation.
    pub(super) faults: HashMap<usize, Fault>,
    pub(super) outage: Option<Outage>,
    pub(super) stall: Option<Stall>,
    /// The crash points after each operation, if the disk records them.
    pub(super) history: Option<Vec<CrashPoint>>,
    /// What the test notes for the crash points.
    pub(super) note: Arc<Mutex<Vec<u64>>>,
    /// The log is a mount, so that a rename can't replace it.
    pub(super) is_mount: bool,
}

/// Operations that fail until the disk is repaired.
pub(super) struct Outage {
    /// The number of the first operation that may fail.
    pub(super) from: usize,
    /// One of these operations fails before all others.
    pub(super) first: Option<Operation>,
    pub(super) operations: &'static [Operation],
}

impl Outage {
    fn fails(&mut self, operation: Operation) -> bool {
        let fails = match self.first {
            None => self.operations.contains(&operation),
            first => first == Some(operation),
        };
        if fails {
            self.first = None;
        }
        fails
    }
}

/// Operations of one kind that wait until the test releases them.
pub(super) struct Stall {
    pub(super) operation: Operation,
    /// The number of operations that wait.
    pub(super) waiting: usize,
    /// The number of operations that may go on.
    pub(super) released: usize,
}

impl DiskState {
    /// Returns the files at this moment.
    pub(super) fn crash_point(&self) -> CrashPoint {
        let contents = |names: &Names| {
            let content = |(name, node): (&PathBuf, &Arc<Mutex<Node>>)| {
                let Node { data, synced, .. } = node.lock().clone();
                (name.clone(), Content { data, synced })
            };
            names.iter().map(content).collect()
        };
        let since_synced = std::iter::once(&self.synced_names).chain(&self.changed_names);
        CrashPoint {
            files: contents(&self.names),
            since_synced: since_synced.map(contents).collect(),
            note: self.note.lock().clone(),
        }
    }

    /// Records a change of the names.
    pub(super) fn renamed(&mut self) {
        self.changed_names.push(self.names.clone());
    }

    /// Counts an operation. Returns its fault, if it is to fail.
    pub(super) fn count(&mut self, operation: Operation) -> Option<Fault> {
        self.operations += 1;
        let number = self.operations;
        if let Some(outage) = &mut self.outage
            && number >= outage.from
            && outage.fails(operation)
        {
            return Some(Fault::Torn);
        }
        self.faults.remove(&number)
    }

    /// Records the crash point after an operation.
    pub(super) fn done(&mut self) {
        if self.history.is_some() {
            let point = self.crash_point();
            self.history.get_or_insert_default().push(point);
        }
    }
}
