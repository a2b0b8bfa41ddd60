//! [`Restorer`]: finds out from a log which runs there were, what they lost, and where the next one goes on.

use std::hash::{BuildHasher, RandomState};

use super::clock::Clock;
use super::ring::{Entry, Lost};
use super::sequencer::{Past, Sequencer, Span};
use crate::event::Event;
use crate::position::{EventId, Run};

/// How many earlier runs are known at most: a position of an older one is as good as unknown.
const MAX_RUNS: usize = 10_000;

/// Reads back what a file tells, oldest first, before the first new event is stamped.
///
/// Sequence numbers have no holes but where something is missing. A run that did not say how it ended may have lost its
/// last events, unless it acknowledged each: a number is left out for them, which counts as a lost event.
#[derive(Default)]
pub(crate) struct Restorer {
    earlier: Vec<Span>,
    /// The last of `earlier` has not ended.
    open: bool,
    /// The last of `earlier` showed no event before it was kept.
    acknowledges: bool,
    sequence: u64,
    timestamp: u64,
    lost: Lost,
    /// Of the numbers up to this one, those that are missing were let go of, and are told of elsewhere.
    sparse_to: u64,
    /// Something unreadable stands since the last event.
    damaged: bool,
    /// When the newest of what was lost was published is not known yet: before what comes next.
    undated: bool,
}

impl Restorer {
    /// A run begins after this position.
    pub(crate) fn start(&mut self, id: EventId, acknowledges: bool) {
        if let Some((run, sequence)) = id.parts() {
            if sequence >= self.sparse_to {
                self.pass_compacted();
            }
            // Where the last run did not end, this one has left a number out.
            self.go_to(sequence);
            self.date(run.started());
            self.damaged = false;
            self.open(run);
            self.acknowledges = acknowledges;
        }
    }

    /// The event's place in the order: its number in the log or, without, that of its id. Those that bring none are
    /// numbered as they come.
    pub(crate) fn place(&mut self, number: u64, event: Event) -> Entry {
        let own = event.id().parts();
        let number = match (number, own) {
            (0, Some((_, number))) => number,
            (number, _) => number,
        };
        if number > self.sequence {
            if let Some((run, _)) = own
                && (!self.open || self.earlier.last().is_none_or(|span| span.run != run))
            {
                self.open(run);
            }
            self.go_to(number - 1);
        } else if self.damaged {
            self.go_to(self.sequence + 1);
        }
        self.damaged = false;
        self.date(event.timestamp());
        self.timestamp = self.timestamp.max(event.timestamp());
        self.sequence += 1;
        if let (true, Some(span)) = (self.open, self.earlier.last_mut()) {
            span.last = self.sequence;
        }
        Entry {
            sequence: self.sequence,
            event,
        }
    }

    /// Something unreadable stands here. Where events have numbers, theirs tell whether one is missing; but not where
    /// others were let go of.
    pub(crate) fn damaged(&mut self) {
        self.damaged = true;
        if self.sequence < self.sparse_to {
            self.lose(self.sparse_to);
        }
    }

    /// The log ends within a record. An event that was to be kept before anybody sees it has been seen by nobody.
    pub(crate) fn torn(&mut self) {
        if !(self.open && self.acknowledges) || self.sequence < self.sparse_to {
            self.damaged();
        }
    }

    /// The numbers up to this position were given to events that nobody has seen.
    pub(crate) fn refuse(&mut self, id: EventId) {
        if let Some((_, sequence)) = id.parts() {
            self.sequence = self.sequence.max(sequence);
        }
    }

    /// What is missing up to this position was let go of, and not lost.
    pub(crate) fn compacted(&mut self, id: EventId, timestamp: u64) {
        self.timestamp = self.timestamp.max(timestamp);
        if let Some((_, sequence)) = id.parts() {
            self.sparse_to = self.sparse_to.max(sequence);
        }
    }

    /// All has been read that is left of what was compacted: the last numbers of it may have been let go of, too.
    fn pass_compacted(&mut self) {
        self.sequence = self.sequence.max(self.sparse_to);
        if let (true, Some(span)) = (self.open, self.earlier.last_mut()) {
            span.last = span.last.max(self.sparse_to);
        }
    }

    /// Events were lost, whatever their category.
    pub(crate) fn lost(&mut self, lost: Lost) {
        self.lost = self.lost.max(lost);
    }

    /// The run has ended at this position.
    pub(crate) fn end(&mut self, id: EventId) {
        if let Some((_, sequence)) = id.parts() {
            self.go_to(sequence);
            (self.open, self.damaged) = (false, false);
            if let Some(span) = self.earlier.last_mut() {
                span.last = span.last.max(sequence);
            }
        }
    }

    fn open(&mut self, run: Run) {
        let span = Span {
            run,
            first: self.sequence + 1,
            last: self.sequence,
            over: true,
        };
        self.earlier.push(span);
        (self.open, self.acknowledges) = (true, false);
    }

