//! [`ChunkedReader`]: decodes a chunked body (RFC 9112, section 7.1) that tiny_http leaves encoded.
//!
//! tiny_http decodes chunked bodies itself, except where the client offers another protocol: then it hands out the bytes
//! of the connection as they are.

use std::io::{self, ErrorKind, Read};

/// The longest line of a chunk's size and extensions, in bytes.
const MAX_SIZE_LINE: usize = 4 * 1024;
/// The most bytes of all trailer fields together.
const MAX_TRAILERS: usize = 8 * 1024;

/// Reads the data of a chunked body, and ends after its last trailer field. Anything malformed, and the end of the
/// source before the end of the body, is an error.
pub(super) struct ChunkedReader<R> {
    source: R,
    position: Position,
}

enum Position {
    /// The next line has the size of a chunk.
    Size,
    /// The current chunk has this many bytes left; never 0.
    Data(u64),
    End,
}

impl<R: Read> ChunkedReader<R> {
    pub(super) fn new(source: R) -> Self {
        ChunkedReader {
            source,
            position: Position::Size,
        }
    }

    /// One line, without the CRLF that ends it.
    fn line(&mut self, max: usize) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\r' => {
                    self.expect(b'\n')?;
                    return Ok(line);
                }
                b'\n' => return Err(malformed("a line ends without CR")),
                _ if line.len() >= max => return Err(malformed("a line is too long")),
                byte => line.push(byte),
            }
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.source.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn expect(&mut self, expected: u8) -> io::Result<()> {
        match self.byte()? {
            byte if byte == expected => Ok(()),
            _ => Err(malformed("a line end is missing")),
        }
    }

    /// Trailer fields carry nothing that this server uses, so they are left out (RFC 9112, section 7.1.2).
    fn skip_trailers(&mut self) -> io::Result<()> {
        let mut left = MAX_TRAILERS;
        loop {
            let line = self.line(left)?;
            if line.is_empty() {
                return Ok(());
            }
            left = left.saturating_sub(line.len());
        }
    }
}

impl<R: Read> Read for ChunkedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.position {
                Position::End => return Ok(0),
                Position::Size => {
                    let line = self.line(MAX_SIZE_LINE)?;
                    let size = size(&line).ok_or_else(|| malformed("a chunk has no size"))?;
                    if size > 0 {
                        self.position = Position::Data(size);
                    } else {
                        self.skip_trailers()?;
                        self.position = Position::End;
                    }
                }
                Position::Data(left) => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX);
                    let most = most.min(buffer.len());
                    let count = self.source.read(&mut buffer[..most])?;
                    if count == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    let left = left.saturating_sub(count as u64);
                    self.position = Position::Data(left);
                    if left == 0 {
                        self.expect(b'\r')?;
                        self.expect(b'\n')?;
                        self.position = Position::Size;
                    }
                    return Ok(count);
                }
            }
        }
    }
}

/// The size of a chunk: hexadecimal digits, and extensions after a semicolon, which are left out.
fn size(line: &[u8]) -> Option<u64> {
    let semicolon = line.iter().position(|&byte| byte == b';');
    let digits = match semicolon {
        // Spaces may stand before the semicolon (RFC 9112, section 7.1.1).
        Some(at) => line[..at].trim_ascii_end(),
        None => line,
    };
    let is_hexadecimal = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok()?;
    is_hexadecimal.then(|| u64::from_str_radix(digits, 16).ok())?
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes the body, and gives what follows it on the connection.
    fn decode(encoded: &str) -> io::Result<(String, String)> {
        let mut source = encoded.as_bytes();
        let mut body = String::new();
        ChunkedReader::new(&mut source).read_to_string(&mut body)?;
        Ok((body, String::from_utf8_lossy(source).into_owned()))
    }

    #[test]
    fn chunks_are_joined_and_what_follows_the_body_is_left() {
        for (encoded, body) in [
            ("0\r\n\r\nNEXT", ""),
            ("3\r\nabc\r\n0\r\n\r\nNEXT", "abc"),
            (
                "1\r\na\r\nA\r\n0123456789\r\n000\r\n\r\nNEXT",
                "a0123456789",
            ),
            ("000003;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\nNEXT", "abc"),
            ("3 \t;a\r\nabc\r\n0\r\n\r\nNEXT", "abc"),
            ("3\r\nabc\r\n0\r\nX: a\r\nY: b\r\n\r\nNEXT", "abc"),
        ] {
            let decoded = decode(encoded).unwrap();
            assert_eq!(decoded, (body.to_owned(), "NEXT".to_owned()), "{encoded:?}");
        }
    }

    #[test]
    fn malformed_chunks_are_errors() {
        let long_extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "a".repeat(MAX_SIZE_LINE));
        let long_trailers = format!(
            "0\r\n{}\r\n",
            "X: aaaaaaaaaaaa\r\n".repeat(MAX_TRAILERS / 10)
        );
        for encoded in [
            "\r\nabc\r\n0\r\n\r\n",
            "x\r\nabc\r\n0\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            "-3\r\nabc\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            " 3\r\nabc\r\n0\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "3\rabc\r\n0\r\n\r\n",
            "3;a\nb\r\nabc\r\n0\r\n\r\n",
            "3\r\nabc0\r\n\r\n",
            "2\r\nabc\r\n0\r\n\r\n",
            "10000000000000000\r\nabc\r\n0\r\n\r\n",
            &long_extension,
            &long_trailers,
        ] {
            let error = decode(encoded).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{encoded:?}: {error}");
        }
    }

    #[test]
    fn a_body_that_ends_early_is_an_error_wherever_it_is_cut() {
        let encoded = "3;a\r\nabc\r\n0\r\nX: a\r\n\r\n";
        for end in 0..encoded.len() {
            let error = decode(&encoded[..end]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "cut at {end}");
        }
        assert_eq!(decode(encoded).unwrap().0, "abc");
    }

    #[test]
    fn a_size_near_2_to_the_64_allocates_nothing() {
        let error = decode("ffffffffffffffff\r\nabc").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
