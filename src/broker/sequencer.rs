//! [`Sequencer`]: gives every event its timestamp, sequence number and id, and finds the place of an id.

use std::sync::Arc;

use super::clock::{Age, Clock};
pub(crate) use super::placed::{HighWaterMark, Placed};
use super::ring::{Entry, Place};
use super::sync::Mutex;
#[cfg(feature = "redis")]
use super::timeline::Timeline;
use super::waiter::stopped;
use crate::error::Error;
use crate::event::Draft;
use crate::position::{EventId, Run};
use crate::store::Loss;

/// Stamps the events of a broker. Its lock is the innermost of all. A thread holds it while it stamps an event and appends
/// it to the store, so that ids, timestamps and the records of the store have one order.
pub(crate) struct Sequencer {
    run: Run,
    clock: Clock,
    /// The runs of the log, in their order, and then this one.
    runs: Vec<RunRange>,
    /// The newest event that the log should have and lacks.
    lost: Loss,
    /// Events become visible once the store keeps them, and not as soon as they are stamped.
    acknowledges: bool,
    /// The most bytes of JSON of one timestamp, with a comma for each event; one event may have more.
    millisecond_bytes: usize,
    /// The time at which events are published. `None` for the sequencer of a log that is being read.
    age: Option<Age>,
    stamps: Mutex<Stamps>,
    /// The order that a backplane decides, if it stamps the events and not this sequencer.
    #[cfg(feature = "redis")]
    timeline: Option<Timeline>,
}

/// The least timestamp of an event: a poll with a `since_time` of 0 or 1 asks for every event that is buffered.
const FIRST_TIMESTAMP: u64 = 2;

#[derive(Clone, Copy)]
struct Stamps {
    sequence: u64,
    timestamp: u64,
    /// The bytes of JSON stamped with this timestamp, with a comma for each event.
    bytes: usize,
    /// The greatest timestamp that a follower by time may go on from. The next event has a greater one.
    reached: u64,
    /// When the newest event was published, by `age`.
    published: u64,
    /// An event can expire, so that publish times are needed.
    can_expire: bool,
    /// The sequence number of the newest event that subscribers can see.
    visible: u64,
    closed: bool,
}

/// The sequence numbers of the events of one run.
pub(crate) struct RunRange {
    pub(super) run: Run,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// `false` for the present run, which goes on.
    pub(super) ended: bool,
}

/// The earlier runs as the log has them, and the run that follows them.
pub(super) struct Past {
    pub(super) run: Run,
    pub(super) runs: Vec<RunRange>,
    pub(super) lost: Loss,
    /// The sequence number of the newest event.
    pub(super) sequence: u64,
    /// The timestamp of the newest event.
    pub(super) timestamp: u64,
    /// The greatest timestamp that a follower of these runs can have received.
    pub(super) reached: u64,
}

impl RunRange {
    /// Returns the position before the run's first event.
    pub(crate) fn start(&self) -> EventId {
        EventId::new(self.run, self.first - 1)
    }

    /// Returns the position after the run's last event; `None` for the present run.
    pub(crate) fn end(&self) -> Option<EventId> {
        self.ended.then(|| EventId::new(self.run, self.last))
    }
}

impl Stamps {
    /// Returns the timestamp of an event that is stamped when the clock shows `now`.
    fn next(&self, now: u64) -> u64 {
        let step = u64::from(self.reached >= self.timestamp);
        let least = self.timestamp.max(self.reached).saturating_add(step);
        least.max(now).max(FIRST_TIMESTAMP)
    }
}

impl Sequencer {
    /// Returns the sequencer of the run that follows `past`.
    pub(super) fn after(past: Past, clock: Clock, acknowledges: bool) -> Self {
        let Past { run, mut runs, .. } = past;
        runs.push(RunRange {
            run,
            first: past.sequence + 1,
            last: u64::MAX,
            ended: false,
        });
        let stamps = Stamps {
            sequence: past.sequence,
            timestamp: past.timestamp,
            bytes: 0,
            reached: past.reached,
            published: 0,
            can_expire: false,
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
            #[cfg(feature = "redis")]
            timeline: None,
        }
    }

