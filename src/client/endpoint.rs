//! [`Endpoint`]: one URL of a server, checked once, with the header fields that every request to it carries.

use std::io::Read;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use ureq::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, PROXY_AUTHORIZATION, TRANSFER_ENCODING,
};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use ureq::{Agent, AsSendBody, Body, ProxyProtocol};

use super::credentials::Credentials;
use super::failure::{Failure, Source, failed, refused_by_proxy, shown};
use super::proxy::{Proxies, Via};
use super::redirect::{MOST_REDIRECTS, target, too_many};
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
const LARGEST_REFUSAL: u64 = 64 << 10;

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
    /// What the caller gave: fields and credentials. They go to the URL's own origin only.
    headers: HeaderMap,
    /// What the environment says about proxies.
    proxies: Proxies,
    /// The caller brings an agent. It connects as it is set to, and no more is known about it.
    foreign_agent: bool,
    /// The time limit for the body of an answer to a poll.
    body_limit: Duration,
}

/// Which connection a publish may go out on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    Any,
    /// None that was kept open.
    New,
}

/// The time limits of one call. An agent's own are replaced.
struct Limits {
    /// For all requests of the call together.
    whole: Option<Duration>,
    step: Option<Duration>,
    response: Option<Duration>,
    body: Option<Duration>,
}

/// What goes out, to one URL after the other where that is redirected.
struct Outgoing {
    method: Method,
    url: Url,
    json: Option<Vec<u8>>,
    limits: Limits,
    connection: Connection,
}

