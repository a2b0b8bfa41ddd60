//! The requests of one connection, one after the other: [`serve`].

use std::io::{self, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::connection::{Connection, State};
use super::connections::Connections;
use super::reader::Reader;
use super::stream::TimedStream;
use crate::broker::Waiter;
use crate::server::answer::{Answer, ParkedPoll};
use crate::server::cors::Grant;
use crate::server::endpoints::{self, Exchange};
use crate::server::event_stream::{EventStream, StreamConnection};
use crate::server::head::BodyLength;
use crate::server::ready::Ready;
use crate::server::render::Persistence;
use crate::server::request::Request;
use crate::server::response::Response;

/// How long a client may take to close its side after the last answer, and how many bytes it may send until then.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: u64 = 64 << 20;

/// Serves requests until the connection ends.
pub(super) fn serve(connections: &Connections, connection: &Connection) {
    let mut exchange = NativeExchange {
        connections,
        connection,
        reader: Reader::new(TimedStream::new(&connection.stream)),
        body_length: BodyLength::None,
        expects_continue: false,
    };
    while exchange.run() {
        // After a stop has begun, no other thread ends an idle connection.
        let is_idle = connection.enter(State::Idle(Instant::now()));
        if !is_idle || connections.service.is_stopping() {
            return;
        }
    }
    linger(connections, connection);
}

/// Waits until the client closes its side after the last answer. If the socket were closed at once, what the client sends
/// would reset the connection, and the client might not see the answer. Not inlined: it takes 8 KB of the stack.
#[inline(never)]
pub(super) fn linger(connections: &Connections, connection: &Connection) {
    if connection.enter(State::Receiving) && !connections.service.is_stopping() {
        let _ = connection.stream.shutdown(Shutdown::Write);
        let mut stream = TimedStream::new(&connection.stream);
        stream.limit(LINGER);
        let _ = io::copy(&mut stream.take(LINGER_BYTES), &mut io::sink());
    }
}

struct NativeExchange<'a> {
    connections: &'a Connections,
    connection: &'a Connection,
    reader: Reader<TimedStream<'a>>,
    /// The length of the body that has not been read.
    body_length: BodyLength,
    /// The client waits to be asked for the body.
    expects_continue: bool,
}

impl Exchange for NativeExchange<'_> {
    fn read_body(&mut self, max: usize) -> Result<Vec<u8>, Response> {
        let info = &self.connections.service.info;
        let is_wanted = match self.body_length {
            BodyLength::None => false,
            BodyLength::Known(length) => (1..=max).contains(&length),
            BodyLength::Chunked => true,
        };
        if self.expects_continue && is_wanted && self.reader.received().is_empty() {
            // An error shows again when the body is read.
            let asked = b"HTTP/1.1 100 Continue\r\n\r\n";
            let _ = self.reader.source.send(asked, info.write_timeout);
        }
        self.reader.source.limit(info.effective_body_timeout());
        let body = self.reader.body(self.body_length, max)?;
        self.body_length = BodyLength::None;
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

impl StreamConnection for NativeExchange<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let timeout = self.connections.service.info.write_timeout;
        self.reader.source.send(bytes, timeout)
    }

    fn park(&mut self, waiter: &Arc<Waiter>) {
        let received = self.reader.replace(Vec::new());
        self.connection.park(waiter.clone(), received);
        self.connections.wake_maintenance();
    }

    fn unpark(&mut self) {
        self.reader.replace(self.connection.unpark());
    }
}

/// The methods are not inlined: the stack of a thread stays as large as it ever was, and has 8 KB where a poll is parked.
impl NativeExchange<'_> {
    /// Waits for a request and serves it. Returns `false` if the connection can't be used any more.
    fn run(&mut self) -> bool {
        match self.receive() {
            Ok(None) => false,
            Ok(Some(request)) => self.answer(request),
            Err(refusal) => {
                self.connections.service.broker.count_refused();
                self.send(refusal.into(), &Grant::default(), Persistence::Close, false)
            }
        }
    }

    /// Receives the head of a request; `None` if the client sends none.
    ///
    /// # Errors
    ///
    /// The answer that refuses.
    #[inline(never)]
    fn receive(&mut self) -> Result<Option<Box<Request>>, Response> {
        let info = &self.connections.service.info;
        self.reader.source.limit(info.effective_idle_timeout());
        if !self.reader.wait() || !self.connection.enter(State::Receiving) {
            return Ok(None);
        }
        self.reader.source.limit(info.effective_head_timeout());
        let peer = self.connection.peer;
        let request = self.reader.head(peer, &info.trusted_proxies)?;
        let length = request.fault().map_or_else(|| request.body_length(), Err);
        self.body_length = length.map_err(|why| Response::error(400, why))?;
        self.expects_continue = request.expects_continue()?;
        Ok(Some(request))
    }

    fn answer(&mut self, mut request: Box<Request>) -> bool {
        let (persistence, head_only) = (request.persistence(), request.method() == "HEAD");
        let grant = Grant::of(&request, self.connections.service.info.cors.as_ref());
        let answer = endpoints::answer(&self.connections.service, &mut request, self);
        // While a poll is parked, nothing is kept of its request.
        drop(request);
        // The next request can follow a body that was not asked for, if the body has come all the same.
        let is_read = match self.body_length {
            BodyLength::None => true,
            BodyLength::Known(length) if length <= self.reader.received().len() => {
                self.reader.skip(length);
                true
            }
            _ => false,
        };
        let kept = |exchange: &Self| match is_read && !exchange.connections.service.is_stopping() {
            true => persistence,
            false => Persistence::Close,
        };
        let ready = match answer {
            Answer::Ready(ready) => ready,
            Answer::Parked(poll) => self.wait(poll),
            Answer::Stream(stream) => {
                let persistence = match stream.closes() {
                    true => Persistence::Close,
                    false => kept(self),
                };
                return self.stream(stream, &grant, persistence);
            }
        };
        let persistence = kept(self);
        self.send(ready, &grant, persistence, head_only)
    }

    /// Waits for the events of a poll, without a buffer. The poll stays in its box.
    #[allow(clippy::boxed_local)]
    #[inline(never)]
    fn wait(&mut self, poll: Box<ParkedPoll>) -> Ready {
        self.park(poll.waiter());
        let ready = poll.wait(&self.connections.service);
        self.unpark();
        ready
    }

    /// Sends a stream until its end. Returns `false` if it is the connection's last answer.
    #[inline(never)]
    fn stream(
        &mut self,
        mut stream: Box<EventStream>,
        grant: &Grant,
        persistence: Persistence,
    ) -> bool {
        if !self.connection.enter(State::Serving) {
            return false;
        }
        let service = &self.connections.service;
        let head = stream.take_head();
        let head = head.render(service, grant, persistence, false).to_vec();
        let sent = stream.run(service, head, self);
        self.is_kept(sent, persistence)
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
        let service = &self.connections.service;
        // From here on, a stop waits for the answer.
        if !self.connection.enter(State::Serving) {
            return false;
        }
        let answer = ready.render(service, grant, persistence, head_only);
        let sent = self.reader.source.send(&answer, service.info.write_timeout);
        self.is_kept(sent, persistence)
    }

    /// Returns `true` if the connection can have another answer after this one.
    fn is_kept(&self, sent: io::Result<()>, persistence: Persistence) -> bool {
        if let Err(error) = &sent {
            let (peer, stream) = (self.connection.peer, &self.connection.stream);
            log::debug!("an answer did not reach {peer:?}: {error}");
            // Else the system would keep what is left, and go on to offer it.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Both);
        }
        sent.is_ok() && persistence != Persistence::Close
    }
}
