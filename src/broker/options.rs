//! [`BrokerOptions`]: what a broker keeps, and its limits.

use std::time::Duration;

use crate::error::Error;

/// What a broker keeps of the events published, and its limits: golongpoll's `Options`, which the Go package hid, and
/// what protects the program that embeds it.
///
/// ```
/// use std::time::Duration;
/// use long_polling::{Broker, BrokerOptions};
///
/// let options = BrokerOptions {
///     events_per_category: 1000,
///     event_ttl: Some(Duration::from_secs(3600)),
///     ..BrokerOptions::default()
/// };
/// let broker = Broker::new(options)?;
/// # Ok::<(), long_polling::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerOptions {
    /// The size of each category's ring buffer, in events: one more pushes out the oldest. Defaults to 250.
    pub events_per_category: usize,
    /// How long an event is kept, by elapsed time, whatever the clock shows; after a restart, by its timestamp, and an
    /// event from the future counts as new. Defaults to `None`: until it is pushed out.
    pub event_ttl: Option<Duration>,
    /// An event goes to everyone who is parked for it, or else to the first poll that fetches it, and is then gone.
    /// That is delivery at most once: an event on its way to a client that has just vanished is lost. With polls that
    /// ask for one event ([`subscribe_up_to`](crate::Broker::subscribe_up_to), the parameter `limit` over HTTP), a
    /// category is a queue of work that is shared out. Defaults to `false`.
    pub delete_after_first_retrieval: bool,
    /// The largest data of one event, in bytes of JSON. Defaults to 1 MiB.
    pub max_event_size: usize,
    /// The most subscribers parked at once; past it, the one parked longest is answered early, as if it had timed out.
    /// Over HTTP each costs a thread and a connection. Defaults to 10,000.
    pub max_parked: usize,
    /// The most categories that hold events; past it, those that were published to least recently lose their events.
    /// Defaults to 10,000.
    pub max_categories: usize,
    /// The size of one batch, and so of one answer over HTTP, in bytes of its events' JSON. What does not fit comes with
    /// the next poll, which goes on from the batch's last id. One event is always given, even one that is larger. A poll
    /// that goes by time alone, without a limit of its own, gets whole milliseconds, since it goes on after the last one:
    /// events of one timestamp have no more bytes than this together. Where a log has more, the batch is cut, and the
    /// next poll that goes by time says that there is a gap. Defaults to 4 MiB.
    pub max_batch_size: usize,
    /// The most bytes of JSON of all events held; past it, the categories that were published to least recently lose
    /// their oldest events, down to a sixteenth below it. Only the newest event is never lost to it. At least
    /// `max_event_size`. Defaults to 64 MiB.
    pub max_event_bytes: usize,
}

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
