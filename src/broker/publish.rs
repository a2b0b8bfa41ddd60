//! A publish: stamping an event, giving it to the store, and delivering it to parked subscribers.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use super::Shared;
use super::batch::Batch;
use super::catalog::CategoryState;
use super::category_options::milliseconds;
use super::ring::Entry;
use super::statistics::Removal;
use super::waiter::Waiter;
use crate::error::{Error, ErrorKind};
use crate::event::Draft;
use crate::position::EventId;
use crate::store::{Record, event_line_len};
use crate::wire::{check_category, check_ttl};

impl Shared {
    pub(super) fn draft<T: Serialize + ?Sized>(
        &self,
        category: &str,
        data: &T,
        ttl: Option<Duration>,
    ) -> Result<Draft, Error> {
        check_category(category)?;
        check_ttl(ttl)?;
        // The events of a category share its name.
        let name = self
            .catalog
            .get(category)
            .map_or_else(|| category.into(), |category| category.name().clone());
        let draft = Draft::new(name, data)?;
        let size = draft.data().len();
        if draft.data() == "null" {
            return Err(Error::request(
                "null data: an event carries any JSON value but null",
            ));
        }
        if size > self.options.max_event_size {
            let max = self.options.max_event_size;
            let message =
                format!("an event with {size} bytes of data: the limit (max_event_size) is {max}");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let ttl = ttl.and_then(|ttl| NonZeroU64::new(milliseconds(ttl)));
        Ok(draft.with_own_ttl(ttl))
    }

    pub(super) fn publish(&self, category: &str, draft: Draft) -> Result<EventId, Error> {
        #[cfg(feature = "redis")]
        if let Some(streams) = &self.streams {
            return streams.publish(vec![draft]);
        }
        self.store.admit(event_line_len(draft.json_len()))?;
        if self.store.acknowledges() {
            return self.publish_acknowledged(draft);
        }
        let delivered: Result<_, Error> = self.catalog.with(category, |category| {
            let (entry, _) = self.sequencer.stamp(draft, |entry| self.append(entry))?;
            let id = entry.event.id();
            Ok((id, self.deliver(category.name(), category, entry, false)))
        });
        let (id, delivery) = delivered?;
        delivery.finish(self);
        Ok(id)
    }

    /// Publishes an event that nobody sees before the store keeps it. Its publisher holds no lock while it waits for that,
    /// so that many can wait at the same time.
    pub(super) fn publish_acknowledged(&self, draft: Draft) -> Result<EventId, Error> {
        let (entry, pending) = self.sequencer.stamp(draft, |entry| {
            let ticket = self.append(entry)?;
            Ok(self.commits.add(ticket, Arc::new([entry.clone()]), None))
        })?;
        self.commits.settle(self, &pending)?;
        Ok(entry.event.id())
    }

    /// Gives an event to the store.
    pub(super) fn append(&self, entry: &Entry) -> Result<u64, Error> {
        self.append_record(record_of(entry))
    }

    /// Makes the events of one publish visible that the store has kept. The leader calls this in publish order.
    pub(super) fn commit(&self, entries: &[Entry]) {
        let [entry] = entries else {
            return self.commit_all(entries);
        };
        let name = entry.event.shared_category().clone();
        let delivery = self.catalog.with(&name, |category| {
            let delivery = self.deliver(&name, category, entry.clone(), false);
            self.order_of(&name)
                .make_visible(entry.sequence, entry.time());
            delivery
        });
        delivery.finish(self);
    }

    /// Puts an event where subscribers find it, under the lock of its category. `is_followed`: events of the same category
    /// that were published together with it follow.
    pub(super) fn deliver(
        &self,
        name: &Arc<str>,
        category: &mut CategoryState,
        entry: Entry,
        is_followed: bool,
    ) -> Delivery {
        if entry.event.is_purge() {
            category.waiters.values().for_each(|waiter| waiter.miss());
            // So that no follower by time that polls from now on gets a gap.
            self.order_of(name).stamp_after(entry.time());
            self.push(category, entry);
            return Delivery::default();
        }
        self.counters.published.fetch_add(1, Relaxed);
        let id = entry.event.id();
        let waiters = std::mem::take(&mut category.waiters);
        if waiters.values().any(|waiter| waiter.goes_by_time()) {
            self.order_of(name).stamp_after(entry.time());
        }
        let batch = (!waiters.is_empty()).then(|| {
            let batch = Batch::new(vec![entry.event.clone()], false, id);
            Arc::new(batch.partial(is_followed))
        });
        if let (true, Some(batch)) = (self.options.delete_after_first_retrieval, &batch) {
            // The event stays in the ring only if every subscriber has left or disconnected already, so the lock has to be
            // held until that is known.
            let accepted = waiters.values().filter(|waiter| waiter.offer(batch));
            if accepted.count() > 0 {
                self.record(Record::Taken {
                    category: entry.event.shared_category().clone(),
                    seen: self.sequencer.position(entry.sequence - 1),
                    ids: vec![id],
                });
                return Delivery::default();
            }
        }
        let added = Some(entry.published);
        self.push(category, entry);
        if category.ring.can_expire() {
            self.expire(&mut category.ring, self.age.now());
        }
        Delivery {
            waiters,
            batch,
            added,
        }
    }

    /// Adds an event to the ring of its category, or purges the ring.
    pub(super) fn push(&self, category: &mut CategoryState, entry: Entry) {
        let ring = &mut category.ring;
        if entry.event.is_purge() {
            let purged = ring.purge(&entry);
            return self.counters.removed(purged, Removal::Purged);
        }
        let published = entry.published;
        self.counters.added(ring, entry.event.as_json().len());
        let pushed_out = ring.push(entry);
        self.counters.removed(pushed_out, Removal::PushedOut);
        self.plan_sweep(ring, published);
    }

    /// Gives the store a record of something that has happened already. A failure is only logged.
    pub(super) fn record(&self, record: Record) {
        match catch_unwind(AssertUnwindSafe(|| self.append_record(record))) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                log::error!(
                    "the store did not take a record, which the next start lacks: {}",
                    error.report()
                )
            }
            Err(_) => {
                log::error!("the store panicked in append, and the next start may lack the record")
            }
        }
    }
}

/// Returns the record of an event, or of a purge.
pub(super) fn record_of(entry: &Entry) -> Record {
    let event = &entry.event;
    if event.is_purge() {
        return Record::Purged {
            category: event.shared_category().clone(),
            position: event.id(),
            timestamp: event.timestamp(),
        };
    }
    Record::Published {
        sequence: entry.sequence,
        event: event.clone(),
    }
}

/// The rest of a delivery, without the lock of the category.
#[derive(Default)]
pub(super) struct Delivery {
    waiters: BTreeMap<u64, Arc<Waiter>>,
    batch: Option<Arc<Batch>>,
    /// The publish time of the event, if it was added to a ring.
    added: Option<u64>,
}

impl Delivery {
    pub(super) fn finish(self, shared: &Shared) {
        if let Some(batch) = self.batch {
            self.waiters
                .values()
                .for_each(|waiter| _ = waiter.offer(&batch));
        }
        if let Some(published) = self.added {
            shared.evict(published);
        }
        shared.sweep_if_due();
    }
}
