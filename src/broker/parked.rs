//! [`Parked`]: a poll that waits, and how it gets its answer.

use std::sync::Arc;

use super::Shared;
use super::batch::Batch;
use super::batch_limit::BatchLimit;
use super::catalog::CategoryGuards;
use super::look::{Look, PollMode, Query, misses};
use super::ring::{Entry, Place};
use super::selection::Retrieval;
use super::waiter::{Waiter, Woken};
use crate::deadline::Deadline;
use crate::event::Event;

/// A subscriber that is parked. It leaves when this is dropped.
pub(crate) struct Parked {
    pub(super) shared: Arc<Shared>,
    /// The categories' names, in order.
    pub(super) names: Vec<Arc<str>>,
    pub(super) ticket: u64,
    pub(super) waiter: Arc<Waiter>,
    /// The newest visible sequence number when the subscriber parked: it has all events up to here.
    pub(super) parked_at: u64,
    pub(super) limit: BatchLimit,
    /// To be reported with the first events.
    pub(super) gap: bool,
    /// A category may have the waiter in its list.
    pub(super) listed: bool,
    /// The poll has found only events that hidden ones may follow in the same millisecond.
    pub(super) unsettled: Option<Unsettled>,
}

/// A poll that looks again once the hidden event with this sequence number is settled.
pub(super) struct Unsettled {
    pub(super) query: Query,
    pub(super) sequence: u64,
}

impl Unsettled {
    /// Returns the query of this look, which is to be made again.
    #[cfg_attr(not(feature = "redis"), allow(unused_variables))]
    pub(super) fn new(query: Query, look: &Look, sequence: u64) -> Self {
        #[cfg(feature = "redis")]
        let query = Query {
            ahead: look.ahead,
            ..query
        };
        Unsettled { query, sequence }
    }
}

/// The result of looking again.
enum LookedAgain {
    Found(Arc<Batch>),
    /// The subscriber is in the lists of its categories.
    Listed,
    #[cfg(feature = "redis")]
    PutOff(Unsettled),
}

impl Parked {
    /// Returns the waiter, which ends the wait if the client disconnects.
    pub(crate) fn waiter(&self) -> &Arc<Waiter> {
        &self.waiter
    }

    /// Waits until an event comes or the deadline passes. With a store that acknowledges, a follower by time alone may wait
    /// longer, until the store has settled all events of a millisecond.
    pub(crate) fn wait(self, deadline: impl Into<Deadline>) -> Arc<Batch> {
        let shared = self.shared.clone();
        let batch = self.wait_uncounted(deadline);
        shared.count_answered(&batch);
        batch
    }

    /// [`wait`](Parked::wait), after [`Broker::poll_uncounted`](super::Broker::poll_uncounted).
    pub(crate) fn wait_uncounted(mut self, deadline: impl Into<Deadline>) -> Arc<Batch> {
        let deadline = deadline.into();
        let settled = self.unsettled.take();
        let batch = settled.and_then(|unsettled| self.look_when_settled(unsettled, deadline));
        batch.unwrap_or_else(|| self.wait_for_event(deadline))
    }

    /// Waits until an event comes, the subscriber is to be answered early, or the deadline passes; then this returns `false`,
    /// and the subscriber stays parked. Returns `true` at once if the poll has to look again first.
    pub(crate) fn is_answered_by(&self, deadline: impl Into<Deadline>) -> bool {
        self.unsettled.is_some()
            || self.waiter.wait(deadline.into()) == Woken::Filled
            || self.waiter.is_answered_early()
    }

    /// Puts the waiter into the categories' lists: the look at them has found nothing.
    pub(super) fn list(&mut self, categories: &mut CategoryGuards<'_>, look: &Look) {
        (self.parked_at, self.gap) = (look.mark.sequence, look.gap);
        // A look that had to be put off did not know the limit.
        #[cfg(feature = "redis")]
        {
            self.limit = look.limit;
        }
        for state in categories.iter_mut() {
            state.waiters.insert(self.ticket, self.waiter.clone());
        }
        self.listed = true;
    }

    /// Looks again once the hidden events are settled. `None` if there is nothing, and the subscriber now waits for the next
    /// event.
    fn look_when_settled(
        &mut self,
        unsettled: Unsettled,
        deadline: Deadline,
    ) -> Option<Arc<Batch>> {
        #[cfg_attr(not(feature = "redis"), allow(unused_mut))]
        let mut looked = self.look_again(unsettled, deadline);
        #[cfg(feature = "redis")]
        while let LookedAgain::PutOff(again) = looked {
            looked = self.look_again(again, deadline);
        }
        match looked {
            LookedAgain::Found(batch) => Some(batch),
            LookedAgain::Listed => None,
            #[cfg(feature = "redis")]
            LookedAgain::PutOff(_) => None,
        }
    }

