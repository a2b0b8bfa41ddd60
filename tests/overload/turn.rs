//! [`Turn`]: few tests run at once.

use std::sync::{Condvar, Mutex};

/// How many tests run at once, however many threads the test runner has.
const AT_ONCE: usize = 2;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The turn of one test, until it is dropped.
#[must_use]
pub(crate) struct Turn;

impl Turn {
    pub(crate) fn take() -> Self {
        let running = RUNNING.lock().unwrap();
        let mut running = ENDED
            .wait_while(running, |running| *running == AT_ONCE)
            .unwrap();
        *running += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap() -= 1;
        ENDED.notify_one();
    }
}
