//! [`Publisher`]: publishes to one server, with its URL, credentials and time limit said once.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::credentials::Credentials;
use super::endpoint::{Endpoint, or_shared};
use super::exchange::Connection;
use super::failure::{refusal, shown};
use super::response::PublishResponse;
use crate::error::Error;
use crate::headers::Headers;

/// Publishes to one server. Can be shared between threads; connections are kept open and used again.
///
/// A publish is not retried where the server may have taken the event, though its answer was lost: it would then be
/// published twice. Whoever can bear that tries again. It is retried, once, where a server says that it is being stopped:
/// another one may have taken its place.
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
pub struct Publisher {
    url: String,
    headers: Headers,
    credentials: Option<Credentials>,
    timeout: Duration,
    agent: Option<ureq::Agent>,
}

impl Publisher {
    /// A publisher for this URL, such as `http://localhost:8080/publish`. It is checked by the first
    /// [`publish`](Publisher::publish).
    pub fn new(url: impl Into<String>) -> Self {
        Publisher {
            url: url.into(),
            headers: Headers::new(),
            credentials: None,
            timeout: Duration::from_secs(10),
            agent: None,
        }
    }

    /// Adds a header field to every request. An `Authorization` wins over [`credentials`](Publisher::credentials).
    /// A redirect to another origin is followed without it.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.add(name, value);
        self
    }

    /// Credentials for HTTP authentication, for the URL's own origin only. Defaults to those in the URL, or none.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// The time limit of one publish, from resolving the name to the end of the answer. Defaults to 10 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// An agent with settings of your own (proxy, TLS, connection pool); its time limits are not used. Defaults to one
    /// that all calls share.
    pub fn agent(mut self, agent: ureq::Agent) -> Self {
        self.agent = Some(agent);
        self
    }

    /// Publishes `data` to `category`, and returns once the server has taken it.
    ///
    /// # Errors
    ///
    /// [`Refused`](crate::ErrorKind::Refused) with the status and the server's words, where it did not answer 200 and
    /// success; else as [`publish`](fn@crate::publish) says. The message says whether the event may have been published.
    pub fn publish<T: Serialize + ?Sized>(
        &self,
        category: &str,
        data: &T,
    ) -> Result<PublishResponse, Error> {
        let agent = self.agent.as_ref();
        let credentials = self.credentials.as_ref();
        let endpoint = Endpoint::new(&self.url, Some(&self.headers), credentials, agent)?;
        let publish = |timeout, connection| {
            endpoint.publish(or_shared(agent), category, data, timeout, connection)
        };
        let started = Instant::now();
        let mut response = publish(self.timeout, Connection::Any)?;
        let left = self.timeout.saturating_sub(started.elapsed());
        if is_stopping(&response) && !left.is_zero() {
            response = publish(left, Connection::New)?;
        }
        if response.success() {
            return Ok(response);
        }
        // A 2xx without success is not of the API, and after most 5xx a proxy may speak for a server that took the
        // event.
        let of = match response.status {
            300..500 | 503 => "the event, which was not published,",
            _ => "the event, which may have been published all the same,",
        };
        let (words, location) = (response.error(), response.headers.get("Location"));
        let (source, status) = (&response.source, response.status);
        Err(refusal(of, source, status, words.as_deref(), location))
    }
}

/// A server that is being stopped says so once to each connection that was kept open. One that has been started in its
/// place, on the same port, is reached by a new connection, and not by another that was kept open.
fn is_stopping(response: &PublishResponse) -> bool {
    response.status == 503 && response.headers.get("Connection") == Some("close")
}

/// Without the secrets that URL, headers and credentials may hold.
impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("url", &shown(&self.url))
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
