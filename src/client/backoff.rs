//! [`Backoff`]: the wait before the next attempt, which grows with each failure and has a random part.

use std::time::{Duration, SystemTime};

use super::random::fraction;

/// The longest `Retry-After` that a client follows. A longer one is taken as this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// The shortest wait, because a shorter one would be a busy loop.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(86_400);

/// Exponential backoff between two limits, with jitter.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        let min = min.clamp(SHORTEST, LONGEST);
        let max = max.clamp(min, LONGEST);
        let failures = 0;
        Backoff { min, max, failures }
    }

    /// Starts over with the shortest wait.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure, and returns the wait before the next attempt: doubled with every failure, less a random part of up
    /// to a half.
    pub(crate) fn delay(&mut self) -> Duration {
        let doubled = self.min.saturating_mul(1 << self.failures.min(30));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.max).mul_f64(1.0 - fraction() / 2.0)
    }

    /// Does the same as [`delay`](Self::delay), but waits no less than the server's `Retry-After`, plus a random part of up
    /// to a quarter.
    pub(crate) fn delay_at_least(&mut self, retry_after: Option<Duration>) -> Duration {
        let requested = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
        self.delay().max(requested.mul_f64(1.0 + fraction() / 4.0))
    }
}

/// Reads a `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new(SECOND, 5 * SECOND);
        for most in [1, 2, 4, 5, 5] {
            let delay = backoff.delay();
            assert!(delay > most * SECOND / 2 - SHORTEST && delay <= most * SECOND);
        }
        backoff.reset();
        assert!(backoff.delay() <= SECOND);
    }

    #[test]
    fn two_waits_differ() {
        let mut first = Backoff::new(SECOND, SECOND);
        let waits: Vec<_> = (0..10).map(|_| first.delay()).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
    }

    #[test]
    fn a_retry_after_is_followed_up_to_a_maximum() {
        let mut backoff = Backoff::new(SECOND / 10, SECOND);
        let delay = backoff.delay_at_least(Some(10 * SECOND));
        assert!((10 * SECOND..13 * SECOND).contains(&delay), "{delay:?}");
        let delay = backoff.delay_at_least(Some(Duration::MAX));
        assert!(delay <= MAX_RETRY_AFTER * 5 / 4, "{delay:?}");
        assert!(backoff.delay_at_least(None) <= SECOND);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(" 120 "), Some(120 * SECOND));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::ZERO)
        );
        let date = httpdate::fmt_http_date(SystemTime::now() + 100 * SECOND);
        assert!(retry_after(&date).is_some_and(|wait| wait > 90 * SECOND));
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn extreme_settings_are_brought_within_reason() {
        let mut backoff = Backoff::new(Duration::ZERO, Duration::MAX);
        assert!(backoff.delay() >= SHORTEST / 2);
        let mut backoff = Backoff::new(Duration::MAX, Duration::ZERO);
        assert!(backoff.delay() <= LONGEST);
    }
}
