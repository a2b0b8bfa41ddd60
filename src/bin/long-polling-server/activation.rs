//! Socket activation: the listening socket that a service manager such as systemd has opened, by the protocol of
//! sd_listen_fds(3).

use std::env;
use std::process;

use listenfd::ListenFd;
use long_polling::server::ListeningSocket;

/// The socket that the service manager passes; none where it passes none to this process. To be called before the first
/// thread starts, since it removes the protocol's variables from the environment.
///
/// # Errors
///
/// Several descriptors, or one that is neither a TCP socket nor a Unix stream socket.
pub(crate) fn socket() -> Result<Option<ListeningSocket>, String> {
    let Ok(count) = env::var("LISTEN_FDS") else {
        return Ok(None);
    };
    let pid = env::var("LISTEN_PID").ok();
    if pid.and_then(|pid| pid.parse().ok()) != Some(process::id()) {
        // For a parent of this process, which did not remove it.
        return Ok(None);
    }
    match count.parse::<u32>() {
        Ok(0) => return Ok(None),
        Ok(1) => {}
        _ => {
            return Err(format!(
                "LISTEN_FDS: the service manager passes {count:?} sockets, and this server listens on one: give its socket \
                 unit one ListenStream, and run a server for each further socket"
            ));
        }
    }
    let mut sockets = ListenFd::from_env();
    if let Ok(Some(listener)) = sockets.take_tcp_listener(0) {
        return Ok(Some(listener.into()));
    }
    match sockets.take_unix_listener(0) {
        Ok(listener) => Ok(listener.map(Into::into)),
        Err(error) => Err(format!(
            "LISTEN_FDS: descriptor 3 is neither a TCP socket nor a Unix stream socket ({error}): use ListenStream in the \
             socket unit"
        )),
    }
}
