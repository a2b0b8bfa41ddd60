//! Proxies that environment variables name. Each case runs in a child process with its own environment.

use std::process::Command;

use crate::ports::ClosedPort;
use crate::scripted::{LIMIT, ScriptedServer, Step, events, published, response};
use long_polling::{Error, PublishRequest, SubscriptionRequest, publish, subscription};

/// The variables by which the child gets the URL, and whether to use an agent of its own.
const URL: &str = "LONG_POLLING_TEST_URL";
const AGENT: &str = "LONG_POLLING_TEST_AGENT";
const VARIABLES: [&str; 4] = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];

/// Polls and publishes once in a child process with these variables, and returns its output.
fn run_child(url: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "proxy::polls_and_publishes",
        "--exact",
        "--ignored",
        "--nocapture",
    ]);
    for name in VARIABLES {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command.env(URL, url).envs(variables.iter().copied());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "the other tests run it in a child process"]
fn polls_and_publishes() {
    let Ok(url) = std::env::var(URL) else {
        return;
    };
    let agent = std::env::var(AGENT).map(|_| ureq::Agent::new_with_defaults());
    let agent = agent.as_ref().ok();
    let request = SubscriptionRequest::new("c");
    let polled = subscription(&url, None, &request, None, agent);
    println!("poll: {}", outcome(polled.map(|response| response.status)));
    let request = PublishRequest::new("c", "data");
    let published = publish(&url, LIMIT, None, &request, None, agent);
    println!(
        "publish: {}",
        outcome(published.map(|response| response.status))
    );
}

fn outcome(result: Result<u16, Error>) -> String {
    match result {
        Ok(status) => status.to_string(),
        Err(error) => format!("{:?} {}", error.kind(), error.report()),
    }
}

fn proxy(server: &ScriptedServer) -> String {
    format!("http://user:p%40ss@{}", server.address)
}

fn both() -> [Step; 2] {
    [events(&[1]), published()]
}

