//! Stores: [`Store`], the trait that a broker writes its events to, [`GroupCommit`], which makes one of a program's
//! [`RecordLog`], the [`Record`]s that a store keeps, and the [`Snapshot`] from which it compacts its log.
//!
//! A store knows nothing of a broker. The store that comes with this crate is a file: see
//! [`FilePersistorInfo`](crate::FilePersistorInfo).

mod boxed;
pub(crate) mod file;
mod group_commit;
mod loss;
mod record;
mod record_log;
mod refusal;
mod snapshot;
mod statistics;

use std::time::Duration;

use crate::error::Error;

pub use group_commit::GroupCommit;
pub(crate) use loss::Loss;
pub use loss::LossTable;
pub use record::Record;
pub(crate) use record::event_line_len;
pub use record_log::RecordLog;
pub use snapshot::Snapshot;
pub(crate) use snapshot::SnapshotSource;
pub use statistics::StoreStatistics;

/// A log of [`Record`]s outside the broker's memory, from which the next start restores the events. Its rules:
/// [`append`](Store::append) takes records in publish order and waits for nothing; what a [`flush`](Store::flush) has
/// succeeded for survives a kill; [`stop`](Store::stop) keeps everything; and the next [`start`](Store::start) returns the
/// records, unchanged and in the same order.
///
/// **For a database or a file, implement [`RecordLog`] instead**, whose methods may simply wait for the disk, and take a
/// [`GroupCommit`] of it as the store. A `Store` is called by several threads at once, so it has to be [`Sync`]; a
/// `RecordLog`, such as a connection to a database, has not.
///
/// `testing::StoreConformance` (feature `testing`) checks a store against all rules:
///
/// - Tickets grow. A flush returns for each ticket that `append` has returned, also for one that was flushed already.
/// - `append` does not wait for the disk, even while a flush does, and never calls the broker.
/// - A record whose flush has failed is kept by the next flush that succeeds, or [`Record::Refused`] takes its place. In a
///   store that [acknowledges](Store::acknowledges), the latter, as the publisher has got an error.
/// - [`admit`](Store::admit) refuses with the kind [`Busy`](crate::ErrorKind::Busy).
/// - [`acknowledges`](Store::acknowledges) and [`flush_period`](Store::flush_period) never change after the start.
/// - `stop` may be called again. After it, `append` fails or keeps its record, and `flush` returns.
///
/// It is golongpoll's `AddOn`, but with errors. [`FilePersistorInfo`](crate::FilePersistorInfo) describes the store that
/// comes with this crate. [`Broker::with_store`](crate::Broker::with_store) takes any other.
///
/// # Errors
///
/// A method returns an [`Error`] with a kind and a message of its own by [`Error::new`]. For the error of a library,
/// [`Error::store`] makes one, and `?` does so for a [`std::io::Error`] and for a boxed error.
///
/// # Threads and locks
///
/// | method | thread | locks of the broker | may wait |
/// |---|---|---|---|
/// | [`start`](Store::start) | the one that starts the broker | none | yes |
/// | [`admit`](Store::admit) | any that publishes, several at once | none | yes |
/// | [`append`](Store::append), [`append_batch`](Store::append_batch) | any, one at a time | some | no |
/// | [`flush`](Store::flush), [`settled`](Store::settled) | any that publishes or calls [`Snapshot::records`], a thread of the broker; several at once | none | yes |
/// | [`stop`](Store::stop) | a thread of its own | none | yes |
/// | [`statistics`](Store::statistics) | any, several at once | none | better not |
///
/// # Records that are lost
///
/// If a record is lost, the records after it may be lost too: sequence numbers are consecutive, so the next run notices what
/// is missing and reports a gap to subscribers. A store that drops an event and goes on must put
/// [`Record::Refused`] in its place, if `flush` has failed for it.
///
/// # When `flush` is called
///
/// - Once at the start, for [`Record::Started`].
/// - If the store [acknowledges](Store::acknowledges): for every event, before its publisher and its subscribers see it.
/// - Otherwise never by publishing: the store decides when it writes, and a crash loses what it has not written. A store
///   that only buffers in `append` returns a [`flush_period`](Store::flush_period). The broker then calls `flush` for the
///   newest record once per period, and once more before `stop`.
///
/// # Calls of a `Snapshot` from a store
///
/// [`Snapshot::records`] works within `admit`, `flush`, `settled`, `stop` and `statistics`, and in a thread of the store.
/// Within `start` and `append` it returns nothing: at the start there are no records yet, and `append` is called with locks
/// of the broker. If a call of the store does not return, [`Broker::stop`](crate::Broker::stop) still returns after its
/// timeout and leaves the call behind.
///
/// # Panics of a store
///
/// The broker goes on. A panic in `admit`, `append` or `flush` reaches the publisher; over HTTP the answer is a 500.
///
/// - After a panic in `append`, the event is not published, and the next event gets its number. The store must not have
///   kept it.
/// - After a panic in `flush`, the event is neither published nor refused yet. The next publisher calls `flush` for it
///   again.
/// - A panic over a record that is not an event is logged; what the record describes has happened already.
/// - A panic in `stop` is returned as an error.
///
/// # Example
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use std::time::Duration;
/// use long_polling::store::{Record, Snapshot, Store};
/// use long_polling::{Broker, BrokerOptions, Cursor, Error};
///
/// /// Keeps the lines of records in memory that outlives the broker.
/// #[derive(Clone, Default)]
/// struct Memory(Arc<Mutex<Vec<String>>>);
///
/// impl Store for Memory {
///     fn start(
///         &mut self,
///         _: Snapshot,
///         each: &mut dyn FnMut(Record),
///     ) -> Result<(), Error> {
///         for line in self.0.lock().unwrap().iter() {
///             each(line.parse()?);
///         }
///         Ok(())
///     }
///     fn append(&self, record: Record) -> Result<u64, Error> {
///         let mut lines = self.0.lock().unwrap();
///         lines.push(record.to_string());
///         Ok(lines.len() as u64)
///     }
///     fn flush(&self, _: u64) -> Result<(), Error> {
///         Ok(())
///     }
///     fn stop(&self, _: Duration) -> Result<(), Error> {
///         Ok(())
///     }
/// }
///
/// let memory = Memory::default();
/// let broker = Broker::with_store(BrokerOptions::default(), memory.clone())?;
/// broker.publish("jobs", "first")?;
/// broker.stop(Duration::from_secs(1))?;
///
/// let broker = Broker::with_store(BrokerOptions::default(), memory)?;
/// let batch = broker.subscribe("jobs", Cursor::Oldest, Duration::ZERO)?;
/// assert_eq!(batch.events()[0].text(), "first");
/// # Ok::<(), Error>(())
/// ```
pub trait Store: Send + Sync {
    /// Opens the store, and passes each record that it has to `each`, oldest first. `snapshot` describes the broker's
    /// events for a store that compacts its log; it is empty until this method has returned.
    ///
    /// Called once, before any other method, in the thread that starts the broker, without locks.
    ///
    /// # Errors
    ///
    /// Any error keeps the broker from starting, and is returned from its start.
    fn start(&mut self, snapshot: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error>;

    /// Decides whether an event may be published, by the approximate length of its record's line. May wait for room.
    /// Defaults to accepting every event.
    ///
    /// Called before each event is appended, in the publisher's thread, without locks.
    ///
    /// # Errors
    ///
    /// [`Busy`](crate::ErrorKind::Busy) if the store has no room. The event is not published, and its publisher gets the
    /// error; over HTTP, 503 with `Retry-After`.
    fn admit(&self, bytes: usize) -> Result<(), Error> {
        let _ = bytes;
        Ok(())
    }

    /// Accepts a record and returns its ticket, a number that is greater than that of the record before it.
    ///
    /// Called by one thread at a time, in publish order, with locks of the broker: it must neither wait for a disk nor
    /// call the broker.
    ///
    /// # Errors
    ///
    /// If the store can't accept the record. An event is then not published.
    fn append(&self, record: Record) -> Result<u64, Error>;

    /// Accepts the records of events that were published together, or with an idempotency key, and returns the ticket of the
    /// last one. The first of them are a [`Record::Keyed`], if there is a key, and a [`Record::Batch`], if there are several
    /// events. A [`flush`](Store::flush) of that ticket may succeed only if the store keeps all of them.
    /// The default appends one after the other, which is correct unless `flush` can fail for some of them alone.
    ///
    /// Called as [`append`](Store::append) is.
    ///
    /// # Errors
    ///
    /// If the store can't accept a record. None of the events is then published, and the broker appends a
    /// [`Record::Refused`] for those that were accepted.
    fn append_batch(&self, records: Vec<Record>) -> Result<u64, Error> {
        let mut tickets = records.into_iter().map(|record| self.append(record));
        tickets.try_fold(0, |_, ticket| ticket)
    }

    /// Waits until the store keeps every record up to this ticket.
    ///
    /// Called by several threads at once, without locks. The trait's documentation says when.
    ///
    /// # Errors
    ///
    /// [`Busy`](crate::ErrorKind::Busy), or another kind, if the store does not keep the record with this ticket and will
    /// not.
    fn flush(&self, ticket: u64) -> Result<(), Error>;

    /// Returns a ticket up to which [`flush`](Store::flush) returns at once. The default, 0, is correct and slower when
    /// many publishers wait at the same time.
    ///
    /// Called after a successful `flush`, if the store [acknowledges](Store::acknowledges), without locks.
    fn settled(&self) -> u64 {
        0
    }

    /// Returns `true` if an event may be seen only after a successful [`flush`](Store::flush): its publisher and its
    /// subscribers then wait for that. Defaults to `false`.
    ///
    /// The answer must not change after the start. Called by any thread, with or without locks.
    fn acknowledges(&self) -> bool {
        false
    }

    /// Returns how often the broker calls [`flush`](Store::flush) while it has records that are not flushed, for a store
    /// that does not [acknowledge](Store::acknowledges) events. A killed process loses at most the events of one period.
    /// Defaults to `None`: the broker does not flush.
    ///
    /// Called once, after the start. A thread of the broker then flushes. If a flush fails, the broker logs the error,
    /// counts it in [`StoreStatistics::failures`], and tries again after the same period.
    fn flush_period(&self) -> Option<Duration> {
        None
    }

    /// Keeps every record accepted so far, and closes the store. No record is appended after this call. It may be called
    /// again, for example after it has reached its timeout.
    ///
    /// Called in a thread of its own, without locks. The broker leaves the thread behind if it needs longer than
    /// `timeout`.
    ///
    /// # Errors
    ///
    /// [`File`](crate::ErrorKind::File) if records could not be kept, and
    /// [`StopTimeout`](crate::ErrorKind::StopTimeout) if that took longer than `timeout`.
    fn stop(&self, timeout: Duration) -> Result<(), Error>;

    /// Returns what the store has done, for [`Broker::statistics`](crate::Broker::statistics). Defaults to zeros.
    ///
    /// Called by any thread, without locks.
    fn statistics(&self) -> StoreStatistics {
        StoreStatistics::default()
    }

    /// Returns `true` for a store that never waits, so that stopping it needs no thread.
    #[doc(hidden)]
    fn keeps_nothing(&self) -> bool {
        false
    }
}

/// The store of [`Broker::new`](crate::Broker::new), which keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NoStore;

impl Store for NoStore {
    fn start(&mut self, _: Snapshot, _: &mut dyn FnMut(Record)) -> Result<(), Error> {
        Ok(())
    }

    fn append(&self, _: Record) -> Result<u64, Error> {
        Ok(0)
    }

    fn append_batch(&self, _: Vec<Record>) -> Result<u64, Error> {
        Ok(0)
    }

    fn flush(&self, _: u64) -> Result<(), Error> {
        Ok(())
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }

    fn keeps_nothing(&self) -> bool {
        true
    }
}
