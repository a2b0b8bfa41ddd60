//! One request, from tiny_http's to the answer written: [`serve`].

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tiny_http::ReadWrite;

use super::Shared;
use super::connections::peer;
use super::workers::ReceiveToken;
use crate::server::answer::{Answer, ParkedPoll, Ready};
use crate::server::cors;
use crate::server::endpoints::{self, Exchange};
use crate::server::head::BodyLength;
use crate::server::render::{Persistence, http_date};
use crate::server::request::Request;
use crate::server::response::Response;

/// An answer of at most this many bytes fits into the system's buffer, unless the client has left others unread there.
const UNBLOCKED: usize = 8 * 1024;
/// A connection that tiny_http closes within this time after the answer is not offered for another request.
const LAST_MOMENT: Duration = Duration::from_secs(5);
/// Bytes of memory that must be left when tiny_http has allocated the rest of a body.
const HEADROOM: usize = 16 << 20;

/// Serves one request. Returns `false` if another worker finishes it.
pub(super) fn serve(incoming: tiny_http::Request, token: &mut ReceiveToken<'_>) -> bool {
    let service = &token.shared.service;
    let mut request = {
        let fields = incoming.headers().iter();
        let fields = fields.map(|field| (field.field.as_str().as_str(), field.value.as_str()));
        let (method, target) = (incoming.method().as_str(), incoming.url());
        let (version, peer) = (incoming.http_version(), incoming.remote_addr());
        let version = (version.0, version.1);
        let proxies = &service.info.trusted_proxies;
        Request::parse(
            method,
            target,
            version,
            fields.collect(),
            peer.copied(),
            proxies,
        )
    };
    let mut exchange = TinyHttpExchange::new(incoming, &request, token);
    // Reading a body that is on its way, or taking the rest of one off the connection, may wait for the client.
    if exchange.framing != Framing::Held && exchange.token.pass().is_err() {
        return exchange.send_unread(Response::out_of_threads());
    }
    let answer = match exchange.framing {
        Framing::Broken(why) => {
            service.broker.count_refused();
            Response::error(400, why).into()
        }
        _ => endpoints::answer(service, &mut request, &mut exchange),
    };
    // All else of the request is freed here, and not by the thread that waits: an allocator may keep the memory that a
    // thread frees for that thread.
    drop(request);
    match answer {
        Answer::Ready(ready) => exchange.send(ready),
        Answer::Parked(poll) => exchange.park(*poll),
    }
}

/// Where a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// There is none, or it has been read: tiny_http itself reads up to 1024 bytes of known length.
    Held,
    /// Still on its way: of this length in bytes, or chunked.
    Streamed(Option<usize>),
    /// Its end is unknown, for this reason. The connection can't be used any more.
    Broken(&'static str),
}

struct TinyHttpExchange<'a, 'b> {
    incoming: tiny_http::Request,
    peer: SocketAddr,
    token: &'a mut ReceiveToken<'b>,
    framing: Framing,
    /// Bytes that tiny_http takes off the connection if the request is dropped.
    unread: usize,
    /// The head has the field `TE`, over some values of which tiny_http panics when it answers.
    has_te: bool,
    in_flight: Option<InFlight>,
    form: AnswerForm,
}

/// What an answer's form depends on besides its content.
#[derive(Clone, Copy)]
struct AnswerForm {
    head_only: bool,
    /// Whether the connection can stay open, as its client asked for it.
    persistence: Persistence,
    /// When tiny_http began to wait for the connection's next request.
    idle_since: Instant,
}

/// A request in flight, until it is dropped.
struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, SeqCst);
    }
}

