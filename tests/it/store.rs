//! A store of the program that panics: the broker and the server go on.

use crate::support;

use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use long_polling::store::{Record, Snapshot, Store};
use long_polling::{Broker, BrokerOptions, Cursor, Error, ErrorKind, EventId, Server};
use support::{Connection, LIMIT, buffered, info, poll, until, until_parked};

/// Where a store panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreCall {
    Admit,
    /// `append` of an event.
    Append,
    /// `append` of a record that is no event.
    AppendOther,
    Flush,
    /// The next flush, once this many events have been appended.
    FlushOnce(usize),
    Settled,
    Stop,
}

/// Keeps records in memory, and panics in the calls that the test chooses.
#[derive(Clone, Default)]
struct Panicking(Arc<Mutex<PanickingState>>);

#[derive(Default)]
struct PanickingState {
    records: Vec<Record>,
    acknowledges: bool,
    panics: Vec<StoreCall>,
    stops: usize,
}

impl Panicking {
    fn new(acknowledges: bool) -> Self {
        let store = Panicking::default();
        store.state().acknowledges = acknowledges;
        store
    }

    fn state(&self) -> MutexGuard<'_, PanickingState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn panic_in(&self, calls: &[StoreCall]) {
        self.state().panics = calls.to_vec();
    }

    fn panic_if(&self, call: StoreCall) {
        let panics = self.state().panics.contains(&call);
        assert!(!panics, "on purpose, in {call:?}");
    }

    fn events(&self) -> usize {
        let state = self.state();
        let events = state.records.iter().filter_map(Record::event);
        events.count()
    }

    fn broker(&self, options: BrokerOptions) -> Broker {
        Broker::with_store(options, self.clone()).unwrap()
    }

    /// A broker that restores the records.
    fn again(&self) -> Broker {
        self.panic_in(&[]);
        self.broker(BrokerOptions::default())
    }
}

impl Store for Panicking {
    fn start(&mut self, _: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        self.state().records.iter().cloned().for_each(each);
        Ok(())
    }

    fn admit(&self, _: usize) -> Result<(), Error> {
        self.panic_if(StoreCall::Admit);
        Ok(())
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        self.panic_if(match record.event() {
            Some(_) => StoreCall::Append,
            None => StoreCall::AppendOther,
        });
        let mut state = self.state();
        state.records.push(record);
        Ok(state.records.len() as u64)
    }

    fn flush(&self, _: u64) -> Result<(), Error> {
        self.panic_if(StoreCall::Flush);
        let first = self.state().panics.first().copied();
        if let Some(StoreCall::FlushOnce(events)) = first {
            until("appended", || self.events() == events);
            self.panic_in(&[]);
            panic!("on purpose, once");
        }
        Ok(())
    }

    fn settled(&self) -> u64 {
        self.panic_if(StoreCall::Settled);
        self.state().records.len() as u64
    }

    fn acknowledges(&self) -> bool {
        self.state().acknowledges
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        self.state().stops += 1;
        self.panic_if(StoreCall::Stop);
        Ok(())
    }
}

fn numbers(broker: &Broker, cursor: Cursor) -> Vec<u64> {
    let batch = broker.subscribe("c", cursor, Duration::ZERO).unwrap();
    assert!(!batch.gap());
    let events = batch.events().iter();
    events.map(|event| event.decode().unwrap()).collect()
}

/// Publishes these numbers at the same time; `None` where the store panicked.
fn publish_all(broker: &Broker, numbers: std::ops::Range<u64>) -> Vec<Option<EventId>> {
    let (sender, receiver) = mpsc::channel();
    for number in numbers.clone() {
        let (broker, sender) = (broker.clone(), sender.clone());
        thread::spawn(move || {
            let published = catch_unwind(AssertUnwindSafe(|| broker.publish("c", &number)));
            sender.send(published.ok().map(Result::unwrap)).unwrap();
        });
    }
    let result = |_| receiver.recv_timeout(LIMIT).expect("every publish returns");
    numbers.map(result).collect()
}

#[test]
fn a_store_that_panics_blocks_no_thread_and_publishing_goes_on_afterwards() {
    for (acknowledges, call) in [
        (false, StoreCall::Admit),
        (false, StoreCall::Append),
        (true, StoreCall::Admit),
        (true, StoreCall::Append),
        (true, StoreCall::Flush),
    ] {
        let context = format!("{call:?}, {acknowledges}");
        let store = Panicking::new(acknowledges);
        let broker = store.broker(BrokerOptions::default());
        let first = broker.publish("c", &0).unwrap();
        let follower = broker.clone();
        let following = thread::spawn(move || {
            let batch = follower.subscribe("c", Cursor::LastId(first), LIMIT);
            batch.unwrap().events()[0].decode::<u64>().unwrap()
        });
        until("parked", || broker.statistics().parked == 1);

        store.panic_in(&[call]);
        assert_eq!(publish_all(&broker, 1..5), [None; 4], "{context}");
        let other = catch_unwind(AssertUnwindSafe(|| broker.publish("other", &5)));
        assert!(other.is_err(), "{context}");
        // Polls go on, and find nothing of it; the categories are those that they were.
        assert_eq!(numbers(&broker, Cursor::Oldest), [0], "{context}");
        let statistics = broker.statistics();
        assert_eq!(
            (statistics.parked, statistics.categories),
            (1, 1),
            "{context}"
        );

        store.panic_in(&[]);
        broker.publish("c", &9).unwrap();
        let mut seen = numbers(&broker, Cursor::LastId(first));
        assert_eq!(following.join().unwrap(), seen[0], "{context}");
        assert_eq!(seen.pop(), Some(9), "{context}");
        // What was handed to the store is kept, and so it is published now, once.
        let kept: &[u64] = if call == StoreCall::Flush {
            &[1, 2, 3, 4]
        } else {
            &[]
        };
        seen.sort();
        assert_eq!(seen, kept, "{context}");
        let all = numbers(&broker, Cursor::Oldest);
        broker.stop(LIMIT).unwrap();
        assert_eq!(numbers(&store.again(), Cursor::Oldest), all, "{context}");
    }
}

