//! [`Sequencer`]: gives every event its timestamp, its sequence number and its id, and tells where an id stands.

use std::hash::{BuildHasher, RandomState};

use super::clock::Clock;
use super::ring::{Entry, Lost, Place};
use super::sync::Mutex;
use super::waiter::stopped;
use crate::error::Error;
use crate::event::{Draft, Event};
use crate::position::{EventId, Run};

/// The one clock of events of a broker. Its lock is the innermost of all: held for a stamp and for handing the event to
/// the store, so that ids, timestamps and the file's lines have one order.
pub(crate) struct Sequencer {
    run: Run,
    clock: Clock,
    /// The runs that the file tells of, in their order.
    earlier: Vec<Span>,
    /// What the file should have but has not.
    lost: Lost,
    stamps: Mutex<Stamps>,
}

struct Stamps {
    sequence: u64,
    timestamp: u64,
    closed: bool,
}

/// The sequence numbers of a run that a file holds.
struct Span {
    run: Run,
    first: u64,
    last: u64,
}

/// Where an id was found to stand.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// Its sequence number.
    At(Place),
    /// Of a run that the file holds, but after the last event that the file has of it: that end of the run was lost.
    Beyond(Place),
    /// Of a run that is not known here: one without a file, or of another broker.
    UnknownRun,
    /// Not made by this crate: only a search can tell.
    Foreign,
}

/// Reads back what a file tells, oldest first, before the first new event is stamped.
///
/// Sequence numbers have no holes but where something is missing. A run that did not say how it ended may have lost its
/// last events: a number is left out for them, which counts as a lost event.
#[derive(Default)]
pub(crate) struct Restorer {
    earlier: Vec<Span>,
    /// The last of `earlier` has not ended.
    open: bool,
    sequence: u64,
    timestamp: u64,
    lost: Lost,
}

impl Restorer {
    /// A run begins after this position.
    pub(crate) fn start(&mut self, id: EventId) {
        if let Some((run, sequence)) = id.parts() {
            self.close();
            self.go_to(sequence);
            self.open(run);
        }
    }

    /// The event's place in the order. Ids of this crate bring their own; all others are numbered as they come.
    pub(crate) fn place(&mut self, event: Event) -> Entry {
        self.timestamp = self.timestamp.max(event.timestamp());
        match event.id().parts() {
            Some((run, sequence)) if sequence > self.sequence => {
                if !self.open || self.earlier.last().is_none_or(|span| span.run != run) {
                    self.close();
                    self.open(run);
                }
                self.go_to(sequence - 1);
            }
            _ => {}
        }
        self.sequence += 1;
        if let (true, Some(span)) = (self.open, self.earlier.last_mut()) {
            span.last = self.sequence;
        }
        Entry {
            sequence: self.sequence,
            event,
        }
    }

    /// The run has ended at this position.
    pub(crate) fn end(&mut self, id: EventId) {
        if let Some((_, sequence)) = id.parts() {
            self.go_to(sequence);
            self.open = false;
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
        };
        self.earlier.push(span);
        self.open = true;
    }

    /// What the run that has not ended published last is not known.
    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            self.go_to(self.sequence + 1);
        }
    }

    /// The numbers up to this one are missing.
    fn go_to(&mut self, sequence: u64) {
        if sequence > self.sequence {
            self.sequence = sequence;
            self.lost = Lost {
                sequence,
                timestamp: self.timestamp,
            };
        }
    }

    pub(crate) fn finish(mut self, clock: Clock) -> Sequencer {
        self.close();
        let random = RandomState::new().hash_one(0);
        let newest_run = self.earlier.iter().map(|span| span.run.started()).max();
        let run = Run::new(clock.now().max(newest_run.unwrap_or(0) + 1), random);
        let stamps = Stamps {
            sequence: self.sequence,
            timestamp: self.timestamp,
            closed: false,
        };
        Sequencer {
            run,
            clock,
            earlier: self.earlier,
            lost: self.lost,
            stamps: Mutex::new(stamps),
        }
    }
}

impl Sequencer {
    /// Stamps an event and shows it to `store` before any other is stamped.
    ///
    /// # Errors
    ///
    /// `Stopped` after [`close`](Sequencer::close).
    pub(crate) fn stamp(&self, draft: Draft, store: impl FnOnce(&Event)) -> Result<Entry, Error> {
        let mut stamps = self.stamps.lock();
        if stamps.closed {
            return Err(stopped());
        }
        stamps.sequence += 1;
        stamps.timestamp = stamps.timestamp.max(self.clock.now());
        let entry = Entry {
            sequence: stamps.sequence,
            event: draft.stamp(stamps.timestamp, EventId::new(self.run, stamps.sequence)),
        };
        store(&entry.event);
        Ok(entry)
    }

    /// After this no event is stamped, so the store has seen all. True the first time.
    pub(crate) fn close(&self) -> bool {
        !std::mem::replace(&mut self.stamps.lock().closed, true)
    }

    /// What the file should have had but had not.
    pub(crate) fn lost(&self) -> Lost {
        self.lost
    }

