//! What the log needs of a disk, so that tests can have one that fails, stalls, or forgets what was not synced.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::identity;
use super::sidecar::Sidecar;

pub(super) trait Disk: Send + Sync + 'static {
    type File: DiskFile;
    /// A lock, for as long as it is held.
    type Lock: Send;

    /// Returns the path of the file itself: absolute, every symbolic link followed. The file need not exist yet, but
    /// its folder must.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;
    /// Returns the absolute path of a folder, every symbolic link followed.
    fn resolve_folder(&self, path: &Path) -> io::Result<PathBuf>;
    /// Opens a file for reading and appending, and makes it where it is missing.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Makes a file, empty, in place of one that may be there. It has the mode of `like` and, as far as the system
    /// permits, the owner and group.
    fn create(&self, path: &Path, like: &Self::File) -> io::Result<Self::File>;
    /// Puts a file in the place of another, at once.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Returns when the names of the files in this file's folder would outlast a power cut.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Locks a sidecar, a file that is there for nothing else. `WouldBlock` where another process holds the lock.
    fn lock(&self, path: &Path) -> io::Result<Self::Lock>;
    /// Releases a lock. A sidecar that did not exist before it was locked is removed.
    fn discard(&self, lock: Self::Lock);
    /// Returns `true` if `path` leads to this open file, and not to another one or to none.
    fn is_at(&self, file: &Self::File, path: &Path) -> io::Result<bool>;
    /// Returns `Err` with the reason if the file can't be replaced by a rename, or would lose its owner or one of its
    /// names by that. `scratch` is a path beside the file that the check may use.
    fn check_replaceable(
        &self,
        file: &Self::File,
        path: &Path,
        scratch: &Path,
    ) -> Result<(), String>;
}

/// An open file; what is written goes to its end.
pub(super) trait DiskFile: Read + Seek + Send + 'static {
    /// Appends the bytes or the first few of them, and says how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Returns when all that was appended would outlast a power cut.
    fn sync(&mut self) -> io::Result<()>;
    /// Returns the file's size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Cuts off what is after so many bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Locks the file until it is dropped. `WouldBlock` where another process holds the lock, or another handle of this
    /// one. `path` is for messages.
    fn lock(&self, path: &Path) -> io::Result<()>;

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

/// Symbolic links that lead to symbolic links are followed this far, as Linux does.
const MAX_LINKS: usize = 40;

impl Disk for SystemDisk {
    type File = SystemFile;
    type Lock = Sidecar;

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        if let Ok(metadata) = fs::metadata(path) {
            if metadata.is_file() {
                return fs::canonicalize(path);
            }
            // A pipe or a terminal would be read for ever.
            return Err(match metadata.is_dir() {
                true => io::ErrorKind::IsADirectory.into(),
                false => io::ErrorKind::InvalidInput.into(),
            });
        }
        // The file does not exist yet, but links may lead to its place.
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match fs::read_link(&path) {
                Ok(target) => path = folder_of(&path).join(target),
                Err(_) => {
                    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
                    return Ok(fs::canonicalize(folder_of(&path))?.join(name));
                }
            }
        }
        Err(io::Error::other("too many symbolic links lead to it"))
    }

    fn resolve_folder(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn open(&self, path: &Path) -> io::Result<SystemFile> {
        let file = options().create(true).open(path)?;
        if file.metadata()?.is_file() {
            Ok(SystemFile(file))
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }

    fn create(&self, path: &Path, like: &SystemFile) -> io::Result<SystemFile> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = options();
        options.create_new(true);
        identity::private(&mut options);
        let file = options.open(path)?;
        identity::copy(&like.0, &file)?;
        Ok(SystemFile(file))
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
        let synced = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
        // Some file systems sync no folders, and a folder that may only be written can't be opened: PostgreSQL's
        // `fsync_fname` passes over the same.
        synced.or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported => Ok(()),
            _ => Err(error),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Sidecar> {
        Sidecar::lock(path)
    }

    fn discard(&self, lock: Sidecar) {
        lock.discard();
    }

    fn is_at(&self, file: &SystemFile, path: &Path) -> io::Result<bool> {
        identity::is_at(&file.0, path)
    }

    fn check_replaceable(
        &self,
        file: &SystemFile,
        path: &Path,
        scratch: &Path,
    ) -> Result<(), String> {
        if path.is_symlink() {
            return Err(
                "its path has become a symbolic link; restart the server to follow it".into(),
            );
        }
        let made = self.create(scratch, file);
        let made = made.map_err(|error| {
            format!("no file can be created beside it ({error}); make its folder writable")
        });
        let checked =
            made.and_then(|made| identity::check_replaceable(&file.0, &made.0, path, scratch));
        let _ = fs::remove_file(scratch);
        checked
    }
}

/// Locks an open file for this process. Where the file system has no locks, a warning is logged instead.
pub(super) fn lock_or_warn(file: &File, path: &Path) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
            log::warn!(
                "{path:?} can't be locked here ({error}): make sure that no other process opens the log"
            );
            Ok(())
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The folder that a file's name stands in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(windows)]
const GENERIC_READ: u32 = 0x8000_0000;
#[cfg(windows)]
const GENERIC_WRITE: u32 = 0x4000_0000;

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    // There, a handle that may only append can't truncate. `append` looks for the end itself instead.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::access_mode(&mut options, GENERIC_READ | GENERIC_WRITE);
    options
}

/// A file of the system's. Its lock is released when it is dropped: closing alone would leave the file locked while a
/// process that is just being started still has the handle, too.
pub(super) struct SystemFile(File);

impl Drop for SystemFile {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Read for SystemFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Seek for SystemFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

impl DiskFile for SystemFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(windows)]
        self.0.seek(SeekFrom::End(0))?;
        self.0.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    /// Locks belong to the open file description, so that this process may open the file again to read it. Windows
    /// would refuse such reads, so that there only the sidecar is locked.
    fn lock(&self, path: &Path) -> io::Result<()> {
        match cfg!(unix) {
            true => lock_or_warn(&self.0, path),
            false => Ok(()),
        }
    }
}
