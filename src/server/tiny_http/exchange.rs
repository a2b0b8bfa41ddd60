//! One request, from tiny_http's to the answer written: [`serve`].

use std::hint::black_box;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{Ordering::SeqCst, fence};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use super::Backend;
use super::connections::Peer;
use super::workers::ReceiveToken;
use crate::broker::Waiter;
use crate::server::answer::{Answer, ParkedPoll};
use crate::server::cors::Grant;
use crate::server::endpoints::{self, Exchange};
use crate::server::event_stream::{EventStream, StreamConnection};
use crate::server::head::BodyLength;
use crate::server::ready::{Ready, Rendered};
use crate::server::render::{Persistence, http_date};
use crate::server::request::Request;
use crate::server::response::Response;

/// Serves one request. Returns `false` if another worker finishes it. Its frame is not to be below the wait of a parked poll.
#[inline(never)]
pub(super) fn serve(incoming: tiny_http::Request, token: &mut ReceiveToken<'_>) -> bool {
    let service = &token.backend.service;
    let fields = incoming.headers().iter();
    let fields = fields.map(|field| (field.field.as_str().as_str(), field.value.as_str()));
    let (method, target) = (incoming.method().as_str(), incoming.url());
    let version = (incoming.http_version().0, incoming.http_version().1);
    let peer = incoming.remote_addr().copied();
    let proxies = &service.info.trusted_proxies;
    let mut request = Request::parse(method, target, version, fields.collect(), peer, proxies);
    let mut exchange = TinyHttpExchange::new(incoming, &request, token);
    // Reading a body that is on its way, or taking the rest of one off the connection, may wait for the client.
    if exchange.body != Ok(BodyLength::None) && exchange.token.pass().is_err() {
        service.broker.count_refused();
        return exchange.send(Response::out_of_threads().into());
    }
    let answer = match exchange.body {
        Ok(_) => endpoints::answer(service, &mut request, &mut exchange),
        Err(why) => {
            service.broker.count_refused();
            Response::error(400, why).into()
        }
    };
    // Freed here, and not by the thread that waits: an allocator may keep the memory that a thread frees for that thread.
    drop(request);
    match answer {
        Answer::Ready(ready) => exchange.send(ready),
        Answer::Parked(poll) => exchange.park(*poll),
        Answer::Stream(stream) => exchange.stream(stream),
    }
}

struct TinyHttpExchange<'a, 'b> {
    incoming: tiny_http::Request,
    token: &'a mut ReceiveToken<'b>,
    /// What of the body is still on its way: tiny_http itself reads up to 1024 bytes of known length. An error says why the
    /// end of the body is unknown, so that the connection can't be used any more.
    body: Result<BodyLength, &'static str>,
    /// Bytes that tiny_http takes off the connection if the request is dropped.
    unread: usize,
    in_flight: Option<Arc<()>>,
    /// The head has the field `TE`, over some values of which tiny_http panics when it answers.
    has_te: bool,
    form: AnswerForm,
}

/// What an answer depends on besides its content.
struct AnswerForm {
    peer: Peer,
    head_only: bool,
    /// Whether the connection can stay open, as its client asked for it.
    persistence: Persistence,
    /// When tiny_http began to wait for the connection's next request.
    idle_since: Instant,
    /// The origin of the page that may read the answer.
    grant: Grant,
}

impl Exchange for TinyHttpExchange<'_, '_> {
    fn read_body(&mut self, max: usize) -> Result<Vec<u8>, Response> {
        let was_received = self.body == Ok(BodyLength::None);
        let body = self.read_whole(max)?;
        (self.body, self.unread) = (Ok(BodyLength::None), 0);
        // A stop waits for the request from here on, and not for the rest of a body, which a client may never send.
        self.in_flight = Some(self.token.backend.in_flight.clone());
        fence(SeqCst);
        if !was_received && self.token.backend.service.is_stopping() {
            return Err(Response::busy("the server is stopping; try again"));
        }
        Ok(body)
    }

    fn before_blocking(&mut self) -> Result<(), Response> {
        self.token.pass().map_err(|_| Response::out_of_threads())
    }
}

