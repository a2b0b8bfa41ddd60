//! [`BrowserClient`]: the JavaScript client, as the server serves it.

use super::request::Request;
use super::response::Response;

/// The module, as it stands in this folder; `long-polling.d.ts` beside it has its types.
const MODULE: &str = include_str!("long-polling.js");

/// A strong validator (RFC 9110, section 8.8.3): it changes with the text.
const TAG: u64 = fnv1a(MODULE.as_bytes());

/// Where the client is served. A program that does not set it does not name the function, and so the linker leaves the text
/// out.
#[derive(Clone, Debug)]
pub(super) struct BrowserClient {
    pub(super) path: String,
    pub(super) answer: fn(&Request) -> Response,
}

impl BrowserClient {
    pub(super) fn at(path: String) -> Self {
        BrowserClient { path, answer }
    }
}

/// Answers GET and HEAD.
fn answer(request: &Request) -> Response {
    let tag = format!("\"{TAG:016x}\"");
    let response = if is_known(request, &tag) {
        Response::new(304)
    } else {
        // RFC 9239, section 6.
        Response::text(200, MODULE).with_header("Content-Type", "text/javascript; charset=utf-8")
    };
    response
        .with_header("ETag", &tag)
        .with_header("Cache-Control", "public, max-age=86400")
}

/// Whether the browser has this text already (RFC 9110, section 13.1.2).
fn is_known(request: &Request, tag: &str) -> bool {
    let mut known = request
        .headers()
        .get_all("If-None-Match")
        .flat_map(|field| field.split(','))
        .map(str::trim);
    known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// The hash FNV-1a, which needs no table and can be computed by the compiler.
const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_under_5_kilobytes_and_in_ascii() {
        assert!(MODULE.len() < 5000, "{} bytes", MODULE.len());
        assert!(MODULE.is_ascii());
    }

    #[test]
    fn the_validator_is_that_of_the_text() {
        // Test vectors of FNV's authors.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
