//! [`Limits`]: the settings of a broker as plain values, for tests that compute what the broker has to do.

use std::time::Duration;

use long_polling::{BrokerOptions, CategoryOptions};

/// The settings of a broker. The default values are the broker's.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) events_per_category: usize,
    pub(crate) event_ttl: Option<Duration>,
    pub(crate) delete_after_first_retrieval: bool,
    pub(crate) max_event_size: usize,
    pub(crate) max_parked: usize,
    pub(crate) max_categories: usize,
    pub(crate) max_batch_size: usize,
    pub(crate) max_event_bytes: usize,
    /// Other settings for a prefix: events, and the time to live if it is another.
    pub(crate) special: Option<(&'static str, usize, Option<Option<Duration>>)>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            events_per_category: 250,
            event_ttl: None,
            delete_after_first_retrieval: false,
            max_event_size: 1 << 20,
            max_parked: 10_000,
            max_categories: 10_000,
            max_batch_size: 4 << 20,
            max_event_bytes: 64 << 20,
            special: None,
        }
    }
}

impl Limits {
    /// Returns `true` if events expire that have no time to live of their own.
    #[allow(dead_code)]
    pub(crate) fn can_expire(&self) -> bool {
        let special = self.special.and_then(|(_, _, ttl)| ttl.flatten());
        self.event_ttl.is_some() || special.is_some()
    }

    pub(crate) fn options(&self) -> BrokerOptions {
        let mut options = BrokerOptions::new();
        if let Some((prefix, events, ttl)) = self.special {
            let mut special = CategoryOptions::new().events_per_category(events);
            if let Some(ttl) = ttl {
                special = special.event_ttl(ttl);
            }
            options = options.for_categories(prefix, special);
        }
        options
            .events_per_category(self.events_per_category)
            .event_ttl(self.event_ttl)
            .delete_after_first_retrieval(self.delete_after_first_retrieval)
            .max_event_size(self.max_event_size)
            .max_parked(self.max_parked)
            .max_categories(self.max_categories)
            .max_batch_size(self.max_batch_size)
            .max_event_bytes(self.max_event_bytes)
    }
}
