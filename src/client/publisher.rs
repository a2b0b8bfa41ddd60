//! [`Publisher`]: publishes to one server, with the same URL, credentials and timeout for every event.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::credentials::Credentials;
use super::endpoint::{Endpoint, agent_or_shared};
use super::failure::{redacted, refusal};
use super::publish_bytes::PublishBytes;
use super::response::PublishResponse;
use super::sender::ConnectionReuse;
use crate::error::Error;
use crate::headers::Headers;
use crate::wire::PublishRequest;

/// A client that publishes events to one server. Threads can share it; it keeps connections open and reuses them.
///
/// A publisher does not retry if the server may have published the event before its response was lost, because a retry
/// could publish the event twice. A program that accepts duplicates can retry itself. If the server responds that it is
/// being stopped, the publisher retries once on a new connection, because another server may have taken its place.
///
/// ```no_run
/// use std::time::{Duration, Instant};
/// use long_polling::{Credentials, Publisher};
///
/// let publisher = Publisher::new("http://localhost:8080/publish")
///     .credentials(Credentials::basic("alice", "secret"))
///     .timeout(Duration::from_secs(5));
/// let response = publisher.publish("notifications", "Hello")?;
/// println!("published as {:?}", response.id);
/// # Ok::<(), long_polling::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a publisher sends nothing until `publish` is called"]
pub struct Publisher {
    url: String,
    headers: Headers,
    credentials: Option<Credentials>,
    timeout: Duration,
    agent: Option<ureq::Agent>,
}

impl Publisher {
    /// Creates a publisher for this URL, such as `http://localhost:8080/publish`. The first [`publish`](Publisher::publish)
    /// checks it.
    pub fn new(url: impl Into<String>) -> Self {
        Publisher {
            url: url.into(),
            headers: Headers::new(),
            credentials: None,
            timeout: Duration::from_secs(10),
            agent: None,
        }
    }

    /// Adds a header field to every request. Defaults to no fields.
    ///
    /// An `Authorization` takes precedence over [`credentials`](Publisher::credentials). After a redirect to another origin
    /// the fields are not sent.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.headers.add(name, value);
        self
    }

    /// Sets the credentials for HTTP authentication at the URL's own origin. Defaults to those in the URL, if any.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Sets the timeout of one publish, from resolving the name to the end of the response. Defaults to 10 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets an agent with settings of your own (proxy, TLS, connection pool). Defaults to one that all calls share. The
    /// agent's timeouts are not used.
    pub fn agent(mut self, agent: ureq::Agent) -> Self {
        self.agent = Some(agent);
        self
    }

    /// Publishes `data` to `category`, and returns after the server has published it.
    ///
    /// # Errors
    ///
    /// [`Refused`](crate::ErrorKind::Refused), with the status and the server's message, for any response but a 200 that
    /// says success; otherwise the errors of [`publish`](fn@crate::publish). The message says whether the event may have
    /// been published.
    pub fn publish<T: Serialize + ?Sized>(
        &self,
        category: &str,
        data: &T,
    ) -> Result<PublishResponse, Error> {
        self.send(|| PublishBytes::of(category, data, None))
    }

    /// [`publish`](Publisher::publish), with all that a request can ask for, such as a
    /// [time to live](PublishRequest::ttl) of the event's own.
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Publisher::publish).
    pub fn publish_with<T: Serialize>(
        &self,
        request: &PublishRequest<T>,
    ) -> Result<PublishResponse, Error> {
        self.send(|| PublishBytes::of(&request.category, &request.data, request.ttl))
    }

    /// Publishes several events, 1 to 1,000, in their order: all of them, or none. Their ids are in
    /// [`PublishResponse::ids`].
    ///
    /// golongpoll's server does not support this.
    ///
    /// ```no_run
    /// use long_polling::{PublishRequest, Publisher};
    ///
    /// let publisher = Publisher::new("http://localhost:8080/publish");
    /// let requests = [
    ///     PublishRequest::new("stock/a", -1),
    ///     PublishRequest::new("stock/b", 1),
    /// ];
    /// let ids = publisher.publish_all(&requests)?.ids();
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Publisher::publish), and [`TooLarge`](crate::ErrorKind::TooLarge) for more than 1,000 events.
    pub fn publish_all<T: Serialize>(
        &self,
        requests: &[PublishRequest<T>],
    ) -> Result<PublishResponse, Error> {
        self.send(|| PublishBytes::of_all(requests))
    }

    fn send(
        &self,
        body: impl FnOnce() -> Result<PublishBytes, Error>,
    ) -> Result<PublishResponse, Error> {
        let agent = self.agent.as_ref();
        let credentials = self.credentials.as_ref();
        let endpoint = Endpoint::new(&self.url, Some(&self.headers), credentials, agent)?;
        let body = body()?;
        let publish =
            |timeout, reuse| endpoint.publish(agent_or_shared(agent), body.clone(), timeout, reuse);
        let started = Instant::now();
        let mut response = publish(self.timeout, ConnectionReuse::Allowed)?;
        let left = self.timeout.saturating_sub(started.elapsed());
        if is_stopping(&response) && !left.is_zero() {
            response = publish(left, ConnectionReuse::Forbidden)?;
        }
        if response.success() {
            return Ok(response);
        }
        // A 2xx without success does not follow the API, and most 5xx may come from a proxy whose server has published the
        // event.
        let refused = match response.status {
            300..500 | 503 => "the event, which was not published,",
            _ => "the event, which may have been published all the same,",
        };
        let (message, location) = (response.error(), response.headers.get("Location"));
        let (route, status) = (&response.route, response.status);
        Err(refusal(
            refused,
            route,
            status,
            message.as_deref(),
            location,
        ))
    }
}

/// Returns `true` if the server responds that it is being stopped.
///
/// It does so once on each connection that was kept open. Only a new connection reaches a server that was started in its
/// place on the same port.
fn is_stopping(response: &PublishResponse) -> bool {
    response.status == 503 && response.headers.get("Connection") == Some("close")
}

/// Shows none of the secrets that URL, headers and credentials may contain.
impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("url", &redacted(&self.url))
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
