//! [`Location`]: where the file is, and whether the open file is still there.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::beside;
use super::compaction;
use super::disk::{Disk, DiskFile};
use super::flusher::Flusher;

/// Where the file is.
#[derive(Debug)]
pub(super) struct Location {
    /// The path without symbolic links, so that a rename replaces the file and not a link to it.
    pub(super) path: PathBuf,
    /// False if the file system gives files no lasting identity, so that a replaced file can't be noticed.
    has_identity: bool,
    /// Why the file can't be replaced, to log a reason once.
    unreplaceable: Option<String>,
}

impl Location {
    pub(super) fn new(path: PathBuf, has_identity: bool) -> Self {
        Location {
            path,
            has_identity,
            unreplaceable: None,
        }
    }

    /// Returns the path of a new file that is to replace this one.
    pub(super) fn new_path(&self) -> PathBuf {
        compaction::new_path(&self.path)
    }
}

impl<D: Disk> Flusher<D> {
    /// Checks that the open file is the one at its path, and has at least `len` bytes.
    ///
    /// # Errors
    ///
    /// If it was removed, replaced or truncated: the next start would not find what was written to it.
    pub(super) fn check_location(&self, len: u64) -> io::Result<()> {
        let what = if self.is_replaced()? {
            "removed or replaced"
        } else if self.file.size()? < len {
            "truncated"
        } else {
            return Ok(());
        };
        Err(io::Error::other(format!(
            "the file was {what} while it was open; the events in memory are written to a new one"
        )))
    }

    fn is_replaced(&self) -> io::Result<bool> {
        let Location {
            path, has_identity, ..
        } = &self.location;
        Ok(*has_identity && !self.disk.is_at(&self.file, path)?)
    }

    /// Returns `true` if a new file can replace the file. Logs the reason if it can't, each reason once.
    pub(super) fn check_replaceable(&mut self) -> bool {
        let Location { path, .. } = &self.location;
        let checked = self
            .disk
            .check_replaceable(&self.file, path, &self.location.new_path());
        let reason = checked.err();
        let is_replaceable = reason.is_none();
        if self.location.unreplaceable != reason {
            let name = self.info.file_name.display();
            match &reason {
                Some(reason) => {
                    log::warn!("{name}: it is not compacted, and grows with every event: {reason}");
                }
                None => log::info!("{name}: it can be compacted again"),
            }
            self.location.unreplaceable = reason;
        }
        is_replaceable
    }

    /// Renames a new file to the path. Locks it before: the lock of the old file ends with the old file.
    pub(super) fn put_in_place(&mut self, file: D::File) -> io::Result<()> {
        let Location { path, .. } = &self.location;
        let new = self.location.new_path();
        file.lock(&new)?;
        if self.is_replaced()? {
            self.move_aside()?;
        }
        self.disk.rename(&new, path).map_err(not_replaceable)?;
        self.file = file;
        Ok(())
    }

    /// Moves away a file that another program has put at the path, unless it is empty.
    ///
    /// # Errors
    ///
    /// If another process has that file open as its log. It is then not moved.
    fn move_aside(&self) -> io::Result<()> {
        let Location { path, .. } = &self.location;
        let mut other = self.disk.open(path)?;
        other.lock(path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::other(
                "the file was replaced while it was open, and another process uses the new one; stop one of the two",
            ),
            _ => error,
        })?;
        if other.read(&mut [0])? == 0 {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let milliseconds = now.unwrap_or_default().as_millis();
        let aside = beside(path, &format!(".replaced-{milliseconds}"));
        self.disk.rename(path, &aside)?;
        log::warn!(
            "{}: another program has replaced the file while it was open; its file is now {}",
            self.info.file_name.display(),
            aside.display()
        );
        Ok(())
    }
}

/// Adds to an error of the disk what to do if the file can't be replaced.
pub(super) fn not_replaceable(error: io::Error) -> io::Error {
    let problem = format!(
        "the file could not be synced or was removed, and a new one can't take its place ({error}); stop the server, \
         check the disk and the folder, and start it again"
    );
    io::Error::new(error.kind(), problem)
}
