//! Where a broker's events are kept besides memory: [`Store`], the [`Record`]s that it keeps, and the [`Snapshot`] from
//! which it compacts its log.
//!
//! A store knows no broker. `file` is the store that comes with this crate.

pub(crate) mod file;
mod loss;
mod record;
mod snapshot;
mod statistics;

use std::time::Duration;

use crate::error::Error;

pub(crate) use loss::Loss;
pub use loss::LossTable;
pub use record::Record;
pub(crate) use record::event_line_len;
pub use snapshot::Snapshot;
pub(crate) use snapshot::SnapshotSource;
pub use statistics::StoreStatistics;

/// Where a broker keeps its events besides memory, so that the next start has them again: golongpoll's `AddOn`, but with
/// errors. [`FilePersistorInfo`](crate::FilePersistorInfo) describes the one that comes with this crate; give another to
/// [`Broker::with_store`](crate::Broker::with_store).
///
/// # What the broker promises
///
/// [`start`](Store::start) is called once, before anything else. [`append`](Store::append) is called by one thread at a
/// time, in publish order, and [`stop`](Store::stop) after the last of them. [`admit`](Store::admit) and
/// [`flush`](Store::flush) are called by many threads at once and without any lock of the broker's held.
///
/// # What the store promises
///
/// The next `start` gives the records back in the order in which they were appended, and has all that were flushed. One
/// that it could not keep may be missing, and then everything after it may, too: a follower is told of a gap, since
/// sequence numbers have no holes. Where a store drops an event and goes on, it keeps
/// [`Record::Refused`] in its place if nobody was told that the event was published.
///
/// # When `flush` is called
///
/// - Once at the start, for [`Record::Started`].
/// - With [`acknowledges`](Store::acknowledges), for every event, before its publisher and its subscribers see it.
/// - Without it, publishing never calls `flush`: the store alone decides when it writes, and a crash loses what it has
///   not written. A store that only buffers in `append` gives a [`flush_period`](Store::flush_period); the broker then
///   calls `flush` for the newest record that often, and once more before [`stop`](Store::stop).
///
/// # Calls of `Snapshot` from within a store
///
/// [`Snapshot::records`] works in `admit`, `flush`, `settled`, `stop` and `statistics`, and in a thread of the store's own. In
/// `start` and `append` it returns nothing at once: at the start there is nothing yet, and `append` is called with the
/// broker's locks held. A call of the store that does not return is left behind by [`Broker::stop`](crate::Broker::stop),
/// which keeps its timeout.
///
/// # Panics of a store
///
/// The broker goes on. A panic in `admit`, `append` or `flush` reaches whoever published; over HTTP it is a 500. An event
/// that `append` panicked over is not published, and its number goes to the next one, so it must not have been kept. One
/// that `flush` panicked over is neither published nor refused yet: whoever publishes next asks for it again. A panic
/// over a record that is no event is logged, since what it tells of has happened, and one in `stop` is an error.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use std::time::Duration;
/// use long_polling::store::{Record, Snapshot, Store};
/// use long_polling::{Broker, BrokerOptions, Cursor, Error};
///
/// /// Keeps everything in memory that outlives the broker.
/// #[derive(Clone, Default)]
/// struct Memory(Arc<Mutex<Vec<String>>>);
///
/// impl Store for Memory {
///     fn start(&mut self, _: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
///         for line in self.0.lock().unwrap().iter() {
///             each(Record::from_line(line)?.unwrap());
///         }
///         Ok(())
///     }
///     fn append(&self, record: Record) -> Result<u64, Error> {
///         let mut lines = self.0.lock().unwrap();
///         lines.push(record.to_line());
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
    /// Makes ready, and gives each record kept so far to `each`, oldest first. `live` is what the broker holds, for a
    /// store that makes its log smaller now and then; it says nothing before this has returned.
    ///
    /// # Errors
    ///
    /// Whatever keeps the broker from being started.
    fn start(&mut self, live: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error>;

    /// Asks whether an event may come whose record is about so many bytes of text. May wait for room.
    ///
    /// # Errors
    ///
    /// [`Busy`](crate::ErrorKind::Busy) where it may not: it is not published then, and its publisher is told the
    /// reason; over HTTP by 503 with `Retry-After`. Admits everything unless a store does better.
    fn admit(&self, bytes: usize) -> Result<(), Error> {
        let _ = bytes;
        Ok(())
    }

    /// Takes a record and gives its ticket, a number that grows with each. Called with locks of the broker's held: it
    /// must neither wait for a disk nor call the broker.
    ///
    /// # Errors
    ///
    /// Where the record can't be taken. An event is not published then.
    fn append(&self, record: Record) -> Result<u64, Error>;

    /// Waits until every record up to this ticket is kept as well as the store promises. The trait's documentation says
    /// when the broker calls it.
    ///
    /// # Errors
    ///
    /// [`Busy`](crate::ErrorKind::Busy) where the record with this ticket could not be kept and will not be.
    fn flush(&self, ticket: u64) -> Result<(), Error>;

    /// A ticket for which, and for all before it, [`flush`](Store::flush) would return at once. 0 unless a store says
    /// otherwise, which costs speed where many publishers wait at the same time.
    fn settled(&self) -> u64 {
        0
    }

    /// True where an event may be seen only once it has been flushed: its publisher then waits for that, and so do its
    /// subscribers. False unless a store says otherwise.
    fn acknowledges(&self) -> bool {
        false
    }

    /// How often the broker calls [`flush`](Store::flush) while there are records that it has not flushed, for a store that
    /// does not [acknowledge](Store::acknowledges) events: so much is lost at most if the process is killed. A thread of
    /// the broker's does so, which ends with the broker. A flush that fails is logged, counted in
    /// [`StoreStatistics::failures`], and tried again after the same period. Asked for once, after the start. Defaults to
    /// `None`: the broker does not flush.
    fn flush_period(&self) -> Option<Duration> {
        None
    }

    /// Keeps everything taken so far as well as it can; nothing comes after this. May be called twice. Called in a thread
    /// of its own, which the broker leaves behind where this takes longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`File`](crate::ErrorKind::File) where records could not be kept, and
    /// [`StopTimeout`](crate::ErrorKind::StopTimeout) where that took longer than `timeout`.
    fn stop(&self, timeout: Duration) -> Result<(), Error>;

    /// What it has done, for [`Broker::statistics`](crate::Broker::statistics). All zero unless a store says otherwise.
    fn statistics(&self) -> StoreStatistics {
        StoreStatistics::default()
    }

    /// True for a store that never waits, so that its stop needs no thread.
    #[doc(hidden)]
    fn keeps_nothing(&self) -> bool {
        false
    }
}

/// Keeps nothing: the store of [`Broker::new`](crate::Broker::new).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NoStore;

impl Store for NoStore {
    fn start(&mut self, _: Snapshot, _: &mut dyn FnMut(Record)) -> Result<(), Error> {
        Ok(())
    }

    fn append(&self, _: Record) -> Result<u64, Error> {
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
