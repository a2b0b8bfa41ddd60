//! [`Flusher`]: the thread that writes records to the file, so that publishers need not wait for the disk.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::{io, mem};

use super::compaction::Compaction;
use super::disk::{Disk, DiskFile};
use super::flush_progress::FlushProgress;
use super::info::{FilePersistorInfo, FileState};
use super::location::Location;
use super::queue::{Pause, Queue, Work};
use super::{CHUNK_BYTES, Durability};
use crate::store::refusal::refuse_events;
use crate::store::{Record, Snapshot};

/// Writes records to the file.
///
/// If a write fails, the flusher truncates the file to what was written completely, and tries again each period. If a sync
/// or the truncation fails, it writes a new file from the broker's events and replaces the file with it. The events of a
/// failed attempt stay for the next one, or, with [`Durability::Acknowledged`], are refused.
pub(super) struct Flusher<D: Disk> {
    pub(super) disk: Arc<D>,
    pub(super) info: FilePersistorInfo,
    pub(super) location: Location,
    pub(super) queue: Arc<Queue>,
    pub(super) progress: Arc<FlushProgress>,
    pub(super) snapshot: Snapshot,
    pub(super) file: D::File,
    /// The length of the part of the file that was written completely, in bytes.
    pub(super) len: u64,
    /// False if the file ends within a line: a line break must come before the next record.
    pub(super) ends_with_newline: bool,
    /// The file has every event up to this sequence number, or a record that it was refused.
    pub(super) last_sequence: u64,
    pub(super) state: WriteState,
    /// The compaction that is running, if there is one.
    pub(super) compaction: Option<Compaction<D::File>>,
}

/// The state of the file between two attempts to write.
#[derive(Default)]
pub(super) struct WriteState {
    /// The lines of the next write; kept for its memory.
    buffer: Vec<u8>,
    /// The record that the run has ended, once the file has it.
    pub(super) ended: Option<Record>,
    /// The file may have bytes after [`Flusher::len`], from a write that failed.
    pub(super) has_partial_write: bool,
    /// The file may lack what was written to it: a sync or a truncation has failed, or the file is no longer at its path.
    /// A new file must replace it.
    pub(super) needs_rewrite: bool,
    /// Why the last failed attempt failed, to log each reason once.
    last_failure: Option<String>,
    /// The file is not compacted before it has this many bytes.
    pub(super) compact_threshold: u64,
}

/// The progress of one attempt to write records.
#[derive(Default)]
struct Attempt {
    /// [`Flusher::len`] and [`Flusher::last_sequence`], if the attempt succeeds.
    len: u64,
    last_sequence: u64,
    ended: Option<Record>,
    /// The records that are written.
    records: usize,
    /// Lines, and bytes of the queue, that [`Flusher::advance`] has not counted yet.
    lines: u64,
    bytes: usize,
}

impl<D: Disk> Flusher<D> {
    /// Writes until the queue is stopped, and everything is in the file and synced or can't be.
    pub(super) fn run(mut self) {
        loop {
            let work = self.queue.wait_for_work();
            let stopped = work.stopped;
            if !self.write_until_settled(work) {
                self.give_up();
                break;
            }
            self.compact();
            if stopped {
                self.finish();
                break;
            }
        }
        self.cancel_compaction();
    }

    /// Writes records, and tries again each period. Returns `false` if the queue was stopped and the disk still fails.
    fn write_until_settled(&mut self, work: Work) -> bool {
        let Work {
            mut records,
            mut last_ticket,
            stopped,
        } = work;
        // A run starts after all events that the file had before.
        if let Some(Record::Started { position, .. }) = records.first() {
            self.last_sequence = position.sequence().unwrap_or(self.last_sequence);
        }
        let mut is_last_try = false;
        while let Err(error) = self.attempt(&mut records) {
            self.report_failure(&error);
            if self.is_acknowledged() {
                // If the process is killed now, the file must not have an event that is refused.
                let _ = self.truncate_partial_write();
                self.refuse(&mut records, last_ticket);
            }
            let now_stopped = stopped || self.queue.pause(self.info.period()) == Pause::Stopped;
            if mem::replace(&mut is_last_try, now_stopped) {
                self.queue
                    .settle(last_ticket - records.len() as u64, count_events(&records));
                return false;
            }
            // The next attempt includes the records appended meanwhile, if only to refuse them.
            let more = self.queue.take_work();
            records.extend(more.records);
            last_ticket = more.last_ticket;
        }
        self.report_success();
        self.queue.settle(last_ticket, 0);
        true
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        self.info.durability == Durability::Acknowledged
    }

    /// Writes records, and syncs them if the durability asks for it. Removes from `records` what needs no further attempt.
    pub(super) fn attempt(&mut self, records: &mut Vec<Record>) -> io::Result<()> {
        if self.state.needs_rewrite {
            self.rewrite(records)?;
        }
        self.truncate_partial_write()?;
        let mut attempt = Attempt {
            len: self.len,
            last_sequence: self.last_sequence,
            ..Attempt::default()
        };
        self.write_all(records, &mut attempt)?;
        if attempt.records > 0 {
            self.sync_written(records, &attempt)?;
        }
        self.advance(&mut attempt);
        records.clear();
        Ok(())
    }

    /// Truncates the file to what was written completely.
    fn truncate_partial_write(&mut self) -> io::Result<()> {
        if self.state.has_partial_write {
            let truncated = self.file.truncate(self.len);
            self.state.needs_rewrite |= truncated.is_err();
            truncated?;
            self.state.has_partial_write = false;
        }
        Ok(())
    }

