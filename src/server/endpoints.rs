//! The endpoints: what a request asks for, and whether it may. What becomes of it is in `answers`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use tiny_http::Method;

use super::Inner;
use super::answers::{Connection, Outcome, PollParams, busy, header, out_of_threads};
use super::hooks::{Handler, Request, client_address};
use super::reply::{Reply, send_before_body};
use super::tiny_http::body::{self, Framing};
use super::tiny_http::connections::BadConnection;
use super::tiny_http::drain::{self, UnreadBody};
use super::tiny_http::head;
use super::tiny_http::workers::ReceiveToken;
use crate::broker::{Parked, PollMode, Polled};
use crate::error::{Error, ErrorKind};
use crate::headers::Headers;
use crate::position::Cursor;
use crate::wire::{PUBLISHED, SubscriptionRequest, check_category};

/// How much larger than its data the body of a publish may be: the category, escaped, and the members' names.
const ENVELOPE: usize = 8 * 1024;
/// How much earlier than asked for a poll times out, at most: the Go package's client gives up at that very moment.
const EARLY: Duration = Duration::from_millis(200);

/// An answer of so many bytes fits into the system's buffer, unless the client has left others unread there.
const UNBLOCKED: usize = 8 * 1024;

/// One request on its way to its answer.
struct Exchange<'a> {
    server: &'a Arc<Inner>,
    request: tiny_http::Request,
    token: &'a mut ReceiveToken,
    arrived: Instant,
    path: String,
    query: String,
    framing: Framing,
}

/// How far a request is, when it has been looked at.
enum Step {
    Done(Outcome),
    /// A poll that found nothing.
    Park(Parked, PollParams),
}

impl<T: Into<Outcome>> From<T> for Step {
    fn from(done: T) -> Self {
        Step::Done(done.into())
    }
}

/// Answers a request.
pub(super) fn answer(server: &Arc<Inner>, request: tiny_http::Request, token: &mut ReceiveToken) {
    let arrived = Instant::now();
    let (path, query) = target(request.url());
    let framing = body::framing(&request);
    let mut visit = Exchange {
        server,
        request,
        token,
        arrived,
        path,
        query,
        framing,
    };
    // Reading a body that is on its way, or letting it pass unread, may wait for the client.
    if matches!(visit.framing, Framing::Streamed(_) | Framing::Broken(_))
        && visit.token.pass().is_err()
    {
        visit.framing = Framing::Broken("the body was not read");
        return visit.send_unread(out_of_threads());
    }
    if server
        .bad_connections
        .get(visit.request.remote_addr().copied())
        == Some(BadConnection::NotReading)
    {
        return visit.abandon();
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| visit.outcome())).unwrap_or_else(|_| {
        // A store of the program's own.
        log::error!("serving {:?} panicked", visit.path);
        Err(Reply::error(500, "internal error"))
    });
    match outcome {
        Ok(Step::Done(outcome)) => visit.send(outcome),
        Ok(Step::Park(parked, asked)) => visit.park(parked, asked),
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
    // The path of a URL may be empty: `http://host?query`.
    let url = origin_form.map_or(url, |rest| {
        rest.find(['/', '?']).map_or("/", |at| &rest[at..])
    });
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let path = if path.is_empty() { "/" } else { path };
    (
        percent_decode_str(path).decode_utf8_lossy().into_owned(),
        query.to_owned(),
    )
}

impl From<Error> for Reply {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidRequest => 400,
            ErrorKind::TooLarge => 413,
            ErrorKind::Stopped | ErrorKind::Busy => return busy(&error.report().to_string()),
            _ => 500,
        };
        Reply::error(status, &error.report().to_string())
    }
}

