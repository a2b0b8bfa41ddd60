//! [`Reader`]: follows a stream, and shows its events to the broker in the stream's order.
//!
//! It checks with every read that nothing is missing: sequence numbers are consecutive, and the newest number in the
//! stream's state is that of the last entry.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::backoff::Backoff;
use super::entry::StreamEntry;
use super::link::{Link, Opened, Read, Trouble};
use super::state::Part;
use super::stream::Stream;
use crate::broker::{Beginning, Epoch, Feed, Refill};
use crate::store::Loss;

/// How long a read waits for the next event.
const BLOCK: Duration = Duration::from_secs(1);
/// The most entries of one read.
const COUNT: usize = 500;
/// The pause between two reads while a millisecond is open.
const CLOSE_PACE: Duration = Duration::from_millis(1);
/// How many reads are made at that pace, before the clock of Redis counts as set back.
const CLOSE_READS: usize = 20;

/// Follows a stream.
pub(super) struct Reader {
    stream: Arc<Stream>,
    feed: Feed,
    /// The id of the last entry that was shown.
    last: String,
    /// Its sequence number.
    sequence: u64,
    epochs: Vec<Epoch>,
    /// How many reads have been made since the last entry.
    idle_reads: usize,
}

impl Reader {
    pub(super) fn new(stream: Arc<Stream>, feed: Feed) -> Self {
        Reader {
            stream,
            feed,
            last: String::new(),
            sequence: 0,
            epochs: Vec::new(),
            idle_reads: 0,
        }
    }

    /// Connects, and fills the broker.
    pub(super) fn start(&mut self) -> Result<Link, Trouble> {
        let mut link = self.connect()?;
        for _ in 0..CLOSE_READS {
            if self.feed.has_open_millisecond() {
                self.follow(&mut link)?;
            }
        }
        Ok(link)
    }

    fn connect(&mut self) -> Result<Link, Trouble> {
        let mut link = Link::connect(&self.stream.target, BLOCK)?;
        self.open(&mut link)?;
        Ok(link)
    }

    /// Follows the stream until the stop.
    pub(super) fn run(mut self, link: Link) {
        let part = Part::Reader(self.stream.number);
        let (mut link, mut backoff) = (Some(link), Backoff::default());
        while !self.stream.is_stopped() && self.feed.is_alive() {
            let done = match link.take() {
                Some(mut open) => self.follow(&mut open).map(|()| link = Some(open)),
                None => self.connect().map(|open| {
                    self.stream.monitor.works(part, true);
                    link = Some(open);
                }),
            };
            match done {
                Ok(()) => backoff.reset(),
                Err(trouble) => {
                    self.stream.monitor.failed(part, trouble.reason());
                    self.stream.pause(backoff.next());
                }
            }
        }
    }

    /// Learns where the stream is, and goes on there. Begins again if events were lost.
    fn open(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let opened = self.stream.open(link)?;
        let present = self.feed.newest();
        let known = present.and_then(|(run, _)| {
            let epochs = opened.epochs.iter();
            epochs.clone().position(|epoch| epoch.run == run)
        });
        let continues = known.is_some_and(|known| {
            let later = &opened.epochs[known + 1..];
            later.iter().all(|epoch| epoch.continues)
        });
        if continues {
            self.epochs.clone_from(&opened.epochs);
            self.feed.continue_with(opened.epochs);
            return Ok(());
        }
        self.begin_again(link, opened, present.is_some())?;
        if present.is_some() {
            let reason =
                "Redis no longer has what this node has read, or another node has found that";
            self.stream.monitor.lost(self.stream.number, reason);
        }
        Ok(())
    }

    /// Reads the whole stream, and replaces what the broker has.
    fn begin_again(
        &mut self,
        link: &mut Link,
        opened: Opened,
        is_loss: bool,
    ) -> Result<(), Trouble> {
        let mut beginning = Beginning {
            epochs: opened.epochs.clone(),
            ..Beginning::default()
        };
        let (refill, last) = self.refill(link, &mut beginning)?;
        if beginning.sequence < opened.sequence {
            // Nothing is in the stream, or its end is missing.
            if expected(&opened.epochs, beginning.sequence) <= opened.sequence {
                beginning.lost.sequence = opened.sequence;
            }
            beginning.sequence = opened.sequence;
        }
        beginning.timestamp = beginning.timestamp.max(opened.timestamp);
        let breaks = opened.epochs.iter().rev().find(|epoch| !epoch.continues);
        let first = opened.epochs.first().map_or(0, |epoch| epoch.first);
        if let Some(epoch) = breaks.filter(|epoch| is_loss || epoch.first > first) {
            beginning.lost.sequence = beginning.lost.sequence.max(epoch.first - 1);
        }
        // When the newest lost event was published is not known: not after the newest event.
        if beginning.lost.sequence > 0 && (is_loss || beginning.lost.timestamp == 0) {
            beginning.lost.timestamp = opened.timestamp;
        }
        self.last = if last.is_empty() { "0-0".into() } else { last };
        self.sequence = beginning.sequence;
        self.epochs = opened.epochs;
        self.stream
            .knows(opened.run, self.sequence, beginning.timestamp);
        self.feed.begin_again(refill, beginning);
        self.feed.begin_check();
        self.feed.end_check(self.sequence.max(opened.sequence));
        Ok(())
    }

