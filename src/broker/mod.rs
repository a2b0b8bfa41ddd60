//! Categories and waiting, without HTTP and without files: [`Broker`].
//!
//! An event is stamped by the [`Sequencer`], kept in the [`Ring`](ring::Ring) of its category and put into the slot of
//! every [`Waiter`] parked there. A subscriber looks into the ring and parks under the same lock, so that nothing
//! published in between is missed.

mod batch;
mod batch_limit;
mod calls;
mod catalog;
mod clock;
mod commit;
mod evict;
mod flushing;
mod options;
mod poll;
mod publish;
mod replay;
mod restorer;
mod ring;
mod sequencer;
mod snapshot;
mod statistics;
mod stopping;
mod sync;
#[cfg(test)]
mod tests;
mod waiter;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::Error;
use crate::position::{Cursor, EventId};
use crate::store::{NoStore, Record, Snapshot, SnapshotSource, Store, StoreStatistics};
use crate::wire::Categories;
use calls::Call;
use catalog::Catalog;
use clock::Age;
use commit::Commits;
use flushing::Flushing;
use replay::Replay;
use restorer::Restorer;
use sequencer::Sequencer;
use statistics::Counters;
use stopping::Stopping;
use sync::{AtomicU64, AtomicUsize, Mutex};
use waiter::Parking;

pub use batch::Batch;
pub(crate) use clock::Clock;
pub use options::BrokerOptions;
pub(crate) use poll::{Parked, PollMode, Polled};
pub use statistics::Statistics;
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
/// let thread = std::thread::spawn(move || follower.subscribe("alerts", Cursor::Oldest, Duration::from_secs(10)));
/// broker.publish("alerts", "disk almost full")?;
///
/// let batch = thread.join().unwrap()?;
/// assert_eq!(batch.events()[0].text(), "disk almost full");
///
/// // Go on from there: nothing is missed and nothing comes twice.
/// let next = broker.subscribe("alerts", Cursor::LastId(batch.last_id()), Duration::ZERO)?;
/// assert!(next.events().is_empty());
/// # Ok::<(), long_polling::Error>(())
/// ```
#[derive(Clone)]
pub struct Broker(Arc<Handle>);

/// What all handles share. The last of them to go stops the store, though a poll or the store's own thread may hold on to
/// the rest for a moment.
struct Handle(Arc<Shared>);

impl Deref for Handle {
    type Target = Arc<Shared>;

    fn deref(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.stop_store(DROP_TIMEOUT) {
            log::error!(
                "a broker was dropped, and its store said: {}",
                error.report()
            );
        }
    }
}

/// How long a store may take that was not stopped.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

struct Shared {
    options: BrokerOptions,
    catalog: Catalog,
    parking: Parking,
    sequencer: Sequencer,
    commits: Commits,
    store: Box<dyn Store>,
    /// Where the store asks for flushes.
    flushing: Option<Arc<Flushing>>,
    stopping: Arc<Stopping>,
    /// By which events expire.
    age: Age,
    counters: Counters,
    /// Categories that hold events.
    occupied: AtomicUsize,
    /// Held by whoever evicts; comes before all other locks.
    evicting: Mutex<()>,
    /// When expired events of all categories are looked for next, by `age`.
    next_sweep: AtomicU64,
}

