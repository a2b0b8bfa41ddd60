//! The listening socket, with options that tiny_http does not set. Accepted connections inherit them (on Linux).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{SockRef, Socket, TcpKeepalive};

use crate::server::listen::{BACKLOG, bind};

/// A socket that listens on this address.
pub(super) fn listen(
    address: SocketAddr,
    write_timeout: Duration,
    idle_timeout: Duration,
) -> io::Result<TcpListener> {
    prepare(bind(address)?, write_timeout, idle_timeout)
}

/// Sets the options of a socket that is bound, and listens.
pub(super) fn prepare(
    socket: Socket,
    write_timeout: Duration,
    idle_timeout: Duration,
) -> io::Result<TcpListener> {
    // An answer leaves when it is written, not when the last one has been acknowledged.
    socket.set_tcp_nodelay(true)?;
    // A peer whose machine or network is gone is found out, even while its poll is parked.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
    // A peer that does not read blocks the thread that writes for this long at most.
    socket.set_write_timeout(Some(write_timeout))?;
    // tiny_http ends the connection of a peer that says nothing for this long. It applies to accepting, too, where it
    // ends tiny_http's loop unless probes come more often.
    socket.set_read_timeout(Some(idle_timeout))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// False where the system knows that the socket was shut down.
pub(super) fn is_listening(listener: &TcpListener) -> bool {
    #[cfg(target_os = "linux")]
    return SockRef::from(listener).is_listener().unwrap_or(true);
    #[cfg(not(target_os = "linux"))]
    return SockRef::from(listener).local_addr().is_ok();
}

/// Listens for a moment. Fails with `AddrInUse` where another socket listens on the address.
pub(super) fn listen_once(address: SocketAddr) -> io::Result<()> {
    bind(address)?.listen(1)
}
