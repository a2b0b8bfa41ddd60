//! [`CategoryOptions`]: settings of the categories whose names begin with a prefix, and [`RingLimits`]: those of one category.

use std::time::Duration;

use crate::config::{Count, Optional, Time, settings};
use crate::error::Error;
use crate::wire::check_category;

/// Settings for the categories whose names begin with a prefix; see
/// [`BrokerOptions::for_categories`](crate::BrokerOptions::for_categories).
///
/// ```
/// use std::time::Duration;
/// use long_polling::{BrokerOptions, CategoryOptions};
///
/// let options = BrokerOptions::new()
///     .for_categories(
///         "metrics/",
///         CategoryOptions::new()
///             .events_per_category(10)
///             .event_ttl(Duration::from_secs(60)),
///     )
///     .for_categories(
///         "metrics/billing/",
///         CategoryOptions::new().events_per_category(10_000),
///     );
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CategoryOptions {
    pub(super) events_per_category: Option<usize>,
    pub(super) event_ttl: Option<Option<Duration>>,
}

settings!(
    CategoryOptions, of "categories", unset CategoryOptions::new(),
    {
        events_per_category: Count,
        event_ttl: Optional<Time>,
    }
);

impl CategoryOptions {
    /// Creates settings that change nothing.
    pub fn new() -> Self {
        CategoryOptions::default()
    }

    /// Sets the size of the ring buffer of each of these categories, in events. 0 is an error. Defaults to the broker's
    /// [`events_per_category`](crate::BrokerOptions::events_per_category).
    pub fn events_per_category(mut self, events: usize) -> Self {
        self.events_per_category = Some(events);
        self
    }

    /// Sets how long an event of these categories is kept. `None` keeps it until another pushes it out. Less than a
    /// millisecond is an error. Defaults to the broker's [`event_ttl`](crate::BrokerOptions::event_ttl).
    pub fn event_ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.event_ttl = Some(ttl.into());
        self
    }

    /// # Errors
    ///
    /// `InvalidSetting` that names the prefix.
    pub(super) fn check(&self, prefix: &str) -> Result<(), Error> {
        let wrong = |problem: String| {
            Error::setting(
                "for_categories",
                format!("the settings for {prefix:?}: {problem}"),
            )
        };
        check_category(prefix).map_err(|_| {
            wrong(
                "no category has such a prefix alone; give 1 to 1024 bytes, or set the broker's own options".into(),
            )
        })?;
        if self.events_per_category == Some(0) {
            return Err(wrong(
                "events_per_category is 0, so that nothing could be kept; give 1 or more".into(),
            ));
        }
        check_ttl(self.event_ttl.flatten()).map_err(|problem| wrong(format!("event_ttl {problem}")))
    }

    pub(super) fn shortest_ttl(&self) -> Option<Duration> {
        self.event_ttl.flatten()
    }
}

/// # Errors
///
/// What is wrong with a setting `event_ttl`.
pub(super) fn check_ttl(ttl: Option<Duration>) -> Result<(), &'static str> {
    match ttl {
        Some(ttl) if ttl < Duration::from_millis(1) => {
            Err("is under a millisecond; give more, or leave it out to keep events")
        }
        _ => Ok(()),
    }
}

/// What the ring buffer of one category keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingLimits {
    /// The most events.
    pub(crate) events: usize,
    /// How long an event is kept, in milliseconds; [`NEVER`](RingLimits::NEVER) if events do not expire.
    pub(crate) ttl: u64,
}

impl RingLimits {
    /// The time to live of an event that does not expire.
    pub(crate) const NEVER: u64 = u64::MAX;
}

/// Returns whole milliseconds. A longer time than 64 bits hold never ends.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(RingLimits::NEVER)
}
