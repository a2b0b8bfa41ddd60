//! [`TimedStream`]: a stream whose reads and writes end at a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The shortest time limit of a call: std refuses zero, and the system takes less than a microsecond for no limit.
const SHORTEST: Duration = Duration::from_millis(1);
/// How much later than its deadline a call may end, which saves a system call.
const SLACK: Duration = Duration::from_millis(100);
/// The bytes of an answer for which a client has one more second.
const PACE: usize = 64 * 1024;

pub(super) struct TimedStream<'a> {
    stream: &'a TcpStream,
    /// The time limits of one read and of one write on the stream; zero if they are not known.
    read_timeout: Duration,
    write_timeout: Duration,
    limit: Duration,
    /// `None` until the first call with this limit: what has been received already needs no clock.
    deadline: Option<Instant>,
}

impl<'a> TimedStream<'a> {
    pub(super) fn new(stream: &'a TcpStream) -> Self {
        TimedStream {
            stream,
            read_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
            limit: Duration::ZERO,
            deadline: None,
        }
    }

    /// Sets the time limit of all calls from here on together. It begins with the first of them.
    pub(super) fn limit(&mut self, limit: Duration) {
        (self.limit, self.deadline) = (limit, None);
    }

    /// Sends an answer. The client may pause for `timeout`, and has that and one more second for each [`PACE`] bytes until it
    /// has the whole.
    pub(super) fn send(&mut self, mut answer: &[u8], timeout: Duration) -> io::Result<()> {
        self.limit(timeout + Duration::from_secs((answer.len() / PACE) as u64));
        while !answer.is_empty() {
            self.prepare(Some(timeout))?;
            match self.stream.write(answer) {
                Ok(count) => answer = &answer[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sets the time limit of the next call, a write with a limit of its own or a read, if that of the stream would end it far
    /// from the deadline. Seldom: a request that comes, and an answer that leaves, with one call needs no other limit.
    fn prepare(&mut self, write: Option<Duration>) -> io::Result<()> {
        let now = Instant::now();
        let deadline = *self.deadline.get_or_insert(now + self.limit);
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let left = left.min(write.unwrap_or(Duration::MAX)).max(SHORTEST);
        let timeout = match write {
            Some(_) => &mut self.write_timeout,
            None => &mut self.read_timeout,
        };
        if *timeout <= left + SLACK && *timeout >= left / 2 {
            return Ok(());
        }
        *timeout = left;
        match write {
            Some(_) => self.stream.set_write_timeout(Some(left)),
            None => self.stream.set_read_timeout(Some(left)),
        }
    }
}

impl Read for TimedStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.prepare(None)?;
            match self.stream.read(buffer) {
                Err(error) if is_timeout(&error) => {}
                read => return read,
            }
        }
    }
}

/// Returns `true` for an error after which the call can be tried again, if there is time left.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
