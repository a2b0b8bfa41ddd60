//! [`BrokerOptions`]: what a broker keeps, and its limits.

use std::collections::BTreeMap;
use std::time::Duration;

use super::category_options::{CategoryOptions, RingLimits, check_ttl, milliseconds};
use super::presence::{Presence, PresenceHook, PresenceHooks, PresenceSetting};
use crate::config::{Count, Flag, Map, Nested, Optional, Size, Time, settings};
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
/// A configuration file can have them, but for the hooks; [`ServerInfo`](crate::ServerInfo) says how.
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
    pub(crate) presence: Option<PresenceSetting>,
    pub(crate) presence_hooks: PresenceHooks,
    pub(crate) idempotency_window: Duration,
    pub(crate) max_idempotency_keys: usize,
    pub(crate) max_idempotency_bytes: usize,
    /// The settings of categories, by the prefix of their names.
    pub(crate) prefixes: BTreeMap<String, CategoryOptions>,
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
        presence: Optional<Time>,
        idempotency_window: Time,
        max_idempotency_keys: Count,
        max_idempotency_bytes: Size,
        categories: Map<Nested<CategoryOptions>>,
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
            presence: None,
            presence_hooks: PresenceHooks::default(),
            idempotency_window: Duration::from_secs(600),
            max_idempotency_keys: 100_000,
            max_idempotency_bytes: 16 << 20,
            prefixes: BTreeMap::new(),
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
    ///
    /// An event published with a [time to live of its own](crate::PublishRequest::ttl) is kept for the shorter of both.
    pub fn event_ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.event_ttl = ttl.into();
        self
    }

    /// Sets whether the first retrieval of an event deletes it. The event goes to all subscribers that are parked for it,
    /// or else to the first poll that fetches it. Defaults to `false`.
    ///
    /// Delivery is then at most once: an event on its way to a client that has just vanished is lost. An event that comes after
    /// the server has noticed that a client has disconnected stays for the next one. With polls for one
    /// event ([`subscribe_up_to`](crate::Broker::subscribe_up_to), the parameter `limit` over HTTP), a category is a work
    /// queue.
    pub fn delete_after_first_retrieval(mut self, delete: bool) -> Self {
        self.delete_after_first_retrieval = delete;
        self
    }

    /// Sets the largest data of one event, in bytes of JSON. 0 is an error, and so is more than 64 MiB less 8 KiB with a
    /// [file](crate::FilePersistorInfo), which has no longer lines. Defaults to 1 MiB.
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

    /// Sets how long a client counts as present in a category after the end of its last poll there. A client that follows a
    /// category is between two polls for a moment after each event; 10 seconds cover that, and a short loss of the
    /// connection. Less than a millisecond is an error. Defaults to `None`: only polls that are parked count.
    ///
    /// A client has the name that the hook [`before_subscription`](crate::ServerInfo::before_subscription) gives it by
    /// [`Request::identify`](crate::server::Request::identify), or else that of the parameter `subscriber` of its poll. All
    /// polls of one name count as one client. Polls without a name are told apart by number alone: when one ends, its place
    /// stays for the time, and the next poll without a name takes the place that was left first. So do the calls of
    /// [`Broker::subscribe`](crate::Broker::subscribe).
    ///
    /// A client that follows several categories is present in each of them. At most 100,000 clients are counted, in all
    /// categories together; the broker does not count further ones, and logs a warning. A broker in Redis counts the clients
    /// of its own node.
    ///
    /// ```
    /// use std::time::Duration;
    /// use long_polling::{Broker, BrokerOptions, Cursor};
    ///
    /// let presence = Duration::from_secs(10);
    /// let broker = Broker::new(BrokerOptions::new().presence(presence))?;
    /// broker.subscribe("news", Cursor::Now, Duration::ZERO)?;
    /// assert_eq!(broker.subscribers("news"), 1);
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn presence(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.presence = time.into().map(PresenceSetting::new);
        self
    }

    /// Sets a hook that is called when a client has come to a category: after the first poll of its name there, or the first
    /// one since it left. Needs [`presence`](BrokerOptions::presence). Defaults to none.
    ///
    /// A thread of the broker, `long-polling-presence`, calls this hook and [`on_leave`](BrokerOptions::on_leave), one client
    /// after the other, in the order of the changes. No poll waits for a hook, so it may block or publish. While a hook blocks,
    /// later changes wait for it; a client that leaves and comes back meanwhile counts as one that has stayed. A panic in a
    /// hook is logged.
    ///
    /// ```
    /// use std::time::Duration;
    /// use long_polling::{Broker, BrokerOptions, Cursor, Error, Presence};
    ///
    /// fn publish_number(presence: &Presence) {
    ///     let category = presence.category();
    ///     if category.starts_with("room/") {
    ///         let audience = category.replace("room/", "audience/");
    ///         let number = presence.subscribers();
    ///         if let Err(error) = presence.broker().publish(&audience, &number) {
    ///             eprintln!("{}", error.report());
    ///         }
    ///     }
    /// }
    ///
    /// let options = BrokerOptions::new()
    ///     .presence(Duration::from_secs(10))
    ///     .on_subscribe(publish_number)
    ///     .on_leave(publish_number);
    /// let broker = Broker::new(options)?;
    /// broker.subscribe("room/1", Cursor::Now, Duration::ZERO)?;
    ///
    /// let limit = Duration::from_secs(10);
    /// let batch = broker.subscribe("audience/1", Cursor::Oldest, limit)?;
    /// assert_eq!(batch.events()[0].decode::<usize>()?, 1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn on_subscribe(mut self, hook: impl Fn(&Presence) + Send + Sync + 'static) -> Self {
        self.presence_hooks.on_subscribe = Some(PresenceHook::new(hook));
        self
    }

    /// Sets a hook that is called when a client has left a category: when the time of
    /// [`presence`](BrokerOptions::presence) has passed after its last poll. It is called as
    /// [`on_subscribe`](BrokerOptions::on_subscribe) is, and not for the clients that are present when the broker stops.
    /// Defaults to none.
    pub fn on_leave(mut self, hook: impl Fn(&Presence) + Send + Sync + 'static) -> Self {
        self.presence_hooks.on_leave = Some(PresenceHook::new(hook));
        self
    }

    /// Sets how long the broker remembers the idempotency key of a publish, in whole milliseconds: for that time, a repetition
    /// with the same key publishes nothing, and is answered as the first publish. Zero: keys are checked for their form, and
    /// ignored. Defaults to 10 minutes.
    ///
    /// [`publish_once`](crate::Broker::publish_once), [`PublishRequest::idempotency_key`](crate::PublishRequest::idempotency_key)
    /// and, over HTTP, the header field `Idempotency-Key` give a publish its key.
    pub fn idempotency_window(mut self, window: Duration) -> Self {
        self.idempotency_window = window;
        self
    }

    /// Sets the most idempotency keys that the broker remembers. Past it, the oldest keys are forgotten, and a repetition with
    /// one of them is published again. 0 is an error. Defaults to 100,000.
    ///
    /// With Redis, it is the most keys of each stream, of all nodes together.
    pub fn max_idempotency_keys(mut self, keys: usize) -> Self {
        self.max_idempotency_keys = keys;
        self
    }

    /// Sets the most bytes of the idempotency keys that the broker remembers, where each key counts with 128 bytes more than
    /// it has. Past it, the oldest keys are forgotten, and a repetition with one of them is published again. The newest key
    /// stays. 0 is an error. Defaults to 16 MiB.
    ///
    /// With Redis, it has no effect.
    pub fn max_idempotency_bytes(mut self, bytes: usize) -> Self {
        self.max_idempotency_bytes = bytes;
        self
    }

    /// Sets what is different for the categories whose names begin with `prefix`, which has 1 to 1024 bytes. If several
    /// prefixes fit a name, the longest one decides; what its settings leave out is the broker's own. A configuration file has
    /// a table `categories` for it. Defaults to no prefixes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use long_polling::{Broker, BrokerOptions, CategoryOptions, Cursor};
    ///
    /// let last_only = CategoryOptions::new().events_per_category(1);
    /// let broker = Broker::new(BrokerOptions::new().for_categories("state/", last_only))?;
    /// broker.publish("state/door", "open")?;
    /// broker.publish("state/door", "closed")?;
    /// let batch = broker.subscribe("state/door", Cursor::Oldest, Duration::ZERO)?;
    /// assert_eq!((batch.events().len(), &*batch.events()[0].text()), (1, "closed"));
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn for_categories(mut self, prefix: impl Into<String>, options: CategoryOptions) -> Self {
        self.prefixes.insert(prefix.into(), options);
        self
    }

    /// The setter of a configuration file's table `categories`.
    fn categories(self, list: Vec<(String, CategoryOptions)>) -> Self {
        list.into_iter().fold(self, |options, (prefix, of)| {
            options.for_categories(prefix, of)
        })
    }

    /// Returns the limits of a category: the settings of the longest prefix of its name, and the broker's for what these
    /// leave out.
    pub(crate) fn limits_of(&self, category: &str) -> RingLimits {
        let fits = |(prefix, _): &(&String, _)| category.starts_with(prefix.as_str());
        // In their order, a prefix comes before all that it is a prefix of.
        let special = self.prefixes.iter().rfind(fits);
        let special = special.map(|(_, special)| special);
        let events = special.and_then(|special| special.events_per_category);
        let ttl = special.and_then(|special| special.event_ttl);
        RingLimits {
            events: events.unwrap_or(self.events_per_category),
            ttl: ttl
                .unwrap_or(self.event_ttl)
                .map_or(RingLimits::NEVER, milliseconds),
        }
    }

    /// Returns the shortest time to live of all settings. `None` if no setting makes events expire.
    pub(crate) fn shortest_ttl(&self) -> Option<Duration> {
        let special = self.prefixes.values();
        let special = special.filter_map(CategoryOptions::shortest_ttl);
        special.chain(self.event_ttl).min()
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
            ("max_idempotency_keys", self.max_idempotency_keys),
            ("max_idempotency_bytes", self.max_idempotency_bytes),
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
        self.presence_hooks.check(self.presence)?;
        check_ttl(self.event_ttl).map_err(|problem| Error::setting("event_ttl", problem))?;
        let mut prefixes = self.prefixes.iter();
        prefixes.try_for_each(|(prefix, options)| options.check(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins_and_the_broker_decides_what_it_leaves_out() {
        let second = Duration::from_secs(1);
        let options = BrokerOptions::new()
            .events_per_category(5)
            .event_ttl(second)
            .for_categories("m/b/c", CategoryOptions::new().event_ttl(2 * second))
            .for_categories("m/", CategoryOptions::new().events_per_category(1))
            .for_categories("m/", CategoryOptions::new().events_per_category(7))
            .for_categories("m/b", CategoryOptions::new().event_ttl(None))
            .for_categories("é", CategoryOptions::new().events_per_category(9));
        for (category, events, ttl) in [
            ("m", 5, 1000),
            ("m/", 7, 1000),
            ("m/a", 7, 1000),
            ("m/b", 5, RingLimits::NEVER),
            ("m/b/", 5, RingLimits::NEVER),
            ("m/b/cd", 5, 2000),
            ("m/z", 7, 1000),
            ("éa", 9, 1000),
            ("è", 5, 1000),
        ] {
            let limits = options.limits_of(category);
            assert_eq!((limits.events, limits.ttl), (events, ttl), "{category}");
        }
    }

    #[test]
    fn settings_that_can_not_be_used_are_refused_with_their_prefix() {
        let long = "x".repeat(1025);
        for (prefix, options, named) in [
            (
                "a/",
                CategoryOptions::new().events_per_category(0),
                "\"a/\"",
            ),
            (
                "b/",
                CategoryOptions::new().event_ttl(Duration::from_micros(999)),
                "event_ttl",
            ),
            ("", CategoryOptions::new(), "1 to 1024 bytes"),
            (&long, CategoryOptions::new(), "1 to 1024 bytes"),
        ] {
            let options = BrokerOptions::new().for_categories(prefix, options);
            let error = crate::Broker::new(options).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidSetting);
            let message = error.to_string();
            assert!(
                message.contains("for_categories") && message.contains(named),
                "{message}"
            );
        }
    }
}
