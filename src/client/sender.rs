//! [`RequestSender`]: sends a request, through a proxy if there is one, and follows redirects.

use std::io::Read;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use ureq::http::header::{CONTENT_TYPE, HOST, PROXY_AUTHORIZATION};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use ureq::{Agent, AsSendBody, Body, ProxyProtocol};

use super::failure::{Failure, Route, failed, refused_by_proxy};
use super::proxy::{NamedProxy, Proxies};
use super::redirect::{MAX_REDIRECTS, target, too_many};
use super::url::Url;
use crate::error::Error;
use crate::headers::Headers;
use crate::wire::IDEMPOTENCY_KEY;

/// The most bytes that are read of the body of a refusal, or of the response to a publish.
const MAX_SHORT_BODY_BYTES: u64 = 64 << 10;

/// The settings with which every request is sent.
#[derive(Debug)]
pub(crate) struct RequestSender {
    /// The caller's header fields and credentials. They go to the URL's own origin only.
    pub(crate) headers: HeaderMap,
    /// The proxies that the environment names.
    pub(crate) proxies: Proxies,
    /// The caller has given an agent, which connects by its own settings.
    pub(crate) has_own_agent: bool,
}

/// Whether a request may use a connection that was kept open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionReuse {
    Allowed,
    Forbidden,
}

/// The timeouts of one call. They replace those of the agent.
#[derive(Default)]
pub(crate) struct Timeouts {
    /// For all requests of the call together.
    pub(crate) total: Option<Duration>,
    /// For resolving the name, connecting and sending, each.
    pub(crate) step: Option<Duration>,
    /// From the end of the request to the end of the response's head.
    pub(crate) response: Option<Duration>,
    /// For the body of the response.
    pub(crate) body: Option<Duration>,
}

/// Where a request goes. A redirect changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) url: Url,
    /// The request has the caller's header fields and credentials: no redirect has led to another origin.
    pub(crate) has_own_fields: bool,
}

/// A request to send.
pub(crate) struct HttpRequest<'a> {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) json: Option<&'a [u8]>,
    /// The value of `Idempotency-Key`.
    pub(crate) key: Option<&'a HeaderValue>,
    pub(crate) timeouts: Timeouts,
    pub(crate) reuse: ConnectionReuse,
}

/// A response, whose body is not read yet.
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Body,
    pub(crate) route: Route,
}

