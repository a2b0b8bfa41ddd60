//! Web pages: which origins and hosts the server serves, and the JavaScript client.

use crate::support;

#[path = "pages/cors.rs"]
mod cors;

use long_polling::server::{Cors, Endpoints, Handler, Request, Response};
use long_polling::{ErrorKind, Server};
use support::{Answer, Connection, info, poll, start};

const A: &str = "https://a.example";
const B: &str = "https://b.example";
const FOREIGN: &str = "https://evil.example";
const BODY: &str = r#"{"category":"c","data":1}"#;

/// One request with these header fields, on a connection of its own.
fn send(server: &Server, method: &str, target: &str, fields: &[&str], body: &str) -> Answer {
    let mut connection = Connection::to(server);
    send_on(&mut connection, method, target, fields, body);
    connection.read(method == "HEAD").expect("an answer")
}

fn send_on(connection: &mut Connection, method: &str, target: &str, fields: &[&str], body: &str) {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    connection.send(format!(
        "{method} {target} HTTP/1.1\r\n{fields}{length}\r\n{body}"
    ));
}

#[test]
fn a_server_on_a_loopback_address_answers_for_loopback_names_and_those_that_are_listed() {
    let loopback = ["localhost", "chat.localhost:1", "127.0.0.1", "[::1]:8080"];
    let foreign = ["evil.example", "192.0.2.1", "localhost.evil.example"];
    let default = || {
        // `info` allows every host.
        let none: [&str; 0] = [];
        info().hosts(none)
    };
    for (settings, allows_foreign) in [
        (default(), false),
        (info().hosts(["app.example"]), false),
        (info().hosts(["*"]), true),
        (default().address("0.0.0.0:0"), true),
    ] {
        let settings = settings
            .browser_client("/client.js")
            .fallback(|_: &Request| Response::new(200));
        let app = format!("{settings:?}").contains("app.example") || allows_foreign;
        let server = start(settings);
        let status = |host: &str, method: &str, target: &str, body: &str| {
            let host = format!("Host: {host}");
            send(&server, method, target, &[&host], body)
        };
        for (method, target, body) in [
            ("GET", &*poll("c", 0, "&since_time=1"), ""),
            ("POST", "/publish", BODY),
            ("OPTIONS", "/publish", ""),
            ("GET", "/client.js", ""),
            ("GET", "/other", ""),
        ] {
            for host in loopback {
                assert!(status(host, method, target, body).status < 300, "{host}");
            }
            for host in foreign {
                let answer = status(host, method, target, body);
                if allows_foreign {
                    assert!(answer.status < 300, "{host} {answer:?}");
                } else {
                    answer.refuses(421, "ServerInfo::hosts");
                }
            }
            let answer = status("app.example:80", method, target, body);
            assert_eq!(answer.status < 300, app, "{answer:?}");
            // The host of a target that is a URL counts.
            let url = format!("http://evil.example{target}");
            let answer = status("localhost", method, &url, body);
            assert_eq!(answer.status < 300, allows_foreign, "{answer:?}");
        }
        let mut old = Connection::to(&server);
        old.send(format!("GET {} HTTP/1.0\r\n\r\n", poll("c", 0, "")));
        assert_eq!(old.receive().status, 204);
    }
}

#[test]
fn a_foreign_host_is_refused_before_the_publish_has_an_effect() {
    let server = start(info().hosts(["app.example"]));
    let mut connection = Connection::to(&server);
    connection.send(
        "POST /publish HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nContent-Length: 100000\r\n\r\n{",
    );
    connection.receive().refuses(421, "evil.example");
    assert_eq!(server.statistics().published, 0);
}

