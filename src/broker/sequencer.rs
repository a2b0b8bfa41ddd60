//! [`Sequencer`]: gives every event its timestamp, its sequence number and its id, and tells where an id stands.

use super::clock::{Age, Clock};
use super::ring::{Entry, Place};
use super::sync::Mutex;
use super::waiter::stopped;
use crate::error::Error;
use crate::event::Draft;
use crate::position::{EventId, Run};
use crate::store::Loss;

/// The one clock of events of a broker. Its lock is the innermost of all: held for a stamp and for handing the event to
/// the store, so that ids, timestamps and the file's lines have one order.
pub(crate) struct Sequencer {
    run: Run,
    clock: Clock,
    /// The runs that the log tells of, in their order, and then this one.
    runs: Vec<RunRange>,
    /// What the file should have but has not.
    lost: Loss,
    /// Events are visible once the store has them, and not as soon as they are stamped.
    acknowledges: bool,
    /// The most bytes of JSON of one timestamp, with a comma for each event; one event may have more.
    millisecond_bytes: usize,
    /// Tells when events are published, where they expire.
    age: Option<Age>,
    stamps: Mutex<Stamps>,
}

/// The timestamp of an event whose clock shows less: up to 1, `since_time` asks for everything that is buffered.
const FIRST_TIMESTAMP: u64 = 2;

struct Stamps {
    sequence: u64,
    timestamp: u64,
    /// The bytes of JSON stamped with this timestamp, with a comma for each event.
    bytes: usize,
    /// The greatest timestamp that a follower by time may go on from: the next event has a greater one.
    reached: u64,
    /// When the newest event was published, by `age`.
    published: u64,
    /// The sequence number of the newest event that subscribers can see.
    visible: u64,
    closed: bool,
}

/// How far everything published can be seen.
pub(crate) struct HighWaterMark {
    pub(crate) sequence: u64,
    /// The position after it.
    pub(crate) id: EventId,
    /// What comes to be seen from now on has a greater timestamp.
    pub(crate) before: u64,
    /// The greatest timestamp that an event can have that was stamped up to now, in this run or before.
    pub(crate) time: u64,
}

/// The sequence numbers of a run that a log holds.
pub(crate) struct RunRange {
    pub(super) run: Run,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Its last event is known, or there will be more.
    pub(super) over: bool,
}

/// What a log tells of the runs before, and the run that follows them.
pub(super) struct Past {
    pub(super) run: Run,
    pub(super) runs: Vec<RunRange>,
    pub(super) lost: Loss,
    /// Those of the newest event.
    pub(super) sequence: u64,
    pub(super) timestamp: u64,
    /// The greatest timestamp that a follower of these runs can have received.
    pub(super) reached: u64,
}

impl RunRange {
    /// The position before its first event.
    pub(crate) fn start(&self) -> EventId {
        EventId::new(self.run, self.first - 1)
    }

    /// The position after its last event; `None` for the run that goes on.
    pub(crate) fn end(&self) -> Option<EventId> {
        self.over.then(|| EventId::new(self.run, self.last))
    }
}

/// Where an id was found to stand.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// Its sequence number.
    At(Place),
    /// Of a run that the file holds, but after the last event that the file has of it: that end of the run was lost.
    PastEnd(Place),
    /// Of a run that is not known here: one without a file, or of another broker.
    UnknownRun,
    /// Not made by this crate: only a search can tell.
    Foreign,
}

impl Stamps {
    /// The timestamp of the next event, at this time of the clock.
    fn next(&self, now: u64) -> u64 {
        let step = u64::from(self.reached >= self.timestamp);
        let least = self.timestamp.max(self.reached).saturating_add(step);
        least.max(now).max(FIRST_TIMESTAMP)
    }
}

impl Sequencer {
    /// The sequencer of a new run.
    pub(super) fn after(past: Past, clock: Clock, acknowledges: bool) -> Self {
        let Past { run, mut runs, .. } = past;
        runs.push(RunRange {
            run,
            first: past.sequence + 1,
            last: u64::MAX,
            over: false,
        });
        let stamps = Stamps {
            sequence: past.sequence,
            timestamp: past.timestamp,
            bytes: 0,
            reached: past.reached,
            published: 0,
            visible: past.sequence,
            closed: false,
        };
        Sequencer {
            run,
            clock,
            runs,
            lost: past.lost,
            acknowledges,
            millisecond_bytes: usize::MAX,
            age: None,
            stamps: Mutex::new(stamps),
        }
    }

    /// Limits the bytes of JSON that events of one timestamp have together, and notes when each is published, by `age`.
    pub(super) fn limited(self, millisecond_bytes: usize, age: Option<Age>) -> Self {
        let mut stamps = self.stamps.lock();
        stamps.published = age.as_ref().map_or(0, |age| age.restored(stamps.timestamp));
        drop(stamps);
        Sequencer {
            millisecond_bytes,
            age,
            ..self
        }
    }

