//! The HTTP backend on tiny_http: it alone reads and writes connections, and keeps the faults of tiny_http from clients
//! that mean no harm. It is for trusted networks, or behind a proxy.
//!
//! - `listener` has the listening socket and the accept loops, of which `maintenance` opens others where one has ended.
//! - `workers` are the threads; `exchange` is the way of one request; `connections` knows which are in use.
//! - `peers` lists the connected clients, so that `maintenance` finds those that have hung up.

mod connections;
mod exchange;
mod listener;
mod maintenance;
mod peers;
#[cfg(test)]
mod tests;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use self::connections::Connections;
use self::listener::Listener;
use self::maintenance::Maintenance;
use self::workers::WorkerPool;
use super::info::ServerInfo;
use super::service::Service;
use crate::error::{Error, ErrorKind};

/// A listening socket without threads that serve it yet: clients that connect wait.
pub(super) struct Listening(Listener);

impl Listening {
    /// # Errors
    ///
    /// Those of [`Listener::open`].
    pub(super) fn open(info: &ServerInfo) -> Result<Self, Error> {
        Listener::open(info).map(Listening)
    }

    /// Frees the port again.
    pub(super) fn withdraw(self) {
        self.0.withdraw();
    }

    /// Starts the threads that serve.
    ///
    /// # Errors
    ///
    /// `Listen` where no thread can be started.
    pub(super) fn serve(self, service: Arc<Service>) -> Result<Backend, Error> {
        let shared = Arc::new(Shared {
            service,
            listener: self.0,
            connections: Connections::default(),
            workers: WorkerPool::new(),
            in_flight: AtomicUsize::new(0),
        });
        let acceptors = shared.listener.acceptors();
        let mut started = acceptors
            .iter()
            .map(|first| workers::receive_at(&shared, first));
        let started = started.try_for_each(|receives| receives);
        if let Err(error) = started.and_then(|()| Maintenance::start(&shared)) {
            shared.listener.withdraw();
            let message = "no thread could be started to serve requests";
            return Err(Error::new(ErrorKind::Listen, message).with_source(error));
        }
        Ok(Backend(shared))
    }
}

/// A running backend.
pub(super) struct Backend(Arc<Shared>);

/// What the backend's threads share.
struct Shared {
    service: Arc<Service>,
    listener: Listener,
    connections: Connections,
    workers: Arc<WorkerPool>,
    /// Requests that have been received whole and not answered. Sequentially consistent, as is the server's flag that it
    /// stops: a request that is counted after a stop has read 0 here finds the flag set.
    in_flight: AtomicUsize,
}

impl Backend {
    pub(super) fn local_addr(&self) -> SocketAddr {
        self.0.listener.address
    }

    /// Takes no more connections. Requests on open connections are still served, except where only closing the acceptors
    /// frees the port.
    pub(super) fn stop_listening(&self) {
        self.0.listener.stop_listening();
    }

    /// Waits until no request is in flight. Returns `false` if the deadline came first.
    pub(super) fn wait_until_done(&self, deadline: Instant) -> bool {
        wait_until(deadline, || self.0.in_flight.load(SeqCst) == 0)
    }

    /// Waits until another program can listen on the port.
    pub(super) fn free_port(&self, deadline: Instant) {
        self.0.listener.free_port(deadline);
    }
}

/// Returns `false` if the deadline came first.
fn wait_until(deadline: Instant, is_done: impl Fn() -> bool) -> bool {
    while !is_done() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    true
}
