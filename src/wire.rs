//! The shapes of the HTTP API, shared by server and client: the query of a poll, and the bodies of requests and responses.
//!
//! They are those of golongpoll, with additions that its clients ignore.

mod categories;
#[cfg(any(feature = "_server", feature = "client"))]
mod key;
mod query;

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

#[cfg(any(feature = "_server", feature = "client"))]
use crate::error::{Error, ErrorKind};
use crate::event::Event;
#[cfg(feature = "_server")]
use crate::position::EventId;

pub use categories::Categories;
#[cfg(any(feature = "_server", feature = "client"))]
pub(crate) use categories::check_category;
#[cfg(feature = "client")]
pub(crate) use key::quote_key;
#[cfg(any(feature = "_server", feature = "client"))]
pub(crate) use key::{IDEMPOTENCY_KEY, IDEMPOTENCY_WINDOW, check_key};
#[cfg(feature = "_server")]
pub(crate) use key::{IDEMPOTENCY_REPLAYED, parse_key};
pub use query::SubscriptionRequest;
#[cfg(feature = "_server")]
pub(crate) use query::{asks_for_info, category_of_query, check_subscriber};

/// The header that carries the position that a poll reached, or the id of a published event.
pub(crate) const LAST_EVENT_ID: &str = "Last-Event-ID";
/// The body of the response to a publish. A test of the Go package compares every byte of it.
#[cfg_attr(not(feature = "_server"), allow(dead_code))]
pub(crate) const PUBLISHED: &str = r#"{"success": true}"#;

/// Returns the body of the response to a publish of several events.
#[cfg(feature = "_server")]
pub(crate) fn render_published(ids: &[EventId]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    format!(r#"{{"success":true,"ids":[{}]}}"#, ids.join(","))
}

/// One event to publish: the body of `POST {publish_uri}`.
///
/// ```
/// use long_polling::PublishRequest;
///
/// let request =
///     PublishRequest::new("notifications", serde_json::json!({"message": "Hello"}));
/// assert_eq!(
///     serde_json::to_string(&request).unwrap(),
///     r#"{"category":"notifications","data":{"message":"Hello"}}"#
/// );
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[must_use = "a request does nothing until it is given to `publish`"]
pub struct PublishRequest<T> {
    pub(crate) category: String,
    pub(crate) data: T,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "seconds")]
    pub(crate) ttl: Option<Duration>,
    #[serde(skip)]
    #[cfg_attr(not(any(feature = "_server", feature = "client")), allow(dead_code))]
    pub(crate) key: Option<String>,
}

impl<T: Serialize> PublishRequest<T> {
    /// Creates a request to publish `data` to `category`.
    ///
    /// The data is any value that serializes to JSON but not to null; in the Go package it is a string. The category has 1
    /// to 1024 bytes.
    pub fn new(category: impl Into<String>, data: T) -> Self {
        PublishRequest {
            category: category.into(),
            data,
            ttl: None,
            key: None,
        }
    }

    /// Sets the category to publish to. Defaults to the one given to [`new`](PublishRequest::new).
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.category = category.into();
        self
    }

    /// Sets the data. Defaults to the value given to [`new`](PublishRequest::new).
    pub fn data(mut self, data: T) -> Self {
        self.data = data;
        self
    }

    /// Sets how long the server keeps the event, a millisecond or more. The server drops a fraction of a millisecond.
    /// Defaults to `None`: as long as the server's settings say.
    ///
    /// If the server's settings limit the time to live, too, the shorter one counts. A subscriber that has not received the
    /// event when it expires gets a gap. The body has the time as the member `ttl`, in seconds:
    ///
    /// ```
    /// use std::time::Duration;
    /// use long_polling::PublishRequest;
    ///
    /// let request =
    ///     PublishRequest::new("typing", "alice").ttl(Duration::from_millis(2500));
    /// let json = r#"{"category":"typing","data":"alice","ttl":2.5}"#;
    /// assert_eq!(serde_json::to_string(&request).unwrap(), json);
    /// ```
    pub fn ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// Sets the idempotency key, 1 to 255 printable ASCII characters: a repetition of the publish with the same key, within
    /// the server's [`idempotency_window`](crate::BrokerOptions::idempotency_window), publishes nothing and returns the id of
    /// the first event. A random UUID for each event is a good key. Over HTTP, the header field `Idempotency-Key` has it; the
    /// body does not. Defaults to `None`: the event is published each time.
    ///
    /// ```
    /// use long_polling::PublishRequest;
    ///
    /// let request = PublishRequest::new("orders", "pizza")
    ///     .idempotency_key("8e03978e-40d5-43dd-bc93-6894a57f9324");
    /// let json = r#"{"category":"orders","data":"pizza"}"#;
    /// assert_eq!(serde_json::to_string(&request).unwrap(), json);
    /// ```
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// Writes a duration as a number of seconds, without a fraction if it has none.
fn seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) if time.subsec_nanos() > 0 => serializer.serialize_f64(time.as_secs_f64()),
        Some(time) => serializer.serialize_u64(time.as_secs()),
        None => serializer.serialize_none(),
    }
}

