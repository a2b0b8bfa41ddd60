//! Server-Sent Events: the answer to a poll whose `Accept` names `text/event-stream`.

use crate::sse::{Block, Stream, blocks, request};
use crate::support;

use std::ops::Range;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use long_polling::server::{Cors, Endpoints, Handler, PollWithoutCursor, Request};
use long_polling::{Broker, BrokerOptions, Durability, FilePersistorInfo, Server, ServerInfo};
use serde_json::{Value, json};
use support::{
    Connection, IS_NATIVE, LIMIT, buffered, get, info, poll, publish, server, start, until,
    until_parked,
};

/// After a regular end, the client is to come back soon; after any other, the clients come back at different times.
const SOON: Range<u64> = 50..150;
const LATER: Range<u64> = 1000..3000;
const UNKNOWN: &str = "019a5b3c-1234-8abc-8000-000000000007";

fn last_event_id(id: &str) -> String {
    format!("Last-Event-ID: {id}\r\n")
}

/// The data of the events among these blocks.
fn datas(blocks: &[Block]) -> Vec<Value> {
    let events = blocks.iter().filter(|block| block.data.is_some());
    events.map(|block| block.event()["data"].take()).collect()
}

/// A heartbeat that a test can wait for.
fn lively() -> ServerInfo {
    info().stream_heartbeat(Duration::from_millis(100))
}

#[test]
fn a_stream_has_the_events_of_the_buffer_and_those_that_come() {
    let server = server();
    for data in ["a", "b"] {
        server.publish("c", &data).unwrap();
    }
    let mut stream = Stream::open(&server, "category=c&since_time=1", "");
    let first = stream.block().unwrap();
    assert!(LATER.contains(&first.retry.unwrap()), "{first:?}");
    assert_eq!(stream.data(), "a");
    let event = stream.dispatched().unwrap().event();
    assert_eq!(
        (&event["category"], &event["data"]),
        (&"c".into(), &"b".into())
    );
    assert!(event["timestamp"].as_u64().is_some());
    until_parked(&server, 1);
    let id = server
        .publish("c", &json!({"any": ["JSON\r\n", "é"]}))
        .unwrap();
    let event = stream.dispatched().unwrap();
    assert_eq!(event.id, Some(id.to_string()));
    assert_eq!(event.event()["data"], json!({"any": ["JSON\r\n", "é"]}));
    // Over HTTP, with line breaks between the tokens.
    let body = "{\"category\":\"c\",\r\n\"data\":{\r\"x\":\n1}}";
    assert_eq!(publish(&server, body).status, 200);
    assert_eq!(stream.data(), json!({"x": 1}));
    until_parked(&server, 1);
    let statistics = server.statistics();
    assert_eq!((statistics.delivered, statistics.timed_out), (4, 0));
}

#[test]
fn the_head_says_what_browsers_and_proxies_need() {
    let cors = Cors::new().origins(["https://a.example", "https://b.example"]);
    let server = start(info().cors(cors));
    let origin = "Origin: https://b.example\r\nPrefer: wait=7\r\n";
    let stream = Stream::open(&server, "category=c", origin);
    for (name, value) in [
        ("Transfer-Encoding", Some("chunked")),
        ("Cache-Control", Some("no-store")),
        ("Pragma", None),
        ("X-Accel-Buffering", Some("no")),
        ("X-Content-Type-Options", Some("nosniff")),
        ("Vary", Some("Accept, Origin")),
        ("Access-Control-Allow-Origin", Some("https://b.example")),
        ("Preference-Applied", Some("wait=7")),
        ("Connection", None),
    ] {
        assert_eq!(stream.head.header(name), value, "{name}");
    }
    let foreign = "Origin: https://evil.example\r\n";
    let stream = Stream::open(&server, "category=c", foreign);
    assert_eq!(stream.head.header("Access-Control-Allow-Origin"), None);
    assert_eq!(stream.head.header("Vary"), Some("Accept, Origin"));
    // The head of an answer to HEAD is the same, and consumes nothing.
    let server = start(info().broker(BrokerOptions::new().delete_after_first_retrieval(true)));
    server.publish("c", &1).unwrap();
    let mut connection = Connection::to(&server);
    connection.send(request("HEAD", "HTTP/1.1", "category=c&since_time=1", ""));
    let head = connection.read(true).unwrap();
    assert_eq!(head.header("Transfer-Encoding"), Some("chunked"));
    assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
    assert_eq!(head.header("Content-Length"), None);
    connection.ask("GET", &poll("c", 0, "&since_time=1"));
    assert_eq!(connection.receive().data(), [1]);
}

