//! Categories and waiting, without HTTP and without files: [`Broker`].
//!
//! A publish has the [`Sequencer`] stamp an event, puts it into the [`Ring`](ring::Ring) of its category and offers it to
//! every [`Waiter`] that is parked there. A subscriber looks into the ring and parks under the same lock, so that it misses
//! no event that is published in between.

#[cfg(feature = "redis")]
mod backplane;
mod batch;
mod batch_limit;
mod catalog;
mod category_info;
mod category_options;
mod clock;
mod commit;
mod evict;
mod fingerprint;
mod flushing;
mod idempotency;
mod look;
#[cfg(feature = "testing")]
mod manual_clock;
mod open_batch;
mod options;
mod order;
mod parked;
mod placed;
mod poll;
mod presence;
mod publish;
mod publish_all;
mod publish_once;
mod purge;
mod replay;
mod restored_key;
mod restorer;
mod ring;
mod selection;
mod sequencer;
mod snapshot;
mod statistics;
mod stopping;
mod store_call;
mod subscribe;
mod sync;
#[cfg(test)]
mod tests;
#[cfg(feature = "redis")]
mod timeline;
mod waiter;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::position::EventId;
use crate::store::{NoStore, Record, Snapshot, SnapshotSource, Store, StoreStatistics};
use crate::wire::PublishRequest;
use catalog::Catalog;
use clock::Age;
use commit::Commits;
use flushing::Flushing;
use idempotency::Keys;
use presence::PresenceTracker;
use replay::Replay;
use restorer::Restorer;
use sequencer::Sequencer;
use statistics::Counters;
use stopping::Stopping;
use store_call::StoreCall;
use sync::{AtomicU64, Mutex};
use waiter::Parking;

#[cfg(feature = "redis")]
pub(crate) use backplane::{Answered, Backplane, Beginning, Feed, PublishKey, Refill};
pub use batch::Batch;
pub use category_info::CategoryInfo;
pub use category_options::CategoryOptions;
pub(crate) use clock::Clock;
#[cfg(feature = "redis")]
pub(crate) use idempotency::reused as key_reused;
pub(crate) use look::PollMode;
#[cfg(feature = "testing")]
pub use manual_clock::ManualClock;
pub use options::BrokerOptions;
pub(crate) use parked::Parked;
pub(crate) use poll::Polled;
pub use presence::Presence;
pub(crate) use presence::PresenceGuard;
#[cfg(feature = "redis")]
pub use statistics::BackplaneStatistics;
pub use statistics::Statistics;
#[cfg(feature = "redis")]
pub(crate) use timeline::Epoch;
pub(crate) use waiter::Waiter;

/// Categories, ring buffers and parked subscribers: all of a long-polling server but HTTP. A server has one inside; a
/// program can use one alone, between its own threads. Cloning gives another handle to the same broker.
///
/// ```
/// use std::time::Duration;
/// use long_polling::{Broker, BrokerOptions, Cursor};
///
/// let broker = Broker::new(BrokerOptions::default())?;
/// let follower = broker.clone();
/// let thread = std::thread::spawn(move || {
///     follower.subscribe("alerts", Cursor::Oldest, Duration::from_secs(10))
/// });
/// broker.publish("alerts", "disk almost full")?;
///
/// let batch = thread.join().unwrap()?;
/// assert_eq!(batch.events()[0].text(), "disk almost full");
///
/// // Go on from there: nothing is missed and nothing comes twice.
/// let next =
///     broker.subscribe("alerts", Cursor::LastId(batch.last_id()), Duration::ZERO)?;
/// assert!(next.events().is_empty());
/// # Ok::<(), long_polling::Error>(())
/// ```
#[derive(Clone)]
pub struct Broker(Arc<Handle>);

/// What all handles to a broker share. It stops the store when the last handle is dropped; a poll or a thread of the store
/// may hold the rest for a moment longer.
struct Handle(Arc<Shared>);

impl Deref for Handle {
    type Target = Arc<Shared>;

    fn deref(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(presence) = &self.presence {
            presence.end();
        }
        if let Err(error) = self.stop_store(DROP_TIMEOUT) {
            log::error!(
                "the store of a broker that was dropped could not be stopped: {}",
                error.report()
            );
        }
    }
}

/// How long the drop of a broker waits for its store.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

struct Shared {
    options: BrokerOptions,
    catalog: Catalog,
    parking: Parking,
    sequencer: Sequencer,
    commits: Commits,
    keys: Keys,
    store: Box<dyn Store>,
    /// The periodic flushes, if the store has a flush period.
    flushing: Option<Arc<Flushing>>,
    stopping: Arc<Stopping>,
    /// The time that events expire by.
    age: Age,
    counters: Counters,
    /// Counts the clients, if the options say so.
    presence: Option<Arc<dyn PresenceTracker>>,
    /// The thread that evicts holds this lock, which comes before all others.
    evicting: Mutex<()>,
    /// When the next sweep for expired events is due, by `age`. `u64::MAX` if no event can expire.
    next_sweep: AtomicU64,
    /// The streams of the backplane, if there is one. Then the sequencer, the commits and the store do nothing.
    #[cfg(feature = "redis")]
    streams: Option<backplane::Streams>,
}

