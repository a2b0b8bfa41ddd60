//! [`Listener`]: the listening socket, and [`Acceptor`]: an accept loop of tiny_http's on it, which can be replaced.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind::TimedOut, ErrorKind::WouldBlock};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{SockRef, Socket, TcpKeepalive};

use super::wait_until;
use crate::error::{Error, ErrorKind};
use crate::server::info::ServerInfo;
use crate::server::listen;

/// The most threads that receive requests at an acceptor.
pub(super) const RECEIVERS: usize = 8;
/// Descriptors that must be free for an acceptor: its own, and two for each of some connections.
const DESCRIPTORS: usize = 8;

pub(super) struct Listener {
    /// `None` once the server stops.
    socket: Mutex<Option<TcpListener>>,
    pub(super) address: SocketAddr,
    pub(super) idle_timeout: Duration,
    /// The path of heartbeats, which no client can guess.
    pub(super) heartbeat_path: String,
    pub(super) heartbeats_received: AtomicUsize,
    /// The newest is the last.
    acceptors: Mutex<Vec<Arc<Acceptor>>>,
    /// The thread to wake when something has happened.
    pub(super) maintenance: OnceLock<Thread>,
    /// The server can't connect to itself, as with a firewall.
    #[cfg(test)]
    pub(super) is_unreachable: AtomicBool,
}

impl Listener {
    /// Listens, and opens the first acceptor.
    ///
    /// # Errors
    ///
    /// `InvalidSetting` for an address that is none, `Listen` where it can't be listened on.
    pub(super) fn open(info: &ServerInfo) -> Result<Self, Error> {
        let Some(listener) = &info.listener else {
            let open = |address| Listener::on(listen::bind(address)?, info);
            return listen::first(&info.address, open);
        };
        let socket = listener.take()?;
        let blocking = socket.set_nonblocking(false);
        let listening = blocking.and_then(|()| Listener::on(socket, info));
        listening.map_err(|error| {
            let message = "listener: can't listen on it: give a listening socket of TCP";
            Error::new(ErrorKind::Listen, message).with_source(error)
        })
    }

    /// Sets what tiny_http does not set. Accepted connections inherit it (on Linux).
    fn on(socket: Socket, info: &ServerInfo) -> io::Result<Self> {
        let idle_timeout = info.effective_idle_timeout();
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
            acceptors: Mutex::new(vec![Acceptor::open(&socket)?]),
            socket: Mutex::new(Some(socket)),
            idle_timeout,
            heartbeat_path: format!("/{:016x}{:016x}", random(), random()),
            heartbeats_received: AtomicUsize::new(0),
            maintenance: OnceLock::new(),
            #[cfg(test)]
            is_unreachable: AtomicBool::new(false),
        })
    }

    pub(super) fn acceptors(&self) -> Vec<Arc<Acceptor>> {
        self.acceptors.lock().clone()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.socket.lock().is_none()
    }

    /// Has the maintenance thread make its checks at once.
    pub(super) fn wake(&self) {
        self.maintenance
            .get()
            .iter()
            .for_each(|thread| thread.unpark());
    }

    /// Opens another acceptor.
    ///
    /// # Errors
    ///
    /// Those of the system, and of a server that stops.
    pub(super) fn reopen(&self) -> io::Result<Arc<Acceptor>> {
        let socket = self.socket.lock();
        let stops = || io::Error::other("the server stops");
        let acceptor = Acceptor::open(socket.as_ref().ok_or_else(stops)?)?;
        self.acceptors.lock().push(acceptor.clone());
        Ok(acceptor)
    }

    /// Closes an acceptor without connections.
    pub(super) fn retire(&self, acceptor: &Arc<Acceptor>) {
        let is_other = |other: &Arc<Acceptor>| !Arc::ptr_eq(other, acceptor);
        self.acceptors.lock().retain(is_other);
        acceptor.close();
    }

    /// Takes no more connections, and frees the port.
    pub(super) fn stop_listening(&self) {
        let socket = self.socket.lock().take();
        self.wake();
        // On Linux this ends listening, also for tiny_http's thread that is accepting, and for duplicates of a socket that
        // the program has made. Elsewhere it may fail; there `free_port` closes the acceptors.
        socket.map(|socket| SockRef::from(&socket).shutdown(Shutdown::Both));
    }

    /// Undoes [`open`](Listener::open), where the server can't start for another reason.
    pub(super) fn withdraw(&self) {
        self.stop_listening();
        self.close();
        self.free_port(Instant::now());
    }

    /// Ends the waiting for requests at all acceptors.
    pub(super) fn close(&self) {
        let acceptors = std::mem::take(&mut *self.acceptors.lock());
        acceptors.iter().for_each(|acceptor| acceptor.close());
    }

    /// Waits until another socket could listen on the address. Duplicates of a socket that the program has made may keep it
    /// for good.
    pub(super) fn free_port(&self, deadline: Instant) {
        let soon = Instant::now() + Duration::from_secs(1);
        let is_in_use = |error: io::Error| error.kind() == io::ErrorKind::AddrInUse;
        let listen_once = || listen::bind(self.address)?.listen(1);
        let is_free = || !listen_once().is_err_and(is_in_use);
        if !cfg!(target_os = "linux") {
            self.close();
        }
        wait_until(deadline.max(soon), is_free);
    }
}

