//! The list of `NO_PROXY`: the hosts that need no proxy.

use std::net::IpAddr;

/// Returns `true` if a list in the form of `NO_PROXY` contains this host.
///
/// The list has `*`, domains, which include their subdomains, addresses, and networks in CIDR form. A port after a domain
/// or address limits the entry to that port.
pub(super) fn contains(list: &str, host: &str, port: u16) -> bool {
    let entries = list.split(|c: char| c == ',' || c.is_whitespace());
    entries
        .filter(|entry| !entry.is_empty())
        .any(|entry| matches(entry, host, port))
}

fn matches(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    let address = host
        .parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical());
    if let Some((network, bits)) = entry.split_once('/') {
        let network = unbracketed(network).parse::<IpAddr>();
        return match (network, bits.parse(), address) {
            (Ok(network), Ok(bits), Some(address)) => network_contains(network, bits, address),
            _ => false,
        };
    }
    let (name, only) = match entry.rsplit_once(':') {
        // An IPv6 address without brackets has no port.
        _ if entry.parse::<IpAddr>().is_ok() => (entry, None),
        Some((name, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            (name, Some(digits))
        }
        _ => (entry, None),
    };
    if only.is_some_and(|only| only.parse() != Ok(port)) {
        return false;
    }
    let name = unbracketed(name);
    match (name.parse::<IpAddr>(), address) {
        (Ok(one), Some(address)) => one.to_canonical() == address,
        (Ok(_), None) | (Err(_), Some(_)) => false,
        (Err(_), None) => is_in_domain(host, name),
    }
}

fn unbracketed(address: &str) -> &str {
    let inner = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(address)
}

/// Returns `true` if the host is the domain or a subdomain of it.
fn is_in_domain(host: &str, domain: &str) -> bool {
    let domain = domain.strip_prefix('*').unwrap_or(domain);
    let domain = domain.strip_prefix('.').unwrap_or(domain);
    let domain = domain
        .strip_suffix('.')
        .unwrap_or(domain)
        .to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    match host.strip_suffix(&domain) {
        Some(before) => !domain.is_empty() && (before.is_empty() || before.ends_with('.')),
        None => false,
    }
}

fn network_contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let (network, address, width) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (
            u128::from(network.to_bits()),
            u128::from(address.to_bits()),
            32,
        ),
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    // `checked_shr` fails for a shift by the whole width: then no bit has to be equal.
    let differs = (network ^ address)
        .checked_shr(width - bits.min(width))
        .unwrap_or(0);
    bits <= width && differs == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_has_every_usual_form() {
        for (list, host, port, expected) in [
            ("*", "h", 80, true),
            ("a, example.com ,b", "example.com", 80, true),
            ("a example.com b", "EXAMPLE.com", 80, true),
            ("example.com", "sub.example.com", 80, true),
            (".example.com", "sub.example.com", 80, true),
            (".example.com", "example.com", 80, true),
            ("*.example.com", "sub.example.com", 80, true),
            ("example.com.", "example.com", 80, true),
            ("example.com", "notexample.com", 80, false),
            ("example.com", "example.com.evil.test", 80, false),
            ("example.com:8080", "example.com", 8080, true),
            ("example.com:8080", "sub.example.com", 8080, true),
            ("example.com:8080", "example.com", 80, false),
            ("10.0.0.1", "10.0.0.1", 80, true),
            ("10.0.0.1:81", "10.0.0.1", 80, false),
            ("10.0.0.1", "10.0.0.11", 80, false),
            ("10.0.0.0/8", "10.255.0.1", 80, true),
            ("10.0.0.0/8", "11.0.0.1", 80, false),
            ("10.0.0.0/33", "10.0.0.0", 80, false),
            ("0.0.0.0/0", "192.0.2.1", 80, true),
            ("0.0.0.0/0", "2001:db8::1", 80, false),
            ("192.168.4.0/22", "192.168.7.255", 80, true),
            ("2001:db8::/32", "2001:db8:1::1", 80, true),
            ("2001:db8::/32", "2001:db9::1", 80, false),
            ("::/0", "2001:db9::1", 80, true),
            ("2001:db8::1", "2001:db8::1", 80, true),
            ("[2001:db8::1]:81", "2001:db8:0::1", 81, true),
            ("[2001:db8::1]:81", "2001:db8::1", 80, false),
            ("0.0.1", "10.0.0.1", 80, false),
            ("", "h", 80, false),
            (" , .,:80", "h", 80, false),
        ] {
            assert_eq!(
                contains(list, host, port),
                expected,
                "{list:?} {host} {port}"
            );
        }
    }
}
