//! Bodies of requests: whether one is announced properly, reading it whole or not at all, and a publish in it.

use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use super::chunks::ChunkedReader;
use super::head;
use crate::error::Error;
use crate::server::reply::Reply;
use crate::wire::Published;

/// How a request's body is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Framing {
    /// There is none, or tiny_http has read it already: up to 1024 bytes of known length.
    Held,
    /// Still on its way: of this length, or chunked.
    Streamed(Option<usize>),
    /// It has been read.
    Read,
    /// Not so that its end could be known; the connection can't be used any more.
    Broken(&'static str),
}

/// tiny_http takes any Transfer-Encoding for `chunked`, and an unreadable Content-Length for none; both would let a
/// second request hide in a first one's body (RFC 9112, sections 6.1 to 6.3).
pub(in crate::server) fn framing(request: &tiny_http::Request) -> Framing {
    if let Some(fault) = head::fault(request) {
        return Framing::Broken(fault);
    }
    let mut fields = request.headers().iter();
    let encoded = fields.any(|field| field.field.equiv("Transfer-Encoding"));
    let mut lengths = request
        .headers()
        .iter()
        .filter(|field| field.field.equiv("Content-Length"));
    match (encoded, lengths.next()) {
        (false, None) => Framing::Held,
        (true, Some(_)) => Framing::Broken("both Transfer-Encoding and Content-Length"),
        (true, None) if !ends_in_chunked(request) => {
            Framing::Broken("a Transfer-Encoding that does not end in chunked")
        }
        (true, None) if *request.http_version() != (1, 1) => {
            Framing::Broken("a Transfer-Encoding in another version than HTTP/1.1")
        }
        (true, None) => Framing::Streamed(None),
        (false, Some(length)) => {
            let value = length.value.as_str();
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let same = lengths.all(|other| other.value == length.value);
            match value.parse::<usize>() {
                Ok(_) if digits && same && is_held(request) => Framing::Held,
                Ok(length) if digits && same => Framing::Streamed(Some(length)),
                _ => Framing::Broken("a Content-Length that is not one number"),
            }
        }
    }
}

/// The transfer codings, in the order in which they were applied: several fields are one list, and empty elements of it
/// count for nothing (RFC 9110, sections 5.3 and 5.6.1).
pub(in crate::server) fn codings(request: &tiny_http::Request) -> impl Iterator<Item = &str> {
    let fields = request.headers().iter();
    fields
        .filter(|field| field.field.equiv("Transfer-Encoding"))
        .flat_map(|field| field.value.as_str().split(','))
        .map(|coding| coding.trim_matches([' ', '\t']))
        .filter(|coding| !coding.is_empty())
}

/// True where `chunked` is the last coding and occurs once, so that the body's end is known (RFC 9112, section 6.3).
fn ends_in_chunked(request: &tiny_http::Request) -> bool {
    let is_chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
    codings(request).last().is_some_and(is_chunked)
        && codings(request).filter(|coding| is_chunked(coding)).count() == 1
        // A comma in quotes would not end an element of the list.
        && !codings(request).any(|coding| coding.contains('"'))
}

/// True where the client offers another protocol: then tiny_http leaves the body on the connection as it is, whatever
/// its framing, and reads no more requests. It looks for the word in the first Connection field, and anywhere in it.
pub(in crate::server) fn is_upgrade(request: &tiny_http::Request) -> bool {
    const UPGRADE: &[u8] = b"upgrade";
    let mut fields = request.headers().iter();
    fields
        .find(|field| field.field.equiv("Connection"))
        .is_some_and(|field| {
            let mut parts = field.value.as_bytes().windows(UPGRADE.len());
            parts.any(|part| part.eq_ignore_ascii_case(UPGRADE))
        })
}

/// True where tiny_http has nothing more to read of the body, so that dropping the request does not wait for the client:
/// it has read it already, or takes it for none, or for chunked, which it leaves unread.
pub(in crate::server) fn is_held(request: &tiny_http::Request) -> bool {
    let expects = request
        .headers()
        .iter()
        .any(|field| field.field.equiv("Expect"));
    match request.body_length() {
        None | Some(0) => true,
        Some(length) => length <= 1024 && !expects && !is_upgrade(request),
    }
}

