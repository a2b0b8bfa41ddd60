//! [`GroupCommit`]: the [`Store`] of a program's own [`RecordLog`].

mod queue;
mod writer;

use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::queue::{Queue, Writing};
use self::writer::Writer;
use super::{Record, RecordLog, Snapshot, Store, StoreStatistics};
use crate::error::{Error, ErrorKind};

/// Makes a [`Store`] of a [`RecordLog`]: collects the records of all publishers in memory, and writes those that have come
/// meanwhile in one [`write`](RecordLog::write), so that publishers share one transaction.
///
/// By default, it [acknowledges](Store::acknowledges): a publish returns when the log has its event, and subscribers see the
/// event only then. If a write fails, the publishers get an error of kind [`Busy`](ErrorKind::Busy), and the next publish
/// tries again. See [`flush_every`](GroupCommit::flush_every) for publishes that do not wait.
///
/// ```
/// use std::fs::{self, File, OpenOptions};
/// use std::io::{ErrorKind, Write};
/// use std::path::PathBuf;
/// use std::time::Duration;
/// use long_polling::store::{GroupCommit, Record, RecordLog};
/// use long_polling::{Broker, BrokerOptions, Cursor, Error};
///
/// /// A file of lines. A write that fails may leave a part of its lines.
/// struct Lines(PathBuf);
///
/// impl RecordLog for Lines {
///     fn open(&mut self, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
///         let text = match fs::read_to_string(&self.0) {
///             Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
///             read => read?,
///         };
///         text.lines()
///             .for_each(|line| each(line.parse().unwrap_or(Record::Damaged)));
///         Ok(())
///     }
///     fn write(&mut self, records: &[Record]) -> Result<(), Error> {
///         let lines: String =
///             records.iter().map(|record| format!("{record}\n")).collect();
///         let mut file = OpenOptions::new().create(true).append(true).open(&self.0)?;
///         file.write_all(lines.as_bytes())?;
///         Ok(file.sync_data()?)
///     }
/// }
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("events");
/// let open = || {
///     Broker::with_store(BrokerOptions::new(), GroupCommit::new(Lines(path.clone())))
/// };
/// let broker = open()?;
/// broker.publish("jobs", "first")?;
/// broker.stop(Duration::from_secs(10))?;
///
/// let batch = open()?.subscribe("jobs", Cursor::Oldest, Duration::ZERO)?;
/// assert_eq!(batch.events()[0].text(), "first");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct GroupCommit<L> {
    flush_period: Option<Duration>,
    max_queue_size: usize,
    max_wait: Duration,
    /// One thread writes. The lock comes before that of the queue.
    writer: Mutex<Writer<L>>,
    queue: Mutex<Queue>,
}

impl<L: RecordLog> GroupCommit<L> {
    /// Creates a store on this log, which it opens when it is started.
    pub fn new(log: L) -> Self {
        GroupCommit {
            flush_period: None,
            max_queue_size: 64 << 20,
            max_wait: Duration::from_secs(5),
            writer: Mutex::new(Writer::new(log)),
            queue: Mutex::default(),
        }
    }

    /// Writes once per period, and lets subscribers see each event at once: a publish does not wait for the log. A killed
    /// process loses at most the events of one period. If a write fails, the same records are written again after the
    /// period. Defaults to none: the store acknowledges each event.
    pub fn flush_every(mut self, period: Duration) -> Self {
        self.flush_period = Some(period);
        self
    }

    /// Sets the most bytes of records that wait in memory. Defaults to 64 MiB.
    pub fn max_queue_size(mut self, bytes: usize) -> Self {
        self.max_queue_size = bytes;
        self
    }

    /// Sets how long a publish waits for room in a full queue before it gets an error of kind [`Busy`](ErrorKind::Busy).
    /// Defaults to 5 seconds.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Writes all queued records. `counted` says whether the caller of this store counts and logs a failure.
    fn write(&self, writer: &mut Writer<L>, counted: bool) -> Result<(), Error> {
        let Writing { tickets, records } = self.queue.lock().take();
        // If the log panics, the records stay in the batch for the next write.
        writer.add(records);
        let written = writer.write();
        if written.is_err() && self.acknowledges() {
            writer.refuse_events();
        }
        let mut queue = self.queue.lock();
        let changed = queue.set_failing(written.as_ref().err());
        queue.progressed(&written, writer.pending(), tickets, self.acknowledges());
        if written.is_err() && !counted {
            queue.count_failure();
        }
        drop(queue);
        match &written {
            Err(error) if changed && !counted => {
                log::error!("the store can't write its log: {}", error.report());
            }
            Ok(_) if changed => log::warn!("the store can write its log again"),
            _ => {}
        }
        written.map(drop)
    }

