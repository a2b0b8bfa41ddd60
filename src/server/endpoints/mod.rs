//! The endpoints: polls, publishes and the fallback, from a [`Request`] to an [`Answer`].
//!
//! They know nothing of connections. A backend calls [`answer`] and gives them an [`Exchange`], by which they ask for the
//! request's body.

mod publish;
mod subscription;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use self::publish::publish;
use self::subscription::subscription;
use super::answer::Answer;
use super::cors;
use super::hooks::Handler;
use super::info::ServerInfo;
use super::monitoring::MonitoringEndpoint;
use super::request::Request;
use super::response::Response;
use super::service::Service;

/// How much larger than its data the body of a publish may be, in bytes: the category, escaped, and the members' names. Also
/// the most of a body that is of no use.
const ENVELOPE: usize = 8 * 1024;
/// The methods of endpoints that change nothing.
const READING: &str = "GET, HEAD, OPTIONS";

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

/// The most bytes that the body of a request to this endpoint may have. Most have no use for one.
pub(super) fn max_body_size(service: &Service, endpoint: Endpoint) -> usize {
    let max = service.broker.options().max_event_size;
    let of_event = max.saturating_add(ENVELOPE);
    let of_fallback = service.info.max_body_size;
    match endpoint {
        Endpoint::Publish => of_event,
        Endpoint::Fallback if service.info.fallback.is_some() => of_fallback.unwrap_or(of_event),
        _ => ENVELOPE,
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
    let max = max_body_size(service, endpoint);
    let checked = request.check();
    // A malformed request may have come without the token that a good one needs.
    let max = checked.as_ref().map_or(max.min(ENVELOPE), |()| max);
    let body = exchange.read_body(max)?;
    checked?;
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

// Not inlined, as the others: the thread of a parked poll would keep the stack that they need.
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
