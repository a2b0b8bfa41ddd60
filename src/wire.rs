//! The HTTP API's shapes, shared by server and client: the query of a poll, the body of a publish, the answers.
//!
//! They are golongpoll's, with additions that its clients ignore.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::event::Event;
use crate::position::EventId;

/// The longest name of a category, in bytes of UTF-8 (golongpoll's limit).
pub(crate) const MAX_CATEGORY_BYTES: usize = 1024;
/// The most categories that one poll may follow.
pub(crate) const MAX_CATEGORIES_PER_POLL: usize = 100;
/// The header that carries the position reached by a poll, or the id of a published event.
pub(crate) const LAST_EVENT_ID: &str = "Last-Event-ID";
/// The body of the answer to a publish, to the byte: the Go package's own test compares it.
#[cfg_attr(not(feature = "server"), allow(dead_code))]
pub(crate) const PUBLISHED: &str = r#"{"success": true}"#;

/// The categories that one poll follows: 1 to 100 names of 1 to 1024 bytes each. A name given twice counts once.
///
/// Made from a name or from several, wherever a parameter is `impl Into<Categories>`:
///
/// ```
/// use long_polling::Categories;
///
/// assert_eq!(Categories::from("alerts").iter().count(), 1);
/// assert_eq!(Categories::from(["alerts", "updates"]).to_string(), r#""alerts", "updates""#);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Categories(Vec<Arc<str>>);

impl Categories {
    /// The names, in the order given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    fn add(&mut self, name: &str) {
        if !self.iter().any(|other| other == name) {
            self.0.push(name.into());
        }
    }

    /// # Errors
    ///
    /// `InvalidRequest` that says which rule was broken.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.0.len() {
            0 => return Err(Error::request("a category is missing: name one to follow")),
            1..=MAX_CATEGORIES_PER_POLL => {}
            more => {
                let rule = format!(
                    "one poll follows at most {MAX_CATEGORIES_PER_POLL} categories, not {more}"
                );
                return Err(Error::request(rule));
            }
        }
        self.iter().try_for_each(check_category)
    }
}

impl std::fmt::Display for Categories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, name) in self.iter().enumerate() {
            write!(f, "{}{name:?}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl<'a> FromIterator<&'a str> for Categories {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let mut categories = Categories::default();
        names.into_iter().for_each(|name| categories.add(name));
        categories
    }
}

impl From<&str> for Categories {
    fn from(name: &str) -> Self {
        Categories(vec![name.into()])
    }
}

impl From<String> for Categories {
    fn from(name: String) -> Self {
        Categories(vec![name.into()])
    }
}

impl From<&String> for Categories {
    fn from(name: &String) -> Self {
        Categories(vec![name.as_str().into()])
    }
}

impl<S: AsRef<str>> From<&[S]> for Categories {
    fn from(names: &[S]) -> Self {
        names.iter().map(AsRef::as_ref).collect()
    }
}

impl<S: AsRef<str>> From<Vec<S>> for Categories {
    fn from(names: Vec<S>) -> Self {
        Categories::from(&names[..])
    }
}

impl<S: AsRef<str>, const COUNT: usize> From<[S; COUNT]> for Categories {
    fn from(names: [S; COUNT]) -> Self {
        Categories::from(&names[..])
    }
}

/// # Errors
///
/// `InvalidRequest` where the name is empty or too long.
pub(crate) fn check_category(name: &str) -> Result<(), Error> {
    match name.len() {
        0 => Err(Error::request(
            "an empty category: a category has 1 to 1024 bytes",
        )),
        1..=MAX_CATEGORY_BYTES => Ok(()),
        more => Err(Error::request(format!(
            "a category of {more} bytes: a category has 1 to 1024 bytes"
        ))),
    }
}

/// What a poll asks for: the query of `GET {subscription_uri}`.
///
/// ```
/// use std::time::Duration;
/// use long_polling::SubscriptionRequest;
///
/// let request = SubscriptionRequest::new("notifications").since_time(1).timeout(Duration::from_secs(30));
/// # let _ = request;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRequest {
    pub(crate) categories: Categories,
    pub(crate) timeout: Duration,
    pub(crate) since_time: Option<u64>,
    pub(crate) last_id: Option<EventId>,
    pub(crate) limit: Option<usize>,
}

impl Default for SubscriptionRequest {
    /// A request without a category, which has to be set.
    fn default() -> Self {
        SubscriptionRequest::new(Categories::default())
    }
}

impl SubscriptionRequest {
    /// A poll of these categories for 60 seconds, from now.
    pub fn new(categories: impl Into<Categories>) -> Self {
        SubscriptionRequest {
            categories: categories.into(),
            timeout: Duration::from_secs(60),
            since_time: None,
            last_id: None,
            limit: None,
        }
    }

    /// Sets the categories to follow. Defaults to those given to [`new`](SubscriptionRequest::new).
    pub fn categories(mut self, categories: impl Into<Categories>) -> Self {
        self.categories = categories.into();
        self
    }

