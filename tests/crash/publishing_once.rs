//! A `Publisher` whose server is killed and restarted with the same file: each event is published once.

use crate::{process, support};

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use long_polling::testing::Relay;
use long_polling::{
    Broker, BrokerOptions, Cursor, Durability, EventId, FilePersistorInfo, Publisher, Server,
};
use process::Process;
use support::{Connection, LIMIT, info, poll, until};

const PUBLISHERS: usize = 4;

/// The same settings in the process that is killed and in the one that checks the file. No event is evicted; the file is
/// compacted often.
fn settings(file: &str) -> (BrokerOptions, FilePersistorInfo) {
    let file = FilePersistorInfo::new(file)
        .durability(Durability::Acknowledged)
        .compact_from(20_000);
    (BrokerOptions::new().events_per_category(1_000_000), file)
}

#[test]
#[ignore = "not a test: the server that is killed"]
fn serve_as_a_process() {
    let Some(arguments) = process::argument() else {
        return;
    };
    let (address, file) = arguments.split_once(' ').expect("an address and a file");
    let (options, file) = settings(file);
    let info = info().address(address).broker(options).file(file);
    process::serve(&Server::start(info).unwrap());
}

/// A server in a process of its own, behind a relay that refuses connections while the server is down.
struct Killed {
    process: Option<Process>,
    relay: Relay,
    /// The address of the server and its file.
    arguments: String,
}

impl Killed {
    fn start(file: &Path) -> Self {
        let (process, address) = start(&format!("127.0.0.1:0 {}", file.display()));
        Killed {
            process: Some(process),
            relay: Relay::to(address).unwrap(),
            arguments: format!("{address} {}", file.display()),
        }
    }

    fn publisher(&self) -> Publisher {
        let soon = Duration::from_millis(1);
        Publisher::new(format!("http://{}/publish", self.relay.local_addr()))
            .backoff(soon, 10 * soon)
            .retry_for(LIMIT)
    }

    /// Kills the server, and starts it with the same address and file. Answers that the relay holds back get lost.
    fn restart(&mut self) {
        self.process = None;
        self.relay.refuse_connections(true);
        self.relay.delay_responses(Duration::ZERO);
        self.process = Some(start(&self.arguments).0);
        self.relay.refuse_connections(false);
    }

    /// A connection that does not go through the relay.
    fn connect(&self) -> Connection {
        let (address, _) = self.arguments.split_once(' ').unwrap();
        Connection::open(address.parse().unwrap())
    }
}

fn start(arguments: &str) -> (Process, std::net::SocketAddr) {
    let test = "publishing_once::serve_as_a_process";
    Process::start_server(&mut process::this_program(test, arguments))
}

#[test]
fn an_event_that_was_synced_before_a_kill_lost_its_answer_is_published_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Killed::start(&folder.path().join("events.db"));
    let publisher = server.publisher();
    for round in 0..10 {
        let category = format!("round{round}");
        server.relay.delay_responses(Duration::from_secs(3600));
        thread::scope(|scope| {
            let publishing = scope.spawn(|| publisher.publish(&category, &round));
            // A subscriber gets the event after the sync.
            let mut connection = server.connect();
            connection.ask("GET", &poll(&category, 20, "&since_time=1"));
            let first = connection.receive().ids();
            server.restart();
            let response = publishing.join().unwrap().unwrap();
            assert_eq!(response.headers.get("Idempotency-Replayed"), Some("true"));
            let id = response.id.map(|id| id.to_string());
            assert_eq!(first, [id.unwrap()]);
            let mut connection = server.connect();
            connection.ask("GET", &poll(&category, 0, "&since_time=1"));
            assert_eq!(connection.receive().ids(), first);
        });
    }
}

/// Kills the server this many times, each after a random number of further publishes, while the publishers go on.
fn kill_repeatedly(server: &mut Killed, rounds: usize, published: &AtomicUsize) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..rounds {
        let enough = published.load(SeqCst) + random.usize(1..300);
        until("events are published", || published.load(SeqCst) >= enough);
        server.restart();
    }
}

#[test]
fn a_publisher_whose_server_is_killed_repeatedly_publishes_each_event_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let mut server = Killed::start(&file);
    let publisher = server.publisher();
    let (done, published_by_all) = (AtomicBool::new(false), AtomicUsize::new(0));
    let publish_until_done = |category: String| {
        let mut ids = Vec::new();
        while !done.load(SeqCst) {
            let response = publisher.publish(&category, &ids.len()).unwrap();
            ids.push(response.id.expect("an id"));
            published_by_all.fetch_add(1, SeqCst);
        }
        (category, ids)
    };
    let published: HashMap<String, Vec<EventId>> = thread::scope(|scope| {
        let publish = &publish_until_done;
        let threads: Vec<_> = (0..PUBLISHERS)
            .map(|number| scope.spawn(move || publish(format!("category{number}"))))
            .collect();
        kill_repeatedly(&mut server, 20, &published_by_all);
        done.store(true, SeqCst);
        let threads = threads.into_iter().map(|thread| thread.join().unwrap());
        threads.collect()
    });
    assert!(server.process.take().unwrap().stop());

    let (options, file) = settings(file.to_str().unwrap());
    let broker = Broker::open(options, file).unwrap();
    for (category, ids) in published {
        assert!(!ids.is_empty());
        let batch = broker.subscribe(&category, Cursor::Oldest, Duration::ZERO);
        let batch = batch.unwrap();
        let events = batch.events().iter();
        let events: Vec<_> = events
            .map(|event| (event.decode::<usize>().unwrap(), event.id()))
            .collect();
        let expected: Vec<_> = ids.into_iter().enumerate().collect();
        assert_eq!(events, expected, "{category}");
    }
}