impl RequestSender {
    /// Sends the request, and follows redirects. The request's target is then the one that it was sent to last.
    ///
    /// The caller's header fields and credentials go to the URL's own origin. From the first redirect to another origin on,
    /// no request has them, even if a later redirect leads back.
    pub(crate) fn run(
        &self,
        agent: &Agent,
        request: &mut HttpRequest<'_>,
    ) -> Result<HttpResponse, Failure> {
        let started = Instant::now();
        let total = request.timeouts.total;
        let first = request.target.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            request.timeouts.total = total.map(|total| total.saturating_sub(started.elapsed()));
            let response = self.send(agent, request)?;
            let url = &request.target.url;
            let next = target(&request.method, url, response.status, &response.headers);
            let Some(next) = next.map_err(Failure::never_sent)? else {
                return Ok(response);
            };
            // The connection can be reused only after the whole body was read.
            let _ = read_short(response.body);
            log::debug!("{url} redirects to {next}");
            request.target.has_own_fields &= next.same_origin(url);
            request.target.url = next;
        }
        Err(Failure::never_sent(too_many(&first, &request.target.url)))
    }

    /// Sends one request.
    fn send(&self, agent: &Agent, request: &HttpRequest<'_>) -> Result<HttpResponse, Failure> {
        let Target {
            url,
            has_own_fields,
        } = &request.target;
        let proxy = self.proxy_for(agent, url).map_err(Failure::never_sent)?;
        let route = Route {
            url: url.to_string(),
            proxy: proxy.as_ref().map(|proxy| proxy.name.clone()),
        };
        let mut fields = HeaderMap::new();
        if request.json.is_some() {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let (Some(key), Ok(name)) = (request.key, HeaderName::try_from(IDEMPOTENCY_KEY)) {
            fields.insert(name, key.clone());
        }
        if url.has_zone()
            && let Ok(host) = url.host_and_port().parse()
        {
            fields.insert(HOST, host);
        }
        if let Some(value) = self.proxy_credentials(url, proxy.as_ref()) {
            fields.insert(PROXY_AUTHORIZATION, value);
        }
        // The caller's fields replace those above.
        if *has_own_fields {
            fields.extend(self.headers.clone());
        }

        let response = match request.json {
            None => run(agent, request, (), fields, proxy.as_ref()),
            Some(json) => run(agent, request, json, fields, proxy.as_ref()),
        };
        let response = response.map_err(|error| failed(&route, error))?;
        let (status, headers, body) = split(response);
        if status == 407 && route.proxy.is_some() {
            return Err(refused_by_proxy(&route, status));
        }
        Ok(HttpResponse {
            status,
            headers,
            body,
            route,
        })
    }

    /// Returns the proxy for this URL: the caller's agent decides if there is one, otherwise the environment.
    fn proxy_for(&self, agent: &Agent, url: &Url) -> Result<Option<NamedProxy>, Error> {
        if !self.has_own_agent {
            return self.proxies.of(url);
        }
        let Some(own) = agent.config().proxy() else {
            return Ok(None);
        };
        let uri = url.to_request_uri().parse();
        match self.proxies.of(url) {
            _ if uri.is_ok_and(|uri| own.is_no_proxy(&uri)) => Ok(None),
            // ureq reads the environment differently. Its result counts only for SOCKS, which this client does not support.
            Err(_) if !is_http(own.protocol()) => Ok(Some(NamedProxy::of_agent(own))),
            ours if own.is_from_env() => ours,
            _ => Ok(Some(NamedProxy::of_agent(own))),
        }
    }

    /// Returns the credentials for a proxy that receives the request itself. ureq adds them to a `CONNECT`.
    fn proxy_credentials(&self, url: &Url, proxy: Option<&NamedProxy>) -> Option<HeaderValue> {
        let named = proxy.filter(|_| !url.is_secure() && !self.has_own_agent)?;
        let username = named.proxy.username()?;
        let password = named.proxy.password().unwrap_or_default();
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
    http_request: &HttpRequest<'_>,
    body: impl AsSendBody,
    fields: HeaderMap,
    proxy: Option<&NamedProxy>,
) -> Result<Response<Body>, ureq::Error> {
    let timeouts = &http_request.timeouts;
    let request = Request::builder()
        .method(http_request.method.clone())
        .uri(http_request.target.url.to_request_uri());
    let mut request = request.body(body)?;
    *request.headers_mut() = fields;
    let mut config = agent
        .configure_request(request)
        .http_status_as_error(false)
        // `RequestSender::run` follows them, because it knows which fields may go to which origin.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(timeouts.total)
        .timeout_per_call(None)
        .timeout_per_read(None)
        .timeout_per_write(None)
        .timeout_resolve(timeouts.step)
        .timeout_connect(timeouts.step)
        .timeout_send_request(timeouts.step)
        .timeout_send_body(timeouts.step)
        .timeout_recv_response(timeouts.response)
        .timeout_recv_body(timeouts.body)
        .proxy(proxy.map(|named| named.proxy.clone()));
    if http_request.reuse == ConnectionReuse::Forbidden {
        config = config.max_idle_age(Duration::ZERO);
    }
    agent.run(config.build())
}

fn split(response: Response<Body>) -> (u16, Headers, Body) {
    let (head, body) = response.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), text(value)));
    (head.status.as_u16(), headers.collect(), body)
}

/// Reads the first 64 KiB of a body. Returns what was read, and the error if reading failed.
pub(crate) fn read_short(body: Body) -> (Vec<u8>, Result<(), ureq::Error>) {
    let mut start = Vec::new();
    let mut reader = body.into_reader().take(MAX_SHORT_BODY_BYTES);
    let read = reader.read_to_end(&mut start);
    (start, read.map(drop).map_err(ureq::Error::from))
}