    fn look_again(&mut self, unsettled: Unsettled, deadline: Deadline) -> LookedAgain {
        let Unsettled {
            mut query,
            sequence,
        } = unsettled;
        let shared = self.shared.clone();
        let in_time = shared.wait_for_look(
            self.first_name(),
            &mut query,
            sequence,
            &self.waiter,
            deadline,
        );
        if self.waiter.has_hung_up() {
            query.mode = PollMode::Peek;
        }
        let names = self.names.clone();
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        shared.with_categories(&names, |categories| {
            let look = shared.look(categories, query);
            let selection = &look.selection;
            // A position was reached or is wrong, and the events there are of a millisecond that is not over.
            #[cfg(feature = "redis")]
            if let (true, true, Some(sequence)) = (
                in_time && query.ahead.is_some(),
                selection.entries.is_empty() && query.mode != PollMode::Peek,
                selection.awaits,
            ) {
                return LookedAgain::PutOff(Unsettled::new(query, &look, sequence));
            }
            let found = !selection.entries.is_empty() || selection.awaits.is_some();
            if found || !in_time || query.mode != PollMode::Park {
                let batch = shared.batch(categories.first_name(), look);
                return LookedAgain::Found(Arc::new(batch));
            }
            self.list(categories, &look);
            LookedAgain::Listed
        })
    }

    fn wait_for_event(&mut self, deadline: Deadline) -> Arc<Batch> {
        let woken = self.waiter.wait(deadline);
        self.gap |= self.waiter.has_missed();
        if woken == Woken::Filled && self.names.len() == 1 && !self.gap {
            self.take_shared().unwrap_or_else(|| self.leave())
        } else {
            self.leave()
        }
    }

    /// The usual case: one category, and all subscribers that were parked there share the batch. The publisher has removed
    /// the waiter from the list, so this needs no lock of a category.
    fn take_shared(&mut self) -> Option<Arc<Batch>> {
        let batch = self.waiter.close().into_iter().next()?;
        self.listed = false;
        if !batch.is_partial() && self.has_whole_millisecond(&batch) {
            return Some(batch);
        }
        let offered: Vec<Entry> = batch.events().iter().map(entry).collect();
        let looked =
            self.with_categories(|categories| self.look_if_settled(categories, offered, false));
        Some(looked.unwrap_or_else(|(offered, hidden)| self.look_behind(offered, hidden, false)))
    }

    /// Returns `true` if a follower that goes on by time alone misses no event after this batch, which a publisher has
    /// offered. The publisher has had later events stamped with later timestamps, but others may have been stamped before,
    /// and be hidden or visible by now.
    fn has_whole_millisecond(&self, batch: &Batch) -> bool {
        let shared = &self.shared;
        !self.limit.whole_milliseconds
            || !shared.acknowledges()
            || shared.has_whole_millisecond(self.first_name(), batch)
    }

    /// All other cases: several categories, where a publisher of one may come before another's slightly older event; and
    /// after a timeout, since an event may have been published in that instant. Under the locks of all the categories, the
    /// slot and the rings have every event.
    fn leave(&mut self) -> Arc<Batch> {
        self.listed = false;
        let left = self.with_categories(|categories| {
            for state in categories.iter_mut() {
                state.waiters.remove(&self.ticket);
            }
            let batches = self.waiter.close();
            let missed = self.gap || self.waiter.has_missed();
            let events = batches.iter().flat_map(|batch| batch.events());
            let looked = self.look_if_settled(categories, events.map(entry).collect(), missed);
            looked.map_err(|(offered, hidden)| (offered, hidden, missed))
        });
        left.unwrap_or_else(|(offered, hidden, missed)| self.look_behind(offered, hidden, missed))
    }

    /// Looks for events behind those that were offered.
    ///
    /// # Errors
    ///
    /// Returns the offered events and the sequence number of the newest hidden event that may have the timestamp of one of
    /// them, if the follower may go on by time alone.
    fn look_if_settled(
        &self,
        categories: &mut CategoryGuards<'_>,
        offered: Vec<Entry>,
        missed: bool,
    ) -> Result<Arc<Batch>, (Vec<Entry>, u64)> {
        let newest = offered.iter().max_by_key(|entry| entry.sequence);
        let newest = newest.filter(|_| self.limit.whole_milliseconds);
        let hidden = newest.and_then(|newest| {
            let name = self.first_name();
            self.shared
                .newest_hidden(name, newest.time(), newest.sequence)
        });
        match hidden {
            None => Ok(self.look_after(categories, offered, missed)),
            Some(hidden) => Err((offered, hidden)),
        }
    }

