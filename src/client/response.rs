//! [`SubscriptionResponse`] and [`PublishResponse`]: what a server answered, whether it granted or refused.

use serde::Deserialize;

use super::failure::Source;
use crate::event::Event;
use crate::headers::Headers;
use crate::position::EventId;
use crate::wire::{Answer, LAST_EVENT_ID};

/// The answer to a poll: events, none before the timeout, or a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionResponse {
    /// The HTTP status: 200 with events, 204 where none came before the timeout, others where the server refused.
    pub status: u16,
    /// The header fields; names are in lower case.
    pub headers: Headers,
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// True where events between the poll's position and these were lost.
    pub gap: bool,
    /// The position reached, from the header `Last-Event-ID`: give it to the next poll as
    /// [`last_id`](crate::SubscriptionRequest::last_id). golongpoll has no such header; go on from the last event there.
    pub last_id: Option<EventId>,
    /// Where a server of golongpoll's says that no event came: the Unix time in milliseconds to give to the next poll
    /// as [`since_time`](crate::SubscriptionRequest::since_time).
    pub timestamp: Option<u64>,
    /// Why the server refused, in its words: the `error` of the body's JSON, or the start of its text.
    pub error: Option<String>,
    pub(crate) source: Source,
}

impl SubscriptionResponse {
    /// True where the server granted the poll, with events or without: 204, or 200 without an `error`.
    pub fn success(&self) -> bool {
        match self.status {
            200 => self.error.is_none(),
            status => status == 204,
        }
    }

    pub(crate) fn new(status: u16, headers: Headers, source: Source) -> Self {
        let last_id = last_event_id(&headers);
        SubscriptionResponse {
            status,
            headers,
            last_id,
            source,
            ..SubscriptionResponse::default()
        }
    }

    /// Takes in the body of a 200.
    pub(crate) fn granted(mut self, body: &[u8]) -> serde_json::Result<Self> {
        let answer: Answer = serde_json::from_slice(without_bom(body))?;
        let error = answer.error.filter(|error| !error.is_empty());
        if answer.events.is_none() && answer.timeout.is_none() && error.is_none() {
            let message = "it has no member events, timeout or error";
            return Err(serde::de::Error::custom(message));
        }
        self.events = answer.events.unwrap_or_default();
        self.gap = answer.gap;
        self.timestamp = answer.timestamp;
        self.error = error;
        Ok(self)
    }

    /// Takes in the body of a refusal.
    pub(crate) fn refused(mut self, body: &[u8]) -> Self {
        self.error = words(body);
        self
    }
}

/// The answer to a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishResponse {
    /// The HTTP status: 200 where the event was taken.
    pub status: u16,
    /// The header fields; names are in lower case.
    pub headers: Headers,
    /// The body: `{"success": true}`, or why the server refused. At most its first 64 KiB.
    pub body: String,
    /// The id of the event, from the header `Last-Event-ID`. golongpoll has no such header.
    pub id: Option<EventId>,
    pub(crate) source: Source,
}

impl PublishResponse {
    pub(crate) fn new(status: u16, headers: Headers, body: &[u8], source: Source) -> Self {
        let id = last_event_id(&headers);
        PublishResponse {
            status,
            headers,
            body: String::from_utf8_lossy(body).into_owned(),
            id,
            source,
        }
    }

    /// True where the event was taken: the status is 200 and the body says `"success": true`.
    pub fn success(&self) -> bool {
        #[derive(Deserialize)]
        struct Body {
            success: bool,
        }
        let body = serde_json::from_slice(without_bom(self.body.as_bytes()));
        self.status == 200 && body.is_ok_and(|Body { success }| success)
    }

    /// Why the server refused, in its words: the `error` of the body's JSON, or the start of its text. `None` after a
    /// success.
    pub fn error(&self) -> Option<String> {
        let refused = !self.success();
        refused.then(|| words(self.body.as_bytes())).flatten()
    }
}

fn last_event_id(headers: &Headers) -> Option<EventId> {
    headers.get(LAST_EVENT_ID)?.parse().ok()
}

/// The body without a byte order mark, which a receiver may pass over (RFC 8259, section 8.1).
fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// The words of a refusal: the body's `error`, or the start of its text on one line.
fn words(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let body = without_bom(body);
    let text = match serde_json::from_slice(body) {
        Ok(Refusal { error }) => error,
        Err(_) => start(body, 200),
    };
    (!text.is_empty()).then_some(text)
}

/// The start of a body as one line of text, for a message.
pub(crate) fn start(body: &[u8], characters: usize) -> String {
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

    fn granted(body: &str) -> serde_json::Result<SubscriptionResponse> {
        SubscriptionResponse::new(200, Headers::new(), Source::default()).granted(body.as_bytes())
    }

    #[test]
    fn what_golongpoll_and_go_servers_say_is_understood() {
        let timeout = granted(r#"{"timeout":"no events before timeout","timestamp":5}"#).unwrap();
        assert!(timeout.success() && timeout.events.is_empty());
        assert_eq!(timeout.timestamp, Some(5));

        let refusal = granted(r#"{"error":"Invalid timeout arg"}"#).unwrap();
        assert!(!refusal.success());
        assert_eq!(refusal.error.as_deref(), Some("Invalid timeout arg"));

        assert!(granted(r#"{"events":null}"#).unwrap().success());
        assert!(granted(r#"{"events":[],"error":""}"#).unwrap().success());
    }

    #[test]
    fn a_byte_order_mark_before_the_json_is_passed_over() {
        let events = granted("\u{feff}{\"events\":[]}").unwrap();
        assert!(events.success());
        assert!(granted("\u{feff}\u{feff}{\"events\":[]}").is_err());
        let published = "\u{feff}{\"success\": true}".as_bytes();
        let published = PublishResponse::new(200, Headers::new(), published, Source::default());
        assert!(published.success());
        assert_eq!(
            words("\u{feff}{\"error\":\"no\"}".as_bytes()).unwrap(),
            "no"
        );
    }

    #[test]
    fn other_json_is_not_an_answer() {
        for body in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"hello":"world"}"#,
            r#"{"events":[1]}"#,
        ] {
            assert!(granted(body).is_err(), "{body}");
        }
    }

    #[test]
    fn the_words_of_a_refusal_come_from_its_json_or_its_text() {
        assert_eq!(
            words(br#"{"error":"no such category"}"#).unwrap(),
            "no such category"
        );
        assert_eq!(words(b"Not\r\n\x1b[31m Found\n").unwrap(), "Not [31m Found");
        assert_eq!(
            words("é".repeat(1000).as_bytes()).unwrap().chars().count(),
            200
        );
        assert_eq!(words(b" \n"), None);
    }

    #[test]
    fn a_publish_succeeds_by_status_and_body() {
        let answer = |status, body: &str| {
            PublishResponse::new(status, Headers::new(), body.as_bytes(), Source::default())
        };
        assert!(answer(200, r#"{"success": true}"#).success());
        assert_eq!(answer(200, r#"{"success": true}"#).error(), None);
        assert!(!answer(200, r#"{"success": false}"#).success());
        assert!(!answer(200, "<html>").success());
        assert!(!answer(500, r#"{"success": true}"#).success());
        assert_eq!(answer(403, "no\n").error().as_deref(), Some("no"));
    }
}
