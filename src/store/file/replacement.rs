//! [`Place`]: where the log stands, and what the flusher does when another file has to take the log's place, or has done so.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{SystemTime, UNIX_EPOCH};

use super::beside;
use super::compaction;
use super::disk::{Disk, DiskFile};
use super::flusher::Flusher;
use crate::store::Record;

/// Where the log stands.
#[derive(Debug)]
pub(super) struct Place {
    /// Every symbolic link followed, so that a rename replaces the file and not a link to it.
    pub(super) path: PathBuf,
    /// False where the file system gives no lasting identity to files.
    is_checked: bool,
    /// Why the file can't be replaced, as logged last.
    unreplaceable: Option<String>,
}

impl Place {
    pub(super) fn new(path: PathBuf, is_checked: bool) -> Self {
        Place {
            path,
            is_checked,
            unreplaceable: None,
        }
    }

    pub(super) fn new_path(&self) -> PathBuf {
        compaction::new_path(&self.path)
    }
}

impl<D: Disk> Flusher<D> {
    /// Checks that the open file is the one at its path, and has at least `len` bytes.
    ///
    /// # Errors
    ///
    /// Where it was removed, replaced or truncated: no next start finds what was written to it.
    pub(super) fn check_place(&self, len: u64) -> io::Result<()> {
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
        let Place {
            path, is_checked, ..
        } = &self.place;
        Ok(*is_checked && !self.disk.is_at(&self.file, path)?)
    }

    /// Returns `true` if the file can be replaced by a compacted one. Logs the reason where it can't, once.
    pub(super) fn check_replaceable(&mut self) -> bool {
        let Place { path, .. } = &self.place;
        let checked = self
            .disk
            .check_replaceable(&self.file, path, &self.place.new_path());
        let reason = checked.err();
        let is_replaceable = reason.is_none();
        if self.place.unreplaceable != reason {
            let name = self.info.file_name.display();
            match &reason {
                Some(reason) => {
                    log::warn!("{name}: it is not compacted, and grows with every event: {reason}");
                }
                None => log::info!("{name}: it can be compacted again"),
            }
            self.place.unreplaceable = reason;
        }
        is_replaceable
    }

    /// Writes a new file of what is held, and puts it in the place of one that is not trusted. What it has is taken out
    /// of `records`.
    pub(super) fn rewrite(&mut self, records: &mut Vec<Record>) -> io::Result<()> {
        self.cancel_compaction();
        let rewritten = self.try_rewrite(records);
        if rewritten.is_err() {
            let _ = self.disk.remove(&self.place.new_path());
        }
        rewritten
    }

    fn try_rewrite(&mut self, records: &mut Vec<Record>) -> io::Result<()> {
        // Where nobody waits for the disk, all that was handed over can be seen already.
        let newest = records.iter().rev().find_map(|record| match record {
            Record::Published { sequence, .. } => Some(*sequence),
            _ => None,
        });
        let reached = match newest {
            Some(newest) if !self.is_acknowledged() => newest,
            _ => self.reached,
        };
        let mut held = self.live.records(reached);
        if held.is_empty() {
            return Err(io::Error::other(
                "it must be replaced by a new file, and the broker is gone",
            ));
        }
        held.extend(self.state.ended.clone());
        let new = self.place.new_path();
        let mut file = self.disk.create(&new, &self.file).map_err(no_new_file)?;
        let len = compaction::write(&mut file, &held, &|| false)?;
        file.sync()?;
        self.put_in_place(file)?;
        self.state.torn = false;
        self.disk.sync_folder(&self.place.path)?;
        self.state.needs_rewrite = false;
        self.ends_with_newline = true;
        (self.len, self.reached) = (len, reached);
        self.progress.bytes.store(len, Release);
        self.state.compact_threshold = 2 * len;
        self.progress.rewritten.fetch_add(1, Relaxed);
        log::warn!(
            "{}: a new file of the events in memory has taken the place of one that could not be synced or was removed",
            self.info.file_name.display()
        );
        let bytes = |records: &[Record]| records.iter().map(Record::line_len).sum::<usize>();
        let (lines, before) = (records.len(), bytes(records));
        records.retain(|record| match record {
            Record::Published { sequence, .. } => *sequence > reached,
            Record::Refused(_) | Record::Ended(_) => true,
            // What these tell, the new file has.
            _ => false,
        });
        let lines = (lines - records.len()) as u64;
        self.progress.written.fetch_add(lines, Relaxed);
        self.queue.written(before - bytes(records));
        Ok(())
    }

    /// Renames a new file to the log's path. It is locked before: the lock of the old file ends with that.
    fn put_in_place(&mut self, file: D::File) -> io::Result<()> {
        let Place { path, .. } = &self.place;
        let new = self.place.new_path();
        file.lock(&new)?;
        if self.is_replaced()? {
            self.clear_place()?;
        }
        self.disk.rename(&new, path).map_err(no_new_file)?;
        self.file = file;
        Ok(())
    }

    /// Moves a file aside that was put in the log's place while the log was open, unless it is empty.
    ///
    /// # Errors
    ///
    /// Where another process has that file for its log: then it stays.
    fn clear_place(&self) -> io::Result<()> {
        let Place { path, .. } = &self.place;
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
            "{}: another file was put in its place while it was open, and is now {}",
            self.info.file_name.display(),
            aside.display()
        );
        Ok(())
    }
}

fn no_new_file(error: io::Error) -> io::Error {
    let problem = format!(
        "the file could not be synced or was removed, and a new one can't take its place ({error}); stop the server, \
         check the disk and the folder, and start it again"
    );
    io::Error::new(error.kind(), problem)
}
