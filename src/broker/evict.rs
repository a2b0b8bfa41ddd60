//! Losing events: those that have expired, and those past the limits of all categories together.

use std::collections::VecDeque;
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

/// Events that have expired by an earlier publish time and were not evicted yet: their sequence numbers, in order, and their
/// categories. All other events of the broker were published later.
#[derive(Default)]
pub(super) struct ExpiredEvents(VecDeque<(u64, Arc<Category>)>);

impl Shared {
    /// Loses the events of a category that have expired by `now`, a time of the broker's [`Age`](super::clock::Age).
    pub(super) fn expire(&self, ring: &mut Ring, now: u64) {
        if let Some(before) = self.expired_before(now) {
            let expired = ring.expire(before);
            self.counters.removed(expired, Removal::Expired);
        }
    }

    /// Returns the publish time before which events have expired by `now`. `None` if events do not expire.
    fn expired_before(&self, now: u64) -> Option<u64> {
        let ttl = self.options.event_ttl?;
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Some(now.saturating_sub(ttl))
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

    /// Loses expired events of all categories, if a sweep is due. Every publish ends with this.
    pub(super) fn sweep_if_due(&self) {
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

    /// Evicts events until the limits hold, after an event with this publish time has become visible: first those that have
    /// expired, and then those of the categories that were published to least recently.
    ///
    /// One thread does so at a time, and every other that publishes past a limit waits for it. So the broker never holds
    /// more than the limits and one event of each publishing thread.
    ///
    /// What remains has to be the same when the next start reads the log. The log says neither when a poll or a sweep
    /// removed expired events, nor how far the timestamp of an event was ahead of the clock. So what remains must depend on
    /// neither. Events that expire by the publish time, which may be ahead of the clock, go in publish order, and only as far
    /// as needed: those that a poll or a sweep can have removed are the oldest of them.
    pub(super) fn evict(&self, published: u64) {
        if !self.exceeds_limits() {
            return;
        }
        let _one = self.evicting.lock();
        // Another thread may have evicted all there was to evict.
        if !self.exceeds_limits() {
            return;
        }
        let now = self.age.now().min(published);
        self.sweep(now);
        if published > now && self.exceeds_limits() {
            self.evict_expired(&mut self.expired_events(published));
        }
        if self.exceeds_limits() {
            self.evict_least_recent();
        }
    }

    /// [`evict`](Shared::evict) while a log is read, with the events that are left from the last time. Expired events that
    /// are past no limit stay until the end of the log: a retrieval of them may follow.
    pub(super) fn evict_again(&self, published: u64, expired: &mut ExpiredEvents) {
        self.evict_expired(expired);
        if self.exceeds_limits() {
            *expired = self.expired_events(published);
            self.evict_expired(expired);
        }
        if self.exceeds_limits() {
            self.evict_least_recent();
        }
    }

    /// Returns the events that have expired by `now`.
    fn expired_events(&self, now: u64) -> ExpiredEvents {
        let Some(before) = self.expired_before(now) else {
            return ExpiredEvents::default();
        };
        let mut expired = Vec::new();
        for category in self.catalog.all() {
            if let Some(guard) = self.catalog.lock(&category) {
                let entries = guard.ring.published_before(before);
                expired.extend(entries.map(|entry| (entry.sequence, category.clone())));
            }
        }
        expired.sort_unstable_by_key(|(sequence, _)| *sequence);
        ExpiredEvents(expired.into())
    }

    /// Evicts expired events, in publish order, until the limits hold.
    fn evict_expired(&self, expired: &mut ExpiredEvents) {
        while self.exceeds_limits()
            && let Some((sequence, category)) = expired.0.pop_front()
        {
            if let Some(mut category) = self.catalog.lock(&category) {
                let evicted = category.ring.lose_up_to(sequence);
                self.counters.removed(evicted, Removal::Evicted);
            }
        }
    }

    /// Evicts events of the categories that were published to least recently, until the limits hold.
    fn evict_least_recent(&self) {
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
