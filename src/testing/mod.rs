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

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::atomic::AtomicU64;
use crate::broker::{Broker, BrokerOptions, Clock};
use crate::error::Error;
use crate::persist::FilePersistorInfo;
use crate::server::{Server, ServerInfo};

/// A clock that stands still until it is set. Cloning gives another handle to the same clock.
///
/// It is the time that events are stamped with and expire by. Timeouts of polls and of connections go by real time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that stands at this Unix time, in milliseconds.
    pub fn at(milliseconds: u64) -> Self {
        ManualClock(Arc::new(milliseconds.into()))
    }

    /// The Unix time that it shows, in milliseconds.
    pub fn now(&self) -> u64 {
        self.0.load(SeqCst)
    }

    /// Sets it to a Unix time in milliseconds, which may well be earlier.
    pub fn set(&self, milliseconds: u64) {
        self.0.store(milliseconds, SeqCst);
    }

    /// Sets it forward, by whole milliseconds.
    pub fn advance(&self, duration: Duration) {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let advance = |now: u64| Some(now.saturating_add(milliseconds));
        _ = self.0.fetch_update(SeqCst, SeqCst, advance);
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
pub fn start(
    info: ServerInfo,
    file: Option<FilePersistorInfo>,
    clock: &ManualClock,
) -> Result<Server, Error> {
    Server::start_by(info, file, None, Clock::Manual(clock.clone()))
}

/// Waits until so many subscribers are parked, no more and no fewer, in process and over HTTP together; for a server,
/// give [`Server::broker`]. False where that did not come about within `limit`.
///
/// A publish that comes after this reaches them all.
pub fn wait_until_parked(broker: &Broker, count: usize, limit: Duration) -> bool {
    broker.wait_until_parked(count, limit)
}
