//! [`Backplane`]: an engine outside the process that orders the events of several brokers, and [`Feed`]: by which it shows
//! them here.
//!
//! A publish goes to the backplane alone. A reader of the backplane reads each stream, and shows what it has read in the
//! order of the stream; subscribers see nothing else. So all brokers have one order.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::catalog::CategoryState;
use super::clock::Clock;
use super::evict::Excess;
use super::restorer::Restorer;
use super::ring::{Entry, Removed, Ring, plausible};
use super::sequencer::Sequencer;
use super::statistics::{BackplaneStatistics, Removal};
use super::timeline::{Epoch, Timeline};
use super::{Broker, BrokerOptions, Handle, Shared};
use crate::error::{Error, ErrorKind};
use crate::event::{Draft, Event};
use crate::position::{EventId, Run};
use crate::store::Loss;
use crate::wire::Categories;

/// An engine that orders the events of several brokers.
pub(crate) trait Backplane: Send + Sync {
    /// Returns the number of streams.
    fn streams(&self) -> usize;

    /// Returns the stream of a category.
    fn stream_of(&self, category: &str) -> usize;

    /// Returns `true` if this broker reads the stream.
    fn reads(&self, stream: usize) -> bool;

    /// Fills the broker with the events of each stream that it reads, and follows these streams from there on.
    ///
    /// # Errors
    ///
    /// Any error keeps the broker from starting.
    fn start(&self, feeds: Vec<Feed>) -> Result<(), Error>;

    /// Appends events, or a purge, to a stream in one step, and waits until the engine has them. If the engine knows the key,
    /// it appends nothing.
    ///
    /// # Errors
    ///
    /// `Busy` if they were not published, `TimedOut` if that is not known, `KeyReused` for a key of other events.
    fn publish(
        &self,
        stream: usize,
        drafts: Vec<Draft>,
        key: Option<PublishKey>,
    ) -> Result<Answered, Error>;

    /// Refuses publishes, waits for those in flight, and stops reading. May be called twice.
    ///
    /// # Errors
    ///
    /// `StopTimeout`.
    fn stop(&self, timeout: Duration) -> Result<(), Error>;

    fn statistics(&self) -> BackplaneStatistics;
}

/// The idempotency key of a publish, as a backplane needs it.
#[derive(Clone)]
pub(crate) struct PublishKey {
    pub(crate) key: String,
    pub(crate) fingerprint: u64,
    /// How long the key is remembered, in milliseconds.
    pub(crate) window: u64,
    pub(crate) max_keys: usize,
}

/// The answer to a publish.
#[derive(Clone, Copy)]
pub(crate) struct Answered {
    /// The id of the last event, also of one that was published before.
    pub(crate) last: EventId,
    /// The key is that of an earlier publish of the same events.
    pub(crate) is_repetition: bool,
}

/// The streams of a broker with a backplane.
pub(super) struct Streams {
    pub(super) backplane: Box<dyn Backplane>,
    /// The order of each stream.
    orders: Vec<Sequencer>,
}

impl Streams {
    fn new(backplane: Box<dyn Backplane>, clock: &Clock) -> Self {
        let order = |_| {
            let sequencer = Restorer::default().finish(clock.clone(), true);
            sequencer.following(Timeline::new())
        };
        let orders = (0..backplane.streams()).map(order);
        Streams {
            orders: orders.collect(),
            backplane,
        }
    }

    pub(super) fn order_of(&self, category: &str) -> &Sequencer {
        &self.orders[self.backplane.stream_of(category)]
    }

    /// The least time that a later event of any stream can have.
    pub(super) fn now(&self) -> u64 {
        let timelines = self.orders.iter().filter_map(|order| order.timeline());
        timelines.map(Timeline::open_from).min().unwrap_or(0)
    }

    pub(super) fn publish(&self, drafts: Vec<Draft>) -> Result<EventId, Error> {
        Ok(self.publish_once(drafts, None)?.last)
    }

