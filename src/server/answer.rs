//! [`Answer`]: what the endpoints make of a request, as a value that a backend finishes and sends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event_stream::EventStream;
use super::poll_group::Member;
use super::poll_settings::TimeoutAnswer;
use super::ready::{Ready, position_reached, with_preference};
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
    /// A stream of events. The backend writes its head, and runs it.
    Stream(Box<EventStream>),
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
        let has_cursor = self.last_id.is_some() || self.since_time.is_some();
        let position = position_reached(&batch, has_cursor).or(self.last_id);
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
