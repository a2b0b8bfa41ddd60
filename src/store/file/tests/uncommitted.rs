//! Events that the disk does not have yet, where nobody may see them before.

use super::fake_disk::{FakeDisk, Kind};
use super::*;
use crate::broker::Batch;

type Names = &'static [&'static str];

const BOTH: Names = &CATEGORIES;
/// Whose polls are looked at.
const FOLLOWED: [Names; 3] = [&["one"], &["two"], BOTH];
/// What holds up an event.
const STALLS: [Kind; 2] = [Kind::Append, Kind::Sync];

fn numbers(batch: &Batch) -> Vec<u64> {
    let events = batch.events().iter();
    events.map(|event| event.decode().unwrap()).collect()
}

fn poll(broker: &Broker, names: Names, cursor: Cursor, timeout: Duration) -> Arc<Batch> {
    let batch = broker.subscribe(names.to_vec(), cursor, timeout).unwrap();
    assert!(!batch.gap());
    batch
}

/// What comes from now on has another timestamp than all so far.
fn let_time_pass(broker: &Broker) {
    let now = broker.now();
    wait_until(|| broker.now() > now + 1);
}

/// A broker with an event, 0, of the first category.
fn open(disk: &FakeDisk) -> (Broker, EventId) {
    let broker = super::broker(disk, 1000, info(Durability::Acknowledged, None)).unwrap();
    let id = broker.publish("one", &0).unwrap();
    let_time_pass(&broker);
    (broker, id)
}

/// Three more on their way to a disk that stalls: the first alone, and two together behind it.
fn hide_three(
    disk: &FakeDisk,
    broker: &Broker,
    kind: Kind,
) -> [Receiver<Result<EventId, Error>>; 3] {
    disk.stall(kind);
    let told = [("one", 1), ("two", 2), ("one", 3)].map(|(category, number)| {
        let told = publish_aside(broker, category, number);
        wait_until(|| broker.statistics().store.pending == number);
        disk.wait_until_stalled();
        let_time_pass(broker);
        told
    });
    assert!(told.iter().all(|told| told.is_empty()));
    told
}

/// Of those of these numbers that the categories have.
fn of(names: Names, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let category = |number: u64| if number == 2 { "two" } else { "one" };
    let numbers = numbers.into_iter();
    numbers
        .filter(|number| names.contains(&category(*number)))
        .collect()
}

/// Polls in every way from an event that is the last to be seen, and tells where the answers leave a follower.
fn stands(broker: &Broker, last: EventId) -> Vec<(Names, Cursor)> {
    let held = poll(broker, BOTH, Cursor::Oldest, Duration::ZERO);
    let last_event = held.events().last().unwrap();
    assert_eq!((held.last_id(), last_event.id()), (last, last));
    let cursors = [
        Cursor::Now,
        Cursor::LastId(last),
        Cursor::SinceTime(last_event.timestamp()),
    ];
    let mut stands = Vec::new();
    for names in FOLLOWED {
        for (cursor, timeout) in cursors
            .iter()
            .flat_map(|at| [(*at, Duration::ZERO), (*at, SOON)])
        {
            let batch = poll(broker, names, cursor, timeout);
            assert!(batch.events().is_empty(), "{names:?}, {cursor:?}");
            let (id, before) = (batch.last_id(), batch.before());
            stands.push((names, Cursor::LastId(id)));
            // golongpoll's answer to a poll that timed out has only this.
            stands.push((names, Cursor::SinceTime(before)));
        }
    }
    stands
}

#[test]
fn what_is_not_on_the_disk_is_found_by_no_poll_and_lies_after_every_position_told() {
    for kind in STALLS {
        let disk = FakeDisk::default();
        let (broker, last) = open(&disk);
        let [first, second, third] = hide_three(&disk, &broker, kind);
        let mut all = vec![(1, stands(&broker, last))];
        disk.let_one_pass();
        let last = first.recv_timeout(LIMIT).unwrap().unwrap();
        disk.wait_until_stalled();
        all.push((2, stands(&broker, last)));
        assert!(second.is_empty() && third.is_empty());
        disk.release();
        for told in [second, third] {
            told.recv_timeout(LIMIT).unwrap().unwrap();
        }
        for (next, stands) in all {
            for (names, cursor) in stands {
                let found = numbers(&poll(&broker, names, cursor, Duration::ZERO));
                assert_eq!(found, of(names, next..4), "{kind:?}, {names:?}, {cursor:?}");
            }
        }
        broker.stop(LIMIT).unwrap();
    }
}

/// A poll on a thread of its own, that is parked when this returns.
fn park(broker: &Broker, names: Names, cursor: Cursor) -> Receiver<Vec<u64>> {
    let (follower, (tell, told)) = (broker.clone(), bounded(1));
    let parked = broker.statistics().parked;
    thread::spawn(move || tell.send(numbers(&poll(&follower, names, cursor, LIMIT))));
    wait_until(|| broker.statistics().parked > parked);
    told
}

#[test]
fn whoever_is_parked_is_woken_by_what_is_on_the_disk_and_not_before() {
    for kind in STALLS {
        let disk = FakeDisk::default();
        let (broker, last) = open(&disk);
        // Before anything is on its way, and meanwhile.
        let before = FOLLOWED.map(|names| (names, park(&broker, names, Cursor::LastId(last))));
        let [first, second, third] = hide_three(&disk, &broker, kind);
        let stands = stands(&broker, last);
        let meanwhile = stands
            .into_iter()
            .map(|(names, cursor)| (names, park(&broker, names, cursor)));
        let parked: Vec<(Names, Receiver<Vec<u64>>)> =
            before.into_iter().chain(meanwhile).collect();
        assert_eq!(broker.statistics().parked, parked.len());
        assert!(parked.iter().all(|(_, told)| told.is_empty()));

        disk.let_one_pass();
        first.recv_timeout(LIMIT).unwrap().unwrap();
        let (of_first, others): (Vec<_>, Vec<_>) = parked
            .into_iter()
            .partition(|(names, _)| names.contains(&"one"));
        for (names, told) in of_first {
            assert_eq!(
                told.recv_timeout(LIMIT).unwrap(),
                [1],
                "{kind:?}, {names:?}"
            );
        }
        disk.wait_until_stalled();
        assert_eq!(broker.statistics().parked, others.len());
        assert!(others.iter().all(|(_, told)| told.is_empty()));

        disk.release();
        for told in [second, third] {
            told.recv_timeout(LIMIT).unwrap().unwrap();
        }
        for (_, told) in others {
            assert_eq!(told.recv_timeout(LIMIT).unwrap(), [2], "{kind:?}");
        }
        broker.stop(LIMIT).unwrap();
    }
}
