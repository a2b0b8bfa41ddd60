//! [`Ready`]: an answer that can be sent, and its rendering.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::cors::{self, Grant};
use super::render::{Framing, Persistence, render_json};
use super::response::Response;
use super::service::Service;
use crate::broker::Batch;
use crate::position::EventId;
use crate::wire;

/// An answer that can be sent.
pub(super) enum Ready {
    Response(Response),
    /// The answer to a publish: the id of its event.
    Published(EventId),
    /// Events. Subscribers that share the batch share its rendered answer, too, unless they are pages of different origins.
    Batch(Arc<Batch>),
    /// Events for a poll whose timeout was the preference `wait`.
    PreferredBatch(Arc<Batch>, Duration),
    /// The head of a stream of events, whose body comes piece by piece.
    StreamHead(Response, Framing),
}

impl From<Response> for Ready {
    fn from(response: Response) -> Self {
        Ready::Response(response)
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
            Ready::StreamHead(response, framing) => {
                let response = cors::with_fields(response, cors, grant);
                Rendered::Own(response.render_head(framing, persistence))
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
            Ready::Response(response) | Ready::StreamHead(response, _) => response,
        };
        cors::with_fields(response, service.info.cors.as_ref(), grant).complete()
    }

    fn count(&self, service: &Service) {
        service.traffic.count_answer(match self {
            Ready::Batch(_) | Ready::PreferredBatch(..) | Ready::Published(_) => 200,
            Ready::Response(response) | Ready::StreamHead(response, _) => response.status,
        });
    }
}

fn batch_response(batch: &Batch) -> Response {
    let json = wire::PollBody::render(batch.events(), batch.gap());
    Response::from_json(200, json).with_position(batch.last_id())
}

/// Adds the field by which an answer says that the server has applied the preference `wait`, and with how many seconds (RFC
/// 7240, section 3). The answer needs no `Vary`: no cache stores it.
pub(super) fn with_preference(response: Response, wait: Duration) -> Response {
    response.with_default("Preference-Applied", &format!("wait={}", wait.as_secs()))
}

/// The position that a client has after this batch. `None` where a client that gave a cursor keeps it: where the next events
/// report the gap, and where this node has not reached the time of the cursor.
pub(super) fn position_reached(batch: &Batch, has_cursor: bool) -> Option<EventId> {
    let keeps = batch.events().is_empty() && batch.gap() && has_cursor;
    (!keeps && !batch.is_put_off()).then_some(batch.last_id())
}
