//! [`Request`]: one HTTP request, in the form that the endpoints and the hooks use.
//!
//! A backend makes one at its entry, by [`Request::parse`]. Its body comes later, when the endpoints ask for it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::OnceLock;

use percent_encoding::percent_decode_str;

use super::forwarded::{TrustedProxies, client_address};
use crate::broker::Broker;
use crate::error::Error;
use crate::headers::Headers;
use crate::wire::{Categories, check_subscriber};

/// A request, as handlers and the fallback see it.
///
/// In a program's own tests, one can be made without a socket:
///
/// ```
/// use long_polling::server::{Handler, Request};
///
/// let handler = Handler::bearer_token("secret");
/// let request = Request::new("GET", "/events?category=a&timeout=1")
///     .with_header("Authorization", "Bearer secret");
/// assert!(handler.run(&request).is_ok());
/// assert_eq!(
///     handler
///         .run(&Request::new("GET", "/events"))
///         .unwrap_err()
///         .status,
///     401
/// );
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until a hook runs on it"]
pub struct Request {
    pub(super) method: Cow<'static, str>,
    /// The target as it came, such as `/events?category=a`.
    pub(super) target: String,
    /// Where host and port are in a target that is a URL.
    authority: Option<Range<usize>>,
    /// Where the path is in the target.
    raw_path: Range<usize>,
    /// The path, decoded, where that is another text than in the target.
    decoded_path: Option<String>,
    /// Where the query is in the target.
    query: Range<usize>,
    /// Major and minor version of HTTP.
    pub(super) version: (u8, u8),
    pub(super) headers: Headers,
    remote_address: Option<SocketAddr>,
    pub(super) categories: Categories,
    pub(super) data: Option<String>,
    pub(super) body: Vec<u8>,
    /// Set before a hook runs.
    pub(super) broker: Option<Broker>,
    /// The name that a hook has given the client.
    identity: OnceLock<String>,
}

impl Request {
    /// A request of this method and target, such as `"/events?category=a"`.
    pub fn new(method: &str, target: &str) -> Self {
        let nobody = TrustedProxies::default();
        Request::parse(method, target, (1, 1), Headers::new(), None, &nobody)
    }

    /// The request of this head. `peer` is the address that the connection came from, `None` for a Unix socket. What is wrong
    /// with the head is found by [`fault`](Request::fault), [`body_length`](Request::body_length) and
    /// [`check`](Request::check).
    pub(super) fn parse(
        method: &str,
        target: &str,
        version: (u8, u8),
        headers: Headers,
        peer: Option<SocketAddr>,
        trusted_proxies: &TrustedProxies,
    ) -> Self {
        let (authority, raw_path, query) = parts(target);
        let encoded = &target[raw_path.clone()];
        let decoded_path = match encoded {
            "" => Some("/".into()),
            _ if encoded.contains('%') => {
                let decoded = percent_decode_str(encoded).decode_utf8_lossy();
                Some(decoded.into_owned())
            }
            _ => None,
        };
        Request {
            method: known_method(method).map_or_else(|| method.to_owned().into(), Cow::Borrowed),
            target: target.into(),
            authority,
            raw_path,
            decoded_path,
            query,
            version,
            remote_address: client_address(peer, &headers, trusted_proxies),
            headers,
            categories: Categories::default(),
            data: None,
            body: Vec::new(),
            broker: None,
            identity: OnceLock::new(),
        }
    }