    /// The numbers up to this one are missing.
    fn go_to(&mut self, sequence: u64) {
        if sequence <= self.sequence {
            return;
        }
        self.sequence = sequence;
        if sequence > self.sparse_to {
            self.lose(sequence);
        }
    }

    fn lose(&mut self, sequence: u64) {
        let timestamp = self.timestamp;
        self.lost(Lost {
            sequence,
            timestamp,
        });
        self.undated = true;
    }

    /// What was lost was published by then.
    fn date(&mut self, timestamp: u64) {
        if std::mem::take(&mut self.undated) {
            self.lost.timestamp = self.lost.timestamp.max(timestamp);
        }
    }

    /// The sequencer of the run that goes on from there.
    pub(crate) fn finish(mut self, clock: Clock, acknowledges: bool) -> Sequencer {
        self.pass_compacted();
        // What a run that has not ended published last is not known, nor what is damaged.
        if (self.open && !self.acknowledges) || self.damaged {
            self.go_to(self.sequence + 1);
        }
        let random = RandomState::new().hash_one(0);
        let newest_run = self.earlier.iter().map(|span| span.run.started()).max();
        let run = Run::new(clock.now().max(newest_run.unwrap_or(0) + 1), random);
        // As those will date it who read this run's start.
        self.date(run.started());
        // The runs whose positions nobody follows any more are let go of, the oldest first.
        let surplus = self.earlier.len().saturating_sub(MAX_RUNS);
        self.earlier.drain(..surplus);
        let past = Past {
            run,
            runs: self.earlier,
            lost: self.lost,
            sequence: self.sequence,
            timestamp: self.timestamp,
        };
        Sequencer::after(past, clock, acknowledges)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::Place;
    use super::super::sequencer::Placed;
    use super::*;
    use crate::event::Draft;

    fn draft() -> Draft {
        Draft::new("c".into(), "x").unwrap()
    }

    fn stamped(sequencer: &Sequencer) -> Entry {
        sequencer.stamp(draft(), |_| Ok(())).unwrap().0
    }

    /// What a file tells that ends with its last event, and so does not say how the run ended.
    fn restored(events: impl IntoIterator<Item = Event>) -> Sequencer {
        let mut restorer = Restorer::default();
        events
            .into_iter()
            .for_each(|event| drop(restorer.place(0, event)));
        restorer.finish(Clock::System, false)
    }

    /// A file of a run that published so many events and ended.
    fn ended(run: Run, events: u64) -> Restorer {
        let mut restorer = Restorer::default();
        restorer.start(EventId::new(run, 0), false);
        for number in 1..=events {
            restorer.place(0, draft().stamp(number, EventId::new(run, number)));
        }
        restorer.end(EventId::new(run, events));
        restorer
    }

    #[test]
    fn a_file_whose_last_event_lies_in_the_future_is_continued_after_it() {
        let future = Clock::System.now() + 3_600_000;
        let id = EventId::new(Run::new(future, 5), 41);
        let sequencer = restored([draft().stamp(future, id)]);
        let next = stamped(&sequencer);
        // One number is left out for what the run may have lost.
        assert_eq!((next.sequence, next.event.timestamp()), (43, future));
        assert!(next.event.id() > id);
    }

    #[test]
    fn positions_of_earlier_runs_are_known_as_far_as_the_file_goes() {
        let run = Run::new(1_700_000_000_000, 9);
        let sequencer = ended(run, 3).finish(Clock::System, false);
        assert_eq!(sequencer.lost(), Lost::default());
        let at = |sequence| Placed::At(Place::Sequence(sequence));
        assert_eq!(sequencer.locate(EventId::new(run, 2)), at(2));
        assert_eq!(sequencer.locate(EventId::new(run, 3)), at(3));
        assert_eq!(
            sequencer.locate(EventId::new(run, 4)),
            Placed::Beyond(Place::Sequence(3))
        );
        assert_eq!(sequencer.newest().sequence, 3);
        let next = stamped(&sequencer);
        assert_eq!(sequencer.locate(next.event.id()), at(4));
        let unknown = EventId::new(Run::new(1_700_000_000_000, 10), 1);
        assert_eq!(sequencer.locate(unknown), Placed::UnknownRun);
        assert_eq!(sequencer.locate(EventId::from(7)), Placed::Foreign);
    }

    #[test]
    fn a_run_without_events_is_known_where_it_ended() {
        let (first, second) = (
            Run::new(1_700_000_000_000, 9),
            Run::new(1_700_000_000_001, 9),
        );
        let mut restorer = ended(first, 3);
        restorer.start(EventId::new(second, 3), false);
        restorer.end(EventId::new(second, 3));
        let sequencer = restorer.finish(Clock::System, false);
        assert_eq!(
            sequencer.locate(EventId::new(second, 3)),
            Placed::At(Place::Sequence(3))
        );
        assert_eq!(
            (sequencer.lost(), sequencer.newest().sequence),
            (Lost::default(), 3)
        );
    }

    #[test]
    fn a_run_that_did_not_end_may_have_lost_what_it_published_last() {
        let (first, second) = (
            Run::new(1_700_000_000_000, 9),
            Run::new(1_700_000_000_001, 9),
        );
        let mut restorer = ended(first, 3);
        restorer.start(EventId::new(second, 3), false);
        restorer.place(0, draft().stamp(9, EventId::new(second, 4)));
        let sequencer = restorer.finish(Clock::System, false);
        // Whoever has seen all that is left may yet have missed something, and whoever saw more has gone beyond it.
        assert_eq!(sequencer.lost().sequence, 5);
        // When that was published nobody knows: by now.
        assert!(sequencer.lost().timestamp > 1_700_000_000_000);
        assert!(sequencer.lost().after(Place::Sequence(4)));
        assert_eq!(
            sequencer.locate(EventId::new(second, 6)),
            Placed::Beyond(Place::Sequence(4))
        );
        assert_eq!(stamped(&sequencer).sequence, 6);
        assert!(!sequencer.lost().after(Place::Sequence(6)));
    }

    #[test]
    fn a_run_that_acknowledged_has_lost_nothing_of_which_anybody_knew() {
        let (first, second) = (
            Run::new(1_700_000_000_000, 9),
            Run::new(1_700_000_000_001, 9),
        );
        let mut restorer = Restorer::default();
        restorer.start(EventId::new(first, 0), true);
        restorer.place(0, draft().stamp(9, EventId::new(first, 1)));
        restorer.start(EventId::new(second, 1), true);
        restorer.place(0, draft().stamp(9, EventId::new(second, 2)));
        let sequencer = restorer.finish(Clock::System, true);
        assert_eq!(sequencer.lost(), Lost::default());
        assert_eq!(stamped(&sequencer).sequence, 3);
        // But where something of it is damaged, it may have been known, unless that was being written.
        for (damage, lost) in [
            (Restorer::damaged as fn(&mut Restorer), 1),
            (Restorer::torn, 0),
        ] {
            let mut restorer = Restorer::default();
            restorer.start(EventId::new(first, 0), true);
            damage(&mut restorer);
            assert_eq!(restorer.finish(Clock::System, true).lost().sequence, lost);
        }
        let mut restorer = ended(first, 3);
        restorer.torn();
        assert_eq!(restorer.finish(Clock::System, true).lost().sequence, 4);
    }

    #[test]
    fn what_a_kill_may_have_cost_was_published_before_the_next_start() {
        let (first, second) = (
            Run::new(1_700_000_000_000, 9),
            Run::new(1_700_000_000_500, 9),
        );
        let mut restorer = Restorer::default();
        restorer.start(EventId::new(first, 0), false);
        restorer.place(0, draft().stamp(1_700_000_000_001, EventId::new(first, 1)));
        restorer.start(EventId::new(second, 2), false);
        restorer.place(0, draft().stamp(1_700_000_009_000, EventId::new(second, 3)));
        restorer.end(EventId::new(second, 3));
        assert_eq!(
            restorer.finish(Clock::System, false).lost(),
            Lost {
                sequence: 2,
                timestamp: 1_700_000_000_500
            }
        );
    }

    #[test]
    fn a_number_that_is_missing_in_the_file_is_a_lost_event() {
        let run = Run::new(1_700_000_000_000, 9);
        let mut restorer = Restorer::default();
        restorer.start(EventId::new(run, 0), false);
        for number in [1, 2, 4] {
            restorer.place(0, draft().stamp(number, EventId::new(run, number)));
        }
        restorer.end(EventId::new(run, 4));
        assert_eq!(
            restorer.finish(Clock::System, false).lost(),
            Lost {
                sequence: 3,
                timestamp: 4
            }
        );
        // Also the last ones.
        let mut restorer = ended(run, 3);
        restorer.end(EventId::new(run, 5));
        assert_eq!(restorer.finish(Clock::System, false).lost().sequence, 5);
    }

    #[test]
    fn numbers_of_a_compacted_log_are_not_given_twice_where_the_last_were_let_go_of() {
        let run = Run::new(1_700_000_000_000, 9);
        let mut restorer = Restorer::default();
        restorer.compacted(EventId::new(run, 5), 1);
        restorer.start(EventId::new(run, 0), false);
        restorer.place(1, draft().stamp(1, EventId::new(run, 1)));
        let sequencer = restorer.finish(Clock::System, false);
        let last = sequencer.locate(EventId::new(run, 5));
        assert_eq!(last, Placed::At(Place::Sequence(5)));
        // It was killed, so one more may be lost.
        assert_eq!(sequencer.lost().sequence, 6);
        assert_eq!(stamped(&sequencer).sequence, 7);
    }
}
