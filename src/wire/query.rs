//! [`SubscriptionRequest`]: what a poll asks for, and its form as the query of a URL.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::categories::Categories;
#[cfg(feature = "_server")]
use super::categories::check_category;
use crate::error::Error;
use crate::position::EventId;

/// The longest name of a subscriber, in bytes.
const MAX_SUBSCRIBER: usize = 255;

/// One poll: the query of `GET {subscription_uri}`.
///
/// ```
/// use std::time::Duration;
/// use long_polling::SubscriptionRequest;
///
/// let request = SubscriptionRequest::new("notifications")
///     .since_time(1)
///     .timeout(Duration::from_secs(30));
/// # let _ = request;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "a request does nothing until it is given to `subscription`"]
pub struct SubscriptionRequest {
    pub(crate) categories: Categories,
    pub(crate) timeout: Duration,
    pub(crate) since_time: Option<u64>,
    pub(crate) last_id: Option<EventId>,
    pub(crate) limit: Option<usize>,
    pub(crate) subscriber: Option<String>,
}

impl Default for SubscriptionRequest {
    /// Returns a request without a category; [`categories`](SubscriptionRequest::categories) has to set one.
    fn default() -> Self {
        SubscriptionRequest::new(Categories::default())
    }
}

impl SubscriptionRequest {
    /// Creates a poll that follows these categories from now on, and waits up to 60 seconds.
    pub fn new(categories: impl Into<Categories>) -> Self {
        SubscriptionRequest {
            categories: categories.into(),
            timeout: Duration::from_secs(60),
            since_time: None,
            last_id: None,
            limit: None,
            subscriber: None,
        }
    }

    /// Sets the categories to follow. Defaults to those given to [`new`](SubscriptionRequest::new).
    pub fn categories(mut self, categories: impl Into<Categories>) -> Self {
        self.categories = categories.into();
        self
    }

    /// Sets the longest time that the server may wait for an event. Defaults to 60 seconds, as in the Go package's examples.
    ///
    /// The request carries whole seconds, so a fraction is rounded up. The server may wait for less. With zero the server
    /// responds at once.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asks for events with a timestamp greater than this one, in Unix milliseconds. Defaults to `None`.
    pub fn since_time(mut self, milliseconds: impl Into<Option<u64>>) -> Self {
        self.since_time = milliseconds.into();
        self
    }

    /// Asks for events after the one with this id. Defaults to `None`.
    ///
    /// The id takes precedence over `since_time` as long as the server knows its position.
    pub fn last_id(mut self, id: impl Into<Option<EventId>>) -> Self {
        self.last_id = id.into();
        self
    }

    /// Sets the most events that the response may have. Defaults to `None`: the server's own limit.
    ///
    /// The server refuses 0. The event after a limited response may have the same timestamp as its last one, so continue
    /// with `last_id`, not `since_time`.
    pub fn limit(mut self, events: impl Into<Option<usize>>) -> Self {
        self.limit = events.into();
        self
    }

    /// Sets the name that the server counts this client by, if its setting `BrokerOptions::presence` is on: 1 to 255 bytes.
    /// Defaults to none.
    ///
    /// A server counts all polls of one name as one client. The name proves nothing: any client can give any name.
    pub fn subscriber(mut self, name: impl Into<String>) -> Self {
        self.subscriber = Some(name.into());
        self
    }

    /// Checks the categories and the name of the subscriber.
    ///
    /// # Errors
    ///
    /// `InvalidRequest`.
    #[cfg(any(feature = "_server", feature = "client"))]
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.categories.check()?;
        self.subscriber.as_deref().map_or(Ok(()), check_subscriber)
    }

    /// Reads the query of a poll. Categories and the name of the subscriber are not checked yet.
    ///
    /// Unknown parameters are ignored. If a parameter other than `category` occurs twice, the first one counts. Without a
    /// `timeout`, `wait` gives it.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` that names the parameter.
    #[cfg_attr(not(feature = "_server"), allow(dead_code))]
    pub(crate) fn from_query(
        query: &str,
        wait: impl FnOnce() -> Option<Duration>,
    ) -> Result<Self, Error> {
        let mut request = SubscriptionRequest::new(Categories::default());
        let mut timeout = None;
        let (mut since_time, mut last_id, mut max_events) = (None, None, None);
        let mut subscriber = None;
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
                "limit" if max_events.is_none() => max_events = Some(limit(&decode(value)?)?),
                "subscriber" if subscriber.is_none() => {
                    subscriber = Some(decode(value)?.into_owned())
                }
                _ => {}
            }
        }
        request.timeout = timeout.or_else(wait).ok_or_else(|| {
            Error::request("timeout is missing: give whole seconds, such as timeout=60")
        })?;
        request.since_time = since_time.flatten();
        request.last_id = last_id.flatten();
        request.limit = max_events.flatten();
        request.subscriber = subscriber.filter(|name| !name.is_empty());
        Ok(request)
    }

    /// Returns the query that [`from_query`](Self::from_query) reads.
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
        if let Some(name) = &self.subscriber {
            query.push_str("&subscriber=");
            query.extend(utf8_percent_encode(name, NON_ALPHANUMERIC));
        }
        query
    }
}