impl Exchange for TinyHttpExchange<'_, '_> {
    fn read_body(&mut self, max: usize) -> Result<Vec<u8>, Response> {
        let is_streamed = self.framing != Framing::Held;
        let body = self.read_whole(max);
        match (&body, self.framing) {
            (Ok(_), _) => (self.framing, self.unread) = (Framing::Held, 0),
            (Err(_), Framing::Streamed(None)) => {
                self.framing = Framing::Broken("the body was not read to its end");
            }
            (Err(_), _) => {}
        }
        // A stop waits for the request from here on, and not for the rest of a body, which a client may never send.
        self.token.shared.in_flight.fetch_add(1, SeqCst);
        self.in_flight = Some(InFlight(self.token.shared.clone()));
        if is_streamed && self.token.shared.service.is_stopping() {
            return body.and(Err(Response::busy("the server is stopping; try again")));
        }
        body
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
        // tiny_http looks for words in the first Connection field alone, and anywhere in it.
        let connection = request.header("Connection").unwrap_or("");
        let connection = connection.to_ascii_lowercase();
        let says = |word| connection.contains(word);
        // It leaves the body on a connection that is offered for another protocol as it is.
        let upgrades = says("upgrade");
        let ends = says("close") || upgrades || request.version < (1, 1) && !says("keep-alive");
        let persistence = if ends {
            Persistence::Close
        } else {
            request.persistence()
        };
        let unread = match incoming.body_length() {
            Some(length) if length > 1024 || request.header("Expect").is_some() => length,
            _ => 0,
        };
        let peer = peer(&incoming);
        let framing = match request.fault().map_or_else(|| request.body_length(), Err) {
            _ if token.shared.connections.is_refused(peer) => {
                Framing::Broken("an earlier request had no clear end, or its answer was not read")
            }
            Err(why) => Framing::Broken(why),
            Ok(BodyLength::Chunked) if upgrades => {
                Framing::Broken("a chunked body with an offer of another protocol")
            }
            Ok(BodyLength::Chunked) => Framing::Streamed(None),
            Ok(BodyLength::Known(length)) if unread > 0 || upgrades => {
                Framing::Streamed(Some(length))
            }
            Ok(_) => Framing::Held,
        };
        TinyHttpExchange {
            peer,
            token,
            framing,
            unread: if upgrades { 0 } else { unread },
            has_te: request.header("TE").is_some(),
            in_flight: None,
            form: AnswerForm {
                head_only: request.method() == "HEAD",
                persistence,
                idle_since: Instant::now(),
            },
            incoming,
        }
    }

    /// Reads the whole body, of at most `max` bytes.
    ///
    /// # Errors
    ///
    /// 413 for a longer one, before it is read where its length was announced; 400 for one that is cut off.
    fn read_whole(&mut self, max: usize) -> Result<Vec<u8>, Response> {
        let announced = match self.framing {
            Framing::Held => Some(self.incoming.body_length().unwrap_or(0)),
            Framing::Streamed(length) => length,
            Framing::Broken(_) => Some(0),
        };
        // No more than announced: where another protocol is offered, more may follow.
        let limit = announced.unwrap_or(max.saturating_add(1));
        let mut body = Vec::new();
        let mut read = Ok(0);
        if limit > 0 && announced <= Some(max) {
            body.reserve(limit.min(64 * 1024));
            let limit = u64::try_from(limit).unwrap_or(u64::MAX);
            read = self.incoming.as_reader().take(limit).read_to_end(&mut body);
        }
        if announced.unwrap_or(body.len()) > max {
            let message = format!("the body is too large: the limit is {max} bytes");
            return Err(Response::error(413, &message));
        }
        let why = match announced {
            Some(length) if body.len() != length => "the body is shorter than announced",
            None if read.is_err() => "the body's chunks are malformed, or cut off",
            _ => return Ok(body),
        };
        Err(Response::error(400, why))
    }

    /// Sends an answer in one write, and so in as few packets as it fits into: tiny_http's `respond` would write head and
    /// body apart, and drop a `Connection` field.
    fn send(mut self, ready: Ready) -> bool {
        self.settle_framing();
        match ready {
            // Before the whole body has been read, every answer is a refusal, and so a response.
            Ready::Response(response) if self.unread > 0 => return self.send_unread(response),
            ready => {
                let shared = self.token.shared;
                // Before anything that might panic: a request that is dropped answers itself, and while a panic unwinds, a
                // second one there would end the process.
                let writer = self.incoming.into_writer();
                let answer = self.form.render(ready, shared);
                // It may wait for the client.
                if answer.len() > UNBLOCKED && self.token.pass().is_err() {
                    log::debug!("no thread could be started to receive requests during a write");
                }
                shared.write(writer, self.peer, &answer);
            }
        }
        true
    }

    /// Has another thread wait for the events of a poll and answer it.
    fn park(self, poll: ParkedPoll) -> bool {
        let (shared, peer) = (self.token.shared.clone(), self.peer);
        let (form, in_flight) = (self.form, self.in_flight);
        let writer = self.incoming.into_writer();
        self.token.finish(peer, move |may_wait| {
            let ready = if may_wait {
                shared.connections.park(peer, poll.waiter());
                poll.wait(&shared.service)
            } else {
                poll.refuse_to_wait(&shared.service)
            };
            shared.write(writer, peer, &form.render(ready, &shared));
            drop(in_flight);
        })
    }

