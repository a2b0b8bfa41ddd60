//! The setting [`shared_broker`](ServerInfo::shared_broker): a server with a broker of the program's own.

use super::info::{ServerInfo, StoreSetting};
use crate::broker::Broker;
use crate::error::Error;

impl ServerInfo {
    /// Serves a broker that exists already, in place of one of the server's own: several servers, such as one on TCP and one
    /// on a Unix socket, have the same events, and so do the threads of the program. It replaces an earlier
    /// [`broker`](ServerInfo::broker), [`file`](ServerInfo::file) and [`store`](ServerInfo::store), since the broker has
    /// options and a store already. Defaults to none.
    ///
    /// The stop of such a server answers the polls that are parked through it. It does not stop the broker; call
    /// [`Broker::stop`] once all servers have stopped. [`Server::statistics`](crate::Server::statistics) are those of the
    /// broker. A server with a broker that has been stopped does not start, and one whose broker is stopped later answers
    /// polls and publishes with 503.
    ///
    /// ```
    /// use std::time::Duration;
    /// use long_polling::{Broker, BrokerOptions, Cursor, Server, ServerInfo};
    ///
    /// let broker = Broker::new(BrokerOptions::new())?;
    /// let internal =
    ///     Server::start(ServerInfo::new("127.0.0.1:0").shared_broker(broker.clone()))?;
    /// let external =
    ///     Server::start(ServerInfo::new("127.0.0.1:0").shared_broker(broker.clone()))?;
    /// internal.publish("news", "for both")?;
    /// let batch = external.subscribe("news", Cursor::Oldest, Duration::ZERO)?;
    /// assert_eq!(batch.events()[0].text(), "for both");
    ///
    /// internal.stop(Duration::from_secs(10))?;
    /// external.publish("news", "goes on")?;
    /// external.stop(Duration::from_secs(10))?;
    /// broker.stop(Duration::from_secs(10))?;
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn shared_broker(mut self, broker: Broker) -> Self {
        self.broker = broker.options().clone();
        self.store = StoreSetting::Shared(broker);
        self
    }

    pub(super) fn shares_broker(&self) -> bool {
        matches!(self.store, StoreSetting::Shared(_))
    }

    /// # Errors
    ///
    /// `InvalidSetting` for a broker that has been stopped.
    pub(super) fn check_shared_broker(&self) -> Result<(), Error> {
        match &self.store {
            StoreSetting::Shared(broker) if broker.is_stopped() => {
                let problem = "the broker has been stopped; give one that has not";
                Err(Error::setting("shared_broker", problem))
            }
            _ => Ok(()),
        }
    }
}
