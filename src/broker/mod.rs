//! Categories and waiting, without HTTP and without files: [`Broker`].
//!
//! An event is stamped by the [`Sequencer`], kept in the [`Ring`](ring::Ring) of its category and put into the slot of
//! every [`Waiter`] parked there. A subscriber looks into the ring and parks under the same lock, so that nothing
//! published in between is missed.

mod batch;
mod catalog;
mod clock;
mod evict;
mod options;
mod poll;
mod portion;
mod ring;
#[cfg(all(test, shuttle))]
mod schedules;
mod sequencer;
mod statistics;
mod store;
mod sync;
mod waiter;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::event::Draft;
use crate::position::{Cursor, EventId};
use crate::wire::{Categories, check_category};
use catalog::{Catalog, State};
use ring::Entry;
use sequencer::{Restorer, Sequencer};
use statistics::Counters;
use sync::{AtomicU64, AtomicUsize, Mutex};
use waiter::Parking;

pub use batch::Batch;
pub(crate) use clock::Clock;
pub use options::BrokerOptions;
pub(crate) use poll::{Look, Parked, Polled};
pub use statistics::{FileStatistics, Statistics};
pub(crate) use store::{Record, Store};
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
pub struct Broker(Arc<Shared>);

struct Shared {
    options: BrokerOptions,
    catalog: Catalog,
    parking: Parking,
    sequencer: Sequencer,
    store: Option<Box<dyn Store>>,
    counters: Counters,
    /// Categories that hold events.
    occupied: AtomicUsize,
    /// Held by whoever evicts; comes before all other locks.
    evicting: Mutex<()>,
    /// When expired events of all categories are looked for next, in Unix milliseconds.
    next_sweep: AtomicU64,
}

