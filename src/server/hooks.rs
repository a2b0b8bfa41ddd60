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

    /// The same, as a publish of `data` (JSON text) to a category.
    pub fn with_publish(mut self, category: &str, data: &str) -> Self {
        self.categories = category.into();
        self.data = Some(data.into());
        self
    }

    /// The method, such as `GET`. A fallback sees `GET` for HEAD, too, unless it has
    /// [`with_head`](Fallback::with_head).
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
    /// Header fields. A field that is set here replaces the server's own: those against caching (all three are left out
    /// where there is a `Cache-Control`), `X-Content-Type-Options`, and `Access-Control-Allow-Origin` of
    /// [`cors_origin`](crate::ServerInfo::cors_origin). The fields that frame the message (`Content-Length`,
    /// `Transfer-Encoding`, `Connection`, `Keep-Alive`, `Trailer`) and `Date` are always the server's; those set here are
    /// left out. A field that can't be sent as one line is left out, too. Of a field that no message may have twice, such
    /// as `Content-Type`, the last one is sent.
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

    /// Sets a header field: replaces all fields of this name, such as the `Content-Type` of [`text`](Response::text).
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.set(name, value);
        self
    }

    /// Adds a header field after the others, such as a second `Set-Cookie`. Fields of the same name stay.
    pub fn with_added_header(mut self, name: &str, value: &str) -> Self {
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
    /// Why no request could ever pass; reported when a server starts.
    fault: Option<&'static str>,
    /// Known not to wait for anything, so that it can run where waiting would hold up other requests.
    pub(super) quick: bool,
}

impl Handler {
    /// A handler of the program's own.
    pub fn new(check: impl Fn(&Request) -> Result<(), Response> + Send + Sync + 'static) -> Self {
        Handler {
            check: Arc::new(check),
            fault: None,
            quick: false,
        }
    }

    /// Asks for HTTP basic authentication (RFC 7617) with this name and password. Both are compared in constant time:
    /// how long that takes tells nothing but their lengths.
    ///
    /// A name with a colon, and control characters in either, are refused with
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) when a server starts with this handler: RFC 7617 has no form
    /// for them.
    pub fn basic_auth(username: &str, password: &str) -> Self {
        let expected = format!("{username}:{password}");
        Handler::authorization(
            basic_auth_fault(username, password),
            "Basic",
            r#"Basic realm="long-polling", charset="UTF-8""#,
            move |given| {
                let given = BASE64_STANDARD.decode(given).unwrap_or_default();
                given.ct_eq(expected.as_bytes()).into()
            },
        )
    }

    /// Asks for this bearer token (RFC 6750), compared in constant time.
    ///
    /// A token that no header field can carry is refused with
    /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) when a server starts with this handler: an empty one, one that
    /// begins or ends with a space, and one with characters other than those of ASCII that can be printed. A file's line
    /// end is the usual reason.
    pub fn bearer_token(token: &str) -> Self {
        let expected = token.to_owned();
        Handler::authorization(
            bearer_token_fault(token),
            "Bearer",
            "Bearer",
            move |given| given.as_bytes().ct_eq(expected.as_bytes()).into(),
        )
    }

    fn authorization(
        fault: Option<&'static str>,
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
            fault,
            quick: true,
        }
    }

    /// Why no request could ever pass this handler, where that is known: a bad token of
    /// [`bearer_token`](Handler::bearer_token), a bad name or password of [`basic_auth`](Handler::basic_auth).
    /// [`Server::start`](crate::Server::start) refuses such a handler. It can't see a handler inside a closure of
    /// [`new`](Handler::new): ask that one before.
    pub fn fault(&self) -> Option<&str> {
        self.fault
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

/// The token itself is a secret, so the words leave it out.
fn bearer_token_fault(token: &str) -> Option<&'static str> {
    if token.is_empty() {
        Some("the bearer token is empty, so that no request could match it; give one")
    } else if token.trim() != token {
        Some(
            "the bearer token begins or ends with a space or a line end, which HTTP strips from header fields, so that no \
             request could match it; remove it",
        )
    } else if !token.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        Some(
            "the bearer token has a control character or one outside ASCII, which header fields can't carry, so that no \
             request could match it; give one of letters, digits and -._~+/=",
        )
    } else {
        None
    }
}

