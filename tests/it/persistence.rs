//! A server with a file: what a restart restores, golongpoll's files, and limits.

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use long_polling::{Broker, BrokerOptions, Cursor, EventId, FilePersistorInfo, Server};
use serde_json::{Value, json};
use support::{Answer, Connection, LIMIT, buffered, get, info, poll, publish, until, until_parked};
use tempfile::TempDir;

/// A temporary folder, and the path of a file in it.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    (folder, file)
}

fn start(file: &Path) -> Server {
    start_with(file, BrokerOptions::default())
}

fn start_with(file: &Path, broker: BrokerOptions) -> Server {
    let info = info().broker(broker);
    Server::start(info.file(FilePersistorInfo::new(file))).expect("a server")
}

fn after(server: &Server, category: &str, id: impl ToString) -> Answer {
    let cursor = format!("&last_id={}", id.to_string());
    get(server, &poll(category, 0, &cursor))
}

fn milliseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// A line as golongpoll writes it, without its line break. golongpoll's ids are random UUIDs.
fn golongpoll(timestamp: u64, category: &str, data: &Value, id: &str) -> String {
    format!(r#"{{"timestamp":{timestamp},"category":"{category}","data":{data},"id":"{id}"}}"#)
}

const UUIDS: [&str; 4] = [
    "7d4f1f5e-8a0e-4d3b-9c59-0f1c5a2b3d41",
    "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
    "ffffffff-ffff-4fff-bfff-ffffffffffff",
    "3c9d2e1f-0b4a-4567-89ab-cdef01234567",
];

#[test]
fn events_ids_and_order_go_on_after_a_restart() {
    let (_folder, file) = folder();
    let mut bodies = Vec::new();
    let mut ids: Vec<String> = Vec::new();
    for run in 0..3 {
        let server = start(&file);
        for number in 0..4 {
            let category = ["a", "b"][number % 2];
            let data = json!({"run": run, "number": number, "text": "line\nbreak é"});
            let body = json!({"category": category, "data": data}).to_string();
            let answer = publish(&server, body);
            ids.push(answer.position().to_owned());
        }
        let all = buffered(&server, "a&category=b");
        assert_eq!(all.ids(), ids);
        bodies.push(all.text().to_owned());
        server.stop(LIMIT).unwrap();
        let again = start(&file);
        assert_eq!(buffered(&again, "a&category=b").text(), bodies[run]);
        assert_eq!(again.statistics().store.loaded, ids.len() as u64);
        assert_eq!(again.statistics().published, 0);
        again.stop(LIMIT).unwrap();
    }
    assert!(ids.is_sorted());
    let times: Vec<u64> = buffered(&start(&file), "a&category=b").json()["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["timestamp"].as_u64().unwrap())
        .collect();
    assert!(times.is_sorted());
}

#[test]
fn a_position_from_before_the_restart_still_works() {
    let (_folder, file) = folder();
    let server = start(&file);
    let first = server.publish("c", "first").unwrap();
    let second = server.publish("c", "second").unwrap();
    let other = server.publish("other", "x").unwrap();
    let idle = get(&server, &poll("c", 0, "")).position().to_owned();
    assert_eq!(idle, other.to_string());
    server.stop(LIMIT).unwrap();

    let server = start(&file);
    let rest = after(&server, "c", first);
    assert_eq!((rest.data(), rest.gap()), (vec![json!("second")], false));
    for position in [second.to_string(), idle] {
        let nothing = after(&server, "c", &position);
        assert_eq!(nothing.status, 204);
    }
    let mut parked = Connection::to(&server);
    parked.ask("GET", &poll("c", 60, &format!("&last_id={second}")));
    until_parked(&server, 1);
    server.publish("c", "third").unwrap();
    let answer = parked.receive();
    assert_eq!((answer.data(), answer.gap()), (vec![json!("third")], false));
    let rest = after(&server, "c", first);
    assert_eq!(rest.data(), ["second", "third"]);
    assert!(!rest.gap());
}

#[test]
fn a_poll_parked_at_the_stop_goes_on_after_the_restart() {
    let (_folder, file) = folder();
    let server = start(&file);
    server.publish("other", "x").unwrap();
    let mut parked = Connection::to(&server);
    parked.ask("GET", &poll("c", 60, ""));
    until_parked(&server, 1);
    server.stop(LIMIT).unwrap();
    let position = parked.receive().position().to_owned();

    let server = start(&file);
    server.publish("c", "after the restart").unwrap();
    let answer = after(&server, "c", position);
    assert_eq!(answer.data(), ["after the restart"]);
    assert!(!answer.gap());
}

#[test]
fn a_golongpoll_file_is_read_completely_and_appended_to() {
    let (_folder, file) = folder();
    let long = json!("x".repeat(70_000));
    let mut text = String::new();
    // golongpoll writes the line break before each object, and none after the last.
    for (at, id) in UUIDS.iter().enumerate() {
        let data = if at == 2 { &long } else { &json!(at) };
        let time = 1_600_000_000_000 + at as u64;
        text.push_str(&format!("\n{}", golongpoll(time, "c", data, id)));
    }
    fs::write(&file, &text).unwrap();

    let server = start(&file);
    let all = buffered(&server, "c");
    assert_eq!(all.ids(), UUIDS);
    assert_eq!(all.data(), [json!(0), json!(1), long, json!(3)]);
    let statistics = server.statistics().store;
    assert_eq!((statistics.loaded, statistics.damaged), (4, 0));
    // golongpoll's ids are positions while their events are in memory.
    for (at, id) in UUIDS.iter().enumerate() {
        let rest = after(&server, "c", id);
        assert!(!rest.gap());
        if at == 3 {
            assert_eq!(rest.status, 204);
        } else {
            assert_eq!(rest.ids(), UUIDS[at + 1..]);
        }
    }
    let id = server.publish("c", "new").unwrap().to_string();
    assert_eq!(after(&server, "c", UUIDS[3]).ids(), [&*id]);
    server.stop(LIMIT).unwrap();

    let written = fs::read_to_string(&file).unwrap();
    let (before, after_it) = written.split_at(text.len());
    assert_eq!(before, text);
    let mut lines = after_it.lines();
    assert_eq!(lines.next(), Some(""));
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [started, line, ended] = &lines[..] else {
        panic!("{lines:?}")
    };
    assert_eq!((&line["id"], &line["data"]), (&json!(id), &json!("new")));
    // golongpoll skips the arrays. Their last string is the checksum.
    assert_eq!(started[0], json!("started"));
    assert_eq!((&ended[0], &ended[1]), (&json!("ended"), &json!(id)));
    assert!(after_it.ends_with('\n'));

    let server = start(&file);
    let mut expected = UUIDS.to_vec();
    expected.push(&id);
    assert_eq!(buffered(&server, "c").ids(), expected);
    assert_eq!(after(&server, "c", UUIDS[3]).ids(), [&*id]);
}

#[test]
fn limits_apply_to_restored_events_and_what_they_remove_is_a_gap() {
    let (_folder, file) = folder();
    let server = start(&file);
    server.publish("older", "x").unwrap();
    let ids: Vec<EventId> = (0..10)
        .map(|number| server.publish("c", &number).unwrap())
        .collect();
    server.publish("newer", "x").unwrap();
    server.publish("c", &10).unwrap();
    server.stop(LIMIT).unwrap();
    let server = start_with(
        &file,
        BrokerOptions::new()
            .events_per_category(3)
            .max_categories(2),
    );
    assert_eq!(after(&server, "c", ids[8]).data(), [9, 10]);
    let lost = after(&server, "c", ids[1]);
    assert_eq!(
        (lost.data(), lost.gap()),
        (vec![8.into(), 9.into(), 10.into()], true)
    );
    assert_eq!(buffered(&server, "older").status, 204);
    assert_eq!(buffered(&server, "newer").data(), ["x"]);
    assert_eq!(server.statistics().events, 4);
}

#[test]
fn expired_events_are_not_restored() {
    let (_folder, file) = folder();
    let now = milliseconds();
    let mut text = String::new();
    for (age, id) in [7_200_000, 3_700_000, 60_000, 1000].into_iter().zip(UUIDS) {
        let line = golongpoll(now - age, "c", &json!(age), id);
        text.push_str(&format!("{line}\n"));
    }
    text.push_str(&golongpoll(1, "gone", &json!(0), UUIDS[0]));
    fs::write(&file, text).unwrap();
    let server = start_with(
        &file,
        BrokerOptions::new().event_ttl(Duration::from_secs(3600)),
    );
    let answer = get(&server, &poll("c", 0, "&since_time=1"));
    assert_eq!(
        (answer.data(), answer.gap()),
        (vec![60_000.into(), 1000.into()], true)
    );
    let statistics = server.statistics();
    assert_eq!((statistics.events, statistics.categories), (2, 1));
}

#[test]
fn the_file_is_complete_after_the_stop_whatever_the_buffer() {
    for write_buffer_size in [0, 1000, 16 << 20] {
        let (_folder, file) = folder();
        let file_info = FilePersistorInfo::new(&file)
            .write_buffer_size(write_buffer_size)
            .write_flush_period(Duration::from_secs(3600));
        let server = Server::start(info().file(file_info)).unwrap();
        for number in 0..1000 {
            server.publish("c", &number).unwrap();
        }
        if write_buffer_size == 0 {
            until("written", || server.statistics().store.written == 1001);
        }
        server.stop(LIMIT).unwrap();
        let statistics = server.statistics().store;
        // The other two lines record the start and the end of the run.
        assert_eq!((statistics.written, statistics.pending), (1002, 0));
        assert_eq!((statistics.pending, statistics.failures), (0, 0));
        let text = fs::read_to_string(&file).unwrap();
        let numbers: Vec<u64> = text
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["data"]
                    .as_u64()
                    .unwrap()
            })
            .collect();
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    }
}

