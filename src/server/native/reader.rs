//! [`Reader`]: requests from the bytes that a client sends, each part within a limit (RFC 9112).

use std::borrow::Cow;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::net::SocketAddr;

use httparse::{EMPTY_HEADER, Error, Status};

use super::stream::is_timeout;
use crate::server::forwarded::TrustedProxies;
use crate::server::head::BodyLength;
use crate::server::render::is_field_value;
use crate::server::request::Request;
use crate::server::response::Response;

/// Bytes by which the buffer grows. Most requests come with one read, and a large body is read past it.
const BUFFER: usize = 4 * 1024;
/// The most bytes of a head, of all trailers, and of all extensions of chunks.
const MAX_HEAD: usize = 16 * 1024;
/// The most header fields of a request, and the most trailers; and as many as most requests have at most.
const MAX_FIELDS: usize = 100;
const USUAL_FIELDS: usize = 16;
/// The most bytes of a line with a chunk's size, and the most digits of the size.
const MAX_CHUNK_LINE: usize = 1024;
const MAX_DIGITS: usize = 16;

/// Every error of a method is the answer that refuses the request. The connection can't be used any more then.
pub(super) struct Reader<R> {
    pub(super) source: R,
    buffer: Vec<u8>,
    /// The start of the buffer, up to here, has been received and not been read.
    end: usize,
}

/// How many bytes a part of a request has, and what it says; `None` if it has not come whole.
type Parsed<T> = Result<Option<(usize, T)>, Response>;

impl<R: Read> Reader<R> {
    pub(super) fn new(source: R) -> Self {
        Reader {
            source,
            buffer: Vec::new(),
            end: 0,
        }
    }

    /// What has been received and not been read.
    pub(super) fn received(&self) -> &[u8] {
        &self.buffer[..self.end]
    }

    /// Passes over bytes that have been received.
    pub(super) fn skip(&mut self, count: usize) {
        self.buffer.copy_within(count..self.end, 0);
        self.end -= count;
    }

    /// Exchanges the buffer for other bytes that have been received.
    pub(super) fn replace(&mut self, received: Vec<u8>) -> Vec<u8> {
        self.buffer.truncate(self.end);
        self.buffer.shrink_to_fit();
        self.end = received.len();
        std::mem::replace(&mut self.buffer, received)
    }

    /// Receives more. Returns 0 if the client has closed its side.
    fn fill(&mut self) -> io::Result<usize> {
        if self.end == 0 && self.buffer.len() > BUFFER {
            // It has grown for a large head.
            self.replace(Vec::new());
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.end + BUFFER, 0);
        }
        let count = self.source.read(&mut self.buffer[self.end..])?;
        self.end += count;
        Ok(count)
    }

    /// Waits for a request, behind empty lines (RFC 9112, section 2.2). Returns `false` if the client closes its side, or
    /// sends nothing.
    pub(super) fn wait(&mut self) -> bool {
        loop {
            match *self.received() {
                [b'\r', b'\n', ..] => self.skip(2),
                [] | [b'\r'] => match self.fill() {
                    Ok(1..) => {}
                    _ => return false,
                },
                _ => return true,
            }
        }
    }

    /// Reads a part of a request of at most `max` bytes. The status is for a longer one.
    fn part<T>(
        &mut self,
        max: usize,
        status: u16,
        parse: impl Fn(&[u8]) -> Parsed<T>,
    ) -> Result<T, Response> {
        loop {
            let received = &self.received()[..self.end.min(max)];
            if let Some((length, part)) = parse(received)? {
                self.skip(length);
                return Ok(part);
            }
            if received.len() == max {
                let message = "a line is too long, or there are too many";
                return Err(Response::error(status, message));
            }
            if self.fill().map_err(cut_off)? == 0 {
                return Err(Response::error(400, "the request is cut off"));
            }
        }
    }

    /// Reads a head. What is not HTTP is refused at once, before the rest has come.
    pub(super) fn head(
        &mut self,
        peer: Option<SocketAddr>,
        trusted_proxies: &TrustedProxies,
    ) -> Result<Box<Request>, Response> {
        self.part(MAX_HEAD, 431, |head| {
            // Seldom there are many fields, which take more of the stack.
            match parse_head::<USUAL_FIELDS>(head, peer, trusted_proxies) {
                Err(Response { status: 431, .. }) => {
                    parse_head::<MAX_FIELDS>(head, peer, trusted_proxies)
                }
                parsed => parsed,
            }
        })
    }

    /// Reads a body of at most `max` bytes.
    pub(super) fn body(&mut self, length: BodyLength, max: usize) -> Result<Vec<u8>, Response> {
        let mut body = Vec::new();
        match length {
            BodyLength::None => {}
            BodyLength::Known(length) => self.append(&mut body, length, max)?,
            BodyLength::Chunked => self.chunks(&mut body, max)?,
        }
        Ok(body)
    }

    fn chunks(&mut self, body: &mut Vec<u8>, max: usize) -> Result<(), Response> {
        let mut extensions = 0;
        loop {
            let (size, extension) = self.part(MAX_CHUNK_LINE, 400, parse_chunk_line)?;
            extensions += extension;
            if extensions > MAX_HEAD {
                return Err(malformed());
            }
            if size == 0 {
                return self.part(MAX_HEAD, 431, parse_trailers);
            }
            self.append(body, size, max)?;
            self.part(2, 400, |end| match end {
                b"\r\n" => Ok(Some((2, ()))),
                b"\r" | b"" => Ok(None),
                _ => Err(malformed()),
            })?;
        }
    }

    /// Appends this many bytes to a body, which takes memory as they come.
    pub(super) fn append(
        &mut self,
        body: &mut Vec<u8>,
        length: usize,
        max: usize,
    ) -> Result<(), Response> {
        if length > max - body.len() {
            return Err(Response::body_too_large(max));
        }
        let held = length.min(self.end);
        body.reserve_exact(held);
        body.extend_from_slice(&self.received()[..held]);
        self.skip(held);
        let rest = length - held;
        let source = (&mut self.source).take(rest as u64);
        if rest > 0 && { source }.read_to_end(body).map_err(cut_off)? < rest {
            return Err(Response::error(400, "the body is shorter than announced"));
        }
        Ok(())
    }
}