#[test]
fn only_a_request_that_names_the_type_gets_a_stream() {
    let server = server();
    for (accept, is_stream) in [
        ("", false),
        ("Accept: */*\r\n", false),
        ("Accept: text/*\r\n", false),
        ("Accept: text/event-stream;q=0\r\n", false),
        ("Accept: text/event-stream; q=0.000\r\n", false),
        ("Accept: text/event-streams\r\n", false),
        ("Accept: application/json\r\n", false),
        ("Accept: text/event-stream\r\n", true),
        ("Accept: Text/Event-Stream; charset=utf-8\r\n", true),
        (
            "Accept: application/json, text/event-stream;q=0.1\r\n",
            false,
        ),
        ("Accept: application/json, text/event-stream\r\n", true),
        (
            "Accept: text/event-stream, application/json;q=0.9, */*;q=0.1\r\n",
            true,
        ),
        ("Accept: */*;q=0\r\nAccept: text/event-stream\r\n", true),
    ] {
        let mut connection = Connection::to(&server);
        let target = "/events?category=c&timeout=0";
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n{accept}\r\n"));
        if is_stream {
            let mut stream = Stream::read(connection);
            assert_eq!(stream.rest(), [], "{accept}");
        } else {
            assert_eq!(connection.receive().status, 204, "{accept}");
        }
    }
}

#[test]
fn what_is_refused_is_refused_as_a_poll_is() {
    let secret = Handler::bearer_token("secret");
    let server = start(info().before_subscription(secret));
    let refusal = |query: &str, fields: &str| {
        let mut connection = Connection::to(&server);
        connection.send(request("GET", "HTTP/1.1", query, fields));
        connection.receive()
    };
    assert_eq!(refusal("category=c", "").status, 401);
    let granted = "Authorization: Bearer secret\r\n";
    for (query, fields, words) in [
        ("", "", "category"),
        ("category=c&timeout=x", "", "timeout"),
        ("category=c&limit=0", "", "limit"),
        ("category=c", "Last-Event-ID: x\r\n", "Last-Event-ID"),
    ] {
        refusal(query, &format!("{granted}{fields}")).refuses(400, words);
    }
    Stream::open(&server, "category=c", granted).position();
}

#[test]
fn nothing_is_missed_before_the_first_event_and_between_two_streams() {
    let server = server();
    let mut stream = Stream::open(&server, "category=c", "");
    let position = stream.position();
    drop(stream);
    server.publish("c", &1).unwrap();
    let mut stream = Stream::open(&server, "category=c", &last_event_id(&position));
    assert_eq!(stream.data(), 1);
    server.publish("c", &2).unwrap();
    assert_eq!(stream.data(), 2);
    let position = stream.last_id.take().unwrap();
    drop(stream);
    server.publish("c", &3).unwrap();
    // A browser repeats the URL of the first time, with a position that is old by then.
    let query = format!("category=c&last_id={UNKNOWN}");
    let mut stream = Stream::open(&server, &query, &last_event_id(&position));
    assert_eq!(stream.data(), 3);
}

