//! The errors of a request: which kind each has, and a message that says what to check.

use std::{fmt, io};

use ureq::Timeout;

use super::url::Url;
use crate::error::{Error, ErrorKind};

/// Returns a URL for messages and logs: without user, password, query and fragment, which may contain secrets.
///
/// In a URL that can't be used, a password may have any character, such as a slash that is not percent-encoded: what precedes
/// the last `@` is left out.
pub(crate) fn redacted(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // A reference without a scheme, as redirects have it, begins with a path.
    let is_relative = scheme.is_empty() && rest.starts_with(['/', '?', '.']);
    let end = match is_relative || Url::parse(url).is_ok() {
        true => authority,
        false => rest.len(),
    };
    let start = rest[..end].rfind('@').map_or(0, |at| at + 1);
    let shown = rest[start..].split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}{shown}")
}

/// Returns the error for a URL of the caller that can't be used.
pub(crate) fn unusable_url(url: &str, problem: &str) -> Error {
    let url = redacted(url);
    Error::request(format!("can't use the URL {url:?}: {problem}"))
}

/// The URL that a request goes to, and the proxy on the way. For messages only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// The URL without secrets. After redirects, the last one.
    pub(crate) url: String,
    /// The proxy, if any, as [`NamedProxy`](super::proxy::NamedProxy) names it.
    pub(crate) proxy: Option<String>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)?;
        match &self.proxy {
            Some(proxy) => write!(f, " through the proxy {proxy}"),
            None => Ok(()),
        }
    }
}

/// The error of a request without a complete response.
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// It is certain that no server has received the request.
    pub(crate) never_sent: bool,
}

impl Failure {
    pub(crate) fn never_sent(error: Error) -> Self {
        Failure {
            error,
            never_sent: true,
        }
    }
}

/// Returns the error for a response that refuses `request`, with the server's message. `location` is the target of a
/// redirect that is not followed.
pub(crate) fn refusal(
    request: &str,
    route: &Route,
    status: u16,
    message: Option<&str>,
    location: Option<&str>,
) -> Error {
    let hint = match (status, location) {
        (300..=399, Some(location)) => format!(
            "; it redirects to {}: give that URL itself, if it is right",
            redacted(location)
        ),
        (403, _) if route.proxy.is_some() => {
            "; check the credentials, and whether the proxy allows the request".into()
        }
        (401 | 403, _) => "; check the credentials".into(),
        (404 | 405 | 410, _) => "; check the URL".into(),
        _ => String::new(),
    };
    let message = message
        .map(|message| format!(": {message}"))
        .unwrap_or_default();
    let message = format!("{route} refused {request} with status {status}{message}{hint}");
    Error::new(ErrorKind::Refused, message).with_status(status)
}

/// Returns the failure for a response by which the proxy itself refuses the request, so that no server received it.
pub(crate) fn refused_by_proxy(route: &Route, status: u16) -> Failure {
    let (url, proxy) = (&route.url, route.proxy.as_deref().unwrap_or_default());
    let message = format!(
        "the proxy {proxy} refused the request to {url} with status {status}; give its user and \
         password in the proxy's URL, or name the server's host in NO_PROXY"
    );
    Failure::never_sent(Error::new(ErrorKind::Unreachable, message).with_status(status))
}

/// Returns the failure for an error of ureq.
pub(crate) fn failed(route: &Route, error: ureq::Error) -> Failure {
    let never_sent = never_sent(&error);
    let error = match (&route.proxy, proxy_at_fault(&error)) {
        (Some(proxy), Some(kind)) => {
            let message = format!(
                "can't reach {} through the proxy {proxy}; check the proxy, or name the server's \
                 host in NO_PROXY",
                route.url
            );
            with_cause(Error::new(kind, message), error)
        }
        _ => not_by_proxy(route, error),
    };
    Failure { error, never_sent }
}

/// Returns the kind of an error that the proxy causes: it is unreachable, or refuses to connect to the server.
fn proxy_at_fault(error: &ureq::Error) -> Option<ErrorKind> {
    use ureq::Error as E;
    match error {
        E::Timeout(Timeout::Resolve | Timeout::Connect) => Some(ErrorKind::TimedOut),
        E::HostNotFound | E::ConnectionFailed | E::ConnectProxyFailed(_) => {
            Some(ErrorKind::Unreachable)
        }
        E::Io(cause) if !is_shut_down(cause) && !is_disconnect(cause) => {
            Some(ErrorKind::Unreachable)
        }
        _ => None,
    }
}

/// Returns the error for a request that failed for another reason than the proxy.
fn not_by_proxy(url: &Route, error: ureq::Error) -> Error {
    use ureq::Error as E;
    let (kind, message) = match &error {
        E::Timeout(Timeout::Resolve) => (
            ErrorKind::TimedOut,
            format!("the host of {url} was not found in time; check the name and the DNS"),
        ),
        E::Timeout(Timeout::Connect) => (
            ErrorKind::TimedOut,
            format!("no connection to {url} in time; check host, port and firewalls"),
        ),
        E::Timeout(_) => (
            ErrorKind::TimedOut,
            format!(
                "no complete response from {url} in time; check whether the server is overloaded"
            ),
        ),
        E::Io(cause) if is_shut_down(cause) => (
            ErrorKind::Stopped,
            format!("no request to {url}: the agent was shut down"),
        ),
        E::Io(cause) if is_disconnect(cause) => (
            ErrorKind::Unreachable,
            format!(
                "the connection to {url} broke; check whether the server, or a proxy, was stopped"
            ),
        ),
        E::RequireHttpsOnly(_) => (
            ErrorKind::InvalidRequest,
            format!("{url} is not https, and the agent given allows nothing else"),
        ),
        E::Http(_) | E::BadUri(_) | E::InvalidProxyUrl => (
            ErrorKind::InvalidRequest,
            format!("the request to {url} can't be sent"),
        ),
        E::TlsRequired => (
            ErrorKind::InvalidRequest,
            format!("{url} needs TLS; turn on the feature \"tls\" of long-polling, or use http"),
        ),
        E::Protocol(_)
        | E::LargeResponseHeader(..)
        | E::BodyExceedsLimit(_)
        | E::TooManyRedirects
        | E::RedirectFailed => (
            ErrorKind::InvalidResponse,
            format!("the response of {url} is not valid HTTP; check the URL, and for proxies"),
        ),
        _ => (
            ErrorKind::Unreachable,
            format!("can't reach {url}; check that the server is running, and host and port"),
        ),
    };
    with_cause(Error::new(kind, message), error)
}

