//! Answers: what a request has come to, rendered for the connection that it came on, and sent.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tiny_http::Method;

use super::Inner;
use super::info::TimeoutAnswer;
use super::reply::{Persistence, Reply, send};
use super::tiny_http::body;
use super::tiny_http::connections::BadConnection;
use crate::broker::{Batch, Parked};
use crate::position::EventId;
use crate::wire::Answer;

/// A connection that would be closed so soon after the answer is not offered for another request.
const LAST_MOMENT: Duration = Duration::from_secs(5);

/// What to send.
pub(super) enum Outcome {
    Reply(Reply),
    /// The same answer for all who share the batch.
    Shared(Arc<Batch>),
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Outcome::Reply(reply)
    }
}

/// What a poll that found nothing will need to know.
pub(super) struct PollParams {
    pub(super) since_time: Option<u64>,
    pub(super) last_id: Option<EventId>,
    pub(super) deadline: Instant,
}

pub(super) fn out_of_threads() -> Reply {
    busy("no thread can be had to serve this; try again")
}

pub(super) fn busy(message: &str) -> Reply {
    Reply::error(503, message).with("Retry-After", "1")
}

impl Inner {
    /// Waits until a parked poll has something to be answered with.
    pub(super) fn wait(
        &self,
        parked: Parked,
        asked: &PollParams,
        remote: Option<SocketAddr>,
        may_wait: bool,
    ) -> Outcome {
        let deadline = if may_wait {
            asked.deadline
        } else {
            Instant::now()
        };
        let waiter = parked.waiter().clone();
        let batch = self
            .parked
            .during(remote, &waiter, || parked.wait(Some(deadline)));
        if !may_wait && batch.events().is_empty() {
            self.broker.count_refused();
            return out_of_threads().into();
        }
        self.polled(batch, asked)
    }

    pub(super) fn polled(&self, batch: Arc<Batch>, asked: &PollParams) -> Outcome {
        if !batch.events().is_empty() {
            return Outcome::Shared(batch);
        }
        // A gap is told with the next events; until then, the client stays where it is.
        let position = if batch.gap() {
            asked.last_id
        } else {
            Some(batch.last_id())
        };
        self.timed_out(asked, batch.before(), position).into()
    }

    /// `before` is when the broker was looked at; nobody is sent back behind the time that was asked for.
    pub(super) fn timed_out(
        &self,
        asked: &PollParams,
        before: u64,
        position: Option<EventId>,
    ) -> Reply {
        let reply = match self.info.timeout_answer {
            TimeoutAnswer::NoContent => Reply::new(204),
            TimeoutAnswer::Golongpoll => Reply::json(
                200,
                Answer::render_timeout(before.max(asked.since_time.unwrap_or(0))),
            ),
        };
        match position {
            Some(id) => reply.with_position(id),
            None => reply,
        }
    }

    pub(super) fn render(&self, outcome: Outcome, connection: &Connection) -> Arc<[u8]> {
        let persistence = connection.persistence(self);
        let head_only = connection.head_only;
        match outcome {
            Outcome::Shared(batch) if persistence == Persistence::Keep && !head_only => {
                let render =
                    |batch: &Batch| self.with_cors(events(batch)).render(persistence, head_only);
                batch.rendered(render).clone()
            }
            Outcome::Shared(batch) => self
                .with_cors(events(&batch))
                .render(persistence, head_only)
                .into(),
            Outcome::Reply(reply) => self.with_cors(reply).render(persistence, head_only).into(),
        }
    }

    pub(super) fn send(
        &self,
        writer: Box<dyn Write + Send>,
        remote: Option<SocketAddr>,
        answer: &[u8],
    ) {
        if let Err(error) = send(writer, answer) {
            log::debug!("an answer did not reach {remote:?}: {error}");
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) {
                self.bad_connections.add(remote, BadConnection::NotReading);
            }
        }
    }

    pub(super) fn with_cors(&self, reply: Reply) -> Reply {
        match &self.info.cors_origin {
            None => reply,
            Some(origin) => reply
                .with_default("Access-Control-Allow-Origin", origin)
                .with_default(
                    "Access-Control-Expose-Headers",
                    "Last-Event-ID, Retry-After",
                ),
        }
    }
}

/// What an answer has to know of the connection that it goes out on.
pub(super) struct Connection {
    head_only: bool,
    /// As its client asked for it.
    persistence: Persistence,
    /// When tiny_http began to wait for the next request.
    idle_since: Instant,
}

impl Connection {
    /// `clear` is false where the end of its request is not known; `arrived` is when the request was there.
    pub(super) fn of(request: &tiny_http::Request, clear: bool, arrived: Instant) -> Self {
        let said = |option: &str| {
            let fields = request.headers().iter();
            fields
                .filter(|field| field.field.equiv("Connection"))
                .flat_map(|field| field.value.as_str().split(','))
                .any(|said| said.trim().eq_ignore_ascii_case(option))
        };
        // tiny_http looks for words in the first field alone, and anywhere in it.
        let first = header(request, "Connection")
            .unwrap_or("")
            .to_ascii_lowercase();
        let ends = first.contains("close") || body::is_upgrade(request);
        let persistence = if !clear || ends || said("close") {
            Persistence::Close
        } else if *request.http_version() == (1, 1) {
            Persistence::Keep
        } else if first.contains("keep-alive") && said("keep-alive") {
            Persistence::KeepAlive
        } else {
            Persistence::Close
        };
        Connection {
            head_only: *request.method() == Method::Head,
            persistence,
            idle_since: arrived,
        }
    }

    /// tiny_http itself closes only a connection whose client asked for it; in other cases the client is asked to: when
    /// the server stops, and where tiny_http has waited so long for the next request that it ends the connection.
    fn persistence(&self, server: &Inner) -> Persistence {
        let idle_timeout = server.info.effective_idle_timeout();
        let soon_over = idle_timeout - LAST_MOMENT.min(idle_timeout / 2);
        if server.stopping.load(Relaxed) || self.idle_since.elapsed() >= soon_over {
            return Persistence::Close;
        }
        self.persistence
    }
}

fn events(batch: &Batch) -> Reply {
    Reply::json(200, Answer::render(batch.events(), batch.gap())).with_position(batch.last_id())
}

pub(super) fn header<'a>(request: &'a tiny_http::Request, name: &'static str) -> Option<&'a str> {
    request
        .headers()
        .iter()
        .find(|field| field.field.equiv(name))
        .map(|field| field.value.as_str())
}
