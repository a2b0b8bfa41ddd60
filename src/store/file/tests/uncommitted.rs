//! Events that the disk does not have yet, with a durability that shows them to nobody before.

use super::fake_disk::{FakeDisk, Operation};
use super::*;
use crate::broker::Batch;

type Names = &'static [&'static str];

const BOTH: Names = &CATEGORIES;
/// The categories of the polls.
const FOLLOWED: [Names; 3] = [&["one"], &["two"], BOTH];
/// The operations that stall.
const STALLS: [Operation; 2] = [Operation::Append, Operation::Sync];

fn numbers(batch: &Batch) -> Vec<u64> {
    let events = batch.events().iter();
    events.map(|event| event.decode().unwrap()).collect()
}

fn poll(broker: &Broker, names: Names, cursor: Cursor, timeout: Duration) -> Arc<Batch> {
    let batch = broker.subscribe(names.to_vec(), cursor, timeout).unwrap();
    assert!(!batch.gap());
    batch
}

/// Waits until the next event gets a later timestamp than all before it.
fn wait_for_next_timestamp(broker: &Broker) {
    let now = broker.now();
    wait_until(|| broker.now() > now + 1);
}

/// A broker with the event 0 in the first category.
fn open(disk: &FakeDisk) -> (Broker, EventId) {
    let broker = super::broker(disk, 1000, info(Durability::Acknowledged, None)).unwrap();
    let id = broker.publish("one", &0).unwrap();
    wait_for_next_timestamp(&broker);
    (broker, id)
}

/// Publishes three more events while the disk stalls: first one, and then two together.
fn publish_uncommitted(
    disk: &FakeDisk,
    broker: &Broker,
    operation: Operation,
) -> [Receiver<Result<EventId, Error>>; 3] {
    disk.stall(operation);
    let results = [("one", 1), ("two", 2), ("one", 3)].map(|(category, number)| {
        let result = publish_in_thread(broker, category, number);
        wait_until(|| broker.statistics().store.pending == number);
        disk.wait_until_stalled();
        wait_for_next_timestamp(broker);
        result
    });
    assert!(results.iter().all(Receiver::is_empty));
    results
}

/// Returns the numbers that are events of these categories.
fn of(names: Names, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let category = |number: u64| if number == 2 { "two" } else { "one" };
    let numbers = numbers.into_iter();
    numbers
        .filter(|number| names.contains(&category(*number)))
        .collect()
}

/// Polls in every way from the last visible event. Returns the positions from which a subscriber goes on after the answers.
fn positions(broker: &Broker, last: EventId) -> Vec<(Names, Cursor)> {
    let visible = poll(broker, BOTH, Cursor::Oldest, Duration::ZERO);
    let last_event = visible.events().last().unwrap();
    assert_eq!((visible.last_id(), last_event.id()), (last, last));
    let cursors = [
        Cursor::Now,
        Cursor::LastId(last),
        Cursor::SinceTime(last_event.timestamp()),
    ];
    let mut positions = Vec::new();
    for names in FOLLOWED {
        for (cursor, timeout) in cursors
            .iter()
            .flat_map(|at| [(*at, Duration::ZERO), (*at, SOON)])
        {
            let batch = poll(broker, names, cursor, timeout);
            assert!(batch.events().is_empty(), "{names:?}, {cursor:?}");
            let (id, before) = (batch.last_id(), batch.before());
            positions.push((names, Cursor::LastId(id)));
            // golongpoll's answer to a poll that has timed out has only this position.
            positions.push((names, Cursor::SinceTime(before)));
        }
    }
    positions
}

#[test]
fn no_poll_returns_an_uncommitted_event_and_every_position_is_before_it() {
    for operation in STALLS {
        let disk = FakeDisk::default();
        let (broker, last) = open(&disk);
        let [first, second, third] = publish_uncommitted(&disk, &broker, operation);
        let mut all = vec![(1, positions(&broker, last))];
        disk.release_one();
        let last = first.recv_timeout(LIMIT).unwrap().unwrap();
        disk.wait_until_stalled();
        all.push((2, positions(&broker, last)));
        assert!(second.is_empty() && third.is_empty());
        disk.release();
        for result in [second, third] {
            result.recv_timeout(LIMIT).unwrap().unwrap();
        }
        for (next, positions) in all {
            for (names, cursor) in positions {
                let found = numbers(&poll(&broker, names, cursor, Duration::ZERO));
                assert_eq!(
                    found,
                    of(names, next..4),
                    "{operation:?}, {names:?}, {cursor:?}"
                );
            }
        }
        broker.stop(LIMIT).unwrap();
    }
}

/// Polls in a new thread, and returns once the poll is parked. The channel receives the numbers.
fn park(broker: &Broker, names: Names, cursor: Cursor) -> Receiver<Vec<u64>> {
    let (subscriber, (sender, numbers_found)) = (broker.clone(), bounded(1));
    let parked = broker.statistics().parked;
    thread::spawn(move || sender.send(numbers(&poll(&subscriber, names, cursor, LIMIT))));
    wait_until(|| broker.statistics().parked > parked);
    numbers_found
}

#[test]
fn parked_polls_are_woken_once_the_event_is_on_the_disk() {
    for operation in STALLS {
        let disk = FakeDisk::default();
        let (broker, last) = open(&disk);
        // Some polls are parked before the events are published, some after.
        let before = FOLLOWED.map(|names| (names, park(&broker, names, Cursor::LastId(last))));
        let [first, second, third] = publish_uncommitted(&disk, &broker, operation);
        let meanwhile = positions(&broker, last)
            .into_iter()
            .map(|(names, cursor)| (names, park(&broker, names, cursor)));
        let parked: Vec<(Names, Receiver<Vec<u64>>)> =
            before.into_iter().chain(meanwhile).collect();
        assert_eq!(broker.statistics().parked, parked.len());
        assert!(parked.iter().all(|(_, numbers)| numbers.is_empty()));

        disk.release_one();
        first.recv_timeout(LIMIT).unwrap().unwrap();
        let (of_first, others): (Vec<_>, Vec<_>) = parked
            .into_iter()
            .partition(|(names, _)| names.contains(&"one"));
        for (names, numbers) in of_first {
            assert_eq!(
                numbers.recv_timeout(LIMIT).unwrap(),
                [1],
                "{operation:?}, {names:?}"
            );
        }
        disk.wait_until_stalled();
        assert_eq!(broker.statistics().parked, others.len());
        assert!(others.iter().all(|(_, numbers)| numbers.is_empty()));

        disk.release();
        for result in [second, third] {
            result.recv_timeout(LIMIT).unwrap().unwrap();
        }
        for (_, numbers) in others {
            assert_eq!(numbers.recv_timeout(LIMIT).unwrap(), [2], "{operation:?}");
        }
        broker.stop(LIMIT).unwrap();
    }
}
