//! Rendering answers, and sending each in one write.
//!
//! tiny_http's own `respond` writes head and body apart, which costs 44 ms above 1 KB where Nagle's algorithm meets a
//! delayed acknowledgement, and drops a `Connection` field; so answers are rendered here, whole.

use std::io::{self, Write};
use std::time::SystemTime;

use crate::headers::Headers;
use crate::wire::{LAST_EVENT_ID, render_error};

/// What an answer says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// HTTP/1.1's default: nothing needs to be said.
    Keep,
    /// HTTP/1.0 with `Connection: keep-alive`: has to be confirmed.
    KeepAlive,
    /// `Connection: close`.
    Close,
}

/// An answer, but for what depends on the connection that it goes out on.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    status: u16,
    headers: Headers,
    body: Vec<u8>,
}

impl Reply {
    pub(super) fn new(status: u16) -> Self {
        Reply {
            status,
            headers: Headers::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let headers = Headers::from([("Content-Type", "application/json")]);
        Reply {
            status,
            headers,
            body: body.into(),
        }
    }

    pub(super) fn error(status: u16, message: &str) -> Self {
        Reply::json(status, render_error(message))
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.add(name, value);
        self
    }

    pub(super) fn with_position(self, id: impl ToString) -> Self {
        self.with(LAST_EVENT_ID, id.to_string())
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The fields that are sent, besides those that frame the message: what could not be one line is left out.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        const UNCACHED: [(&str, &str); 3] = [
            ("Cache-Control", "no-cache, no-store, must-revalidate"),
            ("Pragma", "no-cache"),
            ("Expires", "0"),
        ];
        const FRAMING: [&str; 4] = ["Content-Length", "Transfer-Encoding", "Connection", "Date"];
        let uncached = if self.headers.get("Cache-Control").is_some() {
            &[]
        } else {
            &UNCACHED[..]
        };
        let own = self.headers.iter().filter(|(name, value)| {
            let fit = is_token(name) && is_field_value(value);
            if !fit {
                log::error!("a header field of an answer is left out, as it would not be one line: {name:?}: {value:?}");
            }
            fit && !FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name))
        });
        own.chain([("X-Content-Type-Options", "nosniff")])
            .chain(uncached.iter().copied())
    }

    /// The whole answer. To HEAD there is no body, but its length is told (RFC 9110, section 9.3.2).
    pub(super) fn render(&self, persistence: Persistence, head_only: bool) -> Vec<u8> {
        let status = if matches!(self.status, 200..=599) {
            self.status
        } else {
            500
        };
        let mut text = String::with_capacity(384 + self.body.len());
        let reason = reason(status);
        text.push_str(&format!(
            "HTTP/1.1 {status} {reason}\r\nDate: {}\r\n",
            httpdate::fmt_http_date(SystemTime::now())
        ));
        for (name, value) in self.fields() {
            for part in [name, ": ", value, "\r\n"] {
                text.push_str(part);
            }
        }
        // 204 and 304 have no body and no length (RFC 9110, section 8.6).
        let bodiless = matches!(status, 204 | 304);
        if !bodiless {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        text.push_str(match persistence {
            Persistence::Keep => "\r\n",
            Persistence::KeepAlive => "Connection: keep-alive\r\n\r\n",
            Persistence::Close => "Connection: close\r\n\r\n",
        });
        let mut bytes = text.into_bytes();
        if !head_only && !bodiless {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

impl From<super::hooks::Response> for Reply {
    fn from(response: super::hooks::Response) -> Self {
        let super::hooks::Response {
            status,
            headers,
            body,
        } = response;
        Reply {
            status,
            headers,
            body,
        }
    }
}

/// Sends a whole answer in one write, and so in as few packets as it fits into. tiny_http's writer is buffered, so a
/// short answer leaves with the flush.
pub(super) fn send(mut writer: Box<dyn Write + Send>, answer: &[u8]) -> io::Result<()> {
    writer.write_all(answer)?;
    writer.flush()
}

/// Sends an answer whose request has a body that was not read: first the answer, then the rest of the body is taken off
/// the connection, which may wait for the client.
pub(super) fn send_before_body(request: tiny_http::Request, reply: &Reply) {
    let remote = request.remote_addr().copied();
    if let Err(error) = request.respond(foreign(reply)) {
        log::debug!("an answer did not reach {remote:?}: {error}");
    }
}

/// The reply as tiny_http has it.
fn foreign(reply: &Reply) -> tiny_http::Response<io::Cursor<Vec<u8>>> {
    let mut response =
        tiny_http::Response::from_data(reply.body()).with_status_code(reply.status());
    for (name, value) in reply.fields() {
        if let Ok(field) = tiny_http::Header::from_bytes(name, value) {
            response.add_header(field);
        }
    }
    response
}

/// RFC 9110, section 5.6.2.
pub(super) fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// RFC 9110, section 5.5: visible characters, spaces and tabs; no line breaks and no NUL.
pub(super) fn is_field_value(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f)
}

/// RFC 9110, section 15, as far as answers of ours or of a handler are likely to need it.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unnamed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &Reply, persistence: Persistence, head_only: bool) -> String {
        String::from_utf8(reply.render(persistence, head_only)).unwrap()
    }

    #[test]
    fn no_field_of_an_answer_becomes_two() {
        let reply = Reply::new(200)
            .with("X-A", "1\r\nX-B: 2")
            .with("X C", "3")
            .with("X-D\r\n", "4")
            .with("X-E", "é");
        let text = text(&reply, Persistence::Keep, false);
        for smuggled in ["X-A", "X-B", "X C", "X-D"] {
            assert!(!text.contains(smuggled), "{text}");
        }
        assert!(text.contains("X-E: é\r\n"));
    }

    #[test]
    fn a_length_is_told_but_for_204_and_sent_without_a_body_to_head() {
        let reply = Reply::error(404, "x");
        assert!(
            text(&reply, Persistence::Close, false)
                .ends_with("Content-Length: 13\r\nConnection: close\r\n\r\n{\"error\":\"x\"}")
        );
        assert!(text(&reply, Persistence::Keep, true).ends_with("Content-Length: 13\r\n\r\n"));
        let empty = text(&Reply::new(204), Persistence::KeepAlive, false);
        assert!(
            !empty.contains("Content-Length") && empty.ends_with("Connection: keep-alive\r\n\r\n")
        );
    }

    #[test]
    fn framing_is_ours_and_caching_is_the_handlers_to_allow() {
        let reply = Reply::new(200)
            .with("content-length", "99")
            .with("Cache-Control", "max-age=5");
        let text = text(&reply, Persistence::Keep, false);
        assert!(
            text.contains("Content-Length: 0\r\n")
                && !text.contains("99")
                && !text.contains("no-store")
        );
    }
}
