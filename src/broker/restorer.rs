//! [`Restorer`]: finds out from a log which runs there were, what they lost, and where the next one goes on.

use std::hash::{BuildHasher, RandomState};

use super::clock::{Clock, MAX_STEPS};
use super::ring::{Entry, plausible};
use super::sequencer::{Past, RunRange, Sequencer};
use crate::event::Event;
use crate::position::{EventId, MAX_SEQUENCE, Run};
use crate::store::{Loss, Record};

/// How many earlier runs are known at most: a position of an older one is as good as unknown.
const MAX_RUNS: usize = 10_000;

/// A log whose sequence numbers step up by more than this at once is damaged there: nobody publishes that many events.
/// Whatever the greatest number is, this run and many more can go on from it.
const MAX_STEP: u64 = 1 << 56;
/// The year 10000, in Unix milliseconds: no run starts later, except those that follow one another.
const MAX_START: u64 = 253_402_300_800_000;
/// A run past [`MAX_START`] starts at most this many milliseconds after the run before it.
const MAX_START_STEP: u64 = 1 << 20;

/// Reads back what a file tells, oldest first, before the first new event is stamped.
///
/// Sequence numbers have no holes but where something is missing. A run that did not say how it ended may have lost its
/// last events, unless it acknowledged each: a number is left out for them, which counts as a lost event.
#[derive(Default)]
pub(crate) struct Restorer {
    earlier: Vec<RunRange>,
    /// The last of `earlier` has not ended.
    open: bool,
    /// The last of `earlier` showed no event before it was kept.
    acknowledges: bool,
    sequence: u64,
    timestamp: u64,
    lost: Loss,
    newest: Option<Run>,
    /// The number that the id of the last event tells.
    own: u64,
    /// The last of `earlier` was numbered without those before: files were joined.
    follows_others: bool,
    /// Of the numbers up to this one, those that are missing were let go of, and are told of elsewhere.
    compacted_to: u64,
    /// Something unreadable stands since the last event.
    damaged: bool,
    /// And before the first run.
    damaged_before_first_run: bool,
    /// When the newest of what was lost was published is not known yet: before what comes next.
    loss_time_unknown: bool,
}

impl Restorer {
    /// Returns `false` for a record that has a sequence number or a run so great that no broker has got there: were it
    /// true, it would leave no numbers to those that follow.
    pub(crate) fn is_possible(&self, record: &Record) -> bool {
        let number = |number: u64| number <= self.most().saturating_add(MAX_STEP).min(MAX_SEQUENCE);
        let position = |id: EventId| {
            let newest = self.newest.map_or(0, Run::started);
            let most = MAX_START.max(newest + MAX_START_STEP);
            id.parts()
                .is_none_or(|(run, sequence)| number(sequence) && run.started() <= most)
        };
        match record {
            Record::Published { sequence, event } => number(*sequence) && position(event.id()),
            Record::Started { position: id, .. }
            | Record::Refused(id)
            | Record::Ended(id)
            | Record::Compacted { position: id, .. } => position(*id),
            Record::Lost { sequence, .. } => number(*sequence),
            Record::LossTable(table) => table.losses().all(|loss| number(loss.sequence)),
            Record::Taken { .. } | Record::Damaged | Record::Torn => true,
        }
    }

    /// Returns the greatest sequence number in the log so far.
    pub(crate) fn most(&self) -> u64 {
        self.sequence.max(self.compacted_to)
    }

    /// A run begins after this position.
    pub(crate) fn start(&mut self, id: EventId, acknowledges: bool) {
        // One that has begun already does not begin again.
        let Some((run, sequence)) = id.parts().filter(|(run, _)| !self.knows(*run)) else {
            return;
        };
        if sequence >= self.compacted_to {
            self.pass_compacted();
        }
        self.follows_others = sequence < self.sequence;
        // Where the last run did not end, this one has left a number out.
        self.go_to(sequence);
        self.date(self.latest_before(run));
        self.damaged = false;
        self.open(run);
        self.acknowledges = acknowledges;
    }

