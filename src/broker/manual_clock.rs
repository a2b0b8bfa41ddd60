//! [`ManualClock`]: a clock for tests.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A clock that stands still until a test sets it. Cloning returns another handle to the same clock.
///
/// It shows a Unix time, which the broker stamps events with, and counts elapsed time, by which events expire.
/// [`advance`](ManualClock::advance) lets time pass; [`set`](ManualClock::set) corrects or breaks the clock, and no time
/// passes. The timeouts of polls and connections use real time.
#[derive(Clone)]
pub struct ManualClock(Arc<Shared>);

struct Shared {
    times: Mutex<Times>,
    /// Called after each advance. One that returns `false` is dropped.
    callbacks: Mutex<Vec<Callback>>,
}

type Callback = Box<dyn Fn() -> bool + Send>;

#[derive(Clone, Copy, Debug)]
struct Times {
    /// Unix time, in milliseconds.
    now: u64,
    /// Time that has passed since the clock was made, in milliseconds.
    elapsed: u64,
}

impl ManualClock {
    /// Returns a clock that shows this Unix time, in milliseconds.
    pub fn at(milliseconds: u64) -> Self {
        let times = Times {
            now: milliseconds,
            elapsed: 0,
        };
        ManualClock(Arc::new(Shared {
            times: Mutex::new(times),
            callbacks: Mutex::default(),
        }))
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the Unix time that the clock shows, in milliseconds.
    pub fn now(&self) -> u64 {
        self.times().now
    }

    /// Sets the Unix time, in milliseconds, to a later or an earlier one. No event expires by that alone.
    pub fn set(&self, milliseconds: u64) {
        self.times().now = milliseconds;
    }

    /// Lets time pass, in whole milliseconds.
    pub fn advance(&self, duration: Duration) {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let mut times = self.times();
        times.now = times.now.saturating_add(milliseconds);
        times.elapsed = times.elapsed.saturating_add(milliseconds);
        drop(times);
        self.callbacks().retain(|callback| callback());
    }

    /// Calls `callback` after each advance, until it returns `false`. It may read the clock.
    pub(super) fn on_advance(&self, callback: impl Fn() -> bool + Send + 'static) {
        self.callbacks().push(Box::new(callback));
    }

    fn callbacks(&self) -> MutexGuard<'_, Vec<Callback>> {
        let callbacks = self.0.callbacks.lock();
        callbacks.unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time that has passed since the clock was made, in milliseconds.
    pub(super) fn elapsed(&self) -> u64 {
        self.times().elapsed
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&*self.times()).finish()
    }
}
