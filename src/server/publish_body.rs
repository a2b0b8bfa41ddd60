//! The body of a publish: reading its JSON, and checking that every subscriber can decode the data in it.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::wire::{PublishBody, check_category, check_ttl, each_event};

/// The body of a publish.
pub(super) enum Body<'a> {
    One(PublishBody<'a>),
    /// An array, of which all events are to be published or none.
    Several(Vec<PublishBody<'a>>),
}

impl<'a> Body<'a> {
    /// The events, in their order.
    pub(super) fn events(&self) -> &[PublishBody<'a>] {
        match self {
            Body::One(event) => std::slice::from_ref(event),
            Body::Several(events) => events,
        }
    }
}

/// Reads the categories and the data out of the body of a publish, and checks all but the sizes.
///
/// # Errors
///
/// `InvalidRequest` that says what is wrong with the body, `TooLarge` for too many events.
pub(super) fn parse(body: &[u8]) -> Result<Body<'_>, Error> {
    // A reader of JSON may ignore a byte order mark (RFC 8259, section 8.1).
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if body.trim_ascii_start().first() != Some(&b'[') {
        return parse_event(body).map(Body::One);
    }
    let events: Vec<&RawValue> =
        serde_json::from_slice(body).map_err(|error| other().with_source(error))?;
    let events = each_event(&events, |event| parse_event(event.get().as_bytes()));
    events.map(Body::Several)
}

fn other() -> Error {
    let expected = r#"{"category":"…","data":…}, with a number of seconds as "ttl" if any, or an array of these"#;
    Error::request(format!("the body is not of the form {expected}"))
}

fn parse_event(event: &[u8]) -> Result<PublishBody<'_>, Error> {
    // A derived Deserialize takes an array of the members' values, too.
    if event.trim_ascii_start().first() == Some(&b'[') {
        return Err(other());
    }
    let event = std::str::from_utf8(event).map_err(|error| other().with_source(error))?;
    let published: PublishBody<'_> =
        serde_json::from_str(event).map_err(|error| other().with_source(error))?;
    check_category(&published.category)?;
    check_ttl(published.ttl)?;
    let data = published.data.get();
    // A string without escapes is readable, and may be long. All of its bytes are compared, since the compiler makes vector
    // instructions of that.
    let has_escape = || data.bytes().fold(false, |has, byte| has | (byte == b'\\'));
    if !data.starts_with('"') || has_escape() {
        serde_json::from_str::<Readable>(data).map_err(|error| {
            Error::request("data that readers could not decode").with_source(error)
        })?;
    }
    Ok(published)
}

/// JSON that any reader can decode: raw JSON may be well-formed and yet nested a million levels deep, or hold half a
/// surrogate pair or a number that no double can; one such event would make every answer unreadable that carries it.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk)
    }
}

struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = Readable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Readable, A::Error> {
        while items.next_element::<Readable>()?.is_some() {}
        Ok(Readable)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Readable, A::Error> {
        while members.next_entry::<Readable, Readable>()?.is_some() {}
        Ok(Readable)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn one(body: &[u8]) -> PublishBody<'_> {
        match parse(body).unwrap() {
            Body::One(event) => event,
            Body::Several(_) => panic!("several events"),
        }
    }

    #[test]
    fn a_time_to_live_is_a_number_of_seconds() {
        let milliseconds = Duration::from_millis;
        for (ttl, expected) in [
            ("null", None),
            ("1", Some(milliseconds(1000))),
            ("0.001", Some(milliseconds(1))),
            ("2.5e0", Some(milliseconds(2500))),
            ("1e300", Some(Duration::MAX)),
        ] {
            let body = format!(r#"{{"category":"c","data":1,"ttl":{ttl}}}"#);
            assert_eq!(one(body.as_bytes()).ttl, expected, "{ttl}");
        }
        for wrong in [
            "0", "-1", "0.0009", "\"1\"", "true", "[1]", "1e999", "-1e300",
        ] {
            let body = format!(r#"{{"category":"c","data":1,"ttl":{wrong}}}"#);
            let error = parse(body.as_bytes()).err().unwrap();
            assert!(
                error.report().to_string().contains("ttl"),
                "{wrong}: {error}"
            );
        }
    }

    #[test]
    fn an_array_has_1_to_1000_events_of_which_each_is_checked() {
        let array = |events: &[&str]| format!(" [{}]", events.join(","));
        let good = r#"{"category":"c","data":1,"ttl":2}"#;
        for count in [1, 2, 1000] {
            let body = array(&vec![good; count]);
            let Ok(Body::Several(events)) = parse(body.as_bytes()) else {
                panic!("an array is several events, even of one");
            };
            assert_eq!((events.len(), &*events[0].category), (count, "c"));
        }
        for (events, named) in [
            (&[][..], "no events"),
            (&[good; 1001], "1001 events"),
            (&[good, "1"], "event 2 of 2"),
            (&[r#"["c",1]"#], "event 1 of 1"),
            (&[good, good, r#"{"category":"","data":1}"#], "event 3 of 3"),
            (
                &[r#"{"category":"c","data":"\ud800"}"#, good],
                "event 1 of 2",
            ),
            (&[r#"{"category":"c","data":1,"ttl":0}"#], "event 1 of 1"),
        ] {
            let error = parse(array(events).as_bytes()).err().unwrap();
            assert!(
                error.report().to_string().contains(named),
                "{named}: {error}"
            );
        }
        assert!(parse(b"[").is_err());
        assert!(parse(format!("[{good}]x").as_bytes()).is_err());
    }

    #[test]
    fn other_members_of_a_publish_than_category_and_data_are_ignored() {
        let body = br#" {"x":[1],"data" : {"a": [1.5e3, "\u00e9"]} ,"category":"c\n"} "#;
        let published = one(body);
        assert_eq!(
            (&*published.category, published.data.get()),
            ("c\n", r#"{"a": [1.5e3, "\u00e9"]}"#)
        );
    }

    #[test]
    fn one_byte_order_mark_before_the_json_is_ignored() {
        let json = r#"{"category":"c","data":"\ufeff"}"#;
        let marked = format!("\u{feff}{json}");
        let read = one(marked.as_bytes());
        assert_eq!((&*read.category, read.data.get()), ("c", r#""\ufeff""#));
        for wrong in [
            "\u{feff}".to_owned(),
            format!("\u{feff}\u{feff}{json}"),
            format!("{json}\u{feff}"),
            "\u{feff}[\"c\",1]".to_owned(),
        ] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn data_that_would_make_an_answer_unreadable_is_refused() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for data in [
            r#""\ud800""#,
            "1e999",
            &deep,
            "01",
            "[1,]",
            "",
            "nul",
            "\"\n\"",
            "{\"\\ud800\":1}",
        ] {
            let body = format!(r#"{{"category":"c","data":{data}}}"#);
            assert!(parse(body.as_bytes()).is_err(), "{data}");
        }
        for data in [
            "0",
            "-0.5e-7",
            "true",
            "\"\"",
            "{}",
            "[[]]",
            "123456789012345678901234567890",
        ] {
            let body = format!(r#"{{"category":"c","data":{data}}}"#);
            assert!(parse(body.as_bytes()).is_ok(), "{data}");
        }
        assert!(parse(b"{\"category\":\"c\",\"data\":\"\xff\"}").is_err());
        assert!(parse(br#" ["c",1]"#).is_err());
    }
}
