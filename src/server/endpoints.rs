//! The endpoints: what a request asks for, whether it may, and the answer.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use tiny_http::Method;

use super::Inner;
use super::body::{self, Framing};
use super::crew::Turn;
use super::hooks::{Handler, Request};
use super::info::TimeoutAnswer;
use super::reply::{Persistence, Reply, send, send_before_body};
use crate::broker::{Batch, Look, Polled};
use crate::error::{Error, ErrorKind};
use crate::headers::Headers;
use crate::position::{Cursor, EventId};
use crate::wire::{Answer, PUBLISHED, SubscriptionRequest, check_category};

/// How much larger than its data the body of a publish may be: the category, escaped, and the members' names.
const ENVELOPE: usize = 8 * 1024;
/// How much earlier than asked for a poll times out, at most: the seed's client gives up at that very moment.
const EARLY: Duration = Duration::from_millis(200);

/// One request on its way to its answer.
struct Visit<'a> {
    server: &'a Inner,
    request: tiny_http::Request,
    turn: &'a mut Turn,
    arrived: Instant,
    path: String,
    query: String,
    framing: Framing,
}

/// What to send.
enum Outcome {
    Reply(Reply),
    /// The same answer for all who share the batch.
    Shared(Arc<Batch>),
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Outcome::Reply(reply)
    }
}

/// Answers a request.
pub(super) fn answer(server: &Inner, request: tiny_http::Request, turn: &mut Turn) {
    let arrived = Instant::now();
    let (path, query) = target(request.url());
    let framing = body::framing(&request);
    if matches!(framing, Framing::Streamed(_) | Framing::Broken(_)) {
        // Reading it, or letting it pass unread, may wait for the client.
        if turn.pass().is_err() {
            return Visit {
                server,
                request,
                turn,
                arrived,
                path,
                query,
                framing,
            }
            .send_unread(out_of_threads());
        }
    }
    let mut visit = Visit {
        server,
        request,
        turn,
        arrived,
        path,
        query,
        framing,
    };
    match visit.outcome() {
        Ok(outcome) => visit.send(outcome),
        Err(refusal) => {
            server.broker.count_refused();
            visit.send(refusal.into());
        }
    }
}

/// Path and query of a request's target, of either form that a server gets (RFC 9112, section 3.2): `/path?query` or
/// `http://host/path?query`. The path is decoded.
fn target(url: &str) -> (String, String) {
    let origin_form = url
        .split_once("://")
        .filter(|_| !url.starts_with('/'))
        .map(|(_, rest)| rest);
    let url = origin_form.map_or(url, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    (
        percent_decode_str(path).decode_utf8_lossy().into_owned(),
        query.to_owned(),
    )
}

fn out_of_threads() -> Reply {
    busy("no thread can be had to serve this; try again")
}

fn busy(message: &str) -> Reply {
    Reply::error(503, message).with("Retry-After", "1")
}

impl From<Error> for Reply {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidRequest => 400,
            ErrorKind::TooLarge => 413,
            ErrorKind::Stopped | ErrorKind::Busy => return busy(&error.to_string()),
            _ => 500,
        };
        Reply::error(status, &error.to_string())
    }
}

