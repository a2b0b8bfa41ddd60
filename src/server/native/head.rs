//! The head of a request: from its bytes to a [`Request`].

use std::net::SocketAddr;

use httparse::{EMPTY_HEADER, Error};

use crate::server::forwarded::TrustedProxies;
use crate::server::request::Request;
use crate::server::response::Response;

/// The most header fields of a request.
const MAX_FIELDS: usize = 100;
const NOT_A_REQUEST: &str = "the first line is not a method, a target and a version of HTTP";

/// # Errors
///
/// The answer that refuses. The connection can't be used any more.
pub(super) fn parse(
    head: &[u8],
    peer: Option<SocketAddr>,
    trusted_proxies: &TrustedProxies,
) -> Result<Request, Response> {
    // Not on the stack, which never gets smaller again.
    let mut fields = vec![EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(head).map_err(refusal)?;
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Response::error(400, NOT_A_REQUEST));
    };
    let fields = parsed.headers.iter();
    // Bytes that are not UTF-8 mean nothing to HTTP (RFC 9110, section 5.5).
    let headers = fields.map(|field| (field.name, String::from_utf8_lossy(field.value)));
    let headers = headers.collect();
    Ok(Request::parse(
        method,
        target,
        (1, minor),
        headers,
        peer,
        trusted_proxies,
    ))
}

fn refusal(error: Error) -> Response {
    let (status, message) = match error {
        Error::TooManyHeaders => (431, "there are too many header fields"),
        Error::HeaderName => (400, "a line of the head is no header field"),
        Error::HeaderValue => (400, "a header field has a control character"),
        _ => (400, NOT_A_REQUEST),
    };
    Response::error(status, message)
}

/// Refuses what is not HTTP, or another version of it, before the rest of the head has come.
///
/// # Errors
///
/// The answer that refuses.
pub(super) fn check_first_line(line: &[u8]) -> Result<(), Response> {
    let line = line.strip_suffix(b"\r\n").unwrap_or(line);
    let mut words = line.rsplit(|byte| *byte == b' ');
    match (words.next(), words.next()) {
        (Some(b"HTTP/1.1" | b"HTTP/1.0"), Some(_)) => Ok(()),
        (Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']), Some(_)) => Err(
            Response::error(505, "this server speaks HTTP/1.1 and HTTP/1.0"),
        ),
        _ => Err(Response::error(400, NOT_A_REQUEST)),
    }
}
