//! Cross-origin requests of web pages (the Fetch standard's CORS protocol), for the one origin of
//! [`cors_origin`](super::ServerInfo::cors_origin).

use std::net::Ipv6Addr;

use super::request::Request;
use super::response::Response;

/// The field that names what a page may read of an answer besides its body.
pub(super) const EXPOSED: (&str, &str) = (
    "Access-Control-Expose-Headers",
    "Last-Event-ID, Preference-Applied, Retry-After",
);

/// Answers OPTIONS, which is also how a browser asks whether a page of another origin may send its request.
pub(super) fn options(request: &Request, methods: &str, origin: Option<&str>) -> Response {
    let response = Response::new(204).with_header("Allow", methods);
    if origin.is_none() {
        return response;
    }
    let requested = request.header("Access-Control-Request-Headers");
    response
        .with_header("Access-Control-Allow-Methods", methods)
        .with_header(
            "Access-Control-Allow-Headers",
            requested.unwrap_or("Content-Type, Last-Event-ID, Prefer"),
        )
        .with_header("Access-Control-Max-Age", "7200")
}

/// Adds the fields by which a browser lets a page of `origin` read the answer.
pub(super) fn with_origin(response: Response, origin: Option<&str>) -> Response {
    match origin {
        None => response,
        Some(origin) => response
            .with_default("Access-Control-Allow-Origin", origin)
            .with_default(EXPOSED.0, EXPOSED.1),
    }
}

/// True where the text is an origin as browsers serialize it (the URL standard, "origin"), or `*`. Browsers compare the whole text,
/// so any other form would never match.
pub(super) fn is_origin(origin: &str) -> bool {
    if matches!(origin, "*" | "null") {
        return true;
    }
    let Some((scheme, rest)) = origin.split_once("://") else {
        return false;
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| is_lower(byte) || b"+-.".contains(&byte));
    let is_host = match host.strip_prefix('[') {
        Some(address) => address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| is_lower(byte) || b"-._~!$&'()+;=".contains(&byte))
        }
    };
    let is_port = port.is_none_or(|port| {
        let usual = match scheme {
            "http" => 80,
            "https" => 443,
            _ => 0,
        };
        port.parse::<u16>()
            .is_ok_and(|number| number != usual && number.to_string() == port)
    });
    is_scheme && is_host && is_port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_the_form_in_which_browsers_send_it() {
        for origin in [
            "*",
            "null",
            "https://example.com",
            "http://example.com:8080",
            "https://xn--bcher-kva.example",
            "http://127.0.0.1:3000",
            "http://[::1]:3000",
            "http://[::1]",
            "capacitor://localhost",
            "chrome-extension://abcdefghijklmnop",
        ] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in [
            "",
            "example.com",
            "https://",
            "https://example.com/",
            "https://example.com:443",
            "http://example.com:80",
            "http://example.com:080",
            "http://example.com:x",
            "HTTPS://example.com",
            "https://Example.com",
            "https://bücher.example",
            "https://a.example, https://b.example",
            "https://*.example.com",
            " https://example.com",
            "https://example.com\n",
            "https://user@example.com",
            "a\r\nb",
        ] {
            assert!(!is_origin(origin), "{origin}");
        }
    }
}
