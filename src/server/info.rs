//! [`ServerInfo`]: the settings of a server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::hooks::{Fallback, Handler};
use crate::broker::BrokerOptions;
use crate::error::Error;
use crate::position::Cursor;

/// The settings of a server: the Go package's `ServerInfo`, with golongpoll's options and limits.
///
/// No setting keeps the server from a request line with `HTTP/2.0`, from header lines or pipelined requests without end,
/// or from a client that sends byte by byte: the HTTP library under it reads those before it tells of them. Only a proxy
/// stops them; README, "Deploying", has a configuration of nginx that is tested to.
///
/// ```
/// use std::time::Duration;
/// use long_polling::server::{Handler, ServerInfo};
///
/// let info = ServerInfo {
///     address: ":8080".into(),
///     timeout: Duration::from_secs(60),
///     handler_to_run_before_publish: Some(Handler::bearer_token("secret")),
///     ..ServerInfo::default()
/// };
/// ```
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// Where to listen: `"127.0.0.1:8080"`, `"[::1]:0"`, `"localhost:8080"`, or `":8080"` for every address of the
    /// machine. A link-local IPv6 address needs its zone, the interface's name or number: `"[fe80::1%eth0]:8080"`. Port 0 takes a free one; see [`Server::local_address`](crate::Server::local_address). Defaults to
    /// `"127.0.0.1:8080"`.
    pub address: String,
    /// The longest poll that is granted; a client that asks for more gets this. The Go package's `TimeoutSeconds`. Defaults
    /// to 120 seconds.
    pub timeout: Duration,
    /// The path of polls. The Go package's `SubscriptionURI`. Defaults to `"/events"`.
    pub subscription_uri: String,
    /// Runs before each poll. Defaults to `None`.
    pub handler_to_run_before_subscription: Option<Handler>,
    /// The path of publishes. The Go package's `PublishURI`. Defaults to `"/publish"`.
    pub publish_uri: String,
    /// Runs before each publish. Defaults to `None`: whoever reaches the server may publish.
    pub handler_to_run_before_publish: Option<Handler>,
    /// Answers every other path. Defaults to `None`: 404.
    pub fallback: Option<Fallback>,
    /// How a poll is answered that timed out. Defaults to 204, the Go package's way.
    pub timeout_answer: TimeoutAnswer,
    /// Where a poll without a cursor starts. Defaults to now.
    pub poll_without_cursor: PollWithoutCursor,
    /// What the broker keeps, and its limits.
    pub broker: BrokerOptions,
    /// The web page origin (`"https://example.com"`, or `"*"`) from which browsers may poll and publish; also answers
    /// their preflight requests (the Fetch standard's CORS protocol). Browsers compare the text: an origin that no browser
    /// sends, such as one with a path, is refused. Defaults to `None`: pages of the same origin only.
    pub cors_origin: Option<String>,
    /// How long a connection may say nothing, or stop in the middle of a request, before it is closed. Defaults to
    /// `None`: [`timeout`](ServerInfo::timeout) and 10 seconds. Less than the timeout is fine: a parked poll is still
    /// answered, and its connection then closed.
    pub idle_timeout: Option<Duration>,
    /// How long an answer may wait for a client that does not read. Defaults to 10 seconds.
    pub write_timeout: Duration,
    /// For how long accepting connections may fail (for lack of descriptors, for example) before the failure callback runs.
    /// The server tries to accept again before and after. Defaults to 30 seconds.
    pub restore_timeout: Duration,
    /// The proxies before the server, whose word about where a request came from is taken: where a connection comes from
    /// one of these addresses, [`Request::remote_address`](crate::server::Request::remote_address) is what
    /// `X-Forwarded-For` tells. Every program that can connect from one of them can claim any address, and so can every
    /// client of a proxy that hands the field on as it came: it must set it, or append to it (README, "Deploying").
    /// Defaults to none: the field is ignored, since anybody can send it.
    pub trusted_proxies: Vec<IpAddr>,
}

