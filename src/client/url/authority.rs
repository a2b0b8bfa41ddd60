//! [`Authority`]: the host and port of a URL, and the zone of an IPv6 address.

use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

/// The host and port of a URL.
pub(super) struct Authority<'a> {
    /// An IPv6 address is without its brackets and zone.
    pub(super) host: &'a str,
    /// The zone of an IPv6 address.
    pub(super) zone: Option<String>,
    pub(super) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `host`, `host:port`, `[address]:port` or `[address%zone]:port`.
    ///
    /// # Errors
    ///
    /// The problem, as text.
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        let (host, zone, after) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or("its [ has no ]")?;
                let (address, zone) = match address.split_once('%') {
                    Some((address, zone)) => (address, Some(read_zone(zone)?)),
                    None => (address, None),
                };
                if address.parse::<Ipv6Addr>().is_err() {
                    return Err("the text in its brackets is not an IPv6 address".into());
                }
                (address, zone, after)
            }
            None => {
                let (host, after) = text.split_at(text.find(':').unwrap_or(text.len()));
                (host, None, after)
            }
        };
        if host.is_empty() {
            return Err("it has no host".into());
        }
        let port = match after.strip_prefix(':') {
            Some("") => None,
            None if after.is_empty() => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            _ => None,
        };
        match (port, after) {
            (None, "" | ":") | (Some(_), _) => Ok(Authority { host, zone, port }),
            _ => Err("its port is not a number from 0 to 65535".into()),
        }
    }
}

/// Reads the zone after the `%`: `25eth0`, by RFC 6874, or `eth0`, as most programs write it.
fn read_zone(text: &str) -> Result<String, String> {
    let text = match text.strip_prefix("25") {
        Some(encoded) if !encoded.is_empty() => encoded,
        _ => text,
    };
    let zone = percent_decode_str(text).decode_utf8_lossy();
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match !zone.is_empty() && zone.chars().all(is_allowed) {
        true => Ok(zone.into_owned()),
        false => Err(
            "the zone of its IPv6 address is not a network interface; give its name or number, \
             such as [fe80::1%25eth0]"
                .into(),
        ),
    }
}
