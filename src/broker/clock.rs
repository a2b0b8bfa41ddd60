//! [`Clock`]: where the time of events comes from, and [`Age`]: how old events are.
//!
//! A computer's clock can be wrong, and a correction makes it jump. Three rules keep one wrong reading from doing harm:
//!
//! - Timestamps never decrease. A broker cannot tell which of two readings was right, and a device without a battery
//!   starts in 1970 every time. So a log whose newest event is of the year 2100 is continued in 2100.
//! - Timestamps do not stand still where a follower depends on them. After a follower that goes by time alone received a
//!   timestamp, the next event has a greater one, by a millisecond if the clock has no later time. The same holds after
//!   `max_batch_size` bytes of one timestamp, so that one millisecond always fits into one batch.
//! - Events expire by elapsed time, which no correction changes.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How far timestamps may be ahead of the clock because they were stepped, in milliseconds. PastEnd that, the clock itself
/// was set back.
pub(crate) const MAX_STEPS: u64 = 1000;

/// In Unix milliseconds.
const END_OF_9999: u64 = 253_402_300_799_999;

/// The time that events are stamped with. It may step back: the [`Sequencer`](super::sequencer::Sequencer) sees to it
/// that timestamps do not.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    #[cfg(feature = "testing")]
    Manual(crate::testing::ManualClock),
}

impl Clock {
    /// Unix time in milliseconds, at most the end of the year 9999: that leaves room for timestamps that follow.
    pub(crate) fn now(&self) -> u64 {
        let now = match self {
            Clock::System => {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
            }
            #[cfg(feature = "testing")]
            Clock::Manual(clock) => clock.now(),
        };
        now.min(END_OF_9999)
    }
}

/// A time line that starts at the clock's reading when the broker starts and goes on by elapsed time, in milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Age {
    start: u64,
    since: Since,
}

#[derive(Clone, Debug)]
enum Since {
    Started(Instant),
    #[cfg(feature = "testing")]
    Manual(crate::testing::ManualClock, u64),
}

impl Age {
    pub(crate) fn starting_now(clock: &Clock) -> Self {
        let since = match clock {
            Clock::System => Since::Started(Instant::now()),
            #[cfg(feature = "testing")]
            Clock::Manual(clock) => Since::Manual(clock.clone(), clock.elapsed()),
        };
        Age {
            start: clock.now(),
            since,
        }
    }

    /// The present, on this time line.
    pub(crate) fn now(&self) -> u64 {
        let elapsed = match &self.since {
            Since::Started(start) => u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            #[cfg(feature = "testing")]
            Since::Manual(clock, start) => clock.elapsed() - start,
        };
        self.start.saturating_add(elapsed)
    }

    /// When an event is published that is stamped now, and how many milliseconds its timestamp is ahead of the clock. A
    /// few count, so that the next start, which has only the timestamp, comes to the same result.
    pub(crate) fn published(&self, ahead: u64) -> u64 {
        let steps = if ahead <= MAX_STEPS { ahead } else { 0 };
        self.now().saturating_add(steps)
    }

    /// When an event of a log was published. One from the future was published just now.
    pub(crate) fn restored(&self, timestamp: u64) -> u64 {
        timestamp.min(self.start.saturating_add(MAX_STEPS))
    }
}
