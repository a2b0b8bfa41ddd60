//! Presence: which clients follow a category, also between two of their polls.
//!
//! The table of places is in `table`; `tracker` locks it, gives it the time, and runs the hooks in a thread of their own.
//! A broker without the setting [`presence`](crate::BrokerOptions::presence) has neither, and a program that never calls the setter
//! does not link them: the setting has the function that creates the tracker.

mod settings;
mod table;
mod tracker;

use std::sync::{Arc, Weak};

use super::{Broker, Handle};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::wire::Categories;

pub(crate) use settings::{PresenceHook, PresenceHooks, PresenceSetting};

/// A client that has come to a category or left it, for the hooks [`on_subscribe`](crate::BrokerOptions::on_subscribe) and
/// [`on_leave`](crate::BrokerOptions::on_leave).
#[derive(Clone, Debug)]
pub struct Presence {
    category: Arc<str>,
    name: Option<Arc<str>>,
    subscribers: usize,
    broker: Broker,
}

impl Presence {
    /// Returns the category.
    pub fn category(&self) -> &str {
        &self.category
    }

    /// Returns the name of the client; `None` if it has none.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the number of clients that were present in the category when the hook was called. After the client has come, it
    /// counts unless it has left again by then; after it has left, it does not.
    pub fn subscribers(&self) -> usize {
        self.subscribers
    }

    /// Returns the broker, by which the hook publishes, or lists the [names](Broker::subscriber_names) in the category.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }
}

/// Counts the clients of a broker with the setting `presence`.
pub(crate) trait PresenceTracker: Send + Sync {
    /// Has a poll of this client hold its place in each category, and returns the ids of the places.
    fn enter(&self, categories: &Categories, name: Option<&str>) -> Vec<u64>;

    /// Ends the hold of one poll on these places.
    fn leave(&self, places: &[u64]);

    /// Returns the number of clients that are present in a category.
    fn subscribers(&self, category: &str) -> usize;

    /// Returns the names of the clients that are present in a category.
    fn names(&self, category: &str) -> Vec<String>;

    /// Returns the number of clients that are present, in all categories together.
    fn present(&self) -> usize;

    /// Starts the thread that calls the hooks, if there are any.
    ///
    /// # Errors
    ///
    /// `Busy` if the system has no thread left.
    fn start(self: Arc<Self>, broker: Weak<Handle>) -> Result<(), Error>;

    /// Has the thread end, after the hook that it is in.
    fn end(&self);

    /// Waits until the thread has ended.
    ///
    /// # Errors
    ///
    /// `StopTimeout` that names the hook.
    fn wait(&self, deadline: Deadline) -> Result<(), Error>;
}

/// A client's presence in the categories of a poll, or of several polls in sequence. When this is dropped, the client stays
/// present for the time of [`BrokerOptions::presence`](crate::BrokerOptions::presence).
#[must_use = "the client is present until this is dropped, and then for the set time"]
pub(crate) struct PresenceGuard {
    tracker: Arc<dyn PresenceTracker>,
    places: Vec<u64>,
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        self.tracker.leave(&self.places);
    }
}

impl Broker {
    /// Returns the number of subscribers of a category: the polls that are parked there now or, with
    /// [`BrokerOptions::presence`](crate::BrokerOptions::presence), the clients that are present, also between two polls. 0 for a category that nobody has
    /// used.
    ///
    /// ```
    /// use long_polling::{Broker, BrokerOptions};
    ///
    /// let broker = Broker::new(BrokerOptions::new())?;
    /// assert_eq!(broker.subscribers("news"), 0);
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn subscribers(&self, category: &str) -> usize {
        match &self.0.presence {
            Some(tracker) => tracker.subscribers(category),
            None => self.0.catalog.waiters(category),
        }
    }

    /// Returns the names of the clients that are present in a category, in their order. Empty without
    /// [`BrokerOptions::presence`](crate::BrokerOptions::presence). Clients without a name are left out, so that there may be more
    /// [`subscribers`](Broker::subscribers) than names.
    ///
    /// Names may be private: the broker gives them to the program alone, which publishes what others may see.
    pub fn subscriber_names(&self, category: &str) -> Vec<String> {
        let tracker = self.0.presence.as_ref();
        tracker.map_or_else(Vec::new, |tracker| tracker.names(category))
    }

    /// Makes a client present in these categories until the guard is dropped. `None` without the setting.
    pub(crate) fn enter(
        &self,
        categories: &Categories,
        name: Option<&str>,
    ) -> Option<PresenceGuard> {
        let tracker = self.0.presence.as_ref()?;
        Some(PresenceGuard {
            places: tracker.enter(categories, name),
            tracker: tracker.clone(),
        })
    }
}
