//! What can go wrong between here and the server, in words that say what to check.

use std::{fmt, io};

use ureq::Timeout;

use crate::error::{Error, ErrorKind};

/// The URL as messages and logs have it: without user, password, query and fragment, any of which may hold a secret.
pub(crate) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}{host}{path}")
}

/// Where an answer comes from, for messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Source {
    /// Without anything that may be a secret. After redirects, the last one.
    pub(crate) url: String,
    /// The proxy between here and there.
    pub(crate) via: Option<String>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)?;
        match &self.via {
            Some(proxy) => write!(f, " through the proxy {proxy}"),
            None => Ok(()),
        }
    }
}

/// A request that got no answer, and whether it is certain that no server has worked on it.
pub(crate) struct Failure {
    pub(crate) error: Error,
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

/// A refusal as an error; `of` is what was refused, and `location` where a redirect leads that is not followed.
pub(crate) fn refusal(
    of: &str,
    source: &Source,
    status: u16,
    words: Option<&str>,
    location: Option<&str>,
) -> Error {
    let hint = match (status, location) {
        (300..=399, Some(location)) => format!(
            "; it redirects to {}: give that URL itself, if it is right",
            shown(location)
        ),
        (403, _) if source.via.is_some() => {
            "; check the credentials, and whether the proxy allows the request".into()
        }
        (401 | 403, _) => "; check the credentials".into(),
        (404 | 405 | 410, _) => "; check the URL".into(),
        _ => String::new(),
    };
    let words = words.map(|words| format!(": {words}")).unwrap_or_default();
    let message = format!("{source} refused {of} with status {status}{words}{hint}");
    Error::new(ErrorKind::Refused, message).with_status(status)
}

/// The proxy's own refusal: no server has seen the request.
pub(crate) fn refused_by_proxy(source: &Source, status: u16) -> Failure {
    let (url, proxy) = (&source.url, source.via.as_deref().unwrap_or_default());
    let message = format!(
        "the proxy {proxy} refused the request to {url} with status {status}; give its user and \
         password in the proxy's URL, or name the server's host in NO_PROXY"
    );
    Failure::never_sent(Error::new(ErrorKind::Unreachable, message).with_status(status))
}

/// What went wrong, in words that say what to check.
pub(crate) fn failed(source: &Source, error: ureq::Error) -> Failure {
    let never_sent = never_sent(&error);
    let error = match (&source.via, proxy_at_fault(&error)) {
        (Some(proxy), Some(kind)) => {
            let message = format!(
                "can't reach {} through the proxy {proxy}; check the proxy, or name the server's \
                 host in NO_PROXY",
                source.url
            );
            with_cause(Error::new(kind, message), error)
        }
        _ => explained(source, error),
    };
    Failure { error, never_sent }
}

/// The kind of error, where it is the proxy that was not reached, or that refused to connect further.
fn proxy_at_fault(error: &ureq::Error) -> Option<ErrorKind> {
    use ureq::Error as E;
    match error {
        E::Timeout(Timeout::Resolve | Timeout::Connect) => Some(ErrorKind::TimedOut),
        E::HostNotFound | E::ConnectionFailed | E::ConnectProxyFailed(_) => {
            Some(ErrorKind::Unreachable)
        }
        E::Io(cause) if !is_shut_down(cause) && !is_break(cause) => Some(ErrorKind::Unreachable),
        _ => None,
    }
}

fn explained(url: &Source, error: ureq::Error) -> Error {
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
            format!("no whole answer from {url} in time; check whether the server is overloaded"),
        ),
        E::Io(cause) if is_shut_down(cause) => (
            ErrorKind::Stopped,
            format!("no request to {url}: the agent was shut down"),
        ),
        E::Io(cause) if is_break(cause) => (
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
            ErrorKind::InvalidAnswer,
            format!("the answer of {url} makes no sense; check the URL, and for proxies"),
        ),
        _ => (
            ErrorKind::Unreachable,
            format!("can't reach {url}; check that the server is running, and host and port"),
        ),
    };
    with_cause(Error::new(kind, message), error)
}

fn with_cause(failed: Error, error: ureq::Error) -> Error {
    use ureq::Error as E;
    match error {
        E::Io(cause) => failed.with_source(cause),
        // These say the whole URL, with what may be secret in it.
        E::RequireHttpsOnly(_) | E::BadUri(_) => failed,
        other => failed.with_source(other),
    }
}

/// As ureq puts it; the system's own error of this kind has a number.
fn is_shut_down(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotConnected && error.raw_os_error().is_none()
}

fn is_break(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    let kind = error.kind();
    matches!(
        kind,
        K::UnexpectedEof | K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe
    )
}

/// True where it is certain that no byte of the request has left.
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

/// std has no public kind for a name that was not found. Should its private one change, nothing is claimed wrongly.
fn is_unknown_host(error: &io::Error) -> bool {
    error.raw_os_error().is_none() && format!("{:?}", error.kind()) == "Uncategorized"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::ToSocketAddrs;

    #[test]
    fn a_url_is_shown_without_anything_that_may_be_a_secret() {
        for (url, expected) in [
            ("http://u:secret@h:1/a/b?secret#secret", "http://h:1/a/b"),
            ("u:secret@h/a@b", "h/a@b"),
            ("", ""),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    fn source(via: Option<&str>) -> Source {
        Source {
            url: "http://h/".into(),
            via: via.map(Into::into),
        }
    }

    #[test]
    fn a_refusal_tells_what_the_server_said_and_what_to_check() {
        let error = refusal("the poll", &source(None), 401, Some("who?"), None);
        let expected = "http://h/ refused the poll with status 401: who?; check the credentials";
        assert_eq!(error.to_string(), expected);
        assert_eq!(
            (error.kind(), error.status()),
            (ErrorKind::Refused, Some(401))
        );
        let error = refusal("the poll", &source(Some("http://p:1")), 503, None, None);
        let expected = "http://h/ through the proxy http://p:1 refused the poll with status 503";
        assert_eq!(error.to_string(), expected);
        let error = refusal("it", &source(Some("http://p:1")), 403, None, None);
        let message = error.to_string();
        assert!(message.contains("whether the proxy allows"), "{message}");
        let error = refusal(
            "it",
            &source(None),
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
        let named = failed(&source(Some("http://p:1")), refused());
        let message = named.error.to_string();
        assert!(message.contains("the proxy http://p:1"), "{message}");
        assert!(!message.contains("the server is running"), "{message}");
        assert!(named.never_sent);
        let message = failed(&source(None), refused()).error.to_string();
        assert!(message.contains("the server is running"), "{message}");
        let tunnel = ureq::Error::ConnectProxyFailed("proxy server responded 403/403".into());
        let failure = failed(&source(Some("http://p:1")), tunnel);
        let message = failure.error.report().to_string();
        assert!(
            message.contains("http://p:1") && message.contains("403"),
            "{message}"
        );
        assert!(failure.never_sent);
    }

    #[test]
    fn what_was_never_sent_is_known_where_no_connection_was_made() {
        let unknown = "host.invalid:80".to_socket_addrs().unwrap_err();
        // Where names are not looked up at all, std tells the system's error, which says less.
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
