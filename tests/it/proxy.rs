//! Proxies that the environment names. Variables are a process's own, so each case is this program, run again.

use std::net::TcpListener;
use std::process::Command;

use crate::scripted::{LIMIT, Reply, Server, answer, events};
use long_polling::{Error, PublishRequest, SubscriptionRequest, publish, subscription};

/// What the child asks for, and with whose agent.
const URL: &str = "LONG_POLLING_TEST_URL";
const AGENT: &str = "LONG_POLLING_TEST_AGENT";
const VARIABLES: [&str; 4] = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];

/// Polls and publishes once in a process with these variables, and returns what it has printed.
fn ask(url: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "proxy::asks_and_prints",
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
#[ignore = "the other tests run it, in a process of its own"]
fn asks_and_prints() {
    let Ok(url) = std::env::var(URL) else {
        return;
    };
    let agent = std::env::var(AGENT).map(|_| ureq::Agent::new_with_defaults());
    let agent = agent.as_ref().ok();
    let request = SubscriptionRequest::new("c");
    let polled = subscription(&url, None, &request, None, agent);
    println!("poll: {}", told(polled.map(|response| response.status)));
    let request = PublishRequest::new("c", "data");
    let published = publish(&url, LIMIT, None, &request, None, agent);
    println!(
        "publish: {}",
        told(published.map(|response| response.status))
    );
}

fn told(result: Result<u16, Error>) -> String {
    match result {
        Ok(status) => status.to_string(),
        Err(error) => format!("{:?} {}", error.kind(), error.report()),
    }
}

fn proxy(server: &Server) -> String {
    format!("http://user:p%40ss@{}", server.address)
}

fn both() -> [Reply; 2] {
    [events(&[1]), answer(200, &[], r#"{"success": true}"#)]
}

#[test]
fn http_goes_through_its_proxy_in_absolute_form_with_the_proxys_credentials() {
    let server = Server::start(both());
    let printed = ask(
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
fn all_proxy_serves_http_and_the_list_of_exceptions_is_heeded() {
    let proxy_server = Server::start([]);
    let server = Server::start(both());
    let url = server.url("/events");
    // This machine is asked directly in any case.
    let variables = [("all_proxy", &*proxy(&proxy_server))];
    let printed = ask(&url, &variables);
    assert!(printed.contains("poll: 200"), "{printed}");
    assert_eq!(proxy_server.pending(), 0);

    let proxy_server = Server::start(both());
    let printed = ask(
        "http://192.0.2.1/events",
        &[("ALL_PROXY", &*proxy(&proxy_server))],
    );
    assert!(printed.contains("publish: 200"), "{printed}");
    assert_eq!(proxy_server.request().header("Host"), Some("192.0.2.1"));
}

#[test]
fn a_host_that_needs_no_proxy_is_not_looked_for_there() {
    let proxy_server = Server::start(both());
    let printed = ask(
        "http://events.invalid:8080/events",
        &[
            ("http_proxy", &*proxy(&proxy_server)),
            ("NO_PROXY", "a, .invalid:8080"),
        ],
    );
    assert!(printed.contains("poll: Unreachable"), "{printed}");
    assert_eq!(proxy_server.pending(), 0);
}

#[test]
fn a_proxy_that_is_not_there_is_named_and_not_the_server_blamed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let value = format!("http://user:hidden@{address}");
    let printed = ask("http://events.test/events", &[("http_proxy", &value)]);
    let named = format!("through the proxy http://{address} (named by http_proxy)");
    assert_eq!(printed.matches(&named).count(), 2, "{printed}");
    assert!(printed.contains("was not published"), "{printed}");
    assert!(!printed.contains("hidden") && !printed.contains("the server is running"));
}

#[test]
fn a_proxy_that_wants_credentials_is_named() {
    let refusal = || answer(407, &[("Proxy-Authenticate", "Basic")], "who are you?");
    let server = Server::start([refusal(), refusal()]);
    let value = format!("http://{}", server.address);
    let printed = ask("http://events.test/events", &[("http_proxy", &value)]);
    let named = format!("the proxy {value} (named by http_proxy) refused the request");
    assert_eq!(printed.matches(&named).count(), 2, "{printed}");
    assert!(printed.contains("the event was not published"), "{printed}");
}

#[test]
fn a_variable_that_cannot_be_used_is_an_error_that_names_it() {
    let value = "socks5://user:hidden@127.0.0.1:1080";
    let printed = ask("http://events.test/events", &[("ALL_PROXY", value)]);
    assert!(printed.contains("poll: InvalidRequest"), "{printed}");
    assert!(
        printed.contains("ALL_PROXY") && !printed.contains("hidden"),
        "{printed}"
    );
}

#[test]
fn an_agent_of_the_callers_heeds_the_exceptions_and_asks_by_connect() {
    let refusal = || answer(403, &[], "");
    let server = Server::start([refusal(), refusal()]);
    let value = format!("http://{}", server.address);
    let variables = [("http_proxy", &*value), (AGENT, "own")];
    let printed = ask("http://events.test/events", &variables);
    assert!(printed.contains("(named by http_proxy)"), "{printed}");
    let sent = server.request();
    assert_eq!(
        (&*sent.method, &*sent.target),
        ("CONNECT", "events.test:80")
    );

    let server = Server::start(both());
    let url = server.url("/events");
    let variables = [("http_proxy", "http://127.0.0.1:1"), (AGENT, "own")];
    let printed = ask(&url, &variables);
    assert!(printed.contains("poll: 200"), "{printed}");
}

#[cfg(feature = "tls")]
#[test]
fn https_goes_through_its_proxy_by_connect() {
    let refusal = || answer(403, &[], "");
    let server = Server::start([refusal(), refusal()]);
    let printed = ask(
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
