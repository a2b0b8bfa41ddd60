//! Which pages of other origins may read an answer, and which may publish.

use std::time::Duration;

use long_polling::server::{Cors, Fallback, Request, Response};
use long_polling::{BrokerOptions, Server, ServerInfo};

use super::{A, B, BODY, FOREIGN, send, send_on};
use crate::support::{Answer, Connection, info, poll, start, until_parked};

/// The fields of answers that a page may read by default.
const EXPOSED: &str =
    "Idempotency-Replayed, Idempotency-Window, Last-Event-ID, Preference-Applied, Retry-After";

/// The header fields of a page's request.
fn from_page(origin: Option<&str>) -> Vec<String> {
    let mut fields = vec!["Host: server.example".to_owned()];
    fields.extend(origin.map(|origin| format!("Origin: {origin}")));
    fields
}

fn ask_as(server: &Server, method: &str, target: &str, origin: Option<&str>, body: &str) -> Answer {
    let fields = from_page(origin);
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    send(server, method, target, &fields, body)
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("Access-Control-Allow-Origin")
}

fn preflight(server: &Server, target: &str, origin: &str, more: &[&str]) -> Answer {
    let origin = format!("Origin: {origin}");
    let fields = [
        "Host: server.example",
        &origin,
        "Access-Control-Request-Method: PUT",
    ];
    send(server, "OPTIONS", target, &[&fields[..], more].concat(), "")
}

#[test]
fn each_answer_names_the_origin_that_the_policy_allows_and_varies_where_it_depends_on_it() {
    type Expected<'a> = fn(Option<&'a str>) -> Option<&'a str>;
    let of_list: Expected<'_> = |origin| origin.filter(|origin| [A, B].contains(origin));
    let policies: [(Cors, bool, Expected<'_>); 5] = [
        (Cors::new().any_origin(), false, |_| Some("*")),
        (Cors::new().origins([A]), false, |_| Some(A)),
        (Cors::new().origins([A, B]), true, of_list),
        (
            Cors::new().origin_predicate(|origin| [A, B].contains(&origin)),
            true,
            of_list,
        ),
        (
            Cors::new()
                .origins([A])
                .origin_predicate(|origin| origin == B || panic!("on purpose")),
            true,
            of_list,
        ),
    ];
    for (policy, varies, expected) in policies {
        for credentials in [false, true] {
            let policy = policy.clone().credentials(credentials);
            let any = expected(None) == Some("*");
            if credentials && any {
                continue;
            }
            let server = start(
                info()
                    .cors(policy)
                    .browser_client("/client.js")
                    .before_subscription(|request: &Request| match request.category() {
                        Some("secret") => Err(Response::error(401, "no")),
                        _ => Ok(()),
                    })
                    .fallback(|_: &Request| Response::text(200, "well")),
            );
            server.publish("c", "x").unwrap();
            for origin in [None, Some(A), Some(B), Some(FOREIGN), Some("null")] {
                let fields = from_page(origin);
                let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
                let mut connection = Connection::to(&server);
                for (method, target, body) in [
                    ("GET", &*poll("c", 1, "&since_time=1"), ""),
                    ("HEAD", &*poll("c", 1, "&since_time=1"), ""),
                    ("GET", &*poll("other", 0, ""), ""),
                    ("GET", &*poll("secret", 0, ""), ""),
                    ("GET", "/events", ""),
                    ("PUT", "/events", ""),
                    ("POST", "/publish", BODY),
                    ("POST", "/publish", "no JSON"),
                    ("GET", "/client.js", ""),
                    ("GET", "/other", ""),
                    ("OPTIONS", "/events", ""),
                    ("OPTIONS", "/other", ""),
                ] {
                    send_on(&mut connection, method, target, &fields, body);
                    let answer = connection.read(method == "HEAD").expect("an answer");
                    let case = format!("{method} {target} of {origin:?}: {answer:?}");
                    let expected = expected(origin);
                    assert_eq!(allowed(&answer), expected, "{case}");
                    assert_eq!(answer.header("Vary"), varies.then_some("Origin"), "{case}");
                    let credentials = (credentials && expected.is_some()).then_some("true");
                    let sent = answer.header("Access-Control-Allow-Credentials");
                    assert_eq!(sent, credentials, "{case}");
                    let exposed = answer.header("Access-Control-Expose-Headers");
                    let names = expected.map(|_| EXPOSED);
                    assert_eq!(exposed, names, "{case}");
                }
            }
        }
    }
}

