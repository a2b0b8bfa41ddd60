//! Origins: their form, and which of them is a request's own.

use super::address;
use super::request::Request;

/// True where the request comes from no page, or from a page that this server has served itself.
///
/// A browser sends `Origin` with every request that is neither GET nor HEAD (the Fetch standard, section 3.2). No page can set
/// `Sec-Fetch-Site`, which says the same where a proxy has changed `Host`.
pub(super) fn is_own(request: &Request) -> bool {
    let mut origins = request.headers().get_all("Origin");
    if request.header("Sec-Fetch-Site") == Some("same-origin") {
        return true;
    }
    let authority = request.authority().unwrap_or_default();
    origins.all(|origin| has_authority(origin, authority))
}

/// True where the origin has this host and port, such as those of `Host`. Which scheme a proxy speaks is not known, so any
/// will do.
fn has_authority(origin: &str, authority: &str) -> bool {
    let Some((scheme, own)) = origin.split_once("://") else {
        return false;
    };
    let usual = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let authority = authority.strip_suffix(usual).unwrap_or(authority);
    !own.is_empty() && own.eq_ignore_ascii_case(authority)
}

/// True where the text is an origin as browsers serialize it (the URL standard, "origin"), or `*`. Browsers compare the whole
/// text, so any other form would never match.
pub(super) fn is_origin(origin: &str) -> bool {
    if matches!(origin, "*" | "null") {
        return true;
    }
    let Some((scheme, rest)) = origin.split_once("://") else {
        return false;
    };
    let (host, port) = address::split_port(rest);
    let is_lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| is_lower(byte) || b"+-.".contains(&byte));
    let is_name = || {
        let is_allowed = |byte| is_lower(byte) || b"-._~!$&'()+;=".contains(&byte);
        !host.is_empty() && host.bytes().all(is_allowed)
    };
    let is_host = address::bracketed(host).is_some() || is_name();
    let is_port = port.is_none_or(|port| {
        let usual = match scheme {
            "http" => 80,
            "https" => 443,
            _ => 0,
        };
        address::port_number(port).is_some_and(|number| number != usual)
    });
    is_scheme && is_host && is_port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_the_form_in_which_browsers_send_it() {
        for origin in [
            "*",
            "null",
            "https://example.com",
            "http://example.com:8080",
            "https://xn--bcher-kva.example",
            "http://127.0.0.1:3000",
            "http://[::1]:3000",
            "http://[::1]",
            "capacitor://localhost",
            "chrome-extension://abcdefghijklmnop",
        ] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in [
            "",
            "example.com",
            "https://",
            "https://example.com/",
            "https://example.com:443",
            "http://example.com:80",
            "http://example.com:080",
            "http://example.com:x",
            "HTTPS://example.com",
            "https://Example.com",
            "https://bücher.example",
            "https://a.example, https://b.example",
            "https://*.example.com",
            " https://example.com",
            "https://example.com\n",
            "https://user@example.com",
            "a\r\nb",
        ] {
            assert!(!is_origin(origin), "{origin}");
        }
    }

    #[test]
    fn an_origin_is_the_requests_own_by_host_and_port_or_by_what_the_browser_says() {
        let own = |host: &str, origins: &[&str], site: Option<&str>| {
            let mut request = Request::new("POST", "/publish").with_header("Host", host);
            for origin in origins {
                request = request.with_added_header("Origin", origin);
            }
            if let Some(site) = site {
                request = request.with_header("Sec-Fetch-Site", site);
            }
            is_own(&request)
        };
        for (host, origin) in [
            ("localhost:8080", "http://localhost:8080"),
            ("LocalHost:8080", "http://localhost:8080"),
            ("page.example", "https://page.example"),
            ("page.example:443", "https://page.example"),
            ("page.example:80", "http://page.example"),
            ("[::1]:8080", "http://[::1]:8080"),
        ] {
            assert!(own(host, &[origin], None), "{host} {origin}");
            assert!(own(host, &[], None), "{host}");
            assert!(!own(host, &[origin, "http://evil.example"], None));
        }
        for (host, origin) in [
            ("localhost:8080", "null"),
            ("localhost:8080", ""),
            ("localhost:8080", "http://localhost"),
            ("localhost:8080", "http://localhost:3000"),
            ("localhost:8080", "http://localhost:8080.evil.example"),
            ("localhost:8080", "http://evil.example"),
            ("page.example:80", "https://page.example"),
            ("", "http://"),
            ("", "http://page.example"),
        ] {
            assert!(!own(host, &[origin], None), "{host} {origin}");
            assert!(!own(host, &[origin], Some("cross-site")));
            assert!(!own(host, &[origin], Some("same-site")));
            assert!(own(host, &[origin], Some("same-origin")));
        }
    }
}
