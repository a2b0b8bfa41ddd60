//! The endpoint of polls, of streams, and of what the server says of a category.

use std::time::{Duration, Instant};

use super::{Exchange, READING, not_allowed, options, run};
use crate::broker::{PollMode, Polled};
use crate::error::ErrorKind;
use crate::server::answer::{Answer, ParkedPoll, PollParams};
use crate::server::cors;
use crate::server::event_stream::{self, EventStream};
use crate::server::poll_request::{self, PollRequest};
use crate::server::request::Request;
use crate::server::response::Response;
use crate::server::service::Service;
use crate::wire::{Categories, SubscriptionRequest, asks_for_info, category_of_query};

/// The most that a poll times out before the time that the client asked for: the Go package's client gives up at that very
/// moment.
const EARLY: Duration = Duration::from_millis(200);

pub(super) fn subscription(
    service: &Service,
    request: &mut Request,
    exchange: &mut dyn Exchange,
    arrived: Instant,
) -> Result<Answer, Response> {
    let head_only = match request.method() {
        "GET" => false,
        "HEAD" => true,
        "OPTIONS" => return Ok(options(service, request, READING).into()),
        _ => return Err(not_allowed(READING)),
    };
    if asks_for_info(request.query())? {
        return category_info(service, request, exchange);
    }
    let info = &service.info;
    if !head_only && service.broker.deletes_retrieved() {
        cors::check_retrieval(request, info.cors.as_ref())?;
    }
    let is_stream = event_stream::is_asked_for(request);
    let asked = PollRequest::read(request, is_stream)?;
    asked.subscription.check()?;
    before_subscription(service, request, &asked.subscription.categories, exchange)?;
    if is_stream {
        let mut stream = EventStream::open(service, request, asked, arrived)?;
        return Ok(match head_only {
            true => stream.take_head().into(),
            false => Answer::Stream(stream),
        });
    }
    let PollRequest {
        subscription: poll,
        is_preference,
    } = asked;
    let timeout = poll.timeout.min(info.timeout);
    let mode = match (head_only, timeout.is_zero()) {
        (true, _) => PollMode::Peek,
        (false, true) => PollMode::NoWait,
        (false, false) => PollMode::Park,
    };
    let deadline = arrived + timeout - (timeout / 20).min(EARLY);
    let params = PollParams {
        since_time: poll.since_time,
        last_id: poll.last_id,
        deadline,
        preferred_wait: is_preference.then_some(timeout),
    };
    let answer = look_for_events(service, &poll, mode, params)?;
    if head_only {
        return Ok(answer);
    }
    // A hook's name takes precedence: it knows who the client is.
    let name = request.identity().or(poll.subscriber.as_deref());
    Ok(answer.with_presence(service.broker.enter(&poll.categories, name)))
}

fn before_subscription(
    service: &Service,
    request: &mut Request,
    categories: &Categories,
    exchange: &mut dyn Exchange,
) -> Result<(), Response> {
    match &service.info.before_subscription {
        Some(handler) => {
            request.categories = categories.clone();
            run(service, handler, request, exchange)
        }
        None => Ok(()),
    }
}

/// Answers a request with the parameter `info`, to GET and HEAD alike.
#[inline(never)]
fn category_info(
    service: &Service,
    request: &mut Request,
    exchange: &mut dyn Exchange,
) -> Result<Answer, Response> {
    let category = category_of_query(request.query())?;
    let categories = Categories::from(&*category);
    service.broker.check_categories(&categories)?;
    before_subscription(service, request, &categories, exchange)?;
    let info = service.broker.category_info(&category)?;
    let position = info.position;
    Ok(Response::json(200, &info).with_position(position).into())
}

fn look_for_events(
    service: &Service,
    poll: &SubscriptionRequest,
    mode: PollMode,
    params: PollParams,
) -> Result<Answer, Response> {
    let broker = &service.broker;
    let cursor = poll_request::cursor(poll, &service.info);
    let (categories, limit) = (&poll.categories, poll.limit);
    match broker.poll(categories, cursor, limit, mode) {
        Ok(Polled::Ready(batch)) => Ok(params.answer(service, batch).into()),
        Ok(Polled::Parked(parked)) => Ok(Answer::Parked(Box::new(ParkedPoll::new(
            service, parked, params,
        )))),
        // The server stops, and the client has kept its connection from before: it gets an answer at once, and comes back
        // on a new connection.
        Err(error) if error.kind() == ErrorKind::Stopped && service.is_stopping() => {
            Ok(match broker.look_after_stop(categories, cursor, limit) {
                Some(batch) => {
                    broker.count_answered(&batch);
                    params.answer(service, batch).into()
                }
                // The client keeps its position.
                None => {
                    let before = params.since_time.unwrap_or_else(|| broker.now());
                    params.timed_out(service, before, params.last_id).into()
                }
            })
        }
        Err(error) => Err(error.into()),
    }
}