    /// Sets a header field: replaces all fields of this name.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.set(name, value);
        self
    }

    /// Adds a header field after the others. Fields of the same name stay.
    pub fn with_added_header(mut self, name: &str, value: &str) -> Self {
        self.headers.add(name, value);
        self
    }

    /// Sets the body, as the client sent it: for [`Endpoints`](crate::server::Endpoints) and for tests of a fallback.
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the address that the connection came from. Defaults to none, as on a Unix socket.
    pub fn with_remote_address(mut self, address: SocketAddr) -> Self {
        self.remote_address = Some(address);
        self
    }

    /// Completes a request that the program's own HTTP server has received. Its remote address is that of the connection
    /// until then.
    pub(super) fn received(&mut self, trusted_proxies: &TrustedProxies) {
        self.remote_address = client_address(self.remote_address, &self.headers, trusted_proxies);
        if self.headers.get("Host").is_none() {
            // That server decides whether a request needs the field. HTTP/1.0 does not.
            self.version = (1, 0);
        }
    }

    /// The same request, as a publish of `data` (JSON text) to a category.
    pub fn with_publish(mut self, category: &str, data: &str) -> Self {
        self.categories = category.into();
        self.data = Some(data.into());
        self
    }

    /// The same request, to a server with this broker: for tests of hooks that use [`broker`](Request::broker).
    ///
    /// ```
    /// use long_polling::server::{Handler, Request, Response};
    /// use long_polling::{Broker, BrokerOptions};
    ///
    /// let handler = Handler::with_broker(|_, broker| match broker.statistics().parked {
    ///     0..100 => Ok(()),
    ///     _ => Err(Response::error(503, "too many subscribers")),
    /// });
    /// let broker = Broker::new(BrokerOptions::new())?;
    /// assert!(handler.run(&Request::new("GET", "/events").with_broker(broker)).is_ok());
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn with_broker(mut self, broker: Broker) -> Self {
        self.broker = Some(broker);
        self
    }

    /// The method, such as `GET`. A fallback sees `GET` for HEAD, too, unless it has
    /// [`with_head`](crate::server::Fallback::with_head).
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path, percent-decoded.
    pub fn path(&self) -> &str {
        self.decoded_path
            .as_deref()
            .unwrap_or(&self.target[self.raw_path.clone()])
    }

    /// Host and port as the client names them: those of a target that is a URL, else those of `Host` (RFC 9112, section 3.2.2).
    pub(super) fn authority(&self) -> Option<&str> {
        match &self.authority {
            Some(authority) => Some(&self.target[authority.clone()]),
            None => self.header("Host"),
        }
    }

    /// The text after the `?`, as it came; empty where there is none.
    pub fn query(&self) -> &str {
        &self.target[self.query.clone()]
    }

    /// The header fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The first header field of this name, compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The address that the connection came from. Where that is one of the
    /// [`trusted_proxies`](crate::ServerInfo::trusted_proxies), it is the last address in `X-Forwarded-For` that is not
    /// one of them, with port 0 where the proxy gave none. An entry that is no address ends the search; then, and where
    /// the field is missing, it is the address of the farthest proxy that is known.
    ///
    /// `None` on a Unix socket, whose peers have no address, unless the server
    /// [trusts them](crate::ServerInfo::trust_unix_peers) as proxies; then it is looked for in `X-Forwarded-For`, too.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.remote_address
    }

    /// The categories that a poll follows, or the one that a publish goes to. Without a category: not a poll or a
    /// publish.
    pub fn categories(&self) -> &Categories {
        &self.categories
    }

    /// The category of a publish, or the first of a poll.
    pub fn category(&self) -> Option<&str> {
        self.categories.iter().next()
    }

    /// The data of a publish, as JSON text.
    pub fn data(&self) -> Option<&str> {
        self.data.as_deref()
    }

    /// The body, for the fallback: at most [`max_body_size`](crate::ServerInfo::max_body_size) bytes. A publish's is in
    /// [`category`](Request::category) and [`data`](Request::data).
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The broker of the server, by which a hook publishes, subscribes and reads statistics. `None` only for a request of
    /// [`new`](Request::new) without [`with_broker`](Request::with_broker).
    ///
    /// ```
    /// use long_polling::ServerInfo;
    /// use long_polling::server::{Request, Response};
    ///
    /// let info = ServerInfo::default().fallback(|request: &Request| {
    ///     match (request.path(), request.broker()) {
    ///         ("/statistics", Some(broker)) => Response::json(200, &broker.statistics()),
    ///         _ => Response::error(404, "not found"),
    ///     }
    /// });
    /// ```
    ///
    /// A hook that waits for events or publishes takes part like every other user of the broker; a publish from a hook runs
    /// no hooks.
    pub fn broker(&self) -> Option<&Broker> {
        self.broker.as_ref()
    }

    /// Names the client of a poll, for a hook [`before_subscription`](crate::ServerInfo::before_subscription) that knows who
    /// it is. With [`BrokerOptions::presence`](crate::BrokerOptions::presence), all polls of one name count as one client,
    /// and the parameter `subscriber`, which any client could give, has no effect. A second call changes nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use long_polling::server::{Request, Response};
    /// use long_polling::{BrokerOptions, ServerInfo};
    ///
    /// fn sign_in(request: &Request) -> Result<(), Response> {
    ///     let user = request
    ///         .header("X-User")
    ///         .ok_or_else(|| Response::error(401, "sign in first"))?;
    ///     request.identify(user)?;
    ///     Ok(())
    /// }
    ///
    /// let presence = Duration::from_secs(10);
    /// let info = ServerInfo::default()
    ///     .before_subscription(sign_in)
    ///     .broker(BrokerOptions::new().presence(presence));
    ///
    /// let request = Request::new("GET", "/events").with_header("X-User", "alice");
    /// assert!(sign_in(&request).is_ok());
    /// assert_eq!(request.identity(), Some("alice"));
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a name that does not have 1 to 255 bytes.
    pub fn identify(&self, name: impl Into<String>) -> Result<(), Error> {
        let name = name.into();
        check_subscriber(&name)?;
        let _ = self.identity.set(name);
        Ok(())
    }

    /// Returns the name that a hook has given the client by [`identify`](Request::identify).
    pub fn identity(&self) -> Option<&str> {
        self.identity.get().map(String::as_str)
    }
}

