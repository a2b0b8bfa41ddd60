//! [`Backoff`]: the pauses between attempts to reach Redis.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// Pauses that double, each with a random part, so that the nodes do not all come back in the same moment.
#[derive(Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Returns the next pause.
    pub(super) fn next(&mut self) -> Duration {
        let longest = LONGEST.min(FIRST.saturating_mul(1 << self.attempts.min(10)));
        self.attempts += 1;
        // From half of it to all of it.
        let random = RandomState::new().hash_one(self.attempts) % 1000;
        longest / 2 + longest / 2 * random as u32 / 1000
    }

    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_are_short_again_after_a_success() {
        let mut backoff = Backoff::default();
        assert!(backoff.next() <= FIRST);
        let pauses: Vec<Duration> = (0..100).map(|_| backoff.next()).collect();
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(pauses[50..].iter().all(|pause| *pause >= LONGEST / 2));
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
