//! [`Endpoint`]: one URL of a server, checked, with the header fields of every request to it.

use std::sync::OnceLock;
use std::time::Duration;

use ureq::Agent;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::credentials::Credentials;
use super::failure::{Failure, failed, unusable_url};
use super::idempotency_key::IdempotencyKey;
use super::proxy::Proxies;
use super::publish_content::PublishContent;
use super::response::{PublishResponse, SubscriptionResponse, excerpt};
use super::sender::{ConnectionReuse, HttpRequest, RequestSender, Target, Timeouts, read_short};
use super::transport::new_agent;
use super::url::Url;
use crate::error::{Error, ErrorKind};
use crate::headers::Headers;
use crate::wire::SubscriptionRequest;

/// The time that the client waits longer than the server, so that the server's response to a timeout arrives.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// The timeout for resolving the name, connecting and sending, each.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout for the body of a response to a poll, after its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest timeout. A longer one is taken as this, so that no sum overflows.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 86_400);
/// The largest body of a response to a poll.
const MAX_POLL_BODY_BYTES: u64 = 512 << 20;

/// Returns the caller's agent, or the agent that all calls without one share.
pub(crate) fn agent_or_shared(agent: Option<&Agent>) -> &Agent {
    static SHARED: OnceLock<Agent> = OnceLock::new();
    match agent {
        Some(agent) => agent,
        None => SHARED.get_or_init(new_agent),
    }
}

/// The timeout of a publish, and the connections that it may use.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// More than zero: see [`check_timeout`].
    pub(crate) timeout: Duration,
    pub(crate) reuse: ConnectionReuse,
}

/// # Errors
///
/// `InvalidRequest` for a timeout of zero.
pub(crate) fn check_timeout(timeout: Duration) -> Result<(), Error> {
    match timeout.is_zero() {
        true => Err(Error::request(
            "a timeout of zero leaves no time to publish; give 10 seconds, for example",
        )),
        false => Ok(()),
    }
}

/// One URL of a server, and the settings of every request to it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    url: Url,
    sender: RequestSender,
    /// [`BODY_TIMEOUT`], or less in a test.
    body_timeout: Duration,
}

impl Endpoint {
    /// # Errors
    ///
    /// `InvalidRequest` that names what can't be used.
    pub(crate) fn new(
        url: &str,
        headers: Option<&Headers>,
        credentials: Option<&Credentials>,
        agent: Option<&Agent>,
    ) -> Result<Self, Error> {
        let unusable = |problem: &str| unusable_url(url, problem);
        let (url, userinfo) = Url::parse(url).map_err(|problem| unusable(&problem))?;
        if url.is_secure() && !cfg!(feature = "tls") && agent.is_none() {
            let remedy =
                "this build has no TLS; turn on the feature \"tls\" of long-polling, or use http";
            return Err(unusable(remedy));
        }
        if url.has_zone() && (agent.is_some() || url.is_secure()) {
            let remedy = "an IPv6 address with a zone needs http and the client's own agent";
            return Err(unusable(remedy));
        }

        let mut fields = HeaderMap::new();
        for (name, value) in headers.iter().flat_map(|headers| headers.iter()) {
            let (name, value) = field(name, value)?;
            fields.append(name, value);
        }
        if !fields.contains_key(AUTHORIZATION) {
            let credentials = credentials
                .cloned()
                .or_else(|| Credentials::from_userinfo(userinfo));
            if let Some(credentials) = credentials {
                fields.insert(AUTHORIZATION, credentials.to_value()?);
            }
        }
        Ok(Endpoint {
            url,
            sender: RequestSender {
                headers: fields,
                proxies: Proxies::from_environment(),
                has_own_agent: agent.is_some(),
            },
            body_timeout: BODY_TIMEOUT,
        })
    }

