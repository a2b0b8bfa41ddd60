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
    /// machine. Port 0 takes a free one; see [`Server::local_address`](crate::Server::local_address). Defaults to
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
    /// their preflight requests (the Fetch standard's CORS protocol). Defaults to `None`: pages of the same origin only.
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
        if self
            .cors_origin
            .as_ref()
            .is_some_and(|origin| origin.is_empty() || !super::reply::is_field_value(origin))
        {
            return Err(Error::setting(
                "cors_origin",
                "is not an origin such as \"https://example.com\" or \"*\"",
            ));
        }
        self.broker.check()
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
        let hint = "give HOST:PORT, such as 127.0.0.1:8080, [::1]:0 or :8080";
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
        let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(wrong)?.collect();
        if addresses.is_empty() {
            return Err(Error::setting(
                "address",
                format!("{address:?} is not known; {hint}"),
            ));
        }
        Ok(addresses)
    }
}
