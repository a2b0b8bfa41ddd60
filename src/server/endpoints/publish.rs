//! The endpoint of publishes and purges.

use super::{Exchange, not_allowed, options, run};
use crate::error::Error;
use crate::server::answer::Answer;
use crate::server::publish_body::{self, Body};
use crate::server::ready::Ready;
use crate::server::request::Request;
use crate::server::response::Response;
use crate::server::service::Service;
use crate::wire::{
    IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED, IDEMPOTENCY_WINDOW, PUBLISHED, category_of_query,
    parse_key, render_published,
};

/// The methods of the endpoint for publishes.
const PUBLISH_METHODS: &str = "POST, DELETE, OPTIONS";

// Not inlined, as the next: the thread of a parked poll would keep the stack that they need.
#[inline(never)]
pub(super) fn publish(
    service: &Service,
    request: &mut Request,
    body: &[u8],
    exchange: &mut dyn Exchange,
) -> Result<Answer, Response> {
    match request.method() {
        "POST" | "DELETE" => {}
        "OPTIONS" => return Ok(publish_options(service, request).into()),
        _ => return Err(not_allowed(PUBLISH_METHODS)),
    }
    if service.is_stopping() {
        return Err(Response::busy("the server is stopping; try again"));
    }
    if request.method() == "DELETE" {
        return purge(service, request, exchange);
    }
    let key = idempotency_key(request)?;
    let published = publish_body::parse(body)?;
    for event in published.events() {
        let data = Some(event.data.get().to_owned());
        before_publish(service, request, &event.category, data, exchange)?;
    }
    // `answer` counts refusals, the broker's included.
    if let Some(key) = key {
        return publish_once(service, &key, &published, exchange);
    }
    before_acknowledged(service, exchange);
    let broker = &service.broker;
    Ok(match published {
        Body::One(event) => {
            let id = broker.publish_uncounted(&event.category, event.data, event.ttl)?;
            Ready::Published(id).into()
        }
        Body::Several(events) => {
            let ids = broker.publish_bodies(&events)?;
            let response = Response::from_json(200, render_published(&ids));
            match ids.last() {
                Some(last) => response.with_position(*last).into(),
                None => response.into(),
            }
        }
    })
}

/// Publishes with an idempotency key. The answer to a repetition is the first one with one field more.
#[inline(never)]
fn publish_once(
    service: &Service,
    key: &str,
    published: &Body<'_>,
    exchange: &mut dyn Exchange,
) -> Result<Answer, Response> {
    // Whatever the store is, the first publish with the key may be in flight.
    before_waiting(exchange);
    let broker = &service.broker;
    let (once, json) = match published {
        Body::One(event) => (broker.publish_body_once(key, event)?, PUBLISHED.to_owned()),
        Body::Several(events) => {
            let once = broker.publish_bodies_once(key, events)?;
            let json = render_published(&once.ids());
            (once, json)
        }
    };
    let response = Response::from_json(200, json).with_position(once.last);
    Ok(match once.is_repetition {
        true => response.with_header(IDEMPOTENCY_REPLAYED, "true").into(),
        false => response.into(),
    })
}

/// Reads the idempotency key of a publish.
///
/// # Errors
///
/// `InvalidRequest` for a key that can't be used, and for two fields.
fn idempotency_key(request: &Request) -> Result<Option<String>, Error> {
    let mut fields = request.headers().get_all(IDEMPOTENCY_KEY);
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(parse_key(value)?.into_owned())),
        _ => Err(Error::request(
            "Idempotency-Key twice: a publish has one key, also one of several events",
        )),
    }
}

/// Answers OPTIONS for publishes. A client learns by it whether the server knows idempotency keys, and for how long.
fn publish_options(service: &Service, request: &Request) -> Response {
    let response = options(service, request, PUBLISH_METHODS);
    match service.broker.idempotency_seconds() {
        0 => response,
        seconds => response.with_header(IDEMPOTENCY_WINDOW, &seconds.to_string()),
    }
}

#[inline(never)]
fn purge(
    service: &Service,
    request: &mut Request,
    exchange: &mut dyn Exchange,
) -> Result<Answer, Response> {
    let category = category_of_query(request.query())?;
    before_publish(service, request, &category, None, exchange)?;
    before_acknowledged(service, exchange);
    let position = service.broker.purge_uncounted(&category)?;
    Ok(Response::new(204).with_position(position).into())
}

/// Runs the hook of publishes for an event, or for a purge, unless it has run before the body was read.
fn before_publish(
    service: &Service,
    request: &mut Request,
    category: &str,
    data: Option<String>,
    exchange: &mut dyn Exchange,
) -> Result<(), Response> {
    match &service.info.before_publish {
        Some(handler) if !handler.is_authorization => {
            request.categories = category.into();
            request.data = data;
            run(service, handler, request, exchange)
        }
        _ => Ok(()),
    }
}

fn before_acknowledged(service: &Service, exchange: &mut dyn Exchange) {
    if service.broker.acknowledges() {
        before_waiting(exchange);
    }
}

fn before_waiting(exchange: &mut dyn Exchange) {
    if exchange.before_blocking().is_err() {
        log::debug!("no thread could be started to receive requests during the wait of a publish");
    }
}
