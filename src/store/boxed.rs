//! [`Store`] for `Box<S>`, so that a program can choose its store when it runs.

use std::time::Duration;

use super::{Record, Snapshot, Store, StoreStatistics};
use crate::error::Error;

impl<S: Store + ?Sized> Store for Box<S> {
    fn start(&mut self, snapshot: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        (**self).start(snapshot, each)
    }

    fn admit(&self, bytes: usize) -> Result<(), Error> {
        (**self).admit(bytes)
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        (**self).append(record)
    }

    fn flush(&self, ticket: u64) -> Result<(), Error> {
        (**self).flush(ticket)
    }

    fn settled(&self) -> u64 {
        (**self).settled()
    }

    fn acknowledges(&self) -> bool {
        (**self).acknowledges()
    }

    fn flush_period(&self) -> Option<Duration> {
        (**self).flush_period()
    }

    fn stop(&self, timeout: Duration) -> Result<(), Error> {
        (**self).stop(timeout)
    }

    fn statistics(&self) -> StoreStatistics {
        (**self).statistics()
    }

    fn keeps_nothing(&self) -> bool {
        (**self).keeps_nothing()
    }
}
