//! The thread that writes records to the file, so that nobody who publishes has to.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, Release},
};
use std::{io, mem};

use super::compaction::{self, Compaction};
use super::disk::{Disk, DiskFile};
use super::info::{Durability, FilePersistorInfo, FileState};
use super::queue::{Pause, Queue, Taken};
use super::replacement::Place;
use crate::atomic::AtomicU64;
use crate::store::{Record, Snapshot};

/// Records are written in pieces of about this size.
const PIECE: usize = 256 << 10;

/// What the flusher tells others of what it has done.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) written: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) rewritten: AtomicU64,
    /// The size of the file as far as it is whole, which grows while it is made smaller by another thread.
    pub(super) bytes: AtomicU64,
    /// The file has everything, but may not have it for good.
    pub(super) unsynced: AtomicBool,
    /// The file was removed or replaced, and no new one could be written.
    pub(super) missing: AtomicBool,
}

pub(super) struct Flusher<D: Disk> {
    pub(super) disk: Arc<D>,
    pub(super) info: FilePersistorInfo,
    pub(super) place: Place,
    pub(super) queue: Arc<Queue>,
    pub(super) progress: Arc<Progress>,
    pub(super) live: Snapshot,
    pub(super) file: D::File,
    /// How far the file is whole: what is after this was not written to its end.
    pub(super) len: u64,
    /// False where the file ends within a line: a line break is written before the first record.
    pub(super) ends_with_newline: bool,
    /// The file has every event up to this sequence number, or says that it was refused.
    pub(super) reached: u64,
    pub(super) state: Writing,
    pub(super) compaction: Option<Compaction<D::File>>,
}

/// How far an attempt has come.
#[derive(Default)]
struct Reached {
    len: u64,
    sequence: u64,
    ended: Option<Record>,
    records: usize,
    /// Lines, and bytes of the queue, that are not counted yet.
    lines: u64,
    bytes: usize,
}

/// How the file is.
#[derive(Default)]
pub(super) struct Writing {
    /// Lines on their way, kept for its memory.
    piece: Vec<u8>,
    /// That the run has ended, once it has been written.
    pub(super) ended: Option<Record>,
    /// It may have bytes after [`Flusher::len`].
    pub(super) torn: bool,
    /// A sync, or repairing it, has failed, or the file is no longer at its path: what it says it has, it may not have.
    pub(super) needs_rewrite: bool,
    /// Why the last attempt failed that did.
    reason: Option<String>,
    /// It is not made smaller before it has so many bytes.
    pub(super) compact_threshold: u64,
}

