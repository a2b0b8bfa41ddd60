//! [`Endpoints`]: the endpoints without a server, for programs that have an HTTP server of their own.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::answer::Answer;
use super::cors::Grant;
use super::endpoints::{self, Endpoint, Exchange};
use super::info::ServerInfo;
use super::ready::Ready;
use super::request::Request;
use super::response::Response;
use super::service::Service;
use crate::broker::{Broker, Clock};
use crate::deadline::Deadline;
use crate::error::Error;

/// The endpoints of a [`Server`](crate::Server) without its connections: for programs that have a synchronous HTTP server
/// already, such as tiny_http, rouille or oxhttp. They are the code that `Server` runs, with the same hooks and answers.
/// Cloning gives another handle to the same endpoints.
///
/// ```
/// use std::time::Duration;
/// use long_polling::ServerInfo;
/// use long_polling::server::{Endpoints, Request};
///
/// let endpoints = Endpoints::new(ServerInfo::default())?;
///
/// // For each request that the program's server receives, in a thread that may block:
/// let request =
///     Request::new("POST", "/publish").with_body(r#"{"category":"c","data":"Hello"}"#);
/// let response = endpoints.answer(request);
/// // ... and send `response.status`, `response.headers` and `response.body`.
/// assert_eq!(
///     (response.status, &*response.body),
///     (200, &br#"{"success": true}"#[..])
/// );
///
/// let response = endpoints.answer(Request::new(
///     "GET",
///     "/events?category=c&timeout=60&since_time=1",
/// ));
/// assert_eq!(
///     response.headers.get("Content-Type"),
///     Some("application/json")
/// );
///
/// endpoints.stop(Duration::from_secs(10))?;
/// # Ok::<(), long_polling::Error>(())
/// ```
///
/// # What the program's server does
///
/// - It reads the body, at most [`max_body_size`](Endpoints::max_body_size) bytes, and passes on the header fields and the
///   client's address.
/// - It gives each request a thread that may block: a poll without events blocks for its timeout, which
///   [`ServerInfo::timeout`] limits. A pool of N threads has at most N parked polls, and then serves nothing else.
/// - It copies [`status`](Response::status), all of [`headers`](Response::headers) and [`body`](Response::body) into its own
///   response, and adds the fields that frame the message, such as `Content-Length`. The answer to HEAD has the body of the
///   answer to GET: tiny_http and rouille leave it out, and send its length. For a server that does not, such as oxhttp
///   0.3, the program clears the body.
/// - It calls [`stop`](Endpoints::stop) before it waits for its own threads.
///
/// # What differs from `Server`
///
/// - Settings of connections have no effect: [`address`](ServerInfo::address), [`listener`](ServerInfo::listener),
///   [`socket_mode`](ServerInfo::socket_mode), [`http_backend`](ServerInfo::http_backend),
///   [`max_connections`](ServerInfo::max_connections), [`on_failure`](ServerInfo::on_failure), and the timeouts but
///   [`timeout`](ServerInfo::timeout).
/// - Without [`hosts`](ServerInfo::hosts), every host passes: on which address the program listens is not known. A program that
///   listens on a loopback address should list its hosts.
/// - A client that hangs up during its poll is not noticed. Its poll stays parked, and keeps its thread, until the next event
///   or the timeout. With [`delete_after_first_retrieval`](crate::BrokerOptions::delete_after_first_retrieval), such a poll
///   retrieves an event that nobody receives: keep the timeout short, or use [`Server`](crate::Server), which notices.
/// - A poll that asks for Server-Sent Events (`Accept: text/event-stream`) gets a whole response, which ends with the events
///   that come first. Its `retry` has the browser's `EventSource` come back at once, so that it works as polls do.
/// - A handler of [`Handler::bearer_token`](crate::server::Handler::bearer_token) or
///   [`basic_auth`](crate::server::Handler::basic_auth) runs after the program has read the body.
#[derive(Clone)]
pub struct Endpoints(Arc<Shared>);

struct Shared {
    service: Service,
    /// The number of requests that are being answered.
    in_flight: Mutex<usize>,
    /// Notified when there are none any more.
    done: Condvar,
}

impl Endpoints {
    /// Creates endpoints with these settings. Their broker has the events of the settings' [`file`](ServerInfo::file) or
    /// [`store`](ServerInfo::store), or it is the [`shared_broker`](ServerInfo::shared_broker), which the program or another
    /// server has, too:
    ///
    /// ```
    /// use long_polling::server::{Endpoints, Request};
    /// use long_polling::{Broker, BrokerOptions, ServerInfo};
    ///
    /// let broker = Broker::new(BrokerOptions::new().events_per_category(1000))?;
    /// let endpoints = Endpoints::new(ServerInfo::default().shared_broker(broker.clone()))?;
    /// broker.publish("c", "Hello")?;
    /// let response = endpoints.answer(Request::new(
    ///     "GET",
    ///     "/events?category=c&timeout=1&since_time=1",
    /// ));
    /// assert_eq!(response.status, 200);
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Server::start`](crate::Server::start), except for [`Listen`](crate::ErrorKind::Listen).
    pub fn new(info: ServerInfo) -> Result<Self, Error> {
        info.check_endpoints()?;
        let broker = info.open_broker(Clock::System)?;
        Ok(Endpoints(Arc::new(Shared {
            service: Service::new(info, broker),
            in_flight: Mutex::new(0),
            done: Condvar::new(),
        })))
    }

    /// Answers a request at the path that it names: a poll, a publish, the metrics, the health check, or the
    /// [`fallback`](ServerInfo::fallback). Blocks while a poll is parked, and in hooks.
    ///
    /// The response is complete but for the fields that frame the message: its headers include those against caching and
    /// those for pages of another origin. Nothing that a client can send makes this panic; a panic in a hook is answered
    /// with 500.
    pub fn answer(&self, request: Request) -> Response {
        self.serve(None, request)
    }

    /// Answers a poll, whatever the path of the request: for programs with paths of their own, such as one for each user.
    ///
    /// ```
    /// use long_polling::ServerInfo;
    /// use long_polling::server::{Endpoints, Request};
    ///
    /// let endpoints = Endpoints::new(ServerInfo::default())?;
    /// let response = endpoints.subscribe(Request::new(
    ///     "GET",
    ///     "/users/7/inbox?category=user.7&timeout=0",
    /// ));
    /// assert_eq!(response.status, 204);
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn subscribe(&self, request: Request) -> Response {
        self.serve(Some(Endpoint::Subscription), request)
    }

