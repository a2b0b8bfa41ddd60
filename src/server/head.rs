//! Checks of a request's head (RFC 9112), the same for each backend.

use super::render::{Persistence, is_field_value, is_token};
use super::request::Request;
use super::response::Response;

/// How a request announces its body (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// There is no body.
    None,
    /// A body of this many bytes.
    Known(usize),
    Chunked,
}

impl Request {
    /// What makes the head ambiguous, if anything: another program may see other lines or other fields in it, and so
    /// another request, or two. After such a head the connection can't be used any more.
    pub(super) fn fault(&self) -> Option<&'static str> {
        if self.version < (1, 0) {
            Some("HTTP/0.9 has no request of this form")
        } else if !is_token(&self.method) {
            Some("a method that is not a word")
        } else if !self.target.bytes().all(is_target_byte) {
            Some("a character that may not be in a target")
        } else if !self.headers.iter().all(|(name, _)| is_token(name)) {
            Some("a header field's name that is not a word")
        } else if !self.headers.iter().all(|(_, value)| is_field_value(value)) {
            Some("a control character in a header field")
        } else {
            None
        }
    }

    /// How the request announces its body. Anything that two programs may read differently is an error: it would let a
    /// second request hide in the body of the first one (RFC 9112, sections 6.1 to 6.3).
    ///
    /// # Errors
    ///
    /// What makes the body's end unknown. The connection can't be used any more.
    pub(super) fn body_length(&self) -> Result<BodyLength, &'static str> {
        let encoded = self.header("Transfer-Encoding").is_some();
        let mut lengths = self.headers.get_all("Content-Length");
        match (encoded, lengths.next()) {
            (false, None) => Ok(BodyLength::None),
            (true, Some(_)) => Err("both Transfer-Encoding and Content-Length"),
            (true, None) if !self.ends_in_chunked() => {
                Err("a Transfer-Encoding that does not end in chunked")
            }
            (true, None) if self.version != (1, 1) => {
                Err("a Transfer-Encoding in another version than HTTP/1.1")
            }
            (true, None) => Ok(BodyLength::Chunked),
            (false, Some(value)) => {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let same = lengths.all(|other| other == value);
                match value.parse() {
                    Ok(length) if digits && same => Ok(BodyLength::Known(length)),
                    _ => Err("a Content-Length that is not one number"),
                }
            }
        }
    }

    /// Checks the rest of the head. The connection stays usable after a refusal.
    ///
    /// # Errors
    ///
    /// The answer that refuses the request.
    pub(super) fn check(&self) -> Result<(), Response> {
        let mut hosts = self.headers.get_all("Host");
        // RFC 9112, section 3.2.
        let host = match (hosts.next(), hosts.next()) {
            (None, _) => self.version < (1, 1),
            (Some(host), None) => is_host(host),
            (Some(_), Some(_)) => false,
        };
        if !host {
            return Err(Response::error(400, "not one Host field with a host in it"));
        }
        if self
            .transfer_codings()
            .any(|coding| !coding.eq_ignore_ascii_case("chunked"))
        {
            let why =
                "a Transfer-Encoding besides chunked is not supported; send the body without it";
            return Err(Response::error(501, why));
        }
        let target = self.target.as_str();
        match self.method() {
            "CONNECT" => Err(Response::error(501, "this is not a proxy")),
            "OPTIONS" if target == "*" => Ok(()),
            _ if target.starts_with('/') || is_absolute(target) => Ok(()),
            _ => Err(Response::error(
                400,
                "the target is neither a path nor a URL",
            )),
        }
    }

    /// Whether the connection can stay open after this request, as its client asks (RFC 9112, section 9.3).
    pub(super) fn persistence(&self) -> Persistence {
        let said = |option: &str| {
            self.headers
                .get_all("Connection")
                .flat_map(|field| field.split(','))
                .any(|said| said.trim_matches([' ', '\t']).eq_ignore_ascii_case(option))
        };
        if said("close") {
            Persistence::Close
        } else if self.version >= (1, 1) {
            Persistence::Keep
        } else if said("keep-alive") {
            Persistence::KeepAlive
        } else {
            Persistence::Close
        }
    }

    /// Whether the client waits for 100 (Continue) before it sends the body. A client of HTTP/1.0 does not (RFC 9110, section
    /// 10.1.1).
    ///
    /// # Errors
    ///
    /// The answer that refuses another expectation.
    #[cfg(feature = "native-http")]
    pub(super) fn expects_continue(&self) -> Result<bool, Response> {
        let fields = self.headers.get_all("Expect");
        let mut expectations = fields
            .flat_map(|field| field.split(','))
            .map(|expectation| expectation.trim_matches([' ', '\t']))
            .filter(|expectation| self.version >= (1, 1) && !expectation.is_empty())
            .peekable();
        let expects = expectations.peek().is_some();
        if expectations.all(|expectation| expectation.eq_ignore_ascii_case("100-continue")) {
            Ok(expects)
        } else {
            Err(Response::error(
                417,
                "the one expectation that is met is 100-continue",
            ))
        }
    }

    /// The transfer codings, in the order in which they were applied: several fields are one list, and empty elements of
    /// it count for nothing (RFC 9110, sections 5.3 and 5.6.1).
    fn transfer_codings(&self) -> impl Iterator<Item = &str> {
        self.headers
            .get_all("Transfer-Encoding")
            .flat_map(|field| field.split(','))
            .map(|coding| coding.trim_matches([' ', '\t']))
            .filter(|coding| !coding.is_empty())
    }

    /// True where `chunked` is the last coding and occurs once, so that the body's end is known (RFC 9112, section 6.3).
    fn ends_in_chunked(&self) -> bool {
        let is_chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
        self.transfer_codings().last().is_some_and(is_chunked)
            && self
                .transfer_codings()
                .filter(|coding| is_chunked(coding))
                .count()
                == 1
            // A comma in quotes would not end an element of the list.
            && !self.transfer_codings().any(|coding| coding.contains('"'))
    }
}

