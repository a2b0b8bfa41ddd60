//! [`Answer`]: what the endpoints make of a request, as a value that a backend finishes and sends.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cors::{self, Grant};
use super::poll_group::Member;
use super::poll_settings::TimeoutAnswer;
use super::render::{Persistence, render_json};
use super::response::Response;
use super::service::Service;
use crate::broker::{Batch, Parked, PresenceGuard, Waiter};
use crate::position::EventId;
use crate::wire;

/// What the endpoints make of a request.
pub(super) enum Answer {
    Ready(Ready),
    /// A poll that found no event. The backend waits, and then gets the answer.
    /// In a box: a poll is moved through several stack frames, and each of these stays resident while it is parked.
    Parked(Box<ParkedPoll>),
}

/// An answer that can be sent.
pub(super) enum Ready {
    Response(Response),
    /// The answer to a publish: the id of its event.
    Published(EventId),
    /// Events. Subscribers that share the batch share its rendered answer, too, unless they are pages of different origins.
    Batch(Arc<Batch>),
    /// Events for a poll whose timeout was the preference `wait`.
    PreferredBatch(Arc<Batch>, Duration),
}

impl From<Response> for Ready {
    fn from(response: Response) -> Self {
        Ready::Response(response)
    }
}

impl Answer {
    /// Keeps a client present while its poll is parked. From the end of the poll on, the client counts as one between polls.
    pub(super) fn with_presence(mut self, presence: Option<PresenceGuard>) -> Self {
        if let Answer::Parked(poll) = &mut self {
            poll.presence = presence;
        }
        self
    }
}

impl<T: Into<Ready>> From<T> for Answer {
    fn from(ready: T) -> Self {
        Answer::Ready(ready.into())
    }
}

/// A whole answer as bytes.
pub(super) enum Rendered {
    Own(Vec<u8>),
    /// Of a batch that other subscribers have, too.
    Shared(Arc<[u8]>),
}

impl Deref for Rendered {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Rendered::Own(bytes) => bytes,
            Rendered::Shared(bytes) => bytes,
        }
    }
}

impl Ready {
    /// The whole answer as bytes.
    pub(super) fn render(
        self,
        service: &Service,
        grant: &Grant,
        persistence: Persistence,
        head_only: bool,
    ) -> Rendered {
        self.count(service);
        let cors = service.info.cors.as_ref();
        let fields = cors::fields(cors, grant);
        let json =
            |json: &str, position| render_json(json, position, &fields, persistence, head_only);
        let events = |batch: &Batch| {
            let body = wire::PollBody::render(batch.events(), batch.gap());
            json(&body, batch.last_id())
        };
        match self {
            Ready::Batch(batch) if persistence == Persistence::Keep && !head_only => {
                Rendered::Shared(batch.rendered(&cors::variant(&fields), events))
            }
            Ready::Batch(batch) => Rendered::Own(events(&batch)),
            Ready::Published(id) => Rendered::Own(json(wire::PUBLISHED, id)),
            Ready::Response(response) => {
                let response = cors::with_fields(response, cors, grant);
                Rendered::Own(response.render(persistence, head_only))
            }
            Ready::PreferredBatch(batch, wait) => {
                let response = with_preference(batch_response(&batch), wait);
                let response = cors::with_fields(response, cors, grant);
                Rendered::Own(response.render(persistence, head_only))
            }
        }
    }

    /// The whole answer as a response, for another HTTP server to send.
    pub(super) fn into_response(self, service: &Service, grant: &Grant) -> Response {
        self.count(service);
        let response = match self {
            Ready::Batch(batch) => batch_response(&batch),
            Ready::PreferredBatch(batch, wait) => with_preference(batch_response(&batch), wait),
            Ready::Published(id) => Response::from_json(200, wire::PUBLISHED).with_position(id),
            Ready::Response(response) => response,
        };
        cors::with_fields(response, service.info.cors.as_ref(), grant).complete()
    }

