//! [`Url`]: an absolute `http` or `https` URL, in parts, and the references of redirects.

mod authority;

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

use authority::Authority;

/// The character that replaces the `%` before an IPv6 zone in a request's URI, which can't have a `%` there. The client's own
/// resolver reverses this.
pub(crate) const ZONE_MARK: char = '~';

/// An absolute URL, without user, password and fragment, and with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    secure: bool,
    /// In lower case. An IPv6 address is without its brackets and zone.
    host: String,
    /// The zone of an IPv6 address: the name or number of a network interface (RFC 4007, section 11).
    zone: Option<String>,
    port: Option<u16>,
    /// Starts with a slash.
    path_and_query: String,
}

impl Url {
    /// Reads a URL. Also returns its user and password, as they are in the text.
    ///
    /// # Errors
    ///
    /// The problem, as text.
    pub(crate) fn parse(text: &str) -> Result<(Self, &str), String> {
        let (whole, _) = text.split_once('#').unwrap_or((text, ""));
        let (scheme, rest) = whole
            .split_once("://")
            .ok_or("it has no scheme; give a complete URL, such as http://localhost:8080/events")?;
        let secure = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ => return Err("its scheme is neither http nor https".into()),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (userinfo, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let Authority { host, zone, port } = Authority::parse(host)?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        let url = Url {
            secure,
            host: host.to_ascii_lowercase(),
            zone,
            port,
            path_and_query: format!("{slash}{path}"),
        };
        url.checked().map(|url| (url, userinfo))
    }

    fn checked(self) -> Result<Self, String> {
        let wrong = |error| format!("{error}; is it percent-encoded?");
        let uri: Uri = self.to_request_uri().parse().map_err(wrong)?;
        // ureq connects to the host that the URI's own parser finds.
        match uri.host() {
            Some(host) if host == self.host_in_uri() => Ok(self),
            _ => Err("its host contains characters that a host can't have".into()),
        }
    }

    /// Resolves a `Location` in the response of this URL (RFC 3986, section 5.2).
    ///
    /// # Errors
    ///
    /// The problem, as text.
    pub(crate) fn join(&self, reference: &str) -> Result<Self, String> {
        let (reference, _) = reference.split_once('#').unwrap_or((reference, ""));
        let scheme = reference.split(['/', '?']).next().unwrap_or_default();
        if scheme.contains(':') {
            return Url::parse(reference).map(|(url, _)| url);
        }
        if reference.starts_with("//") {
            let whole = format!("{}:{reference}", self.scheme());
            return Url::parse(&whole).map(|(url, _)| url);
        }
        let base = self.path();
        let path_and_query = match reference.as_bytes().first() {
            None => self.path_and_query.clone(),
            Some(b'/') => without_dots(reference),
            Some(b'?') => format!("{base}{reference}"),
            Some(_) => {
                let folder = base.rfind('/').map_or("/", |at| &base[..=at]);
                without_dots(&format!("{folder}{reference}"))
            }
        };
        let joined = Url {
            path_and_query,
            ..self.clone()
        };
        joined.checked()
    }

    /// Appends `query` to the URL's own query, if any.
    pub(crate) fn with_query(mut self, query: &str) -> Self {
        let separator = match self.path_and_query.find('?') {
            None => "?",
            Some(_) if self.path_and_query.ends_with(['?', '&']) => "",
            Some(_) => "&",
        };
        self.path_and_query.push_str(separator);
        self.path_and_query.push_str(query);
        self
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Returns the host. An IPv6 address is without its brackets and zone.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn has_zone(&self) -> bool {
        self.zone.is_some()
    }

    /// Returns the port, or the default port of the scheme.
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(if self.secure { 443 } else { 80 })
    }

    fn path(&self) -> &str {
        let path = self.path_and_query.split('?').next();
        path.unwrap_or_default()
    }

    /// Returns `true` if scheme, host and port are the same, so that both may get the same credentials.
    pub(crate) fn same_origin(&self, other: &Url) -> bool {
        let host = |url: &Url| (url.host.clone(), url.zone.clone());
        self.secure == other.secure && self.port() == other.port() && host(self) == host(other)
    }

    /// Returns `true` if the host is this machine, which needs no proxy.
    pub(crate) fn is_loopback(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        self.host == "localhost"
            || address.is_ok_and(|address| address.to_canonical().is_loopback())
    }

    /// Returns the value of `Host`, without the zone, which has no meaning for the server (RFC 6874, section 4).
    pub(crate) fn host_and_port(&self) -> String {
        let host = match self.is_ipv6() {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        format!("{host}{}", self.port_suffix())
    }

    /// Returns the URI for a request.
    pub(crate) fn to_request_uri(&self) -> String {
        let (scheme, host, port) = (self.scheme(), self.host_in_uri(), self.port_suffix());
        format!("{scheme}://{host}{port}{}", self.path_and_query)
    }

    fn host_in_uri(&self) -> String {
        match (&self.zone, self.is_ipv6()) {
            (Some(zone), _) => format!("[{}{ZONE_MARK}{zone}]", self.host),
            (None, true) => format!("[{}]", self.host),
            (None, false) => self.host.clone(),
        }
    }

    fn is_ipv6(&self) -> bool {
        self.host.contains(':')
    }

    /// Returns the port after a colon, or nothing for the default port of the scheme.
    fn port_suffix(&self) -> String {
        let default = if self.secure { 443 } else { 80 };
        let port = self.port.filter(|port| *port != default);
        port.map(|port| format!(":{port}")).unwrap_or_default()
    }
}

/// Writes the URL for messages and logs: without the query, which may contain a secret.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match &self.zone {
            Some(zone) => format!("[{}%25{zone}]", self.host),
            None => self.host_in_uri(),
        };
        let (scheme, port) = (self.scheme(), self.port_suffix());
        write!(f, "{scheme}://{host}{port}{}", self.path())
    }
}

