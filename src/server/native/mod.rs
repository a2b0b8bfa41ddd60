//! The native HTTP backend: one thread for each connection, on which its polls wait.
//!
//! - `acceptor` accepts, and starts the threads; `connections` has them all; `capacity` is how many there may be.
//! - `exchange` is the way of one request, with `connection`, `reader`, `head` and `body`.
//! - `maintenance` is one thread that notices clients that hang up.
//!
//! While no request comes and no poll is parked, every thread is blocked in a system call without a time limit, or in the
//! read of an idle connection.

mod acceptor;
mod body;
mod capacity;
mod connection;
mod connections;
mod exchange;
#[cfg(any(test, fuzzing))]
#[cfg_attr(not(fuzzing), allow(unreachable_pub))]
pub mod fuzz;
mod head;
mod maintenance;
mod reader;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::acceptor::Acceptor;
use self::connections::Connections;
use self::maintenance::Maintenance;
use super::info::ServerInfo;
use super::server_socket::ServerSocket;
use super::service::Service;
use crate::error::{Error, ErrorKind};

/// A listening socket without threads that serve it yet: clients that connect wait.
pub(super) struct Listening(ServerSocket);

/// What the backend's threads share.
struct Shared {
    service: Arc<Service>,
    connections: Arc<Connections>,
    maintenance: Maintenance,
}

/// A running backend.
pub(super) struct Backend {
    shared: Arc<Shared>,
    address: SocketAddr,
    unix_path: Option<PathBuf>,
    running: Mutex<Running>,
}

/// What a stop takes away.
struct Running {
    socket: Option<Arc<ServerSocket>>,
    acceptor: Option<JoinHandle<()>>,
    maintenance: Option<JoinHandle<()>>,
}

impl Listening {
    /// # Errors
    ///
    /// Those of [`ServerSocket::open`].
    pub(super) fn open(info: &ServerInfo) -> Result<Self, Error> {
        ServerSocket::open(info).map(Listening)
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    /// Starts the threads that serve.
    ///
    /// # Errors
    ///
    /// `Listen` where no thread can be started.
    pub(super) fn serve(self, service: Arc<Service>) -> Result<Backend, Error> {
        let info = &service.info;
        let allowed = capacity::of_system(info.thread_stack_size);
        let max = info.max_connections.unwrap_or(capacity::MOST);
        if info.max_connections.is_some() && max > allowed {
            log::warn!(
                "max_connections is {max}, and the system allows {allowed}: that is the limit"
            );
        }
        let shared = Arc::new(Shared {
            connections: Arc::new(Connections::new(max.min(allowed), info.thread_stack_size)),
            maintenance: Maintenance::default(),
            service,
        });
        let connections = shared.connections.clone();
        let open_connections = move || Some(connections.open());
        shared
            .service
            .traffic
            .set_backend("native", open_connections);
        let socket = Arc::new(self.0);
        let (maintained, listening) = (shared.clone(), socket.clone());
        let acceptor = Acceptor::new(shared.clone());
        let maintain = move || {
            let Shared {
                connections,
                service,
                ..
            } = &*maintained;
            maintained.maintenance.run(connections, &service.broker);
        };
        let maintenance = start("long-polling-maintenance", maintain)?;
        let acceptor = start("long-polling-accept", move || {
            acceptor.run(|| listening.accept())
        });
        let acceptor = acceptor.inspect_err(|_| shared.maintenance.stop())?;
        Ok(Backend {
            shared,
            address: socket.local_addr(),
            unix_path: socket.unix_path(),
            running: Mutex::new(Running {
                socket: Some(socket),
                acceptor: Some(acceptor),
                maintenance: Some(maintenance),
            }),
        })
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let thread = Builder::new().name(name.into()).spawn(work);
    thread.map_err(|error| {
        let message = "no thread could be started to serve requests";
        Error::new(ErrorKind::Listen, message).with_source(error)
    })
}

impl Backend {
    pub(super) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn unix_path(&self) -> Option<&Path> {
        self.unix_path.as_deref()
    }

    /// Takes no more connections, frees the port, and closes connections without a whole request. Requests in flight are
    /// still served.
    pub(super) fn stop_listening(&self) {
        self.shared.connections.close();
        let mut running = self.running.lock();
        if let Some(socket) = running.socket.take() {
            socket.end_accept(|limit| running.join_acceptor(Instant::now() + limit));
        }
    }

    /// Waits until all connections and all threads have ended. Returns `false` if the deadline came first.
    pub(super) fn wait_until_done(&self, deadline: Instant) -> bool {
        let mut running = self.running.lock();
        let accepted = running.join_acceptor(deadline);
        let served = self.shared.connections.join(deadline);
        self.shared.maintenance.stop();
        if let Some(maintenance) = running.maintenance.take() {
            let _ = maintenance.join();
        }
        accepted && served
    }
}

impl Running {
    /// Returns `false` if the accept loop has not ended by the deadline.
    fn join_acceptor(&mut self, deadline: Instant) -> bool {
        let Some(acceptor) = &self.acceptor else {
            return true;
        };
        while !acceptor.is_finished() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        self.acceptor.take().map(JoinHandle::join);
        true
    }
}
