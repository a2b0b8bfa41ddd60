//! Publishes with an idempotency key: a repetition publishes nothing, and gets the first answer.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use long_polling::server::{Cors, Request, Response};
use long_polling::store::{Record, Snapshot, Store};
use long_polling::testing::{self, ManualClock};
use long_polling::{
    Broker, BrokerOptions, Cursor, Durability, Error, ErrorKind, EventId, FilePersistorInfo,
    PublishRequest, Server,
};

use crate::support::{Answer, Connection, LIMIT, buffered, info, publish, server, start, until};

const ONE: &str = r#"{"category":"c","data":1}"#;
const OTHER: &str = r#"{"category":"c","data":2}"#;
const ARRAY: &str = r#"[{"category":"a","data":1},{"category":"b","data":2,"ttl":60}]"#;
const MINUTE: Duration = Duration::from_secs(60);

/// Sends a publish with these fields.
fn send(connection: &mut Connection, fields: &str, body: &str) {
    let length = body.len();
    connection.send(format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    ));
}

fn with_fields(server: &Server, fields: &str, body: &str) -> Answer {
    let mut connection = Connection::to(server);
    send(&mut connection, fields, body);
    connection.receive()
}

fn once(server: &Server, key: &str, body: &str) -> Answer {
    with_fields(server, &format!("Idempotency-Key: {key}\r\n"), body)
}

fn is_replayed(answer: &Answer) -> bool {
    let replayed = answer.header("Idempotency-Replayed");
    assert!(matches!(replayed, None | Some("true")));
    replayed.is_some()
}

fn options(server: &Server, fields: &str) -> Answer {
    let mut connection = Connection::to(server);
    connection.send(format!(
        "OPTIONS /publish HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"
    ));
    connection.receive()
}

pub(crate) fn events(broker: &Broker, category: &str) -> Vec<EventId> {
    let batch = broker.subscribe(category, Cursor::Oldest, Duration::ZERO);
    batch
        .unwrap()
        .events()
        .iter()
        .map(|event| event.id())
        .collect()
}

pub(crate) fn file(path: &Path, durability: Durability) -> FilePersistorInfo {
    FilePersistorInfo::new(path).durability(durability)
}

