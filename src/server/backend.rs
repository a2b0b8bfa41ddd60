//! The settings of the HTTP backends, and the calls of [`Server`](super::Server) to the one that is chosen.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::address;
use super::http_backend::HttpBackend;
use super::info::ServerInfo;
#[cfg(feature = "native-http")]
use super::native;
#[cfg(feature = "native-http")]
use super::server_socket::ServerSocket;
use super::service::Service;
#[cfg(feature = "server")]
use super::tiny_http;
use crate::error::Error;

/// The least stack of a connection's thread, in bytes.
const MIN_STACK: usize = 64 * 1024;

/// The defaults of `head_timeout` and `body_timeout`.
#[cfg(feature = "native-http")]
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
#[cfg(feature = "native-http")]
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of the backends.
impl ServerInfo {
    /// Sets what reads and writes the server's connections. Defaults to [`HttpBackend::default`].
    pub fn http_backend(mut self, backend: HttpBackend) -> Self {
        self.http_backend = backend;
        self
    }

    /// Sets the most connections of the native backend, parked polls included. A connection past that takes the place of the
    /// one that has been idle longest. If none is idle, the server answers it with 503 and `Retry-After`, and closes it.
    /// `None`, the default, stands for as many as the process has descriptors, threads and memory mappings for, at most
    /// 10,000 (on systems without `/proc`: 1,000). More than those allow is taken for as many as they allow, since a thread
    /// without mappings would end the process.
    ///
    /// tiny_http has no such limit: a server with it and with this setting does not start.
    pub fn max_connections(mut self, max: impl Into<Option<usize>>) -> Self {
        self.max_connections = max.into();
        self
    }

    /// Sets the stack of each connection's thread, in bytes, for hooks and stores that need more: they run on it. Only what
    /// a thread has used counts as memory. Defaults to 256 KiB, with room for a hook that parses JSON nested as deep as
    /// serde_json allows (192 KiB in a debug build); at least 64 KiB. tiny_http ignores it: there, hooks have 512 KiB.
    pub fn thread_stack_size(mut self, bytes: usize) -> Self {
        self.thread_stack_size = bytes;
        self
    }

    /// Sets how long a request's head may take with the native backend, from its first byte to its last. A client that takes
    /// longer gets 408, and its connection is closed. `None`, the default, stands for 10 seconds.
    ///
    /// tiny_http has no such limit: a server with it and with this setting does not start.
    pub fn head_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.head_timeout = timeout.into();
        self
    }

    /// Sets how long a request's body may take with the native backend, from its head to its last byte. A client that takes
    /// longer gets 408, and its connection is closed. `None`, the default, stands for 30 seconds.
    ///
    /// tiny_http has no such limit: a server with it and with this setting does not start.
    pub fn body_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.body_timeout = timeout.into();
        self
    }

    #[cfg(feature = "native-http")]
    pub(super) fn effective_head_timeout(&self) -> Duration {
        self.head_timeout.unwrap_or(HEAD_TIMEOUT)
    }

    #[cfg(feature = "native-http")]
    pub(super) fn effective_body_timeout(&self) -> Duration {
        self.body_timeout.unwrap_or(BODY_TIMEOUT)
    }

    /// # Errors
    ///
    /// `InvalidSetting` for a value that can't be used, or for a limit that the chosen backend does not have.
    pub(super) fn check_backend(&self) -> Result<(), Error> {
        self.check_sockets()?;
        #[cfg(feature = "server")]
        if self.http_backend == HttpBackend::TinyHttp {
            for (name, is_set) in [
                ("max_connections", self.max_connections.is_some()),
                ("head_timeout", self.head_timeout.is_some()),
                ("body_timeout", self.body_timeout.is_some()),
            ] {
                if is_set {
                    let problem = "tiny_http has no such limit; choose HttpBackend::Native, or leave this out";
                    return Err(Error::setting(name, problem));
                }
            }
        }
        if self.max_connections == Some(0) {
            return Err(Error::setting("max_connections", "is zero; give a number"));
        }
        if self.thread_stack_size < MIN_STACK {
            let problem = format!("is under {MIN_STACK} bytes, which no hook could run on");
            return Err(Error::setting("thread_stack_size", problem));
        }
        Ok(())
    }

    fn check_sockets(&self) -> Result<(), Error> {
        let path = match &self.listener {
            None => address::unix_path(&self.address),
            Some(_) => None,
        };
        if let Some(path) = path {
            address::check_unix_path(path)?;
        }
        #[cfg(feature = "server")]
        if self.http_backend == HttpBackend::TinyHttp {
            let given = self.listener.as_ref().filter(|given| given.is_unix());
            let setting = path.map(|_| "address").or(given.map(|_| "listener"));
            if let Some(setting) = setting {
                let problem = "the server listens on Unix sockets with its native backend only, not with tiny_http; choose \
                               HttpBackend::Native (the feature native-http), or give an address of TCP";
                return Err(Error::setting(setting, problem));
            }
        }
        if let Some(mode) = self.socket_mode.filter(|mode| *mode > 0o777) {
            let problem = format!("{mode:#o} is no mode of a socket; give 0 to 0o777");
            return Err(Error::setting("socket_mode", problem));
        }
        Ok(())
    }
}

