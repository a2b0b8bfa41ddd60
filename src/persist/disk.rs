//! What the log needs of a disk, so that tests can have one that fails, stalls, or forgets what was not synced.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

pub(super) trait Disk: Send + Sync + 'static {
    type File: DiskFile;
    /// A lock, for as long as it is held.
    type Lock: Send;

    /// Opens a file for reading and appending, and makes it where it is missing.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Makes a file, empty, in place of one that may be there.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Puts a file in the place of another, at once.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Returns when the names of the files in this file's folder would outlast a power cut.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Locks a file that is there for nothing else. `WouldBlock` where somebody has it.
    fn lock(&self, path: &Path) -> io::Result<Self::Lock>;
}

/// An open file; what is written goes to its end.
pub(super) trait DiskFile: Read + Seek + Send + 'static {
    /// Appends the bytes or the first few of them, and says how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Returns when all that was appended would outlast a power cut.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts off what is after so many bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// Appends until the file has taken everything or fails.
    fn append_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.append(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => bytes = &bytes[taken..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The system's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SystemDisk;

impl Disk for SystemDisk {
    type File = File;
    type Lock = Lock;

    fn open(&self, path: &Path) -> io::Result<File> {
        let file = options().open(path)?;
        // A pipe or a terminal would be read for ever.
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        options().open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        if !cfg!(unix) {
            // Elsewhere a folder can't be opened; the rename itself is journaled.
            return Ok(());
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        // Some file systems sync no folders, and a folder that may only be written can't be opened: PostgreSQL's
        // `fsync_fname` passes over the same.
        synced.or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported => Ok(()),
            _ => Err(error),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                log::warn!(
                    "{path:?} can't be locked here ({error}): see that no other process opens the file"
                );
                Ok(Lock(file))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// A locked file.
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Closing alone would leave it locked while a process that is just being started still has the handle, too.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[cfg(windows)]
const GENERIC_READ: u32 = 0x8000_0000;
#[cfg(windows)]
const GENERIC_WRITE: u32 = 0x4000_0000;

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    // There, a handle that may only append can't truncate. `append` looks for the end itself instead.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::access_mode(&mut options, GENERIC_READ | GENERIC_WRITE);
    options
}

impl DiskFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(windows)]
        self.seek(io::SeekFrom::End(0))?;
        self.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_when_it_is_let_go_of_whoever_else_has_the_handle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = SystemDisk.lock(&path).unwrap();
        let inherited = lock.0.try_clone().unwrap();
        let refused = SystemDisk.lock(&path).map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        drop(SystemDisk.lock(&path).unwrap());
        drop(inherited);
    }
}