    fn count(&self, service: &Service) {
        service.traffic.count_answer(match self {
            Ready::Batch(_) | Ready::PreferredBatch(..) | Ready::Published(_) => 200,
            Ready::Response(response) => response.status,
        });
    }
}

fn batch_response(batch: &Batch) -> Response {
    let json = wire::PollBody::render(batch.events(), batch.gap());
    Response::from_json(200, json).with_position(batch.last_id())
}

/// Adds the field by which an answer says that the server has applied the preference `wait`, and with how many seconds (RFC
/// 7240, section 3). The answer needs no `Vary`: no cache stores it.
fn with_preference(response: Response, wait: Duration) -> Response {
    response.with_default("Preference-Applied", &format!("wait={}", wait.as_secs()))
}

/// What the answer to a poll that found no event depends on.
pub(super) struct PollParams {
    pub(super) since_time: Option<u64>,
    pub(super) last_id: Option<EventId>,
    pub(super) deadline: Instant,
    /// The timeout, if the preference `wait` gave it.
    pub(super) preferred_wait: Option<Duration>,
}

impl PollParams {
    /// The answer to a poll that ended with this batch.
    pub(super) fn answer(&self, service: &Service, batch: Arc<Batch>) -> Ready {
        if !batch.events().is_empty() {
            return match self.preferred_wait {
                None => Ready::Batch(batch),
                Some(wait) => Ready::PreferredBatch(batch, wait),
            };
        }
        // The next events report the gap; until then, the client keeps its position.
        let keeps = batch.gap() && (self.last_id.is_some() || self.since_time.is_some());
        let position = if keeps {
            self.last_id
        } else {
            Some(batch.last_id())
        };
        self.timed_out(service, batch.before(), position).into()
    }

    /// The answer to a poll without events. `before` is the time at which the broker was searched: events that come later
    /// have greater timestamps. The answer never gives a time before the one that the client asked for.
    pub(super) fn timed_out(
        &self,
        service: &Service,
        before: u64,
        position: Option<EventId>,
    ) -> Response {
        let response = match service.info.timeout_answer {
            TimeoutAnswer::NoContent => Response::new(204),
            TimeoutAnswer::Golongpoll => {
                let timestamp = before.max(self.since_time.unwrap_or(0));
                Response::from_json(200, wire::PollBody::render_timeout(timestamp))
            }
        };
        let response = match position {
            Some(id) => response.with_position(id),
            None => response,
        };
        match self.preferred_wait {
            Some(wait) => with_preference(response, wait),
            None => response,
        }
    }
}

/// A poll that waits for events. The subscriber leaves when this is dropped.
pub(super) struct ParkedPoll {
    parked: Parked,
    params: PollParams,
    _member: Option<Member>,
    /// Dropped at the end of the poll.
    presence: Option<PresenceGuard>,
}

impl ParkedPoll {
    pub(super) fn new(service: &Service, parked: Parked, params: PollParams) -> Self {
        ParkedPoll {
            _member: service.enter_group(parked.waiter()),
            parked,
            params,
            presence: None,
        }
    }

    /// The handle by which another thread ends the wait when the client has hung up.
    pub(super) fn waiter(&self) -> &Arc<Waiter> {
        self.parked.waiter()
    }

    /// Blocks until events come or the deadline passes, and gives the answer.
    pub(super) fn wait(self, service: &Service) -> Ready {
        let batch = self.parked.wait(Some(self.params.deadline));
        self.params.answer(service, batch)
    }

    /// Gives the answer at once, for a backend without a thread that could wait: events that have come since the poll was
    /// parked, or 503.
    #[cfg(feature = "server")]
    pub(super) fn refuse_to_wait(self, service: &Service) -> Ready {
        let batch = self.parked.wait(Some(Instant::now()));
        if batch.events().is_empty() {
            service.broker.count_refused();
            return Response::out_of_threads().into();
        }
        self.params.answer(service, batch)
    }
}