/// Visible characters but for `#`. RFC 3986 excludes some more, which browsers send all the same.
fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

/// Roughly a host with or without a port; or none, which clients send whose target has none.
fn is_host(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:[]%".contains(&byte))
}

fn is_absolute(target: &str) -> bool {
    target.split_once("://").is_some_and(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in [
            "",
            "a",
            "a.example:80",
            "[::1]:8080",
            "127.0.0.1",
            "a_b-c",
            "%41",
        ] {
            assert!(is_host(host), "{host}");
        }
        for host in ["a b", "a/b", "user@a", "a, b", "a?", "a#", "a\\b", "<a>"] {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn a_connection_persists_by_the_version_and_all_connection_fields() {
        use Persistence::{Close, Keep, KeepAlive};
        for (version, fields, expected) in [
            ((1, 1), &[][..], Keep),
            ((1, 1), &["keep-alive"], Keep),
            ((1, 1), &["closed", "not-close"], Keep),
            ((1, 1), &["Upgrade"], Keep),
            ((1, 1), &["CLOSE"], Close),
            ((1, 1), &["keep-alive", "x,\t close "], Close),
            ((1, 0), &[], Close),
            ((1, 0), &["x", "Keep-Alive"], KeepAlive),
            ((1, 0), &["keep-alive, close"], Close),
        ] {
            let mut request = Request::new("GET", "/");
            request.version = version;
            for field in fields {
                request = request.with_added_header("Connection", field);
            }
            assert_eq!(request.persistence(), expected, "{version:?} {fields:?}");
        }
    }

    #[test]
    fn a_body_whose_end_is_unknown_is_an_error() {
        let length = |fields: &[(&str, &str)]| {
            let request = Request::new("POST", "/publish");
            let add = |request: Request, field: &(&str, &str)| {
                request.with_added_header(field.0, field.1)
            };
            fields.iter().fold(request, add).body_length()
        };
        assert_eq!(length(&[]), Ok(BodyLength::None));
        assert_eq!(length(&[("Content-Length", "5")]), Ok(BodyLength::Known(5)));
        assert_eq!(
            length(&[("Content-Length", "5"), ("content-length", "5")]),
            Ok(BodyLength::Known(5))
        );
        assert_eq!(
            length(&[("Transfer-Encoding", "Chunked")]),
            Ok(BodyLength::Chunked)
        );
        for fields in [
            &[("Content-Length", "+5")][..],
            &[("Content-Length", "")],
            &[("Content-Length", "5, 5")],
            &[("Content-Length", "99999999999999999999")],
            &[("Content-Length", "5"), ("Content-Length", "6")],
            &[("Transfer-Encoding", "chunked"), ("Content-Length", "5")],
            &[("Transfer-Encoding", "gzip")],
            &[("Transfer-Encoding", "chunked, chunked")],
            &[("Transfer-Encoding", "x=\"a,chunked\", chunked")],
        ] {
            assert!(length(fields).is_err(), "{fields:?}");
        }
    }
}
