//! The thread that writes records to the file, so that nobody who publishes has to.

use std::path::PathBuf;
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
use crate::atomic::AtomicU64;
use crate::broker::Live;
use crate::record::Record;

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
}

pub(super) struct Flusher<D: Disk> {
    pub(super) disk: Arc<D>,
    pub(super) info: FilePersistorInfo,
    pub(super) queue: Arc<Queue>,
    pub(super) progress: Arc<Progress>,
    pub(super) live: Live,
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
    ended: Option<Record>,
    /// It may have bytes after [`Flusher::len`].
    torn: bool,
    /// A sync, or repairing it, has failed: what it says it has, it may not have.
    distrusted: bool,
    /// It is not made smaller before it has so many bytes.
    worth_compacting: u64,
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

    fn cancel_compaction(&mut self) {
        if let Some(compaction) = self.compaction.take() {
            compaction.cancel();
            let _ = self.disk.remove(&self.new_path());
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

    fn is_acknowledged(&self) -> bool {
        self.info.durability == Durability::Acknowledged
    }

    /// Writes records, and syncs them where that is asked for. Those that are done with are taken out.
    fn attempt(&mut self, records: &mut Vec<Record>) -> io::Result<()> {
        if self.state.distrusted {
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
        if self.info.durability != Durability::Buffered && reached.records > 0 {
            // A sync that failed says nothing about what is on the disk, and the next one may succeed without having
            // written it: the file is not trusted again.
            if let Err(error) = self.file.sync() {
                self.state.distrusted = true;
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
            self.state.distrusted |= repaired.is_err();
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

    /// Writes a new file of what is held, and puts it in the place of one that is not trusted. What it has is taken out
    /// of `records`.
    fn rewrite(&mut self, records: &mut Vec<Record>) -> io::Result<()> {
        self.cancel_compaction();
        let rewritten = self.try_rewrite(records);
        if rewritten.is_err() {
            let _ = self.disk.remove(&self.new_path());
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
                "it could not be synced, and the broker is gone",
            ));
        }
        held.extend(self.state.ended.clone());
        let new = self.new_path();
        let mut file = self.disk.create(&new)?;
        let len = compaction::write(&mut file, &held, &|| false)?;
        file.sync()?;
        self.disk.rename(&new, &self.info.file_name)?;
        self.file = file;
        self.state.torn = false;
        self.disk.sync_folder(&self.info.file_name)?;
        self.state.distrusted = false;
        self.ends_with_newline = true;
        (self.len, self.reached) = (len, reached);
        self.progress.bytes.store(len, Release);
        self.state.worth_compacting = 2 * len;
        self.progress.rewritten.fetch_add(1, Relaxed);
        log::warn!(
            "{}: a new file has taken the place of one that could not be synced",
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

    fn new_path(&self) -> PathBuf {
        compaction::new_path(&self.info.file_name)
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
        let synced = !self.state.distrusted && self.file.sync().is_ok();
        let unsynced = !self.is_acknowledged() && !synced;
        self.progress.unsynced.store(unsynced, Release);
    }

    /// Syncs what was written without, at the end; a file that is not trusted is replaced.
    fn finish(&mut self) {
        for _ in 0..2 {
            let synced = if self.state.distrusted {
                self.attempt(&mut Vec::new())
            } else {
                self.file.sync()
            };
            let Err(error) = synced else {
                return self.worked();
            };
            self.failed(&error);
            self.state.distrusted = true;
        }
        self.progress.unsynced.store(true, Release);
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
            self.tell(&FileState::Failing { reason });
        }
    }

    fn worked(&mut self) {
        if self.queue.set_failing(None) {
            log::warn!("{} is written again", self.info.file_name.display());
            self.tell(&FileState::Working);
        }
    }

    fn tell(&self, state: &FileState) {
        if let Some(callback) = &self.info.on_change {
            callback.tell(state);
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
                    let _ = self.disk.remove(&self.new_path());
                    self.state.worth_compacting = 2 * self.len;
                }
            }
            None if self.len < from.max(self.state.worth_compacting) => {}
            // What is held does not say so.
            None if self.state.ended.is_some() => {}
            None => {
                if self.live.bytes().is_some_and(|live| self.len > 2 * live) {
                    self.compaction = Some(compaction::start(
                        self.disk.clone(),
                        self.info.file_name.clone(),
                        self.live.clone(),
                        self.queue.clone(),
                        self.progress.clone(),
                        self.reached,
                        self.len,
                    ));
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
        let mut old = self.disk.open(&self.info.file_name)?;
        len += compaction::copy(&mut old, &mut file, copied_to, self.len)?;
        file.sync()?;
        self.disk.rename(&self.new_path(), &self.info.file_name)?;
        log::info!(
            "{}: {} bytes have become {len}",
            self.info.file_name.display(),
            self.len
        );
        self.file = file;
        self.len = len;
        self.progress.bytes.store(len, Release);
        self.progress.rewritten.fetch_add(1, Relaxed);
        self.state.worth_compacting = 2 * held;
        // A power cut now may bring the old file back, which then lacks what is written from here on.
        if let Err(error) = self.disk.sync_folder(&self.info.file_name) {
            self.state.distrusted = true;
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