#[test]
fn http_uses_its_proxy_in_absolute_form_with_the_proxys_credentials() {
    let server = ScriptedServer::start(both());
    let printed = run_child(
        "http://events.test:8080/events?a=b",
        &[("HTTP_PROXY", &proxy(&server))],
    );
    assert!(
        printed.contains("poll: 200") && printed.contains("publish: 200"),
        "{printed}"
    );
    let (poll, publish) = (server.request(), server.request());
    assert_eq!(
        (&*poll.method, &*poll.target),
        (
            "GET",
            "http://events.test:8080/events?a=b&timeout=60&category=c"
        )
    );
    assert_eq!(
        (&*publish.method, &*publish.target),
        ("POST", "http://events.test:8080/events?a=b")
    );
    assert_eq!(publish.body, r#"{"category":"c","data":"data"}"#);
    for sent in [&poll, &publish] {
        assert_eq!(sent.header("Host"), Some("events.test:8080"));
        assert_eq!(
            sent.header("Proxy-Authorization"),
            Some("Basic dXNlcjpwQHNz")
        );
        assert_eq!(sent.connection, 0, "one connection serves both");
    }
}

#[test]
fn all_proxy_is_for_http_too_and_loopback_has_no_proxy() {
    let proxy_server = ScriptedServer::start([]);
    let server = ScriptedServer::start(both());
    let url = server.url("/events");
    let variables = [("all_proxy", &*proxy(&proxy_server))];
    let printed = run_child(&url, &variables);
    assert!(printed.contains("poll: 200"), "{printed}");
    assert_eq!(proxy_server.count_requests(), 0);

    let proxy_server = ScriptedServer::start(both());
    let printed = run_child(
        "http://192.0.2.1/events",
        &[("ALL_PROXY", &*proxy(&proxy_server))],
    );
    assert!(printed.contains("publish: 200"), "{printed}");
    assert_eq!(proxy_server.request().header("Host"), Some("192.0.2.1"));
}

#[test]
fn a_host_in_no_proxy_is_not_requested_from_the_proxy() {
    let proxy_server = ScriptedServer::start(both());
    let server = ScriptedServer::start(both());
    // Of this machine, but no loopback address, and no name for which DNS is asked.
    let host = format!("0.0.0.0:{}", server.address.port());
    let printed = run_child(
        &format!("http://{host}/events"),
        &[
            ("http_proxy", &*proxy(&proxy_server)),
            ("NO_PROXY", &*format!("a, {host}")),
        ],
    );
    assert!(
        printed.contains("poll: 200") && printed.contains("publish: 200"),
        "{printed}"
    );
    assert_eq!(proxy_server.count_requests(), 0);
}

#[test]
fn an_error_names_an_unreachable_proxy_and_not_the_server() {
    let port = ClosedPort::new();
    let address = port.address;
    let value = format!("http://user:hidden@{address}");
    let printed = run_child("http://events.test/events", &[("http_proxy", &value)]);
    let named = format!("through the proxy http://{address} (named by http_proxy)");
    assert_eq!(printed.matches(&named).count(), 2, "{printed}");
    assert!(printed.contains("was not published"), "{printed}");
    assert!(!printed.contains("hidden") && !printed.contains("the server is running"));
}

#[test]
fn an_error_names_a_proxy_that_requires_credentials() {
    let refusal = || response(407, &[("Proxy-Authenticate", "Basic")], "who are you?");
    let server = ScriptedServer::start([refusal(), refusal()]);
    let value = format!("http://{}", server.address);
    let printed = run_child("http://events.test/events", &[("http_proxy", &value)]);
    let named = format!("the proxy {value} (named by http_proxy) refused the request");
    assert_eq!(printed.matches(&named).count(), 2, "{printed}");
    assert!(printed.contains("the event was not published"), "{printed}");
}

#[test]
fn an_error_names_an_invalid_variable() {
    let value = "socks5://user:hidden@127.0.0.1:1080";
    let printed = run_child("http://events.test/events", &[("ALL_PROXY", value)]);
    assert!(printed.contains("poll: InvalidRequest"), "{printed}");
    assert!(
        printed.contains("ALL_PROXY") && !printed.contains("hidden"),
        "{printed}"
    );
}

#[test]
fn the_callers_agent_follows_no_proxy_and_uses_connect() {
    let refusal = || response(403, &[], "");
    let server = ScriptedServer::start([refusal(), refusal()]);
    let value = format!("http://{}", server.address);
    let variables = [("http_proxy", &*value), (AGENT, "own")];
    let printed = run_child("http://events.test/events", &variables);
    assert!(printed.contains("(named by http_proxy)"), "{printed}");
    let sent = server.request();
    assert_eq!(
        (&*sent.method, &*sent.target),
        ("CONNECT", "events.test:80")
    );

    let server = ScriptedServer::start(both());
    let url = server.url("/events");
    let variables = [("http_proxy", "http://127.0.0.1:1"), (AGENT, "own")];
    let printed = run_child(&url, &variables);
    assert!(printed.contains("poll: 200"), "{printed}");
}

#[cfg(feature = "tls")]
#[test]
fn https_uses_its_proxy_by_connect() {
    let refusal = || response(403, &[], "");
    let server = ScriptedServer::start([refusal(), refusal()]);
    let printed = run_child(
        "https://events.test/events",
        &[("HTTPS_PROXY", &proxy(&server))],
    );
    assert!(
        printed.contains("(named by HTTPS_PROXY)") && printed.contains("403"),
        "{printed}"
    );
    let sent = server.request();
    assert_eq!(
        (&*sent.method, &*sent.target),
        ("CONNECT", "events.test:443")
    );
    assert_eq!(
        sent.header("Proxy-Authorization"),
        Some("Basic dXNlcjpwQHNz")
    );
}
