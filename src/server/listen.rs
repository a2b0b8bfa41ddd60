//! Listening sockets, the same for each backend: the setting `address` is tried, and what fails becomes an [`Error`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::address;
use crate::error::{Error, ErrorKind};

/// Connections that the kernel may hold until they are accepted; it has a limit of its own (on Linux
/// `net.core.somaxconn`, 4096).
pub(super) const BACKLOG: i32 = 4096;

/// Listens on the first address that the setting `address` stands for and that can be listened on.
///
/// # Errors
///
/// `InvalidSetting` for an address that is none, `Listen` where it can't be listened on.
pub(super) fn first<T>(
    setting: &str,
    listen: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<T, Error> {
    let mut failed = None;
    for address in address::parse(setting)? {
        match listen(address) {
            Ok(listening) => return Ok(listening),
            Err(error) => failed = Some(error),
        }
    }
    let error = failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            " (it is in use: stop what listens there, or give another port; 0 takes a free one)"
        }
        io::ErrorKind::PermissionDenied => " (ports under 1024 are for privileged programs)",
        _ => "",
    };
    let message = format!("address: can't listen on {setting:?}{hint}");
    Err(Error::new(ErrorKind::Listen, message).with_source(error))
}

/// A socket that is bound to this address, and does not listen yet.
pub(super) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // As std does: connections of an earlier run in TIME_WAIT don't hold the port. On Windows it would share it.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // "[::]" takes IPv4, too, where the system lets it.
        let _ = socket.set_only_v6(false);
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The address at which this process reaches its own listening socket: a loopback address for a wildcard. A link-local
/// address keeps its scope, without which it can't be reached.
pub(super) fn own_address(listening: SocketAddr) -> SocketAddr {
    let mut own = listening;
    match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => own.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => own.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddrV6;

    #[test]
    fn the_own_address_is_loopback_for_a_wildcard_and_keeps_the_scope_of_a_link_local_one() {
        for (listening, own) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            let listening = listening.parse().unwrap();
            assert_eq!(own_address(listening), own.parse().unwrap());
        }
        let link_local = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 7, 3);
        assert_eq!(own_address(link_local.into()), link_local.into());
    }
}
