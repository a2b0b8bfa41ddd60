//! The HTTP server around a [`Broker`]: [`Server`], [`ServerInfo`], and the hooks of an embedding program.
//!
//! The way of a request, top to bottom:
//!
//! 1. A backend reads it and makes it a [`Request`] (`request`, `forwarded`), whose head it checks (`head`).
//! 2. `endpoints` make an `Answer` of it (`answer`, `ready`): a poll (`poll_request`), a publish (`publish_body`) or the [`Fallback`],
//!    after the `hooks`.
//!    Before that, `hosts` and `origin` refuse requests of foreign pages.
//!    `browser` serves the JavaScript client.
//!    `metrics` and `health` answer at paths of their own (`monitoring`), from what the broker and `traffic` count.
//! 3. The backend waits where the answer is a parked poll, has it rendered (`render`, `cors`) and writes it. Where the answer is
//!    an `event_stream`, that waits and renders (`event_blocks`) again and again, and the backend writes.
//!
//! `mounted` does this for programs that have an HTTP server of their own.
//!
//! All threads share one `Service`. `backend` knows the backends, `tiny_http` and `native`; none of the other modules does.
//! Both listen by way of `listen` and `address`, the native one by `server_socket` and `unix_socket`, too.

mod accept;
mod accept_failure;
mod address;
mod answer;
mod backend;
mod browser;
mod cors;
mod endpoints;
mod event_blocks;
mod event_stream;
mod forwarded;
mod head;
mod health;
mod hooks;
mod hosts;
mod http_backend;
mod info;
mod info_file;
mod listen;
mod listening_socket;
mod metrics;
mod monitoring;
mod mounted;
#[cfg(feature = "native-http")]
mod native;
mod network;
mod origin;
mod pages;
mod poll_group;
mod poll_request;
mod poll_settings;
mod publish_body;
mod ready;
mod render;
mod request;
mod response;
#[cfg(feature = "native-http")]
mod server_socket;
mod service;
mod shared_broker;
#[cfg(feature = "server")]
mod tiny_http;
mod traffic;
#[cfg(all(unix, feature = "native-http"))]
mod unix_socket;
mod validate;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

use self::backend::{Backend, Listening};
use self::service::Service;
use crate::broker::{Batch, Broker, Clock, Statistics};
use crate::error::Error;
use crate::position::{Cursor, EventId};
use crate::wire::{Categories, PublishRequest};

#[cfg(all(fuzzing, feature = "native-http"))]
pub use native::fuzz;

pub use cors::Cors;
pub use hooks::{Fallback, Handler};
pub use http_backend::HttpBackend;
pub use info::ServerInfo;
pub use listening_socket::ListeningSocket;
pub use mounted::Endpoints;
pub use network::Network;
pub use poll_settings::{PollWithoutCursor, TimeoutAnswer};
pub use request::Request;
pub use response::Response;

/// A long-polling server.
///
/// ```
/// use std::time::Duration;
/// use long_polling::{Cursor, Server, ServerInfo};
///
/// let server = Server::start(ServerInfo::new("127.0.0.1:0"))?;
/// println!("listening on http://{}", server.local_addr());
///
/// server.publish(
///     "notifications",
///     "from within the program, as well as over HTTP",
/// )?;
/// let batch =
///     server.subscribe("notifications", Cursor::Oldest, Duration::from_secs(1))?;
/// assert_eq!(batch.events().len(), 1);
///
/// server.stop(Duration::from_secs(10))?;
/// # Ok::<(), long_polling::Error>(())
/// ```
///
/// Dropping a server stops it, and waits for requests in flight for half a second at most. Call [`stop`](Server::stop) to
/// wait longer, and to get the error where something failed.
///
/// # With `HttpBackend::TinyHttp`
///
/// The server connects to its own address for each new connection, several times a second while connections are opened, and
/// every three seconds otherwise: tiny_http may leave connections that arrive in a burst waiting for one another. Serving does
/// not depend on this: where a firewall or another policy forbids it, the server goes on, and logs
/// the reason at the level `debug`.
///
/// A program that embeds such a server must not set `panic = "abort"` in its profile: tiny_http panics in the thread of a
/// connection where a client causes it, for example by a connection that is reset at once, and that would end the process.
///
/// # With `HttpBackend::Native`
///
/// The server makes no connections to itself, and no client makes it panic. With `panic = "abort"`, a panic in a hook or a
/// store of the program's own ends the process; otherwise the request is answered with 500, and the server goes on.
#[must_use = "a server that is dropped stops"]
pub struct Server {
    service: Arc<Service>,
    backend: Backend,
    /// Held during a stop; true once one has run.
    stopped: Mutex<bool>,
}

