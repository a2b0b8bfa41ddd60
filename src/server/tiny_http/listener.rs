//! [`Listener`]: the listening socket, and [`Acceptor`]: an accept loop of tiny_http's on it.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::panic::catch_unwind;
#[cfg(test)]
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{SockRef, Socket, TcpKeepalive};

use super::wait_until;
use crate::error::{Error, ErrorKind};
use crate::server::info::ServerInfo;
use crate::server::listen;

pub(in crate::server) struct Listener {
    /// `None` once the server stops.
    socket: Mutex<Option<TcpListener>>,
    pub(super) address: SocketAddr,
    pub(super) idle_timeout: Duration,
    /// The path of heartbeats, which no client can guess.
    pub(super) heartbeat_path: String,
    newest: Mutex<Arc<Acceptor>>,
    /// The thread to wake when something has happened.
    pub(super) maintenance: OnceLock<Thread>,
    /// The server can't connect to itself, as with a firewall.
    #[cfg(test)]
    pub(super) is_unreachable: AtomicBool,
}

impl Listener {
    /// Listens, and opens the first acceptor. Clients that connect wait until a backend starts.
    ///
    /// # Errors
    ///
    /// `InvalidSetting` for an address that is none, `Listen` where it can't be listened on.
    pub(in crate::server) fn open(info: &ServerInfo) -> Result<Self, Error> {
        let Some(given) = &info.listener else {
            let open = |address| Listener::on(listen::bind(address)?, info);
            return listen::first(&info.address, open);
        };
        Listener::on(given.take()?, info).map_err(|error| {
            let message = "listener: can't listen on it: give a listening socket of TCP";
            Error::new(ErrorKind::Listen, message).with_source(error)
        })
    }

    /// Sets what tiny_http does not set. Accepted connections inherit it (on Linux).
    fn on(socket: Socket, info: &ServerInfo) -> io::Result<Self> {
        let idle_timeout = info.effective_idle_timeout();
        socket.set_nonblocking(false)?;
        // An answer leaves when it is written, not when the last one has been acknowledged.
        socket.set_tcp_nodelay(true)?;
        // A peer whose machine or network is gone is found out, even while its poll is parked.
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
        // A peer that does not read blocks the thread that writes for this long at most.
        socket.set_write_timeout(Some(info.write_timeout))?;
        // tiny_http ends the connection of a peer that says nothing for this long, and its accept loop where no connection
        // comes for this long.
        socket.set_read_timeout(Some(idle_timeout))?;
        socket.listen(listen::BACKLOG)?;
        let socket = TcpListener::from(socket);
        let random = || RandomState::new().hash_one(0);
        Ok(Listener {
            address: socket.local_addr()?,
            newest: Mutex::new(Acceptor::open(&socket)?),
            socket: Mutex::new(Some(socket)),
            idle_timeout,
            heartbeat_path: format!("/{:016x}{:016x}", random(), random()),
            maintenance: OnceLock::new(),
            #[cfg(test)]
            is_unreachable: AtomicBool::new(false),
        })
    }

    pub(in crate::server) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn newest(&self) -> Arc<Acceptor> {
        self.newest.lock().clone()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.socket.lock().is_none()
    }

    /// Has the maintenance thread make its checks at once.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.maintenance.get() {
            thread.unpark();
        }
    }

    /// Opens another acceptor, unless the server stops. Workers have the old one for as long as requests come out of it.
    pub(super) fn reopen(&self) -> io::Result<Arc<Acceptor>> {
        let socket = self.socket.lock();
        let acceptor = Acceptor::open(socket.as_ref().ok_or(io::ErrorKind::NotConnected)?)?;
        *self.newest.lock() = acceptor.clone();
        Ok(acceptor)
    }

    /// Takes no more connections. On Linux this frees the port, also for tiny_http's thread that is accepting, and for
    /// duplicates of a socket that the program has made.
    pub(in crate::server) fn stop(&self) {
        if let Some(socket) = self.socket.lock().take() {
            let _ = SockRef::from(&socket).shutdown(Shutdown::Both);
        }
        self.wake();
    }

    /// Undoes [`open`](Listener::open), where the server can't start for another reason.
    pub(in crate::server) fn withdraw(self) {
        self.stop();
        let address = self.address;
        drop(self);
        wait_until_free(address, Instant::now());
    }
}

/// Waits until another socket could listen on the address. Duplicates of a socket that the program has made may keep it for
/// good.
pub(super) fn wait_until_free(address: SocketAddr, deadline: Instant) {
    let soon = Instant::now() + Duration::from_secs(1);
    let listen_once = || listen::bind(address)?.listen(1);
    let is_in_use = |error: io::Error| error.kind() == io::ErrorKind::AddrInUse;
    wait_until(deadline.max(soon), || !listen_once().is_err_and(is_in_use));
}

/// An accept loop of tiny_http's. It ends at its first error, and silently where a thread or a descriptor is missing. The
/// requests of connections that it has accepted come out of it also after that.
pub(super) struct Acceptor {
    pub(super) server: tiny_http::Server,
    /// Held while a thread takes a request and looks whether an earlier request of its connection is still being served.
    /// Otherwise two threads that took two requests of one connection could queue them in the wrong order, and the one
    /// that serves them would wait for itself. The time is that of the last request, heartbeats included.
    pub(super) last_request: Mutex<Instant>,
    pub(super) opened: Instant,
    /// What has ended the loop, if it has reported it.
    pub(super) error: OnceLock<io::Error>,
    /// Its requests are not received any more, so that the loop ends.
    #[cfg(test)]
    pub(super) is_lost: AtomicBool,
}

impl Acceptor {
    fn open(socket: &TcpListener) -> io::Result<Arc<Self>> {
        // With few more descriptors than its own, the loop would end at once.
        let descriptors = (0..8).map(|_| socket.try_clone());
        drop(descriptors.collect::<io::Result<Vec<_>>>()?);
        let socket = socket.try_clone()?;
        let server = catch_unwind(|| tiny_http::Server::from_listener(socket, None))
            .map_err(|_| io::Error::other("no thread could be started to accept connections"))?
            .map_err(io::Error::other)?;
        Ok(Arc::new(Acceptor {
            server,
            last_request: Mutex::new(Instant::now()),
            opened: Instant::now(),
            error: OnceLock::new(),
            #[cfg(test)]
            is_lost: AtomicBool::new(false),
        }))
    }
}

/// Faults for tests.
#[cfg(test)]
impl Listener {
    /// Has `accept` fail, or not any more.
    pub(super) fn fail_accept(&self, fail: bool) {
        let socket = self.socket.lock();
        socket.as_ref().unwrap().set_nonblocking(fail).unwrap();
    }

    /// Fails where the server can't connect to itself.
    pub(super) fn check_reachable(&self) -> io::Result<()> {
        let is_unreachable = self.is_unreachable.load(SeqCst);
        let error = is_unreachable.then(|| io::Error::other("a test"));
        error.map_or(Ok(()), Err)
    }
}
