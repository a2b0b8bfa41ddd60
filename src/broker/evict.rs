//! Losing events: those that have expired, and those past the limits of all categories together.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Shared;
use super::catalog::Category;
use super::ring::Ring;
use super::statistics::Removal;

/// What has to be evicted for the limits of all categories together to hold.
struct Excess {
    /// The number of categories that lose all their events: those published to least recently.
    categories: usize,
    /// The bytes of JSON that may remain.
    max_bytes: usize,
}

impl Shared {
    /// Loses the events of a category that have expired by `now`, a time of the broker's [`Age`](super::clock::Age).
    pub(super) fn expire(&self, ring: &mut Ring, now: u64) {
        let Some(ttl) = self.options.event_ttl else {
            return;
        };
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let expired = ring.expire(now.saturating_sub(ttl));
        self.counters.removed(expired, Removal::Expired);
    }

    /// Loses the events of all categories that have expired by `now`.
    pub(super) fn sweep(&self, now: u64) {
        let Some(ttl) = self.options.event_ttl else {
            return;
        };
        let pause = (ttl / 8).clamp(Duration::from_millis(100), Duration::from_secs(60));
        let next = now.saturating_add(pause.as_millis() as u64);
        self.next_sweep.store(next, Relaxed);
        self.catalog
            .for_each(|category| self.expire(&mut category.ring, now));
    }

    /// Loses events that are past the limits, or that have expired, where either is due. Every publish ends with this.
    ///
    /// An eviction goes by the publish time of the event, which is all that the next start has: it then evicts the same.
    pub(super) fn tidy(&self, published: u64) {
        if self.exceeds_limits() {
            self.evict(published);
        }
        if self.options.event_ttl.is_some() {
            let now = self.age.now();
            if now >= self.next_sweep.load(Relaxed) {
                self.sweep(now);
            }
        }
    }

    /// Returns `true` if the broker holds more than the options allow.
    pub(super) fn exceeds_limits(&self) -> bool {
        self.counters.occupied() > self.options.max_categories
            || self.counters.event_bytes() > self.options.max_event_bytes
    }

    /// Evicts events of the categories that were published to least recently, until the limits hold.
    ///
    /// One thread does so at a time, and every other that publishes past a limit waits for it. So the broker never holds
    /// more than the limits and one event of each publishing thread.
    pub(super) fn evict(&self, now: u64) {
        let _one = self.evicting.lock();
        // Expired events go first; and another thread may have evicted all there was to evict.
        self.sweep(now);
        if !self.exceeds_limits() {
            return;
        }
        let categories = self.catalog.all();
        let newest = |category: &Category| {
            let guard = self.catalog.lock(category)?;
            Some(guard.ring.newest()?.sequence)
        };
        let mut occupied: Vec<(u64, &Arc<Category>)> = categories
            .iter()
            .filter_map(|category| Some((newest(category)?, category)))
            .collect();
        occupied.sort_unstable_by_key(|(sequence, _)| *sequence);
        let excess = self.excess(occupied.len());
        let last = occupied.len().saturating_sub(1);
        for (index, (sequence, category)) in occupied.into_iter().enumerate() {
            let excess_bytes = self.counters.event_bytes();
            let excess_bytes = excess_bytes.saturating_sub(excess.max_bytes);
            if index >= excess.categories && excess_bytes == 0 {
                break;
            }
            let Some(mut category) = self.catalog.lock(category) else {
                continue;
            };
            let Some(newest) = category.ring.newest() else {
                continue;
            };
            let has_newest = index == last || newest.sequence != sequence;
            let evicted = if index < excess.categories && !has_newest {
                category.ring.lose_all()
            } else {
                category
                    .ring
                    .lose_bytes(excess_bytes, usize::from(has_newest))
            };
            self.counters.removed(evicted, Removal::Evicted);
        }
    }

    /// Evicts a sixteenth of each limit more than it has to, so that one search through all categories serves many
    /// publishes.
    fn excess(&self, occupied: usize) -> Excess {
        let (max, max_bytes) = (self.options.max_categories, self.options.max_event_bytes);
        let surplus = occupied.saturating_sub(max);
        Excess {
            categories: if surplus > 0 { surplus + max / 16 } else { 0 },
            max_bytes: if self.counters.event_bytes() > max_bytes {
                max_bytes - max_bytes / 16
            } else {
                usize::MAX
            },
        }
    }
}