/// The whole body, of at most `max` bytes.
///
/// # Errors
///
/// 413 for one that is longer, before it is read where its length was announced; 400 for one that is cut off. After
/// either, it is not known where a chunked one ends, and its framing is broken.
pub(in crate::server) fn read(
    request: &mut tiny_http::Request,
    framing: &mut Framing,
    max: usize,
) -> Result<Vec<u8>, Reply> {
    let chunked = *framing == Framing::Streamed(None);
    let body = read_whole(request, framing, max);
    *framing = match &body {
        Ok(_) => Framing::Read,
        Err(_) if chunked => Framing::Broken("the body was not read to its end"),
        Err(_) => *framing,
    };
    body
}

fn read_whole(
    request: &mut tiny_http::Request,
    framing: &Framing,
    max: usize,
) -> Result<Vec<u8>, Reply> {
    let too_large = || {
        Reply::error(
            413,
            &format!("the body is too large: the limit is {max} bytes"),
        )
    };
    let announced = match framing {
        Framing::Held if request.body_length().unwrap_or(0) == 0 => return Ok(Vec::new()),
        Framing::Held => request.body_length(),
        Framing::Streamed(length) => *length,
        Framing::Read | Framing::Broken(_) => return Ok(Vec::new()),
    };
    if announced.is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(announced.unwrap_or(0).min(64 * 1024));
    // No more than announced: where another protocol is offered, more may follow.
    let limit = announced.unwrap_or(max.saturating_add(1));
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let still_encoded = announced.is_none() && is_upgrade(request);
    let reader = request.as_reader();
    let read = if still_encoded {
        ChunkedReader::new(reader)
            .take(limit)
            .read_to_end(&mut body)
    } else {
        reader.take(limit).read_to_end(&mut body)
    };
    if body.len() > max {
        return Err(too_large());
    }
    if read.is_err() || announced.is_some_and(|length| length != body.len()) {
        let why = match announced {
            Some(_) => "the body is shorter than announced",
            None => "the body's chunks are malformed, or cut off",
        };
        return Err(Reply::error(400, why));
    }
    Ok(body)
}

/// # Errors
///
/// `InvalidRequest` that says what is wrong with the body.
pub(in crate::server) fn published(body: &[u8]) -> Result<Published<'_>, Error> {
    let expected = r#"{"category":"…","data":…}"#;
    let other = || Error::request(format!("the body is not of the form {expected}"));
    // A reader of JSON may ignore a byte order mark (RFC 8259, section 8.1).
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // A derived Deserialize takes an array of the members' values, too.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(other());
    }
    let published: Published<'_> =
        serde_json::from_slice(body).map_err(|error| other().with_source(error))?;
    serde_json::from_str::<Readable>(published.data.get())
        .map_err(|error| Error::request("data that readers could not decode").with_source(error))?;
    Ok(published)
}

/// JSON that any reader can decode: raw JSON may be well-formed and yet nested a million levels deep, or hold half a
/// surrogate pair or a number that no double can; one such event would spoil every answer that it is in.
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
    fn a_publish_is_a_category_and_data_and_whatever_else() {
        let body = br#" {"x":[1],"data" : {"a": [1.5e3, "\u00e9"]} ,"category":"c\n"} "#;
        let published = published(body).unwrap();
        assert_eq!(
            (&*published.category, published.data.get()),
            ("c\n", r#"{"a": [1.5e3, "\u00e9"]}"#)
        );
    }

    #[test]
    fn one_byte_order_mark_before_the_json_is_ignored() {
        let json = r#"{"category":"c","data":"\ufeff"}"#;
        let marked = format!("\u{feff}{json}");
        let read = published(marked.as_bytes()).unwrap();
        assert_eq!((&*read.category, read.data.get()), ("c", r#""\ufeff""#));
        for wrong in [
            "\u{feff}".to_owned(),
            format!("\u{feff}\u{feff}{json}"),
            format!("{json}\u{feff}"),
            "\u{feff}[\"c\",1]".to_owned(),
        ] {
            assert!(published(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn data_that_would_spoil_an_answer_is_refused() {
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
            assert!(published(body.as_bytes()).is_err(), "{data}");
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
            assert!(published(body.as_bytes()).is_ok(), "{data}");
        }
        assert!(published(b"{\"category\":\"c\",\"data\":\"\xff\"}").is_err());
        assert!(published(br#" ["c",1]"#).is_err());
    }
}