#[test]
fn events_are_written_when_the_flush_period_is_over() {
    let (_folder, file) = folder();
    let file_info = FilePersistorInfo::new(&file).write_flush_period(Duration::from_millis(20));
    let server = Server::start(info().file(file_info)).unwrap();
    let id = server.publish("c", "soon in the file").unwrap().to_string();
    until("written", || {
        fs::read_to_string(&file).unwrap().contains(&id)
    });
    // The other line records the start of the run.
    until("counted", || server.statistics().store.written == 2);
}

#[test]
fn dropping_a_server_writes_everything() {
    let (_folder, file) = folder();
    let server = start(&file);
    server.publish("c", "kept").unwrap();
    drop(server);
    assert_eq!(buffered(&start(&file), "c").data(), ["kept"]);
}

#[test]
fn an_event_that_was_deleted_by_its_retrieval_is_not_restored() {
    let (_folder, file) = folder();
    let options = || BrokerOptions::new().delete_after_first_retrieval(true);
    let open = || Broker::open(options(), FilePersistorInfo::new(&file)).unwrap();
    let broker = open();
    let now = |broker: &Broker, names: &[&str]| {
        let batch = broker
            .subscribe(names, Cursor::Oldest, Duration::ZERO)
            .unwrap();
        batch
            .events()
            .iter()
            .map(|event| event.text().into_owned())
            .collect::<Vec<_>>()
    };
    for (category, data) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "kept")] {
        broker.publish(category, data).unwrap();
    }
    assert_eq!(now(&broker, &["a", "b"]), ["1", "2", "3"]);
    // This event goes to a parked subscriber, and was never in a ring buffer.
    let follower = broker.clone();
    let parked = std::thread::spawn(move || follower.subscribe("d", Cursor::Now, LIMIT).unwrap());
    until("parked", || broker.statistics().parked == 1);
    let last = broker.publish("d", "4").unwrap();
    assert_eq!(parked.join().unwrap().last_id(), last);
    broker.stop(LIMIT).unwrap();

    let broker = open();
    assert_eq!(now(&broker, &["a", "b", "d"]), [""; 0]);
    let rest = broker
        .subscribe(["a", "b", "d"], Cursor::LastId(last), Duration::ZERO)
        .unwrap();
    assert!(!rest.gap());
    assert_eq!(now(&broker, &["c"]), ["kept"]);
}