impl Visit<'_> {
    /// # Errors
    ///
    /// The answer that refuses.
    fn outcome(&mut self) -> Result<Outcome, Reply> {
        let info = &self.server.info;
        if let Framing::Broken(why) = self.framing {
            return Err(Reply::error(400, why));
        }
        if self.path == info.subscription_uri {
            self.subscription()
        } else if self.path == info.publish_uri {
            self.publish()
        } else {
            self.fallback()
        }
    }

    fn subscription(&mut self) -> Result<Outcome, Reply> {
        let head_only = match self.request.method() {
            Method::Get => false,
            Method::Head => true,
            Method::Options => return Ok(self.options("GET, HEAD, OPTIONS").into()),
            _ => return Err(not_allowed("GET, HEAD, OPTIONS")),
        };
        let info = &self.server.info;
        let asked = SubscriptionRequest::from_query(&self.query)?;
        asked.categories.check()?;
        if let Some(handler) = &info.handler_to_run_before_subscription {
            self.run(handler, |request| {
                request.categories = asked.categories.clone()
            })?;
        }
        let timeout = asked.timeout.min(info.timeout);
        let cursor = match (asked.last_id, asked.since_time) {
            (Some(id), Some(time)) => Cursor::LastIdOrSinceTime(id, time),
            (Some(id), None) => Cursor::LastId(id),
            (None, Some(time)) => Cursor::SinceTime(time),
            (None, None) => info.poll_without_cursor.into(),
        };
        let look = match (head_only, timeout.is_zero()) {
            (true, _) => Look::AndLeave,
            (false, true) => Look::Once,
            (false, false) => Look::AndPark,
        };
        let batch = match self.server.broker.poll(&asked.categories, cursor, look) {
            Ok(Polled::Ready(batch)) => batch,
            Ok(Polled::Parked(parked)) => {
                let may_wait = self.turn.pass().is_ok();
                let deadline = if may_wait {
                    self.arrived + timeout - (timeout / 20).min(EARLY)
                } else {
                    self.arrived
                };
                let (peers, remote) = (&self.server.parked, self.request.remote_addr().copied());
                let batch = peers.during(remote, &parked.waiter().clone(), || {
                    parked.wait(Some(deadline))
                });
                if !may_wait && batch.events().is_empty() {
                    return Err(out_of_threads());
                }
                batch
            }
            // Stopping, and the connection was kept from before: answered at once, and told to come back on a new one.
            Err(error) if error.kind() == ErrorKind::Stopped => {
                let batch = self
                    .server
                    .broker
                    .look_after_stop(&asked.categories, cursor);
                match batch {
                    Some(batch) => batch,
                    None => return Ok(self.timed_out(&asked, asked.last_id).into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        if batch.events().is_empty() {
            // A gap is told with the next events; until then, the client stays where it is.
            let position = if batch.gap() {
                asked.last_id
            } else {
                Some(batch.last_id())
            };
            return Ok(self.timed_out(&asked, position).into());
        }
        Ok(Outcome::Shared(batch))
    }

    fn timed_out(&self, asked: &SubscriptionRequest, position: Option<EventId>) -> Reply {
        let reply = match self.server.info.timeout_answer {
            TimeoutAnswer::NoContent => Reply::new(204),
            TimeoutAnswer::Golongpoll => Reply::json(
                200,
                Answer::render_timeout(self.server.broker.timeout_timestamp(asked.since_time)),
            ),
        };
        match position {
            Some(id) => reply.with_position(id),
            None => reply,
        }
    }

    fn publish(&mut self) -> Result<Outcome, Reply> {
        match self.request.method() {
            Method::Post => {}
            Method::Options => return Ok(self.options("POST, OPTIONS").into()),
            _ => return Err(not_allowed("POST, OPTIONS")),
        }
        let server = self.server;
        if server.stopping.load(Relaxed) {
            return Err(busy("the server is stopping; try again"));
        }
        let max = server
            .broker
            .options()
            .max_event_size
            .saturating_add(ENVELOPE);
        let body = self.read_body(max)?;
        let published = body::published(&body)?;
        check_category(&published.category)?;
        if let Some(handler) = &server.info.handler_to_run_before_publish {
            self.run(handler, |request| {
                request.categories = (&*published.category).into();
                request.data = Some(published.data.get().to_owned());
            })?;
        }
        // Refusals of the broker are counted by whoever refuses: here.
        let id = server
            .broker
            .publish_uncounted(&published.category, published.data)?;
        Ok(Reply::json(200, PUBLISHED).with_position(id).into())
    }

    fn fallback(&mut self) -> Result<Outcome, Reply> {
        let Some(fallback) = &self.server.info.fallback else {
            return Err(Reply::error(404, "not found"));
        };
        let body = self.read_body(self.server.broker.options().max_event_size)?;
        self.turn.pass().map_err(|_| out_of_threads())?;
        let mut request = self.seen();
        request.body = body;
        Ok(Reply::from(fallback.run_caught(&request)).into())
    }

    /// Answers OPTIONS, and with it a browser's question whether a page of another origin may go on.
    fn options(&self, methods: &str) -> Reply {
        let reply = Reply::new(204).with("Allow", methods);
        if self.server.info.cors_origin.is_none() {
            return reply;
        }
        let asked =
            header(&self.request, "Access-Control-Request-Headers").unwrap_or("Content-Type");
        reply
            .with("Access-Control-Allow-Methods", methods)
            .with("Access-Control-Allow-Headers", asked)
            .with("Access-Control-Max-Age", "7200")
    }

    /// Runs a handler of the embedding program's.
    fn run(&mut self, handler: &Handler, fill: impl FnOnce(&mut Request)) -> Result<(), Reply> {
        if !handler.quick {
            self.turn.pass().map_err(|_| out_of_threads())?;
        }
        let mut request = self.seen();
        fill(&mut request);
        handler.run_caught(&request).map_err(Reply::from)
    }

    /// The request as the embedding program sees it.
    fn seen(&self) -> Request {
        let fields = self.request.headers().iter();
        Request {
            method: self.request.method().to_string(),
            path: self.path.clone(),
            query: self.query.clone(),
            headers: fields
                .map(|field| (field.field.as_str().as_str(), field.value.as_str()))
                .collect::<Headers>(),
            remote_address: self
                .request
                .remote_addr()
                .map(|remote| (remote.ip().to_canonical(), remote.port()).into()),
            ..Request::default()
        }
    }

    /// # Errors
    ///
    /// 413 before anything is read where the announced length is over the limit; 400 for a body that is cut off.
    fn read_body(&mut self, max: usize) -> Result<Vec<u8>, Reply> {
        let body = body::read(&mut self.request, &self.framing, max)?;
        self.framing = Framing::Read;
        Ok(body)
    }

    fn send(self, outcome: Outcome) {
        let persistence = self.persistence();
        let head_only = *self.request.method() == Method::Head;
        let answer: Arc<[u8]> = match outcome {
            Outcome::Shared(batch) if persistence == Persistence::Keep && !head_only => batch
                .rendered(|batch| self.with_cors(events(batch)).render(persistence, head_only))
                .clone(),
            Outcome::Shared(batch) => self
                .with_cors(events(&batch))
                .render(persistence, head_only)
                .into(),
            Outcome::Reply(reply) if self.has_unread_body() => return self.send_unread(reply),
            Outcome::Reply(reply) => self.with_cors(reply).render(persistence, head_only).into(),
        };
        send(self.request, &answer);
    }

    /// True where dropping the request would wait for the client to send the rest of its body.
    fn has_unread_body(&self) -> bool {
        match self.framing {
            Framing::Held | Framing::Read => false,
            Framing::Streamed(_) => true,
            Framing::Broken(_) => !body::is_held(&self.request),
        }
    }

    /// Answers a request whose body has not been read.
    fn send_unread(self, reply: Reply) {
        let reply = self.with_cors(reply);
        // tiny_http drops such a body by reading it into one buffer of the size announced. One that can't be allocated
        // would end the process, so that request must never be dropped: it is answered as a change of protocol, and
        // what that leaves is forgotten, at the price of its connection's thread. The head that tiny_http writes for a
        // change of protocol has no length, so it is made an informational one, which every client of HTTP/1.1 passes
        // over (RFC 9110, section 15.2), and the answer comes after it.
        let announced = self.request.body_length().unwrap_or(0);
        // Without black_box the optimizer takes the allocation out, and all of them seem to succeed.
        let fits = black_box(Vec::<u8>::new())
            .try_reserve_exact(black_box(announced))
            .is_ok();
        if fits {
            send_before_body(self.request, &reply);
        } else {
            let answer = reply.render(Persistence::Close, *self.request.method() == Method::Head);
            let mut stream = self.request.upgrade("", tiny_http::Response::empty(103));
            if let Err(error) = stream.write_all(&answer).and_then(|()| stream.flush()) {
                log::debug!("the refusal of a body of {announced} bytes was not sent: {error}");
            }
            std::mem::forget(stream);
        }
    }

    fn with_cors(&self, reply: Reply) -> Reply {
        match &self.server.info.cors_origin {
            None => reply,
            Some(origin) => reply.with("Access-Control-Allow-Origin", origin).with(
                "Access-Control-Expose-Headers",
                "Last-Event-ID, Retry-After",
            ),
        }
    }

    /// tiny_http itself closes only a connection whose client asked for it; in other cases the client is asked to.
    fn persistence(&self) -> Persistence {
        let connection = header(&self.request, "Connection")
            .unwrap_or("")
            .to_ascii_lowercase();
        let said = |option: &str| connection.split(',').any(|said| said.trim() == option);
        let http_1_1 = *self.request.http_version() == (1, 1);
        if self.server.stopping.load(Relaxed)
            || matches!(self.framing, Framing::Broken(_))
            || said("close")
        {
            Persistence::Close
        } else if http_1_1 {
            Persistence::Keep
        } else if said("keep-alive") {
            Persistence::KeepAlive
        } else {
            Persistence::Close
        }
    }
}

fn events(batch: &Batch) -> Reply {
    Reply::json(200, Answer::render(batch.events(), batch.gap())).with_position(batch.last_id())
}

fn not_allowed(methods: &str) -> Reply {
    Reply::error(405, "method not allowed").with("Allow", methods)
}

pub(super) fn header<'a>(request: &'a tiny_http::Request, name: &'static str) -> Option<&'a str> {
    request
        .headers()
        .iter()
        .find(|field| field.field.equiv(name))
        .map(|field| field.value.as_str())
}
