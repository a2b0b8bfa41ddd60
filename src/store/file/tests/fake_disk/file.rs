//! [`FakeFile`]: an open file of a fake disk.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::FakeDisk;
use super::state::{Fault, Node, Operation};
use crate::store::file::disk::DiskFile;

pub(in super::super) struct FakeFile {
    disk: FakeDisk,
    pub(super) node: Arc<Mutex<Node>>,
    /// The offset of the next read.
    offset: usize,
}

impl FakeFile {
    pub(super) fn new(disk: FakeDisk, node: Arc<Mutex<Node>>) -> Self {
        FakeFile {
            disk,
            node,
            offset: 0,
        }
    }
}

impl Read for FakeFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let node = self.node.lock();
        let rest = node.data.get(self.offset..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.offset += count;
        Ok(count)
    }
}

impl Seek for FakeFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(offset) = position else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.offset = offset as usize;
        Ok(offset)
    }
}

impl DiskFile for FakeFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.begin(Operation::Append);
        let accepted = match state.count(Operation::Append) {
            None => bytes.len(),
            Some(Fault::Error(kind)) => return Err(kind.into()),
            Some(Fault::Short) => {
                let next = state.operations + 1;
                let full = Fault::Error(io::ErrorKind::StorageFull);
                state.faults.insert(next, full);
                bytes.len().div_ceil(2)
            }
            Some(Fault::Torn) => {
                let half = &bytes[..bytes.len() / 2];
                self.node.lock().data.extend_from_slice(half);
                return Err(io::ErrorKind::StorageFull.into());
            }
        };
        self.node.lock().data.extend_from_slice(&bytes[..accepted]);
        state.done();
        Ok(accepted)
    }

    fn sync(&mut self) -> io::Result<()> {
        let node = self.node.clone();
        let synced = self.disk.operation(Operation::Sync, |_| {
            node.lock().sync();
            Ok(())
        });
        if synced.is_err() {
            let mut node = self.node.lock();
            let dropped = (node.synced.len(), node.data.len());
            node.dropped.push(dropped);
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
        self.disk.operation(Operation::Truncate, |_| {
            node.lock().data.truncate(len as usize);
            Ok(())
        })
    }
}
