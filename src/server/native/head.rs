//! The head of a request: from its bytes to a [`Request`].

use std::net::{IpAddr, SocketAddr};

use httparse::{EMPTY_HEADER, Error};

use crate::server::request::Request;
use crate::server::response::Response;

/// The most header fields of a request.
const MAX_FIELDS: usize = 100;

/// # Errors
///
/// The answer that refuses. The connection can't be used any more.
pub(super) fn parse(
    head: &[u8],
    peer: Option<SocketAddr>,
    trusted_proxies: &[IpAddr],
) -> Result<Request, Response> {
    // Not on the stack, which never gets smaller again.
    let mut fields = vec![EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(head).map_err(|error| refusal(head, error))?;
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Response::error(
            400,
            "too many empty lines before a request",
        ));
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

fn refusal(head: &[u8], error: Error) -> Response {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let (status, message) = match error {
        Error::Version if is_version(line) => (505, "this server speaks HTTP/1.1 and HTTP/1.0"),
        Error::TooManyHeaders => (431, "there are too many header fields"),
        Error::HeaderName => (400, "a line of the head is no header field"),
        Error::HeaderValue => (400, "a header field has a control character"),
        _ => (
            400,
            "the first line is not a method, a target and a version of HTTP",
        ),
    };
    Response::error(status, message)
}

/// True where the request line ends in a version of HTTP.
fn is_version(line: &[u8]) -> bool {
    matches!(
        line,
        [
            ..,
            b' ',
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'0'..=b'9',
            b'.',
            b'0'..=b'9'
        ]
    )
}
