//! Heads of requests: what tiny_http lets pass though no request may have it (RFC 9112), and the connections on which
//! it can't be known where the next request begins.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tiny_http::Method;

use super::reply::{Reply, is_field_value, is_token};

/// Why a head may not be taken for what it seems to be: others might see other lines or other fields in it, and so
/// another request, or two.
pub(super) fn fault(request: &tiny_http::Request) -> Option<&'static str> {
    let fields = request.headers();
    if *request.http_version() < (1, 0) {
        Some("HTTP/0.9 has no request of this form")
    } else if !is_token(request.method().as_str()) {
        Some("a method that is not a word")
    } else if !request.url().bytes().all(is_of_a_target) {
        Some("a character that may not be in a target")
    } else if !fields
        .iter()
        .all(|field| is_token(field.field.as_str().as_str()))
    {
        Some("a header field's name that is not a word")
    } else if !fields
        .iter()
        .all(|field| is_field_value(field.value.as_str()))
    {
        Some("a control character in a header field")
    } else {
        None
    }
}

/// Visible characters but for `#`. Strictly, RFC 3986 excludes some more, which browsers send all the same.
fn is_of_a_target(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

/// What else is asked of a head; where it is not met, the connection stays good.
///
/// # Errors
///
/// The answer that refuses.
pub(super) fn check(request: &tiny_http::Request) -> Result<(), Reply> {
    let mut hosts = request
        .headers()
        .iter()
        .filter(|field| field.field.equiv("Host"))
        .map(|field| field.value.as_str());
    // RFC 9112, section 3.2.
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => *request.http_version() < (1, 1),
        (Some(host), None) => is_host(host),
        (Some(_), Some(_)) => false,
    };
    if !host {
        return Err(Reply::error(400, "not one Host field with a host in it"));
    }
    let url = request.url();
    match request.method() {
        Method::Connect => Err(Reply::error(501, "this is not a proxy")),
        Method::Options if url == "*" => Ok(()),
        _ if url.starts_with('/') || is_absolute(url) => Ok(()),
        _ => Err(Reply::error(400, "the target is neither a path nor a URL")),
    }
}

/// Roughly a host with or without a port; or none, which clients send whose target has none.
fn is_host(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:[]%".contains(&byte))
}

fn is_absolute(url: &str) -> bool {
    url.split_once("://").is_some_and(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    })
}

/// The connections on which something came of which it can't be known where it ends. tiny_http closes none of them: it
/// reads on, and takes for a request whatever comes. No such request is served (RFC 9112, sections 6.3 and 9.6).
pub(super) struct Spoilt {
    /// How long tiny_http may go on reading from such a connection with nothing to be seen of it.
    kept: Duration,
    any: AtomicBool,
    connections: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Spoilt {
    /// The oldest is forgotten beyond this number.
    const MOST: usize = 4096;

    pub(super) fn new(idle_timeout: Duration) -> Self {
        Spoilt {
            kept: idle_timeout * 2,
            any: AtomicBool::new(false),
            connections: Mutex::default(),
        }
    }

    pub(super) fn add(&self, remote: Option<SocketAddr>) {
        let Some(remote) = remote else { return };
        let mut connections = self.connections.lock();
        if connections.len() >= Spoilt::MOST {
            connections.retain(|_, since| since.elapsed() < self.kept);
        }
        if connections.len() >= Spoilt::MOST
            && let Some((&oldest, _)) = connections.iter().min_by_key(|(_, since)| **since)
        {
            connections.remove(&oldest);
        }
        connections.insert(remote, Instant::now());
        self.any.store(true, SeqCst);
    }

    /// Costs next to nothing where there are none.
    pub(super) fn has(&self, remote: Option<SocketAddr>) -> bool {
        if !self.any.load(SeqCst) {
            return false;
        }
        let Some(remote) = remote else { return false };
        let mut connections = self.connections.lock();
        let has = match connections.get(&remote) {
            Some(since) if since.elapsed() < self.kept => true,
            Some(_) => {
                connections.remove(&remote);
                false
            }
            None => false,
        };
        if connections.is_empty() {
            self.any.store(false, SeqCst);
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in [
            "",
            "a",
            "a.example:80",
            "[::1]:8080",
            "127.0.0.1",
            "a_b-c",
            "%41",
        ] {
            assert!(is_host(host), "{host}");
        }
        for host in ["a b", "a/b", "user@a", "a, b", "a?", "a#", "a\\b", "<a>"] {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn spoilt_connections_are_forgotten_in_time_and_beyond_a_number() {
        let address = |number: usize| {
            let number = u32::try_from(number).unwrap();
            Some(SocketAddr::from((number.to_be_bytes(), 80)))
        };
        let spoilt = Spoilt::new(Duration::from_secs(60));
        assert!(!spoilt.has(address(0)));
        (0..=Spoilt::MOST).for_each(|number| spoilt.add(address(number)));
        assert!(!spoilt.has(address(0)) && spoilt.has(address(1)));
        assert_eq!(spoilt.connections.lock().len(), Spoilt::MOST);
        let spoilt = Spoilt::new(Duration::ZERO);
        spoilt.add(address(0));
        assert!(!spoilt.has(address(0)) && !spoilt.any.load(SeqCst));
    }
}
