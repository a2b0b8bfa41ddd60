//! A poll: it looks for events, and parks under the same locks if there are none.

use std::sync::Arc;

use super::batch::Batch;
use super::catalog::CategoryGuards;
use super::look::{PollMode, Query};
use super::parked::{Parked, Unsettled};
use super::store_call::StoreCall;
use super::waiter::stopped;
use super::{Broker, Shared};
use crate::error::Error;
use crate::position::Cursor;
use crate::wire::Categories;

/// The result of a poll before it waits.
pub(crate) enum Polled {
    Ready(Arc<Batch>),
    Parked(Parked),
}

impl Broker {
    /// Looks for events, at most `limit` of them, and parks if there are none: the caller then has to call
    /// [`wait`](Parked::wait). With [`PollMode::NoWait`], it parks only for the moment until hidden events are settled.
    ///
    /// # Errors
    ///
    /// Those of [`Broker::subscribe_up_to`].
    pub(crate) fn poll(
        &self,
        names: &Categories,
        cursor: Cursor,
        limit: Option<usize>,
        mode: PollMode,
    ) -> Result<Polled, Error> {
        let polled = self.poll_uncounted(names, cursor, limit, mode);
        if let Ok(Polled::Ready(batch)) = &polled {
            self.count_answered(batch);
        }
        polled
    }

    /// Counts a batch that a subscriber gets.
    pub(crate) fn count_answered(&self, batch: &Batch) {
        self.0.count_answered(batch);
    }

    /// [`poll`](Broker::poll), for one of many looks of one subscriber. The caller calls
    /// [`count_answered`](Broker::count_answered) for each batch that is an answer.
    ///
    /// # Errors
    ///
    /// Those of [`Broker::subscribe_up_to`].
    pub(crate) fn poll_uncounted(
        &self,
        names: &Categories,
        cursor: Cursor,
        limit: Option<usize>,
        mode: PollMode,
    ) -> Result<Polled, Error> {
        if limit == Some(0) {
            return Err(Error::request("a limit of 0 events: give 1 or more"));
        }
        self.check_categories(names)?;
        let query = Query::new(cursor, limit, mode);
        self.0.poll(names, query)
    }

    /// Returns `true` if a poll deletes the events that it finds.
    pub(crate) fn deletes_retrieved(&self) -> bool {
        self.0.options.delete_after_first_retrieval
    }

    /// Returns what a poll would find after the stop: the events in memory, and a position that the next run finds in the
    /// file. `None` if a retrieval would have to delete the events, which the store no longer takes a record of, and if the
    /// position is of a later run, which already serves the client on another connection. The batch is not counted yet.
    pub(crate) fn look_after_stop(
        &self,
        names: &Categories,
        cursor: Cursor,
        limit: Option<usize>,
    ) -> Option<Arc<Batch>> {
        let position = self.0.order_of(names.iter().next()?).high_water_mark().id;
        let (_, asked) = cursor.parameters();
        let is_later = asked.is_some_and(|id| id.parts().is_some() && id > position);
        let polled = self
            .poll_uncounted(names, cursor, limit, PollMode::Peek)
            .ok()?;
        match polled {
            _ if is_later => None,
            Polled::Ready(batch) if batch.events().is_empty() => Some(batch),
            Polled::Ready(batch) if !self.deletes_retrieved() => Some(batch),
            _ => None,
        }
    }
}

impl Shared {
    fn poll(self: &Arc<Self>, names: &Categories, query: Query) -> Result<Polled, Error> {
        if self.parking.is_closed() && query.mode != PollMode::Peek {
            return Err(stopped());
        }
        let mut names: Vec<&str> = names.iter().collect();
        names.sort_unstable();
        self.with_categories(&names, |categories| self.look_or_park(categories, query))
    }

    fn look_or_park(
        self: &Arc<Self>,
        categories: &mut CategoryGuards<'_>,
        query: Query,
    ) -> Result<Polled, Error> {
        let look = self.look(categories, query);
        // The thread that settles the hidden events can't wait for them.
        let can_settle = query.mode != PollMode::Peek && !StoreCall::Settle.is_active(self);
        let hidden = look.selection.awaits.filter(|_| can_settle);
        let is_empty = look.selection.entries.is_empty();
        if hidden.is_none() && !(is_empty && query.mode == PollMode::Park) {
            return Ok(Polled::Ready(Arc::new(
                self.batch(categories.first_name(), look),
            )));
        }
        let (ticket, waiter) = self.parking.enter(look.by_time)?;
        let mut parked = Parked {
            shared: self.clone(),
            names: categories.names().cloned().collect(),
            ticket,
            waiter,
            parked_at: 0,
            limit: look.limit,
            gap: false,
            listed: false,
            unsettled: hidden.map(|sequence| Unsettled::new(query, &look, sequence)),
        };
        if hidden.is_none() {
            parked.list(categories, &look);
        }
        Ok(Polled::Parked(parked))
    }
}