impl Broker {
    /// A broker that keeps events in memory only. For one with a file see [`Broker::open`].
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) where an option can't be used.
    pub fn new(options: BrokerOptions) -> Result<Self, Error> {
        Broker::restore(options, Clock::System, Box::new(NoStore))
    }

    /// A broker whose events are kept in a store: those in it are there again, as far as the options allow, and new ones
    /// go to it.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) where an option can't be used, and those of
    /// [`Store::start`].
    pub fn with_store(options: BrokerOptions, store: impl Store + 'static) -> Result<Self, Error> {
        Broker::restore(options, Clock::System, Box::new(store))
    }

    pub(crate) fn restore(
        options: BrokerOptions,
        clock: Clock,
        mut store: Box<dyn Store>,
    ) -> Result<Self, Error> {
        options.check()?;
        let mut shared = Shared {
            catalog: Catalog::new(),
            parking: Parking::new(options.max_parked),
            sequencer: Restorer::default().finish(clock.clone(), false),
            commits: Commits::default(),
            store: Box::new(NoStore),
            flushing: None,
            stopping: Arc::default(),
            age: Age::starting_now(&clock),
            counters: Counters::default(),
            occupied: AtomicUsize::new(0),
            evicting: Mutex::default(),
            next_sweep: AtomicU64::new(0),
            options,
        };
        let mut replay = Replay::default();
        let live = Snapshot::default();
        store.start(live.clone(), &mut |record| {
            shared.replay(&mut replay, record)
        })?;
        shared.settle_restored(&mut replay);
        let acknowledges = store.acknowledges();
        let age = shared
            .options
            .event_ttl
            .is_some()
            .then(|| shared.age.clone());
        shared.sequencer = replay
            .restorer
            .finish(clock, acknowledges)
            .limited(shared.options.max_batch_size, age);
        let period = store.flush_period().filter(|_| !acknowledges);
        shared.flushing = period.map(|period| Arc::new(Flushing::new(period)));
        shared.store = store;
        shared.sweep(shared.age.now());
        let shared = Arc::new(shared);
        // Only what the store itself fills can be taken: nobody else has seen it.
        let source: Arc<dyn SnapshotSource> = shared.clone();
        live.connect(Arc::downgrade(&source));
        let started = Record::Started {
            position: shared.sequencer.end(),
            acknowledges: shared.store.acknowledges(),
        };
        // That a run began is kept before anybody can see an event of it. Where the disk fails, it comes before them.
        if let Err(error) = shared
            .append_record(started)
            .and_then(|ticket| shared.store.flush(ticket))
        {
            log::warn!(
                "that this run has begun could not be kept yet: {}",
                error.report()
            );
        }
        let broker = Broker(Arc::new(Handle(shared)));
        if let Some(flushing) = &broker.0.flushing {
            flushing.start(Arc::downgrade(&broker.0.0))?;
        }
        Ok(broker)
    }

    /// Publishes `data`, anything that serializes to JSON but not to null, to a category, and gives the event's id.
    /// Never waits for a subscriber; for a disk only where a file's [`Durability`](crate::Durability) asks for it, or where
    /// its queue is full.
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a category that is empty or longer than 1024 bytes and for
    /// data that is null or can't be serialized, [`TooLarge`](crate::ErrorKind::TooLarge) for data over
    /// [`max_event_size`](BrokerOptions::max_event_size), [`Busy`](crate::ErrorKind::Busy) where the store can't take it,
    /// [`Stopped`](crate::ErrorKind::Stopped) after the stop. What was refused was not published.
    pub fn publish<T: Serialize + ?Sized>(
        &self,
        category: &str,
        data: &T,
    ) -> Result<EventId, Error> {
        self.publish_uncounted(category, data)
            .inspect_err(|_| self.count_refused())
    }

    /// Publishes, and leaves it to the caller to count a refusal.
    pub(crate) fn publish_uncounted<T: Serialize + ?Sized>(
        &self,
        category: &str,
        data: &T,
    ) -> Result<EventId, Error> {
        let draft = self.0.draft(category, data)?;
        self.0.publish(category, draft)
    }

    /// Waits for events of one category or several, for as long as `timeout`; zero looks and does not wait. A batch
    /// without events says that none came in time. It has at most
    /// [`max_batch_size`](BrokerOptions::max_batch_size) bytes; what is left comes with the next poll, from
    /// [`Batch::last_id`] on.
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a category that is empty or too long, none, or more than 100;
    /// [`Stopped`](crate::ErrorKind::Stopped) after the stop. A subscriber that is parked at the stop gets a batch without
    /// events.
    pub fn subscribe(
        &self,
        categories: impl Into<Categories>,
        cursor: Cursor,
        timeout: Duration,
    ) -> Result<Arc<Batch>, Error> {
        self.wait(categories.into(), cursor, None, timeout)
    }

    /// [`subscribe`](Broker::subscribe), for at most `limit` events. The next one may have the same timestamp as the last
    /// of them, so go on by [`Batch::last_id`].
    ///
    /// With [`delete_after_first_retrieval`](BrokerOptions::delete_after_first_retrieval) and a limit of 1, a category is
    /// a queue of work: each of its events goes to one of those who ask for it, or, where several are parked at its
    /// publish, to all of these. One parked in several categories may be handed an event of each.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use long_polling::{Broker, BrokerOptions, Cursor};
    /// let options = BrokerOptions { delete_after_first_retrieval: true, ..BrokerOptions::default() };
    /// let broker = Broker::new(options)?;
    /// broker.publish("jobs", "first")?;
    /// broker.publish("jobs", "second")?;
    /// for job in ["first", "second"] {
    ///     let batch = broker.subscribe_up_to(1, "jobs", Cursor::Oldest, Duration::ZERO)?;
    ///     assert_eq!(batch.events()[0].text(), job);
    /// }
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`subscribe`](Broker::subscribe), and [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a limit of 0.
    pub fn subscribe_up_to(
        &self,
        limit: usize,
        categories: impl Into<Categories>,
        cursor: Cursor,
        timeout: Duration,
    ) -> Result<Arc<Batch>, Error> {
        self.wait(categories.into(), cursor, Some(limit), timeout)
    }

    fn wait(
        &self,
        categories: Categories,
        cursor: Cursor,
        limit: Option<usize>,
        timeout: Duration,
    ) -> Result<Arc<Batch>, Error> {
        let look = if timeout.is_zero() {
            PollMode::NoWait
        } else {
            PollMode::Park
        };
        let polled = self
            .poll(&categories, cursor, limit, look)
            .inspect_err(|_| self.count_refused())?;
        match polled {
            Polled::Ready(batch) => Ok(batch),
            // A deadline beyond what an Instant can hold is none.
            Polled::Parked(parked) => Ok(parked.wait(Instant::now().checked_add(timeout))),
        }
    }

    /// What the broker has done and holds.
    pub fn statistics(&self) -> Statistics {
        let shared = &self.0;
        Statistics {
            parked: shared.parking.len(),
            categories: shared.catalog.len(),
            store: shared.store_statistics(),
            ..shared.counters.snapshot()
        }
    }

    /// Answers all parked subscribers as if they had timed out, refuses what comes after, and writes to the file what
    /// is not yet there. Doing so twice is fine. Returns within a tenth of a second after `timeout`, whatever the store
    /// does: a store that does not return is left to a thread of its own.
    ///
    /// # Errors
    ///
    /// [`File`](crate::ErrorKind::File) where events could not be written, and
    /// [`StopTimeout`](crate::ErrorKind::StopTimeout) where that took longer than `timeout`; for a store that does not return,
    /// the message names the call.
    pub fn stop(&self, timeout: Duration) -> Result<(), Error> {
        self.release();
        self.0.end_and_stop(timeout)
    }

    /// The first half of stopping: answers all parked subscribers, and nobody parks from here on. Publishing goes on.
    pub(crate) fn release(&self) {
        self.0.parking.close();
    }

    #[cfg(feature = "testing")]
    pub(crate) fn wait_until_parked(&self, count: usize, limit: Duration) -> bool {
        // A deadline beyond what an Instant can hold is none.
        let deadline = Instant::now().checked_add(limit);
        self.0.parking.wait_for(count, deadline)
    }

    pub(crate) fn options(&self) -> &BrokerOptions {
        &self.0.options
    }

    pub(crate) fn count_refused(&self) {
        self.0.counters.refused.fetch_add(1, Relaxed);
    }

    /// The time that an event would be stamped with now, in Unix milliseconds.
    pub(crate) fn now(&self) -> u64 {
        self.0.sequencer.now()
    }

    /// True where a publish waits until the event is kept.
    pub(crate) fn acknowledges(&self) -> bool {
        self.0.store.acknowledges()
    }

    /// Lets go of events that have expired. Publishing does so now and then; this is for a broker that nobody publishes
    /// to.
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
    /// Has the store take a record.
    fn append_record(&self, record: Record) -> Result<u64, Error> {
        let _call = calls::enter(self, Call::Append);
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
