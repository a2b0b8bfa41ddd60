//! [`ListeningSocket`]: a listener that the program has made itself, for [`ServerInfo::listener`](super::ServerInfo::listener).

use std::net::TcpListener;
#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use parking_lot::Mutex;
use socket2::Socket;

use crate::error::Error;

/// A listening socket that the program has made itself: a [`TcpListener`], or on Unix a `UnixListener`. Copies share it, and
/// the first server that starts takes it.
#[derive(Clone)]
pub struct ListeningSocket(Arc<Mutex<Option<Socket>>>);

impl ListeningSocket {
    fn new(socket: Socket) -> Self {
        ListeningSocket(Arc::new(Mutex::new(Some(socket))))
    }

    /// # Errors
    ///
    /// `InvalidSetting` where a server has taken the socket already.
    pub(super) fn take(&self) -> Result<Socket, Error> {
        self.0.lock().take().ok_or_else(|| {
            let problem = "a server has taken this listener already; give each server a listener of its own, such as one \
                           made by try_clone";
            Error::setting("listener", problem)
        })
    }

    /// True for a Unix socket that no server has taken.
    #[cfg(feature = "server")]
    pub(super) fn is_unix(&self) -> bool {
        let socket = self.0.lock();
        let address = socket.as_ref().and_then(|socket| socket.local_addr().ok());
        address.is_some_and(|address| address.is_unix())
    }
}

impl From<TcpListener> for ListeningSocket {
    fn from(listener: TcpListener) -> Self {
        ListeningSocket::new(listener.into())
    }
}

#[cfg(unix)]
impl From<UnixListener> for ListeningSocket {
    fn from(listener: UnixListener) -> Self {
        ListeningSocket::new(listener.into())
    }
}

impl std::fmt::Debug for ListeningSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ListeningSocket")
    }
}