    /// Has the connection's later requests refused where the end of this one is unknown: they may be the rest of its body
    /// (RFC 9112, section 11.2). tiny_http does not look for the end of a chunked body. Called before the answer leaves.
    fn settle_framing(&mut self) {
        if let Framing::Streamed(None) | Framing::Broken(_) = self.framing {
            self.form.persistence = Persistence::Close;
            self.token.shared.connections.refuse(self.peer);
        }
    }

    /// Answers a request whose body has not been read, and then reads it. tiny_http gives the connection with the body on
    /// it for a change of protocol alone, whose answer has no length, so the fields that frame the answer are part of the
    /// value of its first field, `Date`.
    ///
    /// tiny_http panics over some values of `TE`, unless the status is informational: there the answer comes after an
    /// informational one, which every client of HTTP/1.1 passes over (RFC 9110, section 15.2).
    fn send_unread(mut self, response: Response) -> bool {
        self.in_flight = None;
        self.settle_framing();
        let origin = self.token.shared.service.info.cors_origin.as_deref();
        let response = cors::with_origin(response, origin);
        let mut head = tiny_http::Response::empty(if self.has_te { 103 } else { response.status });
        let rest = if self.has_te {
            response.render(Persistence::Close, self.form.head_only)
        } else {
            let date = http_date(SystemTime::now());
            let length = response.body.len();
            let framing = format!("{date}\r\nContent-Length: {length}\r\nConnection: close");
            let fields = [("Date", framing.as_str())]
                .into_iter()
                .chain(response.fields());
            let fields =
                fields.flat_map(|(name, value)| tiny_http::Header::from_bytes(name, value));
            fields.for_each(|field| head.add_header(field));
            if self.form.head_only {
                Vec::new()
            } else {
                response.body.clone()
            }
        };
        let mut stream = self.incoming.upgrade("HTTP/1.1", head);
        if let Err(error) = stream.write_all(&rest).and_then(|()| stream.flush()) {
            log::debug!("an answer did not reach {}: {error}", self.peer);
        }
        discard(stream, self.unread);
        true
    }
}

/// Reads the rest of a refused body, of this many bytes, and drops it. Where the client does not send all of it, tiny_http
/// allocates as much as is left: so one rest at a time, on a thread that keeps no memory, and only if there is memory for
/// it. Otherwise it is never dropped, and the connection's thread and descriptors are lost.
#[inline(never)]
fn discard(mut stream: Box<dyn ReadWrite + Send>, mut rest: usize) {
    static DROPPING: Mutex<()> = Mutex::new(());
    let mut piece = [0; 16 * 1024];
    while rest > 0 {
        match stream.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(length) => rest = rest.saturating_sub(length),
        }
    }
    if rest == 0 {
        return;
    }
    let _dropping = DROPPING.lock();
    // Without black_box the optimizer removes the allocation, and every one seems to succeed.
    let needed = black_box(rest.saturating_add(HEADROOM));
    if black_box(Vec::<u8>::new())
        .try_reserve_exact(needed)
        .is_err()
    {
        log::warn!("{rest} bytes that a client has announced and not sent are kept waiting for");
        return std::mem::forget(stream);
    }
    let dropped = thread::Builder::new().spawn(move || drop(stream));
    let _ = dropped.map(|thread| thread.join());
}

impl AnswerForm {
    /// tiny_http itself closes only a connection whose client asked for it. In other cases the answer asks the client to
    /// close it: when the server stops, and where tiny_http has waited so long for the next request that it soon ends the
    /// connection.
    fn render(&self, ready: Ready, shared: &Shared) -> Arc<[u8]> {
        let idle_timeout = shared.listener.idle_timeout;
        let closes_at = idle_timeout - LAST_MOMENT.min(idle_timeout / 2);
        let closes = shared.service.is_stopping() || self.idle_since.elapsed() >= closes_at;
        let persistence = if closes {
            Persistence::Close
        } else {
            self.persistence
        };
        ready.render(&shared.service, persistence, self.head_only)
    }
}

impl Shared {
    /// Writes an answer. A client that does not read it gets no other.
    fn write(&self, mut writer: Box<dyn Write + Send>, peer: SocketAddr, answer: &[u8]) {
        if let Err(error) = writer.write_all(answer).and_then(|()| writer.flush()) {
            log::debug!("an answer did not reach {peer}: {error}");
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) {
                self.connections.refuse(peer);
            }
        }
    }
}
