//! [`Restorer`]: finds the runs of a log, what they lost, and where the next run goes on.

use std::hash::{BuildHasher, RandomState};

use super::clock::{Clock, MAX_STEPS};
use super::ring::{Entry, plausible};
use super::sequencer::{Past, RunRange, Sequencer};
use crate::event::Event;
use crate::position::{EventId, MAX_SEQUENCE, Run};
use crate::store::{Loss, Record};

/// The most earlier runs that a broker knows. A position of an older run is unknown.
const MAX_RUNS: usize = 10_000;

/// A sequence number that is greater than the one before by more than this is damage: no broker publishes that many events.
/// This run and many more can go on from the greatest number.
const MAX_STEP: u64 = 1 << 56;
/// The year 10000, in Unix milliseconds. A run that starts later is damage, unless it follows another such run.
const MAX_START: u64 = 253_402_300_800_000;
/// A run past [`MAX_START`] starts at most this many milliseconds after the run before it.
const MAX_START_STEP: u64 = 1 << 20;

/// Reads the records of a log, oldest first, before the first new event is stamped.
///
/// A sequence number without an event is that of a lost event. A run of which the log does not have the end may have lost
/// its last events, unless it acknowledged each event: for these, one number is left out, which counts as a lost event.
#[derive(Default)]
pub(crate) struct Restorer {
    /// The runs so far, in their order.
    runs: Vec<RunRange>,
    last: LastRun,
    sequence: u64,
    timestamp: u64,
    lost: Loss,
    /// The run with the greatest start time.
    newest: Option<Run>,
    /// Sequence numbers up to this one may be absent because compaction dropped their events. Losses are recorded
    /// separately.
    compacted_to: u64,
    /// Something unreadable is in the log before the first run.
    damaged_before_first_run: bool,
    /// The time of the newest lost event is not known yet: it is at most that of the next record.
    loss_time_unknown: bool,
}

/// The last of the runs so far.
#[derive(Clone, Copy, Default)]
struct LastRun {
    end: RunEnd,
    /// The run showed no event to subscribers before the store kept it.
    acknowledges: bool,
    /// The sequence number in the id of its last event.
    own_sequence: u64,
    /// Its own numbers do not follow those of earlier runs: files were joined.
    renumbered: bool,
}

/// How the last run ended, as far as the log has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum RunEnd {
    /// The log has its end. Also before the first run.
    #[default]
    Clean,
    /// The log does not have its end (yet): events may follow, or were lost.
    Open,
    /// Something unreadable is in the log since its last event, or since its end.
    Damaged { ended: bool },
}

impl RunEnd {
    fn is_open(self) -> bool {
        matches!(self, RunEnd::Open | RunEnd::Damaged { ended: false })
    }

    fn is_damaged(self) -> bool {
        matches!(self, RunEnd::Damaged { .. })
    }

    fn opened(self) -> Self {
        match self {
            RunEnd::Damaged { .. } => RunEnd::Damaged { ended: false },
            RunEnd::Clean | RunEnd::Open => RunEnd::Open,
        }
    }

    fn damaged(self) -> Self {
        RunEnd::Damaged {
            ended: !self.is_open(),
        }
    }

    /// A readable record follows the damage.
    fn readable(self) -> Self {
        match self.is_open() {
            true => RunEnd::Open,
            false => RunEnd::Clean,
        }
    }
}

impl Restorer {
    /// Returns `false` for a record with a sequence number or a run so great that no broker can have made it. If it were
    /// believed, the following runs would have no numbers left.
    pub(crate) fn is_possible(&self, record: &Record) -> bool {
        let number = |number: u64| {
            number
                <= self
                    .max_sequence()
                    .saturating_add(MAX_STEP)
                    .min(MAX_SEQUENCE)
        };
        let position = |id: EventId| {
            let newest = self.newest.map_or(0, Run::started);
            let most = MAX_START.max(newest + MAX_START_STEP);
            id.parts()
                .is_none_or(|(run, sequence)| number(sequence) && run.started() <= most)
        };
        match record {
            Record::Published { sequence, event } => number(*sequence) && position(event.id()),
            Record::Started { position: id, .. }
            | Record::Purged { position: id, .. }
            | Record::Batch(id)
            | Record::Keyed { last: id, .. }
            | Record::Refused(id)
            | Record::Ended(id)
            | Record::Compacted { position: id, .. } => position(*id),
            Record::Lost { sequence, .. } => number(*sequence),
            Record::LossTable(table) => table.losses().all(|loss| number(loss.sequence)),
            Record::Taken { .. } | Record::Damaged | Record::Torn => true,
        }
    }

