//! [`Proxies`]: which proxy the environment names for a URL, read as curl and Go read it.

use std::env;
use std::net::IpAddr;

use ureq::{Proxy, ProxyProtocol};

use super::url::Url;
use crate::error::Error;

/// A proxy, and how messages name it.
#[derive(Clone, Debug)]
pub(crate) struct Via {
    pub(crate) proxy: Proxy,
    /// Scheme, host and port, and the variable that names it. No user, no password.
    pub(crate) name: String,
}

impl Via {
    /// The proxy of an agent that the caller brought.
    pub(crate) fn of_agent(proxy: &Proxy) -> Self {
        Via {
            name: format!("{} (of the agent given)", address(proxy)),
            proxy: proxy.clone(),
        }
    }
}

fn address(proxy: &Proxy) -> String {
    let scheme = proxy.uri().scheme_str().unwrap_or("http");
    format!("{scheme}://{}:{}", proxy.host(), proxy.port())
}

/// A variable's name, and its value.
type Variable = (&'static str, String);

/// The variables about proxies.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    http: Option<Variable>,
    https: Option<Variable>,
    all: Option<Variable>,
    none: String,
}

impl Proxies {
    pub(crate) fn from_environment() -> Self {
        Proxies::read(|name| env::var(name).ok())
    }

    /// The name in lower case decides, also where it is empty, which means no proxy. `HTTP_PROXY` is not read in a CGI
    /// program, where a request's field `Proxy` sets it.
    fn read(value: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&'static str; 2]| {
            let mut names = names.into_iter();
            names.find_map(|name| value(name).map(|value| (name, value.trim().to_owned())))
        };
        let cgi = value("REQUEST_METHOD").is_some();
        let http = first(["http_proxy", "HTTP_PROXY"]);
        Proxies {
            http: http.filter(|(name, _)| !(cgi && *name == "HTTP_PROXY")),
            https: first(["https_proxy", "HTTPS_PROXY"]),
            all: first(["all_proxy", "ALL_PROXY"]),
            none: first(["no_proxy", "NO_PROXY"])
                .map(|(_, value)| value)
                .unwrap_or_default(),
        }
    }

    /// The proxy for this URL. None for this machine, and for an address of one link.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` that names the variable whose value can't be used.
    pub(crate) fn of(&self, url: &Url) -> Result<Option<Via>, Error> {
        if url.is_loopback() || url.has_zone() || excepts(&self.none, url.host(), url.port()) {
            return Ok(None);
        }
        let own = if url.is_secure() {
            &self.https
        } else {
            &self.http
        };
        match own.as_ref().or(self.all.as_ref()) {
            Some((name, value)) if !value.is_empty() => via(name, value).map(Some),
            _ => Ok(None),
        }
    }
}

fn via(name: &str, value: &str) -> Result<Via, Error> {
    let wrong = |problem: &str| {
        let message = format!(
            "can't use the proxy that the environment variable {name} names: {problem}; mend the \
             variable, or name the server's host in NO_PROXY"
        );
        Error::request(message)
    };
    let proxy = Proxy::new(value)
        .map_err(|_| wrong("it is not a URL such as http://proxy.example.com:3128"))?;
    match proxy.protocol() {
        ProxyProtocol::Http => {}
        ProxyProtocol::Https if cfg!(feature = "tls") => {}
        ProxyProtocol::Https => {
            return Err(wrong(
                "it is an https proxy, and this build has no TLS (feature \"tls\")",
            ));
        }
        _ => {
            let problem = "it is a SOCKS proxy, which needs an agent of your own, with ureq's \
                           feature \"socks-proxy\"";
            return Err(wrong(problem));
        }
    }
    Ok(Via {
        name: format!("{} (named by {name})", address(&proxy)),
        proxy,
    })
}

