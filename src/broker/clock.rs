//! [`Clock`]: the time that events are stamped with, and [`Age`]: the time that they expire by.
//!
//! A computer's clock can be wrong, and a correction makes it jump. Three rules limit the harm of a wrong reading:
//!
//! - Timestamps never decrease. A broker cannot tell which of two readings was right, and a device without a battery
//!   starts in 1970 every time. So a log whose newest event is of the year 2100 is continued in 2100.
//! - Timestamps increase where a follower depends on that. After a follower that goes by time alone received a timestamp,
//!   of an event or in an answer without events, the next event has a greater one, by a millisecond if the clock shows no
//!   later time. The same holds after `max_batch_size` bytes of one timestamp, so that the events of one millisecond always
//!   fit into one batch.
//! - Events expire by elapsed time, which no correction of the clock changes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::deadline::Deadline;

/// How many milliseconds timestamps may be ahead of the clock because they have to increase. If they are further ahead, a
/// start takes it that the clock was set back.
///
/// Timestamps can get further ahead all the same: each publish that meets a parked follower by time adds a millisecond, so
/// more than 1,000 of these a second do for as long as they go on.
pub(crate) const MAX_STEPS: u64 = 1000;

/// In Unix milliseconds.
const END_OF_9999: u64 = 253_402_300_799_999;

/// The time that events are stamped with. It may step back; the [`Sequencer`](super::sequencer::Sequencer) makes sure that
/// timestamps do not.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    #[cfg(feature = "testing")]
    Manual(super::ManualClock),
}

impl Clock {
    /// Returns the Unix time in milliseconds, at most the end of the year 9999, which leaves room for later timestamps.
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

/// The time that events expire by, in milliseconds. It starts at the clock's reading when the broker starts, and goes on by
/// elapsed time.
#[derive(Clone, Debug)]
pub(crate) struct Age {
    start: u64,
    since: Since,
}

#[derive(Clone, Debug)]
enum Since {
    Started(Instant),
    #[cfg(feature = "testing")]
    Manual(super::ManualClock, u64),
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

    /// Returns the present time.
    pub(crate) fn now(&self) -> u64 {
        let elapsed = match &self.since {
            Since::Started(start) => u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            #[cfg(feature = "testing")]
            Since::Manual(clock, start) => clock.elapsed() - start,
        };
        self.start.saturating_add(elapsed)
    }

    /// Returns the deadline of a wait until this time. Without one for a manual clock; see [`on_advance`](Age::on_advance).
    pub(crate) fn deadline(&self, time: u64) -> Deadline {
        match &self.since {
            Since::Started(start) => {
                let after = Duration::from_millis(time.saturating_sub(self.start));
                Deadline::from(start.checked_add(after))
            }
            #[cfg(feature = "testing")]
            Since::Manual(..) => Deadline::NEVER,
        }
    }

    /// Has a manual clock call `callback` each time after it has advanced, until it returns `false`.
    #[cfg_attr(not(feature = "testing"), allow(unused_variables))]
    pub(crate) fn on_advance(&self, callback: impl Fn() -> bool + Send + 'static) {
        #[cfg(feature = "testing")]
        if let Since::Manual(clock, _) = &self.since {
            clock.on_advance(callback);
        }
    }

    /// Returns the publish time of an event that is stamped now, with a timestamp this many milliseconds ahead of the clock.
    /// Up to `MAX_STEPS` of them count, so that the next start, which has only the timestamp, gets the same result.
    pub(crate) fn published(&self, ahead: u64) -> u64 {
        let steps = if ahead <= MAX_STEPS { ahead } else { 0 };
        self.now().saturating_add(steps)
    }

    /// Returns the publish time of an event of a log. An event from the future counts as published now.
    pub(crate) fn restored(&self, timestamp: u64) -> u64 {
        timestamp.min(self.start.saturating_add(MAX_STEPS))
    }
}
