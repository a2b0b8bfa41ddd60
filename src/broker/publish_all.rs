//! A publish of several events, of which all are published or none.

use std::collections::{BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Serialize;

use super::catalog::CategoryGuards;
use super::idempotency::Reservation;
use super::publish::{Delivery, record_of};
use super::ring::Entry;
use super::store_call::StoreCall;
use super::{Broker, Shared};
use crate::error::{Error, ErrorKind};
use crate::event::Draft;
use crate::position::EventId;
use crate::store::{Record, event_line_len};
use crate::wire::{PublishRequest, each_event};

impl Broker {
    /// Publishes several events, 1 to 1,000, in their order: all of them, or none if an error is returned. Returns their
    /// ids. The numbers of the events are consecutive.
    ///
    /// With a file, a crash leaves all of the events or none. The events need not be of one category. A subscriber may
    /// receive some of them before the others.
    ///
    /// ```
    /// use long_polling::{Broker, BrokerOptions, PublishRequest};
    ///
    /// let broker = Broker::new(BrokerOptions::new())?;
    /// let ids = broker.publish_all(&[
    ///     PublishRequest::new("stock/a", -1),
    ///     PublishRequest::new("stock/b", 1),
    /// ])?;
    /// assert!(ids[0] < ids[1]);
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`publish_with`](Broker::publish_with) for one of the events;
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for no events and, with several streams in Redis, for categories
    /// of different streams; [`TooLarge`](crate::ErrorKind::TooLarge) for more than 1,000 events, and for more data together
    /// than [`max_event_bytes`](crate::BrokerOptions::max_event_bytes).
    pub fn publish_all<T: Serialize>(
        &self,
        requests: &[PublishRequest<T>],
    ) -> Result<Vec<EventId>, Error> {
        self.drafts(requests, |request| self.draft_without_key(request))
            .and_then(|drafts| self.0.publish_all(drafts))
            .inspect_err(|_| self.count_refused())
    }

    /// Drafts the event of a request among others, of which none may have a key of its own.
    pub(super) fn draft_without_key<T: Serialize>(
        &self,
        request: &PublishRequest<T>,
    ) -> Result<Draft, Error> {
        if request.key.is_some() {
            return Err(Error::request(
                "an idempotency key for one event of several, which are published together: give one key for all of them, \
                 to publish_all_once",
            ));
        }
        self.0.draft(&request.category, &request.data, request.ttl)
    }

    /// Drafts the events that `draft` makes of these items.
    pub(super) fn drafts<T>(
        &self,
        items: &[T],
        draft: impl Fn(&T) -> Result<Draft, Error>,
    ) -> Result<Vec<Draft>, Error> {
        let drafts: Vec<Draft> = each_event(items, draft)?;
        let bytes: usize = drafts.iter().map(Draft::json_len).sum();
        let max = self.options().max_event_bytes;
        if bytes > max && items.len() > 1 {
            let message = format!(
                "{bytes} bytes of events in one publish: the limit for all events (max_event_bytes) is {max}"
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        Ok(drafts)
    }

    /// [`publish_all`](Broker::publish_all) for the bodies of HTTP.
    pub(crate) fn publish_bodies(
        &self,
        bodies: &[crate::wire::PublishBody<'_>],
    ) -> Result<Vec<EventId>, Error> {
        let drafts = self.drafts(bodies, |body| self.draft_of_body(body))?;
        self.0.publish_all(drafts)
    }

    pub(super) fn draft_of_body(
        &self,
        body: &crate::wire::PublishBody<'_>,
    ) -> Result<Draft, Error> {
        self.0.draft(&body.category, body.data, body.ttl)
    }
}

impl Shared {
    pub(super) fn publish_all(&self, drafts: Vec<Draft>) -> Result<Vec<EventId>, Error> {
        #[cfg(feature = "redis")]
        if let Some(streams) = &self.streams {
            let count = drafts.len() as u64;
            let last = streams.publish(drafts)?;
            return Ok(ids_up_to(last, count));
        }
        self.publish_together(drafts, None)
    }

    /// Publishes all of these events or none, with their idempotency key, if they have one.
    pub(super) fn publish_together(
        &self,
        drafts: Vec<Draft>,
        key: Option<Reservation<'_>>,
    ) -> Result<Vec<EventId>, Error> {
        let bytes = drafts.iter().map(|draft| event_line_len(draft.json_len()));
        let of_key = key.as_ref().map_or(0, Reservation::line_len);
        self.store.admit(bytes.sum::<usize>() + of_key)?;
        let append = |entries: &Arc<[Entry]>| {
            let record = key.as_ref().and_then(|key| key.record(entries));
            let ticket = self.append_all(entries, record)?;
            let is_settled = !self.store.acknowledges();
            let key = key.and_then(|key| key.appended(entries, self.age.now(), is_settled));
            Ok((ticket, key))
        };
        let refuse = |last| self.refuse(last);
        let ids = |entries: &[Entry]| entries.iter().map(|entry| entry.event.id()).collect();
        if self.store.acknowledges() {
            let append = |entries: &Arc<[Entry]>| {
                let (ticket, key) = append(entries)?;
                Ok((self.commits.add(ticket, entries.clone(), key), key))
            };
            let (entries, (pending, key)) = self.sequencer.stamp_all(drafts, append, refuse)?;
            let _wait = key.map(|key| self.keys.wait(key));
            self.commits.settle(self, &pending)?;
            return Ok(ids(&entries));
        }
        let names = drafts.iter().map(Draft::category);
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let published = self.catalog.with_all(&names, |categories| {
            let (entries, _) = self.sequencer.stamp_all(drafts, append, refuse)?;
            let deliveries = self.deliver_all(categories, &entries);
            Ok::<_, Error>((ids(&entries), deliveries))
        });
        let (ids, deliveries): (Vec<EventId>, _) = published?;
        deliveries
            .into_iter()
            .for_each(|delivery| delivery.finish(self));
        Ok(ids)
    }

    /// Makes events visible that were published together and that the store has kept.
    ///
    /// All of them are in their rings before others are evicted for them. A [replay](super::replay) does the same, so that
    /// the next start holds the same events.
    pub(super) fn commit_all(&self, entries: &[Entry]) {
        let Some(last) = entries.last() else {
            return;
        };
        let names: BTreeSet<&str> = entries.iter().map(|entry| entry.event.category()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let deliveries = self.catalog.with_all(&names, |categories| {
            let deliveries = self.deliver_all(categories, entries);
            self.order_of(last.event.category())
                .make_visible(last.sequence, last.time());
            deliveries
        });
        deliveries
            .into_iter()
            .for_each(|delivery| delivery.finish(self));
    }

    /// Puts events where subscribers find them, under the locks of their categories.
    fn deliver_all(&self, categories: &mut CategoryGuards<'_>, entries: &[Entry]) -> Vec<Delivery> {
        let mut later = HashSet::new();
        let followed = entries.iter().rev();
        let followed: Vec<bool> = followed
            .map(|entry| !later.insert(entry.event.category()))
            .collect();
        let mut deliveries = Vec::with_capacity(entries.len());
        for (entry, is_followed) in entries.iter().zip(followed.into_iter().rev()) {
            if let Some((name, state)) = categories.find(entry.event.category()) {
                deliveries.push(self.deliver(name, state, entry.clone(), is_followed));
            }
        }
        deliveries
    }

    /// Gives events to the store that are published together, after the record of their key, and returns the ticket of the
    /// last one.
    fn append_all(&self, entries: &[Entry], key: Option<Record>) -> Result<u64, Error> {
        let last = entries.last().map(|last| last.event.id());
        let batch = last.filter(|_| entries.len() > 1).map(Record::Batch);
        let first = key.into_iter().chain(batch);
        let records = first.chain(entries.iter().map(record_of));
        let _call = StoreCall::Append.enter(self);
        let ticket = self.store.append_batch(records.collect())?;
        if let Some(flushing) = &self.flushing {
            flushing.appended(ticket);
        }
        Ok(ticket)
    }

    /// Has the store keep that the events up to this position were refused, of which it may have accepted some. Returns
    /// `false` if it does not.
    fn refuse(&self, last: EventId) -> bool {
        let refused = || self.append_record(Record::Refused(last));
        matches!(catch_unwind(AssertUnwindSafe(refused)), Ok(Ok(_)))
    }
}

/// Returns the ids of `count` events in publish order, of which this is the last.
pub(super) fn ids_up_to(last: EventId, count: u64) -> Vec<EventId> {
    let Some((run, sequence)) = last.parts() else {
        return vec![last];
    };
    let numbers = sequence.saturating_sub(count - 1)..=sequence;
    numbers.map(|number| EventId::new(run, number)).collect()
}
