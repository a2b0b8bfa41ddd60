//! The HTTP backend on tiny_http: it alone reads and writes connections, and keeps the faults of tiny_http from the server.
//!
//! - `listener` listens and opens an `acceptor` for each accept loop of tiny_http's; `probe` connects to the own address.
//! - `workers` are the threads; `exchange` is the way of one request, with `head`, `body`, `chunks` and `response`.
//! - `maintenance` is one thread that checks all of these; `peers` lists the open connections; `connections` records which
//!   can't be used; `drain` reads the rest of refused bodies.

mod acceptor;
mod body;
mod chunks;
mod connections;
mod drain;
mod exchange;
mod head;
mod listener;
mod maintenance;
mod peers;
mod probe;
mod response;
mod rounds;
mod seen;
mod sockets;
#[cfg(test)]
mod tests;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use self::acceptor::Acceptor;
use self::connections::{BadConnections, ParkedPeers};
use self::drain::UnreadBodies;
use self::listener::Listener;
use self::maintenance::Maintenance;
use self::workers::{ReceiveToken, Work, WorkerPool};
use super::info::ServerInfo;
use super::service::Service;
use crate::error::{Error, ErrorKind};

/// A listening socket without threads that serve it yet: clients that connect wait.
pub(super) struct Listening {
    listener: Listener,
    acceptor: Arc<Acceptor>,
}

impl Listening {
    /// # Errors
    ///
    /// Those of [`Listener::open`].
    pub(super) fn open(info: &ServerInfo) -> Result<Self, Error> {
        let (listener, acceptor) = Listener::open(info)?;
        Ok(Listening { listener, acceptor })
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Frees the port again.
    pub(super) fn withdraw(self) {
        self.listener.withdraw();
    }

    /// Starts the threads that serve.
    ///
    /// # Errors
    ///
    /// `Listen` where no thread can be started.
    pub(super) fn serve(self, service: Arc<Service>) -> Result<Backend, Error> {
        let shared = Arc::new(Shared {
            service,
            listener: self.listener,
            parked: ParkedPeers::default(),
            bad_connections: BadConnections::default(),
            unread: Arc::default(),
        });
        let address = shared.listener.address();
        let open_connections = move || Some(peers::connected(address)?.len());
        shared
            .service
            .traffic
            .set_backend("tiny_http", open_connections);
        let workers = WorkerPool::new(Arc::new(shared.clone()));
        let started = workers
            .receive_at(&self.acceptor)
            .and_then(|()| Maintenance::start(shared.clone(), workers.clone()));
        if let Err(error) = started {
            shared.listener.withdraw();
            return Err(Error::new(
                ErrorKind::Listen,
                "no thread could be started to serve requests",
            )
            .with_source(error));
        }
        Ok(Backend {
            shared,
            workers,
            serves_on: AtomicBool::new(true),
        })
    }
}

/// A running backend.
pub(super) struct Backend {
    shared: Arc<Shared>,
    workers: Arc<WorkerPool>,
    /// The connections that are open at the stop can still be served.
    serves_on: AtomicBool,
}

/// What the backend's threads share.
struct Shared {
    service: Arc<Service>,
    listener: Listener,
    parked: ParkedPeers,
    bad_connections: BadConnections,
    unread: Arc<UnreadBodies>,
}

impl Backend {
    pub(super) fn local_addr(&self) -> SocketAddr {
        self.shared.listener.address()
    }

    /// Takes no more connections. Requests on open connections are still served.
    pub(super) fn stop_listening(&self) {
        let serves_on = self.shared.listener.stop_listening();
        self.serves_on.store(serves_on, Relaxed);
    }

    /// Waits until no request is in flight. Returns `false` if the deadline came first.
    pub(super) fn wait_until_done(&self, deadline: Instant) -> bool {
        self.workers.wait_until_done(deadline)
    }

    /// Waits until another program can listen on the port. Open connections are closed first where nothing else frees it.
    pub(super) fn free_port(&self, deadline: Instant) {
        if !self.serves_on.load(Relaxed) {
            self.shared.listener.close();
            self.workers.close();
        }
        self.shared.listener.wait_until_free(deadline);
    }
}

impl Work for Arc<Shared> {
    fn handle(&self, request: tiny_http::Request, token: &mut ReceiveToken) {
        self.listener
            .record_request(request.remote_addr().copied(), token.acceptor());
        exchange::serve(self, request, token);
    }

    fn accept_failed(&self, acceptor: &Arc<Acceptor>, error: io::Error) {
        self.listener.accept_failed(acceptor, &error);
    }
}
