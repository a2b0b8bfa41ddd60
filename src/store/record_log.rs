//! [`RecordLog`]: what [`GroupCommit`](super::GroupCommit) needs of a database or a file.

use super::Record;
use crate::error::Error;

/// A log of [`Record`]s that one thread at a time uses, such as a table in a database. [`GroupCommit`](super::GroupCommit)
/// makes a [`Store`](super::Store) of it: it has the queue, the tickets and the threads, so that these methods may simply
/// wait for the disk.
///
/// It has to be [`Send`], and not [`Sync`]: a connection to a database will do. No method is called with locks of the broker.
/// A method that panics must leave the log as one that returns an error.
pub trait RecordLog: Send {
    /// Opens the log, and passes each record that it has to `each`, oldest first. A record that can't be read is passed as
    /// [`Record::Damaged`].
    ///
    /// Called once, before any other method.
    ///
    /// # Errors
    ///
    /// Any error keeps the broker from starting, and is returned from its start.
    fn open(&mut self, each: &mut dyn FnMut(Record)) -> Result<(), Error>;

    /// Adds these records after those that the log has, all of them or, with an error, none: in one transaction. They must
    /// survive a kill of the process when this returns, and a power cut if the log promises that.
    ///
    /// # Errors
    ///
    /// Any error. The publishers of the events get it, or the same records are written again later.
    fn write(&mut self, records: &[Record]) -> Result<(), Error>;

    /// Returns `true` if the log has grown enough to be replaced, [`replace`](RecordLog::replace). `live_bytes` is about how
    /// many bytes it would have then. Defaults to `false`: the log keeps all records, and grows with every event.
    ///
    /// Called after each successful [`write`](RecordLog::write), so it must not read the log.
    fn is_due_for_compaction(&self, live_bytes: u64) -> bool {
        let _ = live_bytes;
        false
    }

    /// Replaces all records that the log has by these or, with an error, none: in one transaction. Defaults to an error.
    ///
    /// # Errors
    ///
    /// Any error. It is logged, and the log stays as it is for a while.
    fn replace(&mut self, records: &[Record]) -> Result<(), Error> {
        let _ = records;
        Err(Error::store("this log can't be replaced"))
    }

    /// Closes the log. Called at most once, after everything was written. Defaults to doing nothing.
    ///
    /// # Errors
    ///
    /// Any error. It is returned from the broker's stop.
    fn close(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
