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
    /// let broker = Broker::open(BrokerOptions::default(), FilePersistorInfo::new(&file_name))?;
    /// broker.publish("jobs", "first")?;
    /// broker.stop(Duration::from_secs(10))?;
    ///
    /// let broker = Broker::open(BrokerOptions::default(), FilePersistorInfo::new(&file_name))?;
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

    /// Creates a broker with or without a file.
    pub(crate) fn start(
        options: BrokerOptions,
        file: Option<FilePersistorInfo>,
        clock: Clock,
    ) -> Result<Self, Error> {
        let store: Box<dyn Store> = match file {
            None => Box::new(NoStore),
            Some(info) => file::store(info)?,
        };
        Broker::restore(options, clock, store)
    }
}