    /// Returns the greatest sequence number in the log so far.
    pub(crate) fn max_sequence(&self) -> u64 {
        self.sequence.max(self.compacted_to)
    }

    /// Returns the sequence number up to which compaction may have dropped events.
    pub(crate) fn compacted_to(&self) -> u64 {
        self.compacted_to
    }

    /// Reads that a run started at this position.
    pub(crate) fn start(&mut self, id: EventId, acknowledges: bool) {
        // A run does not start twice.
        let Some((run, sequence)) = id.parts().filter(|(run, _)| !self.knows(*run)) else {
            return;
        };
        if sequence >= self.compacted_to {
            self.skip_compacted();
        }
        self.last.renumbered = sequence < self.sequence;
        // If the last run did not end, this one has left a number out.
        self.skip_to(sequence);
        self.date_loss(self.latest_before(run));
        self.last.end = self.last.end.readable();
        self.open(run);
        self.last.acknowledges = acknowledges;
    }

    /// Gives an event its sequence number: the one in the log, or else that of its id, or else the next. `None` if the event
    /// is out of place: the log has it twice, or it counts as lost already.
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
            self.skip_to(number - 1);
        } else if own.is_some_and(|own| self.is_out_of_place(own)) {
            self.lost(Loss {
                sequence: number,
                timestamp,
            });
            return None;
        } else if self.last.end.is_damaged() {
            self.skip_to(self.sequence + 1);
        }
        self.last.end = self.last.end.readable();
        self.date_loss(timestamp);
        self.timestamp = self.timestamp.max(timestamp);
        self.sequence += 1;
        self.last.own_sequence = own.map_or(0, |(_, number)| number);
        if let (true, Some(range)) = (self.last.end.is_open(), self.runs.last_mut()) {
            range.last = self.sequence;
        }
        Some(Entry {
            sequence: self.sequence,
            published: 0,
            more: 0,
            event,
        })
    }

    /// Returns `true` if the event of this run, with a number that is not greater than the last, was read already or counts
    /// as lost.
    fn is_out_of_place(&self, (run, number): (Run, u64)) -> bool {
        if self.last.renumbered && self.is_last(run) {
            number <= self.last.own_sequence
        } else {
            self.knows(run)
        }
    }

    /// Reads something unreadable. The numbers of the events that follow show whether one is missing, except in a compacted
    /// log and before its first run.
    pub(crate) fn damaged(&mut self) {
        self.last.end = self.last.end.damaged();
        self.damaged_before_first_run |= self.runs.is_empty();
        if self.sequence < self.compacted_to {
            self.lose(self.compacted_to);
        }
    }

    /// Reads that the log ends within a record. If the run acknowledges, no subscriber has seen the event.
    pub(crate) fn torn(&mut self) {
        if !(self.last.end.is_open() && self.last.acknowledges) || self.sequence < self.compacted_to
        {
            self.damaged();
        }
    }

    /// Reads that the store refused the events up to this position, which no subscriber has seen. After damage, some of
    /// these numbers may be those of other events.
    pub(crate) fn refuse(&mut self, id: EventId) {
        let Some((run, sequence)) = id.parts() else {
            return;
        };
        if sequence > self.sequence {
            let is_damaged = self.last.end.is_damaged() || self.damaged_before_first_run;
            let is_whole = self.knows(run) && !is_damaged;
            self.enter(run);
            if !is_whole {
                self.lose(sequence);
            }
            self.sequence = sequence;
        }
    }

    /// Reads that compaction dropped the missing events up to this position, which are not lost by that.
    pub(crate) fn compacted(&mut self, id: EventId, timestamp: u64) {
        self.timestamp = self.timestamp.max(timestamp);
        if let Some((_, sequence)) = id.parts() {
            self.compacted_to = self.compacted_to.max(sequence);
        }
    }

    /// Skips the numbers at the end of the compacted part of the log, whose events compaction dropped.
    fn skip_compacted(&mut self) {
        self.sequence = self.sequence.max(self.compacted_to);
        // If the end of an earlier run is damaged, they may be of another run.
        if let (RunEnd::Open, Some(range)) = (self.last.end, self.runs.last_mut()) {
            range.last = range.last.max(self.compacted_to);
        }
    }

    /// Reads that events of any category were lost, up to this one.
    pub(crate) fn lost(&mut self, lost: Loss) {
        self.lost = self.lost.max(lost);
    }

    /// Reads that the run ended at this position.
    pub(crate) fn end(&mut self, id: EventId) {
        if let Some((run, sequence)) = id.parts()
            && self.enter(run)
        {
            self.skip_to(sequence);
            self.last.end = RunEnd::Clean;
            if let Some(range) = self.runs.last_mut() {
                range.last = range.last.max(sequence);
            }
        }
    }

    fn knows(&self, run: Run) -> bool {
        // Runs start in their order, unless files were joined.
        self.newest >= Some(run) && self.runs.iter().rev().any(|known| known.run == run)
    }

    fn is_last(&self, run: Run) -> bool {
        self.runs.last().is_some_and(|last| last.run == run)
    }

    /// Makes this run the last one, even if its start could not be read. Returns `false` if other runs followed it.
    fn enter(&mut self, run: Run) -> bool {
        if self.is_last(run) {
            self.last.end = self.last.end.opened();
            return true;
        }
        let is_new = !self.knows(run);
        if is_new {
            self.open(run);
        }
        is_new
    }

    fn open(&mut self, run: Run) {
        self.runs.push(RunRange {
            run,
            first: self.sequence + 1,
            last: self.sequence,
            ended: true,
        });
        self.newest = self.newest.max(Some(run));
        self.last = LastRun {
            end: self.last.end.opened(),
            acknowledges: false,
            own_sequence: 0,
            ..self.last
        };
    }

    /// Skips the numbers up to this one, whose events are missing.
    fn skip_to(&mut self, sequence: u64) {
        if sequence <= self.sequence {
            return;
        }
        self.sequence = sequence;
        if sequence > self.compacted_to {
            self.lose(sequence);
        }
    }

    /// Counts this number as lost, at a time that is not known yet.
    fn lose(&mut self, sequence: u64) {
        let timestamp = self.timestamp;
        self.lost(Loss {
            sequence,
            timestamp,
        });
        self.loss_time_unknown = true;
    }

    /// Returns the greatest timestamp that an event lost before this run can have: timestamps may be a little ahead of the
    /// clock.
    fn latest_before(&self, run: Run) -> u64 {
        self.latest_by(run.started())
    }

    /// Returns the greatest timestamp that an event lost before this time of the clock can have.
    fn latest_by(&self, now: u64) -> u64 {
        self.timestamp.max(now).saturating_add(MAX_STEPS)
    }

    /// Dates the newest lost event, which was published by then.
    fn date_loss(&mut self, timestamp: u64) {
        if std::mem::take(&mut self.loss_time_unknown) {
            self.lost.timestamp = self.lost.timestamp.max(timestamp);
        }
    }

    /// Returns the sequencer of the run that follows the log.
    pub(crate) fn finish(mut self, clock: Clock, acknowledges: bool) -> Sequencer {
        self.skip_compacted();
        // The log may lack the last events of a run without an end, and those that are damaged.
        let acknowledged = self.last.acknowledges && !self.damaged_before_first_run;
        let end = self.last.end;
        let may_lack_events = end.is_damaged() || end.is_open() && !acknowledged;
        // The clock was set back: a follower may have received a timestamp that the clock reaches again only later.
        let is_ahead = self.timestamp > clock.now().saturating_add(MAX_STEPS);
        if may_lack_events {
            self.skip_to(self.sequence + 1);
        }
        // A loss past the last number would be a gap in every answer.
        self.lost.sequence = self.lost.sequence.min(self.sequence);
        let random = RandomState::new().hash_one(0);
        let newest_run = self.runs.iter().map(|known| known.run.started()).max();
        let now = clock.now().min(MAX_START);
        let run = Run::new(now.max(newest_run.unwrap_or(0) + 1), random);
        // As the next start dates it when it reads the start of this run.
        self.date_loss(self.latest_before(run));
        // A run whose clock was far ahead dated the losses before it too late. No follower has such a time.
        let latest = self.latest_by(clock.now());
        if self.lost.timestamp > latest.saturating_add(MAX_STEPS) {
            self.lost.timestamp = latest;
        }
        // The oldest runs go: hardly a follower still has a position of theirs.
        let surplus = self.runs.len().saturating_sub(MAX_RUNS);
        self.runs.drain(..surplus);
        let past = Past {
            run,
            runs: self.runs,
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