/// Whether a list such as `NO_PROXY` names this host: `*`, domains with all that is below them, addresses, and networks
/// in CIDR form; a port after a name or address limits it to that port.
fn excepts(list: &str, host: &str, port: u16) -> bool {
    let entries = list.split(|c: char| c == ',' || c.is_whitespace());
    entries
        .filter(|entry| !entry.is_empty())
        .any(|entry| matches(entry, host, port))
}

fn matches(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    let address = host
        .parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical());
    if let Some((network, bits)) = entry.split_once('/') {
        let network = unbracketed(network).parse::<IpAddr>();
        return match (network, bits.parse(), address) {
            (Ok(network), Ok(bits), Some(address)) => contains(network, bits, address),
            _ => false,
        };
    }
    let (name, only) = match entry.rsplit_once(':') {
        // An IPv6 address without brackets has no port.
        _ if entry.parse::<IpAddr>().is_ok() => (entry, None),
        Some((name, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            (name, Some(digits))
        }
        _ => (entry, None),
    };
    if only.is_some_and(|only| only.parse() != Ok(port)) {
        return false;
    }
    let name = unbracketed(name);
    match (name.parse::<IpAddr>(), address) {
        (Ok(one), Some(address)) => one.to_canonical() == address,
        (Ok(_), None) | (Err(_), Some(_)) => false,
        (Err(_), None) => is_below(host, name),
    }
}

fn unbracketed(address: &str) -> &str {
    let inner = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(address)
}

/// Whether the host is the domain, or one below it.
fn is_below(host: &str, domain: &str) -> bool {
    let domain = domain.strip_prefix('*').unwrap_or(domain);
    let domain = domain.strip_prefix('.').unwrap_or(domain);
    let domain = domain
        .strip_suffix('.')
        .unwrap_or(domain)
        .to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    match host.strip_suffix(&domain) {
        Some(before) => !domain.is_empty() && (before.is_empty() || before.ends_with('.')),
        None => false,
    }
}