#[test]
fn the_client_is_served_where_it_is_set_and_nowhere_else() {
    let server = start(info().browser_client("/assets/long-polling.js"));
    let get = |method: &str, path: &str, field: &str| {
        let fields = ["Host: t", field];
        let fields = if field.is_empty() {
            &fields[..1]
        } else {
            &fields
        };
        send(&server, method, path, fields, "")
    };
    let path = "/assets/long-polling.js";
    let answer = get("GET", path, "");
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() < 5000, "{} bytes", answer.body.len());
    assert!(answer.text().contains("export async function follow"));
    let tag = answer.header("ETag").unwrap().to_owned();
    for (name, value) in [
        ("Content-Type", "text/javascript; charset=utf-8"),
        ("Cache-Control", "public, max-age=86400"),
        ("X-Content-Type-Options", "nosniff"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    assert!(answer.header("Pragma").is_none() && answer.header("Expires").is_none());
    let head = get("HEAD", path, "");
    assert_eq!((head.status, head.header("ETag")), (200, Some(&*tag)));
    assert_eq!(
        head.header("Content-Length"),
        Some(&*answer.body.len().to_string())
    );
    for known in [
        format!("If-None-Match: {tag}"),
        format!("If-None-Match: W/{tag}"),
        format!("If-None-Match: \"other\", {tag}"),
        "If-None-Match: *".into(),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = get(method, path, &known);
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{known}");
            assert_eq!(answer.header("ETag"), Some(&*tag));
            let caching = answer.header("Cache-Control");
            assert_eq!(caching, Some("public, max-age=86400"));
        }
    }
    let other = get("GET", path, "If-None-Match: \"0\"");
    assert_eq!((other.status, other.body == answer.body), (200, true));
    assert_eq!(get("GET", "/assets/long-polling.js?v=1", "").status, 200);
    let post = get("POST", path, "");
    post.refuses(405, "method");
    assert_eq!(post.header("Allow"), Some("GET, HEAD, OPTIONS"));
    let options = get("OPTIONS", path, "");
    assert_eq!(options.header("Allow"), Some("GET, HEAD, OPTIONS"));
    get("GET", "/assets/long-polling.d.ts", "").refuses(404, "not found");
    let without = start(info());
    send(&without, "GET", path, &["Host: t"], "").refuses(404, "not found");
}

#[test]
fn settings_for_pages_that_cannot_be_used_are_named_with_the_reason() {
    for (settings, words) in [
        (info().cors(Cors::new()), "cors: allows no origin"),
        (
            info().cors(Cors::new().origins([A, "b.example"])),
            "cors: \"b.example\" is not an origin",
        ),
        (
            info().cors(Cors::new().any_origin().credentials(true)),
            "cors: credentials with the origin \"*\"",
        ),
        (
            info().cors(Cors::new().origins([A, "null"]).credentials(true)),
            "cors: credentials with the origin \"null\"",
        ),
        (
            info().cors(Cors::new().origins([A]).allowed_headers(["a", "b c"])),
            "cors: \"b c\" is not the name",
        ),
        (
            info().cors(Cors::new().origins([A]).exposed_headers(["a\r\nb"])),
            "cors: \"a\\r\\nb\" is not the name",
        ),
        (info().cors_origin("x"), "cors_origin: \"x\""),
        (info().hosts(["http://a.example"]), "hosts: \"http://"),
        (info().browser_client("client.js"), "browser_client: "),
        (info().browser_client("/events"), "browser_client: "),
        (info().browser_client("/a/../b.js"), "browser_client: "),
    ] {
        let error = Server::start(settings).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSetting);
        assert!(error.to_string().starts_with(words), "{error}");
    }
}

#[test]
fn endpoints_in_another_server_have_the_same_rules() {
    let settings = info()
        .cors(Cors::new().origins([A, B]))
        .hosts(["app.example"])
        .before_publish(Handler::bearer_token("secret"));
    let endpoints = Endpoints::new(settings).unwrap();
    let publish = |host: &str, origin: &str| {
        let request = Request::new("POST", "/publish")
            .with_header("Host", host)
            .with_header("Origin", origin)
            .with_header("Authorization", "Bearer secret")
            .with_body(BODY);
        let answer = endpoints.answer(request);
        let origin = answer.headers.get("Access-Control-Allow-Origin");
        (answer.status, origin.map(str::to_owned))
    };
    assert_eq!(publish("app.example", A), (200, Some(A.into())));
    assert_eq!(publish("app.example", "https://app.example"), (200, None));
    assert_eq!(publish("app.example", FOREIGN), (403, None));
    assert_eq!(publish("localhost", B), (421, Some(B.into())));
}