#[test]
fn a_position_of_a_run_without_events_is_known_after_a_clean_restart() {
    let (_folder, file) = folder();
    let mut position = None;
    for round in 0..3 {
        let broker = Broker::open(BrokerOptions::default(), FilePersistorInfo::new(&file)).unwrap();
        let cursor = position.map_or(Cursor::Now, Cursor::LastId);
        let batch = broker.subscribe("c", cursor, Duration::ZERO).unwrap();
        assert!(!batch.gap() && batch.events().is_empty(), "{round}");
        position = Some(batch.last_id());
        broker.stop(LIMIT).unwrap();
    }
}

#[test]
fn a_run_that_did_not_end_cleanly_is_a_gap() {
    let (_folder, file) = folder();
    let open =
        |file: &Path| Broker::open(BrokerOptions::default(), FilePersistorInfo::new(file)).unwrap();
    let broker = open(&file);
    let first = broker.publish("c", "1").unwrap();
    let last = broker.publish("c", "2").unwrap();
    broker.stop(LIMIT).unwrap();
    let gap = |broker: &Broker, id| {
        broker
            .subscribe("c", Cursor::LastId(id), Duration::ZERO)
            .unwrap()
            .gap()
    };
    let text = fs::read_to_string(&file).unwrap();
    assert!(!gap(&open(&file), last));
    // A kill leaves the file without the line that records the end of the run, and perhaps without the last event.
    let mut lines: Vec<&str> = text.lines().collect();
    for _ in 0..2 {
        lines.pop();
        fs::write(&file, lines.join("\n")).unwrap();
        let broker = open(&file);
        assert!(gap(&broker, first) && gap(&broker, last));
        let next = broker.publish("c", "3").unwrap();
        assert!(next > last && !gap(&broker, next));
    }
    // A line in the middle is damaged.
    fs::write(&file, text.replace("\"data\":\"1\"", "\"data\":!")).unwrap();
    let broker = open(&file);
    assert_eq!(broker.statistics().store.damaged, 1);
    assert!(!gap(&broker, last));
    let started: Vec<String> = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(gap(&broker, started[1].parse().unwrap()));
}

