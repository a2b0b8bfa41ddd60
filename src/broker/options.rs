//! [`BrokerOptions`]: what a broker keeps, and its limits.

use std::time::Duration;

use crate::config::{Count, Flag, Optional, Size, Time, settings};
use crate::error::Error;

/// What a broker keeps of the events published, and its limits: golongpoll's `Options`, which the Go package hides, and
/// limits that protect the program that embeds it.
///
/// ```
/// use std::time::Duration;
/// use long_polling::{Broker, BrokerOptions};
///
/// let options = BrokerOptions::new()
///     .events_per_category(1000)
///     .event_ttl(Duration::from_secs(3600));
/// let broker = Broker::new(options)?;
/// # Ok::<(), long_polling::Error>(())
/// ```
///
/// A configuration file can have them; [`ServerInfo`](crate::ServerInfo) says how.
///
/// A setting that is given twice has the last value. A value that can't be used is reported where the broker starts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "options do nothing until a broker or server starts with them"]
pub struct BrokerOptions {
    pub(crate) events_per_category: usize,
    pub(crate) event_ttl: Option<Duration>,
    pub(crate) delete_after_first_retrieval: bool,
    pub(crate) max_event_size: usize,
    pub(crate) max_parked: usize,
    pub(crate) max_categories: usize,
    pub(crate) max_batch_size: usize,
    pub(crate) max_event_bytes: usize,
}

settings!(
    BrokerOptions, of "a broker", unset BrokerOptions::default(),
    {
        events_per_category: Count,
        event_ttl: Optional<Time>,
        delete_after_first_retrieval: Flag,
        max_event_size: Size,
        max_parked: Count,
        max_categories: Count,
        max_batch_size: Size,
        max_event_bytes: Size,
    }
);

impl Default for BrokerOptions {
    fn default() -> Self {
        BrokerOptions {
            events_per_category: 250,
            event_ttl: None,
            delete_after_first_retrieval: false,
            max_event_size: 1 << 20,
            max_parked: 10_000,
            max_categories: 10_000,
            max_batch_size: 4 << 20,
            max_event_bytes: 64 << 20,
        }
    }
}

impl BrokerOptions {
    /// The default settings.
    pub fn new() -> Self {
        BrokerOptions::default()
    }

    /// Sets the size of each category's ring buffer, in events. One more event pushes out the oldest. 0 is an error.
    /// Defaults to 250.
    pub fn events_per_category(mut self, events: usize) -> Self {
        self.events_per_category = events;
        self
    }

    /// Sets how long an event is kept. `None` keeps an event until another pushes it out. Less than a millisecond is an
    /// error. Defaults to `None`.
    pub fn event_ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.event_ttl = ttl.into();
        self
    }

    /// Sets whether the first retrieval of an event deletes it. The event goes to all subscribers that are parked for it,
    /// or else to the first poll that fetches it. Defaults to `false`.
    ///
    /// Delivery is then at most once: an event on its way to a client that has just vanished is lost. With polls for one
    /// event ([`subscribe_up_to`](crate::Broker::subscribe_up_to), the parameter `limit` over HTTP), a category is a work
    /// queue.
    pub fn delete_after_first_retrieval(mut self, delete: bool) -> Self {
        self.delete_after_first_retrieval = delete;
        self
    }

    /// Sets the largest data of one event, in bytes of JSON. 0 is an error. Defaults to 1 MiB.
    pub fn max_event_size(mut self, bytes: usize) -> Self {
        self.max_event_size = bytes;
        self
    }

    /// Sets the most subscribers parked at once. One more makes the broker answer the one that is parked longest, as if
    /// its poll had timed out. Over HTTP each parked subscriber costs a thread and a connection. 0 is an error. Defaults to
    /// 10,000.
    pub fn max_parked(mut self, subscribers: usize) -> Self {
        self.max_parked = subscribers;
        self
    }

    /// Sets the most categories that hold events. Past it, the categories published to least recently lose their events.
    /// 0 is an error. Defaults to 10,000.
    pub fn max_categories(mut self, categories: usize) -> Self {
        self.max_categories = categories;
        self
    }

    /// Sets the largest batch, and so the largest answer over HTTP, in bytes of its events' JSON. The next poll fetches the
    /// rest, from the batch's last id on. A batch has at least one event, even a larger one. 0 is an error. Defaults to
    /// 4 MiB.
    pub fn max_batch_size(mut self, bytes: usize) -> Self {
        self.max_batch_size = bytes;
        self
    }

    /// Sets the most bytes of JSON of all events held. Past it, the categories published to least recently lose their
    /// oldest events, until a sixteenth of the limit is free. The newest event always stays. Less than `max_event_size` is
    /// an error. Defaults to 64 MiB.
    pub fn max_event_bytes(mut self, bytes: usize) -> Self {
        self.max_event_bytes = bytes;
        self
    }

    /// # Errors
    ///
    /// `InvalidSetting` that names the setting.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (name, value) in [
            ("events_per_category", self.events_per_category),
            ("max_event_size", self.max_event_size),
            ("max_parked", self.max_parked),
            ("max_categories", self.max_categories),
            ("max_batch_size", self.max_batch_size),
        ] {
            if value == 0 {
                return Err(Error::setting(
                    name,
                    "is 0, so that nothing could be done; give 1 or more",
                ));
            }
        }
        let (all, one) = (self.max_event_bytes, self.max_event_size);
        if all < one {
            return Err(Error::setting(
                "max_event_bytes",
                format!(
                    "{all} bytes for all events are less than one may have, {one} by max_event_size; \
                     give several times as much, or lower max_event_size"
                ),
            ));
        }
        match self.event_ttl {
            Some(ttl) if ttl < Duration::from_millis(1) => Err(Error::setting(
                "event_ttl",
                "is under a millisecond; give more, or leave it out to keep events",
            )),
            _ => Ok(()),
        }
    }
}
