//! The blocking client: one call to [`subscription`] or [`publish`], and [`Subscriber`] and [`Publisher`] over them.

mod backoff;
mod credentials;
mod endpoint;
mod exchange;
mod failure;
mod progress;
mod proxy;
mod publisher;
mod redirect;
mod response;
mod stopper;
mod subscriber;
mod transport;
mod url;
mod worker;

pub use credentials::Credentials;
pub use publisher::Publisher;
pub use response::{PublishResponse, SubscriptionResponse};
pub use stopper::Stopper;
pub use subscriber::Subscriber;

use std::time::Duration;

use serde::Serialize;

use crate::error::Error;
use crate::headers::Headers;
use crate::wire::{PublishRequest, SubscriptionRequest};
use endpoint::{Endpoint, GRACE, or_shared};
use exchange::Connection;

/// Polls once: asks the server at `url` for events and waits until there are some, or until `request.timeout` is over.
///
/// A program that follows a category wants [`Subscriber`], which keeps its position and retries.
///
/// - `url`: the subscription's URL, such as `http://localhost:8080/events`. A query that it has already is kept, a
///   fragment is dropped, and a user and password in it serve where no `credentials` are given.
/// - `headers`: further header fields of the request. An `Authorization` here wins over `credentials`.
/// - `request`: the categories, how long to wait, and where to start.
/// - `credentials`: for HTTP authentication.
/// - `transport`: an agent with settings of your own (proxy, TLS, connection pool); without one, an agent with a
///   connection pool that all calls share. Its time limits are not used: resolving the name, connecting and sending
///   may take 10 seconds each, the answer `request.timeout` and 10 seconds more, and its body 60 seconds.
///
/// # Redirects
///
/// Up to 10 are followed. `headers` and `credentials` are sent again to the same origin (scheme, host and port). A redirect
/// to another origin is followed without any of them, and so is every redirect after it. A redirect from `https` to
/// `http` is an error.
///
/// # Proxies
///
/// The environment names them: `HTTP_PROXY` for `http`, which is asked in absolute form; `HTTPS_PROXY` for `https`, which
/// is asked by `CONNECT`; `ALL_PROXY` for both, where the other is not set. A name in lower case wins. `HTTP_PROXY` is not
/// read where `REQUEST_METHOD` is set, which is to say in a CGI program. A user and password in the proxy's URL are sent
/// to the proxy. `NO_PROXY` is a list, separated by commas or spaces, of hosts that are asked directly: domains with all
/// that is below them (`example.com`, `.example.com`), addresses, networks (`10.0.0.0/8`, `fd00::/8`), each but the
/// networks with a port if that matters (`example.com:8080`), or `*`. This machine is always asked directly.
///
/// An agent of your own that has a proxy set keeps to that. One that took its proxy from the environment, as ureq's do by
/// default, takes it as above, but asks for `http` by `CONNECT`, too. SOCKS proxies need such an agent.
///
/// # IPv6 zones
///
/// `http://[fe80::1%25eth0]:8080/events` (RFC 6874) and `http://[fe80::1%eth0]:8080/events` name the interface of a
/// link-local address, by its name or number. Only without `transport`.
///
/// # Errors
///
/// A status that refuses is no error: look at [`SubscriptionResponse::success`] and
/// [`error`](SubscriptionResponse::error). The kinds of error are
/// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a URL, header or category that can't be used,
/// [`Unreachable`](crate::ErrorKind::Unreachable), [`TimedOut`](crate::ErrorKind::TimedOut), and
/// [`InvalidAnswer`](crate::ErrorKind::InvalidAnswer) for an answer that is not of the long-polling API, or is larger
/// than 512 MiB.
///
/// ```no_run
/// use long_polling::{SubscriptionRequest, subscription};
///
/// let request = SubscriptionRequest::new("notifications");
/// let response = subscription("http://localhost:8080/events", None, &request, None, None)?;
/// for event in &response.events {
///     println!("{}: {}", event.category(), event.text());
/// }
/// # Ok::<(), long_polling::Error>(())
/// ```
pub fn subscription(
    url: &str,
    headers: Option<&Headers>,
    request: &SubscriptionRequest,
    credentials: Option<&Credentials>,
    transport: Option<&ureq::Agent>,
) -> Result<SubscriptionResponse, Error> {
    let endpoint = Endpoint::new(url, headers, credentials, transport)?;
    endpoint.poll(or_shared(transport), request, GRACE)
}

/// Publishes one event through the server at `url`, and returns once the server has answered.
///
/// A program that publishes often finds [`Publisher`] shorter.
///
/// - `url`, `headers`, `credentials`, `transport`: as of [`subscription`]. The body's `Content-Type` is
///   `application/json` unless `headers` have another. Redirects, proxies and IPv6 zones as of [`subscription`], but
///   only redirects that keep the method (307 and 308) are followed: the others would make it a GET, and the response
///   has their status.
/// - `timeout`: for the whole call, from resolving the name to the end of the answer. More than zero.
/// - `request`: the category and the data.
///
/// # Errors
///
/// A status that refuses is no error: look at [`PublishResponse::success`]. The kinds of error are
/// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a URL, header, category, timeout or data that can't be used,
/// [`Unreachable`](crate::ErrorKind::Unreachable), [`TimedOut`](crate::ErrorKind::TimedOut) and
/// [`InvalidAnswer`](crate::ErrorKind::InvalidAnswer); the message says whether the event may have been published.
///
/// ```no_run
/// use std::time::Duration;
/// use long_polling::{PublishRequest, publish};
///
/// let request = PublishRequest::new("notifications", serde_json::json!({"message": "Hello"}));
/// let timeout = Duration::from_secs(10);
/// let response = publish("http://localhost:8080/publish", timeout, None, &request, None, None)?;
/// assert!(response.success());
/// # Ok::<(), long_polling::Error>(())
/// ```
pub fn publish<T: Serialize>(
    url: &str,
    timeout: Duration,
    headers: Option<&Headers>,
    request: &PublishRequest<T>,
    credentials: Option<&Credentials>,
    transport: Option<&ureq::Agent>,
) -> Result<PublishResponse, Error> {
    let endpoint = Endpoint::new(url, headers, credentials, transport)?;
    let agent = or_shared(transport);
    endpoint.publish(
        agent,
        &request.category,
        &request.data,
        timeout,
        Connection::Any,
    )
}