#[test]
fn a_gap_is_an_event_of_its_own_which_a_break_repeats() {
    let options = BrokerOptions::new().events_per_category(2);
    let server = start(info().broker(options));
    let first = server.publish("c", &1).unwrap().to_string();
    for data in 2..=5 {
        server.publish("c", &data).unwrap();
    }
    for _ in 0..2 {
        let mut stream = Stream::open(&server, "category=c", &last_event_id(&first));
        assert!(stream.dispatched().unwrap().is_gap());
        // The gap has no id: the client's position is the old one.
        assert_eq!(stream.last_id, None);
        assert_eq!([stream.data(), stream.data()], [4, 5]);
    }
    // The events after a gap are still to come: until then, the client keeps its position.
    let mut stream = Stream::open(&server, "category=none", &last_event_id(UNKNOWN));
    until_parked(&server, 1);
    server.publish("none", &6).unwrap();
    assert!(stream.dispatched().unwrap().is_gap());
    assert_eq!(stream.last_id, None);
    assert_eq!(stream.data(), 6);
}

#[test]
fn a_stream_that_deletes_its_events_ends_with_the_first_ones() {
    let server = start(info().broker(BrokerOptions::new().delete_after_first_retrieval(true)));
    for data in 1..=4 {
        server.publish("c", &data).unwrap();
    }
    for taken in [1, 2] {
        let mut stream = Stream::open(&server, "category=c&since_time=1&limit=1", "");
        assert_eq!(datas(&stream.rest()), [taken]);
        assert!(SOON.contains(&stream.retry.unwrap()), "{:?}", stream.retry);
    }
    assert_eq!(server.statistics().events, 2);
    // The same with events that come.
    let mut stream = Stream::open(&server, "category=empty", "");
    until_parked(&server, 1);
    server.publish("empty", &5).unwrap();
    assert_eq!(datas(&stream.rest()), [5]);
}

#[test]
fn a_stream_goes_on_after_a_restart_with_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("events.log"))
        .durability(Durability::Acknowledged);
    let server = start(info().file(file.clone()));
    let mut stream = Stream::open(&server, "category=c", "");
    stream.position();
    for data in 1..=3 {
        server.publish("c", &data).unwrap();
        assert_eq!(stream.data(), data);
    }
    server.publish("c", &4).unwrap();
    server.stop(LIMIT).unwrap();
    let came: Vec<Value> = datas(&stream.rest());
    let position = stream.last_id.take().unwrap();
    drop(server);
    let server = start(info().file(file));
    server.publish("c", &5).unwrap();
    let mut again = Stream::open(&server, "category=c", &last_event_id(&position));
    // The fourth was published as the server stopped.
    let missing = (4 + came.len() as u64)..=5;
    for data in missing {
        assert_eq!(again.data(), data);
    }
}

#[test]
fn a_quiet_stream_has_comments_and_stays_parked() {
    let server = start(lively());
    let mut stream = Stream::open(&server, "category=c", "");
    stream.position();
    for _ in 0..3 {
        let block = stream.block().unwrap();
        let comment = Block {
            comments: 1,
            ..Block::default()
        };
        assert_eq!(block, comment);
    }
    server.publish("c", "after comments").unwrap();
    assert_eq!(stream.data(), "after comments");
    assert_eq!(server.statistics().timed_out, 0);
}

#[test]
fn a_stream_ends_at_its_timeout_and_the_connection_serves_the_next() {
    let server = server();
    let mut connection = Connection::to(&server);
    for number in 1..=2 {
        let began = Instant::now();
        connection.send(request("GET", "HTTP/1.1", "category=c&timeout=1", ""));
        let mut stream = Stream::read(connection);
        stream.position();
        server.publish("c", &number).unwrap();
        assert_eq!(datas(&stream.rest()), [number]);
        assert!(began.elapsed() >= Duration::from_secs(1));
        assert!(SOON.contains(&stream.retry.unwrap()), "{:?}", stream.retry);
        connection = stream.connection;
    }
    connection.ask("GET", &poll("c", 0, "&since_time=1"));
    assert_eq!(connection.receive().data(), [1, 2]);
    // Without a timeout, and with a longer one, it ends at the server's maximum.
    let server = start(info().timeout(Duration::from_secs(1)));
    for query in ["category=c", "category=c&timeout=99"] {
        assert_eq!(Stream::open(&server, query, "").rest(), []);
    }
    assert_eq!(server.statistics().parked, 0);
}

