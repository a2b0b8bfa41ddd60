//! A disk in memory that fails or stalls when it is told to, and knows what a killed process and a power cut would leave of
//! it.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::LIMIT;
use super::crash_point::{Content, Left, Moment};
use crate::store::file::disk::{Disk, DiskFile};

/// What a disk is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open,
    Create,
    Rename,
    Remove,
    SyncFolder,
    Append,
    Sync,
    Truncate,
}

impl Kind {
    pub(super) const ALL: [Kind; 8] = [
        Kind::Open,
        Kind::Create,
        Kind::Rename,
        Kind::Remove,
        Kind::SyncFolder,
        Kind::Append,
        Kind::Sync,
        Kind::Truncate,
    ];
}

/// What becomes of an operation that is told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Error(io::ErrorKind),
    /// Half of the bytes are written, and the next write finds the disk full; any other operation fails.
    Short,
    /// Half of the bytes are written, and all the same it fails.
    Torn,
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
    /// The names after each change since the folder was synced.
    changed_names: Vec<Names>,
    operations: usize,
    faults: HashMap<usize, Fault>,
    outage: Option<Outage>,
    stall: Option<Stall>,
    /// The moments after each operation.
    history: Option<Vec<Moment>>,
    note: Arc<Mutex<Vec<u64>>>,
    /// No file can be renamed to another's name.
    is_mount: bool,
}

/// Operations that fail until the disk is mended.
struct Outage {
    /// The number of the first operation that may fail.
    from: usize,
    /// Of this kind one fails before all others.
    first: Option<Kind>,
    kinds: &'static [Kind],
}

impl Outage {
    fn fails(&mut self, kind: Kind) -> bool {
        let fails = match self.first {
            None => self.kinds.contains(&kind),
            first => first == Some(kind),
        };
        if fails {
            self.first = None;
        }
        fails
    }
}

/// Operations of one kind that wait until they are let go on.
struct Stall {
    kind: Kind,
    waiting: usize,
    /// So many may go on.
    let_pass: usize,
}

impl World {
    fn moment(&self) -> Moment {
        let contents = |names: &Names| {
            let content = |(name, node): (&PathBuf, &Arc<Mutex<Node>>)| {
                let Node { data, synced, .. } = node.lock().clone();
                (name.clone(), Content { data, synced })
            };
            names.iter().map(content).collect()
        };
        let since_synced = std::iter::once(&self.synced_names).chain(&self.changed_names);
        Moment {
            files: contents(&self.names),
            since_synced: since_synced.map(contents).collect(),
            note: self.note.lock().clone(),
        }
    }

    fn renamed(&mut self) {
        self.changed_names.push(self.names.clone());
    }

    fn count(&mut self, kind: Kind) -> Option<Fault> {
        self.operations += 1;
        let number = self.operations;
        if let Some(outage) = &mut self.outage
            && number >= outage.from
            && outage.fails(kind)
        {
            return Some(Fault::Torn);
        }
        self.faults.remove(&number)
    }

    fn done(&mut self) {
        if self.history.is_some() {
            let moment = self.moment();
            self.history.get_or_insert_default().push(moment);
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct FakeDisk(Arc<Device>);

#[derive(Default)]
struct Device {
    world: Mutex<World>,
    /// Told when operations have begun or ceased to wait.
    stalled: Condvar,
}

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
            let mut world = disk.world();
            world.names.insert(name.clone(), node.clone());
            world.synced_names.insert(name.clone(), node);
        }
        disk
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock()
    }

    /// Fails the operation with this number, counted from 1.
    pub(super) fn fail(self, number: usize, fault: Fault) -> Self {
        self.world().faults.insert(number, fault);
        self
    }

    /// Fails all operations of these kinds, from the one with this number on, until the disk is mended.
    pub(super) fn break_down(&self, from: usize, kinds: &'static [Kind]) {
        self.break_down_after(None, from, kinds);
    }

    /// And before them, one of another kind.
    pub(super) fn break_down_after(
        &self,
        first: Option<Kind>,
        from: usize,
        kinds: &'static [Kind],
    ) {
        self.world().outage = Some(Outage { from, first, kinds });
    }

    pub(super) fn mend(&self) {
        self.world().outage = None;
    }

    /// Refuses to rename a file, as where the log's name is a mount.
    pub(super) fn mount(self) -> Self {
        self.world().is_mount = true;
        self
    }

    /// Removes a file, as another process does.
    pub(super) fn take_away(&self, path: &str) {
        self.world().names.remove(Path::new(path));
    }

    /// Empties a file, as another process does.
    pub(super) fn empty(&self, path: &str) {
        if let Some(node) = self.world().names.get(Path::new(path)) {
            node.lock().data.clear();
        }
    }

    /// Puts a file in the place of another, as another process does.
    pub(super) fn put(&self, path: &str, data: &[u8]) {
        let node = Node {
            data: data.to_vec(),
            synced: data.to_vec(),
            ..Node::default()
        };
        let node = Arc::new(Mutex::new(node));
        self.world().names.insert(path.into(), node);
    }

    /// Has operations of this kind wait from now on.
    pub(super) fn stall(&self, kind: Kind) {
        self.world().stall = Some(Stall {
            kind,
            waiting: 0,
            let_pass: 0,
        });
    }

