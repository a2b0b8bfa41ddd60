//! One request, from tiny_http's to the answer written: [`serve`].

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::body::{self, Framing};
use super::connections::BadConnection;
use super::drain::{self, UnreadBody};
use super::head::{self, Treatment};
use super::response;
use super::workers::ReceiveToken;
use crate::server::answer::{Answer, ParkedPoll, Ready, Rendered};
use crate::server::cors::{self, Grant};
use crate::server::endpoints::{self, Exchange};
use crate::server::render::Persistence;
use crate::server::request::Request;
use crate::server::response::Response;
use crate::server::service::Service;

/// An answer of at most this many bytes fits into the system's buffer, unless the client has left others unread there.
const UNBLOCKED: usize = 8 * 1024;

/// A connection that tiny_http closes within this time after the answer is not offered for another request.
const LAST_MOMENT: Duration = Duration::from_secs(5);

/// Serves one request. Another thread may finish it.
pub(super) fn serve(shared: &Arc<Shared>, incoming: tiny_http::Request, token: &mut ReceiveToken) {
    let mut request = head::parse(&incoming, &shared.service.info.trusted_proxies);
    let mut exchange = TinyHttpExchange::new(shared, incoming, &request, token);
    // Reading a body that is on its way, or taking the rest of one off the connection, may wait for the client.
    if matches!(exchange.framing, Framing::Streamed(_) | Framing::Broken(_))
        && exchange.token.pass().is_err()
    {
        exchange.framing = Framing::Broken("the body was not read");
        return exchange.send_unread(Response::out_of_threads());
    }
    match shared.bad_connections.get(exchange.remote) {
        Some(BadConnection::NotReading) => return exchange.abandon(),
        Some(BadConnection::UnknownFraming) => {
            exchange.framing =
                Framing::Broken("an earlier request of this connection had no clear end");
        }
        None => {}
    }
    let answer = match exchange.framing {
        Framing::Broken(why) => {
            shared.service.broker.count_refused();
            Response::error(400, why).into()
        }
        _ => endpoints::answer(&shared.service, &mut request, &mut exchange),
    };
    // All else of the request is freed here, and not by the thread that waits: an allocator may keep the memory that a
    // thread frees for that thread.
    drop(request);
    match answer {
        Answer::Ready(ready) => exchange.send(ready),
        Answer::Parked(poll) => exchange.park(*poll),
    }
}

struct TinyHttpExchange<'a> {
    shared: &'a Arc<Shared>,
    incoming: tiny_http::Request,
    /// The peer of the connection.
    remote: Option<SocketAddr>,
    token: &'a mut ReceiveToken,
    framing: Framing,
    treatment: Treatment,
    form: AnswerForm,
}

impl Exchange for TinyHttpExchange<'_> {
    fn read_body(&mut self, max: usize) -> Result<Vec<u8>, Response> {
        let streamed = matches!(self.framing, Framing::Streamed(_));
        let receiving = streamed.then(|| self.token.receiving());
        let body = body::read(&mut self.incoming, &mut self.framing, self.treatment, max)?;
        drop(receiving);
        if streamed && self.shared.service.is_stopping() {
            return Err(Response::busy("the server is stopping; try again"));
        }
        Ok(body)
    }

    fn before_blocking(&mut self) -> Result<(), Response> {
        self.token.pass().map_err(|_| Response::out_of_threads())
    }
}

impl<'a> TinyHttpExchange<'a> {
    fn new(
        shared: &'a Arc<Shared>,
        incoming: tiny_http::Request,
        request: &Request,
        token: &'a mut ReceiveToken,
    ) -> Self {
        let treatment = Treatment::of(&incoming, request);
        TinyHttpExchange {
            shared,
            remote: incoming.remote_addr().copied(),
            incoming,
            token,
            framing: body::framing(request, treatment),
            treatment,
            form: AnswerForm {
                head_only: request.method() == "HEAD",
                persistence: head::persistence(request),
                idle_since: Instant::now(),
                grant: Grant::of(request, shared.service.info.cors.as_ref()),
            },
        }
    }

    fn send(mut self, ready: Ready) {
        self.settle_framing();
        match ready {
            // Before the whole body has been read, every answer is a refusal, and so a response.
            Ready::Response(response) if self.has_unread_body() => self.send_unread(response),
            ready => {
                let (shared, remote, form) = (self.shared.clone(), self.remote, self.form);
                // Before anything that might panic: a request that is dropped answers itself, and while a panic unwinds, a
                // second one there would end the process.
                let writer = self.incoming.into_writer();
                let answer = form.render(ready, &shared.service);
                if answer.len() <= UNBLOCKED {
                    return shared.write(writer, remote, &answer);
                }
                // It may wait for the client.
                self.token
                    .finish_elsewhere(move |_| shared.write(writer, remote, &answer));
            }
        }
    }