    /// Answers a publish, whatever the path of the request.
    pub fn publish(&self, request: Request) -> Response {
        self.serve(Some(Endpoint::Publish), request)
    }

    /// Returns `true` if [`answer`](Endpoints::answer) has an endpoint at this path, percent-decoded: polls, publishes,
    /// metrics, health or the JavaScript client. At any other path, the fallback answers, or 404.
    pub fn serves(&self, path: &str) -> bool {
        Endpoint::at(&self.0.service.info, path) != Endpoint::Fallback
    }

    /// Returns the size of the largest body that an endpoint or the fallback accepts, in bytes. A larger one is answered with
    /// 413, so that a program need not read more than one byte past this.
    pub fn max_body_size(&self) -> usize {
        let of = |endpoint| endpoints::max_body_size(&self.0.service, endpoint);
        of(Endpoint::Publish).max(of(Endpoint::Fallback))
    }

    /// Returns the broker of the endpoints, for publishing and subscribing without HTTP, and for its statistics.
    pub fn broker(&self) -> &Broker {
        &self.0.service.broker
    }

    /// Stops the endpoints: answers parked polls at once, as if they had timed out, waits for requests in flight until the
    /// timeout, and then [stops the broker](Broker::stop). From its beginning on, publishes are answered with 503, and polls
    /// at once. May be called twice. A [shared broker](ServerInfo::shared_broker) is not stopped.
    ///
    /// # Errors
    ///
    /// [`StopTimeout`](crate::ErrorKind::StopTimeout) if requests were still in flight at the timeout, and those of
    /// [`Broker::stop`].
    pub fn stop(&self, timeout: Duration) -> Result<(), Error> {
        let Shared {
            service,
            in_flight,
            done,
        } = &*self.0;
        let deadline = Deadline::after(timeout);
        service.begin_stop();
        service.release_polls();
        let is_done = deadline.wait_while(done, &mut in_flight.lock(), |count| **count > 0);
        // The store is flushed even where requests took the whole timeout.
        let left = deadline.remaining().unwrap_or(timeout);
        service.stop_broker(left.max(Duration::from_secs(1)))?;
        match is_done {
            true => Ok(()),
            false => Err(service.still_in_flight(timeout)),
        }
    }

    /// Answers a request at this endpoint, or at the one of its path.
    fn serve(&self, endpoint: Option<Endpoint>, mut request: Request) -> Response {
        let _in_flight = InFlight::enter(&self.0);
        let service = &self.0.service;
        request.received(&service.info.trusted_proxies);
        let grant = Grant::of(&request, service.info.cors.as_ref());
        let answer = match request.fault() {
            Some(fault) => {
                service.broker.count_refused();
                Response::error(400, fault).into()
            }
            None => {
                let mut exchange = BufferedExchange(mem::take(&mut request.body));
                let endpoint =
                    endpoint.unwrap_or_else(|| Endpoint::at(&service.info, request.path()));
                endpoints::answer_at(service, endpoint, &mut request, &mut exchange)
            }
        };
        // While a poll is parked, nothing is kept of its request.
        drop(request);
        let ready: Ready = match answer {
            Answer::Ready(ready) => ready,
            Answer::Parked(poll) => poll.wait(service),
            Answer::Stream(stream) => stream.finish_whole(service, true, &|_| {}),
        };
        ready.into_response(service, &grant)
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = &self.0.service.info;
        f.debug_struct("Endpoints")
            .field("subscription_uri", &info.subscription_uri)
            .field("publish_uri", &info.publish_uri)
            .finish_non_exhaustive()
    }
}

/// A request whose body the program has read, in a thread that may block.
struct BufferedExchange(Vec<u8>);

impl Exchange for BufferedExchange {
    fn read_body(&mut self, max: usize) -> Result<Vec<u8>, Response> {
        if self.0.len() > max {
            return Err(Response::body_too_large(max));
        }
        Ok(mem::take(&mut self.0))
    }

    fn before_blocking(&mut self) -> Result<(), Response> {
        Ok(())
    }
}

/// Counts a request until this is dropped, also by a panic.
struct InFlight<'a>(&'a Shared);

impl<'a> InFlight<'a> {
    fn enter(shared: &'a Shared) -> Self {
        *shared.in_flight.lock() += 1;
        InFlight(shared)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut count = self.0.in_flight.lock();
        *count -= 1;
        if *count == 0 {
            self.0.done.notify_all();
        }
    }
}