/// A listening socket without threads that serve it yet: clients that connect wait.
pub(super) enum Listening {
    #[cfg(feature = "server")]
    TinyHttp(Box<tiny_http::Listening>),
    #[cfg(feature = "native-http")]
    Native(ServerSocket),
}

impl Listening {
    /// # Errors
    ///
    /// `InvalidSetting` for an address that is none, `Listen` where it can't be listened on.
    pub(super) fn open(info: &ServerInfo) -> Result<Self, Error> {
        match info.http_backend {
            #[cfg(feature = "server")]
            HttpBackend::TinyHttp => {
                let listening = tiny_http::Listening::open(info)?;
                Ok(Listening::TinyHttp(Box::new(listening)))
            }
            #[cfg(feature = "native-http")]
            HttpBackend::Native => ServerSocket::open(info).map(Listening::Native),
        }
    }

    /// The address that is listened on; the unspecified one for a Unix socket.
    pub(super) fn local_addr(&self) -> SocketAddr {
        match self {
            #[cfg(feature = "server")]
            Listening::TinyHttp(listening) => listening.local_addr(),
            #[cfg(feature = "native-http")]
            Listening::Native(listening) => listening.local_addr(),
        }
    }

    /// Frees the port again.
    pub(super) fn withdraw(self) {
        match self {
            #[cfg(feature = "server")]
            Listening::TinyHttp(listening) => listening.withdraw(),
            #[cfg(feature = "native-http")]
            Listening::Native(socket) => drop(socket),
        }
    }

    /// Starts the threads that serve.
    ///
    /// # Errors
    ///
    /// `Listen` where no thread can be started.
    pub(super) fn serve(self, service: Arc<Service>) -> Result<Backend, Error> {
        match self {
            #[cfg(feature = "server")]
            Listening::TinyHttp(listening) => {
                tiny_http::Backend::start(*listening, service).map(Backend::TinyHttp)
            }
            #[cfg(feature = "native-http")]
            Listening::Native(socket) => {
                native::Backend::start(socket, service).map(Backend::Native)
            }
        }
    }
}

/// A running backend.
pub(super) enum Backend {
    #[cfg(feature = "server")]
    TinyHttp(Arc<tiny_http::Backend>),
    #[cfg(feature = "native-http")]
    Native(native::Backend),
}

impl Backend {
    pub(super) fn local_addr(&self) -> SocketAddr {
        match self {
            #[cfg(feature = "server")]
            Backend::TinyHttp(backend) => backend.local_addr(),
            #[cfg(feature = "native-http")]
            Backend::Native(backend) => backend.address,
        }
    }

    /// The path of the Unix socket that the server listens on.
    pub(super) fn unix_path(&self) -> Option<&Path> {
        match self {
            #[cfg(feature = "server")]
            Backend::TinyHttp(_) => None,
            #[cfg(feature = "native-http")]
            Backend::Native(backend) => backend.unix_path.as_deref(),
        }
    }

    /// Takes no more connections. Requests in flight are still served.
    pub(super) fn stop_listening(&self) {
        match self {
            #[cfg(feature = "server")]
            Backend::TinyHttp(backend) => backend.stop_listening(),
            #[cfg(feature = "native-http")]
            Backend::Native(backend) => backend.stop_listening(),
        }
    }

    /// Waits until no request is in flight. Returns `false` if the deadline came first.
    pub(super) fn wait_until_done(&self, deadline: Instant) -> bool {
        match self {
            #[cfg(feature = "server")]
            Backend::TinyHttp(backend) => backend.wait_until_done(deadline),
            #[cfg(feature = "native-http")]
            Backend::Native(backend) => backend.wait_until_done(deadline),
        }
    }

    /// Waits until another program can listen on the port.
    #[cfg_attr(not(feature = "server"), allow(unused_variables))]
    pub(super) fn free_port(&self, deadline: Instant) {
        match self {
            #[cfg(feature = "server")]
            Backend::TinyHttp(backend) => backend.free_port(deadline),
            // `stop_listening` has freed it.
            #[cfg(feature = "native-http")]
            Backend::Native(_) => {}
        }
    }
}
