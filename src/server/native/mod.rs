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

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::Socket;

use self::acceptor::Acceptor;
use self::connections::Connections;
use self::maintenance::Maintenance;
use super::info::ServerInfo;
use super::listen;
use super::service::Service;
use crate::error::{Error, ErrorKind};

/// How long the accept loop has to notice that the listening socket was shut down.
const NOTICE: Duration = Duration::from_millis(100);

/// A listening socket without threads that serve it yet: clients that connect wait.
pub(super) struct Listening {
    socket: Socket,
    address: SocketAddr,
}

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
    running: Mutex<Running>,
}

/// What a stop takes away.
struct Running {
    socket: Option<Arc<Socket>>,
    acceptor: Option<JoinHandle<()>>,
    maintenance: Option<JoinHandle<()>>,
}

impl Listening {
    /// # Errors
    ///
    /// Those of [`listen::first`].
    pub(super) fn open(info: &ServerInfo) -> Result<Self, Error> {
        listen::first(&info.address, |address| {
            let socket = listen::bind(address)?;
            socket.listen(listen::BACKLOG)?;
            let address = socket.local_addr()?.as_socket().unwrap_or(address);
            Ok(Listening { socket, address })
        })
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
        let socket = Arc::new(self.socket);
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
            address: self.address,
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

    /// Takes no more connections, frees the port, and closes connections without a whole request. Requests in flight are
    /// still served.
    pub(super) fn stop_listening(&self) {
        self.shared.connections.close();
        let mut running = self.running.lock();
        let Some(socket) = running.socket.take() else {
            return;
        };
        // On Linux, this ends `accept`.
        let _ = socket.shutdown(Shutdown::Both);
        drop(socket);
        if !running.join_acceptor(Instant::now() + NOTICE) {
            if let Err(error) = self.connect() {
                log::debug!("connecting to end the accept loop failed: {error}");
            }
            running.join_acceptor(Instant::now() + NOTICE);
        }
    }

    /// Connects to the own address, which ends `accept` on any system.
    fn connect(&self) -> io::Result<()> {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => [127, 0, 0, 1].into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        TcpStream::connect_timeout(&address, NOTICE).map(drop)
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
