//! Rendering answers, and sending each in one write.
//!
//! tiny_http's own `respond` writes head and body apart, which costs 44 ms above 1 KB where Nagle's algorithm meets a
//! delayed acknowledgement, and drops a `Connection` field; so answers are rendered here, whole.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::headers::Headers;
use crate::wire::{LAST_EVENT_ID, render_error};

/// Fields that frame the message or concern its connection. They are always the server's own.
const FRAMING: [&str; 6] = [
    "Content-Length",
    "Transfer-Encoding",
    "Trailer",
    "Connection",
    "Keep-Alive",
    "Date",
];
/// Fields that have one value and no list of them, as far as hooks are likely to set them.
const SINGLE: [&str; 14] = [
    "Content-Type",
    "Content-Location",
    "Content-Range",
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Credentials",
    "Access-Control-Max-Age",
    "Age",
    "ETag",
    "Expires",
    "Last-Modified",
    "Location",
    "Retry-After",
    "X-Content-Type-Options",
    LAST_EVENT_ID,
];

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

    /// Adds a field unless a field of this name is there: a hook's own value wins.
    pub(super) fn with_default(self, name: &str, value: &str) -> Self {
        if self.headers.get(name).is_some() {
            return self;
        }
        self.with(name, value)
    }

    /// The fields that are sent, besides those that frame the message. A field that could not be sent as one line is left
    /// out. Of a field that no message may have twice, the last one counts (RFC 9110, section 5.3).
    pub(super) fn fields(&self) -> Vec<(&str, &str)> {
        const UNCACHED: [(&str, &str); 3] = [
            ("Cache-Control", "no-cache, no-store, must-revalidate"),
            ("Pragma", "no-cache"),
            ("Expires", "0"),
        ];
        let mut fields: Vec<(&str, &str)> = Vec::with_capacity(8);
        for (name, value) in self.headers.iter() {
            if !is_token(name) || !is_field_value(value) {
                log::error!(
                    "a header field of an answer is left out, as it would not be one line: {name:?}: {value:?}"
                );
            } else if !is_one_of(&FRAMING, name) {
                if is_one_of(&SINGLE, name) {
                    fields.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
                }
                fields.push((name, value));
            }
        }
        let has = |fields: &[(&str, &str)], name: &str| {
            let mut names = fields.iter().map(|(other, _)| other);
            names.any(|other| other.eq_ignore_ascii_case(name))
        };
        let uncached = if has(&fields, "Cache-Control") {
            &[]
        } else {
            &UNCACHED[..]
        };
        for &(name, value) in [("X-Content-Type-Options", "nosniff")]
            .iter()
            .chain(uncached)
        {
            if !has(&fields, name) {
                fields.push((name, value));
            }
        }
        fields
    }

    /// The length of the body. For an answer to HEAD without a body, it is the one that a fallback gives, which may know
    /// it without the body.
    fn length(&self, head_only: bool) -> u64 {
        let given = self.headers.get("Content-Length");
        match given.and_then(|length| length.parse().ok()) {
            Some(given) if head_only && self.body.is_empty() => given,
            _ => self.body.len() as u64,
        }
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
            http_date(SystemTime::now())
        ));
        for (name, value) in self.fields() {
            for part in [name, ": ", value, "\r\n"] {
                text.push_str(part);
            }
        }
        // 204 and 304 have no body and no length (RFC 9110, section 8.6).
        let bodiless = matches!(status, 204 | 304);
        if !bodiless {
            text.push_str(&format!("Content-Length: {}\r\n", self.length(head_only)));
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

/// The reply as tiny_http has it, with a `Date`, since tiny_http panics where it writes one that HTTP has no form for.
fn foreign(reply: &Reply) -> tiny_http::Response<io::Cursor<Vec<u8>>> {
    let mut response =
        tiny_http::Response::from_data(reply.body()).with_status_code(reply.status());
    let date = http_date(SystemTime::now());
    let fields = reply.fields().into_iter();
    for (name, value) in fields.chain([("Date", date.as_str())]) {
        if let Ok(field) = tiny_http::Header::from_bytes(name, value) {
            response.add_header(field);
        }
    }
    response
}

/// A time in the form of the `Date` field (RFC 9110, section 5.6.7), which has the years 1970 to 9999. A clock that is
/// wrong by more than that gives the nearest time of those years: httpdate panics on any other.
pub(super) fn http_date(time: SystemTime) -> String {
    const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let representable = UNIX_EPOCH.checked_add(since_epoch.min(LAST_SECOND));
    httpdate::fmt_http_date(representable.unwrap_or(UNIX_EPOCH))
}

fn is_one_of(names: &[&str], name: &str) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
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
    fn a_field_of_a_hook_replaces_ours_and_a_single_field_is_sent_once() {
        let reply = Reply::json(200, "{}")
            .with("content-type", "text/html")
            .with("x-content-type-options", "none")
            .with("expires", "1")
            .with("Set-Cookie", "a=1")
            .with("Set-Cookie", "b=2")
            .with("Access-Control-Allow-Origin", "https://a.example")
            .with_default("access-control-allow-origin", "*");
        let fields = reply.fields();
        for (name, values) in [
            ("Content-Type", &["text/html"][..]),
            ("X-Content-Type-Options", &["none"]),
            ("Expires", &["1"]),
            ("Pragma", &["no-cache"]),
            ("Set-Cookie", &["a=1", "b=2"]),
            ("Access-Control-Allow-Origin", &["https://a.example"]),
        ] {
            let sent: Vec<_> = fields
                .iter()
                .filter(|(other, _)| other.eq_ignore_ascii_case(name))
                .map(|(_, value)| *value)
                .collect();
            assert_eq!(sent, values, "{name}");
        }
        // The path by which an unread body is answered has the same fields.
        let foreign = foreign(&reply);
        let types = foreign.headers().iter();
        let types = types.filter(|field| field.field.equiv("Content-Type"));
        assert_eq!(types.count(), 1);
    }

    #[test]
    fn a_date_of_any_clock_has_a_form() {
        let second = Duration::from_secs(1);
        let first = "Thu, 01 Jan 1970 00:00:00 GMT";
        let last = "Fri, 31 Dec 9999 23:59:59 GMT";
        let end = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        for (time, date) in [
            (UNIX_EPOCH, first),
            (UNIX_EPOCH - second, first),
            (UNIX_EPOCH - Duration::from_secs(1 << 33), first),
            (end, last),
            (end + second, last),
            (end + Duration::from_secs(1 << 38), last),
            (UNIX_EPOCH + second, "Thu, 01 Jan 1970 00:00:01 GMT"),
        ] {
            assert_eq!(http_date(time), date, "{time:?}");
        }
    }

    #[test]
    fn an_answer_by_tiny_http_has_a_date_of_ours() {
        let foreign = foreign(&Reply::error(413, "x"));
        let mut dates = foreign.headers().iter();
        assert!(dates.any(|field| field.field.equiv("Date")));
    }

    #[test]
    fn the_length_in_an_answer_to_head_is_the_one_given_where_there_is_no_body() {
        let given = Reply::new(200).with("Content-Length", "99");
        assert!(text(&given, Persistence::Keep, true).contains("Content-Length: 99\r\n"));
        assert!(text(&given, Persistence::Keep, false).contains("Content-Length: 0\r\n"));
        let both = Reply::json(200, "{}").with("Content-Length", "99");
        assert!(text(&both, Persistence::Keep, true).contains("Content-Length: 2\r\n"));
        let wrong = Reply::new(200).with("Content-Length", "-1");
        assert!(text(&wrong, Persistence::Keep, true).contains("Content-Length: 0\r\n"));
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
