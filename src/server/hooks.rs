//! What an embedding program adds to the server: [`Handler`]s that run before a poll or a publish, and the
//! [`Fallback`] for every other path.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use subtle::ConstantTimeEq;

use super::request::Request;
use super::response::Response;
use crate::broker::Broker;

type Check = dyn Fn(&Request) -> Result<(), Response> + Send + Sync;

/// A check that runs before a poll or a publish: it lets the request pass, or gives the answer to send instead. The Go package's
/// `HandlerToRunBeforeSubscription` and `HandlerToRunBeforePublish`.
///
/// It runs on a thread of its own request, so it may take its time. Where it panics, that request is answered with 500,
/// the panic is logged, and the server goes on.
///
/// ```
/// use long_polling::server::{Handler, Response};
///
/// let only_own_category =
///     Handler::new(
///         |request| match (request.header("X-User"), request.category()) {
///             (Some(user), Some(category)) if category.starts_with(user) => Ok(()),
///             _ => Err(Response::error(403, "not your category")),
///         },
///     );
/// ```
#[derive(Clone)]
#[must_use = "a handler checks nothing until it is given to a `ServerInfo`"]
pub struct Handler {
    check: Arc<Check>,
    /// Why no request could ever pass; reported when a server starts.
    fault: Option<&'static str>,
    /// The handler looks at the field `Authorization` alone. So it never blocks, and can run before the body is read.
    pub(super) is_authorization: bool,
}

impl Handler {
    /// A handler of the program's own.
    pub fn new(check: impl Fn(&Request) -> Result<(), Response> + Send + Sync + 'static) -> Self {
        Handler {
            check: Arc::new(check),
            fault: None,
            is_authorization: false,
        }
    }

    /// A handler of the program's own that also uses the server's broker, which [`Request::broker`] returns, too.
    ///
    /// ```
    /// use long_polling::ServerInfo;
    /// use long_polling::server::{Handler, Response};
    ///
    /// let info = ServerInfo::default().before_subscription(Handler::with_broker(
    ///     |request, broker| {
    ///         // `?` turns an error of the broker into an answer.
    ///         broker.publish("audit", request.path())?;
    ///         Ok(())
    ///     },
    /// ));
    /// ```
    pub fn with_broker(
        check: impl Fn(&Request, &Broker) -> Result<(), Response> + Send + Sync + 'static,
    ) -> Self {
        Handler::new(move |request| check(request, broker_of(request)?))
    }

    /// Asks for HTTP basic authentication (RFC 7617) with this name and password. Both are compared in constant time:
    /// how long that takes reveals nothing but their lengths.
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
            is_authorization: true,
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

/// # Errors
///
/// The answer to send where a test has made the request without a broker.
fn broker_of(request: &Request) -> Result<&Broker, Response> {
    request.broker().ok_or_else(|| {
        let message =
            "this request has no broker; give a test's own request one by Request::with_broker";
        Response::error(500, message)
    })
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
/// A function that is converted into a fallback, as [`ServerInfo::fallback`](crate::ServerInfo::fallback) does it, may return
/// a `Result`, so that it can use `?`. The error is a [`Response`], or an [`Error`](crate::Error) of this crate, which becomes
/// one:
///
/// ```
/// use long_polling::server::{Fallback, Request, Response};
///
/// fn api(request: &Request) -> Result<Response, Response> {
///     let user = request
///         .header("X-User")
///         .ok_or_else(|| Response::error(401, "who are you?"))?;
///     let id: long_polling::EventId = request.query().parse()?;
///     Ok(Response::text(200, format!("{user} asks for {id}")))
/// }
/// let fallback = Fallback::from(api);
/// assert_eq!(fallback.run(&Request::new("GET", "/api")).status, 401);
/// assert_eq!(
///     fallback
///         .run(&Request::new("GET", "/api?x").with_header("X-User", "a"))
///         .status,
///     400
/// );
/// ```
///
/// The server reads the whole body of a request before the fallback runs, up to
/// [`max_body_size`](crate::ServerInfo::max_body_size).
///
/// A HEAD request reaches it as GET, and the answer is sent without its body (RFC 9110, section 9.3.2);
/// [`with_head`](Fallback::with_head) passes HEAD on as it is.
#[derive(Clone)]
#[must_use = "a fallback answers nothing until it is given to a `ServerInfo`"]
pub struct Fallback {
    answer: Arc<dyn Fn(&Request) -> Response + Send + Sync>,
    pub(super) takes_head: bool,
    pub(super) takes_preflight: bool,
}

impl Fallback {
    /// A fallback of the program's own.
    pub fn new(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Fallback {
            answer: Arc::new(answer),
            takes_head: false,
            takes_preflight: false,
        }
    }

    /// A fallback of the program's own that also uses the server's broker, which [`Request::broker`] returns, too.
    ///
    /// ```
    /// use long_polling::ServerInfo;
    /// use long_polling::server::{Fallback, Response};
    ///
    /// let info =
    ///     ServerInfo::default().fallback(Fallback::with_broker(|request, broker| {
    ///         match request.path() {
    ///             "/statistics" => Response::json(200, &broker.statistics()),
    ///             _ => Response::error(404, "not found"),
    ///         }
    ///     }));
    /// ```
    pub fn with_broker<R: Into<Response>>(
        answer: impl Fn(&Request, &Broker) -> R + Send + Sync + 'static,
    ) -> Self {
        Fallback::new(move |request| match broker_of(request) {
            Ok(broker) => answer(request, broker).into(),
            Err(response) => response,
        })
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
    ///     _ => {
    ///         Response::error(405, "method not allowed").with_header("Allow", "GET, HEAD")
    ///     }
    /// });
    /// let fallback = fallback.with_head();
    /// ```
    pub fn with_head(mut self) -> Self {
        self.takes_head = true;
        self
    }

    /// Passes preflight requests on, which browsers send as OPTIONS before some requests of pages of other origins. Without
    /// this, the server answers those of the origins that [`ServerInfo::cors`](crate::ServerInfo::cors) allows, and permits
    /// the method that the browser asks for; all other OPTIONS requests reach the fallback.
    ///
    /// ```
    /// use long_polling::server::{Fallback, Response};
    ///
    /// let fallback = Fallback::new(|request| match request.method() {
    ///     "OPTIONS" => {
    ///         Response::new(204).with_header("Access-Control-Allow-Methods", "GET, DELETE")
    ///     }
    ///     _ => Response::text(200, "well"),
    /// });
    /// let fallback = fallback.with_preflight();
    /// ```
    pub fn with_preflight(mut self) -> Self {
        self.takes_preflight = true;
        self
    }

    /// Runs the fallback on a request: for tests, and for fallbacks made of others.
    pub fn run(&self, request: &Request) -> Response {
        (self.answer)(request)
    }

    /// Runs the fallback; a panic becomes a 500.
    pub(super) fn run_caught(&self, request: &Request) -> Response {
        caught(request, || self.run(request)).unwrap_or_else(|response| response)
    }
}

impl<F, R> From<F> for Fallback
where
    F: Fn(&Request) -> R + Send + Sync + 'static,
    R: Into<Response>,
{
    fn from(answer: F) -> Self {
        Fallback::new(move |request| answer(request).into())
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
            .unwrap_or("no message");
        log::error!(
            "a handler panicked on {} {:?}: {words}",
            request.method(),
            request.path()
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
