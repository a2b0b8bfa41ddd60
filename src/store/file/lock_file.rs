//! [`LockFile`]: a locked file beside the log, by which other processes notice that the log is in use.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::identity;

/// A locked, empty file. Dropping it releases the lock and leaves the file.
pub(super) struct LockFile {
    file: File,
    path: PathBuf,
    /// [`LockFile::lock`] has created the file.
    created: bool,
}

/// How often the file is created again if another process removes it at the same time.
const ATTEMPTS: usize = 10;

impl LockFile {
    /// Creates the file if it is missing, and locks it.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if another process has locked the file, and the errors of opening it.
    pub(super) fn lock(path: &Path) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let mut options = OpenOptions::new();
            options.write(true);
            let (file, created) = match options.clone().create_new(true).open(path) {
                Ok(file) => (file, true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    match options.open(path) {
                        // Another process has discarded it meanwhile.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                        opened => (opened?, false),
                    }
                }
                Err(error) => return Err(error),
            };
            lock_or_warn(&file, path)?;
            // A lock on a file that was removed before it was locked protects nothing.
            if identity::is_at(&file, path)? {
                let path = path.to_owned();
                return Ok(LockFile {
                    file,
                    path,
                    created,
                });
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Releases the lock, and removes the file if [`lock`](LockFile::lock) has created it.
    pub(super) fn discard(self) {
        if self.created {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for LockFile {
    /// Closing alone would leave the file locked while a child process that is being started still has inherited the handle.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Locks an open file for this process. If the file system has no locks, logs a warning instead.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_when_it_is_dropped_even_if_the_handle_is_inherited() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = LockFile::lock(&path).unwrap();
        let inherited = lock.file.try_clone().unwrap();
        let refused = LockFile::lock(&path).map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        drop(LockFile::lock(&path).unwrap());
        drop(inherited);
    }

    #[test]
    fn discarding_a_lock_file_removes_it_only_if_it_did_not_exist_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        LockFile::lock(&path).unwrap().discard();
        assert!(!path.exists());
        drop(LockFile::lock(&path).unwrap());
        LockFile::lock(&path).unwrap().discard();
        assert!(path.exists());
    }
}