/// How a poll is answered that timed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutAnswer {
    /// 204 without a body: the Go package's way.
    #[default]
    NoContent,
    /// 200 with `{"timeout":"no events before timeout","timestamp":…}`: golongpoll's way, for its clients, of which the
    /// Go one sleeps for 30 seconds after a 204.
    Golongpoll,
}

/// Where a poll without `since_time` and `last_id` starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PollWithoutCursor {
    /// With what is published from now on: golongpoll's way.
    #[default]
    Now,
    /// With the oldest event still buffered: what the test in the Go package's README expects.
    Oldest,
}

impl From<PollWithoutCursor> for Cursor {
    fn from(start: PollWithoutCursor) -> Self {
        match start {
            PollWithoutCursor::Now => Cursor::Now,
            PollWithoutCursor::Oldest => Cursor::Oldest,
        }
    }
}

impl Default for ServerInfo {
    fn default() -> Self {
        ServerInfo {
            address: "127.0.0.1:8080".into(),
            timeout: Duration::from_secs(120),
            subscription_uri: "/events".into(),
            handler_to_run_before_subscription: None,
            publish_uri: "/publish".into(),
            handler_to_run_before_publish: None,
            fallback: None,
            timeout_answer: TimeoutAnswer::default(),
            poll_without_cursor: PollWithoutCursor::default(),
            broker: BrokerOptions::default(),
            cors_origin: None,
            idle_timeout: None,
            write_timeout: Duration::from_secs(10),
            restore_timeout: Duration::from_secs(30),
            trusted_proxies: Vec::new(),
        }
    }
}

impl ServerInfo {
    /// # Errors
    ///
    /// `InvalidSetting` that names the setting.
    pub(super) fn check(&self) -> Result<(), Error> {
        for (name, uri) in [
            ("subscription_uri", &self.subscription_uri),
            ("publish_uri", &self.publish_uri),
        ] {
            if !uri.starts_with('/') {
                return Err(Error::setting(
                    name,
                    format!("{uri:?} does not begin with \"/\""),
                ));
            }
            if uri.split('/').any(|segment| matches!(segment, "." | "..")) {
                return Err(Error::setting(
                    name,
                    format!(
                        "{uri:?} has a segment \".\" or \"..\", which clients resolve before they ask; leave it out"
                    ),
                ));
            }
            if uri.contains(['?', '#', '%']) || uri.contains(|c: char| c.is_control()) {
                return Err(Error::setting(
                    name,
                    format!("{uri:?} is not a path: give it decoded, without a query"),
                ));
            }
        }
        if self.subscription_uri == self.publish_uri {
            let uri = &self.publish_uri;
            return Err(Error::setting(
                "publish_uri",
                format!("{uri:?} is the subscription_uri, too; give another"),
            ));
        }
        for (name, duration) in [
            ("timeout", Some(self.timeout)),
            ("idle_timeout", self.idle_timeout),
            ("write_timeout", Some(self.write_timeout)),
        ] {
            match duration {
                Some(duration) if duration.is_zero() => {
                    return Err(Error::setting(name, "is zero; give a duration"));
                }
                Some(duration) if duration > Duration::from_secs(u32::MAX.into()) => {
                    return Err(Error::setting(name, "is longer than a century"));
                }
                _ => {}
            }
        }
        if self.idle_timeout() < Duration::from_millis(100) {
            return Err(Error::setting(
                "idle_timeout",
                "is under 100 milliseconds, so that hardly a request would arrive whole",
            ));
        }
        if self.timeout < Duration::from_secs(1) {
            return Err(Error::setting(
                "timeout",
                "is under one second, the shortest poll that a client can ask for",
            ));
        }
        self.check_hooks()?;
        if let Some(origin) = &self.cors_origin
            && !is_origin(origin)
        {
            return Err(Error::setting(
                "cors_origin",
                format!(
                    "{origin:?} is not an origin as browsers send it, such as \"https://example.com\" or \"*\": one scheme and \
                     host in lower case, a port where it is not the scheme's own, no path"
                ),
            ));
        }
        if let Some(proxy) = self.trusted_proxies.iter().find(|ip| ip.is_unspecified()) {
            return Err(Error::setting(
                "trusted_proxies",
                format!(
                    "{proxy} is the address of no proxy; list the addresses that proxies connect from"
                ),
            ));
        }
        self.broker.check()
    }

