//! [`Event`]: a published event, stored as the JSON that the HTTP API and the file share.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind};
use crate::position::{EventId, ID_TEXT_LEN};

/// One event of a category: `timestamp`, `category`, `id` and `data`.
///
/// An event stores its JSON, rendered once, and [`data`](Event::data) is a slice of it, not a `serde_json::Value`. Most
/// events are only forwarded, to a file or to a thousand subscribers; raw JSON saves the parser and the tree, and keeps all
/// digits of a number. Read the data with [`text`](Event::text) or [`decode`](Event::decode). Cloning an event copies a
/// pointer.
///
/// ```
/// use long_polling::Event;
///
/// let event: Event = serde_json::from_str(
///     r#"{"timestamp":1616040198889,"category":"weather","data":{"celsius":21.5},"id":"019a5b3c-1234-8abc-8000-000000000007"}"#,
/// )?;
///
/// #[derive(serde::Deserialize)]
/// struct Weather {
///     celsius: f64,
/// }
/// assert_eq!(event.category(), "weather");
/// assert_eq!(event.decode::<Weather>()?.celsius, 21.5);
/// assert_eq!(event.text(), r#"{"celsius":21.5}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Event(Arc<Inner>);

struct Inner {
    timestamp: u64,
    id: EventId,
    category: Arc<str>,
    /// `{"timestamp":…,"category":…,"data":…,"id":…}`, golongpoll's order, without a line break anywhere.
    json: String,
    /// The range of `data` in `json`.
    data: Range<usize>,
    /// The time to live that the publisher gave, in milliseconds. The HTTP API does not have it, the file does.
    #[cfg_attr(not(feature = "_server"), allow(dead_code))]
    ttl: Option<NonZeroU64>,
    /// It is no event, but the purge of its category, which has a place among the events.
    #[cfg_attr(not(feature = "_server"), allow(dead_code))]
    is_purge: bool,
}

impl Event {
    /// Returns the Unix time in milliseconds at which the event was published. It never decreases in publish order.
    pub fn timestamp(&self) -> u64 {
        self.0.timestamp
    }

    /// Returns the [`timestamp`](Event::timestamp) as a `SystemTime`.
    ///
    /// A time that the system can't represent becomes the end of the year 9999.
    pub fn time(&self) -> SystemTime {
        const END_OF_9999: Duration = Duration::from_secs(253_402_300_799);
        let since_epoch = Duration::from_millis(self.0.timestamp);
        UNIX_EPOCH
            .checked_add(since_epoch)
            .or_else(|| UNIX_EPOCH.checked_add(END_OF_9999))
            .unwrap_or(UNIX_EPOCH)
    }

    /// Returns the category that the event was published to.
    pub fn category(&self) -> &str {
        &self.0.category
    }

    /// Returns the id of the event, which is also the position just after it: a poll from
    /// [`Cursor::LastId(event.id())`](crate::Cursor::LastId) starts with the next event.
    pub fn id(&self) -> EventId {
        self.0.id
    }

    /// Returns the data as JSON text.
    pub fn data(&self) -> &str {
        &self.0.json[self.0.data.clone()]
    }

    /// Returns the content of data that is a JSON string, and the JSON text of any other data.
    ///
    /// The Go package decodes `data` as a string.
    pub fn text(&self) -> Cow<'_, str> {
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
        let data = self.data();
        if !data.starts_with('"') {
            return Cow::Borrowed(data);
        }
        serde_json::from_str(data).map_or(Cow::Borrowed(data), |Text(text)| text)
    }

    /// Decodes the data into a type of the caller.
    ///
    /// # Errors
    ///
    /// [`Decode`](ErrorKind::Decode) if the data is not of that type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(self.data()).map_err(|error| {
            let (category, id) = (self.category(), self.id());
            let message = format!(
                "the data of event {id} of category {category:?} is not of the type expected"
            );
            Error::new(ErrorKind::Decode, message).with_source(error)
        })
    }

    /// Returns the whole event as one line of JSON: `{"timestamp":…,"category":…,"data":…,"id":…}`.
    pub fn as_json(&self) -> &str {
        &self.0.json
    }

    #[cfg(feature = "_server")]
    pub(crate) fn shared_category(&self) -> &Arc<str> {
        &self.0.category
    }

    /// Shares the category's name with its other events. Does nothing if this event has been cloned already.
    #[cfg(feature = "_server")]
    pub(crate) fn share_category(&mut self, category: &Arc<str>) {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.category = category.clone();
        }
    }

    /// Creates an event from a line of JSON in this crate's own form, and the range of `data` in it.
    #[cfg(feature = "_server")]
    pub(crate) fn from_parts(
        timestamp: u64,
        id: EventId,
        category: &str,
        json: String,
        data: Range<usize>,
    ) -> Self {
        Event(Arc::new(Inner {
            timestamp,
            id,
            category: category.into(),
            json,
            data,
            ttl: None,
            is_purge: false,
        }))
    }

    /// Returns `true` if this is no event, but the purge of its category.
    #[cfg(feature = "_server")]
    pub(crate) fn is_purge(&self) -> bool {
        self.0.is_purge
    }

    /// Returns the time to live that the publisher gave, in milliseconds.
    #[cfg(feature = "_server")]
    pub(crate) fn own_ttl(&self) -> Option<u64> {
        self.0.ttl.map(NonZeroU64::get)
    }

    /// Sets the time to live, in milliseconds. Does nothing if this event has been cloned already.
    #[cfg(feature = "_server")]
    pub(crate) fn with_own_ttl(mut self, ttl: Option<NonZeroU64>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.ttl = ttl;
        }
        self
    }
}

