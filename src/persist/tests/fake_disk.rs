//! A disk in memory that fails when it is told to, and knows what a killed process and a power cut would leave of it.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::persist::disk::{Disk, DiskFile};

/// What becomes of an operation that is told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Error(io::ErrorKind),
    /// Half of the bytes are written, and the next write finds the disk full; any other operation fails.
    Short,
}

#[derive(Clone, Debug, Default)]
struct Node {
    data: Vec<u8>,
    /// How far the last sync that succeeded found the data.
    synced: Vec<u8>,
    /// What a sync that failed has dropped: the next one says that all is well, and it is not.
    dropped: Vec<(usize, usize)>,
}

impl Node {
    fn sync(&mut self) {
        self.synced = self.data.clone();
        for &(from, to) in &self.dropped {
            let to = to.min(self.synced.len());
            self.synced[from.min(to)..to].fill(0);
        }
    }
}

type Names = HashMap<PathBuf, Arc<Mutex<Node>>>;

#[derive(Default)]
struct World {
    names: Names,
    synced_names: Names,
    operations: usize,
    faults: HashMap<usize, Fault>,
    /// What a kill and a power cut after each operation would leave, with what `note` said then.
    history: Option<Vec<(Left, Left, usize)>>,
    note: Arc<Mutex<usize>>,
}

/// The files that are left, by name.
pub(super) type Left = HashMap<PathBuf, Vec<u8>>;

impl World {
    fn left(&self) -> (Left, Left) {
        let left = |names: &Names, what: fn(&Node) -> &Vec<u8>| {
            let file = |(name, node): (&PathBuf, &Arc<Mutex<Node>>)| {
                (name.clone(), what(&node.lock()).clone())
            };
            names.iter().map(file).collect()
        };
        (
            left(&self.names, |node| &node.data),
            left(&self.synced_names, |node| &node.synced),
        )
    }

    fn count(&mut self) -> Option<Fault> {
        self.operations += 1;
        self.faults.remove(&self.operations)
    }

    fn done(&mut self) {
        if self.history.is_none() {
            return;
        }
        let note = *self.note.lock();
        let (killed, cut) = self.left();
        self.history
            .get_or_insert_default()
            .push((killed, cut, note));
    }
}

#[derive(Clone, Default)]
pub(super) struct FakeDisk(Arc<Mutex<World>>);

impl FakeDisk {
    /// A disk with the files that are left of another.
    pub(super) fn with(left: &Left) -> Self {
        let disk = FakeDisk::default();
        for (name, data) in left {
            let node = Node {
                data: data.clone(),
                synced: data.clone(),
                ..Node::default()
            };
            let node = Arc::new(Mutex::new(node));
            let mut world = disk.0.lock();
            world.names.insert(name.clone(), node.clone());
            world.synced_names.insert(name.clone(), node);
        }
        disk
    }

    /// Fails the operation with this number, counted from 1.
    pub(super) fn fail(self, number: usize, fault: Fault) -> Self {
        self.0.lock().faults.insert(number, fault);
        self
    }

    /// Remembers what is left after every operation; and what the caller says with it.
    pub(super) fn remember(self) -> (Self, Arc<Mutex<usize>>) {
        let note = self.0.lock().note.clone();
        self.0.lock().history = Some(Vec::new());
        (self, note)
    }

    pub(super) fn history(&self) -> Vec<(Left, Left, usize)> {
        self.0.lock().history.take().unwrap_or_default()
    }

    pub(super) fn operations(&self) -> usize {
        self.0.lock().operations
    }

    /// What a killed process leaves, and what a power cut does.
    pub(super) fn left(&self) -> (Left, Left) {
        self.0.lock().left()
    }

    fn operation<T>(&self, work: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.0.lock();
        match world.count() {
            None => {}
            Some(Fault::Error(kind)) => return Err(kind.into()),
            Some(Fault::Short) => return Err(io::ErrorKind::StorageFull.into()),
        }
        let done = work(&mut world);
        world.done();
        done
    }
}

impl Disk for FakeDisk {
    type File = FakeFile;
    type Lock = ();

    fn open(&self, path: &Path) -> io::Result<FakeFile> {
        let node =
            self.operation(|world| Ok(world.names.entry(path.into()).or_default().clone()))?;
        Ok(FakeFile {
            disk: self.clone(),
            node,
            at: 0,
        })
    }

    fn create(&self, path: &Path) -> io::Result<FakeFile> {
        let node = self.operation(|world| {
            let node = Arc::new(Mutex::new(Node::default()));
            world.names.insert(path.into(), node.clone());
            Ok(node)
        })?;
        Ok(FakeFile {
            disk: self.clone(),
            node,
            at: 0,
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation(|world| {
            let node = world.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            world.names.insert(to.into(), node);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operation(|world| {
            world.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
            Ok(())
        })
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.operation(|world| {
            world.synced_names = world.names.clone();
            Ok(())
        })
    }

    fn lock(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

pub(super) struct FakeFile {
    disk: FakeDisk,
    node: Arc<Mutex<Node>>,
    at: usize,
}

impl Read for FakeFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let node = self.node.lock();
        let rest = node.data.get(self.at..).unwrap_or_default();
        let most = rest.len().min(buffer.len());
        buffer[..most].copy_from_slice(&rest[..most]);
        self.at += most;
        Ok(most)
    }
}

impl Seek for FakeFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(at) = position else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.at = at as usize;
        Ok(at)
    }
}

impl DiskFile for FakeFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut world = self.disk.0.lock();
        let taken = match world.count() {
            None => bytes.len(),
            Some(Fault::Error(kind)) => return Err(kind.into()),
            Some(Fault::Short) => {
                let next = world.operations + 1;
                let full = Fault::Error(io::ErrorKind::StorageFull);
                world.faults.insert(next, full);
                bytes.len().div_ceil(2)
            }
        };
        self.node.lock().data.extend_from_slice(&bytes[..taken]);
        world.done();
        Ok(taken)
    }

    fn sync(&mut self) -> io::Result<()> {
        let node = self.node.clone();
        let synced = self.disk.operation(|_| {
            node.lock().sync();
            Ok(())
        });
        if synced.is_err() {
            let mut node = self.node.lock();
            let lost = (node.synced.len(), node.data.len());
            node.dropped.push(lost);
        }
        synced
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let node = self.node.clone();
        self.disk.operation(|_| {
            node.lock().data.truncate(len as usize);
            Ok(())
        })
    }
}