    /// The event's place in the order: its number in the log or, without, that of its id. Those that bring none are
    /// numbered as they come. `None` where it stands out of place: it comes twice, or is told of as lost already.
    pub(crate) fn place(&mut self, number: u64, event: Event) -> Option<Entry> {
        let own = event.id().parts();
        let number = match (number, own) {
            (0, Some((_, number))) => number,
            (number, _) => number,
        };
        let timestamp = plausible(event.timestamp());
        if number > self.sequence {
            if let Some((run, _)) = own {
                self.enter(run);
            }
            self.go_to(number - 1);
        } else if own.is_some_and(|own| self.is_out_of_place(own)) {
            self.lost(Loss {
                sequence: number,
                timestamp,
            });
            return None;
        } else if self.damaged {
            self.go_to(self.sequence + 1);
        }
        self.damaged = false;
        self.date(timestamp);
        self.timestamp = self.timestamp.max(timestamp);
        self.sequence += 1;
        self.own = own.map_or(0, |(_, number)| number);
        if let (true, Some(span)) = (self.open, self.earlier.last_mut()) {
            span.last = self.sequence;
        }
        Some(Entry {
            sequence: self.sequence,
            published: 0,
            event,
        })
    }

    /// Of an event of ours with a number that has been passed.
    fn is_out_of_place(&self, (run, number): (Run, u64)) -> bool {
        if self.follows_others && self.earlier.last().is_some_and(|span| span.run == run) {
            number <= self.own
        } else {
            self.knows(run)
        }
    }

    /// Something unreadable stands here. Where events have numbers, theirs tell whether one is missing; but not where
    /// others were let go of, nor where what said so can't be read.
    pub(crate) fn damaged(&mut self) {
        self.damaged = true;
        self.damaged_before_first_run |= self.earlier.is_empty();
        if self.sequence < self.compacted_to {
            self.lose(self.compacted_to);
        }
    }

    /// The log ends within a record. An event that was to be kept before anybody sees it has been seen by nobody.
    pub(crate) fn torn(&mut self) {
        if !(self.open && self.acknowledges) || self.sequence < self.compacted_to {
            self.damaged();
        }
    }

    /// The numbers up to this position were given to events that nobody has seen; and some to others, perhaps, where
    /// something is damaged.
    pub(crate) fn refuse(&mut self, id: EventId) {
        let Some((run, sequence)) = id.parts() else {
            return;
        };
        if sequence > self.sequence {
            let is_whole = self.knows(run) && !self.damaged && !self.damaged_before_first_run;
            self.enter(run);
            if !is_whole {
                self.lose(sequence);
            }
            self.sequence = sequence;
        }
    }

    /// What is missing up to this position was let go of, and not lost.
    pub(crate) fn compacted(&mut self, id: EventId, timestamp: u64) {
        self.timestamp = self.timestamp.max(timestamp);
        if let Some((_, sequence)) = id.parts() {
            self.compacted_to = self.compacted_to.max(sequence);
        }
    }

    /// All has been read that is left of what was compacted: the last numbers of it may have been let go of, too.
    fn pass_compacted(&mut self) {
        self.sequence = self.sequence.max(self.compacted_to);
        // Where the end of an earlier run is damaged, they may have been another's.
        if let (true, false, Some(span)) = (self.open, self.damaged, self.earlier.last_mut()) {
            span.last = span.last.max(self.compacted_to);
        }
    }

    /// Events were lost, whatever their category.
    pub(crate) fn lost(&mut self, lost: Loss) {
        self.lost = self.lost.max(lost);
    }

    /// The run has ended at this position.
    pub(crate) fn end(&mut self, id: EventId) {
        if let Some((run, sequence)) = id.parts()
            && self.enter(run)
        {
            self.go_to(sequence);
            (self.open, self.damaged) = (false, false);
            if let Some(span) = self.earlier.last_mut() {
                span.last = span.last.max(sequence);
            }
        }
    }