/// Two events are equal if their JSON is, data byte by byte.
impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.0.json == other.0.json
    }
}

impl Eq for Event {}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("timestamp", &self.timestamp())
            .field("category", &self.category())
            .field("id", &self.id())
            .field("data", &self.data())
            .finish()
    }
}

/// Writes [`Event::as_json`].
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_json())
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue =
            serde_json::from_str(self.as_json()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Members {
            timestamp: u64,
            category: String,
            data: Box<RawValue>,
            id: EventId,
        }
        let members = Members::deserialize(deserializer)?;
        let draft =
            Draft::new(members.category.into(), &members.data).map_err(serde::de::Error::custom)?;
        Ok(draft.stamp(members.timestamp, members.id))
    }
}

/// An event without timestamp and id, rendered before the publisher takes a lock.
pub(crate) struct Draft {
    category: Arc<str>,
    json: String,
    data: Range<usize>,
    ttl: Option<NonZeroU64>,
    is_purge: bool,
}

const ID_HEAD: &[u8] = br#","id":""#;
const HEAD: &str = r#"{"timestamp":"#;
/// The digits of every timestamp from 2001 to 2286. Others make `stamp` move the rest of the text.
const DIGITS: &str = "0000000000000";
/// The bytes that `stamp` may add: the id, a quote, a brace, and more digits.
const SPARE: usize = ID_TEXT_LEN + 2 + 7;
/// The unused bytes of a text that are not worth a call of the allocator.
const SLACK: usize = 64;

/// A text that leaves room for its end when it grows, so that raw JSON costs one call of the allocator.
struct Spacious<'a>(&'a mut Vec<u8>);

