//! A response as bytes, the same for each backend: status line, header fields, framing and body in one piece.
//!
//! In one piece, since head and body in two writes cost 44 ms above 1 KB where Nagle's algorithm meets a delayed
//! acknowledgement.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::response::Response;
use crate::wire::LAST_EVENT_ID;

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

/// Whether the connection stays open after an answer, as the answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// HTTP/1.1's default: nothing needs to be said.
    Keep,
    /// HTTP/1.0 with `Connection: keep-alive`: has to be confirmed.
    KeepAlive,
    /// `Connection: close`.
    Close,
}

impl Response {
    /// The fields that are sent, besides those that frame the message. A field that could not be sent as one line is left
    /// out. Of a field that no message may have twice, the last one counts (RFC 9110, section 5.3).
    pub(super) fn fields(&self) -> Vec<(&str, &str)> {
        const UNCACHED: [(&str, &str); 3] = [
            ("Cache-Control", "no-cache, no-store, must-revalidate"),
            ("Pragma", "no-cache"),
            ("Expires", "0"),
        ];
        let has = |fields: &[(&str, &str)], name: &str| {
            let mut names = fields.iter().map(|(other, _)| other);
            names.any(|other| other.eq_ignore_ascii_case(name))
        };
        let mut fields: Vec<(&str, &str)> = Vec::with_capacity(8);
        for (name, value) in self.headers.iter() {
            if !is_token(name) || !is_field_value(value) {
                log::error!(
                    "the header field {name:?} of an answer is left out, as it would not be one line"
                );
            } else if !is_one_of(&FRAMING, name) {
                if has(&fields, name) && is_one_of(&SINGLE, name) {
                    fields.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
                }
                fields.push((name, value));
            }
        }
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

    /// The status that is sent.
    fn sent_status(&self) -> u16 {
        if matches!(self.status, 200..=599) {
            self.status
        } else {
            500
        }
    }

    /// The response with all that is sent, besides the fields that frame the message.
    pub(super) fn complete(self) -> Response {
        let status = self.sent_status();
        Response {
            status,
            headers: self.fields().into_iter().collect(),
            body: if is_bodiless(status) {
                Vec::new()
            } else {
                self.body
            },
        }
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

    /// [`render`](Response::render), for a relay in place of the server. `keep` says whether the connection stays.
    #[cfg(feature = "testing")]
    pub(crate) fn render_alone(&self, keep: bool, head_only: bool) -> Vec<u8> {
        let persistence = match keep {
            true => Persistence::Keep,
            false => Persistence::Close,
        };
        self.render(persistence, head_only)
    }

    /// The whole answer as bytes. The answer to HEAD has no body, but has the body's length (RFC 9110, section 9.3.2).
    pub(super) fn render(&self, persistence: Persistence, head_only: bool) -> Vec<u8> {
        let status = self.sent_status();
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
        let bodiless = is_bodiless(status);
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

/// A time in the form of the `Date` field (RFC 9110, section 5.6.7), which has the years 1970 to 9999. A clock that is
/// wrong by more than that gives the nearest time of those years: httpdate panics on any other.
pub(super) fn http_date(time: SystemTime) -> String {
    const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let representable = UNIX_EPOCH.checked_add(since_epoch.min(LAST_SECOND));
    httpdate::fmt_http_date(representable.unwrap_or(UNIX_EPOCH))
}

/// 204 and 304 have no body and no length (RFC 9110, section 8.6).
fn is_bodiless(status: u16) -> bool {
    matches!(status, 204 | 304)
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
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        421 => "Misdirected Request",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unnamed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: &Response, persistence: Persistence, head_only: bool) -> String {
        String::from_utf8(response.render(persistence, head_only)).unwrap()
    }

    #[test]
    fn no_field_of_an_answer_becomes_two() {
        let response = Response::new(200)
            .with_added_header("X-A", "1\r\nX-B: 2")
            .with_added_header("X C", "3")
            .with_added_header("X-D\r\n", "4")
            .with_added_header("X-E", "é");
        let text = text(&response, Persistence::Keep, false);
        for smuggled in ["X-A", "X-B", "X C", "X-D"] {
            assert!(!text.contains(smuggled), "{text}");
        }
        assert!(text.contains("X-E: é\r\n"));
    }

    #[test]
    fn every_answer_but_204_has_a_length_and_the_answer_to_head_has_no_body() {
        let response = Response::error(404, "x");
        assert!(
            text(&response, Persistence::Close, false)
                .ends_with("Content-Length: 13\r\nConnection: close\r\n\r\n{\"error\":\"x\"}")
        );
        assert!(text(&response, Persistence::Keep, true).ends_with("Content-Length: 13\r\n\r\n"));
        let empty = text(&Response::new(204), Persistence::KeepAlive, false);
        assert!(
            !empty.contains("Content-Length") && empty.ends_with("Connection: keep-alive\r\n\r\n")
        );
    }

    #[test]
    fn a_field_of_a_hook_replaces_ours_and_a_single_field_is_sent_once() {
        let response = Response::from_json(200, "{}")
            .with_added_header("content-type", "text/html")
            .with_added_header("x-content-type-options", "none")
            .with_added_header("expires", "1")
            .with_added_header("Set-Cookie", "a=1")
            .with_added_header("Set-Cookie", "b=2")
            .with_added_header("Access-Control-Allow-Origin", "https://a.example")
            .with_default("access-control-allow-origin", "*");
        let fields = response.fields();
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
    fn the_length_in_an_answer_to_head_is_the_one_given_where_there_is_no_body() {
        let given = Response::new(200).with_added_header("Content-Length", "99");
        assert!(text(&given, Persistence::Keep, true).contains("Content-Length: 99\r\n"));
        assert!(text(&given, Persistence::Keep, false).contains("Content-Length: 0\r\n"));
        let both = Response::from_json(200, "{}").with_added_header("Content-Length", "99");
        assert!(text(&both, Persistence::Keep, true).contains("Content-Length: 2\r\n"));
        let wrong = Response::new(200).with_added_header("Content-Length", "-1");
        assert!(text(&wrong, Persistence::Keep, true).contains("Content-Length: 0\r\n"));
    }

    #[test]
    fn framing_is_ours_and_caching_is_the_handlers_to_allow() {
        let response = Response::new(200)
            .with_added_header("content-length", "99")
            .with_added_header("Cache-Control", "max-age=5");
        let text = text(&response, Persistence::Keep, false);
        assert!(
            text.contains("Content-Length: 0\r\n")
                && !text.contains("99")
                && !text.contains("no-store")
        );
    }
}
