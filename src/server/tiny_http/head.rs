//! Heads of requests: what tiny_http lets pass though no request may have it (RFC 9112).

use tiny_http::Method;

use super::body;
use crate::server::reply::{Reply, is_field_value, is_token};

/// Why a head may not be taken for what it seems to be: others might see other lines or other fields in it, and so
/// another request, or two.
pub(in crate::server) fn fault(request: &tiny_http::Request) -> Option<&'static str> {
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
pub(in crate::server) fn check(request: &tiny_http::Request) -> Result<(), Reply> {
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
    if body::codings(request).any(|coding| !coding.eq_ignore_ascii_case("chunked")) {
        let why = "a Transfer-Encoding besides chunked is not supported; send the body without it";
        return Err(Reply::error(501, why));
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
}