    /// Compacts the log if that is due. A failure costs no event.
    fn compact(&self, writer: &mut Writer<L>) {
        match writer.compact() {
            Ok(false) => {}
            Ok(true) => self.queue.lock().count_rewrite(),
            Err(error) => {
                self.queue.lock().count_failure();
                log::warn!(
                    "the store could not compact its log, which goes on growing: {}",
                    error.report()
                );
            }
        }
    }
}

impl<L: RecordLog> Store for GroupCommit<L> {
    fn start(&mut self, snapshot: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        let queue = self.queue.get_mut();
        self.writer.get_mut().open(snapshot, &mut |record| {
            queue.count_loaded(&record);
            each(record);
        })
    }

    fn admit(&self, bytes: usize) -> Result<(), Error> {
        let is_full = || self.queue.lock().is_full(bytes, self.max_queue_size);
        if !is_full() {
            return Ok(());
        }
        // The thread that writes makes room, and if there is none, this one does.
        let written = match self.writer.try_lock_for(self.max_wait) {
            Some(mut writer) if is_full() => self.write(&mut writer, false),
            _ => Ok(()),
        };
        if !is_full() {
            return Ok(());
        }
        let max = self.max_queue_size;
        let message = format!(
            "more events wait for the store's log than may (max_queue_size, {max} bytes); try again"
        );
        let error = Error::new(ErrorKind::Busy, message);
        Err(match written {
            Ok(()) => error,
            Err(cause) => error.with_source(cause),
        })
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        self.queue.lock().append(record)
    }

    /// One write takes all of the records, so that the log keeps them or refuses them together.
    fn append_batch(&self, records: Vec<Record>) -> Result<u64, Error> {
        let mut queue = self.queue.lock();
        let mut tickets = records.into_iter().map(|record| queue.append(record));
        tickets.try_fold(0, |_, ticket| ticket)
    }

    fn flush(&self, ticket: u64) -> Result<(), Error> {
        let outcome = || self.queue.lock().outcome(ticket);
        if let Some(outcome) = outcome() {
            return outcome;
        }
        let mut writer = self.writer.lock();
        // The thread that wrote before may have written this record, too.
        if let Some(outcome) = outcome() {
            return outcome;
        }
        // The broker counts and logs a periodic flush that fails.
        let written = self.write(&mut writer, !self.acknowledges());
        if written.is_ok() {
            self.compact(&mut writer);
        }
        let message = "the event could not be written to the store's log; try again";
        match (outcome(), written) {
            (Some(Ok(())), _) => Ok(()),
            (_, Err(cause)) => Err(Error::new(ErrorKind::Busy, message).with_source(cause)),
            (Some(refused), Ok(())) => refused,
            (None, Ok(())) => Err(Error::request("a ticket that no record has")),
        }
    }

    fn settled(&self) -> u64 {
        self.queue.lock().settled()
    }

    fn acknowledges(&self) -> bool {
        self.flush_period.is_none()
    }

    fn flush_period(&self) -> Option<Duration> {
        self.flush_period
    }

    fn stop(&self, timeout: Duration) -> Result<(), Error> {
        let began = Instant::now();
        self.queue.lock().stop();
        let Some(mut writer) = self.writer.try_lock_for(timeout) else {
            let records = self.queue.lock().pending();
            let message = format!(
                "{records} records are not in the store's log after {:?}: a write does not return; stop again to wait \
                 longer",
                began.elapsed()
            );
            return Err(Error::new(ErrorKind::StopTimeout, message));
        };
        if !writer.is_open() {
            return Ok(());
        }
        if let Err(cause) = self.write(&mut writer, false) {
            let records = writer.pending().records;
            let message = format!(
                "{records} records are not in the store's log, and are lost to the next start; stop again to write them"
            );
            return Err(Error::new(ErrorKind::File, message).with_source(cause));
        }
        writer.close()
    }

    fn statistics(&self) -> StoreStatistics {
        self.queue.lock().statistics()
    }
}

impl<L> fmt::Debug for GroupCommit<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCommit")
            .field("flush_period", &self.flush_period)
            .field("max_queue_size", &self.max_queue_size)
            .field("max_wait", &self.max_wait)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