/// An accept loop of tiny_http's. It ends at its first error, and silently where a thread or a descriptor is missing. The
/// requests of connections that it has accepted come out of it also after that.
pub(super) struct Acceptor {
    server: tiny_http::Server,
    /// Held while a thread takes a request and looks whether an earlier request of its connection is still being served.
    /// Otherwise two threads that took two requests of one connection could queue them in the wrong order, and the one
    /// that serves them would wait for itself.
    pub(super) order: Mutex<()>,
    pub(super) opened: Instant,
    /// When the last request was received, heartbeats included.
    last_request: Mutex<Instant>,
    /// What has ended the accept loop, if it has reported it.
    error: OnceLock<io::Error>,
    is_closed: AtomicBool,
}

impl Acceptor {
    /// # Errors
    ///
    /// Those of the system, which may have too few descriptors: then the loop would end at once.
    fn open(socket: &TcpListener) -> io::Result<Arc<Self>> {
        let descriptors = (0..DESCRIPTORS).map(|_| socket.try_clone());
        let socket = descriptors.collect::<io::Result<Vec<_>>>()?.pop();
        let socket = socket.ok_or(io::ErrorKind::Other)?;
        let server = catch_unwind(|| tiny_http::Server::from_listener(socket, None))
            .map_err(|_| io::Error::other("no thread could be started to accept connections"))?
            .map_err(io::Error::other)?;
        Ok(Arc::new(Acceptor {
            server,
            order: Mutex::new(()),
            opened: Instant::now(),
            last_request: Mutex::new(Instant::now()),
            error: OnceLock::new(),
            is_closed: AtomicBool::new(false),
        }))
    }

    /// Waits for a request. `None` where the accept loop has ended, or where the acceptor is closed.
    pub(super) fn receive(&self) -> Option<tiny_http::Request> {
        let received = self.server.recv();
        *self.last_request.lock() = Instant::now();
        received.map_err(|error| self.error.set(error)).ok()
    }

    /// For how long no request has been received.
    pub(super) fn quiet_for(&self) -> Duration {
        self.last_request.lock().elapsed()
    }

    /// What has ended the accept loop; `None` where it runs, or ended without reporting an error.
    pub(super) fn error(&self) -> Option<&io::Error> {
        self.error.get()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst)
    }

    /// Ends the waits of all threads that wait for a request here.
    pub(super) fn close(&self) {
        self.is_closed.store(true, SeqCst);
        (0..RECEIVERS).for_each(|_| self.server.unblock());
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

    /// Ends the accept loop of every acceptor without an error.
    pub(super) fn end_accept_loops_silently(&self) {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let acceptor = Acceptor::open(&elsewhere).unwrap();
        let before = std::mem::replace(&mut *self.acceptors.lock(), vec![acceptor]);
        before.iter().for_each(|acceptor| acceptor.close());
    }
}
