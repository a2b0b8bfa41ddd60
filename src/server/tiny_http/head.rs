//! The head of a request: from tiny_http's to ours, and what tiny_http itself makes of it.

use crate::headers::Headers;
use crate::server::forwarded::TrustedProxies;
use crate::server::render::Persistence;
use crate::server::request::Request;

/// Copies the head into a request of ours.
pub(super) fn parse(incoming: &tiny_http::Request, trusted_proxies: &TrustedProxies) -> Request {
    let fields = incoming.headers().iter();
    let headers: Headers = fields
        .map(|field| (field.field.as_str().as_str(), field.value.as_str()))
        .collect();
    let version = incoming.http_version();
    Request::parse(
        incoming.method().as_str(),
        incoming.url(),
        (version.0, version.1),
        headers,
        incoming.remote_addr().copied(),
        trusted_proxies,
    )
}

/// How tiny_http treats a request, where that differs from what its head says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Treatment {
    /// The client offers another protocol: then tiny_http leaves the body on the connection as it is, whatever its framing,
    /// and reads no more requests.
    pub(super) is_upgrade: bool,
    /// tiny_http has nothing more to read of the body, so that dropping the request does not wait for the client: it has
    /// read the body already, or takes it for none, or for chunked, which it leaves unread.
    pub(super) is_held: bool,
    /// The head has the field `TE`, over some values of which tiny_http panics when it answers.
    pub(super) has_te: bool,
}

impl Treatment {
    pub(super) fn of(incoming: &tiny_http::Request, request: &Request) -> Self {
        let is_upgrade = is_upgrade(request);
        let expects = request.header("Expect").is_some();
        let is_held = match incoming.body_length() {
            None | Some(0) => true,
            Some(length) => length <= 1024 && !expects && !is_upgrade,
        };
        Treatment {
            is_upgrade,
            is_held,
            has_te: request.header("TE").is_some(),
        }
    }
}

/// True where tiny_http takes the request for an upgrade: it looks for the word in the first Connection field, and anywhere
/// in it.
fn is_upgrade(request: &Request) -> bool {
    const UPGRADE: &[u8] = b"upgrade";
    request.header("Connection").is_some_and(|field| {
        let mut parts = field.as_bytes().windows(UPGRADE.len());
        parts.any(|part| part.eq_ignore_ascii_case(UPGRADE))
    })
}

/// Whether the connection can stay open after this request. tiny_http looks for words in the first Connection field alone,
/// and anywhere in it; a client may say more in others.
pub(super) fn persistence(request: &Request) -> Persistence {
    let said = |option: &str| {
        request
            .headers()
            .get_all("Connection")
            .flat_map(|field| field.split(','))
            .any(|said| said.trim().eq_ignore_ascii_case(option))
    };
    let first = request.header("Connection").unwrap_or("");
    let first = first.to_ascii_lowercase();
    if first.contains("close") || first.contains("upgrade") || said("close") {
        Persistence::Close
    } else if request.version == (1, 1) {
        Persistence::Keep
    } else if first.contains("keep-alive") && said("keep-alive") {
        Persistence::KeepAlive
    } else {
        Persistence::Close
    }
}
