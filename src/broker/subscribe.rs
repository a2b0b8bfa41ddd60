//! A subscriber within the process: [`Broker::subscribe`].

use std::sync::Arc;
use std::time::Duration;

use super::{Batch, Broker, PollMode, Polled};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::position::Cursor;
use crate::wire::Categories;

impl Broker {
    /// Waits up to `timeout` for events of one category or several; with zero, answers at once. A batch without events means
    /// that none came in time. A batch has at most [`max_batch_size`](crate::BrokerOptions::max_batch_size) bytes; the next
    /// poll, from [`Batch::last_id`] on, returns the rest.
    ///
    /// With a store that [acknowledges](crate::store::Store::acknowledges) events, a poll by time alone may take as long as
    /// the store needs for the events of a millisecond, and at most five seconds longer than `timeout`. So may a poll of a
    /// broker in Redis, and one from a position or time that another node has reached before this one.
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

    /// [`subscribe`](Broker::subscribe), for at most `limit` events. The next event may have the same timestamp as the last of
    /// them, so go on by [`Batch::last_id`].
    ///
    /// With [`delete_after_first_retrieval`](crate::BrokerOptions::delete_after_first_retrieval) and a limit of 1, a category
    /// is a work queue: each event goes to one subscriber, or, if several are parked when it is published, to all of these. A
    /// subscriber that is parked in several categories may get an event of each.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use long_polling::{Broker, BrokerOptions, Cursor};
    /// let options = BrokerOptions::new().delete_after_first_retrieval(true);
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
        let mode = if timeout.is_zero() {
            PollMode::NoWait
        } else {
            PollMode::Park
        };
        let polled = self
            .poll(&categories, cursor, limit, mode)
            .inspect_err(|_| self.count_refused())?;
        let _presence = self.enter(&categories, None);
        match polled {
            Polled::Ready(batch) => Ok(batch),
            Polled::Parked(parked) => Ok(parked.wait(Deadline::after(timeout))),
        }
    }
}