    /// Waits until this hidden event is settled, and looks for events behind those that were offered.
    fn look_behind(&self, offered: Vec<Entry>, hidden: u64, missed: bool) -> Arc<Batch> {
        self.shared.wait_for_hidden(self.first_name(), hidden);
        self.with_categories(|categories| self.look_after(categories, offered, missed))
    }

    /// `missed`: a gap is to be reported.
    fn look_after(
        &self,
        categories: &mut CategoryGuards<'_>,
        offered: Vec<Entry>,
        missed: bool,
    ) -> Arc<Batch> {
        // Of each category, the slot has the first event after parking; the ring has those after it.
        let place = |name: &str| {
            let of_category = offered
                .iter()
                .filter(|entry| entry.event.category() == name);
            let newest = of_category.map(|entry| entry.sequence).max();
            Place::Sequence(newest.unwrap_or(self.parked_at))
        };
        let places: Vec<Place> = categories.names().map(|name| place(name)).collect();
        let lost = misses(categories, |index| places[index])
            || self.shared.misses(self.first_name(), &places);
        let mark = self.shared.high_water_mark(self.first_name());
        let retrieval = Retrieval {
            limit: self.limit,
            by_time: self.waiter.goes_by_time(),
            deletes: !self.waiter.has_hung_up(),
            visible: mark.sequence,
        };
        let place = |index: usize| places[index];
        let selection = self.shared.select(categories, place, offered, retrieval);
        let gap = missed || lost;
        let name = self.first_name();
        let batch = self
            .shared
            .batch_of(name, selection, gap, mark, retrieval.by_time);
        Arc::new(batch)
    }

    fn first_name(&self) -> &str {
        self.names.first().map_or("", |name| name)
    }

    fn with_categories<T>(&self, work: impl FnOnce(&mut CategoryGuards<'_>) -> T) -> T {
        let names: Vec<&str> = self.names.iter().map(|name| &**name).collect();
        self.shared.with_categories(&names, work)
    }
}

/// The entry of an event of this run, whose id has its sequence number.
fn entry(event: &Event) -> Entry {
    let sequence = event.id().sequence().unwrap_or(0);
    Entry {
        sequence,
        published: 0,
        more: 0,
        event: event.clone(),
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.shared.parking.leave(self.ticket);
        if !self.listed {
            return;
        }
        for name in &self.names {
            self.shared.catalog.with_existing(name, |category| {
                category.waiters.remove(&self.ticket);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Broker, BrokerOptions, Polled};
    use super::*;
    use crate::position::{Cursor, EventId};

    fn parked(broker: &Broker) -> Parked {
        match broker.poll(&"a".into(), Cursor::Now, Some(1), PollMode::Park) {
            Ok(Polled::Parked(parked)) => parked,
            _ => panic!("not parked"),
        }
    }

    fn ids(batch: &Batch) -> Vec<EventId> {
        batch.events().iter().map(Event::id).collect()
    }

    #[test]
    fn an_event_that_comes_after_a_client_has_hung_up_stays_for_another_client() {
        for others in [0, 1] {
            let options = BrokerOptions::new().delete_after_first_retrieval(true);
            let broker = Broker::new(options).unwrap();
            let gone = parked(&broker);
            gone.waiter().hang_up();
            let others: Vec<Parked> = (0..others).map(|_| parked(&broker)).collect();
            let id = broker.publish("a", "job").unwrap();
            drop(gone);
            let poll = || {
                broker
                    .subscribe_up_to(1, "a", Cursor::Oldest, Duration::ZERO)
                    .unwrap()
            };
            let mut received = Vec::new();
            for other in others {
                received.extend(ids(&other.wait(Deadline::after(Duration::ZERO))));
            }
            received.extend(ids(&poll()));
            assert_eq!(received, [id]);
            assert!(poll().is_empty());
        }
    }

    #[test]
    fn a_client_that_has_hung_up_takes_no_later_event_while_its_wait_ends() {
        let options = BrokerOptions::new().delete_after_first_retrieval(true);
        let broker = Broker::new(options).unwrap();
        let gone = parked(&broker);
        gone.waiter().hang_up();
        let id = broker.publish("a", "job").unwrap();
        gone.wait(Deadline::NEVER);
        let batch = broker.subscribe("a", Cursor::Oldest, Duration::ZERO);
        assert_eq!(ids(&batch.unwrap()), [id]);
    }
}