fn contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let (network, address, width) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (
            u128::from(network.to_bits()),
            u128::from(address.to_bits()),
            32,
        ),
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    // A shift by the whole width leaves nothing to compare.
    let differs = (network ^ address)
        .checked_shr(width - bits.min(width))
        .unwrap_or(0);
    bits <= width && differs == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::read(|name| {
            let mut variables = variables.iter();
            let found = variables.find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    /// Host of the proxy for a URL.
    fn host(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let via = proxies(variables).of(&Url::parse(url).unwrap().0).unwrap();
        via.map(|via| via.proxy.host().to_owned())
    }

    #[test]
    fn each_scheme_has_its_variable_and_all_proxy_serves_both() {
        let both = [
            ("HTTP_PROXY", "http://plain:3128"),
            ("HTTPS_PROXY", "secure:3129"),
        ];
        assert_eq!(host(&both, "http://h/").as_deref(), Some("plain"));
        assert_eq!(host(&both, "https://h/").as_deref(), Some("secure"));
        assert_eq!(host(&both[..1], "https://h/"), None);
        assert_eq!(host(&both[1..], "http://h/"), None);
        let all = [
            ("ALL_PROXY", "http://all"),
            ("https_proxy", "http://secure"),
        ];
        assert_eq!(host(&all, "http://h/").as_deref(), Some("all"));
        assert_eq!(host(&all, "https://h/").as_deref(), Some("secure"));
        assert_eq!(
            host(&[("all_proxy", "all")], "https://h/").as_deref(),
            Some("all")
        );
        assert_eq!(host(&[], "http://h/"), None);
    }

    #[test]
    fn the_name_in_lower_case_wins_and_an_empty_value_is_no_proxy() {
        let two = [
            ("HTTP_PROXY", "http://upper"),
            ("http_proxy", "http://lower"),
        ];
        assert_eq!(host(&two, "http://h/").as_deref(), Some("lower"));
        let empty = [
            ("HTTP_PROXY", "http://upper"),
            ("http_proxy", " "),
            ("ALL_PROXY", "all"),
        ];
        assert_eq!(host(&empty, "http://h/"), None);
    }

    #[test]
    fn a_cgi_program_takes_no_proxy_from_a_field_of_its_request() {
        let cgi = ("REQUEST_METHOD", "GET");
        assert_eq!(
            host(&[cgi, ("HTTP_PROXY", "http://evil")], "http://h/"),
            None
        );
        let lower = [cgi, ("http_proxy", "http://fine")];
        assert_eq!(host(&lower, "http://h/").as_deref(), Some("fine"));
    }

    #[test]
    fn this_machine_and_a_link_local_address_with_its_zone_are_asked_without_a_proxy() {
        let all = [("ALL_PROXY", "http://all")];
        for url in [
            "http://localhost/",
            "https://127.0.0.1/",
            "http://[fe80::1%25eth0]/",
        ] {
            assert_eq!(host(&all, url), None, "{url}");
        }
    }

    #[test]
    fn user_and_password_are_kept_for_the_proxy_and_never_shown() {
        let proxies = proxies(&[("http_proxy", "http://u%40x:hidden@proxy:3128/")]);
        let via = proxies
            .of(&Url::parse("http://h/").unwrap().0)
            .unwrap()
            .unwrap();
        assert_eq!(via.proxy.username(), Some("u@x"));
        assert_eq!(via.name, "http://proxy:3128 (named by http_proxy)");
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_that_names_its_variable() {
        for value in [
            "ftp://u:hidden@h",
            "socks5://u:hidden@h:1080",
            "http://u:hidden@h:x/ y",
        ] {
            let url = Url::parse("http://h/").unwrap().0;
            let error = proxies(&[("ALL_PROXY", value)]).of(&url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{value}");
            let message = error.to_string();
            assert!(
                message.contains("ALL_PROXY") && !message.contains("hidden"),
                "{message}"
            );
        }
    }

    #[test]
    fn hosts_that_need_no_proxy_are_named_in_every_usual_form() {
        for (list, host, port, excepted) in [
            ("*", "h", 80, true),
            ("a, example.com ,b", "example.com", 80, true),
            ("a example.com b", "EXAMPLE.com", 80, true),
            ("example.com", "sub.example.com", 80, true),
            (".example.com", "sub.example.com", 80, true),
            (".example.com", "example.com", 80, true),
            ("*.example.com", "sub.example.com", 80, true),
            ("example.com.", "example.com", 80, true),
            ("example.com", "notexample.com", 80, false),
            ("example.com", "example.com.evil.test", 80, false),
            ("example.com:8080", "example.com", 8080, true),
            ("example.com:8080", "sub.example.com", 8080, true),
            ("example.com:8080", "example.com", 80, false),
            ("10.0.0.1", "10.0.0.1", 80, true),
            ("10.0.0.1:81", "10.0.0.1", 80, false),
            ("10.0.0.1", "10.0.0.11", 80, false),
            ("10.0.0.0/8", "10.255.0.1", 80, true),
            ("10.0.0.0/8", "11.0.0.1", 80, false),
            ("10.0.0.0/33", "10.0.0.0", 80, false),
            ("0.0.0.0/0", "192.0.2.1", 80, true),
            ("0.0.0.0/0", "2001:db8::1", 80, false),
            ("192.168.4.0/22", "192.168.7.255", 80, true),
            ("2001:db8::/32", "2001:db8:1::1", 80, true),
            ("2001:db8::/32", "2001:db9::1", 80, false),
            ("::/0", "2001:db9::1", 80, true),
            ("2001:db8::1", "2001:db8::1", 80, true),
            ("[2001:db8::1]:81", "2001:db8:0::1", 81, true),
            ("[2001:db8::1]:81", "2001:db8::1", 80, false),
            ("0.0.1", "10.0.0.1", 80, false),
            ("", "h", 80, false),
            (" , .,:80", "h", 80, false),
        ] {
            assert_eq!(
                excepts(list, host, port),
                excepted,
                "{list:?} {host} {port}"
            );
        }
    }
}