#[test]
fn a_publish_by_a_page_of_a_foreign_origin_is_refused_and_has_no_effect() {
    let listed = Cors::new().origins([A, B]);
    for (cors, also) in [
        (None, &[][..]),
        (Some(listed), &[A, B]),
        (Some(Cors::new().origins([A])), &[A]),
        (Some(Cors::new().any_origin()), &[A, B, FOREIGN, "null", ""]),
    ] {
        let settings = match cors {
            Some(cors) => info().cors(cors),
            None => info(),
        };
        let server = start(settings);
        let mut published = 0;
        for origin in [A, B, FOREIGN, "null", "", "http://server.example:8080"] {
            let answer = ask_as(&server, "POST", "/publish", Some(origin), BODY);
            if also.contains(&origin) || also.contains(&FOREIGN) {
                assert_eq!(answer.status, 200, "{origin:?} {answer:?}");
                published += 1;
            } else {
                assert_eq!(answer.status, 403, "{origin:?}");
                for words in [origin, "ServerInfo::cors", "server.example"] {
                    assert!(answer.text().contains(words), "{answer:?}");
                }
            }
        }
        for origin in [
            None,
            Some("http://server.example"),
            Some("https://server.example"),
        ] {
            let answer = ask_as(&server, "POST", "/publish", origin, BODY);
            assert_eq!(answer.status, 200, "{origin:?} {answer:?}");
            published += 1;
        }
        assert_eq!(server.statistics().published, published);
    }
}

#[test]
fn what_the_browser_says_of_the_site_decides_where_a_proxy_has_changed_the_host() {
    let server = start(info());
    for (site, status) in [
        ("same-origin", 200),
        ("same-site", 403),
        ("cross-site", 403),
        ("none", 403),
    ] {
        let site = format!("Sec-Fetch-Site: {site}");
        let fields = ["Host: upstream", "Origin: https://server.example", &site];
        let answer = send(&server, "POST", "/publish", &fields, BODY);
        assert_eq!(answer.status, status, "{site}");
    }
}

/// A poll that deletes what it finds: a page can have the browser send one as the address of an image.
#[test]
fn a_retrieval_that_deletes_is_refused_to_a_page_of_a_foreign_site() {
    let options = BrokerOptions::new().delete_after_first_retrieval(true);
    let server = start(info().broker(options).cors(Cors::new().origins([A])));
    server.publish("c", "job").unwrap();
    let target = poll("c", 0, "&since_time=1");
    let ask = |method: &str, fields: &[&str]| {
        let fields = [&["Host: server.example"], fields].concat();
        send(&server, method, &target, &fields, "")
    };
    let foreign = format!("Origin: {FOREIGN}");
    for fields in [
        &["Sec-Fetch-Site: cross-site"][..],
        &["Sec-Fetch-Site: same-site"],
        &["Sec-Fetch-Site: cross-site", &foreign],
        &[&foreign],
    ] {
        ask("GET", fields).refuses(403, "retrieve events here");
        // This deletes nothing.
        assert_eq!(ask("HEAD", fields).status, 200);
    }
    let allowed = format!("Origin: {A}");
    for fields in [
        &[][..],
        &["Sec-Fetch-Site: none"],
        &["Sec-Fetch-Site: same-origin"],
        &["Sec-Fetch-Site: cross-site", &allowed],
    ] {
        assert_eq!(ask("GET", fields).data(), ["job"], "{fields:?}");
        server.publish("c", "job").unwrap();
    }
    // Other polls have no effect, so that only CORS decides whether the page reads the answer.
    let server = start(info());
    server.publish("c", "news").unwrap();
    let fields = ["Host: server.example", "Sec-Fetch-Site: cross-site"];
    assert_eq!(send(&server, "GET", &target, &fields, "").data(), ["news"]);
}

#[test]
fn a_foreign_publish_is_refused_before_its_body_is_read_and_before_the_hook() {
    let server = start(info().before_publish(|_: &Request| panic!("the hook runs")));
    let mut connection = Connection::to(&server);
    connection.send(
        "POST /publish HTTP/1.1\r\nHost: t\r\nOrigin: null\r\nContent-Length: 100000\r\n\r\n{",
    );
    connection.receive().refuses(403, "\"null\"");
}

#[test]
fn a_preflight_permits_what_is_set_or_what_is_asked_for() {
    let asks = ["Access-Control-Request-Headers: x-one,x-two"];
    let server = start(info().cors(Cors::new().origins([A, B])));
    let answer = preflight(&server, "/publish", A, &asks);
    for (name, value) in [
        ("Allow-Origin", A),
        ("Allow-Methods", "POST, DELETE, OPTIONS"),
        ("Allow-Headers", "x-one,x-two"),
        ("Max-Age", "7200"),
    ] {
        let name = format!("Access-Control-{name}");
        assert_eq!(answer.header(&name), Some(value));
    }
    let cors = Cors::new()
        .origins([A])
        .allowed_headers(["Authorization", "Content-Type"])
        .exposed_headers(["X-Shown"])
        .max_age(Duration::from_secs(5));
    let server = start(info().cors(cors));
    for asks in [&asks[..], &[]] {
        let answer = preflight(&server, "/publish", A, asks);
        let headers = answer.header("Access-Control-Allow-Headers");
        assert_eq!(headers, Some("Authorization, Content-Type"));
        assert_eq!(answer.header("Access-Control-Max-Age"), Some("5"));
        let exposed = answer.header("Access-Control-Expose-Headers");
        assert_eq!(exposed, Some(&*format!("{EXPOSED}, X-Shown")));
    }
    assert_eq!(
        allowed(&preflight(&server, "/publish", FOREIGN, &[])),
        Some(A)
    );
}