    /// Sets how long the server may wait for an event. The request carries whole seconds, so a fraction is rounded up. The
    /// server may grant less. Zero asks for an answer at once. Defaults to 60 seconds, as in the Go package's examples.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asks for events with a strictly greater timestamp, in Unix milliseconds. Defaults to `None`.
    pub fn since_time(mut self, milliseconds: impl Into<Option<u64>>) -> Self {
        self.since_time = milliseconds.into();
        self
    }

    /// Asks for events after the one with this id. It takes precedence over `since_time` while the server can place it.
    /// Defaults to `None`.
    pub fn last_id(mut self, id: impl Into<Option<EventId>>) -> Self {
        self.last_id = id.into();
        self
    }

    /// Sets the most events that the answer may have. The server refuses 0. The next event may have the same timestamp as
    /// the last one of such an answer, so continue by `last_id`. Defaults to `None`: as many events as the server puts into
    /// one answer.
    pub fn limit(mut self, events: impl Into<Option<usize>>) -> Self {
        self.limit = events.into();
        self
    }

    /// Reads the query of a poll; the categories are not checked yet.
    ///
    /// Unknown parameters are ignored. Of a parameter given twice the first counts, but for `category`.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` that names the parameter.
    #[cfg_attr(not(feature = "server"), allow(dead_code))]
    pub(crate) fn from_query(query: &str) -> Result<Self, Error> {
        let mut request = SubscriptionRequest::new(Categories::default());
        let mut timeout = None;
        let (mut since_time, mut last_id, mut most) = (None, None, None);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            match &*name {
                "category" => request.categories.add(&decode(value)?),
                "timeout" if timeout.is_none() => timeout = Some(seconds(&decode(value)?)?),
                "since_time" if since_time.is_none() => {
                    since_time = Some(milliseconds(&decode(value)?)?)
                }
                "last_id" if last_id.is_none() => last_id = Some(id(&decode(value)?)?),
                "limit" if most.is_none() => most = Some(limit(&decode(value)?)?),
                _ => {}
            }
        }
        request.timeout = timeout.ok_or_else(|| {
            Error::request("timeout is missing: give whole seconds, such as timeout=60")
        })?;
        request.since_time = since_time.flatten();
        request.last_id = last_id.flatten();
        request.limit = most.flatten();
        Ok(request)
    }

    /// The query that [`from_query`](Self::from_query) reads.
    #[cfg_attr(not(feature = "client"), allow(dead_code))]
    pub(crate) fn to_query(&self) -> String {
        let fraction = u64::from(self.timeout.subsec_nanos() > 0);
        let seconds = self.timeout.as_secs().saturating_add(fraction);
        let mut query = format!("timeout={seconds}");
        for category in self.categories.iter() {
            query.push_str("&category=");
            query.extend(utf8_percent_encode(category, NON_ALPHANUMERIC));
        }
        if let Some(time) = self.since_time {
            query.push_str(&format!("&since_time={time}"));
        }
        if let Some(id) = self.last_id {
            query.push_str(&format!("&last_id={id}"));
        }
        if let Some(limit) = self.limit {
            query.push_str(&format!("&limit={limit}"));
        }
        query
    }
}

/// Form decoding of one name or value: `+` is a space, then percent-decoding (URL Standard, section 5.1).
fn decode(text: &str) -> Result<Cow<'_, str>, Error> {
    let spaced = text.contains('+').then(|| text.replace('+', " "));
    let wrong = |_| Error::request(format!("{text:?} is not UTF-8 after percent-decoding"));
    match spaced {
        None => percent_decode_str(text).decode_utf8().map_err(wrong),
        Some(text) => Ok(percent_decode_str(&text)
            .decode_utf8()
            .map_err(wrong)?
            .into_owned()
            .into()),
    }
}

fn seconds(text: &str) -> Result<Duration, Error> {
    match number(text) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err(Error::request(format!(
            "timeout={text:?} is not a whole number of seconds, 0 or more"
        ))),
    }
}

fn milliseconds(text: &str) -> Result<Option<u64>, Error> {
    match number(text) {
        _ if text.is_empty() => Ok(None),
        None => Err(Error::request(format!(
            "since_time={text:?} is not a Unix time in whole milliseconds"
        ))),
        time => Ok(time),
    }
}

fn limit(text: &str) -> Result<Option<usize>, Error> {
    match number(text) {
        _ if text.is_empty() => Ok(None),
        None | Some(0) => Err(Error::request(format!(
            "limit={text:?} is not a whole number of events, 1 or more"
        ))),
        Some(most) => Ok(Some(usize::try_from(most).unwrap_or(usize::MAX))),
    }
}

/// Digits only; a number too large for 64 bits is the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

fn id(text: &str) -> Result<Option<EventId>, Error> {
    if text.is_empty() {
        Ok(None)
    } else {
        text.parse().map(Some)
    }
}

/// What is published: the body of `POST {publish_uri}`.
///
/// ```
/// use long_polling::PublishRequest;
///
/// let request = PublishRequest::new("notifications", serde_json::json!({"message": "Hello"}));
/// assert_eq!(
///     serde_json::to_string(&request).unwrap(),
///     r#"{"category":"notifications","data":{"message":"Hello"}}"#
/// );
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PublishRequest<T> {
    pub(crate) category: String,
    pub(crate) data: T,
}

