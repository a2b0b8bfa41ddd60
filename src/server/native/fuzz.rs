//! Reading requests from bytes alone: for the fuzz target `fuzz/fuzz_targets/requests.rs`, and for the property test below.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::body;
use super::head;
use super::reader::Reader;
use crate::server::forwarded::TrustedProxies;
use crate::server::response::Response;

/// The most bytes of a body.
const MAX_BODY: usize = 1000;
/// Longer than any input takes.
const LIMIT: Duration = Duration::from_secs(60);

/// What became of one request: its method, its target and its body, or the status that refuses it.
pub type Outcome = Result<(String, String, Vec<u8>), u16>;

/// A connection whose client has closed its side, so that nothing comes behind the bytes that a reader has.
///
/// # Errors
///
/// Where the system has no connection.
pub fn silent_connection() -> io::Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (stream, _) = listener.accept()?;
    drop(client);
    Ok(stream)
}

/// Reads requests until one is refused, or the bytes end. They come in pieces of the size of the buffer.
///
/// # Panics
///
/// Where a request is accepted that must not be.
pub fn read_requests(connection: &TcpStream, bytes: &[u8], buffer: usize) -> Vec<Outcome> {
    let mut reader = Reader::new(connection, LIMIT);
    reader.rebuffer(buffer, bytes);
    reader.limit(LIMIT);
    let mut outcomes = Vec::new();
    loop {
        match read_request(&mut reader) {
            Ok(None) => return outcomes,
            Ok(Some(request)) => outcomes.push(Ok(request)),
            Err(refusal) => {
                assert!((400..600).contains(&refusal.status), "{}", refusal.status);
                outcomes.push(Err(refusal.status));
                return outcomes;
            }
        }
    }
}

fn read_request(reader: &mut Reader<'_>) -> Result<Option<(String, String, Vec<u8>)>, Response> {
    if !reader.wait()? {
        return Ok(None);
    }
    let bytes = reader.head()?;
    let request = head::parse(&bytes, None, &TrustedProxies::default())?;
    if let Some(fault) = request.fault() {
        return Err(Response::error(400, fault));
    }
    let length = request.body_length();
    let length = length.map_err(|why| Response::error(400, why))?;
    let body = body::read(reader, length, MAX_BODY)?;
    assert!(body.len() <= MAX_BODY, "{}", body.len());
    // A line of the head that is not one of the request's would be a line that another program reads differently.
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, request.headers().iter().count() + 2);
    let target = request.target.clone();
    Ok(Some((request.method().to_owned(), target, body)))
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
            let connection = silent_connection().unwrap();
            let bytes = pieces.concat();
            let whole = read_requests(&connection, &bytes, 4096);
            for buffer in [1, 2, 7, 64] {
                prop_assert_eq!(&read_requests(&connection, &bytes, buffer), &whole);
            }
        }
    }
}
