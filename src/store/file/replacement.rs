//! Replacing the file: by a compacted one, or by a new one after a failure.

use std::io::{self, Read};
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{SystemTime, UNIX_EPOCH};

use super::beside;
use super::compaction::{self, CompactedFile, Compactor};
use super::disk::{self, Disk, DiskFile};
use super::flusher::Flusher;
use super::location::Location;
use crate::store::Record;

impl<D: Disk> Flusher<D> {
    /// Starts a compaction if the file is large enough, and replaces the file once the compacted one is complete.
    pub(super) fn compact(&mut self) {
        let Some(from) = self.info.compact_from else {
            return;
        };
        let Some(compaction) = &mut self.compaction else {
            return self.start_compaction(from);
        };
        let Some(result) = compaction.poll() else {
            return;
        };
        self.compaction = None;
        if let Err(error) = result.and_then(|compacted| self.replace(compacted)) {
            log::warn!(
                "{} could not be compacted, and stays as it is: {error}",
                self.info.file_name.display()
            );
            let _ = self.disk.remove(&self.location.new_path());
            self.state.compact_threshold = 2 * self.len;
        }
    }

    fn start_compaction(&mut self, from: u64) {
        // The snapshot does not say that the run has ended.
        if self.len < from.max(self.state.compact_threshold) || self.state.ended.is_some() {
            return;
        }
        let is_large = |snapshot: u64| self.len > 2 * snapshot;
        if !self.snapshot.bytes().is_some_and(is_large) {
            return;
        }
        if !self.check_replaceable() {
            self.state.compact_threshold = 2 * self.len;
            return;
        }
        let compactor = Compactor {
            disk: self.disk.clone(),
            path: self.location.path.clone(),
            snapshot: self.snapshot.clone(),
            queue: self.queue.clone(),
            progress: self.progress.clone(),
            last_sequence: self.last_sequence,
            len: self.len,
        };
        self.compaction = Some(compactor.start());
    }

    pub(super) fn cancel_compaction(&mut self) {
        if let Some(compaction) = self.compaction.take() {
            compaction.cancel();
            let _ = self.disk.remove(&self.location.new_path());
        }
    }

    /// Completes a compacted file with what the file has got meanwhile, and replaces the file with it.
    fn replace(&mut self, compacted: CompactedFile<D::File>) -> io::Result<()> {
        let CompactedFile {
            mut file,
            mut len,
            snapshot_len,
            copied_to,
        } = compacted;
        let mut old = self.disk.open(&self.location.path)?;
        len += disk::copy(&mut old, &mut file, copied_to, self.len)?;
        file.sync()?;
        let new = self.location.new_path();
        // The lock of the old file ends with the old file.
        file.lock(&new)?;
        self.check_location(self.len)?;
        self.disk.rename(&new, &self.location.path)?;
        log::info!(
            "{}: compacted from {} to {len} bytes",
            self.info.file_name.display(),
            self.len
        );
        self.file = file;
        self.len = len;
        self.progress.bytes.store(len, Release);
        self.progress.rewritten.fetch_add(1, Relaxed);
        self.state.compact_threshold = 2 * snapshot_len;
        // Without a sync of the folder, a power cut may restore the old file, which lacks what is written from now on.
        if let Err(error) = self.disk.sync_folder(&self.location.path) {
            self.state.needs_rewrite = true;
            return Err(error);
        }
        Ok(())
    }

    /// Replaces a file that may lack what was written to it, by a new file of the broker's events. Removes from `records`
    /// what the new file has.
    pub(super) fn rewrite(&mut self, records: &mut Vec<Record>) -> io::Result<()> {
        self.cancel_compaction();
        let rewritten = self.try_rewrite(records);
        if rewritten.is_err() {
            let _ = self.disk.remove(&self.location.new_path());
        }
        rewritten
    }

    fn try_rewrite(&mut self, records: &mut Vec<Record>) -> io::Result<()> {
        let last_sequence = self.last_rewritable_sequence(records);
        let mut content = self.snapshot.records(last_sequence);
        if content.is_empty() {
            return Err(io::Error::other(
                "it must be replaced by a new file, and the broker is gone",
            ));
        }
        content.extend(self.state.ended.clone());
        let new = self.location.new_path();
        let file = self.disk.create(&new, &self.file);
        let mut file = file.map_err(not_replaceable)?;
        let len = compaction::write(&mut file, &content, &|| false)?;
        file.sync()?;
        self.put_in_place(file)?;
        self.state.has_partial_write = false;
        self.disk.sync_folder(&self.location.path)?;
        self.state.needs_rewrite = false;
        self.ends_with_newline = true;
        (self.len, self.last_sequence) = (len, last_sequence);
        self.progress.bytes.store(len, Release);
        self.state.compact_threshold = 2 * len;
        self.progress.rewritten.fetch_add(1, Relaxed);
        log::warn!(
            "{}: replaced by a new file of the events in memory, because it could not be synced or was removed",
            self.info.file_name.display()
        );
        self.remove_rewritten(records, last_sequence);
        Ok(())
    }

    /// Returns the sequence number up to which a new file may have events: without acknowledgement, subscribers see all
    /// events in the queue already.
    fn last_rewritable_sequence(&self, records: &[Record]) -> u64 {
        let newest = records.iter().rev().find_map(Record::sequence);
        match newest {
            Some(newest) if !self.is_acknowledged() => newest,
            _ => self.last_sequence,
        }
    }

    /// Removes the records that a new file with the events up to this number has.
    fn remove_rewritten(&self, records: &mut Vec<Record>, last_sequence: u64) {
        let bytes = |records: &[Record]| records.iter().map(Record::line_len).sum::<usize>();
        let (lines, before) = (records.len(), bytes(records));
        records.retain(|record| match record {
            Record::Published { .. } | Record::Purged { .. } => {
                record.sequence() > Some(last_sequence)
            }
            Record::Batch(last) | Record::Keyed { last, .. } => {
                let last = last.sequence().unwrap_or(0);
                last > last_sequence
            }
            Record::Refused(_) | Record::Ended(_) => true,
            // The snapshot includes what all others say.
            _ => false,
        });
        let lines = (lines - records.len()) as u64;
        self.progress.written.fetch_add(lines, Relaxed);
        self.queue.free(before - bytes(records));
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
fn not_replaceable(error: io::Error) -> io::Error {
    let problem = format!(
        "the file could not be synced or was removed, and a new one can't take its place ({error}); stop the server, \
         check the disk and the folder, and start it again"
    );
    io::Error::new(error.kind(), problem)
}
