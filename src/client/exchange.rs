//! [`Sender`]: one request and its answer, through a proxy where there is one, and over redirects.

use std::io::Read;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use ureq::http::header::{CONTENT_TYPE, HOST, PROXY_AUTHORIZATION};
use ureq::http::{HeaderMap, HeaderValue, Method, Request, Response};
use ureq::{Agent, AsSendBody, Body, ProxyProtocol};

use super::failure::{Failure, Source, failed, refused_by_proxy};
use super::proxy::{Proxies, Via};
use super::redirect::{MOST_REDIRECTS, target, too_many};
use super::url::Url;
use crate::error::Error;
use crate::headers::Headers;

const LARGEST_REFUSAL: u64 = 64 << 10;

/// What every request is sent with.
#[derive(Debug)]
pub(crate) struct Sender {
    /// What the caller gave: fields and credentials. They go to the URL's own origin only.
    pub(crate) headers: HeaderMap,
    /// What the environment says about proxies.
    pub(crate) proxies: Proxies,
    /// The caller brings an agent. It connects as it is set to, and no more is known about it.
    pub(crate) foreign_agent: bool,
}

/// Which connection a publish may go out on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    Any,
    /// None that was kept open.
    New,
}

/// The time limits of one call. An agent's own are replaced.
#[derive(Default)]
pub(crate) struct Limits {
    /// For all requests of the call together.
    pub(crate) whole: Option<Duration>,
    /// For resolving the name, connecting and sending, each.
    pub(crate) step: Option<Duration>,
    pub(crate) response: Option<Duration>,
    pub(crate) body: Option<Duration>,
}

/// What goes out, to one URL after the other where that is redirected.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) json: Option<Vec<u8>>,
    pub(crate) limits: Limits,
    pub(crate) connection: Connection,
}

/// The head of an answer, its body, and where it came from.
pub(crate) struct Incoming {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Body,
    pub(crate) source: Source,
}

impl Sender {
    /// Sends the request, and follows redirects. What the caller gave (fields, credentials) is sent to the URL's own
    /// origin, and after a redirect to another one not any more, wherever the next redirect leads.
    pub(crate) fn run(&self, agent: &Agent, mut request: Outgoing) -> Result<Incoming, Failure> {
        let began = Instant::now();
        let whole = request.limits.whole;
        let mut headers = Some(&self.headers);
        let first = request.url.clone();
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
        Err(Failure::never_sent(too_many(&first, &request.url)))
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

fn split(answer: Response<Body>) -> (u16, Headers, Body) {
    let (head, body) = answer.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), text(value)));
    (head.status.as_u16(), headers.collect(), body)
}

/// As much of a short body as came, and why no more of it did.
pub(crate) fn read_start(body: Body) -> (Vec<u8>, Result<(), ureq::Error>) {
    let mut start = Vec::new();
    let mut reader = body.into_reader().take(LARGEST_REFUSAL);
    let read = reader.read_to_end(&mut start);
    (start, read.map(drop).map_err(ureq::Error::from))
}