impl<T: Serialize> PublishRequest<T> {
    /// A request to publish `data`, any value that serializes to JSON but not to null, to `category`, which has 1 to 1024
    /// bytes. In the Go package the data is a string.
    pub fn new(category: impl Into<String>, data: T) -> Self {
        PublishRequest {
            category: category.into(),
            data,
        }
    }

    /// Sets the category to publish to. Defaults to the one given to [`new`](PublishRequest::new).
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.category = category.into();
        self
    }

    /// Sets the data. Defaults to the one given to [`new`](PublishRequest::new).
    pub fn data(mut self, data: T) -> Self {
        self.data = data;
        self
    }
}

/// The body of a publish, as the server reads it: the data stays as it came. Other members are ignored.
#[derive(Deserialize)]
#[cfg_attr(not(feature = "server"), allow(dead_code))]
pub(crate) struct Published<'a> {
    #[serde(borrow)]
    pub(crate) category: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) data: &'a RawValue,
}

/// The body of a 200 to a poll, as the client reads it: events, or golongpoll's way of saying that none came.
#[derive(Deserialize)]
#[cfg_attr(not(feature = "client"), allow(dead_code))]
pub(crate) struct Answer {
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

/// Go writes `null` for an empty list.
fn list_or_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Event>>, D::Error> {
    let events = Option::deserialize(deserializer)?;
    Ok(Some(events.unwrap_or_default()))
}

#[cfg(feature = "server")]
impl Answer {
    /// The body of an answer with events: each event's own JSON, joined.
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

    /// golongpoll's answer to a poll that timed out; a follower goes on from `timestamp` (Unix milliseconds).
    pub(crate) fn render_timeout(timestamp: u64) -> String {
        format!(r#"{{"timeout":"no events before timeout","timestamp":{timestamp}}}"#)
    }
}

/// The body of a refusal: `{"error":"…"}`.
#[cfg(feature = "server")]
pub(crate) fn render_error(message: &str) -> String {
    serde_json::json!({ "error": message }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_was_written() {
        let id: EventId = "d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60".parse().unwrap();
        let request = SubscriptionRequest::new(["a b+c&d=é%", "second"])
            .timeout(Duration::from_millis(1500))
            .since_time(7)
            .last_id(id)
            .limit(9);
        let query = request.to_query();
        assert!(query.is_ascii());
        let read = SubscriptionRequest::from_query(&query).unwrap();
        assert_eq!(read, request.timeout(Duration::from_secs(2)));
    }

    #[test]
    fn plus_is_a_space_and_a_name_given_twice_counts_once() {
        let read = SubscriptionRequest::from_query(
            "category=a+b&timeout=1&category=a%20b&category=c&x=y&&=",
        )
        .unwrap();
        assert_eq!(read.categories, Categories::from(["a b", "c"]));
        assert_eq!((read.since_time, read.last_id), (None, None));
    }

    #[test]
    fn empty_parameters_are_absent_and_huge_numbers_are_only_huge() {
        let query = "category=c&timeout=99999999999999999999999&since_time=&last_id=&limit=";
        let read = SubscriptionRequest::from_query(query).unwrap();
        assert_eq!(
            (read.since_time, read.last_id, read.limit),
            (None, None, None)
        );
        assert_eq!(read.timeout, Duration::from_secs(u64::MAX));
        let query = "timeout=1&limit=99999999999999999999999&limit=7";
        let read = SubscriptionRequest::from_query(query).unwrap();
        assert_eq!(read.limit, Some(usize::MAX));
    }

    #[test]
    fn what_is_wrong_in_a_query_is_named() {
        for (query, named) in [
            ("category=c", "timeout is missing"),
            ("category=c&timeout=", "timeout="),
            ("category=c&timeout=-1", "timeout="),
            ("category=c&timeout=1.5", "timeout="),
            ("category=c&timeout=+1", "timeout="),
            ("category=c&timeout=1&since_time=-1", "since_time="),
            ("category=c&timeout=1&last_id=7", "event id"),
            ("category=c&timeout=1&limit=0", "limit="),
            ("category=c&timeout=1&limit=-1", "limit="),
            ("category=c&timeout=1&limit=x", "limit="),
            ("category=%ff&timeout=1", "UTF-8"),
            ("category=+%ff&timeout=1", "UTF-8"),
        ] {
            let error = SubscriptionRequest::from_query(query).unwrap_err();
            assert!(error.to_string().contains(named), "{query}: {error}");
        }
    }

    #[test]
    fn categories_have_their_limits() {
        assert!(Categories::default().check().is_err());
        assert!(Categories::from("").check().is_err());
        assert!(Categories::from("é".repeat(512)).check().is_ok());
        assert!(Categories::from("é".repeat(512) + "x").check().is_err());
        let names: Vec<String> = (0..101).map(|name| name.to_string()).collect();
        assert!(Categories::from(&names[..100]).check().is_ok());
        assert!(Categories::from(names).check().is_err());
    }
}
