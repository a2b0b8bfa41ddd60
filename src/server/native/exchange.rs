//! The requests of one connection, one after the other: [`serve`].

use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::Shared;
use super::body;
use super::connection::{Connection, State};
use super::head;
use super::reader::{BUFFER, Reader};
use crate::server::answer::{Answer, ParkedPoll, Ready};
use crate::server::cors::Grant;
use crate::server::endpoints::{self, Exchange};
use crate::server::head::BodyLength;
use crate::server::render::Persistence;
use crate::server::request::Request;
use crate::server::response::Response;

/// The defaults of `head_timeout` and `body_timeout`.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to close its side after the last answer, and how many bytes it may send until then. If the
/// socket were closed at once, these would reset the connection, and the client might not see the answer.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: u64 = 64 << 20;

/// Serves requests until the connection ends.
pub(super) fn serve(shared: &Shared, connection: &Connection) {
    let idle_timeout = shared.service.info.effective_idle_timeout();
    let mut exchange = NativeExchange {
        shared,
        connection,
        reader: Reader::new(&connection.stream, idle_timeout),
        body_length: BodyLength::None,
        expects_continue: false,
        is_read: false,
    };
    while exchange.run() {
        if !connection.enter(State::Idle(Instant::now())) || shared.connections.are_closing() {
            return;
        }
    }
    if connection.enter(State::Idle(Instant::now())) && !shared.connections.are_closing() {
        let _ = connection.stream.shutdown(Shutdown::Write);
        exchange.reader.limit(LINGER);
        exchange.reader.discard(LINGER_BYTES);
    }
}

struct NativeExchange<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    reader: Reader<'a>,
    body_length: BodyLength,
    /// The client waits to be asked for the body.
    expects_continue: bool,
    /// The request has been read to its end, so that the next one can follow.
    is_read: bool,
}

impl Exchange for NativeExchange<'_> {
    fn read_body(&mut self, max: usize) -> Result<Vec<u8>, Response> {
        let info = &self.shared.service.info;
        let is_wanted = match self.body_length {
            BodyLength::None => false,
            BodyLength::Known(length) => (1..=max).contains(&length),
            BodyLength::Chunked => true,
        };
        if self.expects_continue && is_wanted && self.reader.received() == 0 {
            // An error shows again when the body is read.
            let _ = self
                .connection
                .write(b"HTTP/1.1 100 Continue\r\n\r\n", info.write_timeout);
        }
        self.reader.limit(info.body_timeout.unwrap_or(BODY_TIMEOUT));
        let body = body::read(&mut self.reader, self.body_length, max)?;
        self.is_read = true;
        if self.connection.enter(State::Serving) {
            Ok(body)
        } else {
            Err(Response::busy("the server is stopping; try again"))
        }
    }

    /// The connection's thread is its own.
    fn before_blocking(&mut self) -> Result<(), Response> {
        Ok(())
    }
}

impl NativeExchange<'_> {
    /// Waits for a request and serves it. Returns `false` if the connection can't be used any more.
    fn run(&mut self) -> bool {
        let service = &self.shared.service;
        self.is_read = false;
        let request = match self.receive_head() {
            Ok(None) => return false,
            Ok(Some(request)) => self.check_head(&request).map(|()| request),
            Err(refusal) => Err(refusal),
        };
        let mut request = match request {
            Ok(request) => request,
            Err(refusal) => {
                service.broker.count_refused();
                return self.send(refusal.into(), &Grant::default(), Persistence::Close, false);
            }
        };
        let (persistence, head_only) = (request.persistence(), request.method() == "HEAD");
        let grant = Grant::of(&request, service.info.cors.as_ref());
        let answer = endpoints::answer(service, &mut request, self);
        // While a poll is parked, nothing is kept of its request.
        drop(request);
        self.skip_body();
        let ready = match answer {
            Answer::Ready(ready) => ready,
            Answer::Parked(poll) => self.wait(poll),
        };
        self.send(ready, &grant, persistence, head_only)
    }

    /// Receives the head of a request: in a box, and not inlined, as [`send`](NativeExchange::send), since the stack of a
    /// thread stays as large as it ever was, and has 8 KB where a poll is parked.
    ///
    /// `None` where the client sends no request.
    ///
    /// # Errors
    ///
    /// The answer that refuses, as of the next two.
    #[inline(never)]
    fn receive_head(&mut self) -> Result<Option<Box<Request>>, Response> {
        let info = &self.shared.service.info;
        self.reader.limit(info.effective_idle_timeout());
        if !self.reader.wait()? || !self.connection.enter(State::Receiving) {
            return Ok(None);
        }
        self.reader.limit(info.head_timeout.unwrap_or(HEAD_TIMEOUT));
        let head = self.reader.head()?;
        let request = head::parse(&head, self.connection.peer, &info.trusted_proxies)?;
        Ok(Some(Box::new(request)))
    }

    #[inline(never)]
    fn check_head(&mut self, request: &Request) -> Result<(), Response> {
        let length = match request.fault() {
            None => request.body_length(),
            Some(fault) => Err(fault),
        };
        self.body_length = length.map_err(|why| Response::error(400, why))?;
        self.expects_continue = request.expects_continue()?;
        Ok(())
    }

    /// Passes over a body that was not asked for, if it has come all the same.
    #[inline(never)]
    fn skip_body(&mut self) {
        self.is_read = self.is_read
            || match self.body_length {
                BodyLength::None => true,
                BodyLength::Known(length) if length <= self.reader.received() => {
                    self.reader.body(&mut Vec::new(), length).is_ok()
                }
                _ => false,
            };
    }

    /// Waits for the events of a poll, without a buffer. The poll stays in its box: see [`receive_head`].
    ///
    /// [`receive_head`]: NativeExchange::receive_head
    #[allow(clippy::boxed_local)]
    #[inline(never)]
    fn wait(&mut self, poll: Box<ParkedPoll>) -> Ready {
        self.reader.rebuffer(0, &[]);
        self.connection.park(poll.waiter());
        self.shared.maintenance.wake();
        let ready = poll.wait(&self.shared.service);
        let received = self.connection.unpark();
        // An error would leave a socket that does not block.
        self.is_read &= received.is_ok();
        self.reader.rebuffer(BUFFER, &received.unwrap_or_default());
        ready
    }

    /// Sends an answer. Returns `false` if it is the connection's last one.
    #[inline(never)]
    fn send(
        &mut self,
        ready: Ready,
        grant: &Grant,
        persistence: Persistence,
        head_only: bool,
    ) -> bool {
        let service = &self.shared.service;
        // From here on, a stop waits for the answer.
        if !self.connection.enter(State::Serving) {
            return false;
        }
        let persistence = if self.is_read && !service.is_stopping() {
            persistence
        } else {
            Persistence::Close
        };
        let answer = ready.render(service, grant, persistence, head_only);
        let written = self.connection.write(&answer, service.info.write_timeout);
        if let Err(error) = &written {
            log::debug!(
                "an answer did not reach {:?}: {error}",
                self.connection.peer
            );
            let _ = self.connection.stream.shutdown(Shutdown::Both);
        }
        written.is_ok() && persistence != Persistence::Close
    }
}
