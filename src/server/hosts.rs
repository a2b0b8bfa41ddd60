//! [`Hosts`]: the values of `Host` that a server answers to.
//!
//! A page of a foreign name whose address has become that of this server (DNS rebinding) counts as the server's own for the
//! browser. Only `Host`, which no page can set, tells that it asks for another name.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::address;
use super::request::Request;
use super::response::Response;
use crate::error::Error;

/// An entry of the list that stands for every host.
const ANY: &str = "*";

/// The hosts that a server answers to.
#[derive(Debug)]
pub(super) struct Hosts {
    /// What the setting lists, in lower case.
    listed: Vec<String>,
    /// The server listens on a loopback address, so that only programs of this machine reach it.
    is_loopback: bool,
    /// A request has been refused already.
    has_refused: AtomicBool,
}

impl Hosts {
    /// The hosts of the setting, for a server without an address.
    pub(super) fn new(listed: &[String]) -> Self {
        Hosts {
            listed: listed
                .iter()
                .map(|host| host.to_ascii_lowercase())
                .collect(),
            is_loopback: false,
            has_refused: AtomicBool::new(false),
        }
    }

    /// Adds the loopback names where the server listens on a loopback address. A Unix socket has the unspecified one.
    pub(super) fn listen_on(&mut self, address: SocketAddr) {
        self.is_loopback = address.ip().to_canonical().is_loopback();
    }

    /// Refuses a request for another host. 421, since the server is not the one that the request is meant for (RFC 9110,
    /// sections 7.4 and 15.5.20).
    ///
    /// # Errors
    ///
    /// The answer that refuses.
    pub(super) fn check(&self, request: &Request) -> Result<(), Response> {
        match request.authority() {
            Some(authority) if !self.allow(authority) => {
                let message = format!(
                    "this server does not answer for the host {authority:?}; ServerInfo::hosts lists those that it answers \
                     for{}",
                    if self.is_loopback {
                        ", besides the loopback names"
                    } else {
                        ""
                    }
                );
                // A proxy that passes its own host on is set up wrong once and for all requests.
                match self.has_refused.swap(true, Relaxed) {
                    false => {
                        log::warn!("{message}; further refusals are logged at the level debug")
                    }
                    true => log::debug!("{message}"),
                }
                Err(Response::error(421, &message))
            }
            _ => Ok(()),
        }
    }

    /// Whether the server answers for this host, with or without a port. A request of HTTP/1.0 may have none.
    fn allow(&self, authority: &str) -> bool {
        if authority.is_empty() || (self.listed.is_empty() && !self.is_loopback) {
            return true;
        }
        let authority = authority.to_ascii_lowercase();
        let given = Host::split(&authority);
        (self.is_loopback && given.is_loopback())
            || self
                .listed
                .iter()
                .any(|listed| listed == ANY || Host::split(listed).covers(&given))
    }
}

/// A host in lower case, and a port if there is one.
#[derive(Debug)]
struct Host<'a> {
    name: &'a str,
    port: Option<&'a str>,
}

impl<'a> Host<'a> {
    fn split(authority: &'a str) -> Self {
        let (name, port) = address::split_port(authority);
        // The dot at the end of a name without a search list.
        let name = name.strip_suffix('.').unwrap_or(name);
        Host { name, port }
    }

    fn address(&self) -> Option<IpAddr> {
        let unbracketed = || self.name.parse().ok().filter(IpAddr::is_ipv4);
        let bracketed = address::bracketed(self.name).map(IpAddr::from);
        bracketed.or_else(unbracketed)
    }

    /// RFC 6761, section 6.3: names below `localhost` are loopback addresses, too. No name server can give those names or
    /// these addresses to a foreign page.
    fn is_loopback(&self) -> bool {
        match self.address() {
            Some(address) => address.to_canonical().is_loopback(),
            None => self.name == "localhost" || self.name.ends_with(".localhost"),
        }
    }

    /// Whether an entry of the list covers the host of a request.
    fn covers(&self, given: &Host<'_>) -> bool {
        let is_port = match (self.port, given.port) {
            (None, _) => true,
            (Some(listed), Some(given)) => listed == given,
            // Which scheme a proxy speaks is not known.
            (Some(listed), None) => matches!(listed, "80" | "443"),
        };
        let is_name = match (self.name.strip_prefix('*'), self.address()) {
            (Some(domain), _) => given.name.len() > domain.len() && given.name.ends_with(domain),
            (None, Some(address)) => given.address() == Some(address),
            (None, None) => given.name == self.name,
        };
        is_port && is_name
    }
}