/// Removes the segments `.` and `..` from a path with a query (RFC 3986, section 5.2.4).
fn without_dots(text: &str) -> String {
    let (path, query) = text.split_at(text.find('?').unwrap_or(text.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            ".." => _ = kept.pop(),
            "." => {}
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if last {
            kept.push("");
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap().0
    }

    #[test]
    fn a_url_loses_fragment_and_userinfo_and_gains_a_path() {
        for (given, kept) in [
            ("http://h", "http://h/"),
            ("HTTP://H:80?a=b#c", "http://h/?a=b"),
            ("https://h:443/x", "https://h/x"),
            ("http://u:p@[::1]:8080/x#y?z", "http://[::1]:8080/x"),
            ("http://h:/", "http://h/"),
        ] {
            assert_eq!(url(given).to_request_uri(), kept, "{given}");
        }
        assert_eq!(Url::parse("http://u:p@h/").unwrap().1, "u:p");
    }

    #[test]
    fn a_zone_has_two_forms_and_is_not_sent_to_the_server() {
        for text in [
            "http://[fe80::1%25eth0]:8080/events?key",
            "http://[FE80::1%eth0]:8080/events?key",
        ] {
            let url = url(text);
            assert_eq!(
                url.to_request_uri(),
                "http://[fe80::1~eth0]:8080/events?key"
            );
            assert_eq!(url.host_and_port(), "[fe80::1]:8080");
            assert_eq!(url.to_string(), "http://[fe80::1%25eth0]:8080/events");
            assert!(url.has_zone());
        }
        assert_eq!(
            url("http://[fe80::1%251]/").to_request_uri(),
            "http://[fe80::1~1]/"
        );
        // Here 25 is the zone, not the start of an encoded one.
        assert_eq!(
            url("http://[fe80::1%25]/").to_request_uri(),
            "http://[fe80::1~25]/"
        );
        for text in [
            "http://[fe80::1%]/",
            "http://[fe80::1%25a b]/",
            "http://[fe80::1~eth0]/",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_location_is_resolved_against_the_url_of_the_response() {
        let base = url("http://h:1/a/b?c=d");
        for (location, resolved) in [
            ("http://other/x?y", "http://other/x?y"),
            ("HTTPS://h:1/", "https://h:1/"),
            ("//other:2/x", "http://other:2/x"),
            ("/x?y#z", "http://h:1/x?y"),
            ("?y", "http://h:1/a/b?y"),
            ("x", "http://h:1/a/x"),
            ("../x", "http://h:1/x"),
            ("./x/../y/.", "http://h:1/a/y/"),
            ("/../../x", "http://h:1/x"),
            ("", "http://h:1/a/b?c=d"),
            ("x?to=http://z/..", "http://h:1/a/x?to=http://z/.."),
        ] {
            let joined = base.join(location).unwrap();
            assert_eq!(joined.to_request_uri(), resolved, "{location}");
        }
        for location in ["ftp://h/", "mailto:x", "http://", "/a b", "http://h:x/"] {
            assert!(base.join(location).is_err(), "{location}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let base = url("http://h/a");
        for (other, same) in [
            ("http://H:80/b?c", true),
            ("http://h:81/a", false),
            ("https://h/a", false),
            ("https://h:80/a", false),
            ("http://h.example/a", false),
        ] {
            assert_eq!(base.same_origin(&url(other)), same, "{other}");
        }
    }

    #[test]
    fn loopback_is_an_address_or_localhost() {
        for (text, loopback) in [
            ("http://localhost:1/", true),
            ("http://LOCALHOST/", true),
            ("http://127.0.0.2/", true),
            ("http://[::1]:1/", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://localhost.example/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(url(text).is_loopback(), loopback, "{text}");
        }
    }
}
