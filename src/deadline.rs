//! [`Deadline`]: when a wait ends.

use std::time::{Duration, Instant};

/// The longest duration of a setting, a century, roughly: no deadline made of it overflows.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(u32::MAX as u64);

/// The instant at which a wait ends, or never. A timeout becomes a deadline once, before the first wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

/// A condition variable that a [`Deadline`] can wait on, with a guard of its kind of mutex.
pub(crate) trait TimedCondvar<Guard> {
    /// Waits for a notification.
    fn wait(&self, guard: &mut Guard);

    /// Waits for a notification, or until the deadline. Returns `false` if the deadline has passed.
    fn wait_until(&self, guard: &mut Guard, deadline: Instant) -> bool;
}

impl<T> TimedCondvar<parking_lot::MutexGuard<'_, T>> for parking_lot::Condvar {
    fn wait(&self, guard: &mut parking_lot::MutexGuard<'_, T>) {
        parking_lot::Condvar::wait(self, guard);
    }

    fn wait_until(&self, guard: &mut parking_lot::MutexGuard<'_, T>, deadline: Instant) -> bool {
        !parking_lot::Condvar::wait_until(self, guard, deadline).timed_out()
    }
}

impl Deadline {
    /// The deadline of a wait without a time limit.
    pub(crate) const NEVER: Deadline = Deadline(None);

    /// Returns the deadline `timeout` from now. A timeout that leads past what an [`Instant`] can hold never ends.
    pub(crate) fn after(timeout: Duration) -> Self {
        Deadline(Instant::now().checked_add(timeout))
    }

    /// Returns the time that is left, zero after the deadline; `None` if the wait has no time limit.
    pub(crate) fn remaining(self) -> Option<Duration> {
        let deadline = self.0?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Waits for a notification, or until the deadline. Returns `false` if the deadline has passed; the caller then checks
    /// its condition once more, since it may have been met in that instant.
    pub(crate) fn wait<Guard>(self, condvar: &impl TimedCondvar<Guard>, guard: &mut Guard) -> bool {
        match self.0 {
            None => {
                condvar.wait(guard);
                true
            }
            Some(deadline) => condvar.wait_until(guard, deadline),
        }
    }

    /// Waits as long as `blocked` returns `true`. Returns `false` if it still does at the deadline.
    pub(crate) fn wait_while<Guard>(
        self,
        condvar: &impl TimedCondvar<Guard>,
        guard: &mut Guard,
        mut blocked: impl FnMut(&mut Guard) -> bool,
    ) -> bool {
        let mut in_time = true;
        while blocked(guard) {
            if !in_time {
                return false;
            }
            in_time = self.wait(condvar, guard);
        }
        true
    }
}

impl From<Option<Instant>> for Deadline {
    fn from(deadline: Option<Instant>) -> Self {
        Deadline(deadline)
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::{Condvar, Mutex};

    use super::*;

    #[test]
    fn a_timeout_beyond_what_an_instant_can_hold_never_ends() {
        assert_eq!(Deadline::after(Duration::MAX).remaining(), None);
        assert_eq!(Deadline::NEVER.remaining(), None);
        let remaining = Deadline::after(Duration::from_secs(60)).remaining();
        assert!(remaining.is_some_and(|left| left > Duration::from_secs(30)));
    }

    #[test]
    fn a_wait_ends_when_its_condition_is_met_or_its_deadline_has_passed() {
        let (mutex, condvar) = (Mutex::new(0), Condvar::new());
        let soon = Duration::from_millis(5);
        assert!(!Deadline::after(soon).wait(&condvar, &mut mutex.lock()));
        let blocked = Deadline::after(soon).wait_while(&condvar, &mut mutex.lock(), |_| true);
        assert!(!blocked);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                *mutex.lock() = 1;
                condvar.notify_all();
            });
            let count = |value: &mut parking_lot::MutexGuard<'_, i32>| **value == 0;
            assert!(Deadline::NEVER.wait_while(&condvar, &mut mutex.lock(), count));
        });
    }
}