fn basic_auth_fault(username: &str, password: &str) -> Option<&'static str> {
    if username.contains(':') {
        Some(
            "the name for basic authentication has a colon, which RFC 7617 takes for the end of the name; give another name",
        )
    } else if username
        .chars()
        .chain(password.chars())
        .any(char::is_control)
    {
        Some(
            "the name or password for basic authentication has a control character (a line end, perhaps), which RFC 7617 \
             forbids; remove it",
        )
    } else {
        None
    }
}

impl<F> From<F> for Handler
where
    F: Fn(&Request) -> Result<(), Response> + Send + Sync + 'static,
{
    fn from(check: F) -> Self {
        Handler::new(check)
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
///
/// A HEAD request reaches it as GET, and the answer is sent without its body (RFC 9110, section 9.3.2);
/// [`with_head`](Fallback::with_head) passes HEAD on as it is.
#[derive(Clone)]
pub struct Fallback {
    answer: Arc<dyn Fn(&Request) -> Response + Send + Sync>,
    pub(super) takes_head: bool,
}

impl Fallback {
    /// A fallback of the program's own.
    pub fn new(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Fallback {
            answer: Arc::new(answer),
            takes_head: false,
        }
    }

    /// Passes HEAD requests on as HEAD. The server leaves the body out of the answer in any case; where the fallback gives
    /// none, its `Content-Length` is sent, which then says how long the body of the answer to GET is.
    ///
    /// ```
    /// use long_polling::server::{Fallback, Response};
    ///
    /// let fallback = Fallback::new(|request| match request.method() {
    ///     "HEAD" => Response::new(200).with_header("Content-Length", "1000000"),
    ///     "GET" => Response::text(200, "x".repeat(1_000_000)),
    ///     _ => Response::error(405, "method not allowed").with_header("Allow", "GET, HEAD"),
    /// });
    /// let fallback = fallback.with_head();
    /// ```
    pub fn with_head(mut self) -> Self {
        self.takes_head = true;
        self
    }

    /// Runs the fallback; a panic becomes a 500.
    pub(super) fn run_caught(&self, request: &Request) -> Response {
        caught(request, || (self.answer)(request)).unwrap_or_else(|response| response)
    }
}

impl<F> From<F> for Fallback
where
    F: Fn(&Request) -> Response + Send + Sync + 'static,
{
    fn from(answer: F) -> Self {
        Fallback::new(answer)
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
    fn a_secret_that_no_request_can_carry_is_a_fault_and_a_good_one_is_none() {
        for token in [
            "",
            " a",
            "a ",
            "a\n",
            "\ta",
            "a\u{a0}",
            "a\nb",
            "a\0",
            "geheim-ü",
            "a\x7f",
        ] {
            assert!(Handler::bearer_token(token).fault().is_some(), "{token:?}");
        }
        for token in ["a", "a b", "~!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}", "AbC012=="] {
            let handler = Handler::bearer_token(token);
            assert_eq!(handler.fault(), None, "{token:?}");
            assert_eq!(
                status(&handler, &format!("Bearer {token}")),
                200,
                "{token:?}"
            );
        }
        for (name, password) in [
            ("a:b", "c"),
            (":", ""),
            ("a\n", "c"),
            ("a", "c\r\n"),
            ("a", "\u{85}"),
        ] {
            let handler = Handler::basic_auth(name, password);
            assert!(handler.fault().is_some(), "{name:?} {password:?}");
        }
        for (name, password) in [("a", "b:c"), ("ü", "ß "), (" a ", ""), ("", "b")] {
            let handler = Handler::basic_auth(name, password);
            assert_eq!(handler.fault(), None, "{name:?} {password:?}");
            let given = BASE64_STANDARD.encode(format!("{name}:{password}"));
            assert_eq!(status(&handler, &format!("Basic {given}")), 200);
        }
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
