//! A disk that does not answer for a while: the limit of the queue, and stopping.

use super::fake_disk::{FakeDisk, Kind};
use super::*;

/// Where a stall holds up an event at each level.
const STALLS: [(Durability, Kind); 5] = [
    (LEVELS[0], Kind::Append),
    (LEVELS[1], Kind::Append),
    (LEVELS[1], Kind::Sync),
    (LEVELS[2], Kind::Append),
    (LEVELS[2], Kind::Sync),
];
const AN_HOUR: Duration = Duration::from_secs(3600);

fn limited(durability: Durability, max_queue_size: usize, max_wait: Duration) -> FilePersistorInfo {
    info(durability, None)
        .max_queue_size(max_queue_size)
        .max_wait(max_wait)
}

fn open(disk: &FakeDisk, info: FilePersistorInfo) -> (Broker, Arc<Queue>) {
    let store = FilePersistor::new(disk.clone(), info).unwrap();
    let queue = store.queue.clone();
    let broker = Broker::restore(BrokerOptions::default(), Clock::System, Box::new(store));
    (broker.unwrap(), queue)
}

/// An open file, a disk that holds up the first event, and room for no other.
fn full(durability: Durability, max_wait: Duration) -> (FakeDisk, Broker, Arc<Queue>) {
    let disk = FakeDisk::default();
    let (broker, queue) = open(&disk, limited(durability, 1, max_wait));
    disk.stall(Kind::Append);
    broker.publish("one", &0).unwrap();
    disk.wait_until_stalled();
    (disk, broker, queue)
}

fn is_full(error: &Error, max: usize) {
    assert_eq!(error.kind(), ErrorKind::Busy);
    let words = format!("(max_queue_size, {max} bytes)");
    assert!(error.to_string().contains(&words), "{error}");
}

/// Stops, and starts again from what a power cut would leave.
fn stopped_and_started(disk: &FakeDisk, broker: Broker, expected: &[u64]) {
    assert_eq!(
        held(&broker, "one", Cursor::Oldest),
        (expected.to_vec(), false)
    );
    broker.stop(LIMIT).unwrap();
    drop(broker);
    starts_with(disk, expected);
}

fn starts_with(disk: &FakeDisk, expected: &[u64]) {
    let again = FakeDisk::with(&disk.left().1);
    let broker = super::broker(&again, 1000, info(Durability::Buffered, None)).unwrap();
    assert_eq!(
        held(&broker, "one", Cursor::Oldest),
        (expected.to_vec(), false)
    );
    assert_eq!(broker.statistics().store.damaged, 0);
}

#[test]
fn a_full_queue_refuses_at_once_where_nobody_may_wait_and_keeps_what_it_took() {
    const MAX: usize = 2000;
    for (durability, kind) in STALLS {
        let disk = FakeDisk::default();
        let (broker, _) = open(&disk, limited(durability, MAX, Duration::ZERO));
        disk.stall(kind);
        let mut taken = Vec::new();
        let refusal = loop {
            let (number, store) = (taken.len() as u64, broker.statistics().store);
            let began = Instant::now();
            let told = publish_aside(&broker, "one", number);
            let pending = || broker.statistics().store.pending;
            wait_until(|| pending() > store.pending || !told.is_empty());
            if pending() == store.pending {
                assert!(began.elapsed() < Duration::from_secs(5));
                assert!(store.pending_bytes as usize <= MAX);
                break told.recv().unwrap().unwrap_err();
            }
            taken.push(told);
            disk.wait_until_stalled();
        };
        is_full(&refusal, MAX);
        assert!(taken.len() >= 5, "{durability:?}: {}", taken.len());
        let seen = match durability {
            Durability::Acknowledged => 0,
            _ => taken.len() as u64,
        };
        let numbers = held(&broker, "one", Cursor::Oldest).0;
        assert_eq!(numbers, (0..seen).collect::<Vec<u64>>());

        disk.release();
        for told in &taken {
            told.recv_timeout(LIMIT).unwrap().unwrap();
        }
        wait_until(|| broker.statistics().store.pending == 0);
        broker.publish("one", &100).unwrap();
        let expected = (0..taken.len() as u64).chain([100]);
        stopped_and_started(&disk, broker, &expected.collect::<Vec<u64>>());
    }
}

#[test]
fn a_publisher_waits_for_room_and_goes_on_once_there_is_some() {
    for durability in [LEVELS[0], LEVELS[1]] {
        for max_wait in [AN_HOUR, Duration::MAX] {
            let (disk, broker, queue) = full(durability, max_wait);
            assert!(!queue.is_urgent());
            let told = publish_aside(&broker, "one", 1);
            // It asks for flush_requested under the lock that it gives up by waiting.
            wait_until(|| queue.is_urgent());
            assert!(told.is_empty());
            assert_eq!(held(&broker, "one", Cursor::Oldest), (vec![0], false));
            disk.release();
            told.recv_timeout(LIMIT).unwrap().unwrap();
            stopped_and_started(&disk, broker, &[0, 1]);
        }
    }
}