    pub(super) fn publish_once(
        &self,
        drafts: Vec<Draft>,
        key: Option<PublishKey>,
    ) -> Result<Answered, Error> {
        let stream = self.common_stream(&mut drafts.iter().map(Draft::category))?;
        self.backplane.publish(stream, drafts, key)
    }

    /// Checks that the categories of a poll lie in one stream, which this broker reads.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` or `Misdirected`.
    pub(super) fn check(&self, categories: &Categories) -> Result<(), Error> {
        self.common_stream(&mut categories.iter()).map(drop)
    }

    fn common_stream(&self, names: &mut dyn Iterator<Item = &str>) -> Result<usize, Error> {
        let first = names.next().unwrap_or_default();
        let stream = self.backplane.stream_of(first);
        for name in names {
            let other = self.backplane.stream_of(name);
            if other != stream {
                return Err(Error::request(format!(
                    "the categories {first:?} and {name:?} lie in different streams, {stream} and {other}, which have no \
                     common position: poll or publish twice, or give their names the same part in braces"
                )));
            }
        }
        match self.backplane.reads(stream) {
            true => Ok(stream),
            false => Err(misdirected(first, stream)),
        }
    }
}

fn misdirected(category: &str, stream: usize) -> Error {
    let message = format!(
        "the category {category:?} lies in stream {stream}, which this node does not read: ask a node that does"
    );
    Error::new(ErrorKind::Misdirected, message)
}

impl Broker {
    /// Creates a broker whose events a backplane orders.
    pub(crate) fn with_backplane(
        options: BrokerOptions,
        clock: Clock,
        backplane: Box<dyn Backplane>,
    ) -> Result<Self, Error> {
        options.check()?;
        if options.delete_after_first_retrieval {
            return Err(Error::setting(
                "delete_after_first_retrieval",
                "can't be had with Redis, since several nodes could deliver an event before one of them deletes it; \
                 leave it out, or run one server with a file",
            ));
        }
        let mut shared = Shared::new(options, &clock);
        let count = backplane.streams();
        shared.streams = Some(Streams::new(backplane, &clock));
        let shared = Arc::new(shared);
        let broker = Broker(Arc::new(Handle(shared.clone())));
        let feeds = (0..count).map(|stream| Feed {
            shared: Arc::downgrade(&shared),
            stream,
        });
        if let Some(streams) = &shared.streams {
            streams.backplane.start(feeds.collect())?;
        }
        broker.start_presence()?;
        Ok(broker)
    }
}

/// By which a backplane shows the events of one stream. One thread calls it.
pub(crate) struct Feed {
    shared: Weak<Shared>,
    stream: usize,
}

impl Feed {
    /// Calls `work` with the broker's state and the stream's timeline. `None` if the broker is gone.
    fn with<T>(&self, work: impl FnOnce(&Shared, &Timeline) -> T) -> Option<T> {
        let shared = self.shared.upgrade()?;
        let order = shared.streams.as_ref()?.orders.get(self.stream)?;
        Some(work(&shared, order.timeline()?))
    }

    /// Returns `false` if the broker is gone.
    pub(crate) fn is_alive(&self) -> bool {
        self.shared.strong_count() > 0
    }

    /// Shows the next event of the stream.
    pub(crate) fn show(&self, sequence: u64, mut event: Event) {
        self.with(|shared, _| {
            if let Some(category) = shared.catalog.get(event.category()) {
                event.share_category(category.name());
            }
            let published = shared.age.now();
            shared.commit(&[Entry {
                sequence,
                published,
                more: 0,
                event,
            }]);
        });
    }

    /// Notes that every event before this time is shown.
    pub(crate) fn close(&self, before: u64) {
        self.with(|_, timeline| timeline.close(before));
    }

    /// Returns the least timestamp that a later event must have for followers by time to get it.
    pub(crate) fn open_from(&self) -> u64 {
        self.with(|_, timeline| timeline.open_from()).unwrap_or(0)
    }

