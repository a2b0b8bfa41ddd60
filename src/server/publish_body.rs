//! The body of a publish: reading its JSON, and checking that every subscriber can decode the data in it.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::Error;
use crate::wire::PublishBody;

/// Reads the category and the data out of the body of a publish.
///
/// # Errors
///
/// `InvalidRequest` that says what is wrong with the body.
pub(super) fn parse(body: &[u8]) -> Result<PublishBody<'_>, Error> {
    let expected = r#"{"category":"…","data":…}"#;
    let other = || Error::request(format!("the body is not of the form {expected}"));
    // A reader of JSON may ignore a byte order mark (RFC 8259, section 8.1).
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // A derived Deserialize takes an array of the members' values, too.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(other());
    }
    let body = std::str::from_utf8(body).map_err(|error| other().with_source(error))?;
    let published: PublishBody<'_> =
        serde_json::from_str(body).map_err(|error| other().with_source(error))?;
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
    use super::*;

    #[test]
    fn other_members_of_a_publish_than_category_and_data_are_ignored() {
        let body = br#" {"x":[1],"data" : {"a": [1.5e3, "\u00e9"]} ,"category":"c\n"} "#;
        let published = parse(body).unwrap();
        assert_eq!(
            (&*published.category, published.data.get()),
            ("c\n", r#"{"a": [1.5e3, "\u00e9"]}"#)
        );
    }

    #[test]
    fn one_byte_order_mark_before_the_json_is_ignored() {
        let json = r#"{"category":"c","data":"\ufeff"}"#;
        let marked = format!("\u{feff}{json}");
        let read = parse(marked.as_bytes()).unwrap();
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