impl Broker {
    /// A broker that keeps events in memory only. For one with a file see [`Broker::open`].
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`](ErrorKind::InvalidSetting) where an option can't be used.
    pub fn new(options: BrokerOptions) -> Result<Self, Error> {
        Broker::restore(options, Clock::System, |_| Ok(None))
    }

    /// A broker that starts with the records that `load` gives to its first argument, oldest first, and then keeps new
    /// ones in the store that it returns.
    pub(crate) fn restore(
        options: BrokerOptions,
        clock: Clock,
        load: impl FnOnce(&mut dyn FnMut(Record)) -> Result<Option<Box<dyn Store>>, Error>,
    ) -> Result<Self, Error> {
        options.check()?;
        let mut shared = Shared {
            catalog: Catalog::new(),
            parking: Parking::new(options.max_parked),
            sequencer: Restorer::default().finish(clock.clone()),
            store: None,
            counters: Counters::default(),
            occupied: AtomicUsize::new(0),
            evicting: Mutex::default(),
            next_sweep: AtomicU64::new(0),
            options,
        };
        let mut restorer = Restorer::default();
        let store = load(&mut |record| match record {
            Record::Started(id) => restorer.start(id),
            Record::Published(event) => shared.keep(restorer.place(event)),
            Record::Taken(category, ids) => shared.forget(&category, &ids),
            Record::Ended(id) => restorer.end(id),
        })?;
        shared
            .catalog
            .all()
            .iter()
            .filter_map(|category| category.lock())
            .for_each(|mut state| state.ring.sort_by_time());
        shared.sequencer = restorer.finish(clock);
        shared.store = store;
        shared.record(|| Record::Started(shared.sequencer.newest().1));
        shared.sweep();
        Ok(Broker(Arc::new(shared)))
    }

    /// Publishes `data`, anything that serializes to JSON but not to null, to a category, and gives the event's id.
    /// Never waits for a subscriber or a disk.
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`](ErrorKind::InvalidRequest) for a category that is empty or longer than 1024 bytes and for
    /// data that is null or can't be serialized, [`TooLarge`](ErrorKind::TooLarge) for data over
    /// [`max_event_size`](BrokerOptions::max_event_size), [`Stopped`](ErrorKind::Stopped) after the stop. What was
    /// refused was not published.
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
    /// [`InvalidRequest`](ErrorKind::InvalidRequest) for a category that is empty or too long, none, or more than 100;
    /// [`Stopped`](ErrorKind::Stopped) after the stop. A subscriber that is parked at the stop gets a batch without
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
    /// Those of [`subscribe`](Broker::subscribe), and [`InvalidRequest`](ErrorKind::InvalidRequest) for a limit of 0.
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
            Look::Once
        } else {
            Look::AndPark
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
            file: shared
                .store
                .as_ref()
                .map(|store| store.statistics())
                .unwrap_or_default(),
            ..shared.counters.snapshot()
        }
    }

    /// Answers all parked subscribers as if they had timed out, refuses what comes after, and writes to the file what
    /// is not yet there. Doing so twice is fine.
    ///
    /// # Errors
    ///
    /// [`File`](ErrorKind::File) where events could not be written, and
    /// [`StopTimeout`](ErrorKind::StopTimeout) where that took longer than `timeout`.
    pub fn stop(&self, timeout: Duration) -> Result<(), Error> {
        self.release();
        if self.0.sequencer.close() {
            self.0.record(|| Record::Ended(self.0.sequencer.newest().1));
        }
        self.0
            .store
            .as_ref()
            .map_or(Ok(()), |store| store.stop(timeout))
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

    /// The time for golongpoll's answer to a poll that timed out. A follower that goes on from it by time alone misses
    /// nothing published later in the same millisecond, and is never sent back behind its own `since_time`.
    pub(crate) fn timeout_timestamp(&self, since_time: Option<u64>) -> u64 {
        self.0
            .sequencer
            .now()
            .saturating_sub(1)
            .max(since_time.unwrap_or(0))
    }

    /// Lets go of events that have expired. Publishing does so now and then; this is for a broker that nobody publishes
    /// to.
    pub(crate) fn sweep(&self) {
        self.0.sweep();
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
    fn draft<T: Serialize + ?Sized>(&self, category: &str, data: &T) -> Result<Draft, Error> {
        check_category(category)?;
        // A category in use lends its name, so that its events share one.
        let name = self
            .catalog
            .get(category)
            .map_or_else(|| category.into(), |category| category.name().clone());
        let draft = Draft::new(name, data)?;
        let size = draft.data().len();
        if draft.data() == "null" {
            return Err(Error::request(
                "null data: an event carries any JSON value but null",
            ));
        }
        if size > self.options.max_event_size {
            let max = self.options.max_event_size;
            let message =
                format!("an event with {size} bytes of data: the limit (max_event_size) is {max}");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        Ok(draft)
    }

    fn publish(&self, category: &str, draft: Draft) -> Result<EventId, Error> {
        let (published, category, unused) = self.catalog.with(category, |category, state| {
            let published = self.publish_to(state, draft);
            (published, category.clone(), state.is_unused())
        });
        if unused {
            self.catalog.remove_unused(&category);
        }
        let Published { id, waiters, batch } = published?;
        if let Some(batch) = batch {
            waiters.values().for_each(|waiter| _ = waiter.offer(&batch));
        }
        if self.is_over() {
            self.evict();
        }
        if self.options.event_ttl.is_some() && self.sequencer.now() >= self.next_sweep.load(Relaxed)
        {
            self.sweep();
        }
        Ok(id)
    }

    /// Stamps an event and puts it where subscribers find it, under the lock of its category.
    fn publish_to(&self, state: &mut State, draft: Draft) -> Result<Published, Error> {
        let entry = self.sequencer.stamp(draft, |event| {
            self.record(|| Record::Published(event.clone()))
        })?;
        self.counters.published.fetch_add(1, Relaxed);
        let id = entry.event.id();
        let waiters = std::mem::take(&mut state.waiters);
        let batch = (!waiters.is_empty())
            .then(|| Arc::new(Batch::new(vec![entry.event.clone()], false, id)));
        if let (true, Some(batch)) = (self.options.delete_after_first_retrieval, &batch) {
            // Whether the event is kept depends on whether anyone was still there to take it, so this can't wait for
            // the lock to be released.
            let taken = waiters
                .values()
                .filter(|waiter| waiter.offer(batch))
                .count();
            if taken > 0 {
                self.record(|| Record::Taken(entry.event.shared_category().clone(), vec![id]));
                return Ok(Published {
                    id,
                    waiters: BTreeMap::new(),
                    batch: None,
                });
            }
        }
        self.push(state, entry);
        Ok(Published { id, waiters, batch })
    }

    fn push(&self, state: &mut State, entry: Entry) {
        if state.ring.is_empty() {
            self.occupied.fetch_add(1, Relaxed);
        }
        self.counters.added(entry.event.as_json().len());
        let removed = state.ring.push(entry, self.options.events_per_category);
        self.counters.lost(&self.counters.pushed_out, removed);
        self.expire(&mut state.ring);
    }

    /// Keeps an event that was read from a file.
    fn keep(&self, mut entry: Entry) {
        let name = entry.event.shared_category().clone();
        self.catalog.with(&name, |category, state| {
            entry.event.share_category(category.name());
            self.push(state, entry);
        });
        if self.is_over() {
            self.evict();
        }
    }

    /// Lets go of events that an earlier run has handed out for good.
    fn forget(&self, category: &str, ids: &[EventId]) {
        let Some(category) = self.catalog.get(category) else {
            return;
        };
        let Some(mut state) = category.lock() else {
            return;
        };
        let removed = self.remove(&mut state.ring, |ring| ring.remove(ids));
        self.counters.removed(removed);
        let unused = state.is_unused();
        drop(state);
        if unused {
            self.catalog.remove_unused(&category);
        }
    }

    fn record(&self, record: impl FnOnce() -> Record) {
        if let Some(store) = &self.store {
            store.append(record());
        }
    }
}

/// What is left to do for an event once the lock of its category is released.
struct Published {
    id: EventId,
    waiters: BTreeMap<u64, Arc<Waiter>>,
    batch: Option<Arc<Batch>>,
}
