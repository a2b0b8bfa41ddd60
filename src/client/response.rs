//! [`SubscriptionResponse`] and [`PublishResponse`]: the responses of a server.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::failure::Route;
use crate::event::Event;
use crate::headers::Headers;
use crate::position::EventId;
use crate::wire::{LAST_EVENT_ID, PollBody};

/// The response to a poll: events, a timeout without events, or a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a refusal is a response, too: check `success`, and read `events`"]
#[non_exhaustive]
pub struct SubscriptionResponse {
    /// The HTTP status: 200 with events, 204 after a timeout without events, another one for a refusal.
    pub status: u16,
    /// The header fields; names are in lower case.
    pub headers: Headers,
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// `true` if events between the poll's position and these events were lost.
    pub gap: bool,
    /// The position after this response, from the header `Last-Event-ID`. Give it to the next poll as
    /// [`last_id`](crate::SubscriptionRequest::last_id). golongpoll has no such header; there, continue after the last event.
    pub last_id: Option<EventId>,
    /// The Unix time in milliseconds that golongpoll's server sends after a timeout. Give it to the next poll as
    /// [`since_time`](crate::SubscriptionRequest::since_time).
    pub timestamp: Option<u64>,
    /// The server's message for a refusal: the `error` of the body's JSON, or the start of its text.
    pub error: Option<String>,
    pub(crate) route: Route,
}

impl SubscriptionResponse {
    /// Returns `true` if the server accepted the poll: status 204, or 200 without an `error`.
    pub fn success(&self) -> bool {
        match self.status {
            200 => self.error.is_none(),
            status => status == 204,
        }
    }

    pub(crate) fn new(status: u16, headers: Headers, route: Route) -> Self {
        let last_id = last_event_id(&headers);
        SubscriptionResponse {
            status,
            headers,
            last_id,
            route,
            ..SubscriptionResponse::default()
        }
    }

    /// Adds the body of a 200.
    pub(crate) fn with_poll_body(mut self, body: &[u8]) -> serde_json::Result<Self> {
        let content: PollBody = serde_json::from_slice(without_bom(body))?;
        let error = content
            .error
            .map(|error| excerpt(error.as_bytes(), LONGEST_ERROR));
        let error = error.filter(|error| !error.is_empty());
        if content.events.is_none() && content.timeout.is_none() && error.is_none() {
            let message = "it has no member events, timeout or error";
            return Err(serde::de::Error::custom(message));
        }
        self.events = content.events.unwrap_or_default();
        self.gap = content.gap;
        self.timestamp = content.timestamp;
        self.error = error;
        Ok(self)
    }

    /// Adds the body of a refusal.
    pub(crate) fn with_refusal(mut self, body: &[u8]) -> Self {
        self.error = error_message(body);
        self
    }
}

/// The response to a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishResponse {
    /// The HTTP status: 200 if the event was published.
    pub status: u16,
    /// The header fields; names are in lower case.
    pub headers: Headers,
    /// The body: `{"success": true}`, or the reason for a refusal. At most its first 64 KiB.
    pub body: String,
    /// The id of the event, from the header `Last-Event-ID`. golongpoll has no such header.
    pub id: Option<EventId>,
    pub(crate) route: Route,
}

impl PublishResponse {
    pub(crate) fn new(status: u16, headers: Headers, body: &[u8], route: Route) -> Self {
        let id = last_event_id(&headers);
        PublishResponse {
            status,
            headers,
            body: String::from_utf8_lossy(body).into_owned(),
            id,
            route,
        }
    }

    /// Returns `true` if the event was published: the status is 200 and the body says `"success": true`.
    pub fn success(&self) -> bool {
        #[derive(Deserialize)]
        struct Body {
            success: bool,
        }
        let body = serde_json::from_slice(without_bom(self.body.as_bytes()));
        self.status == 200 && body.is_ok_and(|Body { success }| success)
    }

    /// Returns `true` for a refusal in the form of the API, by which a server's own refusal differs from that of a proxy.
    pub(crate) fn is_refusal_of_api(&self) -> bool {
        serde_json::from_slice::<Refusal>(without_bom(self.body.as_bytes())).is_ok()
    }

    /// Returns `true` if the body is JSON: it was not cut off.
    pub(crate) fn has_json(&self) -> bool {
        serde_json::from_slice::<IgnoredAny>(without_bom(self.body.as_bytes())).is_ok()
    }

    /// Returns the ids of the events of a [`publish_all`](crate::Publisher::publish_all), in their order. After the publish of
    /// one event, that is [`id`](PublishResponse::id). Empty after a refusal.
    pub fn ids(&self) -> Vec<EventId> {
        #[derive(Deserialize)]
        struct Body {
            ids: Vec<EventId>,
        }
        match serde_json::from_slice(without_bom(self.body.as_bytes())) {
            Ok(Body { ids }) if self.success() => ids,
            _ => self.id.filter(|_| self.success()).into_iter().collect(),
        }
    }

