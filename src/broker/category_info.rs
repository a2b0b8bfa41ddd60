//! [`CategoryInfo`]: who follows a category, and what it holds.

use serde::Serialize;

use super::Broker;
use crate::error::Error;
use crate::position::EventId;
use crate::wire::Categories;

/// Who follows a category now, and what it holds. [`Broker::category_info`] returns it, and over HTTP a request with the
/// parameter `info` does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CategoryInfo {
    /// The category.
    pub category: String,
    /// The number of its [subscribers](Broker::subscribers).
    pub subscribers: usize,
    /// Events held now.
    pub events: usize,
    /// Bytes of JSON of these events.
    pub bytes: usize,
    /// The id of the oldest of them; `None` if there is none.
    pub oldest_id: Option<EventId>,
    /// The id of the newest of them.
    pub newest_id: Option<EventId>,
    /// The timestamp of the newest of them, in Unix milliseconds.
    pub newest_timestamp: Option<u64>,
    /// The present position: a subscriber that starts [here](crate::Cursor::LastId) gets the events that are published from
    /// now on.
    pub position: EventId,
}

impl Broker {
    /// Returns who follows a category now, and what it holds. A category exists by being used: of any other one, there are no
    /// subscribers and no events.
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a name that no category can have, and
    /// [`Misdirected`](crate::ErrorKind::Misdirected) for a category whose stream this node does not read.
    ///
    /// ```
    /// use long_polling::{Broker, BrokerOptions};
    ///
    /// let broker = Broker::new(BrokerOptions::new())?;
    /// let first = broker.publish("news", "first")?;
    /// let second = broker.publish("news", "second")?;
    /// let info = broker.category_info("news")?;
    /// assert_eq!((info.events, info.subscribers), (2, 0));
    /// assert_eq!((info.oldest_id, info.newest_id), (Some(first), Some(second)));
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn category_info(&self, category: &str) -> Result<CategoryInfo, Error> {
        self.check_categories(&Categories::from(category))?;
        let subscribers = self.subscribers(category);
        Ok(self.0.with_categories(&[category], |categories| {
            let position = self.0.high_water_mark(category).id;
            let ring = categories.first().map(|state| &state.ring);
            let oldest = ring.and_then(|ring| ring.entries().next());
            let newest = ring.and_then(|ring| ring.newest());
            let newest = newest.map(|entry| &entry.event);
            CategoryInfo {
                category: category.to_owned(),
                subscribers,
                events: ring.map_or(0, |ring| ring.entries().len()),
                bytes: ring.map_or(0, |ring| ring.bytes()),
                oldest_id: oldest.map(|entry| entry.event.id()),
                newest_id: newest.map(|event| event.id()),
                newest_timestamp: newest.map(|event| event.timestamp()),
                position,
            }
        }))
    }

    /// Checks the categories of a poll.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` and, with Redis, `Misdirected`.
    pub(crate) fn check_categories(&self, names: &Categories) -> Result<(), Error> {
        names.check()?;
        #[cfg(feature = "redis")]
        if let Some(streams) = &self.0.streams {
            streams.check(names)?;
        }
        Ok(())
    }
}
