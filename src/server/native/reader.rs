//! [`Reader`]: what a client sends, each part within a time limit and a size limit.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::head::check_first_line;
use crate::server::response::Response;

/// Bytes of the buffer. Most requests come with one read, and a large body is read past it.
pub(super) const BUFFER: usize = 4 * 1024;
/// The longest head in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Empty lines before a request that are ignored (RFC 9112, section 2.2).
const EMPTY_LINES: usize = 8;
/// The shortest limit of a read or a write: std refuses zero, and the system takes less than a microsecond for no limit.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);
/// How much later than its deadline a read may end, which saves a system call.
const SLACK: Duration = Duration::from_millis(100);

pub(super) struct Reader<'a>(BufReader<Source<'a>>);

impl<'a> Reader<'a> {
    /// `timeout` is the time limit of a read on the stream.
    pub(super) fn new(stream: &'a TcpStream, timeout: Duration) -> Self {
        let source = Source {
            stream,
            received: VecDeque::new(),
            deadline: Instant::now(),
            timeout,
        };
        Reader(BufReader::with_capacity(BUFFER, source))
    }

    /// Sets the time limit for what is read from here on.
    pub(super) fn limit(&mut self, timeout: Duration) {
        self.0.get_mut().deadline = Instant::now() + timeout;
    }

    /// Changes the size of the buffer. `more` has been received after what it holds.
    pub(super) fn rebuffer(&mut self, size: usize, more: &[u8]) {
        let source = self.0.get_ref();
        let held = self.0.buffer().iter().chain(&source.received);
        let received = held.chain(more).copied().collect();
        self.0 = BufReader::with_capacity(
            size,
            Source {
                received,
                ..*source
            },
        );
    }

    /// How many bytes have been received and not been read.
    pub(super) fn received(&self) -> usize {
        self.0.buffer().len() + self.0.get_ref().received.len()
    }

    /// Waits for a request. Returns `false` if the client closes its side, or sends nothing.
    pub(super) fn wait(&mut self) -> Result<bool, Response> {
        for _ in 0..EMPTY_LINES {
            match self.0.fill_buf() {
                Ok([b'\r', ..]) => self.line(&mut Vec::new(), 2, 400)?,
                Ok([first, ..]) if !first.is_ascii_graphic() => {
                    return Err(Response::error(400, "this is not HTTP"));
                }
                received => return Ok(received.is_ok_and(|bytes| !bytes.is_empty())),
            }
        }
        Ok(true)
    }

    /// Reads a head, with the empty line that ends it.
    pub(super) fn head(&mut self) -> Result<Vec<u8>, Response> {
        let mut head = Vec::new();
        self.line(&mut head, MAX_HEAD, 414)?;
        check_first_line(&head)?;
        while !head.ends_with(b"\r\n\r\n") {
            self.line(&mut head, MAX_HEAD, 431)?;
        }
        Ok(head)
    }

    /// Appends a line with its CRLF to a text, which may have `max` bytes then. The status is for a longer one.
    pub(super) fn line(
        &mut self,
        text: &mut Vec<u8>,
        max: usize,
        status: u16,
    ) -> Result<(), Response> {
        // Other programs may take a CR or an LF alone for the end of a line, and a NUL for the end of a text.
        let malformed = || {
            Err(Response::error(
                400,
                "a line has a CR, LF or NUL, or has no CRLF",
            ))
        };
        let start = text.len();
        loop {
            let received = self.0.fill_buf().map_err(cut_off)?;
            if received.is_empty() {
                return Err(Response::error(400, "the request is cut off"));
            }
            let received = &received[..received.len().min(max - text.len())];
            let end = received.iter().position(|byte| *byte == b'\n');
            let count = end.map_or(received.len(), |at| at + 1);
            text.extend_from_slice(&received[..count]);
            self.0.consume(count);
            let line = &text[start..];
            let (line, is_whole) = match line.strip_suffix(b"\r\n") {
                Some(line) => (line, true),
                None => (line.strip_suffix(b"\r").unwrap_or(line), false),
            };
            match line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
                true => return malformed(),
                false if is_whole => return Ok(()),
                false if text.len() == max => {
                    return Err(Response::error(
                        status,
                        "a line is too long, or there are too many",
                    ));
                }
                false => {}
            }
        }
    }

    /// Appends this many bytes to a body, which grows as they come.
    pub(super) fn body(&mut self, body: &mut Vec<u8>, length: usize) -> Result<(), Response> {
        let end = body.len() + length;
        body.reserve_exact(length.min(self.received()));
        let rest = (&mut self.0).take(length as u64);
        { rest }.read_to_end(body).map_err(cut_off)?;
        if body.len() < end {
            return Err(Response::error(400, "the body is shorter than announced"));
        }
        Ok(())
    }

    /// Reads and drops what comes, up to this many bytes, until the client closes its side.
    #[inline(never)]
    pub(super) fn discard(&mut self, bytes: u64) {
        let _ = io::copy(&mut (&mut self.0).take(bytes), &mut io::sink());
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

/// A stream that ends at a deadline.
struct Source<'a> {
    stream: &'a TcpStream,
    /// Bytes that have been received before, and come first.
    received: VecDeque<u8>,
    deadline: Instant,
    /// The time limit of a read on the stream.
    timeout: Duration,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.received.is_empty() {
            return self.received.read(buffer);
        }
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            // Seldom: a request that has come with the first read needs no other limit.
            if self.timeout > left + SLACK || self.timeout < left / 2 {
                self.timeout = left.max(SHORTEST);
                self.stream.set_read_timeout(Some(self.timeout))?;
            }
            match self.stream.read(buffer) {
                Err(error) if is_timeout(&error) => {}
                read => return read,
            }
        }
    }
}

/// True for an error after which the read or write can be tried again, if there is time left.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