#[test]
fn those_who_wait_while_the_one_who_leads_panics_go_on_without_it() {
    let store = Panicking::new(true);
    let broker = store.broker(BrokerOptions::default());
    store.panic_in(&[StoreCall::FlushOnce(4)]);
    let published = publish_all(&broker, 0..4);
    assert_eq!(published.iter().flatten().count(), 3);
    let mut seen = numbers(&broker, Cursor::Oldest);
    seen.sort();
    assert_eq!(seen, [0, 1, 2, 3]);

    // Also once all publishers have their results.
    store.panic_in(&[StoreCall::Settled]);
    let published = publish_all(&broker, 4..8);
    assert!(published.contains(&None));
    assert_eq!(numbers(&broker, Cursor::Oldest).len(), 8);
    broker.stop(LIMIT).unwrap();
}

#[test]
fn a_panic_over_what_has_happened_already_changes_nothing_of_it() {
    for acknowledges in [false, true] {
        let store = Panicking::new(acknowledges);
        let broker = store.broker(BrokerOptions::new().delete_after_first_retrieval(true));
        store.panic_in(&[StoreCall::AppendOther]);
        // By a poll, and by a parked subscriber.
        broker.publish("c", &1).unwrap();
        assert_eq!(numbers(&broker, Cursor::Oldest), [1]);
        let follower = broker.clone();
        let following = thread::spawn(move || {
            let batch = follower.subscribe(["b", "c"], Cursor::Oldest, LIMIT);
            batch.unwrap().events()[0].decode::<u64>().unwrap()
        });
        until("parked", || broker.statistics().parked == 1);
        broker.publish("c", &2).unwrap();
        assert_eq!(following.join().unwrap(), 2);
        let statistics = broker.statistics();
        assert_eq!((statistics.published, statistics.delivered), (2, 2));
        assert_eq!((statistics.events, statistics.categories), (0, 0));
        // That the run ends.
        broker.stop(LIMIT).unwrap();
        assert_eq!(store.state().stops, 1);
    }
}

#[test]
fn a_store_that_panics_when_it_is_stopped_is_an_error_and_ends_no_process() {
    let store = Panicking::new(true);
    let broker = store.broker(BrokerOptions::default());
    store.panic_in(&[StoreCall::Stop, StoreCall::Flush]);
    let error = broker.stop(LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::File);
    drop(broker);
    assert_eq!(store.state().stops, 2);

    // The last to have the broker is one that panics already: a second panic would abort.
    let broker = store.again();
    store.panic_in(&[StoreCall::Stop, StoreCall::Flush]);
    let publishing = thread::spawn(move || broker.publish("c", &1).map(drop));
    assert!(publishing.join().is_err());
    assert_eq!(store.state().stops, 3);
}

#[test]
fn over_http_a_store_that_panics_is_a_500_and_the_server_goes_on() {
    const BODY: &str = r#"{"category":"c","data":1}"#;
    for call in [StoreCall::Admit, StoreCall::Append, StoreCall::Flush] {
        let store = Panicking::new(true);
        let server = Server::start(info().store(store.clone())).unwrap();
        let mut parked = Connection::to(&server);
        parked.ask("GET", &poll("c", 60, ""));
        until_parked(&server, 1);

        store.panic_in(&[call]);
        let mut connection = Connection::to(&server);
        for _ in 0..3 {
            connection.publish(BODY);
            connection.receive().refuses(500, "internal error");
        }
        assert_eq!(buffered(&server, "c").status, 204);
        let statistics = server.statistics();
        assert_eq!((statistics.parked, statistics.refused), (1, 3));

        store.panic_in(&[]);
        connection.publish(BODY);
        assert_eq!(connection.receive().status, 200);
        // An event over which `flush` panicked is flushed with the next one. Those of one millisecond come together.
        let published = if call == StoreCall::Flush { 4 } else { 1 };
        let delivered = parked.receive().data();
        assert!(
            (1..=published).contains(&delivered.len()) && delivered.iter().all(|data| *data == 1)
        );
        assert_eq!(buffered(&server, "c").data().len(), published);
        server.stop(LIMIT).unwrap();
    }
}

#[test]
fn a_server_whose_store_could_not_be_stopped_is_stopped_and_can_be_stopped_again() {
    let store = Panicking::new(false);
    let server = Server::start(info().store(store.clone())).unwrap();
    store.panic_in(&[StoreCall::Stop]);
    for _ in 0..2 {
        let error = server.stop(LIMIT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File);
    }
    TcpListener::bind(server.local_addr()).unwrap();
    store.panic_in(&[]);
    server.stop(LIMIT).unwrap();
    assert_eq!(store.state().stops, 3);
}
