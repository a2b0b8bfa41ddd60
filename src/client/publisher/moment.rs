//! [`Moment`]: a time since which others are measured.

use std::time::{Duration, Instant, SystemTime};

/// A moment by two clocks: the monotonic one does not count the time while the machine is suspended, and the system's clock
/// may be set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    monotonic: Instant,
    system: SystemTime,
}

impl Moment {
    pub(super) fn now() -> Self {
        Moment {
            monotonic: Instant::now(),
            system: SystemTime::now(),
        }
    }

    /// A moment that only the system's clock puts so long ago, as after a suspension.
    #[cfg(test)]
    pub(super) fn before(suspension: Duration) -> Self {
        let now = Moment::now();
        Moment {
            system: now.system - suspension,
            ..now
        }
    }

    /// Returns the time that may have passed at most.
    pub(super) fn elapsed(self) -> Duration {
        let by_system = self.system.elapsed().unwrap_or_default();
        self.monotonic.elapsed().max(by_system)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_time_of_a_suspended_machine_counts() {
        let now = Moment::now();
        assert!(now.elapsed() < HOUR);
        assert!(Moment::before(HOUR).elapsed() >= HOUR);
        let before_the_clock_was_set_back = Moment {
            system: now.system + HOUR,
            ..now
        };
        assert!(before_the_clock_was_set_back.elapsed() < HOUR);
    }
}