impl<'a, 'b> TinyHttpExchange<'a, 'b> {
    fn new(
        incoming: tiny_http::Request,
        request: &Request,
        token: &'a mut ReceiveToken<'b>,
    ) -> Self {
        let peer = incoming.remote_addr().copied();
        // Where the first Connection field has this word anywhere, tiny_http leaves the body on the connection as it is, and
        // ends the connection after the request.
        let connection = request.header("Connection").unwrap_or("");
        let upgrades = connection.to_ascii_lowercase().contains("upgrade");
        let is_late = upgrades || request.header("Expect").is_some();
        let streams = |length| length > 1024 || length > 0 && is_late;
        let body = match request.fault().map_or_else(|| request.body_length(), Err) {
            _ if token.backend.connections.is_refused(peer) => {
                Err("an earlier request had no clear end, or its answer was not read")
            }
            Ok(BodyLength::Chunked) if upgrades => {
                Err("a chunked body with an offer of another protocol")
            }
            Ok(BodyLength::Known(length)) if !streams(length) => Ok(BodyLength::None),
            body => body,
        };
        let closes = upgrades.then_some(Persistence::Close);
        let persistence = closes.unwrap_or_else(|| request.persistence());
        let unread = incoming.body_length().filter(|length| streams(*length));
        let (head_only, idle_since) = (request.method() == "HEAD", Instant::now());
        let grant = Grant::of(request, token.backend.service.info.cors.as_ref());
        TinyHttpExchange {
            token,
            body,
            unread: unread.unwrap_or(0),
            incoming,
            in_flight: None,
            has_te: request.header("TE").is_some(),
            form: AnswerForm {
                peer,
                head_only,
                persistence,
                idle_since,
                grant,
            },
        }
    }

    /// Reads the whole body, of at most `max` bytes. It is refused before it is read where its length was announced.
    fn read_whole(&mut self, max: usize) -> Result<Vec<u8>, Response> {
        let announced = match self.body {
            Ok(BodyLength::Chunked) => None,
            Ok(BodyLength::Known(length)) => Some(length),
            _ => Some(self.incoming.body_length().unwrap_or(0)),
        };
        let too_large = || Err(Response::body_too_large(max));
        let limit = announced.unwrap_or(max.saturating_add(1));
        if announced > Some(max) {
            return too_large();
        }
        // The client is not to be asked for an empty body.
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut body = Vec::with_capacity(announced.unwrap_or(0).min(64 * 1024));
        let mut reader = self.incoming.as_reader().take(limit as u64);
        match reader.read_to_end(&mut body) {
            _ if body.len() > max => too_large(),
            Ok(length) if announced.is_none_or(|announced| announced == length) => Ok(body),
            _ => Err(Response::error(400, "the body is malformed, or cut off")),
        }
    }

    /// Sends an answer in one write, and so in as few packets as it fits into: tiny_http's `respond` would write head and
    /// body apart, and drop a `Connection` field.
    fn send(mut self, ready: Ready) -> bool {
        let backend = self.token.backend;
        if let Ok(BodyLength::Chunked) | Err(_) = self.body {
            // What follows may be the rest of the body (RFC 9112, section 11.2).
            self.form.persistence = Persistence::Close;
            backend.connections.refuse(self.form.peer);
        }
        let ready = match ready {
            // Before the whole body has been read, every answer is a refusal, and so a response.
            Ready::Response(response) if self.unread > 0 => return self.send_unread(response),
            ready => ready,
        };
        // Before anything that might panic: a request that is dropped answers itself, and while a panic unwinds, a second
        // one there would end the process.
        let writer = self.incoming.into_writer();
        let answer = self.form.render(ready, backend);
        // A larger one may wait for the client, where the system's buffer does not take it.
        if answer.len() > 8 * 1024 && self.token.pass().is_err() {
            log::debug!("no thread could be started to receive requests during a write");
        }
        self.form.write(writer, backend, &answer);
        true
    }

    /// Has another worker wait for the events of a poll and answer it.
    fn park(self, poll: ParkedPoll) -> bool {
        let (form, in_flight) = (self.form, self.in_flight);
        let backend = self.token.backend.clone();
        let writer = self.incoming.into_writer();
        self.token.finish(form.peer, move |may_wait| {
            let ready = if may_wait {
                backend.connections.park(form.peer, poll.waiter());
                poll.wait(&backend.service)
            } else {
                poll.refuse_to_wait(&backend.service)
            };
            form.write(writer, &backend, &form.render(ready, &backend));
            drop(in_flight);
        })
    }

    /// Has another worker send a stream until its end.
    fn stream(self, mut stream: Box<EventStream>) -> bool {
        let (form, in_flight) = (self.form, self.in_flight);
        let backend = self.token.backend.clone();
        let writer = self.incoming.into_writer();
        self.token.finish(form.peer, move |may_wait| {
            // tiny_http ends no connection that the client wants to keep.
            if !may_wait || stream.closes() && form.persistence != Persistence::Close {
                let park = |waiter: &_| backend.connections.park(form.peer, waiter);
                let ready = stream.finish_whole(&backend.service, may_wait, &park);
                form.write(writer, &backend, &form.render(ready, &backend));
            } else {
                let (head, end) = (stream.take_head(), stream.likely_end());
                let head = form.render_by(head, &backend, end).to_vec();
                let mut connection = WriterOfStream {
                    writer,
                    peer: form.peer,
                    backend: &backend,
                };
                let sent = stream.run(&backend.service, head, &mut connection);
                form.check(sent, &backend);
            }
            drop(in_flight);
        })
    }

