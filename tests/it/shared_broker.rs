//! Servers with a broker that exists already: what they have in common, and what the stop of one leaves alone.

use crate::support;

use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use long_polling::server::Handler;
use long_polling::{
    Broker, BrokerOptions, Cursor, ErrorKind, FilePersistorInfo, Server, ServerInfo,
};
use support::{
    Connection, IS_NATIVE, LIMIT, buffered, get, info, poll, publish, start, until_parked,
};

const BODY: &str = r#"{"category":"c","data":1}"#;

fn broker() -> Broker {
    Broker::new(BrokerOptions::new()).unwrap()
}

fn sharing(broker: &Broker) -> ServerInfo {
    info().shared_broker(broker.clone())
}

/// A poll that is parked, as the one with this number in the broker.
fn parked(server: &Server, number: usize) -> Connection {
    let mut connection = Connection::to(server);
    connection.ask("GET", &poll("c", 60, ""));
    until_parked(server, number);
    connection
}

#[test]
fn servers_with_one_broker_have_the_same_events_and_statistics() {
    let broker = broker();
    let servers = [start(sharing(&broker)), start(sharing(&broker))];
    let mut polls = [parked(&servers[0], 1), parked(&servers[1], 2)];
    assert_eq!(publish(&servers[1], BODY).status, 200);
    for poll in &mut polls {
        assert_eq!(poll.receive().data(), [1]);
    }
    broker.publish("c", "in process").unwrap();
    for server in &servers {
        assert_eq!(buffered(server, "c").data().len(), 2);
        assert_eq!(server.statistics().published, 2);
    }
}

#[test]
fn a_stop_answers_the_polls_of_its_server_and_no_others() {
    let broker = broker();
    let (stopped, other) = (start(sharing(&broker)), start(sharing(&broker)));
    let mut polls = [parked(&stopped, 1), parked(&stopped, 2), parked(&other, 3)];
    let follower = broker.clone();
    let in_process = thread::spawn(move || follower.subscribe("c", Cursor::Now, LIMIT));
    until_parked(&other, 4);

    stopped.stop(LIMIT).unwrap();
    for poll in &mut polls[..2] {
        let answer = poll.receive();
        answer.has_the_promised_headers();
        assert_eq!(answer.status, 204);
    }
    assert_eq!(broker.statistics().parked, 2);
    // Stopping twice is fine, and leaves the broker alone, too.
    stopped.stop(Duration::ZERO).unwrap();

    broker.publish("c", "still").unwrap();
    assert_eq!(polls[2].receive().data(), ["still"]);
    let batch = in_process.join().unwrap().unwrap();
    assert_eq!(batch.events()[0].text(), "still");
    // And another server can have it.
    let again = start(sharing(&broker));
    drop(stopped);
    drop(other);
    assert_eq!(publish(&again, BODY).status, 200);
}

#[test]
fn a_kept_connection_gets_its_answer_at_once_after_the_stop() {
    if IS_NATIVE {
        // It closes kept connections at the stop.
        return;
    }
    let broker = broker();
    let server = start(sharing(&broker));
    let mut kept = Connection::to(&server);
    kept.ask("GET", &poll("c", 0, ""));
    kept.receive();
    server.stop(LIMIT).unwrap();
    kept.ask("GET", &poll("c", 60, ""));
    let answer = kept.receive();
    assert_eq!(
        (answer.status, answer.header("Connection")),
        (204, Some("close"))
    );
}

#[test]
fn each_server_answers_with_its_own_header_fields() {
    let broker = broker();
    let origins = ["https://one.example", "https://two.example"];
    let servers = origins.map(|origin| start(sharing(&broker).cors_origin(origin)));
    let mut polls = [
        (parked(&servers[0], 1), origins[0]),
        (parked(&servers[1], 2), origins[1]),
        (parked(&servers[0], 3), origins[0]),
        (parked(&servers[1], 4), origins[1]),
    ];
    // All of them get the same batch.
    broker.publish("c", &1).unwrap();
    for (poll, origin) in &mut polls {
        let answer = poll.receive();
        assert_eq!(answer.data(), [1]);
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(*origin));
    }
}

#[test]
fn a_request_that_takes_longer_than_the_stop_may_still_publish() {
    let broker = broker();
    let (release, held) = mpsc::channel::<()>();
    let (entered, entry) = mpsc::channel();
    let (held, entered) = (Mutex::new(held), Mutex::new(entered));
    let server = start(sharing(&broker).before_publish(Handler::new(move |_| {
        let _ = entered.lock().unwrap().send(());
        let _ = held.lock().unwrap().recv_timeout(LIMIT);
        Ok(())
    })));
    let mut publisher = Connection::to(&server);
    publisher.publish(BODY);
    entry.recv_timeout(LIMIT).unwrap();
    let error = server.stop(Duration::from_millis(10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StopTimeout);
    assert!(error.to_string().contains("may still publish"), "{error}");
    release.send(()).unwrap();
    let batch = broker.subscribe("c", Cursor::Oldest, LIMIT).unwrap();
    assert_eq!(batch.events()[0].text(), "1");
}

#[test]
fn a_stopped_broker_is_refused_and_one_that_is_stopped_later_is_reported() {
    let broker = broker();
    let server = start(sharing(&broker));
    let mut parked = parked(&server, 1);
    broker.stop(LIMIT).unwrap();
    assert_eq!(parked.receive().status, 204);
    for answer in [get(&server, &poll("c", 60, "")), publish(&server, BODY)] {
        answer.refuses(503, "stopped");
        assert!(answer.header("Retry-After").is_some());
    }
    let address = server.local_addr().to_string();
    server.stop(LIMIT).unwrap();

    let error = Server::start(sharing(&broker).address(&*address)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSetting);
    assert!(error.to_string().starts_with("shared_broker: "), "{error}");
    // The port is free all the same.
    drop(start(info().address(address)));
}

#[test]
fn the_last_one_of_broker_file_and_shared_broker_takes_effect() {
    let broker = Broker::new(BrokerOptions::new().max_event_size(77)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.log");
    let long = format!(r#"{{"category":"c","data":"{}"}}"#, "x".repeat(100));

    let replaced = sharing(&broker).broker(BrokerOptions::new());
    assert_eq!(publish(&start(replaced), &long).status, 200);
    assert_eq!(broker.statistics().published, 0);

    let replaced = sharing(&broker).file(FilePersistorInfo::new(&file));
    start(replaced).publish("c", &1).unwrap();
    assert_eq!(broker.statistics().published, 0);
    let kept = std::fs::read(&file).unwrap();

    let shared = info()
        .broker(BrokerOptions::new())
        .file(FilePersistorInfo::new(&file))
        .shared_broker(broker.clone());
    let server = start(shared);
    publish(&server, BODY);
    publish(&server, &long).refuses(413, "77");
    assert_eq!(broker.statistics().published, 1);
    assert_eq!(std::fs::read(&file).unwrap(), kept);
}