#[test]
fn unreadable_lines_are_skipped_and_counted() {
    let (_folder, file) = folder();
    let good: Vec<String> = (0..3)
        .map(|at| golongpoll(1_600_000_000_000 + at, "c", &json!(at), UUIDS[at as usize]))
        .collect();
    let mut bytes = b"\xff\xfe garbage\n[1,2]\nnull\n".to_vec();
    bytes.extend_from_slice(good[0].as_bytes());
    bytes.extend_from_slice(b"\n{\"timestamp\":1,\"category\":\"c\"}\n\n  \n");
    bytes.extend_from_slice(good[1].as_bytes());
    bytes.extend_from_slice(b"\r\n\0\0\0\0\n");
    bytes.extend_from_slice(good[2].as_bytes());
    // A power failure has ended the file within an event.
    bytes.extend_from_slice(format!("\n{}", &good[0][..40]).as_bytes());
    fs::write(&file, &bytes).unwrap();
    let server = start(&file);
    assert_eq!(buffered(&server, "c").data(), [0, 1, 2]);
    let statistics = server.statistics().store;
    assert_eq!((statistics.loaded, statistics.damaged), (3, 6));
    server.publish("c", "new").unwrap();
    server.stop(LIMIT).unwrap();
    // The new event is not in the same line as the incomplete one.
    let server = start(&file);
    assert_eq!(
        buffered(&server, "c").data(),
        [json!(0), json!(1), json!(2), json!("new")]
    );
    // The incomplete line is now in a file of its own.
    assert_eq!(server.statistics().store.damaged, 5);
    let start = bytes.len() - 40;
    let torn = fs::read(format!("{}.corrupt-{start}", file.display())).unwrap();
    assert_eq!(torn, bytes[start..]);
}

#[test]
fn a_position_of_a_run_without_the_file_gets_a_gap() {
    let (_folder, file) = folder();
    let kept = start(&file);
    kept.publish("c", "kept").unwrap();
    kept.stop(LIMIT).unwrap();
    // A run without a file.
    let in_memory = support::server();
    let lost = in_memory.publish("c", "lost").unwrap();
    let idle = get(&support::server(), &poll("c", 0, ""))
        .position()
        .to_owned();
    drop(in_memory);

    let server = start(&file);
    for unknown in [lost.to_string(), idle] {
        let answer = after(&server, "c", unknown);
        assert_eq!((answer.data(), answer.gap()), (vec![json!("kept")], true));
    }
    let empty = support::server();
    let mut parked = Connection::to(&empty);
    parked.ask("GET", &poll("c", 60, &format!("&last_id={lost}")));
    until_parked(&empty, 1);
    empty.publish("c", "first of the new run").unwrap();
    let answer = parked.receive();
    assert!(answer.gap(), "{answer:?}");
    assert_eq!(answer.data(), ["first of the new run"]);
}

#[test]
fn the_same_file_serves_a_broker_without_a_server() {
    let (_folder, file) = folder();
    let server = start(&file);
    let id = server.publish("c", "first").unwrap();
    server.stop(LIMIT).unwrap();
    let options = BrokerOptions::default();
    let broker = long_polling::Broker::open(options, FilePersistorInfo::new(&file)).unwrap();
    let batch = broker
        .subscribe("c", Cursor::Oldest, Duration::ZERO)
        .unwrap();
    assert_eq!((batch.last_id(), batch.events()[0].id()), (id, id));
    broker.publish("c", "second").unwrap();
    broker.stop(LIMIT).unwrap();
    assert_eq!(after(&start(&file), "c", id).data(), ["second"]);
}