    /// Waits until an operation waits.
    pub(super) fn wait_until_stalled(&self) {
        let idle = |world: &mut World| world.stall.as_ref().is_none_or(|stall| stall.waiting == 0);
        let mut world = self.world();
        let waited = self.0.stalled.wait_while_for(&mut world, idle, LIMIT);
        assert!(!waited.timed_out(), "no operation waits");
    }

    /// Lets one operation go on that waits or will.
    pub(super) fn let_one_pass(&self) {
        if let Some(stall) = &mut self.world().stall {
            stall.let_pass += 1;
        }
        self.0.stalled.notify_all();
    }

    /// Lets all go on.
    pub(super) fn release(&self) {
        self.world().stall = None;
        self.0.stalled.notify_all();
    }

    /// Begins an operation: where it stalls, waits.
    fn begin(&self, kind: Kind) -> MutexGuard<'_, World> {
        let mut world = self.world();
        if let Some(stall) = world.stall.as_mut().filter(|stall| stall.kind == kind) {
            stall.waiting += 1;
            self.0.stalled.notify_all();
            while world
                .stall
                .as_ref()
                .is_some_and(|stall| stall.let_pass == 0)
            {
                self.0.stalled.wait(&mut world);
            }
            if let Some(stall) = &mut world.stall {
                stall.let_pass -= 1;
                stall.waiting -= 1;
            }
        }
        world
    }

    /// Remembers the moment after every operation; and what the caller says with it.
    pub(super) fn remember(self) -> (Self, Arc<Mutex<Vec<u64>>>) {
        let note = self.world().note.clone();
        self.world().history = Some(Vec::new());
        (self, note)
    }

    pub(super) fn history(&self) -> Vec<Moment> {
        self.world().history.take().unwrap_or_default()
    }

    pub(super) fn operations(&self) -> usize {
        self.world().operations
    }

    /// What a killed process leaves, and what a power cut does.
    pub(super) fn left(&self) -> (Left, Left) {
        let moment = self.world().moment();
        (moment.killed(), moment.cut())
    }

    fn operation<T>(
        &self,
        kind: Kind,
        work: impl FnOnce(&mut World) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut world = self.begin(kind);
        match world.count(kind) {
            None => {}
            Some(Fault::Error(kind)) => return Err(kind.into()),
            Some(Fault::Short | Fault::Torn) => return Err(io::ErrorKind::StorageFull.into()),
        }
        let done = work(&mut world);
        world.done();
        done
    }
}

impl Disk for FakeDisk {
    type File = FakeFile;
    type Lock = ();

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
        let node = self.operation(Kind::Open, |world| {
            let made = !world.names.contains_key(path);
            let node = world.names.entry(path.into()).or_default().clone();
            if made {
                world.renamed();
            }
            Ok(node)
        })?;
        Ok(FakeFile {
            disk: self.clone(),
            node,
            at: 0,
        })
    }

    fn create(&self, path: &Path, _: &FakeFile) -> io::Result<FakeFile> {
        let node = self.operation(Kind::Create, |world| {
            let node = Arc::new(Mutex::new(Node::default()));
            world.names.insert(path.into(), node.clone());
            world.renamed();
            Ok(node)
        })?;
        Ok(FakeFile {
            disk: self.clone(),
            node,
            at: 0,
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation(Kind::Rename, |world| {
            if world.is_mount {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            let node = world.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            world.names.insert(to.into(), node);
            world.renamed();
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operation(Kind::Remove, |world| {
            world.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
            world.renamed();
            Ok(())
        })
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.operation(Kind::SyncFolder, |world| {
            world.synced_names = world.names.clone();
            world.changed_names.clear();
            Ok(())
        })
    }

    fn lock(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, (): ()) {}

    fn is_at(&self, file: &FakeFile, path: &Path) -> io::Result<bool> {
        let found = self.world().names.get(path).cloned();
        Ok(found.is_some_and(|node| Arc::ptr_eq(&node, &file.node)))
    }

    fn check_replaceable(&self, _: &FakeFile, _: &Path, _: &Path) -> Result<(), String> {
        match self.world().is_mount {
            true => Err("the file itself is a mount".into()),
            false => Ok(()),
        }
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
        let mut world = self.disk.begin(Kind::Append);
        let taken = match world.count(Kind::Append) {
            None => bytes.len(),
            Some(Fault::Error(kind)) => return Err(kind.into()),
            Some(Fault::Short) => {
                let next = world.operations + 1;
                let full = Fault::Error(io::ErrorKind::StorageFull);
                world.faults.insert(next, full);
                bytes.len().div_ceil(2)
            }
            Some(Fault::Torn) => {
                let half = &bytes[..bytes.len() / 2];
                self.node.lock().data.extend_from_slice(half);
                return Err(io::ErrorKind::StorageFull.into());
            }
        };
        self.node.lock().data.extend_from_slice(&bytes[..taken]);
        world.done();
        Ok(taken)
    }

    fn sync(&mut self) -> io::Result<()> {
        let node = self.node.clone();
        let synced = self.disk.operation(Kind::Sync, |_| {
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

    fn size(&self) -> io::Result<u64> {
        Ok(self.node.lock().data.len() as u64)
    }

    fn lock(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let node = self.node.clone();
        self.disk.operation(Kind::Truncate, |_| {
            node.lock().data.truncate(len as usize);
            Ok(())
        })
    }
}
