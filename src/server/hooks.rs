//! What an embedding program adds to the server: [`Handler`]s that run before a poll or a publish, and the
//! [`Fallback`] for every other path; with the [`Request`] that they see and the [`Response`] that they give.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use subtle::ConstantTimeEq;

use crate::headers::Headers;
use crate::wire::{Categories, render_error};

/// A request, as handlers and the fallback see it.
///
/// In a program's own tests, one can be made without a socket:
///
/// ```
/// use long_polling::server::{Handler, Request};
///
/// let handler = Handler::bearer_token("secret");
/// let request = Request::new("GET", "/events?category=a&timeout=1").with_header("Authorization", "Bearer secret");
/// assert!(handler.run(&request).is_ok());
/// assert_eq!(handler.run(&Request::new("GET", "/events")).unwrap_err().status, 401);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: Headers,
    pub(super) remote_address: Option<SocketAddr>,
    pub(super) categories: Categories,
    pub(super) data: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// A request of this method and target, such as `"/events?category=a"`.
    pub fn new(method: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Request {
            method: method.into(),
            path: path.into(),
            query: query.into(),
            ..Request::default()
        }
    }

    /// The same, with one more header field.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.add(name, value);
        self
    }

    /// The same, as a publish of `data` (JSON text) to a category.
    pub fn with_publish(mut self, category: &str, data: &str) -> Self {
        self.categories = category.into();
        self.data = Some(data.into());
        self
    }

    /// The method, such as `GET`.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path, percent-decoded.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What stands after the `?`, as it came; empty where there is none.
    pub fn query(&self) -> &str {
        &self.query
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
    /// one of them, with port 0 where the proxy told none. An entry that is no address ends the search; then, and where
    /// the field is missing, it is the address of the farthest proxy that is known.
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

    /// The body, for the fallback. A publish's is in [`category`](Request::category) and [`data`](Request::data).
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Where a request came from. Each trusted proxy has appended to `X-Forwarded-For` whom it had the request from, so the
/// way back begins at the end; what stands before the word of the first stranger is that stranger's, and worth nothing.
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
    // Several fields of one name are one list (RFC 9110, section 5.3).
    let fields: Vec<&str> = headers.get_all("X-Forwarded-For").collect();
    for entry in fields.iter().rev().flat_map(|field| field.rsplit(',')) {
        match forwarded(entry.trim()) {
            Some(before) if is_trusted(client) => client = canonical(before),
            _ => break,
        }
    }
    client
}

/// An entry of `X-Forwarded-For`: IPv4 or IPv6, the latter with or without brackets, and perhaps a port.
fn forwarded(entry: &str) -> Option<SocketAddr> {
    let unbracketed = || {
        let bare = entry.strip_prefix('[')?.strip_suffix(']')?;
        bare.parse::<Ipv6Addr>().ok().map(IpAddr::from)
    };
    let without_port = || entry.parse().ok().or_else(unbracketed);
    let parsed = entry.parse().ok();
    parsed.or_else(|| Some((without_port()?, 0).into()))
}

/// An answer that a handler or the fallback gives.
///
/// ```
/// use long_polling::server::Response;
///
/// let response = Response::text(503, "closed for today").with_header("Retry-After", "3600");
/// assert_eq!(response.headers.get("Content-Type"), Some("text/plain; charset=utf-8"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status, 200 to 599; anything else is sent as 500.
    pub status: u16,
    /// Header fields. The server adds those that frame the message (`Content-Length`, `Connection`, `Date`), and those
    /// against caching where there is no `Cache-Control`. A field that could not be sent as one line is left out.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer without a body.
    pub fn new(status: u16) -> Self {
        Response {
            status,
            headers: Headers::new(),
            body: Vec::new(),
        }
    }

    /// A text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Response::with_body(status, "text/plain; charset=utf-8", text.into())
    }

    /// A page.
    pub fn html(status: u16, page: impl Into<String>) -> Self {
        Response::with_body(status, "text/html; charset=utf-8", page.into())
    }

    /// Anything that serializes to JSON; where it does not, a 500.
    pub fn json<T: Serialize + ?Sized>(status: u16, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => Response::with_body(status, "application/json", json),
            Err(error) => {
                log::error!("an answer can't be written as JSON: {error}");
                Response::error(500, "internal error")
            }
        }
    }

    /// A refusal as the API words its own: `{"error":"…"}`.
    pub fn error(status: u16, message: &str) -> Self {
        Response::with_body(status, "application/json", render_error(message))
    }

    /// The same, with one more header field.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.add(name, value);
        self
    }

    fn with_body(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Response {
            status,
            headers: Headers::from([("Content-Type", content_type)]),
            body: body.into(),
        }
    }
}

type Check = dyn Fn(&Request) -> Result<(), Response> + Send + Sync;

