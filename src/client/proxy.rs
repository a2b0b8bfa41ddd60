//! [`Proxies`]: the proxies that environment variables name, by the rules of curl and Go.

use std::env;

use ureq::{Proxy, ProxyProtocol};

use super::no_proxy;
use super::url::Url;
use crate::error::Error;

/// A proxy, and its name in messages.
#[derive(Clone, Debug)]
pub(crate) struct NamedProxy {
    pub(crate) proxy: Proxy,
    /// Scheme, host and port, and the variable that names the proxy. Without user and password.
    pub(crate) name: String,
}

impl NamedProxy {
    /// Returns the proxy of the caller's agent.
    pub(crate) fn of_agent(proxy: &Proxy) -> Self {
        NamedProxy {
            name: format!("{} (of the agent given)", address(proxy)),
            proxy: proxy.clone(),
        }
    }
}

fn address(proxy: &Proxy) -> String {
    let scheme = proxy.uri().scheme_str().unwrap_or("http");
    format!("{scheme}://{}:{}", proxy.host(), proxy.port())
}

/// The name of an environment variable, and its value.
type Variable = (&'static str, String);

/// The values of the environment variables for proxies.
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

    /// Reads the variables. The name in lower case takes precedence, even if its value is empty, which means no proxy.
    ///
    /// A CGI program ignores `HTTP_PROXY`, because there the field `Proxy` of a request sets it.
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

    /// Returns the proxy for this URL, or `None` for a loopback or link-local address and the exceptions of `NO_PROXY`.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` that names the variable with an invalid value.
    pub(crate) fn of(&self, url: &Url) -> Result<Option<NamedProxy>, Error> {
        if url.is_loopback()
            || url.has_zone()
            || no_proxy::contains(&self.none, url.host(), url.port())
        {
            return Ok(None);
        }
        let own = if url.is_secure() {
            &self.https
        } else {
            &self.http
        };
        match own.as_ref().or(self.all.as_ref()) {
            Some((name, value)) if !value.is_empty() => parse(name, value).map(Some),
            _ => Ok(None),
        }
    }
}

/// Reads the value of the variable `name`.
fn parse(name: &str, value: &str) -> Result<NamedProxy, Error> {
    let wrong = |problem: &str| {
        let message = format!(
            "can't use the proxy that the environment variable {name} names: {problem}; correct the \
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
    Ok(NamedProxy {
        name: format!("{} (named by {name})", address(&proxy)),
        proxy,
    })
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

    /// Returns the host of the proxy for a URL.
    fn host(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let named = proxies(variables).of(&Url::parse(url).unwrap().0).unwrap();
        named.map(|named| named.proxy.host().to_owned())
    }

    #[test]
    fn each_scheme_has_its_variable_and_all_proxy_is_for_both() {
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
    fn the_name_in_lower_case_takes_precedence_and_an_empty_value_is_no_proxy() {
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
    fn a_cgi_program_takes_no_proxy_from_a_header_field() {
        let cgi = ("REQUEST_METHOD", "GET");
        assert_eq!(
            host(&[cgi, ("HTTP_PROXY", "http://evil")], "http://h/"),
            None
        );
        let lower = [cgi, ("http_proxy", "http://fine")];
        assert_eq!(host(&lower, "http://h/").as_deref(), Some("fine"));
    }

    #[test]
    fn loopback_and_link_local_addresses_need_no_proxy() {
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
    fn user_and_password_are_for_the_proxy_and_not_in_its_name() {
        let proxies = proxies(&[("http_proxy", "http://u%40x:hidden@proxy:3128/")]);
        let named = proxies
            .of(&Url::parse("http://h/").unwrap().0)
            .unwrap()
            .unwrap();
        assert_eq!(named.proxy.username(), Some("u@x"));
        assert_eq!(named.name, "http://proxy:3128 (named by http_proxy)");
    }

    #[test]
    fn an_invalid_proxy_is_an_error_that_names_its_variable() {
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
}