    fn knows(&self, run: Run) -> bool {
        // They begin in their order, unless files were joined.
        self.newest >= Some(run) && self.earlier.iter().rev().any(|span| span.run == run)
    }

    /// Makes this run the last one, even where its start could not be read; false where others came after it.
    fn enter(&mut self, run: Run) -> bool {
        if self.earlier.last().is_some_and(|span| span.run == run) {
            self.open = true;
            return true;
        }
        let is_new = !self.knows(run);
        if is_new {
            self.open(run);
        }
        is_new
    }

    fn open(&mut self, run: Run) {
        let span = RunRange {
            run,
            first: self.sequence + 1,
            last: self.sequence,
            over: true,
        };
        self.earlier.push(span);
        self.newest = self.newest.max(Some(run));
        (self.open, self.acknowledges) = (true, false);
        self.own = 0;
    }

    /// The numbers up to this one are missing.
    fn go_to(&mut self, sequence: u64) {
        if sequence <= self.sequence {
            return;
        }
        self.sequence = sequence;
        if sequence > self.compacted_to {
            self.lose(sequence);
        }
    }

    fn lose(&mut self, sequence: u64) {
        let timestamp = self.timestamp;
        self.lost(Loss {
            sequence,
            timestamp,
        });
        self.loss_time_unknown = true;
    }

    /// The greatest timestamp that an event can have that was lost before this run: timestamps may be a little ahead of
    /// the clock.
    fn latest_before(&self, run: Run) -> u64 {
        self.latest_by(run.started())
    }

    /// The same, by the time of the clock.
    fn latest_by(&self, now: u64) -> u64 {
        self.timestamp.max(now).saturating_add(MAX_STEPS)
    }

    /// What was lost was published by then.
    fn date(&mut self, timestamp: u64) {
        if std::mem::take(&mut self.loss_time_unknown) {
            self.lost.timestamp = self.lost.timestamp.max(timestamp);
        }
    }

    /// The sequencer of the run that goes on from there.
    pub(crate) fn finish(mut self, clock: Clock, acknowledges: bool) -> Sequencer {
        self.pass_compacted();
        // What a run that has not ended published last is not known, nor what is damaged.
        let acknowledged = self.acknowledges && !self.damaged_before_first_run;
        // The clock was set back: a follower may stand at a timestamp that comes again only by steps.
        let is_ahead = self.timestamp > clock.now().saturating_add(MAX_STEPS);
        let may_lack_events = (self.open && !acknowledged) || self.damaged;
        if may_lack_events {
            self.go_to(self.sequence + 1);
        }
        // A loss past the last number would be a gap in every answer.
        self.lost.sequence = self.lost.sequence.min(self.sequence);
        let random = RandomState::new().hash_one(0);
        let newest_run = self.earlier.iter().map(|span| span.run.started()).max();
        let now = clock.now().min(MAX_START);
        let run = Run::new(now.max(newest_run.unwrap_or(0) + 1), random);
        // As those will date it who read this run's start.
        self.date(self.latest_before(run));
        // A run whose clock was far ahead dated what was lost before it too late. A follower can't stand there.
        let latest = self.latest_by(clock.now());
        if self.lost.timestamp > latest.saturating_add(MAX_STEPS) {
            self.lost.timestamp = latest;
        }
        // The runs whose positions nobody follows any more are let go of, the oldest first.
        let surplus = self.earlier.len().saturating_sub(MAX_RUNS);
        self.earlier.drain(..surplus);
        let past = Past {
            run,
            runs: self.earlier,
            lost: self.lost,
            sequence: self.sequence,
            timestamp: self.timestamp,
            reached: if may_lack_events && is_ahead {
                latest.max(self.lost.timestamp)
            } else {
                self.timestamp
            },
        };
        Sequencer::after(past, clock, acknowledges)
    }
}

#[cfg(test)]
mod tests;