    fn write_all(&mut self, records: &mut Vec<Record>, attempt: &mut Attempt) -> io::Result<()> {
        while attempt.records < records.len() {
            let before = attempt.records;
            if let Err(error) = self.write_chunk(&records[before..], attempt) {
                self.state.has_partial_write = true;
                if !self.is_acknowledged() {
                    records.drain(..before);
                }
                return Err(error);
            }
            if !self.is_acknowledged() {
                self.advance(attempt);
            }
        }
        Ok(())
    }

    /// Writes the first of these records, about [`CHUNK_BYTES`] of them.
    fn write_chunk(&mut self, records: &[Record], attempt: &mut Attempt) -> io::Result<()> {
        let buffer = &mut self.state.buffer;
        buffer.clear();
        if !self.ends_with_newline && attempt.len == self.len {
            buffer.push(b'\n');
        }
        for record in records {
            record.push_line(buffer);
            attempt.records += 1;
            attempt.lines += 1;
            attempt.bytes += record.line_len();
            match record {
                Record::Published { .. } | Record::Purged { .. } => {
                    attempt.last_sequence = record.sequence().unwrap_or(attempt.last_sequence);
                }
                Record::Refused(id) => {
                    let refused = id.sequence().unwrap_or(0);
                    attempt.last_sequence = attempt.last_sequence.max(refused);
                }
                Record::Ended(_) => attempt.ended = Some(record.clone()),
                _ => {}
            }
            // The lines of a key and of a batch stay with their events: a compaction may begin after this chunk.
            if buffer.len() >= CHUNK_BYTES && !record.precedes_its_events() {
                break;
            }
        }
        self.file.append_all(buffer)?;
        attempt.len += buffer.len() as u64;
        // A single event much larger than a chunk must not keep its memory.
        buffer.shrink_to(2 * CHUNK_BYTES);
        Ok(())
    }

    /// Syncs the file if the durability asks for it, and checks that it is still at its path.
    fn sync_written(&mut self, records: &mut Vec<Record>, attempt: &Attempt) -> io::Result<()> {
        let synced = match self.info.durability {
            Durability::Buffered => Ok(()),
            _ => self.file.sync(),
        };
        // After a failed sync, nothing is known about what is on the disk, and the next sync may succeed without having
        // written it: the file must be replaced. So must a file that the next start would not find.
        let checked = synced.and_then(|()| self.check_location(attempt.len));
        if checked.is_err() {
            self.state.needs_rewrite = true;
            if self.is_acknowledged() {
                self.state.has_partial_write = true;
            } else {
                records.clear();
            }
        }
        checked
    }

    /// Makes the progress of an attempt final: whatever fails next, these records are not written again.
    fn advance(&mut self, attempt: &mut Attempt) {
        self.ends_with_newline |= attempt.len > self.len;
        (self.len, self.last_sequence) = (attempt.len, attempt.last_sequence);
        self.state.ended = attempt.ended.take().or(self.state.ended.take());
        self.progress.bytes.store(self.len, Release);
        let lines = mem::take(&mut attempt.lines);
        self.progress.written.fetch_add(lines, Relaxed);
        self.queue.free(mem::take(&mut attempt.bytes));
    }

    /// Refuses all events of these records, and puts one [`Record::Refused`] in their place.
    fn refuse(&mut self, records: &mut Vec<Record>, last_ticket: u64) {
        let bytes = records.iter().map(Record::line_len).sum();
        refuse_events(records);
        self.queue.free(bytes);
        self.queue.refuse(last_ticket);
    }

    /// Ends after the disk has failed for good: syncs what was written before, if that is possible.
    fn give_up(&mut self) {
        let synced = !self.state.needs_rewrite && self.file.sync().is_ok();
        let unsynced = !self.is_acknowledged() && !synced;
        self.end_incomplete(unsynced);
    }

    /// Ends after everything was written: syncs the file, and replaces it if that fails.
    fn finish(&mut self) {
        for _ in 0..2 {
            let synced = if self.state.needs_rewrite {
                self.attempt(&mut Vec::new())
            } else {
                self.file
                    .sync()
                    .and_then(|()| self.check_location(self.len))
            };
            let Err(error) = synced else {
                return self.report_success();
            };
            self.report_failure(&error);
            self.state.needs_rewrite = true;
        }
        self.end_incomplete(true);
    }

    /// Says for the error of the stop what the file lacks.
    fn end_incomplete(&self, unsynced: bool) {
        self.progress.unsynced.store(unsynced, Release);
        let missing = self.check_location(self.len).is_err();
        self.progress.missing.store(missing, Release);
    }

    fn report_failure(&mut self, error: &io::Error) {
        self.progress.failures.fetch_add(1, Relaxed);
        let reason = error.to_string();
        let name = self.info.file_name.display();
        if self.queue.set_failing(Some(&reason)) {
            log::error!(
                "{name} can't be written: {reason}; trying again every {:?}",
                self.info.period()
            );
            self.call_on_change(&FileState::Failing {
                reason: reason.clone(),
            });
        } else if self.state.last_failure.as_ref() != Some(&reason) {
            log::error!("{name} still can't be written: {reason}");
        }
        self.state.last_failure = Some(reason);
    }

    fn report_success(&mut self) {
        if self.queue.set_failing(None) {
            log::warn!("{} can be written again", self.info.file_name.display());
            self.call_on_change(&FileState::Working);
        }
    }

    fn call_on_change(&self, state: &FileState) {
        if let Some(callback) = &self.info.on_change {
            callback.call(state);
        }
    }
}

impl<D: Disk> Drop for Flusher<D> {
    /// Also runs if the flusher panics, so that no thread waits for it.
    fn drop(&mut self) {
        self.queue.end();
    }
}

fn count_events(records: &[Record]) -> u64 {
    let events = records.iter().filter(|record| record.event().is_some());
    events.count() as u64
}
