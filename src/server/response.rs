//! [`Response`]: the answer to a request, before it is rendered for a connection.

use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::headers::Headers;
use crate::position::EventId;
use crate::wire::{LAST_EVENT_ID, render_error};

/// An answer that a handler or the fallback gives.
///
/// ```
/// use long_polling::server::Response;
///
/// let response =
///     Response::text(503, "closed for today").with_header("Retry-After", "3600");
/// assert_eq!(
///     response.headers.get("Content-Type"),
///     Some("text/plain; charset=utf-8")
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a response is sent only if the hook returns it"]
pub struct Response {
    /// The status, 200 to 599; anything else is sent as 500.
    pub status: u16,
    /// Header fields. A field that is set here replaces the server's own: those against caching (all three are left out
    /// where there is a `Cache-Control`), `X-Content-Type-Options`, and `Access-Control-Allow-Origin` of
    /// [`cors`](crate::ServerInfo::cors). The fields that frame the message (`Content-Length`,
    /// `Transfer-Encoding`, `Connection`, `Keep-Alive`, `Trailer`) and `Date` are always the server's; those set here are
    /// left out. A field that can't be sent as one line is left out, too. Of a field that no message may have twice, such
    /// as `Content-Type`, the last one is sent.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer without a body.
    pub fn new(status: u16) -> Self {
        Response {
            status,
            headers: Headers::new(),
            body: Vec::new(),
        }
    }

    /// A text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Response::with_body(status, "text/plain; charset=utf-8", text.into())
    }

    /// A page.
    pub fn html(status: u16, page: impl Into<String>) -> Self {
        Response::with_body(status, "text/html; charset=utf-8", page.into())
    }

    /// Anything that serializes to JSON; where it does not, a 500.
    pub fn json<T: Serialize + ?Sized>(status: u16, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => Response::from_json(status, json),
            Err(error) => {
                log::error!("an answer can't be written as JSON: {error}");
                Response::error(500, "internal error")
            }
        }
    }

    /// A refusal as the API words its own: `{"error":"…"}`.
    pub fn error(status: u16, message: &str) -> Self {
        Response::from_json(status, render_error(message))
    }

    /// Sets a header field: replaces all fields of this name, such as the `Content-Type` of [`text`](Response::text).
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.set(name, value);
        self
    }

    /// Adds a header field after the others, such as a second `Set-Cookie`. Fields of the same name stay.
    pub fn with_added_header(mut self, name: &str, value: &str) -> Self {
        self.headers.add(name, value);
        self
    }

    /// An answer of JSON text.
    pub(super) fn from_json(status: u16, json: impl Into<Vec<u8>>) -> Self {
        Response::with_body(status, "application/json", json)
    }

    /// A 503 that says when to try again.
    pub(super) fn busy(message: &str) -> Self {
        Response::error(503, message).with_header("Retry-After", "1")
    }

    /// The answer to a body of more than `max` bytes.
    pub(super) fn body_too_large(max: usize) -> Self {
        let message = format!("the body is too large: the limit is {max} bytes");
        Response::error(413, &message)
    }

    /// The 503 of a server that could not start a thread for the request.
    #[cfg(feature = "server")]
    pub(super) fn out_of_threads() -> Self {
        Response::busy("no thread can be had to serve this; try again")
    }

    /// Sets the field that carries the position reached, or the id of an event.
    pub(super) fn with_position(self, id: EventId) -> Self {
        let text = id.to_text();
        self.with_header(
            LAST_EVENT_ID,
            std::str::from_utf8(&text).unwrap_or_default(),
        )
    }

    /// Adds a field unless a field of this name is there: a hook's own value wins.
    pub(super) fn with_default(self, name: &str, value: &str) -> Self {
        if self.headers.get(name).is_some() {
            return self;
        }
        self.with_added_header(name, value)
    }

    fn with_body(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        // With room for a position.
        let mut headers = Headers::with_capacity(2, 96);
        headers.add("Content-Type", content_type);
        Response {
            status,
            headers,
            body: body.into(),
        }
    }
}

/// The answer of either side, for hooks that use `?`.
impl<E: Into<Response>> From<Result<Response, E>> for Response {
    fn from(result: Result<Response, E>) -> Self {
        result.unwrap_or_else(E::into)
    }
}

/// The answer that refuses a request for this error: 400, 413, 422 or 503 where the request or the server's load is the reason,
/// else 500.
impl From<Error> for Response {
    fn from(error: Error) -> Self {
        let message = error.report().to_string();
        match error.kind() {
            ErrorKind::InvalidRequest => Response::error(400, &message),
            ErrorKind::TooLarge => Response::error(413, &message),
            ErrorKind::Stopped | ErrorKind::Busy | ErrorKind::Store => Response::busy(&message),
            ErrorKind::Misdirected => Response::error(421, &message),
            ErrorKind::KeyReused => Response::error(422, &message),
            // Of a publish: whether it took effect is not known.
            ErrorKind::TimedOut => Response::error(504, &message),
            _ => Response::error(500, &message),
        }
    }
}
