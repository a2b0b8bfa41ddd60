//! The endpoints: polls, publishes and the fallback, from a [`Request`] to an [`Answer`].
//!
//! They know nothing of connections. A backend calls [`answer`] and gives them an [`Exchange`], by which they ask for the
//! request's body.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::answer::{Answer, ParkedPoll, PollParams};
use super::cors;
use super::event_stream::{self, EventStream};
use super::hooks::Handler;
use super::info::ServerInfo;
use super::monitoring::MonitoringEndpoint;
use super::poll_request::{self, PollRequest};
use super::publish_body::{self, Body};
use super::ready::Ready;
use super::request::Request;
use super::response::Response;
use super::service::Service;
use crate::broker::{PollMode, Polled};
use crate::error::{Error, ErrorKind};
use crate::wire::{
    Categories, IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED, IDEMPOTENCY_WINDOW, PUBLISHED,
    SubscriptionRequest, asks_for_info, category_of_query, parse_key, render_published,
};

/// How much larger than its data the body of a publish may be, in bytes: the category, escaped, and the members' names.
const ENVELOPE: usize = 8 * 1024;
/// The methods of endpoints that change nothing.
const READING: &str = "GET, HEAD, OPTIONS";
/// The most that a poll times out before the time that the client asked for: the Go package's client gives up at that very
/// moment.
const EARLY: Duration = Duration::from_millis(200);

/// The methods of the endpoint for publishes.
const PUBLISH_METHODS: &str = "POST, DELETE, OPTIONS";

/// The backend's side of one request, as far as the endpoints need it.
pub(super) trait Exchange {
    /// Reads the whole body, of at most `max` bytes. Called once at most.
    ///
    /// # Errors
    ///
    /// The answer that refuses: 413 for a longer body, 400 for one that is cut off or malformed, 503 where the server or
    /// the backend can't wait for it.
    fn read_body(&mut self, max: usize) -> Result<Vec<u8>, Response>;

    /// Says that the endpoint may block from here on: in a hook, or until the disk has the event.
    ///
    /// # Errors
    ///
    /// The answer that refuses, where blocking would keep the backend from serving other requests.
    fn before_blocking(&mut self) -> Result<(), Response>;
}

/// What answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Subscription,
    Publish,
    Metrics,
    Health,
    BrowserClient,
    Fallback,
}

impl Endpoint {
    /// The endpoint at this path.
    pub(super) fn at(info: &ServerInfo, path: &str) -> Self {
        let is = |endpoint: &Option<MonitoringEndpoint>| {
            endpoint.as_ref().is_some_and(|it| it.path == path)
        };
        if path == info.subscription_uri {
            Endpoint::Subscription
        } else if path == info.publish_uri {
            Endpoint::Publish
        } else if is(&info.metrics) {
            Endpoint::Metrics
        } else if is(&info.health) {
            Endpoint::Health
        } else if info
            .browser_client
            .as_ref()
            .is_some_and(|client| client.path == path)
        {
            Endpoint::BrowserClient
        } else {
            Endpoint::Fallback
        }
    }
}

/// The most bytes that the body of a request to this endpoint may have.
pub(super) fn max_body_size(service: &Service, endpoint: Endpoint) -> usize {
    let max = service.broker.options().max_event_size;
    let of_event = max.saturating_add(ENVELOPE);
    let of_fallback = service.info.max_body_size;
    match endpoint {
        Endpoint::Fallback => of_fallback.unwrap_or(of_event),
        _ => of_event,
    }
}

/// Answers a request whose head has no [`fault`](Request::fault).
pub(super) fn answer(
    service: &Service,
    request: &mut Request,
    exchange: &mut dyn Exchange,
) -> Answer {
    let endpoint = Endpoint::at(&service.info, request.path());
    answer_at(service, endpoint, request, exchange)
}

/// Answers a request at this endpoint, whatever its path is.
pub(super) fn answer_at(
    service: &Service,
    endpoint: Endpoint,
    request: &mut Request,
    exchange: &mut dyn Exchange,
) -> Answer {
    let arrived = Instant::now();
    let answered = catch_unwind(AssertUnwindSafe(|| {
        route(service, endpoint, request, exchange, arrived)
    }));
    answered
        .unwrap_or_else(|_| {
            // Handlers' panics are caught already: this is one of a store of the program's own.
            log::error!("serving {:?} panicked", request.path());
            Err(Response::error(500, "internal error"))
        })
        .unwrap_or_else(|refusal| {
            service.broker.count_refused();
            refusal.into()
        })
}

