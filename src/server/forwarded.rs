//! The client's address where trusted proxies are between the client and the server.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::headers::Headers;

/// The address of the client behind a connection from `peer`. Each trusted proxy has appended the address that it had the
/// request from to `X-Forwarded-For`, so the search begins at the field's end. It ends at the first address that is not a
/// trusted proxy's: that client may have sent the entries before it.
pub(super) fn client_address(
    peer: SocketAddr,
    headers: &Headers,
    trusted_proxies: &[IpAddr],
) -> SocketAddr {
    let canonical = |address: SocketAddr| (address.ip().to_canonical(), address.port()).into();
    let is_trusted = |client: SocketAddr| {
        let mut proxies = trusted_proxies.iter().map(IpAddr::to_canonical);
        proxies.any(|proxy| proxy == client.ip())
    };
    let mut client: SocketAddr = canonical(peer);
    if trusted_proxies.is_empty() {
        return client;
    }
    // Several fields of one name are one list (RFC 9110, section 5.3).
    let fields: Vec<&str> = headers.get_all("X-Forwarded-For").collect();
    for entry in fields.iter().rev().flat_map(|field| field.rsplit(',')) {
        match parse_entry(entry.trim()) {
            Some(before) if is_trusted(client) => client = canonical(before),
            _ => break,
        }
    }
    client
}

/// An entry of `X-Forwarded-For`: IPv4 or IPv6, the latter with or without brackets, and perhaps a port.
fn parse_entry(entry: &str) -> Option<SocketAddr> {
    let unbracketed = || {
        let bare = entry.strip_prefix('[')?.strip_suffix(']')?;
        bare.parse::<Ipv6Addr>().ok().map(IpAddr::from)
    };
    let without_port = || entry.parse().ok().or_else(unbracketed);
    let parsed = entry.parse().ok();
    parsed.or_else(|| Some((without_port()?, 0).into()))
}