    /// The sequence number of the newest event, and the position after it.
    ///
    /// With the lock of a category held, all events of that category up to here are in its ring.
    pub(crate) fn newest(&self) -> (u64, EventId) {
        let stamps = self.stamps.lock();
        (stamps.sequence, EventId::new(self.run, stamps.sequence))
    }

    /// The time, in Unix milliseconds, that an event would be stamped with now.
    pub(crate) fn now(&self) -> u64 {
        self.stamps.lock().timestamp.max(self.clock.now())
    }

    pub(crate) fn locate(&self, id: EventId) -> Placed {
        let Some((run, sequence)) = id.parts() else {
            return Placed::Foreign;
        };
        if run == self.run {
            let known = sequence <= self.stamps.lock().sequence;
            return if known {
                Placed::At(Place::Sequence(sequence))
            } else {
                Placed::UnknownRun
            };
        }
        match self.earlier.iter().rev().find(|span| span.run == run) {
            Some(span) if sequence > span.last => Placed::Beyond(Place::Sequence(span.last)),
            Some(span) => Placed::At(Place::Sequence(sequence.max(span.first - 1))),
            None => Placed::UnknownRun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft::new("c".into(), "x").unwrap()
    }

    fn stamped(sequencer: &Sequencer) -> Entry {
        sequencer.stamp(draft(), |_| ()).unwrap()
    }

    /// What a file tells that ends with its last event, and so does not say how the run ended.
    fn restored(events: impl IntoIterator<Item = Event>) -> Sequencer {
        let mut restorer = Restorer::default();
        events
            .into_iter()
            .for_each(|event| drop(restorer.place(event)));
        restorer.finish(Clock::System)
    }

    /// A file of a run that published so many events and ended.
    fn ended(run: Run, events: u64) -> Restorer {
        let mut restorer = Restorer::default();
        restorer.start(EventId::new(run, 0));
        for number in 1..=events {
            restorer.place(draft().stamp(number, EventId::new(run, number)));
        }
        restorer.end(EventId::new(run, events));
        restorer
    }

    #[test]
    fn ids_and_sequence_numbers_grow_and_timestamps_never_fall() {
        let sequencer = restored([]);
        let entries: Vec<Entry> = (0..1000).map(|_| stamped(&sequencer)).collect();
        assert!(
            entries.is_sorted_by(|a, b| a.event.id() < b.event.id() && a.sequence < b.sequence)
        );
        assert!(entries.is_sorted_by_key(|entry| entry.event.timestamp()));
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
        let sequencer = ended(run, 3).finish(Clock::System);
        assert_eq!(sequencer.lost(), Lost::default());
        let at = |sequence| Placed::At(Place::Sequence(sequence));
        assert_eq!(sequencer.locate(EventId::new(run, 2)), at(2));
        assert_eq!(sequencer.locate(EventId::new(run, 3)), at(3));
        assert_eq!(
            sequencer.locate(EventId::new(run, 4)),
            Placed::Beyond(Place::Sequence(3))
        );
        assert_eq!(sequencer.newest().0, 3);
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
        restorer.start(EventId::new(second, 3));
        restorer.end(EventId::new(second, 3));
        let sequencer = restorer.finish(Clock::System);
        assert_eq!(
            sequencer.locate(EventId::new(second, 3)),
            Placed::At(Place::Sequence(3))
        );
        assert_eq!(
            (sequencer.lost(), sequencer.newest().0),
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
        restorer.start(EventId::new(second, 3));
        restorer.place(draft().stamp(9, EventId::new(second, 4)));
        let sequencer = restorer.finish(Clock::System);
        // Whoever has seen all that is left may yet have missed something, and whoever saw more has gone beyond it.
        assert_eq!(
            sequencer.lost(),
            Lost {
                sequence: 5,
                timestamp: 9
            }
        );
        assert!(sequencer.lost().after(Place::Sequence(4)));
        assert_eq!(
            sequencer.locate(EventId::new(second, 6)),
            Placed::Beyond(Place::Sequence(4))
        );
        assert_eq!(stamped(&sequencer).sequence, 6);
        assert!(!sequencer.lost().after(Place::Sequence(6)));
    }

    #[test]
    fn a_number_that_is_missing_in_the_file_is_a_lost_event() {
        let run = Run::new(1_700_000_000_000, 9);
        let mut restorer = Restorer::default();
        restorer.start(EventId::new(run, 0));
        for number in [1, 2, 4] {
            restorer.place(draft().stamp(number, EventId::new(run, number)));
        }
        restorer.end(EventId::new(run, 4));
        assert_eq!(
            restorer.finish(Clock::System).lost(),
            Lost {
                sequence: 3,
                timestamp: 4
            }
        );
        // Also the last ones.
        let mut restorer = ended(run, 3);
        restorer.end(EventId::new(run, 5));
        assert_eq!(restorer.finish(Clock::System).lost().sequence, 5);
    }

    #[test]
    fn nothing_is_stamped_after_closing() {
        let sequencer = restored([]);
        sequencer.close();
        assert!(sequencer.stamp(draft(), |_| panic!("stored")).is_err());
    }
}