/// # Errors
///
/// The answer that refuses.
fn route(
    service: &Service,
    endpoint: Endpoint,
    request: &mut Request,
    exchange: &mut dyn Exchange,
    arrived: Instant,
) -> Result<Answer, Response> {
    let info = &service.info;
    check_before_body(service, endpoint, request)?;
    let body = exchange.read_body(max_body_size(service, endpoint))?;
    request.check()?;
    match endpoint {
        Endpoint::Subscription => subscription(service, request, exchange, arrived),
        Endpoint::Publish => publish(service, request, &body, exchange),
        Endpoint::Metrics => {
            let handler = info.before_metrics.as_ref();
            monitoring(service, &info.metrics, handler, request, exchange)
        }
        Endpoint::Health => monitoring(service, &info.health, None, request, exchange),
        Endpoint::BrowserClient => browser_client(service, request),
        Endpoint::Fallback => {
            request.body = body;
            fallback(service, request, exchange)
        }
    }
}

/// Refuses what the head alone decides, before the body is read: a foreign host, a publish by a foreign page, and one that the
/// handler of publishes refuses, where it does not depend on the body.
///
/// # Errors
///
/// The answer that refuses.
fn check_before_body(
    service: &Service,
    endpoint: Endpoint,
    request: &Request,
) -> Result<(), Response> {
    if request.check().is_err() {
        // It is refused for that once the body has been read.
        return Ok(());
    }
    service.hosts.check(request)?;
    if endpoint != Endpoint::Publish || !matches!(request.method(), "POST" | "DELETE") {
        return Ok(());
    }
    let info = &service.info;
    cors::check_publish(request, info.cors.as_ref())?;
    match &info.before_publish {
        Some(handler) if handler.is_authorization => handler.run_caught(request),
        _ => Ok(()),
    }
}

fn subscription(
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
    let info = service.broker.category_info(&category);
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

// Not inlined, as the next: the thread of a parked poll would keep the stack that they need.
#[inline(never)]
fn publish(
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

#[inline(never)]
fn monitoring(
    service: &Service,
    endpoint: &Option<MonitoringEndpoint>,
    handler: Option<&Handler>,
    request: &mut Request,
    exchange: &mut dyn Exchange,
) -> Result<Answer, Response> {
    match request.method() {
        "GET" | "HEAD" => {}
        "OPTIONS" => return Ok(options(service, request, READING).into()),
        _ => return Err(not_allowed(READING)),
    }
    let Some(endpoint) = endpoint else {
        return Err(Response::error(404, "not found"));
    };
    // The statistics of a store of the program's own may take their time.
    exchange.before_blocking()?;
    if let Some(handler) = handler {
        run(service, handler, request, exchange)?;
    }
    Ok((endpoint.answer)(&service.status(), request).into())
}

fn browser_client(service: &Service, request: &Request) -> Result<Answer, Response> {
    match (request.method(), &service.info.browser_client) {
        ("GET" | "HEAD", Some(client)) => Ok((client.answer)(request).into()),
        ("OPTIONS", _) => Ok(options(service, request, READING).into()),
        _ => Err(not_allowed(READING)),
    }
}

#[inline(never)]
fn fallback(
    service: &Service,
    request: &mut Request,
    exchange: &mut dyn Exchange,
) -> Result<Answer, Response> {
    if request.target == "*" {
        return Ok(options(service, request, "GET, HEAD, POST, DELETE, OPTIONS").into());
    }
    let info = &service.info;
    if let Some(cors) = info.cors.as_ref().filter(|cors| cors.is_preflight(request))
        && !info
            .fallback
            .as_ref()
            .is_some_and(|fallback| fallback.takes_preflight)
    {
        return Ok(cors::preflight(request, cors).into());
    }
    let Some(fallback) = &info.fallback else {
        return Err(Response::error(404, "not found"));
    };
    exchange.before_blocking()?;
    if request.method() == "HEAD" && !fallback.takes_head {
        // Rendering leaves out the body of the answer.
        request.method = "GET".into();
    }
    request.broker = Some(service.broker.clone());
    Ok(fallback.run_caught(request).into())
}

fn options(service: &Service, request: &Request, methods: &str) -> Response {
    cors::options(request, methods, service.info.cors.as_ref())
}

/// Runs a handler of the embedding program's.
fn run(
    service: &Service,
    handler: &Handler,
    request: &mut Request,
    exchange: &mut dyn Exchange,
) -> Result<(), Response> {
    if !handler.is_authorization {
        exchange.before_blocking()?;
        request.broker = Some(service.broker.clone());
    }
    handler.run_caught(request)
}

/// 405 for unknown methods as well, as the API promises, though RFC 9110, section 9.1, would rather have 501.
fn not_allowed(allowed: &str) -> Response {
    Response::error(405, "method not allowed").with_header("Allow", allowed)
}
