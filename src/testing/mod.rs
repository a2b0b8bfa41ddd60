//! Helpers for the tests of programs that embed a server or a broker: a clock that a test sets, a wait until subscribers
//! are parked, and a relay that refuses connections, cuts requests off, and loses, delays or replaces responses, so that no test has to sleep.
//! For a program's own [`Store`]: [`StoreConformance`]. Needs the feature `testing`, which belongs in the dev-dependencies.
//!
//! ```
//! use std::time::Duration;
//! use long_polling::testing::{self, ManualClock};
//! use long_polling::{BrokerOptions, Cursor};
//!
//! let clock = ManualClock::at(1_700_000_000_000);
//! let options = BrokerOptions::new().event_ttl(Duration::from_secs(3600));
//! let broker = testing::broker(options, &clock)?;
//!
//! let follower = broker.clone();
//! let thread = std::thread::spawn(move || {
//!     follower.subscribe("alerts", Cursor::Now, Duration::from_secs(60))
//! });
//! assert!(testing::wait_until_parked(
//!     &broker,
//!     1,
//!     Duration::from_secs(10)
//! ));
//! broker.publish("alerts", "disk almost full")?;
//! assert_eq!(thread.join().unwrap()?.events()[0].timestamp(), clock.now());
//!
//! clock.advance(Duration::from_secs(3601));
//! let batch = broker.subscribe("alerts", Cursor::Oldest, Duration::ZERO)?;
//! assert!(batch.events().is_empty());
//! # Ok::<(), long_polling::Error>(())
//! ```

mod relay;
mod store_conformance;

pub use relay::Relay;
pub use store_conformance::{
    CheckedRule, ConformanceReport, Fault, RuleOutcome, StoreConformance, StorePlace,
};

pub use crate::broker::ManualClock;

use std::time::Duration;

use crate::broker::{Broker, BrokerOptions, Clock};
use crate::error::Error;
use crate::server::{Server, ServerInfo};
use crate::store::Store;
use crate::store::file::FilePersistorInfo;

/// Creates a broker in memory that uses this clock: [`Broker::new`] for tests.
///
/// # Errors
///
/// Those of [`Broker::new`].
pub fn broker(options: BrokerOptions, clock: &ManualClock) -> Result<Broker, Error> {
    Broker::start(options, None, Clock::Manual(clock.clone()))
}

/// Creates a broker with a file that uses this clock: [`Broker::open`] for tests.
///
/// # Errors
///
/// Those of [`Broker::open`].
pub fn open(
    options: BrokerOptions,
    file: FilePersistorInfo,
    clock: &ManualClock,
) -> Result<Broker, Error> {
    Broker::start(options, Some(file), Clock::Manual(clock.clone()))
}

/// Creates a broker with a store that uses this clock: [`Broker::with_store`] for tests.
///
/// # Errors
///
/// Those of [`Broker::with_store`].
pub fn broker_with_store(
    options: BrokerOptions,
    store: impl Store + 'static,
    clock: &ManualClock,
) -> Result<Broker, Error> {
    Broker::restore(options, Clock::Manual(clock.clone()), Box::new(store))
}

/// Starts a server that uses this clock: [`Server::start`] for tests.
///
/// # Errors
///
/// Those of [`Server::start`].
pub fn start(info: ServerInfo, clock: &ManualClock) -> Result<Server, Error> {
    Server::start_with_clock(info, Clock::Manual(clock.clone()))
}

/// Starts a server that keeps its events in this store and uses this clock: [`start`] with
/// [`ServerInfo::store`].
///
/// # Errors
///
/// Those of [`Server::start`].
pub fn start_with_store(
    info: ServerInfo,
    store: impl Store + 'static,
    clock: &ManualClock,
) -> Result<Server, Error> {
    start(info.store(store), clock)
}

/// Waits until exactly `count` subscribers are parked, in process and over HTTP together. For a server, give
/// [`Server::broker`]. Returns `false` if that is not so within `limit`.
///
/// A publish that follows reaches all of them.
#[must_use = "`false` says that they did not park within the limit"]
pub fn wait_until_parked(broker: &Broker, count: usize, limit: Duration) -> bool {
    broker.wait_until_parked(count, limit)
}