    /// Polls once. Waits for the response during the request's timeout plus `grace`.
    pub(crate) fn poll(
        &self,
        agent: &Agent,
        request: &SubscriptionRequest,
        grace: Duration,
    ) -> Result<SubscriptionResponse, Error> {
        request.check()?;
        let mut get = HttpRequest {
            method: Method::GET,
            target: Target {
                url: self.url.clone().with_query(&request.to_query()),
                has_own_fields: true,
            },
            json: None,
            key: None,
            timeouts: Timeouts {
                total: None,
                step: Some(STEP_TIMEOUT),
                response: Some(request.timeout.min(MAX_TIMEOUT) + grace),
                body: Some(self.body_timeout),
            },
            reuse: ConnectionReuse::Allowed,
        };
        let received = self
            .sender
            .run(agent, &mut get)
            .map_err(|failure| failure.error)?;
        let (status, route) = (received.status, received.route);
        let response = SubscriptionResponse::new(status, received.headers, route.clone());
        if status == 204 {
            return Ok(response);
        }
        if status != 200 {
            // The status is enough, even if the body is incomplete.
            let (body, _) = read_short(received.body);
            return Ok(response.with_refusal(&body));
        }
        let body = received
            .body
            .into_with_config()
            .limit(MAX_POLL_BODY_BYTES)
            .read_to_vec();
        let body = body.map_err(|error| failed(&route, error).error)?;
        response.with_poll_body(&body).map_err(|error| {
            let excerpt = excerpt(&body, 100);
            let message = format!(
                "the response of {route} is not one of a long-polling server: {excerpt:?}; check the \
                 URL, and for proxies"
            );
            Error::new(ErrorKind::InvalidResponse, message)
                .with_status(status)
                .with_source(error)
        })
    }

    /// Returns where the requests go, before any redirect.
    pub(crate) fn target(&self) -> Target {
        Target {
            url: self.url.clone(),
            has_own_fields: true,
        }
    }

    /// Publishes once, and does not retry. `target` is then the one that the request was sent to last.
    pub(crate) fn publish(
        &self,
        agent: &Agent,
        content: &PublishContent,
        target: &mut Target,
        limits: Limits,
    ) -> Result<PublishResponse, Failure> {
        let parts = (
            Some(&content.json[..]),
            content.key.as_ref().map(IdempotencyKey::field),
        );
        self.exchange(agent, Method::POST, parts, target, limits)
    }

    /// Sends OPTIONS, whose response says whether the server knows idempotency keys.
    pub(crate) fn options(
        &self,
        agent: &Agent,
        mut target: Target,
        limits: Limits,
    ) -> Result<PublishResponse, Failure> {
        self.exchange(agent, Method::OPTIONS, (None, None), &mut target, limits)
    }

    fn exchange(
        &self,
        agent: &Agent,
        method: Method,
        (json, key): (Option<&[u8]>, Option<&HeaderValue>),
        target: &mut Target,
        limits: Limits,
    ) -> Result<PublishResponse, Failure> {
        let mut request = HttpRequest {
            method,
            target: target.clone(),
            json,
            key,
            timeouts: Timeouts {
                total: Some(limits.timeout.min(MAX_TIMEOUT)),
                ..Timeouts::default()
            },
            reuse: limits.reuse,
        };
        let received = self.sender.run(agent, &mut request);
        *target = request.target;
        let received = received?;
        let (status, route) = (received.status, received.route);
        match read_short(received.body) {
            (_, Err(error)) if status == 200 => Err(failed(&route, error)),
            (body, _) => Ok(PublishResponse::new(status, received.headers, &body, route)),
        }
    }
}

