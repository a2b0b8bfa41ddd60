//! Polls over HTTP: the parameters, and what is answered.
#![cfg(feature = "server")]

mod support;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use long_polling::server::{PollWithoutCursor, TimeoutAnswer};
use long_polling::{BrokerOptions, EventId, ServerInfo};
use support::{Connection, LIMIT, ask, buffered, get, info, poll, server, start, until_parked};

const RANDOM_UUID: &str = "d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60";

#[test]
fn a_category_has_1_to_1024_bytes_after_decoding() {
    let server = server();
    let longest = "é".repeat(512);
    server.publish(&longest, "found").unwrap();
    let encoded = "%C3%A9".repeat(512);
    assert_eq!(buffered(&server, &encoded).data(), ["found"]);
    buffered(&server, &format!("{encoded}x")).refuses(400, "1025 bytes");
    buffered(&server, "").refuses(400, "1 to 1024 bytes");
    get(&server, "/events?timeout=0").refuses(400, "category");
    get(&server, "/events").refuses(400, "timeout");
    assert_eq!(server.statistics().refused, 4);
}

#[test]
fn a_category_is_decoded_as_forms_are() {
    let server = server();
    for name in ["a b", "a+b", "ü/&=%?#", "line\r\nbreak", "日本"] {
        server.publish(name, name).unwrap();
    }
    for (given, name) in [
        ("a+b", "a b"),
        ("a%20b", "a b"),
        ("a%2Bb", "a+b"),
        ("%C3%BC/%26=%25%3f%23", "ü/&=%?#"),
        ("line%0d%0Abreak", "line\r\nbreak"),
        ("%E6%97%A5%e6%9C%ac", "日本"),
    ] {
        let answer = buffered(&server, given);
        assert_eq!(answer.data(), [name], "{given}");
        assert_eq!(answer.json()["events"][0]["category"], name);
    }
    for broken in ["%FF", "a%C3", "%ED%A0%80"] {
        buffered(&server, broken).refuses(400, "UTF-8");
    }
    // The parameters' own names are encoded as well, and unknown ones are nobody's business.
    let answer = get(
        &server,
        "/events?cat%65gory=a+b&time%6Fut=0&since_time=1&_=17&x",
    );
    assert_eq!(answer.data(), ["a b"]);
}

#[test]
fn one_poll_follows_all_its_categories_in_publish_order() {
    let server = server();
    for number in 0..9 {
        let name = ["x", "y", "z"][number % 3];
        server.publish(name, &number).unwrap();
    }
    let answer = buffered(&server, "z&category=x&category=z");
    assert_eq!(answer.data(), [0, 2, 3, 5, 6, 8]);
    let third = answer.ids()[2].clone();
    let rest = get(
        &server,
        &poll("y&category=x", 0, &format!("&last_id={third}")),
    );
    assert_eq!(rest.data(), [4, 6, 7]);

    let mut parked = Connection::to(&server);
    parked.ask("GET", &poll("x&category=y&category=new", 60, ""));
    until_parked(&server, 1);
    server.publish("z", "not asked for").unwrap();
    server.publish("new", "woken").unwrap();
    assert_eq!(parked.receive().data(), ["woken"]);

    let hundred: String = (1..100).map(|name| format!("&category={name}")).collect();
    assert_eq!(get(&server, &poll("0", 0, &hundred)).status, 204);
    get(&server, &poll("0&category=one+more", 0, &hundred)).refuses(400, "at most 100");
}

#[test]
fn a_timeout_is_whole_seconds() {
    let server = server();
    for wrong in [
        "", "-1", "-0", "1.5", "1e3", "+1", "%201", "x", "0x1", "%D9%A1",
    ] {
        let target = format!("/events?category=c&timeout={wrong}");
        get(&server, &target).refuses(400, "timeout");
    }
    get(&server, "/events?category=c").refuses(400, "timeout is missing");
    assert_eq!(server.statistics().parked, 0);
    // Zero looks, and does not wait.
    let began = Instant::now();
    let nothing = get(&server, &poll("c", 0, ""));
    assert_eq!((nothing.status, nothing.body.len()), (204, 0));
    server.publish("c", &1).unwrap();
    assert_eq!(buffered(&server, "c").data(), [1]);
    assert!(began.elapsed() < LIMIT);
    for start in ["0", "00", "000"] {
        let target = format!("/events?category=c&timeout={start}");
        assert_eq!(get(&server, &target).status, 204);
    }
}