#[test]
fn a_repetition_gets_the_first_answer_and_publishes_nothing() {
    let server = server();
    for (key, body, count) in [("\"a key\"", ONE, 1), ("k2", ARRAY, 2)] {
        let before = server.statistics().published;
        let first = once(&server, key, body);
        assert_eq!(first.status, 200);
        first.has_the_promised_headers();
        assert!(!is_replayed(&first));
        publish(&server, OTHER);
        for _ in 0..2 {
            let again = once(&server, key, body);
            assert!(is_replayed(&again));
            again.has_the_promised_headers();
            assert_eq!((again.status, &again.body), (200, &first.body));
            assert_eq!(again.position(), first.position());
            assert_eq!(again.header("Content-Type"), first.header("Content-Type"));
        }
        assert_eq!(server.statistics().published, before + count + 1);
    }
    let array = once(&server, "k2", ARRAY).json();
    let ids: Vec<String> = ["a", "b"]
        .map(|of| buffered(&server, of).ids().remove(0))
        .into();
    assert_eq!(array["ids"], serde_json::json!(ids));
    let statistics = server.statistics();
    assert_eq!(
        (statistics.idempotency_keys, statistics.repetitions),
        (2, 5)
    );

    // Over HTTP and in process, a key is the same.
    let id = once(&server, r#""a key""#, ONE).position().to_owned();
    assert_eq!(
        server.publish_once("a key", "c", &1).unwrap().to_string(),
        id
    );
    let request = PublishRequest::new("c", 1).idempotency_key("a key");
    assert_eq!(server.publish_with(&request).unwrap().to_string(), id);
    let requests = [
        PublishRequest::new("a", 1),
        PublishRequest::new("b", 2).ttl(MINUTE),
    ];
    let again = server.publish_all_once("k2", &requests).unwrap();
    let again: Vec<String> = again.iter().map(EventId::to_string).collect();
    assert_eq!(again, ids);
}

#[test]
fn a_key_of_other_events_is_refused() {
    let server = server();
    once(&server, "k", ONE);
    for other in [
        OTHER,
        r#"{"category":"d","data":1}"#,
        r#"{"category":"c","data":1,"ttl":60}"#,
        r#"{"category":"c","data":"1"}"#,
        &format!("[{ONE},{ONE}]"),
    ] {
        once(&server, "k", other).refuses(422, "a key of its own");
    }
    assert!(is_replayed(&once(&server, "k", ONE)));
    assert_eq!(server.statistics().published, 1);
    let error = server.publish_once("k", "c", &2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyReused);
    assert_eq!(server.statistics().refused, 6);
}

#[test]
fn a_key_has_1_to_255_printable_characters_and_comes_once() {
    let server = server();
    let longest = "x".repeat(255);
    for (key, same) in [
        (longest.as_str(), format!("\"{longest}\"")),
        (r#""a\"b\\c""#, r#""a\"b\\c""#.into()),
        ("8e03978e-40d5", r#" "8e03978e-40d5" "#.into()),
    ] {
        assert!(!is_replayed(&once(&server, key, ONE)));
        assert!(is_replayed(&once(&server, &same, ONE)), "{key}");
    }
    let published = server.statistics().published;
    for key in [
        "",
        "\"\"",
        "a b",
        "\"a",
        "\"a\";b=1",
        "\"a\" \"b\"",
        &"x".repeat(256),
    ] {
        once(&server, key, ONE).refuses(400, "dempotency");
    }
    let twice = "Idempotency-Key: k\r\nidempotency-key: k\r\n";
    with_fields(&server, twice, ONE).refuses(400, "twice");
    assert_eq!(server.statistics().published, published);
    for key in ["", "é", &"x".repeat(256)] {
        let error = server.publish_once(key, "c", &1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
    // A purge is idempotent by itself.
    let mut connection = Connection::to(&server);
    connection.send(
        "DELETE /publish?category=c HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: \"\r\n\r\n",
    );
    assert_eq!(connection.receive().status, 204);
}

#[test]
fn hooks_run_for_repetitions_too() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let server =
        start(info().before_publish(
            move |request: &Request| match counted.fetch_add(1, SeqCst) {
                0 | 1 => Ok(()),
                _ => Err(Response::error(403, request.category().unwrap_or_default())),
            },
        ));
    assert_eq!(once(&server, "k", ONE).status, 200);
    assert!(is_replayed(&once(&server, "k", ONE)));
    once(&server, "k", ONE).refuses(403, "c");
}

/// A store whose flushes wait until they may go on, and fail if they are to.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    records: Vec<Record>,
    waiting: usize,
    is_closed: bool,
    fails: bool,
    panics: bool,
}

impl Gate {
    fn set(&self, is_closed: bool, fails: bool) {
        let mut state = self.0.0.lock().unwrap();
        (state.is_closed, state.fails) = (is_closed, fails);
        self.0.1.notify_all();
    }

    fn set_panics(&self, panics: bool) {
        self.0.0.lock().unwrap().panics = panics;
    }

    fn waiting(&self) -> usize {
        self.0.0.lock().unwrap().waiting
    }
}

impl Store for Gate {
    fn start(&mut self, _: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        let records = self.0.0.lock().unwrap().records.clone();
        records.into_iter().for_each(each);
        Ok(())
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        let mut state = self.0.0.lock().unwrap();
        state.records.push(record);
        Ok(state.records.len() as u64)
    }

    fn flush(&self, ticket: u64) -> Result<(), Error> {
        let mut state = self.0.0.lock().unwrap();
        state.waiting += 1;
        while state.is_closed {
            state = self.0.1.wait(state).unwrap();
        }
        state.waiting -= 1;
        if state.panics {
            drop(state);
            panic!("a panic that the test wants");
        }
        if !state.fails {
            return Ok(());
        }
        let record = &mut state.records[ticket as usize - 1];
        if let Some(event) = record.event() {
            *record = Record::Refused(event.id());
        }
        Err(Error::new(ErrorKind::Busy, "the disk is full"))
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }

    fn acknowledges(&self) -> bool {
        true
    }
}

#[test]
fn a_repetition_waits_for_the_first_publish_and_the_server_serves_others_meanwhile() {
    let gate = Gate::default();
    let broker = Broker::with_store(BrokerOptions::new(), gate.clone()).unwrap();
    let server = start(info().shared_broker(broker.clone()));
    gate.set(true, false);
    let mut connections: Vec<Connection> = (0..6).map(|_| Connection::to(&server)).collect();
    for connection in &mut connections {
        send(connection, "Idempotency-Key: k\r\n", ONE);
    }
    until("the first waits for the disk", || gate.waiting() == 1);
    assert_eq!(buffered(&server, "c").status, 204);
    // Other events need not wait to be refused.
    once(&server, "k", OTHER).refuses(422, "a key of its own");
    gate.set(false, false);
    let answers: Vec<Answer> = connections.iter_mut().map(Connection::receive).collect();
    assert_eq!(
        answers.iter().filter(|answer| is_replayed(answer)).count(),
        5
    );
    for answer in &answers {
        assert_eq!(
            (answer.status, answer.position()),
            (200, answers[0].position())
        );
    }
    assert_eq!(broker.statistics().published, 1);
}

#[test]
fn a_publish_that_fails_gives_its_key_back_and_one_that_waits_publishes_in_its_place() {
    let gate = Gate::default();
    let broker = Broker::with_store(BrokerOptions::new(), gate.clone()).unwrap();
    let server = start(info().shared_broker(broker.clone()));
    gate.set(false, true);
    for _ in 0..2 {
        once(&server, "k", ONE).refuses(503, "the disk is full");
    }
    assert_eq!(broker.statistics().idempotency_keys, 0);
    gate.set(false, false);
    // Also with other events.
    assert!(!is_replayed(&once(&server, "k", OTHER)));
    assert!(is_replayed(&once(&server, "k", OTHER)));

    gate.set(true, true);
    let first = thread::spawn({
        let broker = broker.clone();
        move || broker.publish_once("next", "c", &7)
    });
    until("the first waits for the disk", || gate.waiting() == 1);
    let second = thread::spawn({
        let broker = broker.clone();
        move || broker.publish_once("next", "c", &7)
    });
    gate.set(false, true);
    first.join().unwrap().unwrap_err();
    gate.set(false, false);
    let id = match second.join().unwrap() {
        Ok(id) => id,
        // It came before the gate worked again.
        Err(_) => broker.publish_once("next", "c", &7).unwrap(),
    };
    assert_eq!(broker.publish_once("next", "c", &7).unwrap(), id);
    let held = events(&broker, "c");
    assert_eq!((held.len(), held[1]), (2, id));

    // The next start does not know the keys of refused events.
    broker.stop(LIMIT).unwrap();
    let broker = Broker::with_store(BrokerOptions::new(), gate).unwrap();
    assert_eq!(broker.publish_once("next", "c", &7).unwrap(), id);
    assert_eq!(events(&broker, "c"), held);
    assert_eq!(broker.statistics().idempotency_keys, 2);
}

#[test]
fn repetitions_do_not_wait_for_a_publish_over_which_the_store_has_panicked() {
    let gate = Gate::default();
    let broker = Broker::with_store(BrokerOptions::new(), gate.clone()).unwrap();
    let server = start(info().shared_broker(broker.clone()));
    gate.set(true, false);
    gate.set_panics(true);
    let mut connections: Vec<Connection> = (0..2).map(|_| Connection::to(&server)).collect();
    for connection in &mut connections {
        send(connection, "Idempotency-Key: k\r\n", ONE);
    }
    until("the first waits for the disk", || gate.waiting() == 1);
    gate.set(false, false);
    let mut statuses = connections
        .iter_mut()
        .map(|connection| connection.receive().status);
    let mut statuses = [statuses.next().unwrap(), statuses.next().unwrap()];
    statuses.sort_unstable();
    assert_eq!(statuses, [500, 504]);
    once(&server, "k", ONE).refuses(504, "try again with the same key");
    // The next publisher settles the event, too.
    gate.set_panics(false);
    broker.publish("d", "x").unwrap();
    let again = once(&server, "k", ONE);
    assert!(is_replayed(&again));
    assert_eq!(buffered(&server, "c").ids(), [again.position()]);
}

#[test]
fn a_key_is_forgotten_after_the_window() {
    let clock = ManualClock::at(1_700_000_000_000);
    let options = BrokerOptions::new().idempotency_window(10 * MINUTE);
    let server = testing::start(info().broker(options), &clock).unwrap();
    let first = once(&server, "k", ONE).position().to_owned();
    clock.advance(10 * MINUTE - Duration::from_millis(1));
    assert_eq!(once(&server, "k", ONE).position(), first);
    // The time of the first publish counts, and not that of the repetition.
    clock.advance(Duration::from_millis(1));
    assert_eq!(server.statistics().idempotency_keys, 0);
    let second = once(&server, "k", OTHER);
    assert!(!is_replayed(&second));
    assert_eq!(server.statistics().keys_forgotten, 0);
    // A correction of the clock forgets none.
    clock.set(1_900_000_000_000);
    assert_eq!(once(&server, "k", OTHER).position(), second.position());
}

#[test]
fn without_a_window_keys_are_checked_and_ignored() {
    let options = BrokerOptions::new().idempotency_window(Duration::ZERO);
    let server = start(info().broker(options));
    for _ in 0..2 {
        assert!(!is_replayed(&once(&server, "k", ONE)));
    }
    once(&server, "a b", ONE).refuses(400, "Idempotency-Key");
    assert_eq!(server.statistics().published, 2);
    let two = [PublishRequest::new("c", 1), PublishRequest::new("c", 2)];
    assert_eq!(
        server.broker().publish_all_once("k", &two).unwrap().len(),
        2
    );
    assert_eq!(options_window(&server), None);
    assert_eq!(options_window(&self::server()).as_deref(), Some("600"));
}

fn options_window(server: &Server) -> Option<String> {
    let answer = options(server, "");
    assert_eq!(answer.status, 204);
    answer.header("Idempotency-Window").map(str::to_owned)
}

#[test]
fn a_repetition_of_an_event_that_was_retrieved_or_purged_publishes_nothing() {
    let options = BrokerOptions::new().delete_after_first_retrieval(true);
    let server = start(info().broker(options));
    for key in ["retrieved", "purged"] {
        let id = once(&server, key, ONE).position().to_owned();
        match key {
            "retrieved" => assert_eq!(buffered(&server, "c").ids(), [id.as_str()]),
            _ => _ = server.broker().purge("c").unwrap(),
        }
        let again = once(&server, key, ONE);
        assert!(is_replayed(&again));
        assert_eq!(again.position(), id);
        assert_eq!(buffered(&server, "c").status, 204);
    }
}

#[test]
fn keys_are_known_after_a_restart_with_a_file_until_their_time_is_over() {
    for durability in [Durability::Buffered, Durability::Acknowledged] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let clock = ManualClock::at(1_700_000_000_000);
        let open = |options: BrokerOptions| {
            let info = info().broker(options).file(file(&path, durability));
            testing::start(info, &clock).unwrap()
        };
        let server = open(BrokerOptions::new());
        let one = once(&server, r#""k \"1\"""#, ONE);
        clock.advance(MINUTE);
        let array = once(&server, "k2", ARRAY);
        server.stop(LIMIT).unwrap();
        for _ in 0..2 {
            clock.advance(MINUTE);
            let server = open(BrokerOptions::new());
            for (key, body, first) in [(r#""k \"1\"""#, ONE, &one), ("k2", ARRAY, &array)] {
                let again = once(&server, key, body);
                assert!(is_replayed(&again), "{durability:?}");
                assert_eq!(
                    (&again.body, again.position()),
                    (&first.body, first.position())
                );
            }
            once(&server, "k2", ONE).refuses(422, "a key of its own");
            assert_eq!(server.statistics().published, 0);
            server.stop(LIMIT).unwrap();
        }
        // Later, and with a smaller limit.
        clock.advance(7 * MINUTE + MINUTE / 2);
        let server = open(BrokerOptions::new());
        assert_eq!(server.statistics().idempotency_keys, 1);
        assert!(!is_replayed(&once(&server, r#""k \"1\"""#, ONE)));
        assert!(is_replayed(&once(&server, "k2", ARRAY)));
        server.stop(LIMIT).unwrap();
        let server = open(BrokerOptions::new().max_idempotency_keys(1));
        assert!(is_replayed(&once(&server, r#""k \"1\"""#, ONE)));
        assert_eq!(server.statistics().idempotency_keys, 1);
        server.stop(LIMIT).unwrap();
    }
}

#[test]
fn a_page_of_another_origin_may_send_a_key_and_read_the_answers_fields() {
    let cors = Cors::new().origins(["https://app.example"]);
    let server = start(info().cors(cors));
    let page = "Origin: https://app.example\r\n";
    let asking = "Access-Control-Request-Method: POST\r\n\
                  Access-Control-Request-Headers: content-type,idempotency-key\r\n";
    let preflight = options(&server, &format!("{page}{asking}"));
    let allowed = preflight.header("Access-Control-Allow-Headers").unwrap();
    assert!(allowed.contains("idempotency-key"));
    assert_eq!(preflight.header("Idempotency-Window"), Some("600"));
    let fields = format!("{page}Idempotency-Key: k\r\n");
    for is_again in [false, true] {
        let answer = with_fields(&server, &fields, ONE);
        assert_eq!((answer.status, is_replayed(&answer)), (200, is_again));
        let exposed = answer.header("Access-Control-Expose-Headers").unwrap();
        for name in [
            "Idempotency-Replayed",
            "Idempotency-Window",
            "Last-Event-ID",
        ] {
            assert!(exposed.contains(name), "{exposed}");
        }
    }
}
