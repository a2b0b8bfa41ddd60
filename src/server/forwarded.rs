//! The client's address where trusted proxies are between the client and the server.

use std::net::{IpAddr, SocketAddr};

use super::address;
use super::network::Network;
use crate::headers::Headers;

/// The proxies whose `X-Forwarded-For` is believed.
#[derive(Clone, Debug, Default)]
pub(super) struct TrustedProxies {
    pub(super) addresses: Vec<Network>,
    pub(super) networks: Vec<Network>,
    /// Every program that connects over a Unix socket is one.
    pub(super) unix_peers: bool,
}

impl TrustedProxies {
    /// `None` stands for a peer on a Unix socket.
    fn trusts(&self, peer: Option<SocketAddr>) -> bool {
        match peer {
            None => self.unix_peers,
            Some(peer) => {
                let mut proxies = self.addresses.iter().chain(&self.networks);
                proxies.any(|network| network.contains(peer.ip()))
            }
        }
    }
}

/// The address of the client behind a connection from `peer`; `None` for a Unix socket. Each trusted proxy has appended the
/// address that it had the request from to `X-Forwarded-For`, so the search begins at the field's end. It ends at the first
/// address that is not a trusted proxy's: that client may have sent the entries before it.
pub(super) fn client_address(
    peer: Option<SocketAddr>,
    headers: &Headers,
    trusted: &TrustedProxies,
) -> Option<SocketAddr> {
    let canonical = |address: SocketAddr| (address.ip().to_canonical(), address.port()).into();
    let mut client: Option<SocketAddr> = peer.map(canonical);
    if !trusted.trusts(client) {
        return client;
    }
    // Several fields of one name are one list (RFC 9110, section 5.3).
    let fields: Vec<&str> = headers.get_all("X-Forwarded-For").collect();
    for entry in fields.iter().rev().flat_map(|field| field.rsplit(',')) {
        match parse_entry(entry.trim()) {
            Some(before) if trusted.trusts(client) => client = Some(canonical(before)),
            _ => break,
        }
    }
    client
}

/// An entry of `X-Forwarded-For`: IPv4 or IPv6, the latter with or without brackets, and perhaps a port.
fn parse_entry(entry: &str) -> Option<SocketAddr> {
    let bracketed = || address::bracketed(entry).map(IpAddr::from);
    let without_port = || entry.parse().ok().or_else(bracketed);
    let parsed = entry.parse().ok();
    parsed.or_else(|| Some((without_port()?, 0).into()))
}