impl io::Write for Spacious<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.0.capacity() - self.0.len() {
            self.0.reserve(bytes.len() + ID_HEAD.len() + SPARE);
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Draft {
    /// # Errors
    ///
    /// `InvalidRequest` if `data` can't be serialized.
    pub(crate) fn new<T: Serialize + ?Sized>(category: Arc<str>, data: &T) -> Result<Self, Error> {
        let mut json = Vec::with_capacity(category.len() + 192);
        json.extend_from_slice(HEAD.as_bytes());
        json.extend_from_slice(DIGITS.as_bytes());
        json.extend_from_slice(br#","category":"#);
        let not_json = |error| {
            Error::request(format!(
                "the data for category {category:?} can't be written as JSON"
            ))
            .with_source(error)
        };
        serde_json::to_writer(&mut json, &*category).map_err(not_json)?;
        json.extend_from_slice(br#","data":"#);
        let start = json.len();
        serde_json::to_writer(Spacious(&mut json), data).map_err(not_json)?;
        let data = start..json.len();
        // An event is one line of the file. Raw JSON may have line breaks, but only between its tokens. Every byte is written,
        // since the compiler makes vector instructions of that.
        for byte in &mut json[data.clone()] {
            *byte = match *byte {
                b'\n' | b'\r' => b' ',
                other => other,
            };
        }
        json.reserve_exact(ID_HEAD.len() + SPARE);
        json.extend_from_slice(ID_HEAD);
        // The serializer may have doubled the capacity, and an event is kept for a long time.
        if json.capacity() - json.len() > SPARE + SLACK {
            json.shrink_to(json.len() + SPARE);
        }
        let json = String::from_utf8(json)
            .map_err(|error| Error::request("JSON that is not UTF-8").with_source(error))?;
        Ok(Draft {
            category,
            json,
            data,
            ttl: None,
            is_purge: false,
        })
    }

    /// Creates the purge of a category.
    #[cfg(feature = "_server")]
    pub(crate) fn purge(category: Arc<str>) -> Result<Self, Error> {
        let draft = Draft::new(category, &())?;
        Ok(Draft {
            is_purge: true,
            ..draft
        })
    }

    #[cfg(feature = "redis")]
    pub(crate) fn is_purge(&self) -> bool {
        self.is_purge
    }

    /// Sets the time to live that the publisher gives, in milliseconds.
    #[cfg(feature = "_server")]
    pub(crate) fn with_own_ttl(self, ttl: Option<NonZeroU64>) -> Self {
        Draft { ttl, ..self }
    }

    #[cfg(feature = "_server")]
    pub(crate) fn has_own_ttl(&self) -> bool {
        self.ttl.is_some()
    }

    /// Returns the time to live that the publisher gives, in milliseconds.
    #[cfg(feature = "_server")]
    pub(crate) fn own_ttl(&self) -> Option<u64> {
        self.ttl.map(NonZeroU64::get)
    }

    #[cfg(feature = "_server")]
    pub(crate) fn category(&self) -> &str {
        &self.category
    }

    /// The data as JSON text.
    #[cfg(feature = "_server")]
    pub(crate) fn data(&self) -> &str {
        &self.json[self.data.clone()]
    }

    /// Returns the length of the event's JSON in bytes, or a few less for a timestamp with more than 13 digits.
    #[cfg(feature = "_server")]
    pub(crate) fn json_len(&self) -> usize {
        self.json.len() + ID_TEXT_LEN + 2
    }

    /// Adds timestamp and id. The caller holds the lock that issues them, so this copies only a few bytes.
    pub(crate) fn stamp(self, timestamp: u64, id: EventId) -> Event {
        let Draft {
            category,
            mut json,
            mut data,
            ttl,
            is_purge,
        } = self;
        let mut digits = [0u8; 20];
        let digits = decimal(timestamp, &mut digits);
        json.replace_range(HEAD.len()..HEAD.len() + DIGITS.len(), digits);
        let moved = |at: usize| at + digits.len() - DIGITS.len();
        data = moved(data.start)..moved(data.end);
        json.push_str(std::str::from_utf8(&id.to_text()).unwrap_or_default());
        json.push_str("\"}");
        Event(Arc::new(Inner {
            timestamp,
            id,
            category,
            json,
            data,
            ttl,
            is_purge,
        }))
    }
}

/// Writes `number` in decimal at the end of `buffer`. `fmt` takes ten times as long.
pub(crate) fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &str {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return std::str::from_utf8(&buffer[at..]).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Run;

    fn event(timestamp: u64, data: &serde_json::Value) -> Event {
        let id = EventId::new(Run::new(1, 1), 7);
        Draft::new("c\"1\u{1}".into(), data)
            .unwrap()
            .stamp(timestamp, id)
    }

    #[test]
    fn json_has_golongpolls_members_in_its_order_for_any_timestamp() {
        let data = serde_json::json!({"a": [1, "x\ny"]});
        for timestamp in [
            0,
            5,
            1_616_040_198_889,
            9_999_999_999_999,
            10_000_000_000_000,
            u64::MAX,
        ] {
            let event = event(timestamp, &data);
            let id = event.id();
            let expected = format!(
                r#"{{"timestamp":{timestamp},"category":"c\"1\u0001","data":{{"a":[1,"x\ny"]}},"id":"{id}"}}"#
            );
            assert_eq!(event.as_json(), expected);
            assert_eq!(event.data(), r#"{"a":[1,"x\ny"]}"#);
            assert_eq!(serde_json::from_str::<Event>(&expected).unwrap(), event);
            assert_eq!(serde_json::to_string(&event).unwrap(), expected);
        }
    }

    #[test]
    fn text_is_the_content_of_a_string_and_the_json_of_anything_else() {
        assert_eq!(event(1, &"say \"é\"\n".into()).text(), "say \"é\"\n");
        assert_eq!(event(1, &serde_json::json!([1, null])).text(), "[1,null]");
        assert!(event(1, &true.into()).decode::<bool>().unwrap());
        let error = event(1, &true.into()).decode::<String>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
    }

    #[test]
    fn raw_json_on_several_lines_becomes_one_line() {
        let raw: &RawValue = serde_json::from_str("{\r\n \"a\" :\n\"b\\n\"}").unwrap();
        let draft = Draft::new("c".into(), raw).unwrap();
        let event = draft.stamp(1, EventId::from(0));
        assert!(!event.as_json().contains(['\n', '\r']));
        assert_eq!(
            event.decode::<serde_json::Value>().unwrap(),
            serde_json::json!({"a": "b\n"})
        );
    }
}
