//! Reading requests from bytes alone: for the fuzz target `fuzz/fuzz_targets/requests.rs`, and for the property test below.

use std::io::{self, Read};

use super::reader::Reader;
use crate::server::forwarded::TrustedProxies;
use crate::server::response::Response;

/// The most bytes of a body.
const MAX_BODY: usize = 1000;

/// What became of one request: its method, its target and its body, or the status that refuses it.
pub type Outcome = Result<(String, String, Vec<u8>), u16>;

/// The bytes that a client sends, in pieces of this size.
struct Pieces<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.size.min(buffer.len());
        self.bytes.read(&mut buffer[..size])
    }
}

/// Reads requests until one is refused, or the bytes end. They come in pieces of this size.
///
/// # Panics
///
/// Where a request is accepted that must not be.
pub fn read_requests(bytes: &[u8], size: usize) -> Vec<Outcome> {
    let mut reader = Reader::new(Pieces { bytes, size });
    let mut outcomes = Vec::new();
    while reader.wait() {
        match read_request(&mut reader, bytes) {
            Ok(request) => outcomes.push(Ok(request)),
            Err(refusal) => {
                assert!((400..600).contains(&refusal.status), "{}", refusal.status);
                outcomes.push(Err(refusal.status));
                break;
            }
        }
    }
    outcomes
}

fn read_request(
    reader: &mut Reader<Pieces<'_>>,
    bytes: &[u8],
) -> Result<(String, String, Vec<u8>), Response> {
    let position = |reader: &Reader<Pieces<'_>>| {
        bytes.len() - reader.source.bytes.len() - reader.received().len()
    };
    let start = position(reader);
    let request = reader.head(None, &TrustedProxies::default())?;
    let head = &bytes[start..position(reader)];
    if let Some(fault) = request.fault() {
        return Err(Response::error(400, fault));
    }
    // A line of the head that is not one of the request's would be a line that another program reads differently.
    let lines = head.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, request.headers().iter().count() + 2);
    let text = String::from_utf8_lossy(head).replace("\r\n", "");
    assert!(!text.contains(['\r', '\n', '\0']), "{text:?}");
    let length = request.body_length();
    let length = length.map_err(|why| Response::error(400, why))?;
    let body = reader.body(length, MAX_BODY)?;
    assert!(body.len() <= MAX_BODY, "{}", body.len());
    let target = request.target.clone();
    Ok((request.method().to_owned(), target, body))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Pieces of requests, good ones and bad ones.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let text = prop::sample::select(vec![
            "GET /events?category=a HTTP/1.1\r\nHost: t\r\n",
            "POST /publish HTTP/1.1\r\nHost: t\r\n",
            "HEAD http://t/ HTTP/1.0\r\n",
            "Content-Length: 5\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length: +5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            " folded\r\n",
            "X: y\r\n",
            "\r\n",
            "\n",
            "\r",
            "5\r\nabcde\r\n",
            "5;x=\"y\"\r\nabcde\r\n",
            "ffffffffffffffff\r\n",
            "0\r\n\r\n",
            "0\r\nT: v\r\n\r\n",
            "abcde",
            "HTTP/2.0",
        ]);
        prop_oneof![
            9 => text.prop_map(|text| text.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..20),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn requests_are_read_the_same_in_whatever_pieces_they_come(pieces in vec(piece(), 0..24)) {
            let bytes = pieces.concat();
            let whole = read_requests(&bytes, usize::MAX);
            for size in [1, 2, 7, 64] {
                prop_assert_eq!(&read_requests(&bytes, size), &whole);
            }
        }
    }
}
