//! Purging a category.

use super::{Broker, Shared};
use crate::error::Error;
use crate::event::Draft;
use crate::position::EventId;
use crate::wire::check_category;

impl Broker {
    /// Deletes all events of a category, and returns the position after that. A category without events stays as it is,
    /// which is no error.
    ///
    /// A purge has a place in the publish order, as an event has: later events stay. A subscriber that began to follow the
    /// category before that place gets a [gap](crate::Batch::gap) with its next events, even if it had received all events.
    /// With a file, the category is still purged after a restart; with Redis, every node purges it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use long_polling::{Broker, BrokerOptions, Cursor};
    ///
    /// let broker = Broker::new(BrokerOptions::new())?;
    /// let id = broker.publish("chat", "a secret")?;
    /// broker.purge("chat")?;
    /// broker.publish("chat", "next")?;
    /// let batch = broker.subscribe("chat", Cursor::LastId(id), Duration::ZERO)?;
    /// assert_eq!((&*batch.events()[0].text(), batch.gap()), ("next", true));
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Broker::publish). The category is not purged then.
    pub fn purge(&self, category: &str) -> Result<EventId, Error> {
        self.purge_uncounted(category)
            .inspect_err(|_| self.count_refused())
    }

    /// Purges, and leaves it to the caller to count an error.
    pub(crate) fn purge_uncounted(&self, category: &str) -> Result<EventId, Error> {
        self.0.purge(category)
    }
}

impl Shared {
    fn purge(&self, category: &str) -> Result<EventId, Error> {
        check_category(category)?;
        let draft = Draft::purge(category.into())?;
        #[cfg(feature = "redis")]
        if let Some(streams) = &self.streams {
            return streams.publish(vec![draft]);
        }
        self.store.admit(draft.json_len())?;
        if self.store.acknowledges() {
            let end = self.with_categories(&[category], |categories| {
                let is_empty = categories.iter().all(|state| state.ring.is_empty());
                is_empty.then(|| self.high_water_mark(category).id)
            });
            return match end {
                Some(end) if !self.commits.has_any_of(category) => Ok(end),
                _ => self.publish_acknowledged(draft),
            };
        }
        let purged = self.with_categories(&[category], |categories| {
            let end = self.high_water_mark(category).id;
            let Some((name, state)) = categories.find(category) else {
                return Ok((end, None));
            };
            if state.ring.is_empty() {
                return Ok((end, None));
            }
            let (entry, _) = self.sequencer.stamp(draft, |entry| self.append(entry))?;
            let id = entry.event.id();
            Ok::<_, Error>((id, Some(self.deliver(name, state, entry, false))))
        });
        let (position, delivery) = purged?;
        // It may look for expired events in all categories, so that no category may be locked.
        if let Some(delivery) = delivery {
            delivery.finish(self);
        }
        Ok(position)
    }
}
