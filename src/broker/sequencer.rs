//! [`Sequencer`]: gives every event its timestamp, its sequence number and its id, and tells where an id stands.

use std::hash::{BuildHasher, RandomState};

use super::clock::Clock;
use super::ring::{Entry, Place};
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
    /// The runs whose events came out of the file, in their order.
    earlier: Vec<Span>,
    stamps: Mutex<Stamps>,
}

struct Stamps {
    sequence: u64,
    timestamp: u64,
    /// The id of the newest event; before the first of this run, where it is not of our layout, this run's.
    last_id: EventId,
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

/// Reads a file's events back, oldest first, before the first new one is stamped.
#[derive(Default)]
pub(crate) struct Restorer {
    earlier: Vec<Span>,
    sequence: u64,
    timestamp: u64,
    last_id: Option<EventId>,
}

impl Restorer {
    /// The event's place in the order. Ids of this crate bring their own; all others are numbered as they come.
    pub(crate) fn place(&mut self, event: Event) -> Entry {
        self.timestamp = self.timestamp.max(event.timestamp());
        // Another kind of id says nothing to a poll of another category; the position is then told in our own.
        self.last_id = event.id().parts().map(|_| event.id());
        let sequence = match event.id().parts() {
            Some((run, sequence)) if sequence > self.sequence => {
                match self.earlier.last_mut() {
                    Some(span) if span.run == run => span.last = sequence,
                    _ => self.earlier.push(Span {
                        run,
                        first: sequence,
                        last: sequence,
                    }),
                }
                sequence
            }
            _ => self.sequence + 1,
        };
        self.sequence = sequence;
        Entry { sequence, event }
    }

    pub(crate) fn finish(self, clock: Clock) -> Sequencer {
        let random = RandomState::new().hash_one(0);
        let newest_run = self
            .earlier
            .iter()
            .map(|span| span.run.started())
            .max()
            .unwrap_or(0);
        let run = Run::new(clock.now().max(newest_run + 1), random);
        let stamps = Stamps {
            sequence: self.sequence,
            timestamp: self.timestamp,
            last_id: self.last_id.unwrap_or(EventId::new(run, self.sequence)),
            closed: false,
        };
        Sequencer {
            run,
            clock,
            earlier: self.earlier,
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
        stamps.last_id = EventId::new(self.run, stamps.sequence);
        let entry = Entry {
            sequence: stamps.sequence,
            event: draft.stamp(stamps.timestamp, stamps.last_id),
        };
        store(&entry.event);
        Ok(entry)
    }

    /// After this no event is stamped, so the store has seen all.
    pub(crate) fn close(&self) {
        self.stamps.lock().closed = true;
    }

    /// The sequence number and the id of the newest event.
    ///
    /// With the lock of a category held, all events of that category up to here are in its ring.
    pub(crate) fn newest(&self) -> (u64, EventId) {
        let stamps = self.stamps.lock();
        (stamps.sequence, stamps.last_id)
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

    fn restored(events: impl IntoIterator<Item = Event>) -> Sequencer {
        let mut restorer = Restorer::default();
        events
            .into_iter()
            .for_each(|event| drop(restorer.place(event)));
        restorer.finish(Clock::System)
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
        assert_eq!((next.sequence, next.event.timestamp()), (42, future));
        assert!(next.event.id() > id);
    }

    #[test]
    fn positions_of_earlier_runs_are_known_as_far_as_the_file_goes() {
        let run = Run::new(1_700_000_000_000, 9);
        let sequencer = restored((1..=3).map(|n| draft().stamp(n, EventId::new(run, n))));
        let at = |sequence| Placed::At(Place::Sequence(sequence));
        assert_eq!(sequencer.locate(EventId::new(run, 2)), at(2));
        assert_eq!(sequencer.locate(EventId::new(run, 3)), at(3));
        assert_eq!(
            sequencer.locate(EventId::new(run, 4)),
            Placed::Beyond(Place::Sequence(3))
        );
        assert_eq!(sequencer.newest(), (3, EventId::new(run, 3)));
        let next = stamped(&sequencer);
        assert_eq!(sequencer.locate(next.event.id()), at(4));
        let unknown = EventId::new(Run::new(1_700_000_000_000, 10), 1);
        assert_eq!(sequencer.locate(unknown), Placed::UnknownRun);
        assert_eq!(sequencer.locate(EventId::from(7)), Placed::Foreign);
    }

    #[test]
    fn nothing_is_stamped_after_closing() {
        let sequencer = restored([]);
        sequencer.close();
        assert!(sequencer.stamp(draft(), |_| panic!("stored")).is_err());
    }
}