    /// Sets the most bytes of JSON of one timestamp, the time at which events are published, and whether an event can expire
    /// that has no time to live of its own.
    pub(super) fn limited(self, millisecond_bytes: usize, age: Age, can_expire: bool) -> Self {
        let mut stamps = self.stamps.lock();
        stamps.published = age.restored(stamps.timestamp);
        stamps.can_expire = can_expire;
        drop(stamps);
        Sequencer {
            millisecond_bytes,
            age: Some(age),
            ..self
        }
    }

    /// Stamps an event and calls `store` with it before any other is stamped. If that fails, the event is not published and
    /// the next one gets its number.
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
        let mut next = *stamps;
        let entry = self.next_entry(&mut next, draft, self.clock.now());
        let stored = store(&entry)?;
        *stamps = next;
        Ok((entry, stored))
    }

    /// Stamps events that are published together, and calls `store` with them before any other is stamped. If that fails,
    /// none is published. The next event gets the number of the first one, unless `refuse`, which is called with the position
    /// of the last one, returns `true`: the store then has a record that these numbers were refused.
    ///
    /// # Errors
    ///
    /// The store's, and `Stopped` after [`close`](Sequencer::close).
    pub(crate) fn stamp_all<T>(
        &self,
        drafts: Vec<Draft>,
        store: impl FnOnce(&Arc<[Entry]>) -> Result<T, Error>,
        refuse: impl FnOnce(EventId) -> bool,
    ) -> Result<(Arc<[Entry]>, T), Error> {
        let mut stamps = self.stamps.lock();
        if stamps.closed {
            return Err(stopped());
        }
        let mut next = *stamps;
        let now = self.clock.now();
        let count = drafts.len();
        let entries = (1..).zip(drafts).map(|(number, draft)| Entry {
            more: u16::try_from(count - number).unwrap_or(u16::MAX),
            ..self.next_entry(&mut next, draft, now)
        });
        let entries: Arc<[Entry]> = entries.collect();
        match store(&entries) {
            Ok(stored) => {
                *stamps = next;
                Ok((entries, stored))
            }
            Err(error) => {
                if refuse(self.position(next.sequence)) {
                    (stamps.sequence, stamps.visible) = (next.sequence, next.visible);
                }
                Err(error)
            }
        }
    }

    /// Stamps an event at this time of the clock, as the next one after `stamps`.
    fn next_entry(&self, stamps: &mut Stamps, draft: Draft, now: u64) -> Entry {
        let sequence = stamps.sequence + 1;
        let mut timestamp = stamps.next(now);
        let added = draft.json_len() + 1;
        let mut bytes = match timestamp == stamps.timestamp {
            true => stamps.bytes,
            false => 0,
        };
        if bytes > 0 && bytes.saturating_add(added) > self.millisecond_bytes {
            (timestamp, bytes) = (timestamp.saturating_add(1), 0);
        }
        stamps.can_expire |= draft.has_own_ttl();
        let age = self.age.as_ref().filter(|_| stamps.can_expire);
        let published = age.map_or(0, |age| {
            let ahead = timestamp.saturating_sub(now);
            age.published(ahead).max(stamps.published)
        });
        let entry = Entry {
            sequence,
            published,
            more: 0,
            event: draft.stamp(timestamp, self.position(sequence)),
        };
        (stamps.sequence, stamps.timestamp) = (sequence, timestamp);
        stamps.bytes = bytes.saturating_add(added);
        stamps.published = stamps.published.max(published);
        if !self.acknowledges {
            stamps.visible = sequence;
        }
        entry
    }

    /// Notes that every event up to this one is visible.
    pub(crate) fn make_visible(&self, sequence: u64, timestamp: u64) {
        #[cfg(feature = "redis")]
        if let Some(timeline) = &self.timeline {
            return timeline.make_visible(sequence, timestamp);
        }
        #[cfg(not(feature = "redis"))]
        let _ = timestamp;
        self.stamps.lock().visible = sequence;
    }

    /// Ends stamping: from here on, the store has every event. Returns `true` the first time.
    pub(crate) fn close(&self) -> bool {
        !std::mem::replace(&mut self.stamps.lock().closed, true)
    }

    /// Returns the newest event that the log should have had and lacked.
    pub(crate) fn lost(&self) -> Loss {
        #[cfg(feature = "redis")]
        if let Some(timeline) = &self.timeline {
            return timeline.lost();
        }
        self.lost
    }

    /// Returns the high-water mark of what is visible. With the lock of a category held, every event of that category up to
    /// there is in its ring.
    pub(crate) fn high_water_mark(&self) -> HighWaterMark {
        let now = self.clock.now();
        #[cfg(feature = "redis")]
        if let Some(timeline) = &self.timeline {
            return timeline.high_water_mark(now);
        }
        let stamps = self.stamps.lock();
        HighWaterMark {
            sequence: stamps.visible,
            id: self.position(stamps.visible),
            before: stamps.next(now) - 1,
            time: stamps.timestamp.max(stamps.reached).max(now),
        }
    }

    /// Has the next event stamped with a greater timestamp than this, from which a follower by time goes on. Called with the
    /// locks of the follower's categories held: events that are stamped already are in their rings, or hidden.
    pub(crate) fn stamp_after(&self, timestamp: u64) {
        let mut stamps = self.stamps.lock();
        stamps.reached = stamps.reached.max(timestamp);
    }

    /// Returns the position after the event with this sequence number.
    pub(crate) fn position(&self, sequence: u64) -> EventId {
        #[cfg(feature = "redis")]
        if let Some(timeline) = &self.timeline {
            return timeline.position(sequence);
        }
        EventId::new(self.run, sequence)
    }

    /// Returns the position after the newest event that was stamped.
    pub(crate) fn end(&self) -> EventId {
        self.position(self.stamps.lock().sequence)
    }

    /// Returns the timestamp of the newest event, of this run or an earlier one.
    pub(crate) fn timestamp(&self) -> u64 {
        self.stamps.lock().timestamp
    }

    /// Returns the runs of the log, in their order, and then this one.
    pub(crate) fn runs(&self) -> &[RunRange] {
        &self.runs
    }

    /// Returns the time, in Unix milliseconds, that an event would be stamped with now.
    pub(crate) fn now(&self) -> u64 {
        let now = self.clock.now();
        self.stamps.lock().next(now)
    }

    /// Finds the place of an id.
    pub(crate) fn locate(&self, id: EventId) -> Placed {
        let Some((run, sequence)) = id.parts() else {
            return Placed::Foreign;
        };
        if run == self.run {
            let is_stamped = sequence <= self.stamps.lock().sequence;
            return if is_stamped {
                Placed::At(Place::Sequence(sequence))
            } else {
                Placed::UnknownRun
            };
        }
        match self.runs.iter().rev().find(|known| known.run == run) {
            Some(known) if sequence > known.last => Placed::PastEnd(Place::Sequence(known.last)),
            Some(known) => Placed::At(Place::Sequence(sequence.max(known.first - 1))),
            None => Placed::UnknownRun,
        }
    }
}

#[cfg(feature = "redis")]
impl Sequencer {
    /// Returns the sequencer of a stream whose events a backplane stamps.
    pub(super) fn following(self, timeline: Timeline) -> Self {
        Sequencer {
            timeline: Some(timeline),
            ..self
        }
    }

    pub(super) fn timeline(&self) -> Option<&Timeline> {
        self.timeline.as_ref()
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
