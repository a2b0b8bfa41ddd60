//! The settings of a broker for presence: [`PresenceSetting`] and [`PresenceHooks`].

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::{Presence, PresenceTracker};
use crate::broker::clock::Age;
use crate::error::Error;

/// The hooks of a broker that are called for its clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PresenceHooks {
    pub(crate) on_subscribe: Option<PresenceHook>,
    pub(crate) on_leave: Option<PresenceHook>,
}

impl PresenceHooks {
    /// Checks the hooks together with the setting `presence`.
    ///
    /// # Errors
    ///
    /// `InvalidSetting` that names the setting.
    pub(in crate::broker) fn check(&self, presence: Option<PresenceSetting>) -> Result<(), Error> {
        match presence {
            Some(PresenceSetting { time, .. }) if time < Duration::from_millis(1) => {
                let problem = format!(
                    "{time:?} is less than a millisecond; give 10s, or leave it out to count parked polls alone"
                );
                Err(Error::setting("presence", problem))
            }
            Some(_) => Ok(()),
            None => {
                let name = match (&self.on_subscribe, &self.on_leave) {
                    (Some(_), _) => "on_subscribe",
                    (None, Some(_)) => "on_leave",
                    (None, None) => return Ok(()),
                };
                let problem = "is called only if clients are counted between their polls; \
                               give presence, such as 10 seconds, too";
                Err(Error::setting(name, problem))
            }
        }
    }
}

/// A hook of a broker. Two hooks are equal if one is a clone of the other.
#[derive(Clone)]
pub(crate) struct PresenceHook(Arc<dyn Fn(&Presence) + Send + Sync>);

impl PresenceHook {
    pub(in crate::broker) fn new(hook: impl Fn(&Presence) + Send + Sync + 'static) -> Self {
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

/// The setting `presence` of a broker.
#[derive(Clone, Copy)]
pub(crate) struct PresenceSetting {
    /// How long a client stays present after its last poll.
    pub(super) time: Duration,
    /// So that a program that does not call the setter does not link the tracker.
    pub(super) create: fn(PresenceHooks, Duration, &Age) -> Arc<dyn PresenceTracker>,
}

impl PresenceSetting {
    /// Returns what counts the clients of a broker with this setting and these hooks.
    pub(in crate::broker) fn create(
        &self,
        hooks: &PresenceHooks,
        age: &Age,
    ) -> Arc<dyn PresenceTracker> {
        (self.create)(hooks.clone(), self.time, age)
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