/// Checks the name of a subscriber.
///
/// # Errors
///
/// `InvalidRequest` for one that is empty or too long.
#[cfg(any(feature = "_server", feature = "client"))]
pub(crate) fn check_subscriber(name: &str) -> Result<(), Error> {
    match name.len() {
        1..=MAX_SUBSCRIBER => Ok(()),
        length => Err(Error::request(format!(
            "the name of a subscriber has {length} bytes: give 1 to {MAX_SUBSCRIBER}"
        ))),
    }
}

/// Returns `true` if a query asks for the state of its category, by the parameter `info`, and not for events.
///
/// # Errors
///
/// `InvalidRequest` for an `info` with a value.
#[cfg(feature = "_server")]
pub(crate) fn asks_for_info(query: &str) -> Result<bool, Error> {
    let mut found = false;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode(name)? != "info" {
            continue;
        }
        if !value.is_empty() {
            return Err(Error::request(
                "info has a value: give the parameter without one, as in ?category=news&info",
            ));
        }
        found = true;
    }
    Ok(found)
}

/// Reads the category that a query names.
///
/// # Errors
///
/// `InvalidRequest` if there is none, or more than one.
#[cfg(feature = "_server")]
pub(crate) fn category_of_query(query: &str) -> Result<String, Error> {
    let mut categories = Categories::default();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode(name)? == "category" {
            categories.add(&decode(value)?);
        }
    }
    let mut names = categories.iter();
    match (names.next(), names.next()) {
        (Some(name), None) => {
            check_category(name)?;
            Ok(name.to_owned())
        }
        (None, _) => Err(Error::request(
            "a category is missing: name the one that the request is about",
        )),
        _ => Err(Error::request(
            "several categories: name one, since such a request is about one of them",
        )),
    }
}

/// Decodes one name or value of a form: `+` to a space, then percent-encoding (URL Standard, section 5.1).
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
        Some(events) => Ok(Some(usize::try_from(events).unwrap_or(usize::MAX))),
    }
}

/// Reads decimal digits. A number too large for 64 bits becomes `u64::MAX`.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn from_query(query: &str) -> Result<SubscriptionRequest, Error> {
        SubscriptionRequest::from_query(query, || None)
    }

    #[test]
    fn a_query_reads_back_as_the_same_request() {
        let id: EventId = "d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60".parse().unwrap();
        let request = SubscriptionRequest::new(["a b+c&d=é%", "second"])
            .timeout(Duration::from_millis(1500))
            .since_time(7)
            .last_id(id)
            .limit(9)
            .subscriber("ä &=");
        let query = request.to_query();
        assert!(query.is_ascii());
        let read = from_query(&query).unwrap();
        assert_eq!(read, request.timeout(Duration::from_secs(2)));
    }

    #[test]
    fn plus_is_a_space_and_a_duplicate_category_is_dropped() {
        let read = from_query("category=a+b&timeout=1&category=a%20b&category=c&x=y&&=").unwrap();
        assert_eq!(read.categories, Categories::from(["a b", "c"]));
        assert_eq!((read.since_time, read.last_id), (None, None));
    }

    #[test]
    fn empty_parameters_are_absent_and_huge_numbers_are_clamped() {
        let query = "category=c&timeout=99999999999999999999999&since_time=&last_id=&limit=";
        let read = from_query(query).unwrap();
        assert_eq!(
            (read.since_time, read.last_id, read.limit),
            (None, None, None)
        );
        assert_eq!(read.timeout, Duration::from_secs(u64::MAX));
        let query = "timeout=1&limit=99999999999999999999999&limit=7";
        let read = from_query(query).unwrap();
        assert_eq!(read.limit, Some(usize::MAX));
    }

    #[test]
    fn an_error_names_the_wrong_parameter() {
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
            let error = from_query(query).unwrap_err();
            assert!(error.to_string().contains(named), "{query}: {error}");
        }
    }

    #[test]
    fn a_subscriber_has_a_name_of_1_to_255_bytes_and_an_empty_one_is_absent() {
        let read = |name: &str| from_query(&format!("category=c&timeout=1&subscriber={name}"));
        assert_eq!(read("").unwrap().subscriber, None);
        assert_eq!(read("a+b").unwrap().subscriber.as_deref(), Some("a b"));
        assert!(read(&"x".repeat(255)).unwrap().check().is_ok());
        let error = read(&"x".repeat(256)).unwrap().check().unwrap_err();
        assert!(error.to_string().contains("256 bytes"), "{error}");
        let empty = SubscriptionRequest::new("c").subscriber("");
        assert!(empty.check().is_err());
    }

    #[test]
    fn info_is_a_parameter_without_a_value() {
        for (query, asks) in [
            ("category=c&info", true),
            ("info=&category=c", true),
            ("category=c&%69nfo", true),
            ("category=info&x=info&information=1", false),
            ("", false),
        ] {
            assert_eq!(asks_for_info(query).unwrap(), asks, "{query}");
        }
        assert!(asks_for_info("category=c&info=1").is_err());
    }
}