    /// Reads the whole stream. Returns its events and the id of its last entry.
    fn refill(
        &self,
        link: &mut Link,
        beginning: &mut Beginning,
    ) -> Result<(Refill, String), Trouble> {
        let mut refill = self.feed.refill();
        let mut last = String::new();
        loop {
            let entries = link.range(&last, COUNT)?;
            let Some(newest) = entries.last() else {
                return Ok((refill, last));
            };
            last.clone_from(&newest.id);
            for entry in &entries {
                if !self.belongs(entry, &beginning.epochs) {
                    continue;
                }
                let event = entry.event();
                let missing = expected(&beginning.epochs, beginning.sequence) < entry.sequence;
                if missing || event.is_none() {
                    let lost = Loss {
                        sequence: entry.sequence - u64::from(event.is_some()),
                        timestamp: entry.timestamp,
                    };
                    beginning.lost = beginning.lost.max(lost);
                }
                if let Some(event) = event {
                    refill.push(entry.sequence, event);
                }
                (beginning.sequence, beginning.timestamp) = (entry.sequence, entry.timestamp);
            }
        }
    }

    /// Returns `true` if an entry is of one of these epochs and has a number of it.
    fn belongs(&self, entry: &StreamEntry, epochs: &[Epoch]) -> bool {
        let known = entry.run().is_some_and(|run| {
            let epoch = epochs.iter().find(|epoch| epoch.run == run);
            epoch.is_some_and(|epoch| epoch.first <= entry.sequence)
        });
        if !known {
            log::warn!(
                "stream {}: the entry {} is left out, since it is of no known epoch",
                self.stream.number,
                entry.id
            );
        }
        known
    }

    /// Reads once, and shows what was read.
    fn follow(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let open = self.feed.has_open_millisecond();
        let block = match (open, self.idle_reads) {
            (true, ..CLOSE_READS) => None,
            (true, _) => Some(BLOCK / 10),
            (false, _) => Some(BLOCK),
        };
        if block.is_none() && self.idle_reads > 0 {
            self.stream.pause(CLOSE_PACE);
        }
        self.feed.begin_check();
        let read = link.read(&self.last, COUNT, block)?;
        self.stream
            .monitor
            .works(Part::Reader(self.stream.number), false);
        self.idle_reads = match read.entries.is_empty() {
            true => self.idle_reads + 1,
            false => 0,
        };
        let Read {
            time,
            newest,
            entries,
        } = read;
        let is_whole = entries.len() < COUNT;
        for entry in entries {
            if !self.show(entry, link)? {
                return Ok(());
            }
        }
        let run = self.epochs.last().map(|epoch| epoch.run);
        match newest {
            Some((epoch, newest)) if Some(epoch) == run => {
                self.feed.end_check(newest.max(self.sequence));
                if is_whole && newest > self.sequence {
                    // The stream was cut by hand.
                    return self.skip(newest, time);
                }
            }
            _ => return self.open(link),
        }
        if is_whole {
            // First: an event that is published after the close must not be of a closed millisecond.
            self.stream.raise(time);
            self.feed.close(time);
        }
        Ok(())
    }

    /// Shows the next entry. Returns `false` if the stream has to be read anew after the last entry that was shown.
    fn show(&mut self, entry: StreamEntry, link: &mut Link) -> Result<bool, Trouble> {
        let is_known = |epochs: &[Epoch]| epochs.iter().any(|epoch| Some(epoch.run) == entry.run());
        if entry.run().is_some() && !is_known(&self.epochs) {
            self.open(link)?;
            if is_known(&self.epochs) {
                return Ok(false);
            }
        }
        if !self.belongs(&entry, &self.epochs) || entry.sequence <= self.sequence {
            self.last = entry.id;
            return Ok(true);
        }
        if expected(&self.epochs, self.sequence) < entry.sequence {
            self.skip(entry.sequence - 1, entry.timestamp)?;
        }
        match entry.event() {
            Some(event) => {
                self.stream.monitor.read.fetch_add(1, Relaxed);
                self.feed.show(entry.sequence, event);
                self.stream.raise(self.feed.open_from());
            }
            None => self.skip(entry.sequence, entry.timestamp)?,
        }
        if let Some(run) = entry.run() {
            self.stream.knows(run, entry.sequence, entry.timestamp);
        }
        (self.sequence, self.last) = (entry.sequence, entry.id);
        Ok(true)
    }

    /// Notes that the events up to this number are missing.
    fn skip(&mut self, sequence: u64, timestamp: u64) -> Result<(), Trouble> {
        let reason = format!(
            "the numbers {} to {sequence} are not in the stream any more; raise max_stream_length if this node was \
             only slow",
            self.sequence + 1
        );
        self.feed.lose(sequence, timestamp);
        self.stream.monitor.lost(self.stream.number, &reason);
        self.sequence = sequence;
        Ok(())
    }
}

/// Returns the number of the event that follows this one, if nothing is missing.
fn expected(epochs: &[Epoch], sequence: u64) -> u64 {
    let next = sequence + 1;
    let begins = |epoch: &&Epoch| !epoch.continues && epoch.first > next;
    let in_epoch = epochs.first().is_some_and(|first| first.first <= next);
    match in_epoch {
        true => next,
        false => epochs.iter().find(begins).map_or(next, |epoch| epoch.first),
    }
}
