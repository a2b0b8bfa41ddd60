//! The client's own agent. It adds to ureq: HTTP proxies that get requests in absolute form, and IPv6 zones.

use std::net::ToSocketAddrs;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};
use ureq::{Agent, Error};

use super::url::ZONE_MARK;

/// Creates an agent without a proxy. Each request sets its own proxy, if any.
pub(crate) fn new_agent() -> Agent {
    let config = Agent::config_builder()
        .user_agent(concat!("long-polling/", env!("CARGO_PKG_VERSION")))
        .max_idle_connections_per_host(10)
        .proxy(None)
        .build();
    let connector = ProxyConnector {
        inner: DefaultConnector::default(),
        direct: config.clone(),
    };
    Agent::with_parts(config, connector, ZoneResolver::default())
}

/// Connects to an HTTP proxy for `http` without `CONNECT`, which many proxies allow for port 443 only. ureq's own connector
/// does everything else, and uses `CONNECT` for every proxy.
#[derive(Debug)]
struct ProxyConnector {
    inner: DefaultConnector,
    /// The configuration for the connection to the proxy itself.
    direct: Config,
}

impl Connector for ProxyConnector {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let proxy = details.config.proxy().filter(|_| !details.needs_tls());
        let (Some(proxy), Some(target)) = (proxy, details.uri.authority()) else {
            return self.inner.connect(details, chained);
        };
        let resolver = details.resolver;
        let to_proxy = ConnectionDetails {
            uri: proxy.uri(),
            addrs: resolver.resolve(proxy.uri(), &self.direct, details.timeout)?,
            config: &self.direct,
            request_level: details.request_level,
            resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        Ok(Some(Box::new(AbsoluteForm {
            inner: (details.run_connector)(&to_proxy)?,
            origin: format!("http://{target}"),
            before_head: true,
        })))
    }
}

/// A connection to a proxy. It writes the target of each request in absolute form (RFC 9112, section 3.2.2), which ureq
/// can't do.
#[derive(Debug)]
struct AbsoluteForm {
    inner: Box<dyn Transport>,
    /// The origin of all requests on this connection. ureq's pool reuses a connection for the same origin only.
    origin: String,
    /// `true` if the next output is the head of a request: nothing was sent yet, or a response was read since.
    before_head: bool,
}

impl Transport for AbsoluteForm {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if !std::mem::take(&mut self.before_head) {
            return self.inner.transmit_output(amount, timeout);
        }
        let sent = self.inner.buffers().output().get(..amount);
        let head = in_absolute_form(sent.unwrap_or_default(), &self.origin);
        let mut left = &head[..];
        while !left.is_empty() {
            let output = self.inner.buffers().output();
            let (now, rest) = left.split_at(left.len().min(output.len()));
            output[..now.len()].copy_from_slice(now);
            self.inner.transmit_output(now.len(), timeout)?;
            left = rest;
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.before_head = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// Changes the target in the head of a request. Other bytes, such as a body after an interim response (100), stay the same.
fn in_absolute_form(bytes: &[u8], origin: &str) -> Vec<u8> {
    let heads = [&b"GET /"[..], b"POST /", b"OPTIONS /"];
    match heads.iter().find(|head| bytes.starts_with(head)) {
        Some(head) => {
            let (method, target) = bytes.split_at(head.len() - 1);
            [method, origin.as_bytes(), target].concat()
        }
        None => bytes.to_vec(),
    }
}

/// A resolver that also accepts IPv6 addresses with a zone, and has the system resolve the name of the interface.
#[derive(Debug, Default)]
struct ZoneResolver {
    inner: DefaultResolver,
}

impl Resolver for ZoneResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default();
        let address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let Some(address) = address.filter(|address| address.contains(ZONE_MARK)) else {
            return self.inner.resolve(uri, config, timeout);
        };
        let port = uri.port_u16().unwrap_or(80);
        let address = address.replace(ZONE_MARK, "%");
        let mut addresses = self.empty();
        // The address is numeric, so the system queries no name server.
        if let Some(resolved) = (address.as_str(), port).to_socket_addrs()?.next() {
            addresses.push(resolved);
        }
        match addresses.is_empty() {
            true => Err(Error::HostNotFound),
            false => Ok(addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_head_of_a_request_changes() {
        for (sent, expected) in [
            ("GET /a?b HTTP/1.1\r\n", "GET http://h:1/a?b HTTP/1.1\r\n"),
            ("POST / HTTP/1.1\r\n", "POST http://h:1/ HTTP/1.1\r\n"),
            ("OPTIONS /a HTTP/1.1", "OPTIONS http://h:1/a HTTP/1.1"),
            (r#"{"category":"c"}"#, r#"{"category":"c"}"#),
            ("", ""),
        ] {
            let written = in_absolute_form(sent.as_bytes(), "http://h:1");
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_zone_is_the_name_or_number_of_an_interface() {
        let resolver = ZoneResolver::default();
        let (config, timeout) = (Config::default(), NextTimeout::default());
        for zone in ["lo", "1"] {
            let uri: Uri = format!("http://[fe80::1~{zone}]:8080/").parse().unwrap();
            let found = resolver.resolve(&uri, &config, timeout).unwrap();
            assert_eq!(found[0].to_string(), "[fe80::1%1]:8080");
        }
        let uri: Uri = "http://[fe80::1~nosuch0]/".parse().unwrap();
        assert!(resolver.resolve(&uri, &config, timeout).is_err());
    }
}