#[test]
fn a_preflight_for_a_path_of_the_fallback_is_answered_by_the_server_unless_the_fallback_takes_it() {
    let fallback = || {
        Fallback::new(|request| match request.method() {
            "OPTIONS" => Response::new(204).with_header("Access-Control-Allow-Methods", "GET"),
            _ => Response::text(200, "well"),
        })
    };
    let methods = |settings: ServerInfo, origin: &str| {
        let answer = preflight(&start(settings), "/other", origin, &[]);
        let methods = answer.header("Access-Control-Allow-Methods");
        (answer.status, methods.map(str::to_owned))
    };
    let cors = || Cors::new().origins([A, B]);
    let put = (204, Some("PUT".into()));
    let get = (204, Some("GET".into()));
    assert_eq!(methods(info().cors(cors()).fallback(fallback()), A), put);
    assert_eq!(methods(info().cors(cors()), B), put);
    assert_eq!(
        methods(info().cors(cors()).fallback(fallback()), FOREIGN),
        get
    );
    let takes = fallback().with_preflight();
    assert_eq!(methods(info().cors(cors()).fallback(takes), A), get);
    assert_eq!(methods(info().fallback(fallback()), A), get);
    // OPTIONS of a client that is no browser.
    let server = start(info().cors(cors()).fallback(fallback()));
    let answer = ask_as(&server, "OPTIONS", "/other", Some(A), "");
    let methods = answer.header("Access-Control-Allow-Methods");
    assert_eq!(methods, Some("GET"));
}

#[test]
fn subscribers_of_several_origins_that_share_a_batch_get_each_their_own() {
    let server = start(info().cors(Cors::new().origins([A, B]).credentials(true)));
    let origins = [A, B, FOREIGN, "", A, B, A];
    let mut parked = Vec::new();
    for origin in origins {
        let fields = from_page(Some(origin).filter(|origin| !origin.is_empty()));
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let mut connection = Connection::to(&server);
        send_on(&mut connection, "GET", &poll("c", 60, ""), &fields, "");
        parked.push(connection);
    }
    until_parked(&server, origins.len());
    server.publish("c", "for all").unwrap();
    for (connection, origin) in parked.iter_mut().zip(origins) {
        let answer = connection.receive();
        assert_eq!(answer.data(), ["for all"]);
        let own = Some(origin).filter(|origin| [A, B].contains(origin));
        assert_eq!(allowed(&answer), own);
        assert_eq!(answer.header("Vary"), Some("Origin"));
    }
}

#[test]
fn a_field_of_a_hook_stays_and_vary_gets_one_more_name() {
    let custom = |vary: &'static str| {
        move |_: &Request| {
            Err(Response::error(403, "no")
                .with_header("Access-Control-Allow-Origin", "*")
                .with_header("Vary", vary))
        }
    };
    for (vary, expected) in [
        ("Accept", "Accept, Origin"),
        ("accept, origin", "accept, origin"),
        ("*", "*"),
    ] {
        let cors = Cors::new().origins([A, B]).credentials(true);
        let server = start(info().cors(cors).before_subscription(custom(vary)));
        let answer = ask_as(&server, "GET", &poll("c", 0, ""), Some(A), "");
        assert_eq!(allowed(&answer), Some("*"));
        assert_eq!(answer.header("Access-Control-Allow-Credentials"), None);
        assert_eq!(answer.header("Vary"), Some(expected));
    }
}

#[test]
fn refusals_of_the_backend_can_be_read_by_the_page() {
    let broker = BrokerOptions::new().max_event_size(10);
    let cors = Cors::new().origins([A, B]);
    let server = start(info().broker(broker).cors(cors));
    let large = "x".repeat(20_000);
    let answer = ask_as(&server, "POST", "/publish", Some(A), &large);
    assert_eq!((answer.status, allowed(&answer)), (413, Some(A)));
    let fields = ["Host: t", "Host: t", "Origin: https://a.example"];
    let answer = send(&server, "GET", "/events", &fields, "");
    assert_eq!((answer.status, allowed(&answer)), (400, Some(A)));
}
