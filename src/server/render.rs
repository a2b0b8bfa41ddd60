//! A response as bytes, the same for each backend: status line, header fields, framing and body in one piece.
//!
//! In one piece, since head and body in two writes cost 44 ms above 1 KB where Nagle's algorithm meets a delayed
//! acknowledgement.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::response::Response;
use crate::event::decimal;
use crate::position::EventId;
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

/// The server's own fields, each unless a field of this name is set.
const NO_SNIFFING: (&str, &str) = ("X-Content-Type-Options", "nosniff");
/// Left out, all three, where there is a `Cache-Control`.
const UNCACHED: [(&str, &str); 3] = [
    ("Cache-Control", "no-cache, no-store, must-revalidate"),
    ("Pragma", "no-cache"),
    ("Expires", "0"),
];
/// Bytes of most heads.
const HEAD: usize = 384;

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

/// How a client finds the end of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    /// The body ends with the connection, as HTTP/1.0 has it.
    UntilClose,
}

impl Response {
    /// The fields that are sent, besides those that frame the message. A field that could not be sent as one line is left
    /// out. Of a field that no message may have twice, the last one counts (RFC 9110, section 5.3).
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let set = self.headers.iter().enumerate();
        let set = set.filter(|(at, (name, value))| {
            let is_line = is_token(name) && is_field_value(value);
            if !is_line {
                log::error!(
                    "the header field {name:?} of an answer is left out, as it would not be one line"
                );
            }
            let is_replaced = || {
                let mut later = self.headers.iter().skip(at + 1);
                later.any(|(other, value)| {
                    other.eq_ignore_ascii_case(name) && is_field_value(value)
                })
            };
            is_line && !is_one_of(&FRAMING, name) && !(is_one_of(&SINGLE, name) && is_replaced())
        });
        let is_set = |name: &str| self.headers.get_all(name).any(is_field_value);
        let uncached = if is_set("Cache-Control") {
            &[]
        } else {
            &UNCACHED[..]
        };
        let own = [NO_SNIFFING].iter().chain(uncached).copied();
        let own = own.filter(move |(name, _)| !is_set(name));
        set.map(|(_, field)| field).chain(own)
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
            headers: self.fields().collect(),
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
        let length = self.length(head_only);
        let body = if head_only { &[] } else { &self.body[..] };
        let framing = Framing::Length(length);
        message(
            self.sent_status(),
            self.fields(),
            framing,
            body,
            persistence,
        )
    }

    /// The head of an answer whose body follows.
    pub(super) fn render_head(&self, framing: Framing, persistence: Persistence) -> Vec<u8> {
        message(self.sent_status(), self.fields(), framing, &[], persistence)
    }
}

/// The answer of JSON with a position to a publish, or to a poll with events: the same bytes as a [`Response`] gives, with one
/// allocation.
pub(super) fn render_json(
    json: &str,
    position: EventId,
    cors: &[(&str, &str)],
    persistence: Persistence,
    head_only: bool,
) -> Vec<u8> {
    let id = position.to_text();
    let id = std::str::from_utf8(&id).unwrap_or_default();
    let fields = [("Content-Type", "application/json"), (LAST_EVENT_ID, id)];
    let fields = fields.into_iter().chain(cors.iter().copied());
    let fields = fields.chain([NO_SNIFFING]).chain(UNCACHED);
    let body = if head_only { "" } else { json };
    let framing = Framing::Length(json.len() as u64);
    message(200, fields, framing, body.as_bytes(), persistence)
}