    /// Has another thread wait for the events of a poll and answer it.
    fn park(self, poll: ParkedPoll) {
        let TinyHttpExchange {
            shared,
            incoming,
            remote,
            token,
            form,
            ..
        } = self;
        let shared = shared.clone();
        let writer = incoming.into_writer();
        token.finish_elsewhere(move |may_wait| {
            let service = &shared.service;
            let ready = if may_wait {
                let waiter = poll.waiter().clone();
                shared.parked.during(remote, &waiter, || poll.wait(service))
            } else {
                poll.refuse_to_wait(service)
            };
            shared.write(writer, remote, &form.render(ready, service));
        });
    }

    /// Records a connection that can't be used any more. Called before the answer leaves, so that the connection's next
    /// request finds the record.
    fn settle_framing(&mut self) {
        // tiny_http does not look for the end of a chunked body.
        if self.framing == Framing::Streamed(None) {
            self.framing = Framing::Broken("the body was not read");
        }
        if matches!(self.framing, Framing::Broken(_)) {
            self.form.persistence = Persistence::Close;
            self.shared
                .bad_connections
                .add(self.remote, BadConnection::UnknownFraming);
        }
    }

    /// True where dropping the request would wait for the client to send the rest of its body.
    fn has_unread_body(&self) -> bool {
        match self.framing {
            Framing::Held | Framing::Read => false,
            Framing::Streamed(_) => true,
            Framing::Broken(_) => !self.treatment.is_held,
        }
    }

    /// Bytes of the body that tiny_http has not read, at most.
    fn rest(&self) -> usize {
        if self.has_unread_body() {
            self.incoming.body_length().unwrap_or(0)
        } else {
            0
        }
    }

    /// Drops a request whose client would not read the answer.
    fn abandon(self) {
        let rest = self.rest();
        if rest <= drain::SMALL {
            return drop(self.incoming.into_writer());
        }
        let time_limit = self.shared.service.info.write_timeout;
        let unread = UnreadBody::unanswered(self.incoming, rest, time_limit);
        self.shared.unread.add(unread);
    }

    /// Answers a request whose body has not been read.
    fn send_unread(mut self, response: Response) {
        let _receiving = self.token.receiving();
        self.settle_framing();
        let info = &self.shared.service.info;
        let response = cors::with_fields(response, info.cors.as_ref(), &self.form.grant);
        self.shared.service.traffic.count_answer(response.status);
        let rest = self.rest();
        let Treatment { has_te, .. } = self.treatment;
        if rest <= drain::SMALL && !has_te {
            return response::respond(self.incoming, &response);
        }
        let (remote, head_only) = (self.remote, self.form.head_only);
        let mut stream = response::upgrade(self.incoming, &response, head_only, has_te);
        if let Err(error) = stream.flush() {
            log::debug!("an answer did not reach {remote:?}: {error}");
        }
        let unread = UnreadBody::answered(stream, remote, rest, info.write_timeout);
        self.shared.unread.add(unread);
    }
}

/// What the form of an answer depends on besides its content.
struct AnswerForm {
    /// The request's method is HEAD.
    head_only: bool,
    /// Whether the connection can stay open, as its client asked for it.
    persistence: Persistence,
    /// When tiny_http began to wait for the connection's next request.
    idle_since: Instant,
    /// The origin of the page that may read the answer.
    grant: Grant,
}

impl AnswerForm {
    fn render(&self, ready: Ready, service: &Service) -> Rendered {
        ready.render(
            service,
            &self.grant,
            self.persistence_now(service),
            self.head_only,
        )
    }

    /// tiny_http itself closes only a connection whose client asked for it. In other cases the answer asks the client to
    /// close it: when the server stops, and where tiny_http has waited so long for the next request that it soon ends the
    /// connection.
    fn persistence_now(&self, service: &Service) -> Persistence {
        let idle_timeout = service.info.effective_idle_timeout();
        let closes_at = idle_timeout - LAST_MOMENT.min(idle_timeout / 2);
        if service.is_stopping() || self.idle_since.elapsed() >= closes_at {
            return Persistence::Close;
        }
        self.persistence
    }
}

impl Shared {
    /// Writes an answer, and records the connection where its client does not read.
    fn write(&self, writer: Box<dyn Write + Send>, remote: Option<SocketAddr>, answer: &[u8]) {
        if let Err(error) = response::write(writer, answer) {
            log::debug!("an answer did not reach {remote:?}: {error}");
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) {
                self.bad_connections.add(remote, BadConnection::NotReading);
            }
        }
    }
}