#[test]
fn a_timeout_over_the_maximum_is_taken_as_the_maximum() {
    let server = start(ServerInfo {
        timeout: Duration::from_secs(1),
        ..info()
    });
    let began = Instant::now();
    let mut parked: Vec<Connection> = ["2", "3600", "99999999999999999999999999"]
        .iter()
        .map(|timeout| {
            let mut connection = Connection::to(&server);
            let target = format!("/events?category=c&timeout={timeout}");
            connection.ask("GET", &target);
            connection
        })
        .collect();
    for connection in &mut parked {
        assert_eq!(connection.receive().status, 204);
        assert!(began.elapsed() >= Duration::from_millis(800));
    }
    assert!(began.elapsed() < LIMIT);
}

#[test]
fn the_answer_leaves_no_later_than_the_timeout_asked_for() {
    let server = server();
    let second = Duration::from_secs(1);
    let mut connection = Connection::to(&server);
    let mut took = || {
        let began = Instant::now();
        connection.ask("GET", &poll("c", 1, ""));
        assert_eq!(connection.receive().status, 204);
        began.elapsed()
    };
    // On a machine that is busy with other tests, one of a few is enough.
    let tries: Vec<Duration> = (0..4)
        .map(|_| took())
        .scan(false, |done, took| {
            let go_on = !std::mem::replace(done, took <= second);
            go_on.then_some(took)
        })
        .collect();
    assert!(tries.iter().any(|took| *took <= second), "{tries:?}");
    assert!(tries.iter().all(|took| *took >= second * 9 / 10));
}

#[test]
fn since_time_gives_events_with_a_strictly_greater_timestamp() {
    let server = server();
    server.publish("c", "first").unwrap();
    let time = buffered(&server, "c").json()["events"][0]["timestamp"]
        .as_u64()
        .unwrap();
    let since = |time: &str| get(&server, &poll("c", 0, &format!("&since_time={time}")));
    assert_eq!(since(&(time - 1).to_string()).data(), ["first"]);
    assert_eq!(since(&time.to_string()).status, 204);
    assert_eq!(since("0").data(), ["first"]);
    assert_eq!(since("99999999999999999999999").status, 204);
    // Empty is absent, and so it is a poll from now on.
    assert_eq!(since("").status, 204);
    for wrong in ["-1", "1.5", "x", "+1", "1e3"] {
        since(wrong).refuses(400, "since_time");
    }
}

#[test]
fn last_id_works_alone_and_decides_over_since_time() {
    let server = server();
    let ids: Vec<EventId> = (0..4)
        .map(|number| server.publish("c", &number).unwrap())
        .collect();
    let other = server.publish("other", "x").unwrap();
    let after = |cursor: String| get(&server, &poll("c", 0, &cursor));
    assert_eq!(after(format!("&last_id={}", ids[1])).data(), [2, 3]);
    let upper = ids[1].to_string().to_uppercase();
    assert_eq!(after(format!("&last_id={upper}")).data(), [2, 3]);
    // The id of another category's event is a position, too.
    assert_eq!(after(format!("&last_id={other}")).status, 204);
    // golongpoll's Go client sends a new time with its old id after a timeout; its JavaScript client an empty id.
    let now = 9_999_999_999_999_u64;
    let both = after(format!("&since_time={now}&last_id={}", ids[2]));
    assert_eq!((both.data(), both.gap()), (vec![3.into()], false));
    let both = after(format!("&last_id={}&since_time=1", ids[3]));
    assert_eq!(both.status, 204);
    assert_eq!(after("&since_time=1&last_id=".into()).data().len(), 4);
    assert_eq!(after("&last_id=".into()).status, 204);
}