impl Exchange<'_> {
    /// # Errors
    ///
    /// The answer that refuses.
    fn outcome(&mut self) -> Result<Step, Reply> {
        let info = &self.server.info;
        let remote = self.request.remote_addr().copied();
        if self.server.bad_connections.get(remote).is_some() {
            self.framing =
                Framing::Broken("an earlier request of this connection had no clear end");
        }
        if let Framing::Broken(why) = self.framing {
            return Err(Reply::error(400, why));
        }
        let max = self
            .server
            .broker
            .options()
            .max_event_size
            .saturating_add(ENVELOPE);
        let body = self.receive_body(max)?;
        head::check(&self.request)?;
        if self.path == info.subscription_uri {
            self.subscription()
        } else if self.path == info.publish_uri {
            self.publish(&body)
        } else {
            self.fallback(body)
        }
    }

    /// # Errors
    ///
    /// Those of [`body::read`], and 503 where the server stopped before the body was there.
    fn receive_body(&mut self, max: usize) -> Result<Vec<u8>, Reply> {
        let streamed = matches!(self.framing, Framing::Streamed(_));
        let receiving = streamed.then(|| self.token.receiving());
        let body = body::read(&mut self.request, &mut self.framing, max)?;
        drop(receiving);
        if streamed && self.server.stopping.load(Relaxed) {
            return Err(busy("the server is stopping; try again"));
        }
        Ok(body)
    }

    fn subscription(&mut self) -> Result<Step, Reply> {
        let head_only = match self.request.method() {
            Method::Get => false,
            Method::Head => true,
            Method::Options => return Ok(self.options("GET, HEAD, OPTIONS").into()),
            _ => return Err(not_allowed("GET, HEAD, OPTIONS")),
        };
        let info = &self.server.info;
        let asked = SubscriptionRequest::from_query(&self.query)?;
        asked.categories.check()?;
        if let Some(handler) = &info.before_subscription {
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
            (true, _) => PollMode::Peek,
            (false, true) => PollMode::NoWait,
            (false, false) => PollMode::Park,
        };
        let deadline = self.arrived + timeout - (timeout / 20).min(EARLY);
        let kept = PollParams {
            since_time: asked.since_time,
            last_id: asked.last_id,
            deadline,
        };
        let (categories, limit) = (&asked.categories, asked.limit);
        match self.server.broker.poll(categories, cursor, limit, look) {
            Ok(Polled::Ready(batch)) => Ok(self.server.polled(batch, &kept).into()),
            Ok(Polled::Parked(parked)) => Ok(Step::Park(parked, kept)),
            // Stopping, and the connection was kept from before: answered at once, and told to come back on a new one.
            Err(error) if error.kind() == ErrorKind::Stopped => {
                let broker = &self.server.broker;
                Ok(match broker.look_after_stop(categories, cursor, limit) {
                    Some(batch) => self.server.polled(batch, &kept).into(),
                    // The client stays where it is.
                    None => {
                        let before = kept.since_time.unwrap_or_else(|| broker.now());
                        self.server.timed_out(&kept, before, kept.last_id).into()
                    }
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn publish(&mut self, body: &[u8]) -> Result<Step, Reply> {
        match self.request.method() {
            Method::Post => {}
            Method::Options => return Ok(self.options("POST, OPTIONS").into()),
            _ => return Err(not_allowed("POST, OPTIONS")),
        }
        let server = self.server;
        if server.stopping.load(Relaxed) {
            return Err(busy("the server is stopping; try again"));
        }
        let published = body::published(body)?;
        check_category(&published.category)?;
        if let Some(handler) = &server.info.before_publish {
            self.run(handler, |request| {
                request.categories = (&*published.category).into();
                request.data = Some(published.data.get().to_owned());
            })?;
        }
        if server.broker.acknowledges() && self.token.pass().is_err() {
            log::debug!("no thread can be had to receive requests while the disk is waited for");
        }
        // Refusals of the broker are counted by whoever refuses: here.
        let id = server
            .broker
            .publish_uncounted(&published.category, published.data)?;
        Ok(Reply::json(200, PUBLISHED).with_position(id).into())
    }

    fn fallback(&mut self, body: Vec<u8>) -> Result<Step, Reply> {
        if self.request.url() == "*" {
            return Ok(self.options("GET, HEAD, POST, OPTIONS").into());
        }
        let Some(fallback) = &self.server.info.fallback else {
            return Err(Reply::error(404, "not found"));
        };
        self.token.pass().map_err(|_| out_of_threads())?;
        let mut request = self.seen();
        request.body = body;
        if *self.request.method() == Method::Head && !fallback.takes_head {
            // The body of the answer is left out when it is rendered.
            request.method = "GET".into();
        }
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
            self.token.pass().map_err(|_| out_of_threads())?;
        }
        let mut request = self.seen();
        fill(&mut request);
        handler.run_caught(&request).map_err(Reply::from)
    }

    /// The request as the embedding program sees it.
    fn seen(&self) -> Request {
        let fields = self.request.headers().iter();
        let headers: Headers = fields
            .map(|field| (field.field.as_str().as_str(), field.value.as_str()))
            .collect();
        let proxies = &self.server.info.trusted_proxies;
        Request {
            method: self.request.method().to_string(),
            path: self.path.clone(),
            query: self.query.clone(),
            remote_address: self
                .request
                .remote_addr()
                .map(|remote| client_address(*remote, &headers, proxies)),
            headers,
            ..Request::default()
        }
    }

    fn send(self, outcome: Outcome) {
        self.mark_if_broken();
        match outcome {
            // Whatever is done before the whole body has been read is a refusal, and so a reply.
            Outcome::Reply(reply) if self.has_unread_body() => self.send_unread(reply),
            outcome => {
                let connection = self.connection();
                let (server, remote) = (self.server.clone(), self.request.remote_addr().copied());
                // Before anything that might panic: a request that is dropped answers itself, and while a panic unwinds, a
                // second one there would end the process.
                let writer = self.request.into_writer();
                let answer = server.render(outcome, &connection);
                if answer.len() <= UNBLOCKED {
                    return server.send(writer, remote, &answer);
                }
                // It may wait for the client.
                self.token
                    .finish_elsewhere(move |_| server.send(writer, remote, &answer));
            }
        }
    }

    fn connection(&self) -> Connection {
        let clear = !matches!(self.framing, Framing::Broken(_));
        Connection::of(&self.request, clear, self.arrived)
    }

    /// Has the request answered when there is something for it.
    fn park(self, parked: Parked, asked: PollParams) {
        let connection = self.connection();
        let Exchange {
            server,
            request,
            token,
            ..
        } = self;
        let (server, remote) = (server.clone(), request.remote_addr().copied());
        // All else of the request is let go of, and that here: what a thread frees before it waits, its allocator may
        // keep for it.
        let writer = request.into_writer();
        token.finish_elsewhere(move |may_wait| {
            let outcome = server.wait(parked, &asked, remote, may_wait);
            server.send(writer, remote, &server.render(outcome, &connection));
        });
    }

    /// To be called before the answer leaves: then the next request of the connection finds it so.
    fn mark_if_broken(&self) {
        if matches!(self.framing, Framing::Broken(_)) {
            self.server.bad_connections.add(
                self.request.remote_addr().copied(),
                BadConnection::UnknownFraming,
            );
        }
    }

    /// True where dropping the request would wait for the client to send the rest of its body.
    fn has_unread_body(&self) -> bool {
        match self.framing {
            Framing::Held | Framing::Read => false,
            Framing::Streamed(_) => true,
            Framing::Broken(_) => !body::is_held(&self.request),
        }
    }

    /// Bytes of the body that tiny_http has not read, at most.
    fn rest(&self) -> usize {
        if self.has_unread_body() {
            self.request.body_length().unwrap_or(0)
        } else {
            0
        }
    }

    /// Drops a request whose client would not read the answer.
    fn abandon(self) {
        let rest = self.rest();
        if rest <= drain::SMALL {
            return drop(self.request.into_writer());
        }
        let time_limit = self.server.info.write_timeout;
        let unread = UnreadBody::unanswered(self.request, rest, time_limit);
        self.server.unread.add(unread);
    }

    /// Answers a request whose body has not been read.
    fn send_unread(self, reply: Reply) {
        let _receiving = self.token.receiving();
        self.mark_if_broken();
        let reply = self.server.with_cors(reply);
        let rest = self.rest();
        // tiny_http's own way to answer panics over some values of `TE`.
        if rest <= drain::SMALL && header(&self.request, "TE").is_none() {
            return send_before_body(self.request, &reply);
        }
        let time_limit = self.server.info.write_timeout;
        let unread = UnreadBody::answer(self.request, &reply, rest, time_limit);
        self.server.unread.add(unread);
    }
}

/// 405 for unknown methods as well, as the API promises, though RFC 9110, section 9.1, would rather have 501.
fn not_allowed(allowed: &str) -> Reply {
    Reply::error(405, "method not allowed").with("Allow", allowed)
}
