//! The hooks of an embedding program: handlers before polls and publishes, the fallback, and CORS.

use crate::support;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use long_polling::server::{Fallback, Handler, Network, Request, Response};
use long_polling::{Server, ServerInfo};
use support::{
    Answer, Connection, IS_NATIVE, LIMIT, ask, buffered, get, info, poll, publish, start, until,
    until_parked,
};

const BODY: &str = r#"{"category":"c","data":{ "a":1 }}"#;

/// A handler that lets everything pass and remembers what it saw.
fn watching() -> (Handler, Arc<Mutex<Vec<Request>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let handler = Handler::new(move |request| {
        log.lock().unwrap().push(request.clone());
        Ok(())
    });
    (handler, seen)
}

#[test]
fn handlers_see_the_whole_request() {
    let (before_poll, polls) = watching();
    let (before_publish, publishes) = watching();
    let server = start(
        info()
            .before_subscription(before_poll)
            .before_publish(before_publish),
    );
    let mut connection = Connection::to(&server);
    let remote = connection.stream().local_addr().unwrap();
    connection.send(
        "GET /%65vents?category=a+b&category=%C3%A9&timeout=0&x=%31 HTTP/1.1\r\nHost: t\r\nX-Name: one\r\nx-name: two\r\n\r\n",
    );
    assert_eq!(connection.receive().status, 204);
    let length = BODY.len();
    connection.send(format!(
        "POST /publish?who=me HTTP/1.1\r\nHost: t\r\nX-Name: three\r\nContent-Length: {length}\r\n\r\n{BODY}"
    ));
    assert_eq!(connection.receive().status, 200);

    let polls = polls.lock().unwrap();
    let [poll] = &polls[..] else {
        panic!("{polls:?}")
    };
    assert_eq!((poll.method(), poll.path()), ("GET", "/events"));
    assert_eq!(poll.query(), "category=a+b&category=%C3%A9&timeout=0&x=%31");
    assert_eq!(poll.categories().iter().collect::<Vec<_>>(), ["a b", "é"]);
    assert_eq!((poll.category(), poll.data()), (Some("a b"), None));
    let names: Vec<&str> = poll.headers().get_all("X-NAME").collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(poll.remote_address(), Some(remote));

    let publishes = publishes.lock().unwrap();
    let [publish] = &publishes[..] else {
        panic!("{publishes:?}")
    };
    assert_eq!((publish.method(), publish.path()), ("POST", "/publish"));
    assert_eq!(publish.query(), "who=me");
    assert_eq!(publish.category(), Some("c"));
    assert_eq!(publish.data(), Some(r#"{ "a":1 }"#));
    assert_eq!(publish.header("x-name"), Some("three"));
    assert_eq!(publish.remote_address(), Some(remote));
}

#[test]
fn a_handler_refuses_with_its_own_answer_and_nothing_happens() {
    let refuse = |_: &Request| {
        let refusal = Response::html(451, "<p>no</p>")
            .with_header("X-Why", "law")
            .with_header("Cache-Control", "max-age=60");
        Err(refusal)
    };
    let server = start(
        info()
            .before_subscription(Handler::new(refuse))
            .before_publish(Handler::new(refuse)),
    );
    server.publish("c", "kept").unwrap();
    let check = |answer: Answer| {
        assert_eq!((answer.status, answer.text()), (451, "<p>no</p>"));
        assert_eq!(answer.header("X-Why"), Some("law"));
        assert_eq!(
            answer.header("Content-Type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(answer.header("Cache-Control"), Some("max-age=60"));
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(answer.header("Last-Event-ID"), None);
    };
    check(get(&server, &poll("c", 60, "")));
    check(get(&server, &poll("c", 60, "&since_time=1")));
    check(publish(&server, BODY));
    let head = ask(&server, "HEAD", &poll("c", 60, "&since_time=1"));
    assert_eq!((head.status, head.header("Last-Event-ID")), (451, None));
    let statistics = server.statistics();
    assert_eq!((statistics.published, statistics.parked), (1, 0));
    assert_eq!((statistics.delivered, statistics.refused), (0, 4));
}

#[test]
fn a_field_that_a_hook_sets_replaces_ours_and_an_added_one_keeps_the_others() {
    let custom = |response: Response| {
        response
            .with_header("content-type", "application/problem+json")
            .with_header("Access-Control-Allow-Origin", "https://other.example")
            .with_header("access-control-expose-headers", "X-Other")
            .with_header("X-Content-Type-Options", "other")
            .with_header("Vary", "Origin")
            .with_header("Vary", "Accept")
            .with_header("Expires", "1")
            .with_header("Last-Event-ID", "other")
            .with_header("Date", "yesterday")
            .with_header("Connection", "upgrade")
            .with_header("Keep-Alive", "timeout=1")
            .with_header("Content-Length", "1")
            .with_header("Transfer-Encoding", "chunked")
            .with_added_header("Set-Cookie", "a=1")
            .with_added_header("set-cookie", "b=2")
            // A second value, which no message may have, by way of `add`.
            .with_added_header("Content-Type", "text/csv")
    };
    let refuse = Handler::new(move |_| Err(custom(Response::error(403, "no"))));
    let server = start(
        info()
            .cors_origin("https://page.example")
            .before_subscription(refuse.clone())
            .before_publish(refuse)
            .fallback(Fallback::new(move |_| custom(Response::json(403, "no")))),
    );
    let streamed = format!(r#"{{"category":"c","data":"{}"}}"#, "x".repeat(5000));
    for answer in [
        get(&server, &poll("c", 0, "")),
        publish(&server, BODY),
        publish(&server, streamed),
        get(&server, "/other"),
    ] {
        // `header` asserts that a field does not come twice.
        for (name, value) in [
            ("Content-Type", Some("text/csv")),
            ("Access-Control-Allow-Origin", Some("https://other.example")),
            ("Access-Control-Expose-Headers", Some("X-Other")),
            ("X-Content-Type-Options", Some("other")),
            ("Vary", Some("Accept")),
            ("Cache-Control", Some("no-cache, no-store, must-revalidate")),
            ("Pragma", Some("no-cache")),
            ("Expires", Some("1")),
            ("Last-Event-ID", Some("other")),
            ("Connection", None),
            ("Keep-Alive", None),
            ("Transfer-Encoding", None),
            ("Content-Length", Some(&*answer.body.len().to_string())),
        ] {
            assert_eq!(answer.header(name), value, "{name} of {answer:?}");
        }
        assert!(answer.header("Date").unwrap().ends_with(" GMT"));
        let cookies = answer.headers.iter();
        let cookies = cookies.filter(|(name, _)| name.eq_ignore_ascii_case("Set-Cookie"));
        assert_eq!(
            cookies.map(|(_, value)| value).collect::<Vec<_>>(),
            ["a=1", "b=2"]
        );
    }
}

#[test]
fn handlers_run_only_for_valid_requests() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = runs.clone();
    let counting = Handler::new(move |_| {
        counter.fetch_add(1, SeqCst);
        Ok(())
    });
    let server = start(
        info()
            .before_subscription(counting.clone())
            .before_publish(counting),
    );
    get(&server, "/events?category=c").refuses(400, "timeout");
    publish(&server, r#"{"category":"","data":1}"#).refuses(400, "category");
    ask(&server, "PUT", "/publish").refuses(405, "method");
    assert_eq!(ask(&server, "OPTIONS", "/events").status, 204);
    assert_eq!(runs.load(SeqCst), 0);
    assert_eq!(publish(&server, BODY).status, 200);
    assert_eq!(runs.load(SeqCst), 1);
}

#[test]
fn a_panic_in_a_hook_is_a_500_and_the_server_goes_on() {
    let panics_for_x = |request: &Request| {
        assert!(!request.query().contains("panic"), "on purpose");
        Ok(())
    };
    let server = start(
        info()
            .before_subscription(Handler::new(panics_for_x))
            .before_publish(Handler::new(move |request| {
                assert!(request.category() != Some("panic"), "on purpose");
                Ok(())
            }))
            .fallback(Fallback::new(|_| panic!("on purpose"))),
    );
    let mut connection = Connection::to(&server);
    for _ in 0..5 {
        connection.ask("GET", &poll("c", 60, "&panic"));
        connection.receive().refuses(500, "internal error");
        connection.publish(r#"{"category":"panic","data":1}"#);
        connection.receive().refuses(500, "internal error");
        connection.ask("GET", "/page");
        connection.receive().refuses(500, "internal error");
        connection.publish(BODY);
        assert_eq!(connection.receive().status, 200);
    }
    assert_eq!(server.statistics().published, 5);
}

fn authorized(server: &Server, target: &str, authorization: &str) -> Answer {
    let mut connection = Connection::to(server);
    connection.send(format!(
        "GET {target} HTTP/1.1\r\nHost: t\r\nAuthorization: {authorization}\r\n\r\n"
    ));
    connection.receive()
}

#[test]
fn basic_authentication_is_asked_for_and_granted() {
    let server = start(info().before_subscription(Handler::basic_auth("ännä", "se:cret")));
    let target = poll("c", 0, "");
    let refused = get(&server, &target);
    refused.refuses(401, "unauthorized");
    let challenge = refused.header("WWW-Authenticate").unwrap();
    assert!(challenge.starts_with("Basic realm="), "{challenge}");
    let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
    assert_eq!(
        authorized(&server, &target, &basic("ännä:se:cret")).status,
        204
    );
    for wrong in ["ännä:secret", "ännä:", ":", "", "ännä:se:cret2"] {
        let answer = authorized(&server, &target, &basic(wrong));
        answer.refuses(401, "unauthorized");
    }
    // The other endpoint has no handler.
    assert_eq!(publish(&server, BODY).status, 200);
}

#[test]
fn a_bearer_token_is_asked_for_and_granted() {
    let server = start(
        info()
            .before_subscription(Handler::bearer_token("secret"))
            .before_publish(Handler::bearer_token("other")),
    );
    let target = poll("c", 0, "");
    for right in ["Bearer secret", "bearer  secret"] {
        assert_eq!(authorized(&server, &target, right).status, 204);
    }
    for wrong in [
        "Bearer",
        "Bearer Secret",
        "Bearer secret2",
        "Basic secret",
        "secret",
    ] {
        let answer = authorized(&server, &target, wrong);
        answer.refuses(401, "unauthorized");
        assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
    }
    publish(&server, BODY).refuses(401, "unauthorized");
    assert_eq!(server.statistics().published, 0);
}

#[test]
fn a_publish_without_the_right_is_refused_before_its_body_comes() {
    let server = start(info().before_publish(Handler::bearer_token("secret")));
    for framing in [
        "Content-Length: 5000",
        "Content-Length: 31000000",
        "Transfer-Encoding: chunked",
        "Content-Length: 5000\r\nExpect: 100-continue",
    ] {
        let head = format!("POST /publish HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n");
        let mut connection = Connection::to(&server);
        connection.send(head);
        connection.receive().refuses(401, "unauthorized");
    }
    // The body that was not read is not taken for a request that is served.
    let length = BODY.len();
    let mut connection = Connection::to(&server);
    connection.send(format!(
        "POST /publish HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n\
         POST /publish HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer secret\r\nContent-Length: {length}\r\n\r\n{BODY}"
    ));
    let refused = connection.receive();
    refused.refuses(401, "unauthorized");
    assert_eq!(refused.header("Connection"), Some("close"));
    if IS_NATIVE {
        assert!(connection.is_over());
    } else {
        connection.receive().refuses(400, "no clear end");
    }
    assert_eq!(server.statistics().published, 0);
}

#[test]
fn the_fallback_answers_every_other_path() {
    let server = start(info().fallback(Fallback::new(|request| {
        match (request.method(), request.path()) {
            ("GET", "/") => Response::html(200, "<h1>hello</h1>"),
            ("GET", "/large") => Response::text(200, "x".repeat(200_000)),
            ("GET", "/with space") => Response::json(200, request.query()),
            ("POST", "/echo") => Response::text(
                201,
                String::from_utf8(request.body().to_vec()).unwrap_or_default(),
            ),
            ("GET", "/nothing") => Response::new(204),
            ("GET", "/odd") => Response::new(99),
            _ => Response::error(404, "no such page"),
        }
    })));
    let page = get(&server, "/");
    assert_eq!((page.status, page.text()), (200, "<h1>hello</h1>"));
    assert_eq!(
        page.header("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    let head = ask(&server, "HEAD", "/");
    assert_eq!(head.header("Content-Length"), Some("14"));
    assert_eq!(get(&server, "/large").body.len(), 200_000);
    assert_eq!(get(&server, "/with%20space?a=%20").text(), r#""a=%20""#);
    assert_eq!(get(&server, "/nothing").status, 204);
    assert_eq!(get(&server, "/odd").status, 500);
    get(&server, "/other").refuses(404, "no such page");
    let mut connection = Connection::to(&server);
    for body in ["", "short", &"long ".repeat(20_000)] {
        let length = body.len();
        connection.send(format!(
            "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let answer = connection.receive();
        assert_eq!((answer.status, answer.text()), (201, body));
    }
    connection.send("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 9999999\r\n\r\n");
    connection.receive().refuses(413, "too large");
    // The server still answers the endpoints itself.
    assert_eq!(get(&server, &poll("c", 0, "")).status, 204);
    ask(&server, "PUT", "/publish").refuses(405, "method");
}

#[test]
fn head_reaches_a_fallback_as_get_unless_it_asks_for_head() {
    let page = |request: &Request| match request.method() {
        "GET" => Response::text(200, format!("GET {}", request.path())).with_header("X-Is", "GET"),
        "HEAD" => Response::new(200)
            .with_header("X-Is", "HEAD")
            .with_header("Content-Length", "1000000"),
        _ => Response::error(405, "method not allowed"),
    };
    for (fallback, is, length) in [
        (Fallback::new(page), "GET", "9"),
        (Fallback::new(page).with_head(), "HEAD", "1000000"),
    ] {
        let server = start(info().fallback(fallback));
        // On one connection: what follows HEAD's answer is the next answer, not a body.
        let mut connection = Connection::to(&server);
        connection.ask("HEAD", "/page");
        let head = connection.read(true).unwrap();
        assert_eq!((head.status, head.header("X-Is")), (200, Some(is)));
        assert_eq!(head.header("Content-Length"), Some(length));
        connection.ask("GET", "/page");
        assert_eq!(connection.receive().text(), "GET /page");
        connection.ask("PUT", "/page");
        connection.receive().refuses(405, "method");
    }
}

#[test]
fn a_hook_that_blocks_delays_no_other_client() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let waiting = Arc::new(AtomicUsize::new(0));
    let count = waiting.clone();
    let block = Handler::new(move |request| {
        if request.category() == Some("slow") {
            count.fetch_add(1, SeqCst);
            // Ends when the test drops its end.
            let _ = held.lock().unwrap().recv_timeout(LIMIT);
        }
        Ok(())
    });
    let server = start(info().before_publish(block));
    let mut slow: Vec<Connection> = (0..30)
        .map(|_| {
            let mut connection = Connection::to(&server);
            connection.publish(r#"{"category":"slow","data":1}"#);
            connection
        })
        .collect();
    until("one is held", || waiting.load(SeqCst) >= 1);
    let mut parked = Connection::to(&server);
    parked.ask("GET", &poll("c", 60, ""));
    until_parked(&server, 1);
    for _ in 0..10 {
        assert_eq!(publish(&server, BODY).status, 200);
    }
    assert_eq!(parked.receive().status, 200);
    assert_eq!(buffered(&server, "slow").status, 204);
    drop(release);
    for connection in &mut slow {
        assert_eq!(connection.receive().status, 200);
    }
    assert_eq!(buffered(&server, "slow").data().len(), 30);
}

#[test]
fn cors_is_answered_where_an_origin_is_set_and_nowhere_else() {
    let preflight = |server: &Server, target: &str| {
        let mut connection = Connection::to(server);
        connection.send(format!(
            "OPTIONS {target} HTTP/1.1\r\nHost: t\r\nOrigin: https://page.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type,authorization\r\n\r\n"
        ));
        let answer = connection.receive();
        answer.has_the_promised_headers();
        assert_eq!(answer.status, 204);
        answer
    };
    let origin = "https://page.example";
    let server = start(
        info()
            .cors_origin(origin)
            .before_publish(Handler::bearer_token("secret")),
    );
    for (target, methods) in [
        ("/events", "GET, HEAD, OPTIONS"),
        ("/publish", "POST, OPTIONS"),
    ] {
        let answer = preflight(&server, target);
        let allow = |name: &str| {
            let name = format!("Access-Control-{name}");
            answer.header(&name).map(str::to_owned)
        };
        assert_eq!(allow("Allow-Origin").as_deref(), Some(origin));
        assert_eq!(allow("Allow-Methods").as_deref(), Some(methods));
        let headers = allow("Allow-Headers");
        assert_eq!(headers.as_deref(), Some("content-type,authorization"));
    }
    // Refusals, too, else the page could not read them.
    for answer in [
        get(&server, &poll("c", 0, "")),
        get(&server, "/events"),
        publish(&server, BODY),
    ] {
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(origin));
        let exposed = answer.header("Access-Control-Expose-Headers").unwrap();
        assert!(exposed.contains("Last-Event-ID"), "{exposed}");
    }
    let plain = start(info());
    let answers = [preflight(&plain, "/events"), publish(&plain, BODY)];
    for (name, _) in answers.iter().flat_map(|answer| &answer.headers) {
        assert!(!name.starts_with("Access-Control"), "{name}");
    }
}

/// Where requests with these fields seem to come from, to a server that trusts these proxies; and their real address.
fn seen_from(trusted_proxies: &[&str], fields: &[&str]) -> (SocketAddr, SocketAddr) {
    let parse = |proxy: &&str| proxy.parse::<IpAddr>().unwrap();
    let proxies = trusted_proxies.iter().map(parse);
    seen_by(info().trusted_proxies(proxies), fields)
}

/// Where requests with these fields seem to come from, to a server with these settings; and their real address.
fn seen_by(info: ServerInfo, fields: &[&str]) -> (SocketAddr, SocketAddr) {
    let (handler, seen) = watching();
    let server = start(info.before_subscription(handler));
    let mut connection = Connection::to(&server);
    let own = connection.stream().local_addr().unwrap();
    let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let target = poll("c", 0, "");
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n{lines}\r\n"));
    assert_eq!(connection.receive().status, 204);
    let seen = seen.lock().unwrap();
    (seen[0].remote_address().unwrap(), own)
}

#[test]
fn forwarded_addresses_of_untrusted_peers_are_ignored() {
    let field = "X-Forwarded-For: 192.0.2.1";
    for trusted in [&[][..], &["127.0.0.2", "::1", "192.0.2.1"][..]] {
        let (seen, own) = seen_from(trusted, &[field]);
        assert_eq!(seen, own, "{trusted:?}");
    }
}

#[test]
fn a_trusted_proxy_gives_the_address_of_the_client() {
    for (entry, expected) in [
        ("192.0.2.1", "192.0.2.1:0"),
        ("192.0.2.1:4711", "192.0.2.1:4711"),
        ("2001:db8::1", "[2001:db8::1]:0"),
        ("[2001:db8::1]", "[2001:db8::1]:0"),
        ("[2001:db8::1]:4711", "[2001:db8::1]:4711"),
        ("::ffff:192.0.2.1", "192.0.2.1:0"),
        ("[::ffff:192.0.2.1]:4711", "192.0.2.1:4711"),
        ("\t 192.0.2.1 ", "192.0.2.1:0"),
    ] {
        for trusted in ["127.0.0.1", "::ffff:127.0.0.1"] {
            let (seen, _) = seen_from(&[trusted], &[&format!("x-forwarded-for:{entry}")]);
            assert_eq!(seen.to_string(), expected, "{entry:?}");
        }
    }
}

#[test]
fn every_address_of_a_trusted_network_is_a_proxys() {
    let field = "X-Forwarded-For: 198.51.100.1, 192.0.2.1, fd00::7, 10.1.2.3";
    let networks = |texts: &[&str]| -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    for (trusted, expected) in [
        (&["127.0.0.0/8"][..], "10.1.2.3:0"),
        (&["127.0.0.0/8", "10.0.0.0/8"], "[fd00::7]:0"),
        (
            &["::ffff:127.0.0.1/128", "10.0.0.0/8", "fd00::/8"],
            "192.0.2.1:0",
        ),
        (&["0.0.0.0/0", "::/0"], "198.51.100.1:0"),
    ] {
        let (seen, _) = seen_by(info().trusted_networks(networks(trusted)), &[field]);
        assert_eq!(seen.to_string(), expected, "{trusted:?}");
    }
    // Beside single addresses.
    let both = info()
        .trusted_proxies([IpAddr::from([127, 0, 0, 1])])
        .trusted_networks(networks(&["10.0.0.0/8"]));
    assert_eq!(seen_by(both, &[field]).0.to_string(), "[fd00::7]:0");
    let (seen, own) = seen_by(info().trusted_networks(networks(&["10.0.0.0/8"])), &[field]);
    assert_eq!(seen, own);
}

#[test]
fn entries_before_the_first_untrusted_address_are_ignored() {
    let trusted = ["127.0.0.1", "10.0.0.1", "2001:db8::2"];
    for (fields, expected) in [
        (&["198.51.100.1, 192.0.2.1"][..], "192.0.2.1:0"),
        (&["198.51.100.1", "192.0.2.1"], "192.0.2.1:0"),
        (&["198.51.100.1, 192.0.2.1, 10.0.0.1"], "192.0.2.1:0"),
        (
            &["198.51.100.1,192.0.2.1:7,[2001:db8::2]:9,10.0.0.1:5"],
            "192.0.2.1:7",
        ),
        (
            &["198.51.100.1", "192.0.2.1, 2001:db8::2", "10.0.0.1"],
            "192.0.2.1:0",
        ),
        // An untrusted client claims to be a proxy.
        (&["10.0.0.1, 192.0.2.1"], "192.0.2.1:0"),
        // Only proxies: the farthest.
        (&["2001:db8::2, 10.0.0.1"], "[2001:db8::2]:0"),
    ] {
        let lines: Vec<String> = fields
            .iter()
            .map(|field| format!("X-Forwarded-For: {field}"))
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(
            seen_from(&trusted, &lines).0.to_string(),
            expected,
            "{fields:?}"
        );
    }
}

#[test]
fn an_entry_that_is_no_address_ends_the_search() {
    let trusted = ["127.0.0.1", "10.0.0.1"];
    for nonsense in [
        "",
        "unknown",
        "_hidden",
        "unix:",
        "192.0.2",
        "192.0.2.1:",
        "192.0.2.1:65536",
        "[192.0.2.1]",
        "[2001:db8::1",
        "2001:db8::1]",
        "\"192.0.2.1\"",
        "fe80::1%eth0",
        "192.0.2.1;192.0.2.2",
    ] {
        let field = format!("X-Forwarded-For: 192.0.2.1, {nonsense}");
        let (seen, own) = seen_from(&trusted, &[&field]);
        assert_eq!(seen, own, "{nonsense:?}");
        let field = format!("X-Forwarded-For: 192.0.2.1, {nonsense}, 10.0.0.1");
        let (seen, _) = seen_from(&trusted, &[&field]);
        assert_eq!(seen.to_string(), "10.0.0.1:0", "{nonsense:?}");
    }
    // Neither the field of another name, nor none.
    for fields in [
        &[][..],
        &["Forwarded: for=192.0.2.1", "X-Real-IP: 192.0.2.1"],
    ] {
        let (seen, own) = seen_from(&trusted, fields);
        assert_eq!(seen, own);
    }
}