impl<D: Disk> Flusher<D> {
    /// Writes until the queue is stopped and everything is in the file and synced, or can't be.
    pub(super) fn run(mut self) {
        loop {
            let taken = self.queue.take();
            let stopped = taken.stopped;
            if !self.keep(taken) {
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

    pub(super) fn cancel_compaction(&mut self) {
        if let Some(compaction) = self.compaction.take() {
            compaction.cancel();
            let _ = self.disk.remove(&self.place.new_path());
        }
    }

    /// Brings records into the file, trying again each period; false where the queue was stopped and it still fails.
    fn keep(&mut self, taken: Taken) -> bool {
        let Taken {
            mut records,
            mut up_to,
            stopped,
        } = taken;
        // A run begins after all events that the file has from before.
        if let Some(Record::Started { position, .. }) = records.first() {
            self.reached = position
                .parts()
                .map_or(self.reached, |(_, sequence)| sequence);
        }
        let mut last_try = false;
        while let Err(error) = self.attempt(&mut records) {
            self.failed(&error);
            if self.is_acknowledged() {
                // So that a process killed now leaves nothing of what is refused.
                let _ = self.repair();
                self.refuse(&mut records, up_to);
            }
            if mem::replace(
                &mut last_try,
                stopped || self.queue.pause(self.info.period()) == Pause::Stopped,
            ) {
                self.queue
                    .settle(up_to - records.len() as u64, events(&records));
                return false;
            }
            // What has come meanwhile goes with the next attempt, be it to have an answer.
            let more = self.queue.take_now();
            records.extend(more.records);
            up_to = more.up_to;
        }
        self.worked();
        self.queue.settle(up_to, 0);
        true
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        self.info.durability == Durability::Acknowledged
    }

    /// Writes records, and syncs them where that is asked for. Those that are done with are taken out.
    fn attempt(&mut self, records: &mut Vec<Record>) -> io::Result<()> {
        if self.state.needs_rewrite {
            self.rewrite(records)?;
        }
        self.repair()?;
        let mut reached = Reached {
            len: self.len,
            sequence: self.reached,
            ..Reached::default()
        };
        while reached.records < records.len() {
            let before = reached.records;
            if let Err(error) = self.write_piece(&records[before..], &mut reached) {
                self.state.torn = true;
                if !self.is_acknowledged() {
                    records.drain(..before);
                }
                return Err(error);
            }
            if !self.is_acknowledged() {
                self.advance(&mut reached);
            }
        }
        if reached.records > 0 {
            let synced = match self.info.durability {
                Durability::Buffered => Ok(()),
                _ => self.file.sync(),
            };
            // A sync that failed says nothing about what is on the disk, and the next one may succeed without having
            // written it: the file is not trusted again. Nor is one that nobody finds any more.
            if let Err(error) = synced.and_then(|()| self.check_place(reached.len)) {
                self.state.needs_rewrite = true;
                if self.is_acknowledged() {
                    self.state.torn = true;
                } else {
                    records.clear();
                }
                return Err(error);
            }
        }
        self.advance(&mut reached);
        records.clear();
        Ok(())
    }

    /// Cuts off what was not written to its end.
    fn repair(&mut self) -> io::Result<()> {
        if self.state.torn {
            let repaired = self.file.truncate(self.len);
            self.state.needs_rewrite |= repaired.is_err();
            repaired?;
            self.state.torn = false;
        }
        Ok(())
    }

    /// Writes the first few of these records.
    fn write_piece(&mut self, records: &[Record], reached: &mut Reached) -> io::Result<()> {
        let piece = &mut self.state.piece;
        piece.clear();
        if !self.ends_with_newline && reached.len == self.len {
            piece.push(b'\n');
        }
        for record in records {
            record.push_line(piece);
            reached.records += 1;
            reached.lines += 1;
            reached.bytes += record.line_len();
            match record {
                Record::Published { sequence, .. } => reached.sequence = *sequence,
                Record::Refused(id) => {
                    let refused = id.parts().map_or(0, |(_, sequence)| sequence);
                    reached.sequence = reached.sequence.max(refused);
                }
                Record::Ended(_) => reached.ended = Some(record.clone()),
                _ => {}
            }
            if piece.len() >= PIECE {
                break;
            }
        }
        self.file.append_all(piece)?;
        reached.len += piece.len() as u64;
        // The memory of an event much larger than others is given back.
        piece.shrink_to(2 * PIECE);
        Ok(())
    }

    /// What has been reached is final, whatever comes next.
    fn advance(&mut self, reached: &mut Reached) {
        self.ends_with_newline |= reached.len > self.len;
        (self.len, self.reached) = (reached.len, reached.sequence);
        self.state.ended = reached.ended.take().or(self.state.ended.take());
        self.progress.bytes.store(self.len, Release);
        let lines = mem::take(&mut reached.lines);
        self.progress.written.fetch_add(lines, Relaxed);
        self.queue.written(mem::take(&mut reached.bytes));
    }

    /// Tells the publishers of events that they are not kept, and leaves a record in their place.
    fn refuse(&mut self, records: &mut Vec<Record>, up_to: u64) {
        let refused = records.iter().rev().find_map(|record| match record {
            Record::Published { event, .. } => Some(event.id()),
            _ => None,
        });
        let bytes = records.iter().map(Record::line_len).sum();
        records.retain(|record| record.event().is_none());
        if let Some(last) = refused {
            records.retain(|record| !matches!(record, Record::Refused(_)));
            // Before a run's end, after all else.
            let at = records
                .iter()
                .position(|record| matches!(record, Record::Ended(_)));
            records.insert(at.unwrap_or(records.len()), Record::Refused(last));
        }
        self.queue.written(bytes);
        self.queue.refuse(up_to);
    }

    /// What has been written before the disk failed for good is synced, if that can be.
    fn give_up(&mut self) {
        let synced = !self.state.needs_rewrite && self.file.sync().is_ok();
        let unsynced = !self.is_acknowledged() && !synced;
        self.progress.unsynced.store(unsynced, Release);
        let missing = self.check_place(self.len).is_err();
        self.progress.missing.store(missing, Release);
    }

    /// Syncs what was written without, at the end; a file that is not trusted is replaced.
    fn finish(&mut self) {
        for _ in 0..2 {
            let synced = if self.state.needs_rewrite {
                self.attempt(&mut Vec::new())
            } else {
                self.file.sync().and_then(|()| self.check_place(self.len))
            };
            let Err(error) = synced else {
                return self.worked();
            };
            self.failed(&error);
            self.state.needs_rewrite = true;
        }
        self.progress.unsynced.store(true, Release);
        let missing = self.check_place(self.len).is_err();
        self.progress.missing.store(missing, Release);
    }

    fn failed(&mut self, error: &io::Error) {
        self.progress.failures.fetch_add(1, Relaxed);
        let reason = error.to_string();
        if self.queue.set_failing(Some(&reason)) {
            log::error!(
                "{} can't be written: {reason}; it is tried again every {:?}",
                self.info.file_name.display(),
                self.info.period()
            );
            self.tell(&FileState::Failing {
                reason: reason.clone(),
            });
        } else if self.state.reason.as_ref() != Some(&reason) {
            let name = self.info.file_name.display();
            log::error!("{name} still can't be written: {reason}");
        }
        self.state.reason = Some(reason);
    }

    fn worked(&mut self) {
        if self.queue.set_failing(None) {
            log::warn!("{} is written again", self.info.file_name.display());
            self.tell(&FileState::Working);
        }
    }

    fn tell(&self, state: &FileState) {
        if let Some(callback) = &self.info.on_change {
            callback.call(state);
        }
    }

    /// Has the file made smaller where it is worth it, and takes the smaller one once it is there.
    fn compact(&mut self) {
        let Some(from) = self.info.compact_from else {
            return;
        };
        match &mut self.compaction {
            Some(compaction) => {
                let Some(result) = compaction.take() else {
                    return;
                };
                self.compaction = None;
                let replaced = result.and_then(|ready| self.replace(ready));
                if let Err(error) = replaced {
                    log::warn!(
                        "{} could not be made smaller, and goes on as it is: {error}",
                        self.info.file_name.display()
                    );
                    let _ = self.disk.remove(&self.place.new_path());
                    self.state.compact_threshold = 2 * self.len;
                }
            }
            None if self.len < from.max(self.state.compact_threshold) => {}
            // What is held does not say so.
            None if self.state.ended.is_some() => {}
            None => {
                let is_large = self.live.bytes().is_some_and(|live| self.len > 2 * live);
                if !is_large {
                    return;
                }
                if self.check_replaceable() {
                    self.compaction = Some(compaction::start(
                        self.disk.clone(),
                        self.place.path.clone(),
                        self.live.clone(),
                        self.queue.clone(),
                        self.progress.clone(),
                        self.reached,
                        self.len,
                    ));
                } else {
                    self.state.compact_threshold = 2 * self.len;
                }
            }
        }
    }

    /// Brings a smaller file up to date, and puts it in the place of this one.
    fn replace(&mut self, ready: compaction::Ready<D::File>) -> io::Result<()> {
        let compaction::Ready {
            mut file,
            mut len,
            held,
            copied_to,
        } = ready;
        let mut old = self.disk.open(&self.place.path)?;
        len += compaction::copy(&mut old, &mut file, copied_to, self.len)?;
        file.sync()?;
        let new = self.place.new_path();
        // The lock of the old file ends with that file.
        file.lock(&new)?;
        self.check_place(self.len)?;
        self.disk.rename(&new, &self.place.path)?;
        log::info!(
            "{}: {} bytes have become {len}",
            self.info.file_name.display(),
            self.len
        );
        self.file = file;
        self.len = len;
        self.progress.bytes.store(len, Release);
        self.progress.rewritten.fetch_add(1, Relaxed);
        self.state.compact_threshold = 2 * held;
        // A power cut now may bring the old file back, which then lacks what is written from here on.
        if let Err(error) = self.disk.sync_folder(&self.place.path) {
            self.state.needs_rewrite = true;
            return Err(error);
        }
        Ok(())
    }
}

impl<D: Disk> Drop for Flusher<D> {
    /// Also where this thread panics.
    fn drop(&mut self) {
        self.queue.end();
    }
}

fn events(records: &[Record]) -> u64 {
    let events = records.iter().filter(|record| record.event().is_some());
    events.count() as u64
}
