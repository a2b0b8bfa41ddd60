//! Polls over HTTP: each parameter, right and wrong.

use crate::support;

use std::time::{Duration, Instant};

use long_polling::EventId;
use support::{Connection, LIMIT, buffered, get, info, poll, server, start, until_parked};

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
    // The parameters' own names are encoded as well, and unknown ones are ignored.
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
    let server = start(info().timeout(Duration::from_secs(1)));
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
    let tries: Vec<Duration> = (0..10)
        .map(|_| took())
        .scan(false, |done, took| {
            let again = !std::mem::replace(done, took <= second);
            again.then_some(took)
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
    // No event can have had such a time: a follower with it may have missed an event.
    for future in ["9999999999999", "99999999999999999999999"] {
        let answer = since(future);
        assert_eq!((answer.data(), answer.gap()), (vec!["first".into()], true));
    }
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
    let newest = buffered(&server, "c").json()["events"][1]["timestamp"].clone();
    let since = format!("{RANDOM_UUID}&since_time={newest}");
    assert_eq!(after(&since).status, 204);
    let since = after(&format!("{RANDOM_UUID}&since_time=1"));
    assert_eq!(since.data(), ["first", "second"]);
}