    /// Stamps an event and shows it to `store` before any other is stamped. Where the store refuses it, it never was.
    ///
    /// # Errors
    ///
    /// The store's, and `Stopped` after [`close`](Sequencer::close).
    pub(crate) fn stamp<T>(
        &self,
        draft: Draft,
        store: impl FnOnce(&Entry) -> Result<T, Error>,
    ) -> Result<(Entry, T), Error> {
        let mut stamps = self.stamps.lock();
        if stamps.closed {
            return Err(stopped());
        }
        let sequence = stamps.sequence + 1;
        let now = self.clock.now();
        let mut timestamp = stamps.next(now);
        let added = draft.json_len() + 1;
        let mut bytes = match timestamp == stamps.timestamp {
            true => stamps.bytes,
            false => 0,
        };
        if bytes > 0 && bytes.saturating_add(added) > self.millisecond_bytes {
            (timestamp, bytes) = (timestamp.saturating_add(1), 0);
        }
        let published = self.age.as_ref().map_or(0, |age| {
            let ahead = timestamp.saturating_sub(now);
            age.published(ahead).max(stamps.published)
        });
        let entry = Entry {
            sequence,
            published,
            event: draft.stamp(timestamp, self.position(sequence)),
        };
        let stored = store(&entry)?;
        (stamps.sequence, stamps.timestamp) = (sequence, timestamp);
        stamps.bytes = bytes.saturating_add(added);
        stamps.published = published;
        if !self.acknowledges {
            stamps.visible = sequence;
        }
        Ok((entry, stored))
    }

    /// Everything up to this number can be seen.
    pub(crate) fn show(&self, sequence: u64) {
        self.stamps.lock().visible = sequence;
    }

    /// After this no event is stamped, so the store has seen all. True the first time.
    pub(crate) fn close(&self) -> bool {
        !std::mem::replace(&mut self.stamps.lock().closed, true)
    }

    /// What the file should have had but had not.
    pub(crate) fn lost(&self) -> Loss {
        self.lost
    }

    /// How far everything can be seen that was published.
    ///
    /// With the lock of a category held, all events of that category up to here are in its ring.
    pub(crate) fn newest(&self) -> HighWaterMark {
        let now = self.clock.now();
        let stamps = self.stamps.lock();
        HighWaterMark {
            sequence: stamps.visible,
            id: self.position(stamps.visible),
            before: stamps.next(now) - 1,
            time: stamps.timestamp.max(now),
        }
    }

    /// A follower by time goes on after this timestamp, so that the next event gets a greater one.
    ///
    /// With the locks of the categories held that the follower polls: what is stamped there already is in their rings.
    pub(crate) fn reached(&self, timestamp: u64) {
        let mut stamps = self.stamps.lock();
        stamps.reached = stamps.reached.max(timestamp);
    }

    /// The position after the event with this number.
    pub(crate) fn position(&self, sequence: u64) -> EventId {
        EventId::new(self.run, sequence)
    }

    /// The position after the last event that was stamped.
    pub(crate) fn end(&self) -> EventId {
        self.position(self.stamps.lock().sequence)
    }

    /// The newest timestamp that an event was stamped with, in this run or before.
    pub(crate) fn timestamp(&self) -> u64 {
        self.stamps.lock().timestamp
    }

    /// The runs that are known, in their order; the last is this one.
    pub(crate) fn spans(&self) -> &[RunRange] {
        &self.runs
    }

    /// The time, in Unix milliseconds, that an event would be stamped with now.
    pub(crate) fn now(&self) -> u64 {
        let now = self.clock.now();
        self.stamps.lock().next(now)
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
        match self.runs.iter().rev().find(|span| span.run == run) {
            Some(span) if sequence > span.last => Placed::PastEnd(Place::Sequence(span.last)),
            Some(span) => Placed::At(Place::Sequence(sequence.max(span.first - 1))),
            None => Placed::UnknownRun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::restorer::Restorer;
    use super::*;

    fn draft() -> Draft {
        Draft::new("c".into(), "x").unwrap()
    }

    fn sequencer() -> Sequencer {
        Restorer::default().finish(Clock::System, false)
    }

    fn stamped(sequencer: &Sequencer) -> Entry {
        sequencer.stamp(draft(), |_| Ok(())).unwrap().0
    }

    #[test]
    fn ids_and_sequence_numbers_grow_and_timestamps_never_fall() {
        let sequencer = sequencer();
        let entries: Vec<Entry> = (0..1000).map(|_| stamped(&sequencer)).collect();
        assert!(
            entries.is_sorted_by(|a, b| a.event.id() < b.event.id() && a.sequence < b.sequence)
        );
        assert!(entries.is_sorted_by_key(|entry| entry.event.timestamp()));
    }

    #[test]
    fn nothing_is_stamped_after_closing() {
        let sequencer = sequencer();
        sequencer.close();
        assert!(
            sequencer
                .stamp::<()>(draft(), |_| panic!("stored"))
                .is_err()
        );
    }
}