#[test]
fn a_publisher_that_waits_in_vain_is_refused_after_as_long_as_it_may_wait() {
    for durability in [LEVELS[0], LEVELS[1]] {
        let max_wait = Duration::from_millis(50);
        let (disk, broker, _) = full(durability, max_wait);
        let began = Instant::now();
        let refusal = broker.publish("one", &1).unwrap_err();
        let waited = began.elapsed();
        assert!(waited >= max_wait && waited < LIMIT / 2, "{waited:?}");
        is_full(&refusal, 1);
        disk.release();
        wait_until(|| broker.statistics().store.pending_bytes == 0);
        broker.publish("one", &2).unwrap();
        stopped_and_started(&disk, broker, &[0, 2]);
    }
}

#[test]
fn nobody_waits_for_room_on_a_disk_that_fails() {
    for durability in [LEVELS[0], LEVELS[1]] {
        let (disk, broker, queue) = full(durability, AN_HOUR);
        let waiting = publish_aside(&broker, "one", 1);
        wait_until(|| queue.is_urgent());
        disk.break_down(0, &Kind::ALL);
        disk.release();
        for told in [waiting, publish_aside(&broker, "one", 2)] {
            let refusal = told.recv_timeout(LIMIT).unwrap().unwrap_err();
            assert_eq!(refusal.kind(), ErrorKind::Busy);
            assert!(!refusal.to_string().contains("max_queue_size"), "{refusal}");
        }
        disk.mend();
        wait_until(|| broker.statistics().store.pending_bytes == 0);
        broker.publish("one", &3).unwrap();
        stopped_and_started(&disk, broker, &[0, 3]);
    }
    // Where an event is to be on the disk, also while there is room, and long before the next try.
    let disk = FakeDisk::default();
    let info = limited(Durability::Acknowledged, 1 << 20, AN_HOUR).write_flush_period(AN_HOUR);
    let (broker, _) = open(&disk, info);
    disk.break_down(0, &Kind::ALL);
    for number in 0..3 {
        let told = publish_aside(&broker, "one", number);
        let refusal = told.recv_timeout(LIMIT).unwrap().unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Busy);
    }
    disk.mend();
    stopped_and_started(&disk, broker, &[]);
}

#[test]
fn a_stop_that_took_too_long_can_be_repeated_and_loses_nothing() {
    for (durability, kind) in STALLS
        .into_iter()
        .chain([(Durability::Buffered, Kind::Sync)])
    {
        let context = format!("{durability:?}, {kind:?}");
        let disk = FakeDisk::default();
        let broker = super::broker(&disk, 1000, info(durability, None)).unwrap();
        disk.stall(kind);
        let told = publish_aside(&broker, "one", 0);
        // A buffered event is synced by the stop.
        if (durability, kind) == (Durability::Buffered, Kind::Sync) {
            wait_until(|| !told.is_empty());
        } else {
            disk.wait_until_stalled();
        }
        let timeout = Duration::from_millis(30);
        for _ in 0..2 {
            let began = Instant::now();
            let error = broker.stop(timeout).expect_err(&context);
            let took = began.elapsed();
            assert_eq!(error.kind(), ErrorKind::StopTimeout, "{context}");
            assert!(took >= timeout && took < LIMIT / 2, "{context}: {took:?}");
        }
        let late = broker.publish("one", &1).expect_err(&context);
        assert_eq!(late.kind(), ErrorKind::Stopped, "{context}");
        disk.release();
        broker.stop(LIMIT).expect(&context);
        told.recv_timeout(LIMIT).unwrap().expect(&context);
        drop(broker);
        starts_with(&disk, &[0]);
    }
}

#[test]
fn those_who_wait_for_the_disk_at_the_same_time_share_one_sync() {
    const PUBLISHERS: u64 = 16;
    let disk = FakeDisk::default();
    let broker = super::broker(&disk, 1000, info(Durability::Acknowledged, None)).unwrap();
    disk.stall(Kind::Sync);
    let first = publish_aside(&broker, "one", 0);
    disk.wait_until_stalled();
    let others: Vec<_> = (1..PUBLISHERS)
        .map(|number| publish_aside(&broker, "one", number))
        .collect();
    wait_until(|| broker.statistics().store.pending == PUBLISHERS);
    let before = disk.operations();
    disk.release();
    for told in [first].iter().chain(&others) {
        told.recv_timeout(LIMIT).unwrap().unwrap();
    }
    // The sync that stalled; then one write and one sync for all the others.
    assert_eq!(disk.operations() - before, 3);
    assert_eq!(
        held(&broker, "one", Cursor::Oldest).0.len(),
        PUBLISHERS as usize
    );
    broker.stop(LIMIT).unwrap();
}