/// The answer to a request that does not come whole.
fn cut_off(error: io::Error) -> Response {
    if is_timeout(&error) {
        Response::error(408, "the request has not come whole in time")
    } else {
        Response::error(400, "the request is cut off")
    }
}

/// Not inlined, and in a box: the stack of a parked poll's thread stays as large as it ever was.
#[inline(never)]
fn parse_head<const FIELDS: usize>(
    head: &[u8],
    peer: Option<SocketAddr>,
    proxies: &TrustedProxies,
) -> Parsed<Box<Request>> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(head, &mut fields) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if head.len() == MAX_HEAD && !head.contains(&b'\n') => {
            return Err(Response::error(414, "the target is too long"));
        }
        Ok(Status::Partial) => return Ok(None),
        Err(Error::Version) => return refuse_version(head),
        Err(error) => return Err(refusal(error)),
    };
    check_line_ends(&head[..length])?;
    let (method, target) = (parsed.method.unwrap_or(""), parsed.path.unwrap_or(""));
    let version = (1, parsed.version.unwrap_or(0));
    let fields = parsed.headers.iter();
    let headers = fields.map(|field| (field.name, text(field.value)));
    let headers = headers.collect();
    let request = Request::parse(method, target, version, headers, peer, proxies);
    Ok(Some((length, Box::new(request))))
}

/// A field's value. Bytes that are not UTF-8 mean nothing to HTTP (RFC 9110, section 5.5).
fn text(value: &[u8]) -> Cow<'_, str> {
    let text = std::str::from_utf8(value);
    text.map_or_else(|_| String::from_utf8_lossy(value), Cow::Borrowed)
}

/// Refuses a head whose first line has no version that this server speaks, when the line has come whole.
fn refuse_version<T>(head: &[u8]) -> Parsed<T> {
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    match head[..end]
        .trim_ascii_end()
        .rsplit(|byte| *byte == b' ')
        .next()
    {
        // It stands behind too many words.
        Some(b"HTTP/1.1" | b"HTTP/1.0") => Err(refusal(Error::Version)),
        Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']) => {
            let message = "this server speaks HTTP/1.1 and HTTP/1.0";
            Err(Response::error(505, message))
        }
        _ => Err(refusal(Error::Version)),
    }
}

/// Refuses an LF alone, which httparse takes for the end of a line, and other programs may not.
fn check_line_ends(lines: &[u8]) -> Result<(), Response> {
    // All bytes, since the compiler makes vector instructions of that.
    let pairs = lines.iter().zip(&lines[1..]);
    let alone = pairs.fold(false, |alone, (before, byte)| {
        alone | ((*byte == b'\n') & (*before != b'\r'))
    });
    if alone || lines.starts_with(b"\n") {
        return Err(Response::error(400, "a line ends without CR"));
    }
    Ok(())
}

fn refusal(error: Error) -> Response {
    let (status, message) = match error {
        Error::TooManyHeaders => (431, "there are too many header fields"),
        Error::HeaderName => (400, "a line is no header field"),
        Error::HeaderValue => (400, "a header field has a control character"),
        _ => (
            400,
            "the first line is not a method, a target and a version of HTTP",
        ),
    };
    Response::error(status, message)
}

fn malformed() -> Response {
    Response::error(400, "the body's chunks are malformed, or cut off")
}

/// The size of a chunk, and the length of its extensions, which count for nothing.
fn parse_chunk_line(received: &[u8]) -> Parsed<(usize, usize)> {
    let Some(end) = received.windows(2).position(|end| end == b"\r\n") else {
        return Ok(None);
    };
    let line = std::str::from_utf8(&received[..end]).map_err(|_| malformed())?;
    let digits = line.bytes().take_while(u8::is_ascii_hexdigit).count();
    let (size, extension) = line.split_at(digits);
    let ends = extension.is_empty() || extension.trim_start_matches([' ', '\t']).starts_with(';');
    match usize::from_str_radix(size, 16) {
        Ok(size) if ends && digits <= MAX_DIGITS && is_field_value(extension) => {
            Ok(Some((end + 2, (size, extension.len()))))
        }
        _ => Err(malformed()),
    }
}

/// Trailers count for nothing. Not inlined, as [`parse_head`].
#[inline(never)]
fn parse_trailers(received: &[u8]) -> Parsed<()> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    match httparse::parse_headers(received, &mut fields).map_err(refusal)? {
        Status::Partial => Ok(None),
        Status::Complete((length, _)) => {
            check_line_ends(&received[..length])?;
            Ok(Some((length, ())))
        }
    }
}