#[test]
fn a_last_id_that_is_no_uuid_is_refused_and_an_unknown_one_gives_everything_with_a_gap() {
    let server = server();
    server.publish("c", "first").unwrap();
    server.publish("c", "second").unwrap();
    let after = |cursor: &str| get(&server, &poll("c", 0, &format!("&last_id={cursor}")));
    for wrong in ["7", "null", "d1f5a7c25d5e4b0e9c391d2c3b4a5f60", "%00", "-"] {
        after(wrong).refuses(400, "event id");
    }
    // A random one, and one of this server's kind but of another run.
    for unknown in [RANDOM_UUID, "019a5b3c-1234-8abc-8000-000000000001"] {
        let answer = after(unknown);
        assert_eq!(answer.data(), ["first", "second"]);
        assert!(answer.gap(), "{answer:?}");
    }
    // With a time, the time decides.
    let since = format!("{RANDOM_UUID}&since_time=9999999999999");
    assert_eq!(after(&since).status, 204);
    let since = after(&format!("{RANDOM_UUID}&since_time=1"));
    assert_eq!(since.data(), ["first", "second"]);
}

#[test]
fn a_200_has_golongpolls_members_in_its_order_and_every_promised_header() {
    let server = server();
    let first = server.publish("c", &serde_json::json!({"a": [1, null]}));
    let second = server.publish("c", "x\n\"é");
    let ids = [first.unwrap(), second.unwrap()];
    let answer = buffered(&server, "c");
    let json = answer.json();
    let times = [0, 1].map(|at| json["events"][at]["timestamp"].as_u64().unwrap());
    assert!(times[0] <= times[1] && times[0] > 1_600_000_000_000);
    let expected = format!(
        r#"{{"events":[{{"timestamp":{},"category":"c","data":{{"a":[1,null]}},"id":"{}"}},{{"timestamp":{},"category":"c","data":"x\n\"é","id":"{}"}}]}}"#,
        times[0], ids[0], times[1], ids[1]
    );
    assert_eq!(answer.text(), expected);
    answer.has_the_promised_headers();
    assert_eq!(answer.position(), ids[1].to_string());
    for id in answer.ids() {
        assert_eq!(id.parse::<EventId>().unwrap().to_string(), id);
    }
    assert!(answer.header("Date").is_some() && answer.header("Connection").is_none());
}

#[test]
fn a_position_told_without_events_misses_nothing() {
    let server = server();
    server.publish("c", "before").unwrap();
    let mut connection = Connection::to(&server);
    connection.ask("GET", &poll("c", 1, ""));
    let nothing = connection.receive();
    assert_eq!((nothing.status, nothing.body.len()), (204, 0));
    nothing.has_the_promised_headers();
    server.publish("other", "x").unwrap();
    server.publish("c", "between two polls").unwrap();
    let position = format!("&last_id={}", nothing.position());
    connection.ask("GET", &poll("c", 60, &position));
    let answer = connection.receive();
    assert_eq!(answer.data(), ["between two polls"]);
    assert!(!answer.gap());
    let position = format!("&last_id={}", answer.position());
    connection.ask("GET", &poll("c", 60, &position));
    until_parked(&server, 1);
    server.publish("c", "while parked").unwrap();
    assert_eq!(connection.receive().data(), ["while parked"]);
}

