//! [`Statistics`]: what a broker has done and holds, and [`Counters`]: where the broker counts that.

use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::ring::{Removed, Ring};
use super::sync::{AtomicU64, AtomicUsize};
use crate::store::StoreStatistics;

/// What a broker has done since it was made, and what it holds now. [`Broker::statistics`](crate::Broker::statistics)
/// returns it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Events published since the start, in process and over HTTP. With a backplane, the events of all nodes that this one
    /// has shown.
    pub published: u64,
    /// Events delivered to subscribers: an event that goes to three subscribers counts three times.
    pub delivered: u64,
    /// Polls that ended without an event.
    pub timed_out: u64,
    /// Publishes and polls that were refused: bad parameters, limits, after the stop.
    pub refused: u64,
    /// Answers with events that reported a gap.
    pub gaps: u64,
    /// Events pushed out of a full ring buffer.
    pub pushed_out: u64,
    /// Events that outlived their time to live: [`event_ttl`](crate::BrokerOptions::event_ttl), or
    /// [their own](crate::PublishRequest::ttl).
    pub expired: u64,
    /// Events evicted from the categories that were published to least recently, past
    /// [`max_categories`](crate::BrokerOptions::max_categories) or
    /// [`max_event_bytes`](crate::BrokerOptions::max_event_bytes).
    pub evicted: u64,
    /// Events deleted by purges of their categories.
    pub purged: u64,
    /// Subscribers parked now.
    pub parked: usize,
    /// Clients that are present now, also between two polls; one that follows two categories counts twice. `None` without
    /// [`presence`](crate::BrokerOptions::presence).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub present: Option<usize>,
    /// Categories that have events or parked subscribers now.
    pub categories: usize,
    /// Events held now.
    pub events: usize,
    /// Bytes of JSON of the events held now, which [`max_event_bytes`](crate::BrokerOptions::max_event_bytes) limits.
    pub event_bytes: usize,
    /// Idempotency keys held now; 0 with a backplane, which has them itself.
    pub idempotency_keys: usize,
    /// Repetitions of a publish with an idempotency key that were answered as the first one.
    pub repetitions: u64,
    /// Idempotency keys forgotten before their time, past
    /// [`max_idempotency_keys`](crate::BrokerOptions::max_idempotency_keys) or
    /// [`max_idempotency_bytes`](crate::BrokerOptions::max_idempotency_bytes).
    pub keys_forgotten: u64,
    /// What the store, such as a file, has done. All zero without one.
    pub store: StoreStatistics,
    /// What the backplane, such as Redis, has done; `None` without one.
    #[cfg(feature = "redis")]
    pub backplane: Option<BackplaneStatistics>,
}

/// What a broker's backplane, such as Redis, has done since the start.
#[cfg(feature = "redis")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BackplaneStatistics {
    /// Every stream is being read, and the last publish to each stream reached the backplane.
    pub connected: bool,
    /// Why the backplane can't be reached or refuses publishes; `None` if neither is so.
    pub failing: Option<String>,
    /// Events that this node has published.
    pub published: u64,
    /// Events that this node has read, its own included.
    pub read: u64,
    /// Publishes that wait for an answer now.
    pub waiting: u64,
    /// Connections that were made again after one was lost.
    pub reconnects: u64,
    /// How often events were found lost: the backplane lost them, or trimmed them before this node had read them.
    pub losses: u64,
}

/// Why events leave a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    PushedOut,
    Expired,
    Evicted,
    Purged,
    /// A subscriber retrieved them, and `delete_after_first_retrieval` is set.
    Retrieved,
}

/// The counters behind [`Statistics`].
///
/// `events`, `event_bytes` and `occupied` agree with the rings, because [`added`](Counters::added) and
/// [`removed`](Counters::removed) are called for every event that enters or leaves one.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) published: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pushed_out: AtomicU64,
    expired: AtomicU64,
    evicted: AtomicU64,
    purged: AtomicU64,
    events: AtomicUsize,
    event_bytes: AtomicUsize,
    /// Categories that hold events.
    occupied: AtomicUsize,
}

impl Counters {
    /// Counts an event of `bytes` bytes of JSON that is about to enter this ring.
    pub(crate) fn added(&self, ring: &Ring, bytes: usize) {
        if ring.is_empty() {
            self.occupied.fetch_add(1, Relaxed);
        }
        self.events.fetch_add(1, Relaxed);
        self.event_bytes.fetch_add(bytes, Relaxed);
    }

    /// Counts the events of a ring that comes into the catalog.
    #[cfg(feature = "redis")]
    pub(crate) fn added_all(&self, ring: &Ring) {
        let bytes = ring.entries().map(|entry| entry.event.as_json().len());
        self.event_bytes.fetch_add(bytes.sum(), Relaxed);
        self.events.fetch_add(ring.entries().len(), Relaxed);
        self.occupied
            .fetch_add(usize::from(!ring.is_empty()), Relaxed);
    }

    /// Counts what left a ring, and why.
    pub(crate) fn removed(&self, removed: Removed, why: Removal) {
        if removed.events == 0 {
            return;
        }
        self.events.fetch_sub(removed.events, Relaxed);
        self.event_bytes.fetch_sub(removed.bytes, Relaxed);
        if removed.emptied {
            self.occupied.fetch_sub(1, Relaxed);
        }
        let counter = match why {
            Removal::PushedOut => &self.pushed_out,
            Removal::Expired => &self.expired,
            Removal::Evicted => &self.evicted,
            Removal::Purged => &self.purged,
            Removal::Retrieved => return,
        };
        counter.fetch_add(removed.events as u64, Relaxed);
    }

    pub(crate) fn events(&self) -> usize {
        self.events.load(Relaxed)
    }

    pub(crate) fn event_bytes(&self) -> usize {
        self.event_bytes.load(Relaxed)
    }

    pub(crate) fn occupied(&self) -> usize {
        self.occupied.load(Relaxed)
    }

    pub(crate) fn snapshot(&self) -> Statistics {
        Statistics {
            published: self.published.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            refused: self.refused.load(Relaxed),
            gaps: self.gaps.load(Relaxed),
            pushed_out: self.pushed_out.load(Relaxed),
            expired: self.expired.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
            purged: self.purged.load(Relaxed),
            events: self.events(),
            event_bytes: self.event_bytes(),
            ..Statistics::default()
        }
    }
}
