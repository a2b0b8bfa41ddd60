//! [`Limits`]: the settings of a broker as plain values, for tests that compute what the broker has to do.

use std::time::Duration;

use long_polling::BrokerOptions;

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
        }
    }
}

impl Limits {
    pub(crate) fn options(&self) -> BrokerOptions {
        BrokerOptions::new()
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