#[test]
fn golongpolls_time_out_tells_a_time_to_go_on_from() {
    let server = start(ServerInfo {
        timeout_answer: TimeoutAnswer::Golongpoll,
        ..info()
    });
    let mut connection = Connection::to(&server);
    connection.ask("GET", &poll("c", 1, "&since_time=1&last_id="));
    let nothing = connection.receive();
    assert_eq!(nothing.status, 200);
    nothing.has_the_promised_headers();
    let time = nothing.json()["timestamp"].as_u64().unwrap();
    let expected = format!(r#"{{"timeout":"no events before timeout","timestamp":{time}}}"#);
    assert_eq!(nothing.text(), expected);
    assert!(nothing.position().parse::<EventId>().is_ok());
    server.publish("c", "between two polls").unwrap();
    let since = format!("&since_time={time}&last_id=");
    connection.ask("GET", &poll("c", 60, &since));
    assert_eq!(connection.receive().data(), ["between two polls"]);
    // Never a time before the caller's own.
    connection.ask("GET", &poll("c", 0, "&since_time=9999999999999"));
    assert_eq!(
        connection.receive().json()["timestamp"],
        9_999_999_999_999_u64
    );
}

#[test]
fn a_gap_is_told_where_events_after_the_cursor_were_lost_and_nowhere_else() {
    let server = start(ServerInfo {
        broker: BrokerOptions {
            events_per_category: 3,
            ..BrokerOptions::default()
        },
        ..info()
    });
    let ids: Vec<EventId> = (0..5)
        .map(|number| server.publish("c", &number).unwrap())
        .collect();
    let after = |at: usize| get(&server, &poll("c", 0, &format!("&last_id={}", ids[at])));
    let lost = after(0);
    assert_eq!(lost.data(), [2, 3, 4]);
    assert!(lost.text().ends_with(r#"],"gap":true}"#), "{}", lost.text());
    assert_eq!(lost.json().get("error"), None);
    for at in [1, 2, 3] {
        let answer = after(at);
        assert!(!answer.text().contains("gap"), "{}", answer.text());
        assert_eq!(answer.data().len(), 4 - at);
    }
    assert_eq!(after(4).status, 204);
    assert!(buffered(&server, "c").gap());
    assert_eq!(server.statistics().gaps, 2);
}

#[test]
fn a_poll_without_a_cursor_starts_now_or_with_the_oldest_event_as_set() {
    for (poll_without_cursor, expected) in [
        (PollWithoutCursor::Now, vec![]),
        (PollWithoutCursor::Oldest, vec!["old"]),
    ] {
        let server = start(ServerInfo {
            poll_without_cursor,
            ..info()
        });
        server.publish("c", "old").unwrap();
        let answer = get(&server, &poll("c", 0, "&last_id=&since_time="));
        assert_eq!(answer.data(), expected);
        assert!(!answer.gap());
    }
}

#[test]
fn head_and_options_neither_park_nor_consume() {
    let server = start(ServerInfo {
        broker: BrokerOptions {
            delete_after_first_retrieval: true,
            ..BrokerOptions::default()
        },
        ..info()
    });
    let everything = poll("c", 60, "&since_time=1");
    assert_eq!(ask(&server, "HEAD", &everything).status, 204);
    let id = server.publish("c", "once").unwrap();
    for _ in 0..2 {
        let head = ask(&server, "HEAD", &everything);
        assert_eq!((head.status, head.position()), (200, &*id.to_string()));
        assert_eq!(head.header("Content-Type"), Some("application/json"));
        let options = ask(&server, "OPTIONS", &everything);
        assert_eq!(options.header("Allow"), Some("GET, HEAD, OPTIONS"));
        assert_eq!(options.status, 204);
        options.has_the_promised_headers();
    }
    assert_eq!(ask(&server, "HEAD", "/events").status, 400);
    // On one connection: what follows HEAD's answer is the next answer, not a body.
    let mut connection = Connection::to(&server);
    connection.ask("HEAD", &everything);
    let head = connection.read(true).unwrap();
    connection.ask("GET", &everything);
    let answer = connection.receive();
    assert_eq!(answer.data(), ["once"]);
    assert_eq!(
        head.header("Content-Length"),
        answer.header("Content-Length")
    );
    assert_eq!(buffered(&server, "c").status, 204);
    assert_eq!(server.statistics().parked, 0);
}

#[test]
fn other_methods_and_paths_are_refused() {
    let server = server();
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "FOO"] {
        let answer = ask(&server, method, &poll("c", 60, ""));
        answer.refuses(405, "method");
        assert_eq!(answer.header("Allow"), Some("GET, HEAD, OPTIONS"));
    }
    for path in [
        "/",
        "/event",
        "/events/",
        "/events/x",
        "//events",
        "/Events",
    ] {
        let target = format!("{path}?category=c&timeout=0");
        get(&server, &target).refuses(404, "not found");
    }
    // A path may come encoded.
    let encoded = get(&server, "/%65vents?category=c&timeout=0");
    assert_eq!(encoded.status, 204);
}

#[test]
fn a_parked_poll_is_woken_by_its_category_and_many_by_one_event() {
    let server = server();
    let mut parked: Vec<Connection> = (0..20)
        .map(|_| {
            let mut connection = Connection::to(&server);
            connection.ask("GET", &poll("c", 60, ""));
            connection
        })
        .collect();
    until_parked(&server, 20);
    server.publish("other", "no").unwrap();
    let id = server.publish("c", "yes").unwrap();
    for connection in &mut parked {
        let answer = connection.receive();
        answer.has_the_promised_headers();
        assert_eq!(answer.data(), ["yes"]);
        assert_eq!(answer.position(), id.to_string());
    }
    until_parked(&server, 0);
    assert_eq!(server.statistics().delivered, 20);
}

#[test]
fn past_max_parked_the_one_parked_longest_is_answered_early() {
    let server = start(ServerInfo {
        broker: BrokerOptions {
            max_parked: 2,
            ..BrokerOptions::default()
        },
        ..info()
    });
    let mut parked: Vec<Connection> = Vec::new();
    for count in 1..=3 {
        let mut connection = Connection::to(&server);
        connection.ask("GET", &poll("c", 60, ""));
        parked.push(connection);
        if count <= 2 {
            until_parked(&server, count);
        }
    }
    let early = parked[0].receive();
    assert_eq!(early.status, 204);
    assert!(early.position().parse::<EventId>().is_ok());
    until_parked(&server, 2);
    server.publish("c", "for the others").unwrap();
    for connection in &mut parked[1..] {
        assert_eq!(connection.receive().data(), ["for the others"]);
    }
}

#[test]
fn an_event_to_be_deleted_goes_to_all_who_are_parked_or_to_one_poll() {
    let server = start(ServerInfo {
        broker: BrokerOptions {
            delete_after_first_retrieval: true,
            ..BrokerOptions::default()
        },
        ..info()
    });
    let mut parked = [Connection::to(&server), Connection::to(&server)];
    parked
        .iter_mut()
        .for_each(|connection| connection.ask("GET", &poll("c", 60, "")));
    until_parked(&server, 2);
    server.publish("c", "to both").unwrap();
    for connection in &mut parked {
        assert_eq!(connection.receive().data(), ["to both"]);
    }
    assert_eq!(buffered(&server, "c").status, 204);
    server.publish("c", "to one").unwrap();
    let taken = buffered(&server, "c");
    assert_eq!(taken.data(), ["to one"]);
    let next = get(
        &server,
        &poll("c", 0, &format!("&last_id={}", taken.position())),
    );
    assert_eq!((next.status, server.statistics().events), (204, 0));
    // Handed out is not lost.
    assert_eq!(server.statistics().gaps, 0);
}

#[test]
fn forty_followers_each_see_every_event_once_and_in_order() {
    let server = server();
    let followers: Vec<_> = (0..40)
        .map(|_| {
            let mut connection = Connection::to(&server);
            thread::spawn(move || {
                let (mut seen, mut cursor) = (Vec::new(), "&since_time=1".to_string());
                while seen.len() < 50 {
                    connection.ask("GET", &poll("c", 20, &cursor));
                    let answer = connection.receive();
                    seen.extend(answer.data().iter().map(|data| data.as_u64().unwrap()));
                    cursor = format!("&last_id={}", answer.position());
                }
                seen
            })
        })
        .collect();
    for number in 0..50_u64 {
        server.publish("c", &number).unwrap();
    }
    let expected: Vec<u64> = (0..50).collect();
    let seen: BTreeSet<Vec<u64>> = followers
        .into_iter()
        .map(|follower| follower.join().unwrap())
        .collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [expected]);
}