/// Sets the cause, unless its text may contain a secret.
fn with_cause(failed: Error, error: ureq::Error) -> Error {
    use ureq::Error as E;
    match error {
        E::Io(cause) => failed.with_source(cause),
        // The text of these has the whole URL, with its secrets.
        E::RequireHttpsOnly(_) | E::BadUri(_) => failed,
        other => failed.with_source(other),
    }
}

/// Returns `true` for ureq's own error of an agent that was shut down. The system's error of this kind has a number.
fn is_shut_down(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotConnected && error.raw_os_error().is_none()
}

fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    let kind = error.kind();
    matches!(
        kind,
        K::UnexpectedEof | K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe
    )
}

/// Returns `true` if it is certain that no byte of the request was sent.
fn never_sent(error: &ureq::Error) -> bool {
    use ureq::Error as E;
    match error {
        E::Http(_) | E::BadUri(_) | E::HostNotFound | E::TlsRequired | E::ConnectionFailed => true,
        E::InvalidProxyUrl | E::RequireHttpsOnly(_) | E::ConnectProxyFailed(_) => true,
        E::Timeout(Timeout::Resolve | Timeout::Connect) => true,
        E::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused || is_unknown_host(error),
        _ => false,
    }
}

/// Returns `true` if a name was not found, for which std has no public kind. If std changes its private kind, this returns
/// `false`, which is safe.
fn is_unknown_host(error: &io::Error) -> bool {
    error.raw_os_error().is_none() && format!("{:?}", error.kind()) == "Uncategorized"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::ToSocketAddrs;

    #[test]
    fn a_redacted_url_has_no_secret() {
        for (url, expected) in [
            ("http://u:secret@h:1/a/b?secret#secret", "http://h:1/a/b"),
            ("http://u:secret@h/a@b", "http://h/a@b"),
            ("http://u:sec/ret@h/a", "http://h/a"),
            ("http://u:sec#ret@h/a?secret", "http://h/a"),
            ("http://u:sec?ret@h", "http://h"),
            ("u:secret@h/a", "h/a"),
            ("/a@b?secret", "/a@b"),
            ("", ""),
        ] {
            assert_eq!(redacted(url), expected);
        }
    }

    fn route(proxy: Option<&str>) -> Route {
        Route {
            url: "http://h/".into(),
            proxy: proxy.map(Into::into),
        }
    }

    #[test]
    fn a_refusal_has_the_servers_message_and_what_to_check() {
        let error = refusal("the poll", &route(None), 401, Some("who?"), None);
        let expected = "http://h/ refused the poll with status 401: who?; check the credentials";
        assert_eq!(error.to_string(), expected);
        assert_eq!(
            (error.kind(), error.status()),
            (ErrorKind::Refused, Some(401))
        );
        let error = refusal("the poll", &route(Some("http://p:1")), 503, None, None);
        let expected = "http://h/ through the proxy http://p:1 refused the poll with status 503";
        assert_eq!(error.to_string(), expected);
        let error = refusal("it", &route(Some("http://p:1")), 403, None, None);
        let message = error.to_string();
        assert!(message.contains("whether the proxy allows"), "{message}");
        let error = refusal(
            "it",
            &route(None),
            301,
            None,
            Some("https://u:p@h/x?secret"),
        );
        let expected = "http://h/ refused it with status 301; it redirects to https://h/x: give \
                        that URL itself, if it is right";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_proxy_at_fault_is_named_and_the_server_is_not_blamed() {
        let refused = || ureq::Error::Io(io::ErrorKind::ConnectionRefused.into());
        let named = failed(&route(Some("http://p:1")), refused());
        let message = named.error.to_string();
        assert!(message.contains("the proxy http://p:1"), "{message}");
        assert!(!message.contains("the server is running"), "{message}");
        assert!(named.never_sent);
        let message = failed(&route(None), refused()).error.to_string();
        assert!(message.contains("the server is running"), "{message}");
        let tunnel = ureq::Error::ConnectProxyFailed("proxy server responded 403/403".into());
        let failure = failed(&route(Some("http://p:1")), tunnel);
        let message = failure.error.report().to_string();
        assert!(
            message.contains("http://p:1") && message.contains("403"),
            "{message}"
        );
        assert!(failure.never_sent);
    }

    #[test]
    fn a_request_without_a_connection_was_never_sent() {
        let unknown = "host.invalid:80".to_socket_addrs().unwrap_err();
        // A machine without name resolution gives an error with a number.
        if unknown.raw_os_error().is_none() {
            assert!(never_sent(&unknown.into()));
        }
        assert!(never_sent(
            &io::Error::from(io::ErrorKind::ConnectionRefused).into()
        ));
        assert!(never_sent(&ureq::Error::Timeout(Timeout::Connect)));
        assert!(!never_sent(&ureq::Error::Timeout(Timeout::Global)));
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof] {
            assert!(!never_sent(&io::Error::from(kind).into()), "{kind}");
        }
    }
}