    /// Returns the server's message for a refusal: the `error` of the body's JSON, or the start of its text. `None` after a
    /// success.
    pub fn error(&self) -> Option<String> {
        let refused = !self.success();
        refused
            .then(|| error_message(self.body.as_bytes()))
            .flatten()
    }
}

fn last_event_id(headers: &Headers) -> Option<EventId> {
    headers.get(LAST_EVENT_ID)?.parse().ok()
}

/// Returns the body without a byte order mark, which a receiver may ignore (RFC 8259, section 8.1).
fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// The body of a refusal.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// The most characters of a server's error that are kept: it goes into messages and logs, and may be of any server.
const LONGEST_ERROR: usize = 1000;

/// Returns the message of a refusal, on one line: the body's `error`, or the start of its text.
fn error_message(body: &[u8]) -> Option<String> {
    let body = without_bom(body);
    let text = match serde_json::from_slice(body) {
        Ok(Refusal { error }) => excerpt(error.as_bytes(), LONGEST_ERROR),
        Err(_) => excerpt(body, 200),
    };
    (!text.is_empty()).then_some(text)
}

/// Returns the first characters of a body as one line of text, for a message.
pub(crate) fn excerpt(body: &[u8], characters: usize) -> String {
    let head = &body[..body.len().min(8 * characters)];
    let text = String::from_utf8_lossy(head);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars()
        .filter(|c| !c.is_control())
        .take(characters)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(body: &str) -> serde_json::Result<SubscriptionResponse> {
        SubscriptionResponse::new(200, Headers::new(), Route::default())
            .with_poll_body(body.as_bytes())
    }

    #[test]
    fn the_bodies_of_golongpoll_and_go_are_understood() {
        let timeout = accepted(r#"{"timeout":"no events before timeout","timestamp":5}"#).unwrap();
        assert!(timeout.success() && timeout.events.is_empty());
        assert_eq!(timeout.timestamp, Some(5));

        let refusal = accepted(r#"{"error":"Invalid timeout arg"}"#).unwrap();
        assert!(!refusal.success());
        assert_eq!(refusal.error.as_deref(), Some("Invalid timeout arg"));

        assert!(accepted(r#"{"events":null}"#).unwrap().success());
        assert!(accepted(r#"{"events":[],"error":""}"#).unwrap().success());
    }

    #[test]
    fn a_byte_order_mark_before_the_json_is_ignored() {
        let events = accepted("\u{feff}{\"events\":[]}").unwrap();
        assert!(events.success());
        assert!(accepted("\u{feff}\u{feff}{\"events\":[]}").is_err());
        let published = "\u{feff}{\"success\": true}".as_bytes();
        let published = PublishResponse::new(200, Headers::new(), published, Route::default());
        assert!(published.success());
        assert_eq!(
            error_message("\u{feff}{\"error\":\"no\"}".as_bytes()).unwrap(),
            "no"
        );
    }

    #[test]
    fn an_error_of_a_server_is_one_line_of_bounded_length() {
        let error = format!(
            r#"{{"error":"full\n2026 ERROR\u001b[2J {}"}}"#,
            "x".repeat(5000)
        );
        for message in [
            error_message(error.as_bytes()).unwrap(),
            accepted(&error).unwrap().error.unwrap(),
        ] {
            assert!(message.starts_with("full 2026 ERROR[2J x"), "{message}");
            assert_eq!(message.len(), LONGEST_ERROR);
        }
    }

    #[test]
    fn other_json_is_an_error() {
        for body in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"hello":"world"}"#,
            r#"{"events":[1]}"#,
        ] {
            assert!(accepted(body).is_err(), "{body}");
        }
    }

    #[test]
    fn the_message_of_a_refusal_comes_from_its_json_or_its_text() {
        assert_eq!(
            error_message(br#"{"error":"no such category"}"#).unwrap(),
            "no such category"
        );
        assert_eq!(
            error_message(b"Not\r\n\x1b[31m Found\n").unwrap(),
            "Not [31m Found"
        );
        assert_eq!(
            error_message("é".repeat(1000).as_bytes())
                .unwrap()
                .chars()
                .count(),
            200
        );
        assert_eq!(error_message(b" \n"), None);
    }

    #[test]
    fn a_publish_succeeds_by_status_and_body() {
        let response = |status, body: &str| {
            PublishResponse::new(status, Headers::new(), body.as_bytes(), Route::default())
        };
        assert!(response(200, r#"{"success": true}"#).success());
        assert_eq!(response(200, r#"{"success": true}"#).error(), None);
        assert!(!response(200, r#"{"success": false}"#).success());
        assert!(!response(200, "<html>").success());
        assert!(!response(500, r#"{"success": true}"#).success());
        assert_eq!(response(403, "no\n").error().as_deref(), Some("no"));
    }
}
