//! [`Disk`]: the file system as far as the store needs it. Tests have one that fails, stalls, and loses what was not synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::lock_file::{LockFile, lock_or_warn};
use super::{CHUNK_BYTES, identity};

/// A file system.
pub(super) trait Disk: Send + Sync + 'static {
    type File: DiskFile;
    /// A locked lock file. Dropping it releases the lock.
    type LockFile: Send;

    /// Returns the absolute path of the file, without symbolic links. The file need not exist, but its folder must.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;
    /// Returns the absolute path of a folder, without symbolic links.
    fn resolve_folder(&self, path: &Path) -> io::Result<PathBuf>;
    /// Opens a file for reading and appending, and creates it if it is missing.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Creates an empty file, and removes one that is there before. The file has the mode of `like` and, as far as the system
    /// permits, its owner and group.
    fn create(&self, path: &Path, like: &Self::File) -> io::Result<Self::File>;
    /// Renames a file, and replaces one that has the new name, atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Returns once the names of the files in this file's folder survive a power cut.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Creates and locks a lock file. `WouldBlock` if another process has locked it.
    fn lock(&self, path: &Path) -> io::Result<Self::LockFile>;
    /// Releases a lock, and removes its lock file if locking has created it.
    fn discard(&self, lock_file: Self::LockFile);
    /// Returns `true` if `path` leads to this open file, and not to another file or to none.
    fn is_at(&self, file: &Self::File, path: &Path) -> io::Result<bool>;
    /// Returns `Err` with the reason if a rename can't replace the file, or would change its owner or leave one of its hard
    /// links with the old content. The check may create and remove a file at `scratch`, a path in the same folder.
    fn check_replaceable(
        &self,
        file: &Self::File,
        path: &Path,
        scratch: &Path,
    ) -> Result<(), String>;
}

/// An open file. Every write appends.
pub(super) trait DiskFile: Read + Seek + Send + 'static {
    /// Appends the bytes or the first of them, and returns their number.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Returns once everything appended survives a power cut.
    fn sync(&mut self) -> io::Result<()>;
    /// Returns the file's size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Truncates the file to this length, in bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Locks the file until it is dropped. `WouldBlock` if another process, or another handle of this process, has locked it.
    /// `path` is for messages.
    fn lock(&self, path: &Path) -> io::Result<()>;

    /// Appends all bytes.
    fn append_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.append(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Appends the bytes of `from` between two offsets to another file, and returns their number.
pub(super) fn copy<F: DiskFile>(from: &mut F, to: &mut F, start: u64, end: u64) -> io::Result<u64> {
    from.seek(SeekFrom::Start(start))?;
    let len = end.saturating_sub(start);
    let mut left = len;
    let mut buffer = vec![0; left.min(CHUNK_BYTES as u64) as usize];
    while left > 0 {
        let count = left.min(buffer.len() as u64) as usize;
        from.read_exact(&mut buffer[..count])?;
        to.append_all(&buffer[..count])?;
        left -= count as u64;
    }
    Ok(len)
}

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SystemDisk;

/// The most symbolic links that are followed in turn, as in Linux.
const MAX_LINKS: usize = 40;

impl Disk for SystemDisk {
    type File = SystemFile;
    type LockFile = LockFile;

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        if let Ok(metadata) = fs::metadata(path) {
            if metadata.is_file() {
                return fs::canonicalize(path);
            }
            // Reading a pipe or a terminal would not end.
            return Err(match metadata.is_dir() {
                true => io::ErrorKind::IsADirectory.into(),
                false => io::ErrorKind::InvalidInput.into(),
            });
        }
        // The file does not exist yet. Its path may be a symbolic link.
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
            // Other systems can't open a folder. They journal a rename.
            return Ok(());
        }
        let synced = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
        // Some file systems can't sync folders, and a folder without read permission can't be opened. PostgreSQL's
        // `fsync_fname` ignores the same errors.
        synced.or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported => Ok(()),
            _ => Err(error),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<LockFile> {
        LockFile::lock(path)
    }

    fn discard(&self, lock_file: LockFile) {
        lock_file.discard();
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
        let created = self.create(scratch, file);
        let created = created.map_err(|error| {
            format!("no file can be created beside it ({error}); make its folder writable")
        });
        let checked =
            created.and_then(|new| identity::check_replaceable(&file.0, &new.0, path, scratch));
        let _ = fs::remove_file(scratch);
        checked
    }
}

/// Returns the folder of a file.
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
    // On Windows, a handle that may only append can't truncate. `append` seeks to the end itself instead.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::access_mode(&mut options, GENERIC_READ | GENERIC_WRITE);
    options
}

/// A file of the operating system. Dropping it releases its lock: closing alone would leave the file locked while a child
/// process that is being started still has inherited the handle.
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

    /// On Unix, a lock belongs to the open file description, so this process may open the file again to read it. Windows would
    /// refuse such reads; there only the lock file is locked.
    fn lock(&self, path: &Path) -> io::Result<()> {
        match cfg!(unix) {
            true => lock_or_warn(&self.0, path),
            false => Ok(()),
        }
    }
}