impl Server {
    /// Starts a server. It listens when this returns, and has read the events of its [`file`](ServerInfo::file) or
    /// [`store`](ServerInfo::store).
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting), [`Listen`](crate::ErrorKind::Listen) or
    /// [`File`](crate::ErrorKind::File), each naming the setting and the reason, and those of [`Store::start`](crate::store::Store::start).
    pub fn start(info: ServerInfo) -> Result<Self, Error> {
        Server::start_with_clock(info, Clock::System)
    }

    pub(crate) fn start_with_clock(info: ServerInfo, clock: Clock) -> Result<Self, Error> {
        info.check()?;
        // Clients that connect while the broker reads its events wait for that.
        let listening = Listening::open(&info)?;
        let broker = match info.open_broker(clock) {
            Ok(broker) => broker,
            Err(error) => {
                listening.withdraw();
                return Err(error);
            }
        };
        let mut service = Service::new(info, broker);
        service.hosts.listen_on(listening.local_addr());
        let service = Arc::new(service);
        let backend = listening.serve(service.clone())?;
        let server = Server {
            service,
            backend,
            stopped: Mutex::new(false),
        };
        log::info!("the server listens on {}", server.shown_address());
        Ok(server)
    }

    /// The address that the server listens on, with the port that the system has chosen where the setting was port 0. For a
    /// Unix socket, it is `0.0.0.0:0`.
    pub fn local_addr(&self) -> SocketAddr {
        self.backend.local_addr()
    }

    /// The absolute path of the Unix socket that the server listens on; for a [`listener`](ServerInfo::listener), the path
    /// that it was bound to. `None` for TCP, and for a listener without a path.
    pub fn unix_path(&self) -> Option<&Path> {
        self.backend.unix_path()
    }

    fn shown_address(&self) -> String {
        match (self.unix_path(), self.local_addr()) {
            (Some(path), _) => format!("unix:{}", path.display()),
            // A TCP socket that listens has a port.
            (None, address) if address.port() == 0 => "a Unix socket without a path".into(),
            (None, address) => format!("http://{address}"),
        }
    }

    /// The broker that the endpoints use, for other threads of the program.
    pub fn broker(&self) -> &Broker {
        &self.service.broker
    }

    /// Publishes without HTTP; see [`Broker::publish`].
    ///
    /// # Errors
    ///
    /// Those of [`Broker::publish`].
    pub fn publish<T: Serialize + ?Sized>(
        &self,
        category: &str,
        data: &T,
    ) -> Result<EventId, Error> {
        self.broker().publish(category, data)
    }

    /// Publishes without HTTP; see [`Broker::publish_with`].
    ///
    /// # Errors
    ///
    /// Those of [`Broker::publish_with`].
    pub fn publish_with<T: Serialize>(
        &self,
        request: &PublishRequest<T>,
    ) -> Result<EventId, Error> {
        self.broker().publish_with(request)
    }

    /// Publishes once without HTTP; see [`Broker::publish_once`].
    ///
    /// # Errors
    ///
    /// Those of [`Broker::publish_once`].
    pub fn publish_once<T: Serialize + ?Sized>(
        &self,
        key: &str,
        category: &str,
        data: &T,
    ) -> Result<EventId, Error> {
        self.broker().publish_once(key, category, data)
    }

    /// Publishes several events once without HTTP, all or none; see [`Broker::publish_all_once`].
    ///
    /// # Errors
    ///
    /// Those of [`Broker::publish_all_once`].
    pub fn publish_all_once<T: Serialize>(
        &self,
        key: &str,
        requests: &[PublishRequest<T>],
    ) -> Result<Vec<EventId>, Error> {
        self.broker().publish_all_once(key, requests)
    }

    /// Publishes several events without HTTP, all or none; see [`Broker::publish_all`].
    ///
    /// # Errors
    ///
    /// Those of [`Broker::publish_all`].
    pub fn publish_all<T: Serialize>(
        &self,
        requests: &[PublishRequest<T>],
    ) -> Result<Vec<EventId>, Error> {
        self.broker().publish_all(requests)
    }

    /// Deletes all events of a category without HTTP; see [`Broker::purge`].
    ///
    /// # Errors
    ///
    /// Those of [`Broker::purge`].
    pub fn purge(&self, category: &str) -> Result<EventId, Error> {
        self.broker().purge(category)
    }

    /// Waits for events without HTTP; see [`Broker::subscribe`].
    ///
    /// # Errors
    ///
    /// Those of [`Broker::subscribe`].
    pub fn subscribe(
        &self,
        categories: impl Into<Categories>,
        cursor: Cursor,
        timeout: Duration,
    ) -> Result<Arc<Batch>, Error> {
        self.broker().subscribe(categories, cursor, timeout)
    }

    /// Counts of what the server has done and of what it holds.
    pub fn statistics(&self) -> Statistics {
        self.broker().statistics()
    }

    /// Stops the server. It accepts no more connections, answers parked subscribers at once as if they had timed out, lets
    /// requests in flight finish until the timeout, and then flushes the file or the store. A request whose body has not
    /// been received whole is not in flight: the stop does not wait for the rest, and the server refuses the request if the
    /// rest arrives later.
    ///
    /// When this returns, the port can be listened on again, unless there are duplicates of the program's own
    /// [`listener`](ServerInfo::listener); the file of a Unix socket is removed. The native backend has closed all
    /// connections then and ended its threads, if no request was in flight at the timeout. tiny_http can't close
    /// connections: where a client uses a connection again that it has kept open, the answer asks it to close the
    /// connection. Other connections end after
    /// [`idle_timeout`](ServerInfo::idle_timeout), or with the process.
    ///
    /// A [shared broker](ServerInfo::shared_broker) is neither stopped nor flushed, and the polls that are parked through
    /// other servers, or in the program, go on.
    ///
    /// Stopping twice is fine: the second time waits for a file, or another store, that needed longer than the timeout.
    ///
    /// # Errors
    ///
    /// [`StopTimeout`](crate::ErrorKind::StopTimeout) where requests were still in flight at the timeout, or where the file
    /// needs longer. Everything else is done then, and those requests can't publish any more, unless the broker is shared.
    /// [`File`](crate::ErrorKind::File) where events could not be written.
    pub fn stop(&self, timeout: Duration) -> Result<(), Error> {
        let mut stopped = self.stopped.lock();
        if std::mem::replace(&mut *stopped, true) {
            // The store may have written by now what it had not at the first stop.
            return self.service.stop_broker(timeout);
        }
        let now = Instant::now();
        let deadline = now
            .checked_add(timeout)
            .unwrap_or(now + Duration::from_secs(1 << 32));
        let address = self.shown_address();
        log::info!("the server on {address} stops; requests in flight have {timeout:?} to finish");
        self.service.begin_stop();
        self.backend.stop_listening();
        self.service.release_polls();
        let done = self.backend.wait_until_done(deadline);
        // The store is flushed even where requests took the whole timeout.
        let soon = Instant::now() + Duration::from_secs(1);
        let left = deadline.max(soon).saturating_duration_since(Instant::now());
        let flushed = self.service.stop_broker(left);
        self.backend.free_port(deadline.max(soon));
        flushed?;
        if !done {
            return Err(self.service.still_in_flight(timeout));
        }
        log::info!("the server on {address} stopped after {:?}", now.elapsed());
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Duration::from_millis(500)) {
            log::warn!(
                "stopping a server that was dropped failed: {}",
                error.report()
            );
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.shown_address())
            .finish_non_exhaustive()
    }
}
