//! The setting [`address`](super::ServerInfo::address): from its text to socket addresses, or to the path of a Unix socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use crate::error::Error;

/// Splits the text after the last colon off, unless that colon is one within the brackets of an IPv6 address.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// The number of a port that is written as clients write it: without a sign, and without zeros before it.
pub(super) fn port_number(port: &str) -> Option<u16> {
    let number: u16 = port.parse().ok()?;
    (number.to_string() == port).then_some(number)
}

/// An IPv6 address in brackets.
pub(super) fn bracketed(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// The path of the Unix socket that the setting `address` stands for: `None` for an address of TCP.
pub(super) fn unix_path(address: &str) -> Option<&str> {
    address.strip_prefix("unix:")
}

/// Checks the path of a Unix socket.
///
/// # Errors
///
/// `InvalidSetting` for a path that no Unix socket can have on this system.
pub(super) fn check_unix_path(path: &str) -> Result<(), Error> {
    let wrong = |problem: String| Err(Error::setting("address", problem));
    if cfg!(not(unix)) {
        return wrong("this system has no Unix sockets; give HOST:PORT".into());
    }
    if path.is_empty() {
        return wrong("\"unix:\" has no path; give one, such as unix:/run/app/events.sock".into());
    }
    if path.contains('\0') {
        return wrong(format!(
            "{path:?} has a NUL, which no path may have; leave it out"
        ));
    }
    // Only the system knows its limit, sun_path in sockaddr_un.
    #[cfg(unix)]
    if std::os::unix::net::SocketAddr::from_pathname(path).is_err() {
        return wrong(format!(
            "{path:?} has {} bytes, too many for the path of a Unix socket (at most 107 on Linux, 103 on BSD and macOS); \
             give a shorter path, or one that is relative to the working directory",
            path.len()
        ));
    }
    Ok(())
}

/// The socket addresses that the setting `address` stands for, in the order in which to try them.
///
/// # Errors
///
/// `InvalidSetting` where `address` is not an address, or names no known host.
pub(super) fn parse(address: &str) -> Result<Vec<SocketAddr>, Error> {
    let hint = if address.contains('%') {
        "give [ADDRESS%ZONE]:PORT, such as [fe80::1%eth0]:8080, with the name or number of an interface of this machine"
    } else {
        "give HOST:PORT, such as 127.0.0.1:8080, [::1]:0 or :8080, or unix:PATH"
    };
    if let Some(port) = address.strip_prefix(':') {
        let port: u16 = port
            .parse()
            .map_err(|_| Error::setting("address", format!("{address:?} has no port; {hint}")))?;
        let every: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        return Ok(every.map(|every| (every, port).into()).to_vec());
    }
    let wrong = |error: std::io::Error| {
        Error::setting("address", format!("{address:?}: {hint}")).with_source(error)
    };
    let addresses: Vec<SocketAddr> = match zoned(address) {
        Some(host_and_port) => host_and_port.to_socket_addrs(),
        None => address.to_socket_addrs(),
    }
    .map_err(wrong)?
    .collect();
    if addresses.is_empty() {
        return Err(Error::setting(
            "address",
            format!("{address:?} is not known; {hint}"),
        ));
    }
    Ok(addresses)
}

/// Host and port of an IPv6 address with a zone, such as `[fe80::1%eth0]:8080`. std parses numbers of zones only, while
/// the system's resolver knows the names of interfaces.
fn zoned(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.strip_prefix('[')?.split_once("]:")?;
    let (_, zone) = host.split_once('%')?;
    if zone.is_empty() || zone.parse::<u32>().is_ok() {
        return None;
    }
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_unix_before_it_is_a_path() {
        for (address, path) in [
            ("unix:/run/app/events.sock", Some("/run/app/events.sock")),
            ("unix:events.sock", Some("events.sock")),
            ("unix:a:b", Some("a:b")),
            ("unix:", Some("")),
            ("127.0.0.1:8080", None),
            ("localhost:0", None),
            (":8080", None),
            ("UNIX:/a", None),
        ] {
            assert_eq!(unix_path(address), path, "{address}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_path_that_no_unix_socket_can_have_is_named_with_the_reason() {
        for path in ["/run/app/events.sock", "events.sock", "./a b", "a:b", "é"] {
            check_unix_path(path).unwrap();
        }
        let longest = if cfg!(target_os = "linux") { 107 } else { 103 };
        check_unix_path(&"x".repeat(longest)).unwrap();
        for (path, words) in [
            ("".into(), "has no path"),
            ("a\0b".into(), "has a NUL"),
            ("x".repeat(108), "has 108 bytes"),
        ] {
            let error = check_unix_path(&path).unwrap_err().to_string();
            assert!(error.starts_with("address: "), "{error}");
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_ipv6_zone_is_the_name_or_the_number_of_an_interface() {
        // The loopback interface is the first one of every network namespace.
        for address in ["[fe80::1%lo]:8080", "[fe80::1%1]:8080"] {
            let [SocketAddr::V6(parsed)] = parse(address).unwrap()[..] else {
                panic!("{address} is one address of IPv6");
            };
            assert_eq!(parsed.ip().to_string(), "fe80::1", "{address}");
            assert_eq!((parsed.scope_id(), parsed.port()), (1, 8080), "{address}");
        }
        for wrong in [
            "[fe80::1%no-such-zone]:8080",
            "[fe80::1%]:8080",
            "[fe80::1%lo]",
            "[fe80::1%lo]:x",
            "[fe80::1%lo]:65536",
        ] {
            let error = parse(wrong).unwrap_err();
            let words = error.to_string();
            assert!(words.starts_with("address: "), "{words}");
            assert!(words.contains("ZONE"), "{words}");
        }
    }
}