#[test]
fn without_a_timeout_left_a_stream_has_what_there_is() {
    // A stream that deletes its events takes those of one look only.
    for (deletes, taken, left) in [
        (false, &[1, 2, 3, 4, 5][..], &[1, 2, 3, 4, 5][..]),
        (true, &[1, 2], &[3, 4, 5]),
    ] {
        let options = BrokerOptions::new().delete_after_first_retrieval(deletes);
        let server = start(info().broker(options));
        for data in 1..=5 {
            server.publish("c", &data).unwrap();
        }
        let query = "category=c&timeout=0&since_time=1&limit=2";
        let mut stream = Stream::open(&server, query, "");
        assert_eq!(datas(&stream.rest()), taken);
        assert_eq!(buffered(&server, "c").data(), left);
    }
}

#[test]
fn without_a_cursor_a_stream_starts_where_a_poll_does() {
    let server = start(info().poll_without_cursor(PollWithoutCursor::Oldest));
    server.publish("c", &1).unwrap();
    assert_eq!(Stream::open(&server, "category=c", "").data(), 1);
}

#[test]
fn a_stop_ends_streams_at_once_and_their_clients_come_back_later() {
    let server = server();
    let mut streams: Vec<Stream> = (0..20)
        .map(|_| Stream::open(&server, "category=c", ""))
        .collect();
    until_parked(&server, 20);
    let began = Instant::now();
    server.stop(LIMIT).unwrap();
    for stream in &mut streams {
        assert_eq!(stream.rest(), []);
        assert!(LATER.contains(&stream.retry.unwrap()), "{:?}", stream.retry);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_stop_of_a_server_ends_its_own_streams_and_no_others() {
    let broker = Broker::new(BrokerOptions::new()).unwrap();
    let servers = [(); 2].map(|()| start(info().shared_broker(broker.clone())));
    let [mut stopped, mut other] = [0, 1].map(|at| Stream::open(&servers[at], "category=c", ""));
    until_parked(&servers[0], 2);
    servers[0].stop(LIMIT).unwrap();
    assert_eq!(stopped.rest(), []);
    broker.publish("c", "still").unwrap();
    assert_eq!(other.data(), "still");
}

#[test]
fn past_the_limit_the_longest_parked_stream_ends() {
    let server = start(info().broker(BrokerOptions::new().max_parked(1)));
    let mut first = Stream::open(&server, "category=c", "");
    until_parked(&server, 1);
    let mut second = Stream::open(&server, "category=c", "");
    assert_eq!(first.rest(), []);
    assert!(LATER.contains(&first.retry.unwrap()));
    until_parked(&server, 1);
    server.publish("c", &1).unwrap();
    assert_eq!(second.data(), 1);
}

#[test]
fn a_stream_of_http_1_0_ends_with_the_connection() {
    let server = server();
    let mut connection = Connection::to(&server);
    connection.send(request("GET", "HTTP/1.0", "category=c&timeout=1", ""));
    let mut stream = Stream::read(connection);
    assert_eq!(stream.head.header("Transfer-Encoding"), None);
    assert_eq!(stream.head.header("Connection"), Some("close"));
    stream.position();
    server.publish("c", &1).unwrap();
    assert_eq!(stream.data(), 1);
    assert_eq!(stream.rest(), []);
    assert!(stream.connection.is_over());

    let mut connection = Connection::to(&server);
    let keep = "Connection: keep-alive\r\n";
    connection.send(request("GET", "HTTP/1.0", "category=c&timeout=5", keep));
    until_parked(&server, 1);
    server.publish("c", &2).unwrap();
    if IS_NATIVE {
        let mut stream = Stream::read(connection);
        assert_eq!(stream.data(), 2);
    } else {
        // tiny_http can't end the connection, so the answer has a length and ends with the event.
        let answer = connection.receive();
        assert_eq!(datas(&blocks(answer.text())), [2]);
        assert_eq!(answer.header("Connection"), Some("keep-alive"));
    }
}

#[test]
fn a_client_that_hangs_up_is_noticed_and_takes_no_event() {
    let options = BrokerOptions::new().delete_after_first_retrieval(true);
    // Elsewhere, tiny_http notices when it writes a comment.
    let is_noticed = IS_NATIVE || cfg!(target_os = "linux");
    let info = if is_noticed { info() } else { lively() };
    let server = start(info.broker(options));
    let streams: Vec<Stream> = (0..10)
        .map(|_| Stream::open(&server, "category=c", ""))
        .collect();
    until_parked(&server, 10);
    let began = Instant::now();
    drop(streams);
    until_parked(&server, 0);
    assert!(began.elapsed() < Duration::from_secs(3));
    server.publish("c", "kept").unwrap();
    assert_eq!(buffered(&server, "c").data(), ["kept"]);
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let info = info().write_timeout(Duration::from_millis(500));
    let server = start(info.metrics_uri("/metrics"));
    let stream = Stream::open(&server, "category=c", "");
    until_parked(&server, 1);
    let large = "x".repeat(500_000);
    until(
        "the system's buffers are full, and the stream is over",
        || {
            server.publish("c", &large).unwrap();
            metric(&server, "event_streams") == 0
        },
    );
    drop(stream);
    server.publish("d", &1).unwrap();
    assert_eq!(buffered(&server, "d").data(), [1]);
    server.stop(LIMIT).unwrap();
}

/// A number in the metrics, which the settings of every server here have at `/metrics`.
fn metric(server: &Server, name: &str) -> u64 {
    let mut connection = Connection::to(server);
    connection.send("GET /metrics HTTP/1.1\r\nHost: t\r\nAccept: application/json\r\n\r\n");
    let answer = connection.receive();
    answer.json()[name].as_u64().expect("a number")
}

#[test]
fn one_stream_has_the_events_of_several_categories_in_order() {
    let server = server();
    let mut stream = Stream::open(&server, "category=a&category=b&category=c", "");
    stream.position();
    let categories = ["b", "a", "other", "c", "a", "b"];
    for round in 0..20 {
        for category in categories {
            server.publish(category, &round).unwrap();
        }
    }
    for round in 0..20 {
        for category in categories.iter().filter(|name| **name != "other") {
            let event = stream.dispatched().unwrap().event();
            assert_eq!(
                (&event["category"], &event["data"]),
                (&json!(category), &json!(round))
            );
        }
    }
}

#[test]
fn two_hundred_streams_get_a_hundred_events_in_order_exactly_once() {
    const EVENTS: u64 = 100;
    let server = server();
    let streams: Vec<Stream> = (0..200)
        .map(|_| Stream::open(&server, "category=c", ""))
        .collect();
    until_parked(&server, 200);
    // Kept open: the server looks for clients that have gone.
    let _streams: Vec<Stream> = thread::scope(|scope| {
        let read = |mut stream: Stream| {
            for number in 0..EVENTS {
                assert_eq!(stream.data(), number);
            }
            stream
        };
        let streams = streams.into_iter();
        let readers: Vec<_> = streams
            .map(|stream| scope.spawn(move || read(stream)))
            .collect();
        for number in 0..EVENTS {
            server.publish("c", &number).unwrap();
        }
        let readers = readers.into_iter();
        readers.map(|reader| reader.join().unwrap()).collect()
    });
    until_parked(&server, 200);
    assert_eq!(server.statistics().delivered, 200 * EVENTS);
}

#[test]
fn the_metrics_count_open_streams_and_each_answer_once() {
    let server = start(lively().metrics_uri("/metrics"));
    let streams = [(); 3].map(|()| Stream::open(&server, "category=c&timeout=30", ""));
    until_parked(&server, 3);
    assert_eq!(metric(&server, "event_streams"), 3);
    let text = get(&server, "/metrics");
    assert!(text.text().contains("\nlong_polling_event_streams 3\n"));
    // The three, and the answer with the metrics in JSON; the text is counted after it was made.
    assert!(
        text.text()
            .contains("\nlong_polling_http_responses_total{code=\"200\"} 4\n")
    );
    drop(streams);
    until("the streams are over", || {
        metric(&server, "event_streams") == 0
    });
}

#[test]
fn endpoints_answer_with_the_events_that_come_first() {
    let endpoints = Endpoints::new(info()).unwrap();
    let stream = |query: &str, id: Option<&str>| {
        let request = Request::new("GET", &format!("/events?{query}"));
        let request = request.with_header("Accept", "text/event-stream");
        match id {
            Some(id) => request.with_header("Last-Event-ID", id),
            None => request,
        }
    };
    let text = |response: long_polling::server::Response| {
        assert_eq!(response.status, 200);
        assert_eq!(
            response.headers.get("Content-Type"),
            Some("text/event-stream")
        );
        assert_eq!(response.headers.get("Transfer-Encoding"), None);
        blocks(std::str::from_utf8(&response.body).unwrap())
    };
    let quiet = text(endpoints.answer(stream("category=c&timeout=0", None)));
    let position = quiet[0].id.clone().unwrap();
    assert!(SOON.contains(&quiet[1].retry.unwrap()), "{quiet:?}");
    let waiting = stream("category=c", Some(&position));
    let answer = thread::scope(|scope| {
        let waits = scope.spawn(|| text(endpoints.answer(waiting)));
        until("parked", || endpoints.broker().statistics().parked == 1);
        endpoints.broker().publish("c", "new").unwrap();
        waits.join().unwrap()
    });
    assert_eq!(datas(&answer), ["new"]);
    let head = stream("category=c", None);
    let head = Request::new("HEAD", "/events?category=c")
        .with_header("Accept", head.header("Accept").unwrap());
    assert_eq!(endpoints.answer(head).body, b"");
    // A stop ends the wait.
    thread::scope(|scope| {
        let waits = scope.spawn(|| text(endpoints.answer(stream("category=c", None))));
        until("parked", || endpoints.broker().statistics().parked == 1);
        endpoints.stop(LIMIT).unwrap();
        let blocks = waits.join().unwrap();
        assert!(blocks.iter().all(|block| block.data.is_none()));
        let retry = blocks.last().and_then(|block| block.retry);
        assert!(LATER.contains(&retry.unwrap()), "{blocks:?}");
    });
}

/// As a user of the shell sees it.
#[test]
fn curl_prints_each_event_as_it_comes() {
    let server = server();
    let url = format!(
        "http://{}/events?category=c&timeout=10",
        server.local_addr()
    );
    let mut curl = Command::new("curl")
        .args([
            "-sN",
            "--noproxy",
            "*",
            "-H",
            "Accept: text/event-stream",
            &url,
        ])
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .expect("curl is installed: apt-get install curl");
    until_parked(&server, 1);
    server.publish("c", "Hello").unwrap();
    let stdout = curl.stdout.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    let data = lines.find_map(|line| Some(line.unwrap().strip_prefix("data: ")?.to_owned()));
    let event: Value = serde_json::from_str(&data.unwrap()).unwrap();
    assert_eq!(event["data"], "Hello");
    // Not at the end of the stream.
    assert_eq!(curl.try_wait().unwrap(), None);
    curl.kill().unwrap();
    curl.wait().unwrap();
}
