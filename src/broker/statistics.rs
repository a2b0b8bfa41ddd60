//! [`Statistics`]: what a broker has done and holds.

use std::sync::atomic::Ordering::Relaxed;

use super::ring::Removed;
use super::sync::{AtomicU64, AtomicUsize};
use crate::store::StoreStatistics;

/// What a broker has done since it was made, and what it holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Events published since the start, in process and over HTTP.
    pub published: u64,
    /// Events handed to subscribers: an event that goes to three counts three times.
    pub delivered: u64,
    /// Polls that ended without an event.
    pub timed_out: u64,
    /// Publishes and polls that were refused: bad parameters, limits, after the stop.
    pub refused: u64,
    /// Polls that were told of a gap.
    pub gaps: u64,
    /// Events pushed out of a full ring buffer.
    pub pushed_out: u64,
    /// Events that outlived [`event_ttl`](crate::BrokerOptions::event_ttl).
    pub expired: u64,
    /// Events evicted from the categories that were published to least recently, past
    /// [`max_categories`](crate::BrokerOptions::max_categories) or
    /// [`max_event_bytes`](crate::BrokerOptions::max_event_bytes).
    pub evicted: u64,
    /// Subscribers parked now.
    pub parked: usize,
    /// Categories that have events or parked subscribers now.
    pub categories: usize,
    /// Events held now.
    pub events: usize,
    /// Bytes of JSON of the events held now: what `max_event_bytes` limits.
    pub event_bytes: usize,
    /// What the store, such as a file, has done; all zero without one.
    pub store: StoreStatistics,
}

/// The counters behind [`Statistics`].
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) published: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) pushed_out: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) events: AtomicUsize,
    pub(crate) event_bytes: AtomicUsize,
}

impl Counters {
    pub(crate) fn added(&self, bytes: usize) {
        self.events.fetch_add(1, Relaxed);
        self.event_bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn removed(&self, removed: Removed) {
        self.events.fetch_sub(removed.events, Relaxed);
        self.event_bytes.fetch_sub(removed.bytes, Relaxed);
    }

    pub(crate) fn event_bytes(&self) -> usize {
        self.event_bytes.load(Relaxed)
    }

    pub(crate) fn lost(&self, why: &AtomicU64, removed: Removed) {
        why.fetch_add(removed.events as u64, Relaxed);
        self.removed(removed);
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
            events: self.events.load(Relaxed),
            event_bytes: self.event_bytes.load(Relaxed),
            ..Statistics::default()
        }
    }
}
