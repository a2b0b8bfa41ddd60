//! A server with a file is restarted under load: every event is delivered once, in order, and there is no gap.

use crate::support;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use long_polling::{Cursor, FilePersistorInfo, Publisher, Server, Stopper, Subscriber};
use support::{LIMIT, info, until};

const CATEGORIES: usize = 32;
/// Of each category.
const EVENTS: usize = 250;
const ALL: usize = CATEGORIES * EVENTS;
/// How many events a publisher is ahead of its subscriber, at most; the server keeps more.
const AHEAD: usize = 32;
const RESTARTS: usize = 4;

/// Stops all subscribers when the test ends, also by a panic.
struct Stoppers(Vec<Stopper>);

impl Drop for Stoppers {
    fn drop(&mut self) {
        self.0.iter().for_each(Stopper::stop);
    }
}

#[test]
fn restarts_under_load_lose_nothing_repeat_nothing_and_cause_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("events.db")).write_buffer_size(4096);
    let start = |address: &str| {
        let info = info().address(address);
        Server::start(info.file(file.clone())).unwrap()
    };
    let mut server = start("127.0.0.1:0");
    let address = server.local_addr().to_string();
    let (accepted, delivered) = (AtomicUsize::new(0), AtomicUsize::new(0));

    let publish_all = |category: &str, ahead: SyncSender<()>| {
        // Each publisher keeps its own connections, as separate programs would.
        let agent = ureq::Agent::new_with_defaults();
        let publisher = Publisher::new(format!("http://{address}/publish"))
            .agent(agent)
            .retry_for(LIMIT);
        for number in 0..EVENTS {
            ahead.send(()).expect("a subscriber");
            publisher.publish(category, &number).unwrap();
            accepted.fetch_add(1, SeqCst);
        }
    };
    let follow_all = |events: Subscriber, behind: Receiver<()>| -> Vec<usize> {
        let numbers = events.take(EVENTS).map(|event| {
            let number = event.expect("no gap").decode().unwrap();
            behind.recv().expect("a publisher");
            delivered.fetch_add(1, SeqCst);
            number
        });
        numbers.collect()
    };

    thread::scope(|scope| {
        let mut stoppers = Stoppers(Vec::new());
        let mut followers = Vec::new();
        for category in (0..CATEGORIES).map(|number| format!("category {number}")) {
            let soon = Duration::from_millis(10);
            let events = Subscriber::new(format!("http://{address}/events"), &*category)
                .start_at(Cursor::Oldest)
                .backoff(soon, soon);
            stoppers.0.push(events.stopper());
            let (ahead, behind) = mpsc::sync_channel(AHEAD);
            let (publish_all, follow_all) = (&publish_all, &follow_all);
            scope.spawn(move || publish_all(&category, ahead));
            followers.push(scope.spawn(move || follow_all(events, behind)));
        }
        let mut published = 0;
        for restart in 1..=RESTARTS {
            let enough = restart * ALL / (RESTARTS + 1);
            until("enough events are accepted", || {
                accepted.load(SeqCst) >= enough
            });
            server.stop(LIMIT).unwrap();
            published += server.statistics().published;
            server = start(&address);
        }
        until("all events are delivered", || delivered.load(SeqCst) == ALL);
        for follower in followers {
            assert_eq!(follower.join().unwrap(), (0..EVENTS).collect::<Vec<_>>());
        }
        published += server.statistics().published;
        assert_eq!(published, ALL as u64);
    });
}
