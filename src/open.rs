//! Starting a [`Broker`] with a file.

use crate::broker::{Broker, BrokerOptions, Clock};
use crate::error::Error;
use crate::store::file::{self, FilePersistorInfo};
use crate::store::{NoStore, Store};

impl Broker {
    /// Creates a broker that keeps its events in a file. It restores the events of the file, as far as the options allow, and
    /// writes new ones to it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use long_polling::{Broker, BrokerOptions, Cursor, FilePersistorInfo};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let file_name = folder.path().join("events.db");
    /// let broker =
    ///     Broker::open(BrokerOptions::default(), FilePersistorInfo::new(&file_name))?;
    /// broker.publish("jobs", "first")?;
    /// broker.stop(Duration::from_secs(10))?;
    ///
    /// let broker =
    ///     Broker::open(BrokerOptions::default(), FilePersistorInfo::new(&file_name))?;
    /// let batch = broker.subscribe("jobs", Cursor::Oldest, Duration::ZERO)?;
    /// assert_eq!(batch.events()[0].text(), "first");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) if an option can't be used, and [`File`](crate::ErrorKind::File) if
    /// the file can't be opened or read, if another process has it, or if it is not a log.
    pub fn open(options: BrokerOptions, info: FilePersistorInfo) -> Result<Self, Error> {
        Broker::start(options, Some(info), Clock::System)
    }

    /// Creates a broker whose events lie in Redis, in common with the brokers of other processes. It has the events of the
    /// stream when this returns, as far as the options allow, and shows new ones in the stream's order.
    ///
    /// ```no_run
    /// use long_polling::{Broker, BrokerOptions, RedisBackplane};
    ///
    /// let redis = RedisBackplane::new("redis://127.0.0.1:6379");
    /// let broker = Broker::connect(BrokerOptions::default(), redis)?;
    /// broker.publish("jobs", "first")?;
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) if an option can't be used, with
    /// [`delete_after_first_retrieval`](BrokerOptions::delete_after_first_retrieval), or if Redis refuses the login or the
    /// keys; [`Unreachable`](crate::ErrorKind::Unreachable) if Redis can't be reached.
    #[cfg(feature = "redis")]
    pub fn connect(options: BrokerOptions, redis: crate::RedisBackplane) -> Result<Self, Error> {
        Broker::with_backplane(options, Clock::System, redis.into_backplane()?)
    }

    /// Creates a broker with or without a file.
    pub(crate) fn start(
        options: BrokerOptions,
        file: Option<FilePersistorInfo>,
        clock: Clock,
    ) -> Result<Self, Error> {
        let store: Box<dyn Store> = match file {
            None => Box::new(NoStore),
            Some(info) => file::store(info, options.max_event_size)?,
        };
        Broker::restore(options, clock, store)
    }
}
