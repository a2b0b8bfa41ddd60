//! The blocking client: [`subscription`] and [`publish`] for one request, [`Subscriber`] and [`Publisher`] for many.

mod backoff;
mod credentials;
mod endpoint;
mod failure;
mod idempotency_key;
mod no_proxy;
mod poll_thread;
mod position_file;
mod proxy;
mod publish_content;
mod publisher;
mod random;
mod redirect;
mod response;
mod sender;
mod stopper;
mod subscriber;
mod tracker;
mod transport;
mod url;

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
use endpoint::{Endpoint, GRACE, Limits, agent_or_shared, check_timeout};
use publish_content::PublishContent;
use publisher::consequence;
use sender::ConnectionReuse;

/// Polls once: requests events from the server at `url`, and waits for them up to the timeout of `request`.
///
/// To follow categories, use [`Subscriber`], which keeps its position and retries.
///
/// - `url`: the URL for subscriptions, such as `http://localhost:8080/events`. The request keeps its query and drops its
///   fragment. A user and password in it are the credentials if `credentials` is `None`.
/// - `headers`: more header fields for the request. An `Authorization` takes precedence over `credentials`.
/// - `request`: the categories, the timeout, and the position to start at.
/// - `credentials`: a user and password, or a token, for HTTP authentication.
/// - `transport`: an agent with settings of your own (proxy, TLS, connection pool). Without one, all calls share an agent
///   with a connection pool. The agent's timeouts are not used: resolving the name, connecting and sending may take 10
///   seconds each, the response the timeout of `request` and 10 seconds more, and its body 60 seconds.
///
/// # Redirects
///
/// The client follows up to 10 redirects. It sends `headers` and `credentials` again to the same origin (scheme, host and
/// port). From the first redirect to another origin on, it sends neither. A redirect from `https` to `http` is an error.
///
/// # Proxies
///
/// Environment variables name the proxies:
///
/// - `HTTP_PROXY` for `http`, which gets requests in absolute form; a CGI program (with `REQUEST_METHOD` set) ignores it;
/// - `HTTPS_PROXY` for `https`, which gets a `CONNECT`;
/// - `ALL_PROXY` for both, unless the other variable is set;
/// - `NO_PROXY`: a list, separated by commas or spaces, of hosts without a proxy: domains with their subdomains
///   (`example.com`, `.example.com`), addresses, networks (`10.0.0.0/8`, `fd00::/8`), or `*`. A domain or address may have a
///   port (`example.com:8080`). Loopback addresses never have a proxy.
///
/// A name in lower case takes precedence. The client sends a user and password in the proxy's URL to the proxy.
///
/// An agent of your own uses the proxy that was set for it. If ureq took the proxy from the environment, which is its
/// default, the rules above apply, but `http` gets a `CONNECT`, too. A SOCKS proxy needs such an agent.
///
/// # IPv6 zones
///
/// `http://[fe80::1%25eth0]:8080/events` (RFC 6874) and `http://[fe80::1%eth0]:8080/events` name the interface of a
/// link-local address, by its name or number. This works without `transport` only.
///
/// # Errors
///
/// A refusal by the server is a response, not an error: see [`SubscriptionResponse::success`] and
/// [`error`](SubscriptionResponse::error). The kinds of error are
/// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a URL, header or category that can't be used,
/// [`Unreachable`](crate::ErrorKind::Unreachable), [`TimedOut`](crate::ErrorKind::TimedOut), and
/// [`InvalidResponse`](crate::ErrorKind::InvalidResponse) for a response that does not follow the long-polling API, or is
/// larger than 512 MiB.
///
/// ```no_run
/// use long_polling::{SubscriptionRequest, subscription};
///
/// let request = SubscriptionRequest::new("notifications");
/// let response =
///     subscription("http://localhost:8080/events", None, &request, None, None)?;
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
    endpoint.poll(agent_or_shared(transport), request, GRACE)
}

/// Publishes one event through the server at `url`, and returns the server's response.
///
/// To publish several events, use [`Publisher`], which is shorter.
///
/// - `url`, `headers`, `credentials`, `transport`: the same as for [`subscription`]. The `Content-Type` is
///   `application/json` unless `headers` has another.
/// - `timeout`: for the whole call, from resolving the name to the end of the response. More than zero.
/// - `request`: the category and the data, and an [idempotency key](PublishRequest::idempotency_key), if any.
///
/// The function does not retry. If the request has an idempotency key, and the server knows such keys, the program can call
/// it again after an error, and the event is published once.
///
/// Redirects, proxies and IPv6 zones work as for [`subscription`], but the client follows only redirects that keep the
/// method (307 and 308). Other redirects would turn the POST into a GET; the response has their status.
///
/// # Errors
///
/// A refusal by the server is a response, not an error: see [`PublishResponse::success`]. The kinds of error are
/// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a URL, header, category, timeout or data that can't be used,
/// [`Unreachable`](crate::ErrorKind::Unreachable), [`TimedOut`](crate::ErrorKind::TimedOut) and
/// [`InvalidResponse`](crate::ErrorKind::InvalidResponse); the message says whether the event may have been published.
///
/// ```no_run
/// use std::time::Duration;
/// use long_polling::{PublishRequest, publish};
///
/// let request =
///     PublishRequest::new("notifications", serde_json::json!({"message": "Hello"}));
/// let timeout = Duration::from_secs(10);
/// let response = publish(
///     "http://localhost:8080/publish",
///     timeout,
///     None,
///     &request,
///     None,
///     None,
/// )?;
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
    let agent = agent_or_shared(transport);
    let content = PublishContent::of_request(request)?;
    check_timeout(timeout)?;
    let limits = Limits {
        timeout,
        reuse: ConnectionReuse::Allowed,
    };
    let published = endpoint.publish(agent, &content, &mut endpoint.target(), limits);
    published.map_err(|failure| failure.error.context(consequence(!failure.never_sent)))
}
