//! [`ServerSocket`]: the listening socket of the native backend: TCP or Unix, of its own or of the program's.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

#[cfg(unix)]
use parking_lot::Mutex;
use socket2::{SockAddr, Socket, Type};

#[cfg(unix)]
use super::address;
use super::info::ServerInfo;
use super::listen;
#[cfg(unix)]
use super::unix_socket::{self, SocketFile};
use crate::error::{Error, ErrorKind};

/// How long the accept loop has to end after each attempt to end it.
const NOTICE: Duration = Duration::from_millis(100);
/// Connections that are made to end the accept loop of a shared socket: another process may accept some of them.
const CONNECTS: usize = 5;

/// The time before another attempt to accept where another program has the socket, too.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) struct ServerSocket {
    /// Removed before the socket is closed.
    #[cfg(unix)]
    file: Mutex<Option<SocketFile>>,
    socket: Socket,
    address: SockAddr,
    /// The program has made the socket, and other processes may listen on it, too.
    is_given: bool,
}

impl ServerSocket {
    /// Listens where the settings say.
    ///
    /// # Errors
    ///
    /// `InvalidSetting` for an address that is none, `Listen` where it can't be listened on.
    pub(super) fn open(info: &ServerInfo) -> Result<Self, Error> {
        if let Some(listener) = &info.listener {
            return ServerSocket::given(listener.take()?).map_err(|error| {
                let message =
                    "listener: can't listen on it: give a listening socket of TCP or Unix streams";
                Error::new(ErrorKind::Listen, message).with_source(error)
            });
        }
        #[cfg(unix)]
        if let Some(path) = address::unix_path(&info.address) {
            let (socket, file) = unix_socket::bind(path.as_ref(), info.socket_mode)?;
            let address = SockAddr::unix(file.path()).or_else(|_| socket.local_addr());
            let address = address.map_err(|error| {
                let message = "address: the system does not say where the socket listens";
                Error::new(ErrorKind::Listen, message).with_source(error)
            })?;
            return Ok(ServerSocket {
                file: Mutex::new(Some(file)),
                socket,
                address,
                is_given: false,
            });
        }
        listen::first(&info.address, |address| {
            let socket = listen::bind(address)?;
            socket.listen(listen::BACKLOG)?;
            ServerSocket::of(socket, false)
        })
    }

    fn given(socket: Socket) -> io::Result<Self> {
        if socket.r#type()? != Type::STREAM {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // An event loop, or systemd with NonBlocking=, may have set these.
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(None)?;
        socket.listen(listen::BACKLOG)?;
        ServerSocket::of(socket, true)
    }

    fn of(socket: Socket, is_given: bool) -> io::Result<Self> {
        Ok(ServerSocket {
            #[cfg(unix)]
            file: Mutex::new(None),
            address: socket.local_addr()?,
            socket,
            is_given,
        })
    }

    /// Waits for a connection. Its peer has no address on a Unix socket.
    pub(super) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        loop {
            match self.socket.accept() {
                Ok((socket, peer)) => return Ok((socket, peer.as_socket())),
                // Another program that has the socket, too, has set this for all of them.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.set_nonblocking(false)?;
                    thread::park_timeout(PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The unspecified address with port 0 for a Unix socket.
    pub(super) fn local_addr(&self) -> SocketAddr {
        let unspecified = (Ipv4Addr::UNSPECIFIED, 0).into();
        self.address.as_socket().unwrap_or(unspecified)
    }

    /// The path of a Unix socket that has one.
    pub(super) fn unix_path(&self) -> Option<PathBuf> {
        #[cfg(unix)]
        return match &*self.file.lock() {
            Some(file) => Some(file.path().to_owned()),
            None => self.address.as_pathname().map(Into::into),
        };
        #[cfg(not(unix))]
        None
    }

    /// Ends `accept` in another thread, for good, and removes the file of a Unix socket.
    ///
    /// A socket of the program's own is shut down only where nothing else helps: its duplicates would not listen any more,
    /// such as the one from which systemd starts the next process.
    pub(super) fn end_accept(&self, mut has_ended: impl FnMut(Duration) -> bool) {
        // To connect over a Unix socket takes the file.
        let connects_first = self.is_given || self.address.is_unix();
        let ended = connects_first
            && (0..CONNECTS).any(|_| self.connect() && has_ended(NOTICE / CONNECTS as u32));
        #[cfg(unix)]
        drop(self.file.lock().take());
        if ended {
            return;
        }
        // On Linux, this ends `accept`.
        let _ = self.socket.shutdown(Shutdown::Both);
        if !has_ended(NOTICE) && self.connect() {
            has_ended(NOTICE);
        }
    }

    /// Connects to the own address, which ends `accept` on any system.
    fn connect(&self) -> bool {
        let own = self.address.as_socket().map(listen::own_address);
        let own = own.map_or_else(|| self.address.clone(), SockAddr::from);
        let connected = Socket::new(own.domain(), Type::STREAM, None)
            .and_then(|socket| socket.connect_timeout(&own, NOTICE));
        if let Err(error) = &connected {
            log::debug!("connecting to end the accept loop failed: {error}");
        }
        connected.is_ok()
    }
}
