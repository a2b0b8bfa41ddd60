//! [`Endpoint`]: one URL of a server, checked once, with the header fields that every request to it carries.

use std::sync::OnceLock;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::Serialize;
use ureq::Agent;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::credentials::Credentials;
use super::exchange::{Connection, Limits, Outgoing, Sender, read_start};
use super::failure::{Failure, failed, shown};
use super::proxy::Proxies;
use super::response::{PublishResponse, SubscriptionResponse, start};
use super::transport::new_agent;
use super::url::Url;
use crate::error::{Error, ErrorKind};
use crate::headers::Headers;
use crate::wire::{PublishRequest, SubscriptionRequest, check_category};

/// How much longer than the server the client waits, so that the server's "no events" is still heard.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// For resolving the name, connecting and sending, each.
const STEP: Duration = Duration::from_secs(10);
/// For the body of an answer, once its head has come.
const BODY: Duration = Duration::from_secs(60);
/// Longer limits are taken as this, so that no sum overflows.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

const LARGEST_ANSWER: u64 = 512 << 20;

/// The caller's agent, or the one of all calls that bring none.
pub(crate) fn or_shared(agent: Option<&Agent>) -> &Agent {
    static SHARED: OnceLock<Agent> = OnceLock::new();
    match agent {
        Some(agent) => agent,
        None => SHARED.get_or_init(new_agent),
    }
}

#[derive(Debug)]
pub(crate) struct Endpoint {
    url: Url,
    sender: Sender,
    /// The time limit for the body of an answer to a poll.
    body_limit: Duration,
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
        let unusable = |problem: &str| {
            let url = shown(url);
            Error::request(format!("can't use the URL {url:?}: {problem}"))
        };
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
            let credentials = credentials.cloned().or_else(|| {
                let (username, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
                let text = |part| percent_decode_str(part).decode_utf8_lossy();
                (!userinfo.is_empty()).then(|| Credentials::basic(text(username), text(password)))
            });
            if let Some(credentials) = credentials {
                fields.insert(AUTHORIZATION, credentials.to_value()?);
            }
        }
        Ok(Endpoint {
            url,
            sender: Sender {
                headers: fields,
                proxies: Proxies::from_environment(),
                foreign_agent: agent.is_some(),
            },
            body_limit: BODY,
        })
    }

    /// Polls once, and waits for the answer for the request's timeout and `grace`.
    pub(crate) fn poll(
        &self,
        agent: &Agent,
        request: &SubscriptionRequest,
        grace: Duration,
    ) -> Result<SubscriptionResponse, Error> {
        request.categories.check()?;
        let get = Outgoing {
            method: Method::GET,
            url: self.url.clone().with_query(&request.to_query()),
            json: None,
            limits: Limits {
                whole: None,
                step: Some(STEP),
                response: Some(request.timeout.min(YEAR) + grace),
                body: Some(self.body_limit),
            },
            connection: Connection::Any,
        };
        let answer = self
            .sender
            .run(agent, get)
            .map_err(|failure| failure.error)?;
        let (status, source) = (answer.status, answer.source);
        let response = SubscriptionResponse::new(status, answer.headers, source.clone());
        if status == 204 {
            return Ok(response);
        }
        if status != 200 {
            // The status says enough, should the body not arrive whole.
            let (body, _) = read_start(answer.body);
            return Ok(response.refused(&body));
        }
        let body = answer
            .body
            .into_with_config()
            .limit(LARGEST_ANSWER)
            .read_to_vec();
        let body = body.map_err(|error| failed(&source, error).error)?;
        response.granted(&body).map_err(|error| {
            let start = start(&body, 100);
            let message = format!(
                "the answer of {source} is not that of a long-polling server: {start:?}; \
                 check the URL, and what stands between here and the server"
            );
            Error::new(ErrorKind::InvalidAnswer, message)
                .with_status(status)
                .with_source(error)
        })
    }

    /// Publishes once. No retry: a POST that is repeated may publish twice.
    pub(crate) fn publish<T: Serialize + ?Sized>(
        &self,
        agent: &Agent,
        category: &str,
        data: &T,
        timeout: Duration,
        connection: Connection,
    ) -> Result<PublishResponse, Error> {
        check_category(category)?;
        if timeout.is_zero() {
            let message =
                "a timeout of zero leaves no time to publish; give 10 seconds, for example";
            return Err(Error::request(message));
        }
        let unfit = |error| Error::request("the data can't be written as JSON").with_source(error);
        let data = serde_json::value::to_raw_value(data).map_err(unfit)?;
        if data.get() == "null" {
            return Err(Error::request("the data is null: an event needs some data"));
        }
        let body = serde_json::to_vec(&PublishRequest::new(category, data)).map_err(unfit)?;

        let undone = |Failure { error, never_sent }| {
            let published = match never_sent {
                true => "the event was not published",
                false => "the event may have been published all the same",
            };
            error.context(published)
        };
        let post = Outgoing {
            method: Method::POST,
            url: self.url.clone(),
            json: Some(body),
            limits: Limits {
                whole: Some(timeout.min(YEAR)),
                ..Limits::default()
            },
            connection,
        };
        let answer = self.sender.run(agent, post).map_err(undone)?;
        let (status, source) = (answer.status, answer.source);
        match read_start(answer.body) {
            (_, Err(error)) if status == 200 => Err(undone(failed(&source, error))),
            (body, _) => Ok(PublishResponse::new(status, answer.headers, &body, source)),
        }
    }
}

/// # Errors
///
/// `InvalidRequest` that names the field; the value may be a secret.
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
    fn a_user_in_the_url_serves_where_no_credentials_are_given() {
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
    fn a_url_that_cannot_be_used_is_refused_with_a_reason_and_without_its_secrets() {
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
    fn https_needs_the_feature_or_an_agent_of_the_callers() {
        let error = endpoint("https://h/").unwrap_err();
        assert!(error.to_string().contains("feature \"tls\""), "{error}");
        assert!(Endpoint::new("https://h/", None, None, Some(&new_agent())).is_ok());
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_named_without_its_value() {
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
    fn an_answer_without_an_end_is_given_up() {
        for head in ["Content-Length: 100", "Transfer-Encoding: chunked", "X: y"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/events", listener.local_addr().unwrap());
            let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
            let mut endpoint = endpoint(&url).unwrap();
            endpoint.body_limit = Duration::from_millis(200);
            let server = std::thread::spawn(move || {
                let (mut client, _) = listener.accept().unwrap();
                client.write_all(answer.as_bytes()).unwrap();
                // Without an end: as long as the client listens.
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
                // Until the client hangs up.
                let _ = client.read_to_end(&mut Vec::new());
            });
            let request = SubscriptionRequest::new("c");
            let error = endpoint.poll(&new_agent(), &request, GRACE).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{head}: {error}");
            server.join().unwrap();
        }
    }

    #[test]
    fn a_server_that_never_answers_is_given_up_after_the_timeout_and_the_grace() {
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