/// Checks the setting `hosts`.
///
/// # Errors
///
/// `InvalidSetting` that names the setting.
pub(super) fn check(listed: &[String]) -> Result<(), Error> {
    let is_valid = |entry: &str| {
        let host = Host::split(entry);
        let is_port = host
            .port
            .is_none_or(|port| address::port_number(port).is_some());
        let name = host.name.strip_prefix("*.").unwrap_or(host.name);
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        is_port && (is_name || host.address().is_some())
    };
    match listed
        .iter()
        .find(|entry| *entry != ANY && !is_valid(entry))
    {
        None => Ok(()),
        Some(entry) => {
            let problem = format!(
                "{entry:?} is not a host; give a name or an address with or without a port, such as \"events.example.com\", \
                 \"*.example.com\" or \"[::1]:8080\", without a scheme and a path, or \"*\" for every host"
            );
            Err(Error::setting("hosts", problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listed: &[&str], address: Option<&str>) -> Hosts {
        let listed: Vec<String> = listed.iter().map(|host| host.to_string()).collect();
        check(&listed).unwrap();
        let mut hosts = Hosts::new(&listed);
        if let Some(address) = address {
            hosts.listen_on(address.parse().unwrap());
        }
        hosts
    }

    /// Hosts that reach a loopback address, and those that a name server can give to a foreign page.
    const LOOPBACK: [&str; 12] = [
        "localhost",
        "localhost:8080",
        "LOCALHOST",
        "localhost.",
        "chat.localhost:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.1.2.3",
        "[::1]",
        "[::1]:8080",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
    ];
    const FOREIGN: [&str; 12] = [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "[2001:db8::1]",
        "0.0.0.0",
        "[::]",
        "localhost:8080:8080",
        "[::1",
        "::1",
    ];

    #[test]
    fn a_loopback_address_has_the_loopback_names_and_what_is_listed() {
        for address in [
            "127.0.0.1:8080",
            "[::1]:1",
            "127.0.0.2:80",
            "[::ffff:127.0.0.1]:80",
        ] {
            for listed in [&[][..], &["app.example"]] {
                let hosts = hosts(listed, Some(address));
                for host in LOOPBACK {
                    assert!(hosts.allow(host), "{host} at {address}");
                }
                for host in FOREIGN {
                    assert!(!hosts.allow(host), "{host} at {address}");
                }
                assert_eq!(hosts.allow("app.example"), !listed.is_empty());
            }
        }
    }

    #[test]
    fn other_addresses_have_what_is_listed_and_every_host_without_a_list() {
        for address in [
            None,
            Some("0.0.0.0:0"),
            Some("[::]:80"),
            Some("192.0.2.1:80"),
        ] {
            let all = hosts(&[], address);
            let one = hosts(&["app.example"], address);
            let any = hosts(&["*"], address);
            for host in LOOPBACK.iter().chain(&FOREIGN) {
                assert!(all.allow(host) && any.allow(host), "{host} at {address:?}");
                assert!(!one.allow(host), "{host} at {address:?}");
            }
            assert!(one.allow("app.example") && one.allow(""));
        }
        let any = hosts(&["*"], Some("127.0.0.1:80"));
        assert!(FOREIGN.iter().all(|host| any.allow(host)));
    }

    #[test]
    fn an_entry_covers_names_without_case_addresses_by_value_and_ports_if_it_has_one() {
        for (listed, host, covers) in [
            ("App.Example", "aPP.example:1", true),
            ("app.example", "app.example.", true),
            ("app.example.", "app.example", true),
            ("app.example", "xapp.example", false),
            ("app.example", "app.example.evil.example", false),
            ("app.example:8080", "app.example:8080", true),
            ("app.example:8080", "app.example:8081", false),
            ("app.example:8080", "app.example", false),
            ("app.example:443", "app.example", true),
            ("app.example:80", "app.example", true),
            ("*.app.example", "a.app.example", true),
            ("*.app.example", "a.b.app.example:1", true),
            ("*.app.example", "app.example", false),
            ("*.app.example", ".app.example", false),
            ("*.app.example", "xapp.example", false),
            ("[2001:db8::1]", "[2001:DB8:0::1]:80", true),
            ("[2001:db8::1]:80", "[2001:db8::1]:81", false),
            ("192.0.2.1", "192.0.2.1:80", true),
            ("192.0.2.1", "192.0.2.10", false),
        ] {
            let allowed = hosts(&[listed], None).allow(host);
            assert_eq!(allowed, covers, "{host} by {listed}");
        }
    }

    #[test]
    fn an_entry_that_is_no_host_is_named() {
        for entry in [
            "",
            "http://app.example",
            "app.example/",
            "app.example:",
            "app.example:080",
            "app.example:65536",
            "bücher.example",
            "::1",
            "[::1",
            "[app.example]",
            "*.",
            "a.*.example",
            "user@app.example",
            "a b",
            ".",
        ] {
            let error = check(&["ok.example".into(), entry.into()]).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(&format!("hosts: {entry:?}")), "{text}");
        }
    }
}
