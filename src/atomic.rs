//! [`AtomicU64`] for every target: std's if the processor has 64-bit atomics, otherwise one with a lock (32-bit MIPS, PowerPC
//! and ARMv5). The rest of the crate uses this one; `.ci/run` checks that.

#[cfg(target_has_atomic = "64")]
pub(crate) use std::sync::atomic::AtomicU64;

#[cfg(not(target_has_atomic = "64"))]
pub(crate) use locked::AtomicU64;

/// The part of std's `AtomicU64` that this crate uses, with a lock. The lock is at least as strong as any ordering that a
/// caller passes.
#[cfg(any(test, not(target_has_atomic = "64")))]
// Also has methods that the crate does not use yet, so that nobody uses std's for lack of a method.
#[allow(dead_code)]
mod locked {
    use std::sync::atomic::Ordering;

    use parking_lot::Mutex;

    #[derive(Debug, Default)]
    pub(crate) struct AtomicU64(Mutex<u64>);

    impl From<u64> for AtomicU64 {
        fn from(value: u64) -> Self {
            AtomicU64::new(value)
        }
    }

    impl AtomicU64 {
        pub(crate) const fn new(value: u64) -> Self {
            AtomicU64(Mutex::new(value))
        }

        pub(crate) fn load(&self, _: Ordering) -> u64 {
            *self.0.lock()
        }

        pub(crate) fn store(&self, value: u64, _: Ordering) {
            *self.0.lock() = value;
        }

        pub(crate) fn swap(&self, value: u64, _: Ordering) -> u64 {
            std::mem::replace(&mut self.0.lock(), value)
        }

        /// Adds with wrapping. Returns the previous value.
        pub(crate) fn fetch_add(&self, value: u64, _: Ordering) -> u64 {
            self.replace(|now| Some(now.wrapping_add(value)))
                .unwrap_or_else(|now| now)
        }

        /// Subtracts with wrapping. Returns the previous value.
        pub(crate) fn fetch_sub(&self, value: u64, _: Ordering) -> u64 {
            self.replace(|now| Some(now.wrapping_sub(value)))
                .unwrap_or_else(|now| now)
        }

        /// Stores the greater of the current value and this one. Returns the previous value.
        pub(crate) fn fetch_max(&self, value: u64, _: Ordering) -> u64 {
            self.replace(|now| Some(now.max(value)))
                .unwrap_or_else(|now| now)
        }

        /// Stores what `update` returns. Returns the previous value.
        ///
        /// # Errors
        ///
        /// The current value, if `update` returns `None`; it is not changed.
        pub(crate) fn fetch_update(
            &self,
            _: Ordering,
            _: Ordering,
            update: impl FnMut(u64) -> Option<u64>,
        ) -> Result<u64, u64> {
            self.replace(update)
        }

        /// Stores `new` if the value is `current`. Returns the previous value.
        ///
        /// # Errors
        ///
        /// The current value, if it is another; it is not changed.
        pub(crate) fn compare_exchange(
            &self,
            current: u64,
            new: u64,
            _: Ordering,
            _: Ordering,
        ) -> Result<u64, u64> {
            self.replace(|now| (now == current).then_some(new))
        }

        fn replace(&self, mut update: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
            let mut value = self.0.lock();
            let before = *value;
            *value = update(before).ok_or(before)?;
            Ok(before)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;
    use std::thread;

    use super::*;

    #[test]
    fn the_locked_atomic_returns_what_that_of_std_returns() {
        let (ours, theirs) = (locked::AtomicU64::new(3), AtomicU64::new(3));
        macro_rules! same {
            ($call:ident($($argument:expr),*)) => {
                assert_eq!(ours.$call($($argument),*), theirs.$call($($argument),*));
                assert_eq!(ours.load(SeqCst), theirs.load(SeqCst), stringify!($call($($argument),*)));
            };
        }
        same!(fetch_add(4, SeqCst));
        same!(fetch_sub(8, SeqCst));
        same!(fetch_add(5, SeqCst));
        same!(fetch_max(2, SeqCst));
        same!(fetch_max(1 << 40, SeqCst));
        same!(swap(9, SeqCst));
        same!(compare_exchange(8, 1, SeqCst, SeqCst));
        same!(compare_exchange(9, 1, SeqCst, SeqCst));
        same!(fetch_update(SeqCst, SeqCst, |_| None));
        same!(fetch_update(SeqCst, SeqCst, |now| Some(now + 1)));
        same!(store(u64::MAX, SeqCst));
        assert_eq!(
            format!("{:?}", locked::AtomicU64::default().load(SeqCst)),
            "0"
        );
    }

    #[test]
    fn no_addition_to_the_locked_atomic_is_lost() {
        let counter = locked::AtomicU64::from(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| _ = counter.fetch_add(1, SeqCst)));
            }
        });
        assert_eq!(counter.load(SeqCst), 40_000);
    }
}
