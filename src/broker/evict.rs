//! What is lost: events that have expired, and those that go because the broker holds too many.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Shared;
use super::catalog::Category;
use super::ring::{Removed, Ring};

impl Shared {
    /// Whatever takes events out of a ring is done through this, which sees to the count of categories with events.
    pub(super) fn remove(
        &self,
        ring: &mut Ring,
        from: impl FnOnce(&mut Ring) -> Removed,
    ) -> Removed {
        let occupied = !ring.is_empty();
        let removed = from(ring);
        if occupied && ring.is_empty() {
            self.occupied.fetch_sub(1, Relaxed);
        }
        removed
    }

    /// Loses what has expired by `now`, a time of the broker's [`Age`](super::clock::Age).
    pub(super) fn expire(&self, ring: &mut Ring, now: u64) {
        let Some(ttl) = self.options.event_ttl else {
            return;
        };
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let before = now.saturating_sub(ttl);
        let removed = self.remove(ring, |ring| ring.expire(before));
        self.counters.lost(&self.counters.expired, removed);
    }

    /// Loses what has expired by `now` in all categories.
    pub(super) fn sweep(&self, now: u64) {
        let Some(ttl) = self.options.event_ttl else {
            return;
        };
        let pause = (ttl / 8).clamp(Duration::from_millis(100), Duration::from_secs(60));
        let next = now.saturating_add(pause.as_millis() as u64);
        self.next_sweep.store(next, Relaxed);
        for category in self.catalog.all() {
            let Some(mut state) = category.lock() else {
                continue;
            };
            self.expire(&mut state.ring, now);
            let unused = state.is_unused();
            drop(state);
            if unused {
                self.catalog.remove_unused(&category);
            }
        }
    }

    /// True where more is held than the options allow.
    pub(super) fn is_over(&self) -> bool {
        self.occupied.load(Relaxed) > self.options.max_categories
            || self.counters.event_bytes() > self.options.max_event_bytes
    }

    /// Takes events of the categories that were published to least recently, until the limits hold. Of categories, a
    /// sixteenth of the limit goes besides those that are too many, and of bytes what is more than fifteen sixteenths,
    /// so that looking through all categories is paid for by many publishes.
    ///
    /// One thread does so at a time, and whoever publishes past a limit meanwhile waits for it: so the limits are passed
    /// by no more than one event of each thread that publishes.
    pub(super) fn evict(&self, now: u64) {
        let _one = self.evicting.lock();
        // What has expired goes first; and another thread may have done all there was to do.
        self.sweep(now);
        if !self.is_over() {
            return;
        }
        let categories = self.catalog.all();
        let newest = |category: &Category| Some(category.lock()?.ring.newest()?.sequence);
        let mut occupied: Vec<(u64, &Arc<Category>)> = categories
            .iter()
            .filter_map(|category| Some((newest(category)?, category)))
            .collect();
        occupied.sort_unstable_by_key(|(sequence, _)| *sequence);
        let (max, max_bytes) = (self.options.max_categories, self.options.max_event_bytes);
        let surplus = occupied.len().saturating_sub(max);
        let whole = if surplus > 0 { surplus + max / 16 } else { 0 };
        let bytes_left = if self.counters.event_bytes() > max_bytes {
            max_bytes - max_bytes / 16
        } else {
            usize::MAX
        };
        let last = occupied.len().saturating_sub(1);
        for (at, (sequence, category)) in occupied.into_iter().enumerate() {
            let excess = self.counters.event_bytes().saturating_sub(bytes_left);
            if at >= whole && excess == 0 {
                break;
            }
            let Some(mut state) = category.lock() else {
                continue;
            };
            let Some(newest) = state.ring.newest() else {
                continue;
            };
            let is_newest = at == last || newest.sequence != sequence;
            let removed = self.remove(&mut state.ring, |ring| {
                if at < whole && !is_newest {
                    ring.lose_all()
                } else {
                    ring.lose_bytes(excess, usize::from(is_newest))
                }
            });
            self.counters.lost(&self.counters.evicted, removed);
            let unused = state.is_unused();
            drop(state);
            if unused {
                self.catalog.remove_unused(category);
            }
        }
    }
}
