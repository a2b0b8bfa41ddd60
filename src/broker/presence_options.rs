//! The settings of a broker for [presence](super::presence), with its hooks.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::BrokerOptions;
use super::clock::Age;
use super::presence::{self, Presence, PresenceTracker};
use crate::error::Error;

/// A hook of [`BrokerOptions`]. Two hooks are equal if one is a clone of the other.
#[derive(Clone)]
pub(crate) struct PresenceHook(Arc<dyn Fn(&Presence) + Send + Sync>);

impl PresenceHook {
    fn new(hook: impl Fn(&Presence) + Send + Sync + 'static) -> Self {
        PresenceHook(Arc::new(hook))
    }

    /// Calls the hook with this name. A panic is logged.
    pub(super) fn call(&self, name: &str, presence: &Presence) {
        if catch_unwind(AssertUnwindSafe(|| (self.0)(presence))).is_err() {
            let category = presence.category();
            log::error!("the hook BrokerOptions::{name} panicked for the category {category:?}");
        }
    }
}

impl PartialEq for PresenceHook {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for PresenceHook {}

impl fmt::Debug for PresenceHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresenceHook")
    }
}

/// The setting [`BrokerOptions::presence`].
#[derive(Clone, Copy)]
pub(crate) struct PresenceSetting {
    /// How long a client stays present after its last poll.
    time: Duration,
    create: fn(&BrokerOptions, Duration, &Age) -> Arc<dyn PresenceTracker>,
}

impl PresenceSetting {
    fn new(time: Duration) -> Self {
        PresenceSetting {
            time,
            create: presence::create,
        }
    }

    pub(super) fn create(&self, options: &BrokerOptions, age: &Age) -> Arc<dyn PresenceTracker> {
        (self.create)(options, self.time, age)
    }
}

impl PartialEq for PresenceSetting {
    fn eq(&self, other: &Self) -> bool {
        self.time == other.time
    }
}

impl Eq for PresenceSetting {}

impl fmt::Debug for PresenceSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.time.fmt(f)
    }
}

impl BrokerOptions {
    /// Sets how long a client counts as present in a category after the end of its last poll there. A client that follows a
    /// category is between two polls for a moment after each event; 10 seconds cover that, and a short loss of the
    /// connection. Less than a millisecond is an error. Defaults to `None`: only polls that are parked count.
    ///
    /// A client has the name that the hook [`before_subscription`](crate::ServerInfo::before_subscription) gives it by
    /// [`Request::identify`](crate::server::Request::identify), or else that of the parameter `subscriber` of its poll. All
    /// polls of one name count as one client. Polls without a name are told apart by number alone: when one ends, its place
    /// stays for the time, and the next poll without a name takes the place that was left first. So do the calls of
    /// [`Broker::subscribe`].
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
    ///         let published = presence.broker().publish(&audience, &presence.subscribers());
    ///         published.unwrap_or_else(|error| panic!("{}", error.report()));
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
        self.on_subscribe = Some(PresenceHook::new(hook));
        self
    }

    /// Sets a hook that is called when a client has left a category: when the time of
    /// [`presence`](BrokerOptions::presence) has passed after its last poll. It is called as
    /// [`on_subscribe`](BrokerOptions::on_subscribe) is, and not for the clients that are present when the broker stops.
    /// Defaults to none.
    pub fn on_leave(mut self, hook: impl Fn(&Presence) + Send + Sync + 'static) -> Self {
        self.on_leave = Some(PresenceHook::new(hook));
        self
    }

    /// # Errors
    ///
    /// `InvalidSetting` that names the setting.
    pub(super) fn check_presence(&self) -> Result<(), Error> {
        match self.presence {
            Some(PresenceSetting { time, .. }) if time < Duration::from_millis(1) => {
                let problem = format!(
                    "{time:?} is less than a millisecond; give 10s, or leave it out to count parked polls alone"
                );
                Err(Error::setting("presence", problem))
            }
            Some(_) => Ok(()),
            None => {
                let hooks = [
                    ("on_subscribe", &self.on_subscribe),
                    ("on_leave", &self.on_leave),
                ];
                let given = hooks.into_iter().find(|(_, hook)| hook.is_some());
                given.map_or(Ok(()), |(name, _)| {
                    let problem = "is called only if clients are counted between their polls; \
                                   give presence, such as 10 seconds, too";
                    Err(Error::setting(name, problem))
                })
            }
        }
    }
}