fn message<'a>(
    status: u16,
    fields: impl Iterator<Item = (&'a str, &'a str)>,
    framing: Framing,
    body: &[u8],
    persistence: Persistence,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + body.len());
    let mut push = |parts: &[&[u8]]| parts.iter().for_each(|part| bytes.extend_from_slice(part));
    let digits = &mut [0; 20];
    let status_digits = decimal(status.into(), digits).as_bytes();
    push(&[b"HTTP/1.1 ", status_digits, b" ", reason(status).as_bytes()]);
    push(&[b"\r\nDate: ", &date_now(), b"\r\n"]);
    for (name, value) in fields {
        push(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    let bodiless = is_bodiless(status);
    match framing {
        _ if bodiless => {}
        Framing::Length(length) => {
            let length = decimal(length, digits).as_bytes();
            push(&[b"Content-Length: ", length, b"\r\n"]);
        }
        Framing::Chunked => push(&[b"Transfer-Encoding: chunked\r\n"]),
        Framing::UntilClose => {}
    }
    push(&[match persistence {
        Persistence::Keep => b"\r\n",
        Persistence::KeepAlive => b"Connection: keep-alive\r\n\r\n",
        Persistence::Close => b"Connection: close\r\n\r\n",
    }]);
    if !bodiless {
        bytes.extend_from_slice(body);
    }
    bytes
}

/// The bytes of a time in the form of the `Date` field.
type Date = [u8; 29];

/// The present time in the form of the `Date` field. Each thread formats it once a second at most.
fn date_now() -> Date {
    thread_local! {
        /// Seconds since the epoch, and what they look like.
        static DATE: Cell<(u64, Date)> = const { Cell::new((u64::MAX, [0; 29])) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (last, date) = DATE.get();
    if last == second {
        return date;
    }
    let date = http_date(now).into_bytes().try_into().unwrap_or([b' '; 29]);
    DATE.set((second, date));
    date
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
    const TOKEN: [bool; 256] = {
        let (mut table, mut byte) = ([false; 256], 0);
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let mut others: &[u8] = b"!#$%&'*+-.^_`|~";
        while let [other, rest @ ..] = others {
            table[*other as usize] = true;
            others = rest;
        }
        table
    };
    !name.is_empty() && name.bytes().all(|byte| TOKEN[usize::from(byte)])
}

/// RFC 9110, section 5.5: visible characters, spaces and tabs; no line breaks and no NUL.
pub(super) fn is_field_value(value: &str) -> bool {
    let is_allowed = |byte| byte == b'\t' || byte >= b' ' && byte != 0x7f;
    // All bytes, since the compiler makes vector instructions of that.
    value.bytes().fold(true, |all, byte| all & is_allowed(byte))
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
    use crate::server::cors::{self, Cors, Grant};
    use crate::server::request::Request;

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
    fn json_with_a_position_is_rendered_as_a_response_with_it_is() {
        let id = EventId::from(7);
        let list = || Some(Cors::new().origins(["https://a.example", "https://b.example"]));
        let request = |origin| Request::new("GET", "/events").with_header("Origin", origin);
        for (cors, origin) in [
            (None, "https://a.example"),
            (Some(Cors::new().any_origin()), "https://a.example"),
            (Some(Cors::new().origins(["https://a.example"])), ""),
            (list(), "https://evil.example"),
            (list(), "https://b.example"),
            (
                list().map(|cors| cors.credentials(true)),
                "https://b.example",
            ),
        ] {
            let grant = Grant::of(&request(origin), cors.as_ref());
            for persistence in [
                Persistence::Keep,
                Persistence::KeepAlive,
                Persistence::Close,
            ] {
                for head_only in [true, false] {
                    let response = Response::from_json(200, "{}").with_position(id);
                    let response = cors::with_fields(response, cors.as_ref(), &grant);
                    let fields = cors::fields(cors.as_ref(), &grant);
                    let rendered = render_json("{}", id, &fields, persistence, head_only);
                    // The second may change between the two.
                    let undated = |answer: Vec<u8>| {
                        let answer = String::from_utf8(answer).unwrap();
                        let (start, rest) = answer.split_once("Date: ").unwrap();
                        start.to_owned() + &rest[29..]
                    };
                    let expected = undated(response.render(persistence, head_only));
                    assert_eq!(undated(rendered), expected);
                }
            }
        }
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
        for (name, values) in [
            ("Content-Type", &["text/html"][..]),
            ("X-Content-Type-Options", &["none"]),
            ("Expires", &["1"]),
            ("Pragma", &["no-cache"]),
            ("Set-Cookie", &["a=1", "b=2"]),
            ("Access-Control-Allow-Origin", &["https://a.example"]),
        ] {
            let sent: Vec<_> = response
                .fields()
                .filter(|(other, _)| other.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
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