    /// Returns `true` if an event may come that has the timestamp of the newest one.
    pub(crate) fn has_open_millisecond(&self) -> bool {
        let open = self.with(|_, timeline| timeline.has_open_millisecond());
        open.unwrap_or(false)
    }

    pub(crate) fn begin_check(&self) {
        self.with(|_, timeline| timeline.begin_check());
    }

    /// Notes the newest sequence number that the stream had at the check.
    pub(crate) fn end_check(&self, newest: u64) {
        self.with(|_, timeline| timeline.end_check(newest));
    }

    /// Returns the epoch and the sequence number of the newest event shown.
    pub(crate) fn newest(&self) -> Option<(Run, u64)> {
        self.with(|_, timeline| timeline.newest())?
    }

    /// Sets the epochs of the stream, of which the later ones continue the present one.
    pub(crate) fn continue_with(&self, epochs: Vec<Epoch>) {
        self.with(|_, timeline| timeline.continue_with(epochs));
    }

    /// Notes that the events up to this one, which were to be shown next, are lost, and has parked subscribers look again.
    pub(crate) fn lose(&self, sequence: u64, timestamp: u64) {
        self.with(|shared, timeline| {
            timeline.lose(Loss {
                sequence,
                timestamp: plausible(timestamp),
            });
            shared.catalog.for_each(|category| {
                if shared.stream_of(category.name()) == self.stream {
                    wake(category);
                }
            });
        });
    }

    /// Returns an empty refill.
    pub(crate) fn refill(&self) -> Refill {
        Refill {
            rings: HashMap::new(),
            occupied: 0,
            bytes: 0,
            shared: self.shared.upgrade(),
        }
    }

    /// Replaces all events of the stream by these, in one step: no poll sees a part of them. Parked subscribers look again.
    pub(crate) fn begin_again(&self, refill: Refill, beginning: Beginning) {
        self.with(|shared, timeline| {
            let now = shared.age.now();
            let rings = refill.rings;
            shared.catalog.replace(
                rings,
                |name| shared.stream_of(name) == self.stream,
                |old, new| {
                    for ring in old {
                        let removed = ring.lose_all();
                        shared.counters.removed(removed, Removal::Retrieved);
                    }
                    new.for_each(|ring| {
                        shared.counters.added_all(ring);
                        shared.plan_sweep(ring, now);
                    });
                    timeline.begin_again(
                        beginning.epochs,
                        beginning.lost,
                        beginning.sequence,
                        beginning.timestamp,
                    );
                },
                wake,
            );
            shared.sweep(now);
            shared.evict(now);
        });
    }
}

/// Answers the subscribers that are parked in a category as if they had timed out: their next poll looks again.
fn wake(category: &mut CategoryState) {
    let waiters = std::mem::take(&mut category.waiters);
    waiters.values().for_each(|waiter| waiter.answer_early());
}

/// The events of a stream, read from its beginning.
pub(crate) struct Refill {
    rings: HashMap<Arc<str>, Ring>,
    /// The categories that have events.
    occupied: usize,
    /// The bytes of JSON of all events.
    bytes: usize,
    /// `None` if the broker is gone.
    shared: Option<Arc<Shared>>,
}

/// Where a stream goes on after a [`Refill`].
#[derive(Default)]
pub(crate) struct Beginning {
    pub(crate) epochs: Vec<Epoch>,
    /// The newest event that is missing.
    pub(crate) lost: Loss,
    /// The sequence number and timestamp of the newest event.
    pub(crate) sequence: u64,
    pub(crate) timestamp: u64,
}

