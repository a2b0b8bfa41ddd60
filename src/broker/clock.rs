//! [`Clock`]: where the time of events comes from.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time that events are stamped with and expire by. It may step back: the [`Sequencer`](super::sequencer::Sequencer)
/// sees to it that timestamps do not.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    #[cfg(feature = "testing")]
    Manual(crate::testing::ManualClock),
}

impl Clock {
    /// Unix time in milliseconds.
    pub(crate) fn now(&self) -> u64 {
        match self {
            Clock::System => {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
            }
            #[cfg(feature = "testing")]
            Clock::Manual(clock) => clock.now(),
        }
    }
}
