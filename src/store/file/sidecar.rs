//! [`Sidecar`]: a locked file beside the log, which tells other processes that the log is in use.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::lock_or_warn;
use super::identity;

/// A locked file that holds nothing. Dropping it releases the lock and leaves the file.
pub(super) struct Sidecar {
    file: File,
    path: PathBuf,
    /// The file did not exist before.
    created: bool,
}

/// A file that another process removes at the same time is created again this often.
const ATTEMPTS: usize = 10;

impl Sidecar {
    /// Creates the file where it is missing, and locks it.
    ///
    /// # Errors
    ///
    /// `WouldBlock` where another process holds the lock; else those of opening.
    pub(super) fn lock(path: &Path) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let mut options = OpenOptions::new();
            options.write(true);
            let (file, created) = match options.clone().create_new(true).open(path) {
                Ok(file) => (file, true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    match options.open(path) {
                        // Removed meanwhile, by a start that was refused.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                        opened => (opened?, false),
                    }
                }
                Err(error) => return Err(error),
            };
            lock_or_warn(&file, path)?;
            // A file that was removed between opening and locking protects nothing.
            if identity::is_at(&file, path)? {
                let path = path.to_owned();
                return Ok(Sidecar {
                    file,
                    path,
                    created,
                });
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Releases the lock, and removes the file if it did not exist before.
    pub(super) fn discard(self) {
        if self.created {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for Sidecar {
    /// Closing alone would leave it locked while a process that is just being started still has the handle, too.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_when_it_is_dropped_although_the_handle_is_inherited() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = Sidecar::lock(&path).unwrap();
        let inherited = lock.file.try_clone().unwrap();
        let refused = Sidecar::lock(&path).map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        drop(Sidecar::lock(&path).unwrap());
        drop(inherited);
    }

    #[test]
    fn only_a_sidecar_that_did_not_exist_before_is_removed_when_it_is_discarded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        Sidecar::lock(&path).unwrap().discard();
        assert!(!path.exists());
        drop(Sidecar::lock(&path).unwrap());
        Sidecar::lock(&path).unwrap().discard();
        assert!(path.exists());
    }
}