/// The most events of one publish.
#[cfg(any(feature = "_server", feature = "client"))]
const MAX_EVENTS_PER_PUBLISH: usize = 1000;

/// Makes an event of each item of one publish.
///
/// # Errors
///
/// `InvalidRequest` for a publish of no events, `TooLarge` for one of too many, and the first error of `make`, with the number
/// of its item.
#[cfg(any(feature = "_server", feature = "client"))]
pub(crate) fn each_event<T, U>(
    items: &[T],
    make: impl Fn(&T) -> Result<U, Error>,
) -> Result<Vec<U>, Error> {
    let count = items.len();
    match count {
        0 => Err(Error::request(
            "no events to publish: give 1 to 1000 in one publish",
        )),
        1..=MAX_EVENTS_PER_PUBLISH => (1..)
            .zip(items)
            .map(|(number, item)| {
                let which = |error: Error| error.context(format!("event {number} of {count}"));
                make(item).map_err(which)
            })
            .collect(),
        more => Err(Error::new(
            ErrorKind::TooLarge,
            format!("{more} events in one publish: give 1 to {MAX_EVENTS_PER_PUBLISH}"),
        )),
    }
}

/// # Errors
///
/// `InvalidRequest` for a time to live of less than a millisecond.
#[cfg(any(feature = "_server", feature = "client"))]
pub(crate) fn check_ttl(ttl: Option<Duration>) -> Result<(), Error> {
    match ttl {
        Some(ttl) if ttl < Duration::from_millis(1) => Err(Error::request(format!(
            "a time to live (ttl) of {ttl:?}: give 0.001 seconds or more, or leave it out"
        ))),
        _ => Ok(()),
    }
}

/// The body of a publish, as the server reads it. The data is not parsed, and other members are ignored.
#[derive(Deserialize)]
#[cfg_attr(not(feature = "_server"), allow(dead_code))]
pub(crate) struct PublishBody<'a> {
    #[serde(borrow)]
    pub(crate) category: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) data: &'a RawValue,
    #[serde(default, deserialize_with = "seconds_or_null")]
    pub(crate) ttl: Option<Duration>,
}

/// Reads a number of seconds. More than a duration holds becomes the longest one.
#[cfg_attr(not(feature = "_server"), allow(dead_code))]
fn seconds_or_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let seconds: Option<f64> = Option::deserialize(deserializer)?;
    let time = |seconds: f64| match Duration::try_from_secs_f64(seconds) {
        Ok(time) => Ok(time),
        Err(_) if seconds > 0.0 => Ok(Duration::MAX),
        Err(_) => Err(serde::de::Error::custom(
            "a negative time to live: ttl is a number of seconds, 0.001 or more",
        )),
    };
    seconds.map(time).transpose()
}

/// The body of a 200 to a poll, as the client reads it: events, golongpoll's report of a timeout, or an error.
#[derive(Deserialize)]
#[cfg_attr(not(feature = "client"), allow(dead_code))]
pub(crate) struct PollBody {
    #[serde(default, deserialize_with = "list_or_null")]
    pub(crate) events: Option<Vec<Event>>,
    #[serde(default)]
    pub(crate) gap: bool,
    #[serde(default)]
    pub(crate) timeout: Option<String>,
    #[serde(default)]
    pub(crate) timestamp: Option<u64>,
    #[serde(default)]
    pub(crate) error: Option<String>,
}

/// Reads a list of events. Go writes `null` for an empty list.
fn list_or_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Event>>, D::Error> {
    let events = Option::deserialize(deserializer)?;
    Ok(Some(events.unwrap_or_default()))
}

#[cfg(feature = "_server")]
impl PollBody {
    /// Returns the body of a 200 with events: the JSON of each event, joined.
    pub(crate) fn render(events: &[Event], gap: bool) -> String {
        let size: usize = events.iter().map(|event| event.as_json().len() + 1).sum();
        let mut body = String::with_capacity(size + 32);
        body.push_str(r#"{"events":["#);
        for (at, event) in events.iter().enumerate() {
            if at > 0 {
                body.push(',');
            }
            body.push_str(event.as_json());
        }
        body.push_str(if gap { r#"],"gap":true}"# } else { "]}" });
        body
    }

    /// Returns golongpoll's body for a poll that timed out. Its clients send `timestamp` (Unix milliseconds) as the next
    /// poll's `since_time`.
    pub(crate) fn render_timeout(timestamp: u64) -> String {
        format!(r#"{{"timeout":"no events before timeout","timestamp":{timestamp}}}"#)
    }
}

/// Returns the body of a refusal: `{"error":"…"}`.
#[cfg(feature = "_server")]
pub(crate) fn render_error(message: &str) -> String {
    serde_json::json!({ "error": message }).to_string()
}