impl Broker {
    /// Creates a broker that keeps events in memory only. For one with a file see [`Broker::open`].
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) if an option can't be used.
    pub fn new(options: BrokerOptions) -> Result<Self, Error> {
        Broker::restore(options, Clock::System, Box::new(NoStore))
    }

    /// Creates a broker that keeps its events in a store. It restores the events of the store, as far as the options allow,
    /// and appends new ones.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) if an option can't be used, and those of [`Store::start`].
    pub fn with_store(options: BrokerOptions, store: impl Store + 'static) -> Result<Self, Error> {
        Broker::restore(options, Clock::System, Box::new(store))
    }

    pub(crate) fn restore(
        options: BrokerOptions,
        clock: Clock,
        mut store: Box<dyn Store>,
    ) -> Result<Self, Error> {
        options.check()?;
        let mut shared = Shared::new(options, &clock);
        let mut replay = Replay::default();
        let snapshot = Snapshot::default();
        store.start(snapshot.clone(), &mut |record| {
            shared.replay(&mut replay, record)
        })?;
        shared.finish_replay(&mut replay);
        let acknowledges = store.acknowledges();
        let sequencer = replay.restorer.finish(clock, acknowledges);
        shared.sequencer = sequencer.limited(
            shared.options.max_batch_size,
            shared.age.clone(),
            shared.can_expire(),
        );
        let period = store.flush_period().filter(|_| !acknowledges);
        shared.flushing = period.map(|period| Arc::new(Flushing::new(period)));
        shared.store = store;
        shared.sweep(shared.age.now());
        let shared = Arc::new(shared);
        let source: Arc<dyn SnapshotSource> = shared.clone();
        snapshot.connect(Arc::downgrade(&source));
        let started = Record::Started {
            position: shared.sequencer.end(),
            acknowledges: shared.store.acknowledges(),
        };
        // The store keeps the start of a run before a subscriber can see an event of it. If the disk fails, the record at
        // least comes before those of the events.
        if let Err(error) = shared
            .append_record(started)
            .and_then(|ticket| shared.store.flush(ticket))
        {
            log::warn!(
                "the store could not keep the record of this start yet: {}",
                error.report()
            );
        }
        let broker = Broker(Arc::new(Handle(shared)));
        if let Some(flushing) = &broker.0.flushing {
            flushing.start(Arc::downgrade(&broker.0.0))?;
        }
        broker.start_presence()?;
        Ok(broker)
    }

    /// Starts the thread that calls the hooks of the presence, if there are any.
    fn start_presence(&self) -> Result<(), Error> {
        match &self.0.presence {
            Some(presence) => presence.clone().start(Arc::downgrade(&self.0)),
            None => Ok(()),
        }
    }

    /// Publishes `data`, which serializes to any JSON but null, to a category, and returns the event's id. Never waits for a
    /// subscriber. Waits for a disk only if the [`Durability`](crate::Durability) of the file demands it, or if the file's
    /// queue is full.
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a category that is empty or longer than 1024 bytes and for
    /// data that is null or can't be serialized, [`TooLarge`](crate::ErrorKind::TooLarge) for data over
    /// [`max_event_size`](BrokerOptions::max_event_size), [`Busy`](crate::ErrorKind::Busy) if the store can't take it,
    /// [`Stopped`](crate::ErrorKind::Stopped) after the stop. The event is not published then.
    ///
    /// With Redis also [`Misdirected`](crate::ErrorKind::Misdirected), and [`TimedOut`](crate::ErrorKind::TimedOut): then it
    /// is not known whether the event was published.
    pub fn publish<T: Serialize + ?Sized>(
        &self,
        category: &str,
        data: &T,
    ) -> Result<EventId, Error> {
        self.publish_uncounted(category, data, None)
            .inspect_err(|_| self.count_refused())
    }

    /// [`publish`](Broker::publish), with all that a request can ask for, such as a
    /// [time to live](PublishRequest::ttl) of the event's own. With an [idempotency key](PublishRequest::idempotency_key), a
    /// repetition publishes nothing, as with [`publish_once`](Broker::publish_once).
    ///
    /// ```
    /// use std::time::Duration;
    /// use long_polling::{Broker, BrokerOptions, PublishRequest};
    ///
    /// let broker = Broker::new(BrokerOptions::new())?;
    /// broker.publish_with(
    ///     &PublishRequest::new("typing", "alice").ttl(Duration::from_secs(3)),
    /// )?;
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Broker::publish), and [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a time to live of
    /// less than a millisecond; with a key those of [`publish_once`](Broker::publish_once).
    pub fn publish_with<T: Serialize>(
        &self,
        request: &PublishRequest<T>,
    ) -> Result<EventId, Error> {
        if let Some(key) = &request.key {
            return self.publish_request_once(key, request);
        }
        self.publish_uncounted(&request.category, &request.data, request.ttl)
            .inspect_err(|_| self.count_refused())
    }

    /// Publishes, and leaves it to the caller to count an error.
    pub(crate) fn publish_uncounted<T: Serialize + ?Sized>(
        &self,
        category: &str,
        data: &T,
        ttl: Option<Duration>,
    ) -> Result<EventId, Error> {
        let draft = self.0.draft(category, data, ttl)?;
        self.0.publish(category, draft)
    }

    /// Returns what the broker has done since it was created, and what it holds now.
    pub fn statistics(&self) -> Statistics {
        let shared = &self.0;
        let keys = shared.keys.statistics(shared.age.now());
        Statistics {
            idempotency_keys: keys.held,
            repetitions: keys.repetitions,
            keys_forgotten: keys.forgotten,
            parked: shared.parking.len(),
            categories: shared.catalog.len(),
            store: shared.store_statistics(),
            present: shared.presence.as_ref().map(|presence| presence.present()),
            #[cfg(feature = "redis")]
            backplane: shared.backplane_statistics(),
            ..shared.counters.snapshot()
        }
    }

    /// Answers all parked subscribers as if they had timed out, refuses later polls and publishes, and has the store keep
    /// every event. May be called twice. Returns within a tenth of a second after `timeout`: a store that does not return is
    /// left to a thread of its own. A hook of the [presence](BrokerOptions::presence) that runs may finish, and none is called
    /// any more.
    ///
    /// # Errors
    ///
    /// [`File`](crate::ErrorKind::File) if events could not be written, and
    /// [`StopTimeout`](crate::ErrorKind::StopTimeout) if that took longer than `timeout`. If the store does not return, the
    /// message names the call; if a hook does not return, the message names the hook.
    pub fn stop(&self, timeout: Duration) -> Result<(), Error> {
        self.release();
        let Some(presence) = &self.0.presence else {
            return self.0.end_and_stop(timeout);
        };
        let deadline = Deadline::after(timeout);
        presence.end();
        let stopped = self.0.end_and_stop(timeout);
        let ended = presence.wait(deadline);
        stopped.and(ended)
    }

    /// The first half of a stop: answers all parked subscribers, and no subscriber parks from here on. Publishing goes on.
    pub(crate) fn release(&self) {
        self.0.parking.close();
    }

    #[cfg(feature = "testing")]
    pub(crate) fn wait_until_parked(&self, count: usize, limit: Duration) -> bool {
        self.0.parking.wait_for(count, Deadline::after(limit))
    }

    pub(crate) fn options(&self) -> &BrokerOptions {
        &self.0.options
    }

    /// Returns `true` from the begin of a stop on.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.parking.is_closed()
    }

    pub(crate) fn count_refused(&self) {
        self.0.counters.refused.fetch_add(1, Relaxed);
    }

    /// Returns the time that an event would be stamped with now, in Unix milliseconds.
    pub(crate) fn now(&self) -> u64 {
        #[cfg(feature = "redis")]
        if let Some(streams) = &self.0.streams {
            return streams.now();
        }
        self.0.sequencer.now()
    }

    /// Returns `true` if a publish waits until the store, or the backplane, keeps the event.
    pub(crate) fn acknowledges(&self) -> bool {
        self.0.acknowledges()
    }

    /// Returns how long a broker without publishes can go without a [`sweep`](Broker::sweep). `None` if no event can expire.
    #[cfg(feature = "native-http")]
    pub(crate) fn sweep_pause(&self) -> Option<Duration> {
        self.0.sweep_pause()
    }

    /// Loses the events that have expired. Publishes do so periodically; this is for a broker without publishes.
    pub(crate) fn sweep(&self) {
        self.0.sweep(self.0.age.now());
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("options", self.options())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn new(options: BrokerOptions, clock: &Clock) -> Self {
        let (age, presence) = (Age::starting_now(clock), options.presence);
        Shared {
            catalog: Catalog::new(options.clone()),
            parking: Parking::new(options.max_parked),
            sequencer: Restorer::default().finish(clock.clone(), false),
            commits: Commits::default(),
            keys: Keys::new(&options),
            store: Box::new(NoStore),
            flushing: None,
            stopping: Arc::default(),
            presence: presence.map(|presence| presence.create(&options.presence_hooks, &age)),
            age,
            counters: Counters::default(),
            evicting: Mutex::default(),
            next_sweep: AtomicU64::new(0),
            options,
            #[cfg(feature = "redis")]
            streams: None,
        }
    }

    fn acknowledges(&self) -> bool {
        #[cfg(feature = "redis")]
        if self.streams.is_some() {
            return true;
        }
        self.store.acknowledges()
    }

    /// Appends a record to the store, and returns its ticket.
    fn append_record(&self, record: Record) -> Result<u64, Error> {
        let _call = StoreCall::Append.enter(self);
        let ticket = self.store.append(record)?;
        if let Some(flushing) = &self.flushing {
            flushing.appended(ticket);
        }
        Ok(ticket)
    }

    fn store_statistics(&self) -> StoreStatistics {
        let mut statistics = self.store.statistics();
        if let Some(flushing) = &self.flushing {
            flushing.add_to(&mut statistics);
        }
        statistics
    }
}
