//! For the tests of programs that embed a server or a broker: a clock that the test sets, waiting until subscribers are
//! parked, and answers that get lost, so that no test has to sleep. With the feature `testing`, which belongs among the
//! dev-dependencies.
//!
//! ```
//! use std::time::Duration;
//! use long_polling::testing::{self, ManualClock};
//! use long_polling::{BrokerOptions, Cursor};
//!
//! let clock = ManualClock::at(1_700_000_000_000);
//! let options = BrokerOptions { event_ttl: Some(Duration::from_secs(3600)), ..BrokerOptions::default() };
//! let broker = testing::broker(options, None, &clock)?;
//!
//! let follower = broker.clone();
//! let thread = std::thread::spawn(move || follower.subscribe("alerts", Cursor::Now, Duration::from_secs(60)));
//! assert!(testing::wait_until_parked(&broker, 1, Duration::from_secs(10)));
//! broker.publish("alerts", "disk almost full")?;
//! assert_eq!(thread.join().unwrap()?.events()[0].timestamp(), clock.now());
//!
//! clock.advance(Duration::from_secs(3601));
//! let batch = broker.subscribe("alerts", Cursor::Oldest, Duration::ZERO)?;
//! assert!(batch.events().is_empty());
//! # Ok::<(), long_polling::Error>(())
//! ```

mod relay;

pub use relay::Relay;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::broker::{Broker, BrokerOptions, Clock};
use crate::error::Error;
use crate::server::{Server, ServerInfo};
use crate::store::file::FilePersistorInfo;

/// A clock that stands still until it is set. Cloning gives another handle to the same clock.
///
/// It shows a Unix time, which events are stamped with, and counts elapsed time, which events expire by.
/// [`advance`](ManualClock::advance) is time that passes; [`set`](ManualClock::set) is a clock that somebody corrects or
/// breaks, and no time passes. Timeouts of polls and of connections go by real time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Times>>);

#[derive(Clone, Copy, Debug)]
struct Times {
    /// Unix time, in milliseconds.
    now: u64,
    /// Time that has passed since the clock was made, in milliseconds.
    elapsed: u64,
}

impl ManualClock {
    /// A clock that stands at this Unix time, in milliseconds.
    pub fn at(milliseconds: u64) -> Self {
        let times = Times {
            now: milliseconds,
            elapsed: 0,
        };
        ManualClock(Arc::new(Mutex::new(times)))
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The Unix time that it shows, in milliseconds.
    pub fn now(&self) -> u64 {
        self.times().now
    }

    /// Sets the Unix time, in milliseconds, to a later or an earlier one. No event expires by this alone.
    pub fn set(&self, milliseconds: u64) {
        self.times().now = milliseconds;
    }

    /// Lets time pass, in whole milliseconds.
    pub fn advance(&self, duration: Duration) {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let mut times = self.times();
        times.now = times.now.saturating_add(milliseconds);
        times.elapsed = times.elapsed.saturating_add(milliseconds);
    }

    /// The time that has passed since the clock was made, in milliseconds.
    pub(crate) fn elapsed(&self) -> u64 {
        self.times().elapsed
    }
}

/// [`Broker::new`], or with a file [`Broker::open`], by this clock.
///
/// # Errors
///
/// Those of [`Broker::new`] and [`Broker::open`].
pub fn broker(
    options: BrokerOptions,
    file: Option<FilePersistorInfo>,
    clock: &ManualClock,
) -> Result<Broker, Error> {
    Broker::start(options, file, Clock::Manual(clock.clone()))
}

/// [`Server::start`], by this clock and without a failure callback.
///
/// # Errors
///
/// Those of [`Server::start`].
pub fn start(info: ServerInfo, clock: &ManualClock) -> Result<Server, Error> {
    Server::start_with_clock(info, Clock::Manual(clock.clone()))
}

/// Waits until so many subscribers are parked, no more and no fewer, in process and over HTTP together; for a server,
/// give [`Server::broker`]. False where that did not come about within `limit`.
///
/// A publish that comes after this reaches them all.
pub fn wait_until_parked(broker: &Broker, count: usize, limit: Duration) -> bool {
    broker.wait_until_parked(count, limit)
}
