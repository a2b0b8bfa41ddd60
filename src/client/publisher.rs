//! [`Publisher`]: publishes to one server, with the same URL, credentials and timeout for every event.

mod attempts;
mod failed;
mod known_window;
mod moment;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::credentials::Credentials;
use super::endpoint::{Endpoint, check_timeout};
use super::failure::redacted;
use super::idempotency_key::IdempotencyKey;
use super::publish_content::PublishContent;
use super::response::PublishResponse;
use crate::error::Error;
use crate::headers::Headers;
use crate::wire::{IDEMPOTENCY_KEY, PublishRequest};
use attempts::Attempts;
pub(super) use failed::consequence;
use known_window::KnownWindow;

/// A client that publishes events to one server. Threads can share it; it keeps connections open and reuses them.
///
/// # Retries
///
/// A publisher repeats a publish that fails, for the time of [`retry_for`](Publisher::retry_for), and publishes the event
/// once. Each publish has an idempotency key in the header field `Idempotency-Key`: a random one, or that of
/// [`PublishRequest::idempotency_key`]. The server answers a repetition as it has answered the first request.
///
/// | failure | may have been published | next |
/// |---|---|---|
/// | no connection to the server or its proxy | no | another attempt |
/// | status 408, 425, 429, and 503 with a body of the API | no | another attempt |
/// | the connection breaks, the timeout passes, the response is not complete | yes | another attempt, if the server knows keys |
/// | status 500, 502, 504, 520 to 524, another 503 | yes | another attempt, if the server knows keys |
/// | another status, such as 401, 403, 413 or 422 | no | the error |
///
/// A server that knows no keys, such as golongpoll's, would publish a repetition as another event. So the publisher first
/// asks the server, with `OPTIONS` to the same URL. If the response has no `Idempotency-Window`, no other attempt follows. The
/// publisher and its clones remember an `Idempotency-Window`, and end all attempts before the server forgets the key.
/// Several servers behind one URL need a common memory of keys: brokers in one Redis have it.
///
/// Events of one thread are published in the order of its calls, because each call returns after the last attempt. An event
/// that is published by a later attempt may come after events of other threads and publishers that were published meanwhile.
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
    retry_for: Duration,
    /// The shortest and the longest wait before another attempt.
    backoff: (Duration, Duration),
    agent: Option<ureq::Agent>,
    known_window: KnownWindow,
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
            retry_for: Duration::from_secs(10),
            backoff: (Duration::from_millis(100), Duration::from_secs(2)),
            agent: None,
            known_window: KnownWindow::default(),
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

    /// Sets the timeout of one attempt to publish, from resolving the name to the end of the response. More than zero.
    /// Defaults to 10 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long the publisher goes on after a first attempt has failed: later than this after the failure, no other
    /// attempt begins. With [`Duration::ZERO`], each publish is one attempt. Defaults to 10 seconds.
    ///
    /// A publish takes up to two [timeouts](Publisher::timeout) and this time together: 30 seconds by default. It ends at once
    /// if the server's `Retry-After` asks for a longer wait than is left.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use long_polling::Publisher;
    ///
    /// // Goes on for as long as the server may take to restart.
    /// let publisher = Publisher::new("http://localhost:8080/publish")
    ///     .timeout(Duration::from_secs(2))
    ///     .retry_for(Duration::from_secs(60));
    /// publisher.publish("notifications", "Hello")?;
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn retry_for(mut self, time: Duration) -> Self {
        self.retry_for = time;
        self
    }

    /// Sets how long the publisher waits before another attempt: about `min` after the first failure, twice as long after each
    /// further one, `max` at most; a random part of up to half is subtracted. It waits longer if the server's `Retry-After`
    /// asks for that. No wait is shorter than 5 milliseconds. Defaults to 100 milliseconds and 2 seconds.
    ///
    /// The first attempt after a response that says that the server is being stopped does not wait: on a new connection, it
    /// reaches the server that has taken its place.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = (min, max);
        self
    }

    /// Sets an agent with settings of your own (proxy, TLS, connection pool). Defaults to one that all calls share. The
    /// agent's timeouts are not used.
    pub fn agent(mut self, agent: ureq::Agent) -> Self {
        self.agent = Some(agent);
        self
    }

    /// Publishes `data` to `category`, and returns after the server has published it. Blocks while it waits before another
    /// attempt.
    ///
    /// # Errors
    ///
    /// The error of the last attempt: [`Refused`](crate::ErrorKind::Refused), with the status and the server's message, for
    /// any response but a 200 that says success; otherwise the errors of [`publish`](fn@crate::publish). The message says
    /// whether the event may have been published, and after several attempts, how many there were and how long they took.
    pub fn publish<T: Serialize + ?Sized>(
        &self,
        category: &str,
        data: &T,
    ) -> Result<PublishResponse, Error> {
        self.send(PublishContent::of(category, data, None)?)
    }

    /// [`publish`](Publisher::publish), with all that a request can ask for: a [time to live](PublishRequest::ttl) of the
    /// event's own, or an [idempotency key](PublishRequest::idempotency_key).
    ///
    /// With a key that the program has saved, the event is published once even if the program ends during the publish and
    /// publishes the event again after its restart, within the server's window.
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Publisher::publish).
    pub fn publish_with<T: Serialize>(
        &self,
        request: &PublishRequest<T>,
    ) -> Result<PublishResponse, Error> {
        self.send(PublishContent::of_request(request)?)
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
        self.send(PublishContent::of_all(requests)?)
    }

    /// [`publish_all`](Publisher::publish_all), with an idempotency key for all of the events together, 1 to 255 printable
    /// ASCII characters. A request has no key of its own.
    ///
    /// # Errors
    ///
    /// Those of [`publish_all`](Publisher::publish_all), and [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a key that
    /// can't be used.
    pub fn publish_all_once<T: Serialize>(
        &self,
        key: &str,
        requests: &[PublishRequest<T>],
    ) -> Result<PublishResponse, Error> {
        self.send(PublishContent::of_all(requests)?.with_key(Some(key))?)
    }

    fn send(&self, mut content: PublishContent) -> Result<PublishResponse, Error> {
        if self.headers.get(IDEMPOTENCY_KEY).is_some() {
            return Err(Error::request(
                "a header Idempotency-Key of the publisher would be that of every event, and only the first would be published: \
                 give the key to `PublishRequest::idempotency_key`",
            ));
        }
        check_timeout(self.timeout)?;
        let (agent, credentials) = (self.agent.as_ref(), self.credentials.as_ref());
        let endpoint = Endpoint::new(&self.url, Some(&self.headers), credentials, agent)?;
        if content.key.is_none() {
            content.key = Some(IdempotencyKey::random()?);
        }
        Attempts::new(self, &endpoint, &content).run()
    }
}

/// Shows none of the secrets that URL, headers and credentials may contain.
impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("url", &redacted(&self.url))
            .field("timeout", &self.timeout)
            .field("retry_for", &self.retry_for)
            .finish_non_exhaustive()
    }
}
