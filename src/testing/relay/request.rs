//! Reading a request to its end, so that the relay can answer it.

use std::io::{self, Read};

/// The most bytes of a head that the relay reads.
const MAX_HEAD: usize = 64 << 10;
/// The end of a body in chunks without trailers.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What the response depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The method is HEAD.
    pub(super) is_head: bool,
    /// The connection can have another request: the client wants that, and has not sent it yet.
    pub(super) keeps_connection: bool,
}

/// Reads the rest of a request, of which `begun` was read already.
///
/// # Errors
///
/// That of `from`; `InvalidData` if the head has no end.
pub(super) fn read_to_end(begun: &[u8], from: &mut impl Read) -> io::Result<Request> {
    let mut request = begun.to_vec();
    let body = loop {
        let end = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if let Some(end) = end {
            break end + 4;
        }
        if request.len() > MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        read_more(&mut request, from)?;
    };
    let head = String::from_utf8_lossy(&request[..body]).to_ascii_lowercase();
    let field = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        let value = fields.find(|(other, _)| *other == name);
        value.map(|(_, value)| value.trim().to_owned())
    };
    let mut is_alone = true;
    if field("transfer-encoding").is_some() {
        while !request[body..].ends_with(LAST_CHUNK) {
            read_more(&mut request, from)?;
        }
    } else {
        let length = field("content-length").and_then(|length| length.parse().ok());
        let length: usize = length.unwrap_or(0);
        while request.len() - body < length {
            read_more(&mut request, from)?;
        }
        is_alone = request.len() - body == length;
    }
    let closes = field("connection").is_some_and(|option| option == "close");
    let is_http_1_1 = head
        .lines()
        .next()
        .is_some_and(|line| line.ends_with("http/1.1"));
    Ok(Request {
        is_head: head.starts_with("head "),
        keeps_connection: is_alone && is_http_1_1 && !closes,
    })
}

fn read_more(request: &mut Vec<u8>, from: &mut impl Read) -> io::Result<()> {
    let mut buffer = [0; 4096];
    match from.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            request.extend_from_slice(&buffer[..read]);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_to_the_end_of_its_body_and_not_further() {
        for (request, is_head, keeps_connection) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, true),
            ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", false, false),
            ("HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n", true, false),
            (
                "POST / HTTP/1.1\r\ncontent-LENGTH: 3\r\n\r\nabc",
                false,
                true,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                false,
                true,
            ),
        ] {
            let expected = Request {
                is_head,
                keeps_connection,
            };
            for begun in 1..=request.len() {
                let (begun, mut rest) = request.as_bytes().split_at(begun);
                assert_eq!(
                    read_to_end(begun, &mut rest).unwrap(),
                    expected,
                    "{request}"
                );
                assert!(rest.is_empty());
            }
            let mut cut = &request.as_bytes()[1..request.len() - 1];
            assert!(read_to_end(&request.as_bytes()[..1], &mut cut).is_err());
        }
        let two = b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        let first = read_to_end(two, &mut io::empty()).unwrap();
        assert!(!first.keeps_connection);
        let endless = read_to_end(b"GET ", &mut io::repeat(b'x'));
        assert_eq!(endless.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
