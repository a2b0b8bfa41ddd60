//! Losing events: those that have expired, and those past the limits of all categories together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::catalog::Category;
use super::category_options::milliseconds;
use super::ring::Ring;
use super::statistics::Removal;
use super::{BrokerOptions, Shared};

/// What has to be evicted for the limits of all categories together to hold.
pub(super) struct Excess {
    /// The number of categories that lose all their events: those published to least recently.
    pub(super) categories: usize,
    /// The bytes of JSON that may remain.
    pub(super) max_bytes: usize,
}

impl Excess {
    /// Evicts a sixteenth of each limit more than it has to, so that one search through all categories serves many
    /// publishes.
    pub(super) fn of(options: &BrokerOptions, occupied: usize, bytes: usize) -> Self {
        let (max, max_bytes) = (options.max_categories, options.max_event_bytes);
        let surplus = occupied.saturating_sub(max);
        Excess {
            categories: if surplus > 0 { surplus + max / 16 } else { 0 },
            max_bytes: if bytes > max_bytes {
                max_bytes - max_bytes / 16
            } else {
                usize::MAX
            },
        }
    }
}

/// How often expired events are looked for at least, if some have a time to live of their own, in milliseconds.
const OWN_TTL_PAUSE: u64 = 1000;

/// Events that have expired by an earlier publish time and were not evicted yet: when they expired, their sequence numbers,
/// in this order, and their categories. All other events of the broker expire later.
#[derive(Default)]
pub(super) struct ExpiredEvents(VecDeque<(u64, u64, Arc<Category>)>);

impl Shared {
    /// Loses the events of a category that have expired by `now`, a time of the broker's [`Age`](super::clock::Age).
    pub(super) fn expire(&self, ring: &mut Ring, now: u64) {
        let expired = ring.expire(now);
        self.counters.removed(expired, Removal::Expired);
    }

    /// Returns `true` if an event can expire that is published without a time to live of its own, or one that is held.
    pub(super) fn can_expire(&self) -> bool {
        let mut can_expire = self.options.shortest_ttl().is_some();
        self.catalog
            .for_each(|category| can_expire |= category.ring.can_expire());
        can_expire
    }

    /// Loses the events of all categories that have expired by `now`.
    pub(super) fn sweep(&self, now: u64) {
        if self.next_sweep.load(Relaxed) == u64::MAX {
            return;
        }
        let pause = self.options.shortest_ttl().map_or(u64::MAX, |ttl| {
            milliseconds((ttl / 8).clamp(Duration::from_millis(100), Duration::from_secs(60)))
        });
        self.next_sweep.store(now.saturating_add(pause), Relaxed);
        let mut first = u64::MAX;
        self.catalog.for_each(|category| {
            self.expire(&mut category.ring, now);
            first = first.min(category.ring.first_deadline().unwrap_or(u64::MAX));
        });
        self.sweep_by(first.max(now.saturating_add(OWN_TTL_PAUSE)), first);
    }

    /// Has the next sweep made at this time at the latest, unless `first`, when the first event expires, is never.
    fn sweep_by(&self, time: u64, first: u64) {
        if first != u64::MAX && time < self.next_sweep.load(Relaxed) {
            let earlier = |next: u64| Some(next.min(time));
            let _ = self.next_sweep.fetch_update(Relaxed, Relaxed, earlier);
        }
    }

    /// Has a sweep made after an event of this ring, which was published at this time, has expired, if the event has a time
    /// to live of its own.
    pub(super) fn plan_sweep(&self, ring: &Ring, published: u64) {
        if let Some(first) = ring.first_deadline() {
            self.sweep_by(first.max(published.saturating_add(OWN_TTL_PAUSE)), first);
        }
    }

    /// Loses expired events of all categories, if a sweep is due. Every publish ends with this.
    pub(super) fn sweep_if_due(&self) {
        let due = self.next_sweep.load(Relaxed);
        if due != u64::MAX {
            let now = self.age.now();
            if now >= due {
                self.sweep(now);
            }
        }
    }

    /// Returns how long a broker without publishes can go without a sweep. `None` if no event can expire.
    #[cfg(feature = "native-http")]
    pub(super) fn sweep_pause(&self) -> Option<Duration> {
        let own = self.next_sweep.load(Relaxed) != u64::MAX;
        let own = own.then_some(8 * Duration::from_millis(OWN_TTL_PAUSE));
        let shortest = self.options.shortest_ttl().or(own);
        shortest.map(|ttl| ttl / 8)
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
    /// neither. Events that have expired by the publish time, which may be ahead of the clock, go in the order in which they
    /// expire, and only as far as needed: those that a poll or a sweep can have removed are the first of them. The same holds
    /// within a full [`Ring`].
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
        let mut expired = Vec::new();
        for category in self.catalog.all() {
            if let Some(guard) = self.catalog.lock(&category) {
                let events = guard.ring.expired(now);
                expired
                    .extend(events.map(|(expiry, sequence)| (expiry, sequence, category.clone())));
            }
        }
        expired.sort_unstable_by_key(|(expiry, sequence, _)| (*expiry, *sequence));
        ExpiredEvents(expired.into())
    }

    /// Evicts expired events, in the order in which they expired, until the limits hold.
    fn evict_expired(&self, expired: &mut ExpiredEvents) {
        while self.exceeds_limits()
            && let Some((_, sequence, category)) = expired.0.pop_front()
        {
            if let Some(mut category) = self.catalog.lock(&category) {
                let evicted = category.ring.lose_one(sequence);
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
        let excess = Excess::of(&self.options, occupied.len(), self.counters.event_bytes());
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
}
