//! The setting [`address`](super::ServerInfo::address): from its text to socket addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use crate::error::Error;

/// The socket addresses that the setting `address` stands for, in the order in which to try them.
///
/// # Errors
///
/// `InvalidSetting` where `address` is not an address, or names no known host.
pub(super) fn parse(address: &str) -> Result<Vec<SocketAddr>, Error> {
    let hint = if address.contains('%') {
        "give [ADDRESS%ZONE]:PORT, such as [fe80::1%eth0]:8080, with the name or number of an interface of this machine"
    } else {
        "give HOST:PORT, such as 127.0.0.1:8080, [::1]:0 or :8080"
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
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
