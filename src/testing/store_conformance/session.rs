//! [`Session`]: a store from its start to its end, whose calls have a time limit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::store::{Record, Snapshot, Store, StoreStatistics};

/// How long a call that must not wait may take on a machine that is busy.
const NO_WAIT: Duration = Duration::from_secs(5);
/// The time between two attempts of a call that a store may refuse for a while.
const RETRY: Duration = Duration::from_millis(5);

/// What was seen of a rule that is broken.
pub(super) type Seen<T> = Result<T, String>;

/// A store that is started. Each call runs in a thread of its own, which is left behind if the call does not return.
pub(super) struct Session {
    store: Arc<dyn Store>,
    /// The time limit of a call that may wait.
    limit: Duration,
}

/// A call that has not returned yet.
pub(super) struct Call<T> {
    name: &'static str,
    result: Receiver<T>,
}

impl<T: Send + 'static> Call<T> {
    pub(super) fn begin(
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Seen<Self> {
        let (sender, result) = mpsc::channel();
        let thread = thread::Builder::new().name("long-polling-store-call".into());
        let run = move || {
            // A panic drops the sender, which `within` reports.
            if let Ok(result) = catch_unwind(AssertUnwindSafe(work)) {
                let _ = sender.send(result);
            }
        };
        match thread.spawn(run) {
            Ok(_) => Ok(Call { name, result }),
            Err(error) => Err(format!("no thread can be had for `{name}`: {error}")),
        }
    }

    /// Returns the result of the call, if it returns within this time.
    pub(super) fn within(&self, limit: Duration) -> Seen<Option<T>> {
        match self.result.recv_timeout(limit) {
            Ok(result) => Ok(Some(result)),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(format!("`{}` panicked", self.name)),
        }
    }

    pub(super) fn finish(&self, limit: Duration) -> Seen<T> {
        let late = || format!("`{}` did not return within {limit:?}", self.name);
        self.within(limit)?.ok_or_else(late)
    }
}

/// Returns the text of an error of a call that has to succeed.
fn failed(name: &str, error: &Error) -> String {
    format!("`{name}` failed: {}", error.report())
}

impl Session {
    /// Starts a store, and returns what it replays.
    pub(super) fn start(mut store: Box<dyn Store>, limit: Duration) -> Seen<(Self, Vec<Record>)> {
        let starting = Call::begin("start", move || {
            let mut replayed = Vec::new();
            let started = store.start(Snapshot::default(), &mut |record| replayed.push(record));
            started.map(|()| (store, replayed))
        })?;
        let started = starting.finish(limit)?;
        let (store, replayed) = started.map_err(|error| failed("start", &error))?;
        let session = Session {
            store: store.into(),
            limit,
        };
        Ok((session, replayed))
    }

    fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&dyn Store) -> T + Send + 'static,
    ) -> Seen<Call<T>> {
        let store = self.store.clone();
        Call::begin(name, move || work(&*store))
    }

    /// Calls what must not wait.
    fn at_once<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&dyn Store) -> T + Send + 'static,
    ) -> Seen<T> {
        self.call(name, work)?.finish(NO_WAIT.min(self.limit))
    }

    /// Appends a record, which the store must accept.
    pub(super) fn append(&self, record: Record) -> Seen<u64> {
        let appended = self.try_append(record)?;
        appended.map_err(|error| failed("append", &error))
    }

    pub(super) fn try_append(&self, record: Record) -> Seen<Result<u64, Error>> {
        self.at_once("append", |store| store.append(record))
    }

    /// Appends records, in one thread, and returns the ticket of the last; 0 if there are none.
    pub(super) fn append_all(&self, records: &[Record]) -> Seen<u64> {
        let records = records.to_vec();
        let appending = self.call("append", move |store| {
            records
                .into_iter()
                .try_fold(0, |_, record| store.append(record))
        })?;
        let appended = appending.finish(self.limit)?;
        appended.map_err(|error| failed("append", &error))
    }

    pub(super) fn begin_flush(&self, ticket: u64) -> Seen<Call<Result<(), Error>>> {
        self.call("flush", move |store| store.flush(ticket))
    }

    /// Flushes up to a ticket, which must succeed.
    pub(super) fn flush(&self, ticket: u64) -> Seen<()> {
        let flushed = self.try_flush(ticket)?;
        flushed.map_err(|error| failed("flush", &error))
    }

    pub(super) fn try_flush(&self, ticket: u64) -> Seen<Result<(), Error>> {
        self.begin_flush(ticket)?.finish(self.limit)
    }

    /// Flushes up to a ticket that is settled, which must not wait.
    pub(super) fn flush_at_once(&self, ticket: u64) -> Seen<()> {
        let flushed = self.at_once("flush", move |store| store.flush(ticket))?;
        flushed.map_err(|error| failed("flush", &error))
    }

    /// Asks for the admission of an event, and returns whether it was admitted.
    pub(super) fn admit(&self, bytes: usize) -> Seen<bool> {
        let admitted = self.call("admit", move |store| store.admit(bytes))?;
        match admitted.finish(self.limit)? {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Store) => Ok(false),
            Err(error) => {
                let kind = error.kind();
                Err(format!(
                    "`admit` refused with an error of kind {kind:?}, where Busy is expected: {}",
                    error.report()
                ))
            }
        }
    }

    pub(super) fn settled(&self) -> Seen<u64> {
        self.at_once("settled", |store| store.settled())
    }

    /// Returns `acknowledges` and `flush_period`.
    pub(super) fn promises(&self) -> Seen<(bool, Option<Duration>)> {
        self.at_once("acknowledges", |store| {
            (store.acknowledges(), store.flush_period())
        })
    }

    pub(super) fn statistics(&self) -> Seen<StoreStatistics> {
        self.at_once("statistics", |store| store.statistics())
    }

    pub(super) fn begin_stop(&self, timeout: Duration) -> Seen<Call<Result<(), Error>>> {
        self.call("stop", move |store| store.stop(timeout))
    }

    /// Stops the store, which must succeed.
    pub(super) fn stop(&self) -> Seen<()> {
        let stopped = self.begin_stop(self.limit)?.finish(self.limit)?;
        stopped.map_err(|error| failed("stop", &error))
    }

    /// Calls `attempt` until it returns `true`. Returns `false` if it does not within the time limit. A store does not notify
    /// of its recovery.
    pub(super) fn retry(&self, mut attempt: impl FnMut() -> Seen<bool>) -> Seen<bool> {
        let end = Instant::now() + self.limit;
        loop {
            if attempt()? {
                return Ok(true);
            }
            if Instant::now() > end {
                return Ok(false);
            }
            thread::park_timeout(RETRY);
        }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }
}