/// The head of an answer, its body, and where it came from.
struct Incoming {
    status: u16,
    headers: Headers,
    body: Body,
    source: Source,
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
            headers: fields,
            proxies: Proxies::from_environment(),
            foreign_agent: agent.is_some(),
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
        let answer = self.run(agent, get).map_err(|failure| failure.error)?;
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
                .because(error)
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
        let unfit = |error| Error::request("the data can't be written as JSON").because(error);
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
            let (kind, status) = (error.kind(), error.status());
            let undone = Error::new(kind, published).because(error);
            match status {
                Some(status) => undone.with_status(status),
                None => undone,
            }
        };
        let post = Outgoing {
            method: Method::POST,
            url: self.url.clone(),
            json: Some(body),
            limits: Limits {
                whole: Some(timeout.min(YEAR)),
                step: None,
                response: None,
                body: None,
            },
            connection,
        };
        let answer = self.run(agent, post).map_err(undone)?;
        let (status, source) = (answer.status, answer.source);
        match read_start(answer.body) {
            (_, Err(error)) if status == 200 => Err(undone(failed(&source, error))),
            (body, _) => Ok(PublishResponse::new(status, answer.headers, &body, source)),
        }
    }

    /// Sends the request, and follows redirects. What the caller gave (fields, credentials) is sent to the URL's own
    /// origin, and after a redirect to another one not any more, wherever the next redirect leads.
    fn run(&self, agent: &Agent, mut request: Outgoing) -> Result<Incoming, Failure> {
        let began = Instant::now();
        let whole = request.limits.whole;
        let mut headers = Some(&self.headers);
        for _ in 0..=MOST_REDIRECTS {
            request.limits.whole = whole.map(|whole| whole.saturating_sub(began.elapsed()));
            let answer = self.send(agent, &request, headers)?;
            let next = target(
                &request.method,
                &request.url,
                answer.status,
                &answer.headers,
            );
            let Some(next) = next.map_err(Failure::never_sent)? else {
                return Ok(answer);
            };
            // To the end, where that is near, so that the connection can be used again.
            let _ = read_start(answer.body);
            if !next.same_origin(&request.url) {
                headers = None;
            }
            log::debug!("{} redirects to {next}", request.url);
            request.url = next;
        }
        Err(Failure::never_sent(too_many(&self.url, &request.url)))
    }

    /// Sends one request.
    fn send(
        &self,
        agent: &Agent,
        request: &Outgoing,
        headers: Option<&HeaderMap>,
    ) -> Result<Incoming, Failure> {
        let via = self.via(agent, &request.url).map_err(Failure::never_sent)?;
        let source = Source {
            url: request.url.to_string(),
            via: via.as_ref().map(|via| via.name.clone()),
        };
        let mut fields = HeaderMap::new();
        if request.json.is_some() {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if request.url.has_zone()
            && let Ok(host) = request.url.host_and_port().parse()
        {
            fields.insert(HOST, host);
        }
        if let Some(value) = self.proxy_credentials(&request.url, via.as_ref()) {
            fields.insert(PROXY_AUTHORIZATION, value);
        }
        // The caller's fields replace ours of the same name.
        fields.extend(headers.cloned().unwrap_or_default());

        let answer = match &request.json {
            None => run(agent, request, (), fields, via.as_ref()),
            Some(json) => run(agent, request, &json[..], fields, via.as_ref()),
        };
        let answer = answer.map_err(|error| failed(&source, error))?;
        let (status, headers, body) = split(answer);
        if status == 407 && source.via.is_some() {
            return Err(refused_by_proxy(&source, status));
        }
        Ok(Incoming {
            status,
            headers,
            body,
            source,
        })
    }

    /// The proxy for this URL: as the environment says, unless the caller's agent has one of its own, or none.
    fn via(&self, agent: &Agent, url: &Url) -> Result<Option<Via>, Error> {
        if !self.foreign_agent {
            return self.proxies.of(url);
        }
        let Some(own) = agent.config().proxy() else {
            return Ok(None);
        };
        let uri = url.to_request_uri().parse();
        match self.proxies.of(url) {
            _ if uri.is_ok_and(|uri| own.is_no_proxy(&uri)) => Ok(None),
            // ureq's own reading of the environment is replaced, but for SOCKS, which only it can do.
            Err(_) if !is_http(own.protocol()) => Ok(Some(Via::of_agent(own))),
            chosen if own.is_from_env() => chosen,
            _ => Ok(Some(Via::of_agent(own))),
        }
    }

    /// For a proxy that sees the request itself. Where it is asked by `CONNECT`, ureq sends them there.
    fn proxy_credentials(&self, url: &Url, via: Option<&Via>) -> Option<HeaderValue> {
        let via = via.filter(|_| !url.is_secure() && !self.foreign_agent)?;
        let username = via.proxy.username()?;
        let password = via.proxy.password().unwrap_or_default();
        let pair = BASE64_STANDARD.encode(format!("{username}:{password}"));
        let mut value = HeaderValue::from_str(&format!("Basic {pair}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn is_http(protocol: ProxyProtocol) -> bool {
    matches!(protocol, ProxyProtocol::Http | ProxyProtocol::Https)
}

fn run(
    agent: &Agent,
    outgoing: &Outgoing,
    body: impl AsSendBody,
    fields: HeaderMap,
    via: Option<&Via>,
) -> Result<Response<Body>, ureq::Error> {
    let limits = &outgoing.limits;
    let request = Request::builder()
        .method(outgoing.method.clone())
        .uri(outgoing.url.to_request_uri());
    let mut request = request.body(body)?;
    *request.headers_mut() = fields;
    let mut config = agent
        .configure_request(request)
        .http_status_as_error(false)
        // Followed here, where it is known what was given for which origin.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(limits.whole)
        .timeout_per_call(None)
        .timeout_per_read(None)
        .timeout_per_write(None)
        .timeout_resolve(limits.step)
        .timeout_connect(limits.step)
        .timeout_send_request(limits.step)
        .timeout_send_body(limits.step)
        .timeout_recv_response(limits.response)
        .timeout_recv_body(limits.body)
        .proxy(via.map(|via| via.proxy.clone()));
    if outgoing.connection == Connection::New {
        config = config.max_idle_age(Duration::ZERO);
    }
    agent.run(config.build())
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

fn split(answer: Response<Body>) -> (u16, Headers, Body) {
    let (head, body) = answer.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), text(value)));
    (head.status.as_u16(), headers.collect(), body)
}

/// As much of a short body as came, and why no more of it did.
fn read_start(body: Body) -> (Vec<u8>, Result<(), ureq::Error>) {
    let mut start = Vec::new();
    let mut reader = body.into_reader().take(LARGEST_REFUSAL);
    let read = reader.read_to_end(&mut start);
    (start, read.map(drop).map_err(ureq::Error::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    fn endpoint(url: &str) -> Result<Endpoint, Error> {
        Endpoint::new(url, None, None, None)
    }

    #[test]
    fn a_user_in_the_url_serves_where_no_credentials_are_given() {
        let url = "http://Aladdin:open%20sesame@h/";
        let with = |headers, credentials| {
            let endpoint = Endpoint::new(url, headers, credentials, None).unwrap();
            endpoint.headers[AUTHORIZATION].to_str().unwrap().to_owned()
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
        let request = SubscriptionRequest {
            timeout: Duration::from_millis(100),
            ..SubscriptionRequest::new("c")
        };
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
