//! [`Network`]: the IP addresses that have their first bits in common.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// The IP addresses that have their first bits in common: `10.0.0.0/8` or `fd00::/8` in CIDR notation (RFC 4632, and
/// RFC 4291 for IPv6), or a single address.
///
/// IPv4 addresses in IPv6 form (`::ffff:10.0.0.1`) count as the IPv4 addresses that they stand for.
///
/// ```
/// use long_polling::server::Network;
///
/// let network: Network = "10.0.0.0/8".parse()?;
/// assert!(network.contains([10, 1, 2, 3].into()));
/// assert!(!network.contains([11, 1, 2, 3].into()));
/// # Ok::<(), long_polling::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// Canonical; the bits after the prefix are 0.
    first: IpAddr,
    prefix: u8,
}

impl Network {
    /// Returns `true` if the address belongs to this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                left_aligned(first.into()) ^ left_aligned(address.into())
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => first.to_bits() ^ address.to_bits(),
            _ => return false,
        };
        differing.leading_zeros() >= self.prefix.into()
    }

    /// Returns the first address of this network.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Returns the number of bits that the addresses of this network have in common.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub(super) fn is_single(&self) -> bool {
        self.prefix == width(self.first)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The bits of an address, from the highest bit on.
fn left_aligned(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The network of this address alone.
impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let first = address.to_canonical();
        Network {
            first,
            prefix: width(first),
        }
    }
}

impl From<Ipv4Addr> for Network {
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::from(address).into()
    }
}

impl From<Ipv6Addr> for Network {
    fn from(address: Ipv6Addr) -> Self {
        IpAddr::from(address).into()
    }
}

/// Reads an address, or an address, `/` and the number of bits that count.
///
/// # Errors
///
/// [`InvalidSetting`](ErrorKind::InvalidSetting) for any other text, and for an address with bits set after those that
/// count: `10.0.0.1/8` may be meant as `10.0.0.0/8` or as `10.0.0.1`.
impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |problem: &str| {
            let hint = "give an address, such as 10.0.0.1, or a network, such as 10.0.0.0/8";
            let message = format!("not a network of IP addresses: {text:?}: {problem}; {hint}");
            Error::new(ErrorKind::InvalidSetting, message)
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(wrong("it does not begin with an address"));
        };
        let Some(prefix) = prefix else {
            return Ok(address.into());
        };
        let bits = prefix.parse::<u8>().ok();
        let has_digits_only = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let Some(prefix) = bits.filter(|bits| has_digits_only && *bits <= width(address)) else {
            let width = width(address);
            return Err(wrong(&format!(
                "after the \"/\" belongs a number from 0 to {width}"
            )));
        };
        let after_prefix = left_aligned(address).checked_shl(prefix.into());
        if after_prefix.is_some_and(|bits| bits != 0) {
            return Err(wrong(&format!("bits after the first {prefix} are set")));
        }
        let first = address.to_canonical();
        // An IPv4 address in IPv6 form has 96 bits before it. The last of them are 1, so the prefix has them all.
        let prefix = prefix - (width(address) - width(first));
        Ok(Network { first, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() {
            return self.first.fmt(f);
        }
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_the_addresses_with_its_first_bits() {
        for (text, within, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.1/32", "10.0.0.1", "10.0.0.0"),
            ("0.0.0.0/0", "203.0.113.7", "2001:db8::1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("fd00::/8", "fdff::1", "fc00::1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
            ("::1", "::1", "::2"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
        ] {
            let network = network(text);
            assert!(network.contains(within.parse().unwrap()), "{text} {within}");
            assert!(
                !network.contains(outside.parse().unwrap()),
                "{text} {outside}"
            );
        }
    }

    #[test]
    fn a_network_is_printed_as_it_is_read() {
        for (text, printed) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1/32", "10.0.0.1"),
            ("fd00::/8", "fd00::/8"),
            ("::1/128", "::1"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(network(text).to_string(), printed);
            assert_eq!(network(printed), network(text));
        }
        assert_eq!(
            network("10.0.0.1"),
            IpAddr::from([10, 0, 0, 1]).into(),
            "a single address"
        );
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "does not begin with an address"),
            ("here", "does not begin with an address"),
            ("10.0.0/8", "does not begin with an address"),
            ("10.0.0.1:80", "does not begin with an address"),
            ("10.0.0.0/", "a number from 0 to 32"),
            ("10.0.0.0/33", "a number from 0 to 32"),
            ("10.0.0.0/+8", "a number from 0 to 32"),
            ("10.0.0.0/255.0.0.0", "a number from 0 to 32"),
            ("fd00::/129", "a number from 0 to 128"),
            ("10.0.0.1/8", "bits after the first 8 are set"),
            ("0.0.0.1/0", "bits after the first 0 are set"),
            ("::1/127", "bits after the first 127 are set"),
            ("::ffff:10.0.0.0/80", "bits after the first 80 are set"),
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidSetting);
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }
}