    /// Answers a request whose body has not been read, and then reads it. tiny_http gives the connection with the body on
    /// it for a change of protocol alone, whose answer has no length, so the fields that frame the answer are part of the
    /// value of its first field, `Date`.
    ///
    /// tiny_http panics over some values of `TE`, unless the status is informational: there the answer comes after an
    /// informational one, which every client of HTTP/1.1 passes over (RFC 9110, section 15.2).
    fn send_unread(self, response: Response) -> bool {
        drop(self.in_flight);
        let service = &self.token.backend.service;
        let head_only = self.form.head_only;
        let response = Ready::from(response).into_response(service, &self.form.grant);
        let mut head = tiny_http::Response::empty(103);
        let mut answer = Vec::new();
        if self.has_te {
            answer = response.render(Persistence::Close, head_only);
        } else {
            let (date, length) = (http_date(SystemTime::now()), response.body.len());
            let framing = format!("{date}\r\nContent-Length: {length}\r\nConnection: close");
            head = tiny_http::Response::empty(response.status);
            for (name, value) in [("Date", &*framing)].into_iter().chain(response.fields()) {
                if let Ok(field) = tiny_http::Header::from_bytes(name, value) {
                    head.add_header(field);
                }
            }
            if !head_only {
                answer = response.body;
            }
        }
        let mut stream = self.incoming.upgrade("HTTP/1.1", head);
        if let Err(error) = stream.write_all(&answer).and_then(|()| stream.flush()) {
            log::debug!("an answer did not reach {:?}: {error}", self.form.peer);
        }
        discard(stream, self.unread);
        true
    }
}

/// Reads the rest of a refused body. Where the client does not send all of it, tiny_http allocates as much as is left: so
/// one large rest at a time, and only if there is memory for it and some more. Otherwise the connection is never dropped,
/// so that its thread and descriptors are lost.
fn discard(mut stream: Box<dyn tiny_http::ReadWrite + Send>, rest: usize) {
    static DISCARDING: Mutex<()> = Mutex::new(());
    if rest <= 64 * 1024 {
        return drop(stream);
    }
    let _discarding = DISCARDING.lock();
    // Without black_box the optimizer removes the allocation, and every one seems to succeed.
    let needed = black_box(rest.saturating_add(16 << 20));
    if black_box(Vec::<u8>::new())
        .try_reserve_exact(needed)
        .is_err()
    {
        log::warn!("a refused body of {rest} bytes, which no memory holds, costs its connection");
        return std::mem::forget(stream);
    }
    let _ = io::copy(&mut stream, &mut io::sink());
    drop(stream);
}

impl AnswerForm {
    /// tiny_http itself closes only a connection whose client asked for it. Otherwise the answer asks the client to close
    /// it: when the server stops, and where tiny_http has waited so long for the next request that it soon ends the
    /// connection.
    fn render(&self, ready: Ready, backend: &Backend) -> Rendered {
        self.render_by(ready, backend, Instant::now())
    }

    /// The same for an answer that may end as late as this.
    fn render_by(&self, ready: Ready, backend: &Backend, end: Instant) -> Rendered {
        let time = end.saturating_duration_since(self.idle_since);
        let is_late = time >= backend.listener.idle_timeout / 32 * 31;
        let closes = is_late || backend.service.is_stopping();
        let persistence = if closes {
            Persistence::Close
        } else {
            self.persistence
        };
        ready.render(&backend.service, &self.grant, persistence, self.head_only)
    }

    /// Writes an answer. A client that does not read it gets no other.
    fn write(&self, mut writer: Box<dyn Write + Send>, backend: &Backend, answer: &[u8]) {
        self.check(
            writer.write_all(answer).and_then(|()| writer.flush()),
            backend,
        );
    }

    fn check(&self, sent: io::Result<()>, backend: &Backend) {
        if let Err(error) = sent {
            log::debug!("an answer did not reach {:?}: {error}", self.peer);
            if let ErrorKind::WouldBlock | ErrorKind::TimedOut = error.kind() {
                backend.connections.refuse(self.peer);
            }
        }
    }
}

/// A connection that a stream is written to.
struct WriterOfStream<'a> {
    writer: Box<dyn Write + Send>,
    peer: Peer,
    backend: &'a Backend,
}

impl StreamConnection for WriterOfStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)?;
        self.writer.flush()
    }

    fn park(&mut self, waiter: &Arc<Waiter>) {
        self.backend.connections.park(self.peer, waiter);
    }

    fn unpark(&mut self) {}
}
