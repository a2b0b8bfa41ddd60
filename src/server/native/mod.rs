//! The native HTTP backend: one thread for each connection, on which its polls wait.
//!
//! - `acceptor` accepts connections; `connections` starts their threads, at most as many as `capacity` finds room for.
//! - `exchange` serves the requests of a `connection`, which `reader` takes from a `stream` with time limits.
//!
//! While no request comes and no poll is parked, every thread is blocked in a system call without a time limit, or in the
//! read of an idle connection.

mod acceptor;
mod capacity;
mod connection;
mod connections;
mod exchange;
#[cfg(any(test, fuzzing))]
#[cfg_attr(not(fuzzing), allow(unreachable_pub))]
pub mod fuzz;
mod reader;
mod stream;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::acceptor::Acceptor;
use self::connections::Connections;
use super::server_socket::ServerSocket;
use super::service::Service;
use crate::error::{Error, ErrorKind};

/// A running backend.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    pub(super) unix_path: Option<PathBuf>,
    connections: Arc<Connections>,
    /// `None` after the stop, which closes it.
    socket: Mutex<Option<Arc<ServerSocket>>>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
    maintenance: Mutex<Option<JoinHandle<()>>>,
}

impl Backend {
    /// Starts the threads that serve the connections of a socket.
    ///
    /// # Errors
    ///
    /// `Listen` where no thread can be started.
    pub(super) fn start(socket: ServerSocket, service: Arc<Service>) -> Result<Self, Error> {
        let connections = Arc::new(Connections::new(service));
        // After a stop, nothing else holds the connections.
        let counted = Arc::downgrade(&connections);
        let open_connections = move || Some(counted.upgrade()?.count());
        connections
            .service
            .traffic
            .set_backend("native", open_connections);
        let socket = Arc::new(socket);
        let maintained = connections.clone();
        let maintenance = start("long-polling-maintenance", move || maintained.maintain())?;
        let acceptor = Acceptor::new(connections.clone());
        let listening = socket.clone();
        let acceptor = start("long-polling-accept", move || {
            acceptor.run(|| listening.accept())
        });
        Ok(Backend {
            address: socket.local_addr(),
            unix_path: socket.unix_path(),
            acceptor: Mutex::new(Some(
                acceptor.inspect_err(|_| connections.end_maintenance())?,
            )),
            maintenance: Mutex::new(Some(maintenance)),
            socket: Mutex::new(Some(socket)),
            connections,
        })
    }

    /// Takes no more connections, frees the port, and closes connections without a whole request. Requests in flight are
    /// still served.
    pub(super) fn stop_listening(&self) {
        self.connections.close();
        if let Some(socket) = self.socket.lock().take() {
            socket.end_accept(|limit| self.has_ended_accepting(Instant::now() + limit));
        }
    }

    /// Waits until all connections and all threads have ended. Returns `false` if the deadline came first.
    pub(super) fn wait_until_done(&self, deadline: Instant) -> bool {
        let done = self.has_ended_accepting(deadline) & self.connections.join(deadline);
        self.connections.end_maintenance();
        if let Some(maintenance) = self.maintenance.lock().take() {
            let _ = maintenance.join();
        }
        done
    }

    fn has_ended_accepting(&self, deadline: Instant) -> bool {
        let mut acceptor = self.acceptor.lock();
        while acceptor
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
        {
            if Instant::now() >= deadline {
                return false;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        acceptor.take().map(JoinHandle::join);
        true
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let thread = Builder::new().name(name.into()).spawn(work);
    thread.map_err(|error| {
        let message = "no thread could be started to serve requests";
        Error::new(ErrorKind::Listen, message).with_source(error)
    })
}