/// Converts a header field.
///
/// # Errors
///
/// `InvalidRequest` that has the name, but not the value, which may be a secret.
fn field(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Error> {
    let wrong = |problem| Error::request(format!("can't send the header {name:?}: {problem}"));
    let header: HeaderName = name
        .parse()
        .map_err(|_| wrong("a name has letters, digits and !#$%&'*+-.^_`|~ only"))?;
    if header == CONTENT_LENGTH || header == TRANSFER_ENCODING {
        return Err(wrong("the client sets it itself"));
    }
    let value = HeaderValue::from_bytes(value.as_bytes())
        .map_err(|_| wrong("its value contains a line break or another control character"))?;
    Ok((header, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn endpoint(url: &str) -> Result<Endpoint, Error> {
        Endpoint::new(url, None, None, None)
    }

    #[test]
    fn the_user_in_the_url_is_sent_unless_credentials_are_given() {
        let url = "http://Aladdin:open%20sesame@h/";
        let with = |headers, credentials| {
            let endpoint = Endpoint::new(url, headers, credentials, None).unwrap();
            endpoint.sender.headers[AUTHORIZATION]
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(with(None, None), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let token = Credentials::bearer("t");
        assert_eq!(with(None, Some(&token)), "Bearer t");
        let own = Headers::from([("authorization", "own")]);
        assert_eq!(with(Some(&own), Some(&token)), "own");
    }

    #[test]
    fn an_invalid_url_is_an_error_with_a_reason_and_without_secrets() {
        for (url, reason) in [
            ("", "no scheme"),
            ("localhost:8080/events", "no scheme"),
            ("u:secret@localhost/events", "no scheme"),
            ("ftp://u:secret@h/?secret", "neither http nor https"),
            ("http://", "no host"),
            ("http://:80/", "no host"),
            ("http://h:99999/", "port"),
            ("http://h/a b", "percent-encoded"),
            ("http://u:secret@h /", "percent-encoded"),
            ("http://[::1/", "[ has no ]"),
            ("http://[h]/", "not an IPv6 address"),
            ("http://[fe80::1%]/", "zone"),
            ("http://h[::1]/", ""),
        ] {
            let error = endpoint(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{url}");
            let message = error.to_string();
            assert!(message.contains(reason), "{url}: {message}");
            assert!(!message.contains("secret"), "{url}: {message}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn https_needs_the_feature_or_the_callers_agent() {
        let error = endpoint("https://h/").unwrap_err();
        assert!(error.to_string().contains("feature \"tls\""), "{error}");
        assert!(Endpoint::new("https://h/", None, None, Some(&new_agent())).is_ok());
    }

    #[test]
    fn an_invalid_header_is_an_error_with_its_name_and_without_its_value() {
        for (name, value) in [
            ("X-Se cret", "v"),
            ("X-Token", "hidden\r\nX: y"),
            ("", "v"),
            ("Content-Length", "7"),
        ] {
            let headers = Headers::from([(name, value)]);
            let error = Endpoint::new("http://h/", Some(&headers), None, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            let message = error.to_string();
            assert!(message.contains(&format!("{name:?}")), "{message}");
            assert!(!message.contains("hidden"), "{message}");
        }
    }

    #[test]
    fn a_body_without_an_end_times_out() {
        for head in ["Content-Length: 100", "Transfer-Encoding: chunked", "X: y"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/events", listener.local_addr().unwrap());
            let response = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
            let mut endpoint = endpoint(&url).unwrap();
            endpoint.body_timeout = Duration::from_millis(200);
            let server = std::thread::spawn(move || {
                let (mut client, _) = listener.accept().unwrap();
                client.write_all(response.as_bytes()).unwrap();
                // The chunked body and the one until the end of the connection go on for as long as the client reads.
                let piece: &[u8] = if head.starts_with('T') {
                    b"1\r\n \r\n"
                } else {
                    b" "
                };
                while client.write_all(piece).is_ok() {
                    std::thread::yield_now();
                    if head.starts_with('C') {
                        break;
                    }
                }
                // Returns when the client closes the connection.
                let _ = client.read_to_end(&mut Vec::new());
            });
            let request = SubscriptionRequest::new("c");
            let error = endpoint.poll(&new_agent(), &request, GRACE).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{head}: {error}");
            server.join().unwrap();
        }
    }

    #[test]
    fn a_poll_without_a_response_times_out_after_its_timeout_and_the_grace() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/events", silent.local_addr().unwrap());
        let request = SubscriptionRequest::new("c").timeout(Duration::from_millis(100));
        let began = std::time::Instant::now();
        let polled =
            endpoint(&url)
                .unwrap()
                .poll(&new_agent(), &request, Duration::from_millis(100));
        let error = polled.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(error.to_string().contains(&url), "{error}");
        assert!(began.elapsed() >= Duration::from_millis(200));
    }
}
