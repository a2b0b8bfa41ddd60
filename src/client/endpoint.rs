//! [`Endpoint`]: one URL of a server, checked once, with the header fields that every request to it carries.

use std::io::Read;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::Serialize;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use ureq::{Agent, AsSendBody, Body};

use super::credentials::Credentials;
use super::failure::{failed, never_sent, shown};
use super::response::{PublishResponse, SubscriptionResponse, start};
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

pub(crate) fn new_agent() -> Agent {
    Agent::config_builder()
        .user_agent(concat!("long-polling/", env!("CARGO_PKG_VERSION")))
        .max_idle_connections_per_host(10)
        .build()
        .into()
}

#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Without user, password and fragment, and with a path.
    url: String,
    headers: HeaderMap,
    /// No proxy: the server is on this machine, and the agent is ours. Go's client does the same.
    direct: bool,
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
    whole: Option<Duration>,
    step: Option<Duration>,
    response: Option<Duration>,
    body: Option<Duration>,
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
        let (whole, _) = url.split_once('#').unwrap_or((url, ""));
        let (scheme, rest) = whole.split_once("://").ok_or_else(|| {
            unusable("it has no scheme; give it whole, such as http://localhost:8080/events")
        })?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (userinfo, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let slash = if path.starts_with('/') { "" } else { "/" };
        let url = format!("{scheme}://{host}{slash}{path}");
        let uri: Uri = url
            .parse()
            .map_err(|error| unusable(&format!("{error}; is it percent-encoded?")))?;

        match uri.scheme_str() {
            Some("http") => {}
            Some("https") if cfg!(feature = "tls") || agent.is_some() => {}
            Some("https") => {
                let remedy = "this build has no TLS; turn on the feature \"tls\" of long-polling, or use http";
                return Err(unusable(remedy));
            }
            _ => return Err(unusable("its scheme is neither http nor https")),
        }
        let name = uri.host().unwrap_or_default();
        if name.is_empty() {
            return Err(unusable("it names no host"));
        }
        let after = host.len().saturating_sub(name.len());
        if after > 1 && uri.port_u16().is_none() {
            return Err(unusable("its port is not a number from 0 to 65535"));
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
            direct: agent.is_none() && is_loopback(name),
            headers: fields,
            url,
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
        let joint = match self.url.find('?') {
            None => "?",
            Some(_) if self.url.ends_with(['?', '&']) => "",
            Some(_) => "&",
        };
        let uri = format!("{}{joint}{}", self.url, request.to_query());
        let limits = Limits {
            whole: None,
            step: Some(STEP),
            response: Some(request.timeout.min(YEAR) + grace),
            body: Some(BODY),
        };
        let get = Request::get(uri).body(());
        let answer = self
            .run(agent, get, &limits, Connection::Any)
            .map_err(|error| failed(&self.url, error))?;
        let (status, headers, body) = split(answer);
        let response = SubscriptionResponse::new(status, headers);
        if status == 204 {
            return Ok(response);
        }
        if status != 200 {
            // The status says enough, should the body not arrive whole.
            let (body, _) = read_start(body);
            return Ok(response.refused(&body));
        }
        let body = body.into_with_config().limit(LARGEST_ANSWER).read_to_vec();
        let body = body.map_err(|error| failed(&self.url, error))?;
        response.granted(&body).map_err(|error| {
            let (url, start) = (shown(&self.url), start(&body, 100));
            let message = format!(
                "the answer of {url} is not that of a long-polling server: {start:?}; \
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

        let limits = Limits {
            whole: Some(timeout.min(YEAR)),
            step: None,
            response: None,
            body: None,
        };
        let undone = |error: ureq::Error| {
            let published = match never_sent(&error) {
                true => "the event was not published",
                false => "the event may have been published all the same",
            };
            let error = failed(&self.url, error);
            let kind = error.kind();
            Error::new(kind, published).because(error)
        };
        let json = HeaderValue::from_static("application/json");
        let post = Request::post(&self.url)
            .header(CONTENT_TYPE, json)
            .body(body);
        let answer = self.run(agent, post, &limits, connection).map_err(undone)?;
        let (status, headers, body) = split(answer);
        match read_start(body) {
            (_, Err(error)) if status == 200 => Err(undone(error)),
            (body, _) => Ok(PublishResponse::new(status, headers, &body)),
        }
    }

    fn run<B: AsSendBody>(
        &self,
        agent: &Agent,
        request: ureq::http::Result<Request<B>>,
        limits: &Limits,
        connection: Connection,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = request?;
        let posts = request.headers().contains_key(CONTENT_TYPE);
        // The caller's fields replace ours of the same name.
        request.headers_mut().extend(self.headers.clone());
        let mut config = agent
            .configure_request(request)
            .http_status_as_error(false)
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
            .timeout_recv_body(limits.body);
        if posts {
            config = config.max_redirects(0);
        }
        if self.direct {
            config = config.proxy(None);
        }
        if connection == Connection::New {
            config = config.max_idle_age(Duration::ZERO);
        }
        agent.run(config.build())
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

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
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
    use std::net::TcpListener;

    fn endpoint(url: &str) -> Result<Endpoint, Error> {
        Endpoint::new(url, None, None, None)
    }

    #[test]
    fn a_url_loses_fragment_and_userinfo_and_gains_a_path() {
        for (given, kept) in [
            ("http://h", "http://h/"),
            ("HTTP://h:80?a=b#c", "HTTP://h:80/?a=b"),
            ("http://u:p@[::1]:8080/x#y?z", "http://[::1]:8080/x"),
        ] {
            assert_eq!(endpoint(given).unwrap().url, kept, "{given}");
        }
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
            ("http://", ""),
            ("http://:80/", ""),
            ("http://h:99999/", "port"),
            ("http://h/a b", "percent-encoded"),
            ("http://u:secret@h /", "percent-encoded"),
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
    fn this_machine_is_reached_without_a_proxy() {
        for (url, direct) in [
            ("http://localhost:1/", true),
            ("http://127.0.0.2/", true),
            ("http://[::1]:1/", true),
            ("http://localhost.example/", false),
        ] {
            assert_eq!(endpoint(url).unwrap().direct, direct, "{url}");
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
