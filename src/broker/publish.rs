//! A publish: stamping an event, keeping it, and handing it to whoever is parked.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::Shared;
use super::batch::Batch;
use super::catalog::State;
use super::ring::Entry;
use super::waiter::Waiter;
use crate::error::{Error, ErrorKind};
use crate::event::Draft;
use crate::position::EventId;
use crate::store::{Record, event_line_len};
use crate::wire::check_category;

impl Shared {
    pub(super) fn draft<T: Serialize + ?Sized>(
        &self,
        category: &str,
        data: &T,
    ) -> Result<Draft, Error> {
        check_category(category)?;
        // A category in use lends its name, so that its events share one.
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
        Ok(draft)
    }

    pub(super) fn publish(&self, category: &str, draft: Draft) -> Result<EventId, Error> {
        self.store.admit(event_line_len(draft.json_len()))?;
        if self.store.acknowledges() {
            return self.publish_acknowledged(draft);
        }
        let delivered = self.with_category(category, |state| {
            let (entry, _) = self.sequencer.stamp(draft, |entry| self.append(entry))?;
            let id = entry.event.id();
            Ok((id, self.deliver(state, entry)))
        });
        let (id, delivery) = delivered?;
        delivery.finish();
        self.tidy();
        Ok(id)
    }

    /// Publishes an event that nobody sees before it is kept: its publisher does not hold a lock meanwhile, so that many
    /// can wait at the same time.
    fn publish_acknowledged(&self, draft: Draft) -> Result<EventId, Error> {
        let (entry, publisher) = self.sequencer.stamp(draft, |entry| {
            let ticket = self.append(entry)?;
            Ok(self.commits.add(ticket, entry.clone()))
        })?;
        self.commits.settle(self, &publisher)?;
        Ok(entry.event.id())
    }

    fn append(&self, entry: &Entry) -> Result<u64, Error> {
        let (sequence, event) = (entry.sequence, entry.event.clone());
        self.append_record(Record::Published { sequence, event })
    }

    /// Shows an event to subscribers that the store has kept; called in publish order.
    pub(super) fn commit(&self, entry: Entry) {
        let category = entry.event.shared_category().clone();
        let delivery = self.with_category(&category, |state| {
            let sequence = entry.sequence;
            let delivery = self.deliver(state, entry);
            self.sequencer.show(sequence);
            delivery
        });
        delivery.finish();
        self.tidy();
    }

    fn with_category<T>(&self, name: &str, work: impl FnOnce(&mut State) -> T) -> T {
        let (done, category, unused) = self.catalog.with(name, |category, state| {
            // A store that panics leaves no category behind, either.
            let done = catch_unwind(AssertUnwindSafe(|| work(state)));
            (done, category.clone(), state.is_unused())
        });
        if unused {
            self.catalog.remove_unused(&category);
        }
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Puts an event where subscribers find it, under the lock of its category.
    fn deliver(&self, state: &mut State, entry: Entry) -> Delivery {
        self.counters.published.fetch_add(1, Relaxed);
        let id = entry.event.id();
        let waiters = std::mem::take(&mut state.waiters);
        if waiters.values().any(|waiter| waiter.goes_by_time()) {
            self.sequencer.reached(entry.time());
        }
        let batch = (!waiters.is_empty())
            .then(|| Arc::new(Batch::new(vec![entry.event.clone()], false, id)));
        if let (true, Some(batch)) = (self.options.delete_after_first_retrieval, &batch) {
            // Whether the event is kept depends on whether anyone was still there to take it, so this can't wait for
            // the lock to be released.
            let taken = waiters
                .values()
                .filter(|waiter| waiter.offer(batch))
                .count();
            if taken > 0 {
                self.record(Record::Taken {
                    category: entry.event.shared_category().clone(),
                    seen: self.sequencer.position(entry.sequence - 1),
                    ids: vec![id],
                });
                return Delivery::default();
            }
        }
        self.push(state, entry);
        Delivery { waiters, batch }
    }

    /// What is done now and then, by those who publish.
    fn tidy(&self) {
        if self.is_over() {
            self.evict(self.age.now());
        }
        if self.options.event_ttl.is_some() {
            let now = self.age.now();
            if now >= self.next_sweep.load(Relaxed) {
                self.sweep(now);
            }
        }
    }

    pub(super) fn push(&self, state: &mut State, entry: Entry) {
        if state.ring.is_empty() {
            self.occupied.fetch_add(1, Relaxed);
        }
        self.counters.added(entry.event.as_json().len());
        let now = entry.published;
        let removed = state.ring.push(entry, self.options.events_per_category);
        self.counters.lost(&self.counters.pushed_out, removed);
        self.expire(&mut state.ring, now);
    }

    /// Has the store keep what has happened already, whatever becomes of that.
    pub(super) fn record(&self, record: Record) {
        match catch_unwind(AssertUnwindSafe(|| self.append_record(record))) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => log::error!(
                "the store did not take what it should keep: {}",
                error.report()
            ),
            Err(_) => log::error!("the store panicked over what it should keep"),
        }
    }
}

/// What is left to do for an event once the lock of its category is released.
#[derive(Default)]
struct Delivery {
    waiters: BTreeMap<u64, Arc<Waiter>>,
    batch: Option<Arc<Batch>>,
}

impl Delivery {
    fn finish(self) {
        if let Some(batch) = self.batch {
            self.waiters
                .values()
                .for_each(|waiter| _ = waiter.offer(&batch));
        }
    }
}