    fn check_hooks(&self) -> Result<(), Error> {
        for (name, handler) in [
            (
                "handler_to_run_before_subscription",
                &self.handler_to_run_before_subscription,
            ),
            (
                "handler_to_run_before_publish",
                &self.handler_to_run_before_publish,
            ),
        ] {
            if let Some(fault) = handler.as_ref().and_then(Handler::fault) {
                return Err(Error::setting(name, fault));
            }
        }
        Ok(())
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
            .unwrap_or(self.timeout + Duration::from_secs(10))
    }

    /// The addresses to try, in order.
    ///
    /// # Errors
    ///
    /// `InvalidSetting` where the address is none.
    pub(super) fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        let address = self.address.as_str();
        let hint = if address.contains('%') {
            "give [ADDRESS%ZONE]:PORT, such as [fe80::1%eth0]:8080, with the name or number of an interface of this machine"
        } else {
            "give HOST:PORT, such as 127.0.0.1:8080, [::1]:0 or :8080"
        };
        if let Some(port) = address.strip_prefix(':') {
            let port: u16 = port.parse().map_err(|_| {
                Error::setting("address", format!("{address:?} has no port; {hint}"))
            })?;
            let every: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
            return Ok(every.map(|every| (every, port).into()).to_vec());
        }
        let wrong = |error: std::io::Error| {
            Error::setting("address", format!("{address:?}: {hint}")).because(error)
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

/// Whether this is an origin as browsers serialize it (the URL standard, "origin"), or `*`. Browsers compare the whole text,
/// so any other form would never match.
fn is_origin(origin: &str) -> bool {
    if matches!(origin, "*" | "null") {
        return true;
    }
    let Some((scheme, rest)) = origin.split_once("://") else {
        return false;
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| is_lower(byte) || b"+-.".contains(&byte));
    let is_host = match host.strip_prefix('[') {
        Some(address) => address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| is_lower(byte) || b"-._~!$&'()+;=".contains(&byte))
        }
    };
    let is_port = port.is_none_or(|port| {
        let usual = match scheme {
            "http" => 80,
            "https" => 443,
            _ => 0,
        };
        port.parse::<u16>()
            .is_ok_and(|number| number != usual && number.to_string() == port)
    });
    is_scheme && is_host && is_port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(address: &str) -> Result<Vec<SocketAddr>, Error> {
        let address = address.into();
        ServerInfo {
            address,
            ..ServerInfo::default()
        }
        .addresses()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_ipv6_zone_is_the_name_or_the_number_of_an_interface() {
        // The loopback interface is the first one of every network namespace.
        for address in ["[fe80::1%lo]:8080", "[fe80::1%1]:8080"] {
            let [SocketAddr::V6(parsed)] = addresses(address).unwrap()[..] else {
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
            let error = addresses(wrong).unwrap_err();
            let words = error.to_string();
            assert!(words.starts_with("address: "), "{words}");
            assert!(words.contains("ZONE"), "{words}");
        }
    }

    #[test]
    fn an_origin_has_the_form_in_which_browsers_send_it() {
        for origin in [
            "*",
            "null",
            "https://example.com",
            "http://example.com:8080",
            "https://xn--bcher-kva.example",
            "http://127.0.0.1:3000",
            "http://[::1]:3000",
            "http://[::1]",
            "capacitor://localhost",
            "chrome-extension://abcdefghijklmnop",
        ] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in [
            "",
            "example.com",
            "https://",
            "https://example.com/",
            "https://example.com:443",
            "http://example.com:80",
            "http://example.com:080",
            "http://example.com:x",
            "HTTPS://example.com",
            "https://Example.com",
            "https://bücher.example",
            "https://a.example, https://b.example",
            "https://*.example.com",
            " https://example.com",
            "https://example.com\n",
            "https://user@example.com",
            "a\r\nb",
        ] {
            assert!(!is_origin(origin), "{origin}");
        }
    }
}