impl Refill {
    /// Adds the next event of the stream.
    pub(crate) fn push(&mut self, sequence: u64, mut event: Event) {
        if let Some((name, _)) = self.rings.get_key_value(event.category()) {
            event.share_category(name);
        }
        let Some(shared) = &self.shared else {
            return;
        };
        let name = event.shared_category().clone();
        let ring = self.rings.entry(name);
        let ring = ring
            .or_insert_with_key(|name| Ring::new(shared.options.limits_of(name), Loss::default()));
        let entry = Entry {
            sequence,
            published: shared.age.restored(plausible(event.timestamp())),
            more: 0,
            event,
        };
        let (had_events, bytes) = (!ring.is_empty(), ring.bytes());
        match entry.event.is_purge() {
            true => ring.purge(&entry),
            false => ring.push(entry),
        };
        self.occupied = self.occupied + usize::from(!ring.is_empty()) - usize::from(had_events);
        self.bytes = self.bytes + ring.bytes() - bytes;
        self.evict();
    }

    /// Loses events until the limits of the broker hold, as the broker itself does: a stream can have many times as much.
    fn evict(&mut self) {
        let Some(shared) = &self.shared else {
            return;
        };
        let options = &shared.options;
        let is_past = |occupied: usize, bytes: usize| {
            occupied > options.max_categories || bytes > options.max_event_bytes
        };
        if !is_past(self.occupied, self.bytes) {
            return;
        }
        let now = shared.age.now();
        let (occupied, bytes) = (&mut self.occupied, &mut self.bytes);
        let mut count = |removed: Removed| {
            *occupied -= usize::from(removed.emptied);
            *bytes -= removed.bytes;
            (*occupied, *bytes)
        };
        for ring in self.rings.values_mut() {
            count(ring.expire(now));
        }
        let (occupied, mut bytes) = count(Removed::default());
        if !is_past(occupied, bytes) {
            return;
        }
        let excess = Excess::of(options, occupied, bytes);
        let rings = self.rings.values_mut().filter(|ring| !ring.is_empty());
        let mut rings: Vec<&mut Ring> = rings.collect();
        // The categories that were published to least recently come first.
        rings.sort_unstable_by_key(|ring| ring.newest().map(|newest| newest.sequence));
        let last = rings.len().saturating_sub(1);
        for (index, ring) in rings.into_iter().enumerate() {
            let excess_bytes = bytes.saturating_sub(excess.max_bytes);
            if index >= excess.categories && excess_bytes == 0 {
                break;
            }
            let has_newest = index == last;
            let removed = match index < excess.categories && !has_newest {
                true => ring.lose_all(),
                false => ring.lose_bytes(excess_bytes, usize::from(has_newest)),
            };
            (_, bytes) = count(removed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refill_never_holds_more_than_the_broker_may() {
        let event = |category: &str, sequence| {
            let draft = Draft::new(category.into(), &"x".repeat(1000)).unwrap();
            draft.stamp(sequence, EventId::new(Run::new(1, 1), sequence))
        };
        let options = BrokerOptions::new()
            .max_categories(20)
            .max_event_size(5000)
            .max_event_bytes(50_000);
        let mut refill = Refill {
            rings: HashMap::new(),
            occupied: 0,
            bytes: 0,
            shared: Some(Arc::new(Shared::new(options, &Clock::System))),
        };
        // More categories than may be, and then more bytes.
        for (categories, from) in [(100, 1), (3, 1001)] {
            for sequence in from..from + 1000 {
                refill.push(
                    sequence,
                    event(&format!("c{}", sequence % categories), sequence),
                );
                let held = || refill.rings.values().filter(|ring| !ring.is_empty());
                let bytes: usize = held().map(Ring::bytes).sum();
                assert!(held().count() <= 20 && bytes <= 50_000);
                let newest = held()
                    .filter_map(|ring| Some(ring.newest()?.sequence))
                    .max();
                assert_eq!(newest, Some(sequence));
                assert_eq!((refill.occupied, refill.bytes), (held().count(), bytes));
            }
        }
        // A follower of an evicted category gets a gap.
        assert_eq!(refill.rings["c50"].lost.sequence, 950);
    }
}