impl Default for Request {
    /// `GET /`.
    fn default() -> Self {
        Request::new("GET", "/")
    }
}

/// Where authority, path and query are in a target, of either form that a server gets (RFC 9112, section 3.2): `/path?query`
/// or `http://host/path?query`. An empty path stands for `/`.
fn parts(target: &str) -> (Option<Range<usize>>, Range<usize>, Range<usize>) {
    let end = target.len();
    let authority = match target.starts_with('/') {
        true => None,
        false => target.find("://").map(|scheme| scheme + "://".len()),
    };
    // The path of a URL may be empty: `http://host?query`.
    let start = authority.map_or(0, |at| {
        target[at..]
            .find(['/', '?'])
            .map_or(end, |found| at + found)
    });
    let authority = authority.map(|at| {
        let user = target[at..start].rfind('@').map_or(0, |user| user + 1);
        at + user..start
    });
    match target[start..].find('?') {
        Some(at) => (authority, start..start + at, start + at + 1..end),
        None => (authority, start..end, end..end),
    }
}

/// The methods that need no text of their own in each request.
fn known_method(method: &str) -> Option<&'static str> {
    let known = ["GET", "POST", "HEAD", "OPTIONS", "DELETE"];
    known.into_iter().find(|known| *known == method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_path_or_a_url_and_its_path_is_decoded() {
        for (target, path, query) in [
            ("/events?category=a%20b", "/events", "category=a%20b"),
            ("/a%20b", "/a b", ""),
            ("http://host/events?x?y", "/events", "x?y"),
            ("http://host?x", "/", "x"),
            ("http://host", "/", ""),
            ("/a?url=http://host/b", "/a", "url=http://host/b"),
            ("*", "*", ""),
        ] {
            let request = Request::new("GET", target);
            assert_eq!((request.path(), request.query()), (path, query), "{target}");
        }
    }

    #[test]
    fn the_authority_is_that_of_a_url_or_of_the_field_host() {
        for (target, authority) in [
            ("/events", "field:1"),
            ("/a?url=http://other/", "field:1"),
            ("*", "field:1"),
            ("http://url:2/events", "url:2"),
            ("http://url?x@y", "url"),
            ("http://user:word@url:2", "url:2"),
            ("http:///events", ""),
        ] {
            let request = Request::new("GET", target).with_header("Host", "field:1");
            assert_eq!(request.authority(), Some(authority), "{target}");
        }
        assert_eq!(Request::new("GET", "/").authority(), None);
    }
}