/// What runs before a poll or a publish: it lets the request pass, or gives the answer to send instead. The Go package's
/// `HandlerToRunBeforeSubscription` and `HandlerToRunBeforePublish`.
///
/// It runs on a thread of its own request, so it may take its time. Where it panics, that request is answered with 500,
/// the panic is logged, and the server goes on.
///
/// ```
/// use long_polling::server::{Handler, Response};
///
/// let only_own_category = Handler::new(|request| match (request.header("X-User"), request.category()) {
///     (Some(user), Some(category)) if category.starts_with(user) => Ok(()),
///     _ => Err(Response::error(403, "not your category")),
/// });
/// ```
#[derive(Clone)]
pub struct Handler {
    check: Arc<Check>,
    /// Known not to wait for anything, so that it can run where waiting would hold up other requests.
    pub(super) quick: bool,
}

impl Handler {
    /// A handler of the program's own.
    pub fn new(check: impl Fn(&Request) -> Result<(), Response> + Send + Sync + 'static) -> Self {
        Handler {
            check: Arc::new(check),
            quick: false,
        }
    }

    /// Asks for HTTP basic authentication (RFC 7617) with this name and password. Both are compared in constant time:
    /// how long that takes tells nothing but their lengths.
    pub fn basic_auth(username: &str, password: &str) -> Self {
        let expected = format!("{username}:{password}");
        Handler::authorization(
            "Basic",
            r#"Basic realm="long-polling", charset="UTF-8""#,
            move |given| {
                let given = BASE64_STANDARD.decode(given).unwrap_or_default();
                given.ct_eq(expected.as_bytes()).into()
            },
        )
    }

    /// Asks for this bearer token (RFC 6750), compared in constant time.
    pub fn bearer_token(token: &str) -> Self {
        let expected = token.to_owned();
        Handler::authorization("Bearer", "Bearer", move |given| {
            given.as_bytes().ct_eq(expected.as_bytes()).into()
        })
    }

    fn authorization(
        scheme: &'static str,
        challenge: &'static str,
        fits: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let check = move |request: &Request| {
            let given = request
                .header("Authorization")
                .and_then(|value| value.split_once(' '));
            match given {
                Some((name, given)) if name.eq_ignore_ascii_case(scheme) && fits(given.trim()) => {
                    Ok(())
                }
                _ => {
                    Err(Response::error(401, "unauthorized")
                        .with_header("WWW-Authenticate", challenge))
                }
            }
        };
        Handler {
            check: Arc::new(check),
            quick: true,
        }
    }

    /// Runs the handler on a request: for tests, and for handlers made of others.
    ///
    /// # Errors
    ///
    /// The answer to send where the request may not pass.
    pub fn run(&self, request: &Request) -> Result<(), Response> {
        (self.check)(request)
    }

    /// Runs the handler; a panic becomes a 500.
    pub(super) fn run_caught(&self, request: &Request) -> Result<(), Response> {
        caught(request, || self.run(request)).unwrap_or_else(Err)
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handler")
    }
}

/// Answers every path but the two endpoints': a page, a health check, an API of the program's own. It runs as a
/// [`Handler`] does.
///
/// ```
/// use long_polling::server::{Fallback, Response};
///
/// let fallback = Fallback::new(|request| match request.path() {
///     "/health" => Response::text(200, "well"),
///     _ => Response::error(404, "not found"),
/// });
/// ```
#[derive(Clone)]
pub struct Fallback(Arc<dyn Fn(&Request) -> Response + Send + Sync>);

impl Fallback {
    /// A fallback of the program's own.
    pub fn new(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Fallback(Arc::new(answer))
    }

    /// Runs the fallback; a panic becomes a 500.
    pub(super) fn run_caught(&self, request: &Request) -> Response {
        caught(request, || (self.0)(request)).unwrap_or_else(|response| response)
    }
}

impl std::fmt::Debug for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fallback")
    }
}

fn caught<T>(request: &Request, run: impl FnOnce() -> T) -> Result<T, Response> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let words = panic.downcast_ref::<&str>().copied();
        let words = words
            .or(panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no words");
        log::error!(
            "a handler panicked on {} {:?}: {words}",
            request.method,
            request.path
        );
        Response::error(500, "internal error")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(handler: &Handler, authorization: &str) -> u16 {
        let request = Request::new("GET", "/events").with_header("authorization", authorization);
        handler
            .run(&request)
            .map_or_else(|response| response.status, |()| 200)
    }

    #[test]
    fn basic_authentication_takes_the_one_name_and_password() {
        let handler = Handler::basic_auth("Aladdin", "open sesame");
        assert_eq!(status(&handler, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), 200);
        assert_eq!(status(&handler, "basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), 200);
        for wrong in [
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZA==",
            "Basic ?",
            "Basic",
            "",
            "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ] {
            assert_eq!(status(&handler, wrong), 401, "{wrong}");
        }
        let refused = handler.run(&Request::new("GET", "/")).unwrap_err();
        assert!(
            refused
                .headers
                .get("WWW-Authenticate")
                .unwrap()
                .starts_with("Basic")
        );
    }

    #[test]
    fn a_panic_is_a_500() {
        let handler = Handler::new(|_| panic!("on purpose"));
        assert_eq!(
            handler
                .run_caught(&Request::new("GET", "/"))
                .unwrap_err()
                .status,
            500
        );
        let fallback = Fallback::new(|_| panic!("{}", "on purpose"));
        assert_eq!(fallback.run_caught(&Request::new("GET", "/")).status, 500);
    }
}
