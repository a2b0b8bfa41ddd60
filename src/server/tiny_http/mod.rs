//! The HTTP backend on tiny_http: it alone reads and writes connections, and keeps the faults of tiny_http from clients
//! that mean no harm. It is for trusted networks, or behind a proxy.
//!
//! `workers` receive requests from the accept loops of the `listener`, and `exchange` is the way of one request.
//! `connections` knows what is in use, `peers` who is connected, and `maintenance` checks all of these.

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
use std::sync::atomic::{AtomicBool, Ordering::SeqCst, fence};
use std::thread;
use std::time::{Duration, Instant};

pub(super) use self::listener::Listener as Listening;
use super::service::Service;
use crate::error::{Error, ErrorKind};

/// A running backend: what its threads share.
pub(super) struct Backend {
    service: Arc<Service>,
    listener: Listening,
    connections: connections::Connections,
    workers: Arc<workers::WorkerPool>,
    /// Serves a request, as [`exchange::serve`] says.
    serve: fn(tiny_http::Request, &mut workers::ReceiveToken<'_>) -> bool,
    /// No request is received any more.
    is_closed: AtomicBool,
    /// One reference more than there are requests that have been received whole and not answered.
    in_flight: Arc<()>,
}

impl Backend {
    /// Starts the threads that serve.
    ///
    /// # Errors
    ///
    /// `Listen` where no thread can be started.
    pub(super) fn start(listener: Listening, service: Arc<Service>) -> Result<Arc<Self>, Error> {
        let backend = Arc::new(Backend {
            service,
            listener,
            connections: Default::default(),
            workers: Default::default(),
            serve: exchange::serve,
            is_closed: AtomicBool::new(false),
            in_flight: Arc::default(),
        });
        let port = backend.listener.address.port();
        let open_connections = move || Some(peers::connected(port)?.len());
        let traffic = &backend.service.traffic;
        traffic.set_backend("tiny_http", open_connections);
        let receives = workers::receive_at(&backend, &backend.listener.newest());
        receives
            .and_then(|()| maintenance::start(&backend))
            .map_err(|error| {
                backend.listener.stop();
                backend.is_closed.store(true, SeqCst);
                let message = "no thread could be started to serve requests";
                Error::new(ErrorKind::Listen, message).with_source(error)
            })?;
        Ok(backend)
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.listener.address
    }

    /// Takes no more connections. Requests on open connections are still served.
    pub(super) fn stop_listening(&self) {
        self.listener.stop();
    }

    /// Waits until no request is in flight. Returns `false` if the deadline came first.
    pub(super) fn wait_until_done(&self, deadline: Instant) -> bool {
        // A request that is not seen here sees that the server stops: see `read_body`.
        fence(SeqCst);
        wait_until(deadline, || Arc::strong_count(&self.in_flight) == 1)
    }

    /// Waits until another program can listen on the port.
    pub(super) fn free_port(&self, deadline: Instant) {
        // On Linux, it is free since `stop_listening`.
        self.is_closed.fetch_or(!cfg!(target_os = "linux"), SeqCst);
        listener::wait_until_free(self.listener.address, deadline);
    }
}

/// Returns `false` if the deadline came first.
fn wait_until(deadline: Instant, is_done: impl Fn() -> bool) -> bool {
    while !is_done() && Instant::now() < deadline {
        thread::park_timeout(Duration::from_millis(1));
    }
    is_done()
}
