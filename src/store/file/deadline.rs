//! [`Deadline`]: the time at which a wait ends.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, MutexGuard};

/// The time at which a wait ends, if it does. A timeout becomes a deadline once, however often the waiting thread wakes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// Returns the deadline this long after now. A time that an `Instant` can't hold is no deadline.
    pub(super) fn after(timeout: Duration) -> Self {
        Deadline::since(Instant::now(), timeout)
    }

    /// Returns the deadline this long after `start`.
    pub(super) fn since(start: Instant, timeout: Duration) -> Self {
        Deadline(start.checked_add(timeout))
    }

    /// Waits until `condition` is false, or the deadline has passed. Returns `false` if `condition` is still true then.
    pub(super) fn wait_while<T>(
        self,
        changed: &Condvar,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> bool {
        match self.0 {
            None => {
                changed.wait_while(guard, condition);
                true
            }
            Some(deadline) => {
                let waited = changed.wait_while_until(guard, &mut condition, deadline);
                // The condition may have changed just before the deadline.
                !waited.timed_out() || !condition(guard)
            }
        }
    }
}
