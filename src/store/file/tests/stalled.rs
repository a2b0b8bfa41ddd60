//! A disk that stalls: the limit of the queue, and stopping.

use super::fake_disk::{FakeDisk, Operation};
use super::*;

/// The operations that delay an event, by durability.
const STALLS: [(Durability, Operation); 5] = [
    (LEVELS[0], Operation::Append),
    (LEVELS[1], Operation::Append),
    (LEVELS[1], Operation::Sync),
    (LEVELS[2], Operation::Append),
    (LEVELS[2], Operation::Sync),
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

/// Returns a broker whose disk stalls with the first event, and whose queue has no room for another.
fn full(durability: Durability, max_wait: Duration) -> (FakeDisk, Broker, Arc<Queue>) {
    let disk = FakeDisk::default();
    let (broker, queue) = open(&disk, limited(durability, 1, max_wait));
    disk.stall(Operation::Append);
    broker.publish("one", &0).unwrap();
    disk.wait_until_stalled();
    (disk, broker, queue)
}

fn assert_full(error: &Error, max: usize) {
    assert_eq!(error.kind(), ErrorKind::Busy);
    let limit = format!("(max_queue_size, {max} bytes)");
    assert!(error.to_string().contains(&limit), "{error}");
}

/// Asserts that the category has these numbers, also after a stop, a power cut and a start.
fn assert_numbers(disk: &FakeDisk, broker: Broker, expected: &[u64]) {
    assert_eq!(
        numbers_in(&broker, "one", Cursor::Oldest),
        (expected.to_vec(), false)
    );
    broker.stop(LIMIT).unwrap();
    drop(broker);
    assert_restored(disk, expected);
}

/// Asserts that a start after a power cut restores these numbers.
fn assert_restored(disk: &FakeDisk, expected: &[u64]) {
    let copy = FakeDisk::with(&disk.after_crash().1);
    let broker = super::broker(&copy, 1000, info(Durability::Buffered, None)).unwrap();
    assert_eq!(
        numbers_in(&broker, "one", Cursor::Oldest),
        (expected.to_vec(), false)
    );
    assert_eq!(broker.statistics().store.damaged, 0);
}

#[test]
fn a_full_queue_refuses_at_once_with_a_max_wait_of_zero_and_keeps_what_it_has_accepted() {
    const MAX: usize = 2000;
    for (durability, operation) in STALLS {
        let disk = FakeDisk::default();
        let (broker, _) = open(&disk, limited(durability, MAX, Duration::ZERO));
        disk.stall(operation);
        let mut accepted = Vec::new();
        let refusal = loop {
            let (number, store) = (accepted.len() as u64, broker.statistics().store);
            let began = Instant::now();
            let result = publish_in_thread(&broker, "one", number);
            let pending = || broker.statistics().store.pending;
            wait_until(|| pending() > store.pending || !result.is_empty());
            if pending() == store.pending {
                assert!(began.elapsed() < Duration::from_secs(5));
                assert!(store.pending_bytes as usize <= MAX);
                break result.recv().unwrap().unwrap_err();
            }
            accepted.push(result);
            disk.wait_until_stalled();
        };
        assert_full(&refusal, MAX);
        assert!(accepted.len() >= 5, "{durability:?}: {}", accepted.len());
        let visible = match durability {
            Durability::Acknowledged => 0,
            _ => accepted.len() as u64,
        };
        let numbers = numbers_in(&broker, "one", Cursor::Oldest).0;
        assert_eq!(numbers, (0..visible).collect::<Vec<u64>>());

        disk.release();
        for result in &accepted {
            result.recv_timeout(LIMIT).unwrap().unwrap();
        }
        wait_until(|| broker.statistics().store.pending == 0);
        broker.publish("one", &100).unwrap();
        let expected = (0..accepted.len() as u64).chain([100]);
        assert_numbers(&disk, broker, &expected.collect::<Vec<u64>>());
    }
}

#[test]
fn a_publisher_waits_for_room_and_goes_on_once_there_is_some() {
    for durability in [LEVELS[0], LEVELS[1]] {
        for max_wait in [AN_HOUR, Duration::MAX] {
            let (disk, broker, queue) = full(durability, max_wait);
            assert!(!queue.is_flush_requested());
            let result = publish_in_thread(&broker, "one", 1);
            // The publisher requests the flush under the lock that it releases by waiting.
            wait_until(|| queue.is_flush_requested());
            assert!(result.is_empty());
            assert_eq!(numbers_in(&broker, "one", Cursor::Oldest), (vec![0], false));
            disk.release();
            result.recv_timeout(LIMIT).unwrap().unwrap();
            assert_numbers(&disk, broker, &[0, 1]);
        }
    }
}

#[test]
fn a_publisher_that_waits_for_room_is_refused_after_max_wait() {
    for durability in [LEVELS[0], LEVELS[1]] {
        let max_wait = Duration::from_millis(50);
        let (disk, broker, _) = full(durability, max_wait);
        let began = Instant::now();
        let refusal = broker.publish("one", &1).unwrap_err();
        let waited = began.elapsed();
        assert!(waited >= max_wait && waited < LIMIT / 2, "{waited:?}");
        assert_full(&refusal, 1);
        disk.release();
        wait_until(|| broker.statistics().store.pending_bytes == 0);
        broker.publish("one", &2).unwrap();
        assert_numbers(&disk, broker, &[0, 2]);
    }
}

#[test]
fn no_publisher_waits_for_room_on_a_disk_that_fails() {
    for durability in [LEVELS[0], LEVELS[1]] {
        let (disk, broker, queue) = full(durability, AN_HOUR);
        let waiting = publish_in_thread(&broker, "one", 1);
        wait_until(|| queue.is_flush_requested());
        disk.break_down(0, &Operation::ALL);
        disk.release();
        for result in [waiting, publish_in_thread(&broker, "one", 2)] {
            let refusal = result.recv_timeout(LIMIT).unwrap().unwrap_err();
            assert_eq!(refusal.kind(), ErrorKind::Busy);
            assert!(!refusal.to_string().contains("max_queue_size"), "{refusal}");
        }
        disk.repair();
        wait_until(|| broker.statistics().store.pending_bytes == 0);
        broker.publish("one", &3).unwrap();
        assert_numbers(&disk, broker, &[0, 3]);
    }
    // With Acknowledged, events are refused even if there is room, and long before the next attempt.
    let disk = FakeDisk::default();
    let info = limited(Durability::Acknowledged, 1 << 20, AN_HOUR).write_flush_period(AN_HOUR);
    let (broker, _) = open(&disk, info);
    disk.break_down(0, &Operation::ALL);
    for number in 0..3 {
        let result = publish_in_thread(&broker, "one", number);
        let refusal = result.recv_timeout(LIMIT).unwrap().unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Busy);
    }
    disk.repair();
    assert_numbers(&disk, broker, &[]);
}

#[test]
fn a_stop_that_has_timed_out_can_be_repeated_and_loses_nothing() {
    for (durability, operation) in STALLS
        .into_iter()
        .chain([(Durability::Buffered, Operation::Sync)])
    {
        let context = format!("{durability:?}, {operation:?}");
        let disk = FakeDisk::default();
        let broker = super::broker(&disk, 1000, info(durability, None)).unwrap();
        disk.stall(operation);
        let result = publish_in_thread(&broker, "one", 0);
        // The stop syncs a buffered event.
        if (durability, operation) == (Durability::Buffered, Operation::Sync) {
            wait_until(|| !result.is_empty());
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
        result.recv_timeout(LIMIT).unwrap().expect(&context);
        drop(broker);
        assert_restored(&disk, &[0]);
    }
}

#[test]
fn concurrent_publishers_share_one_sync() {
    const PUBLISHERS: u64 = 16;
    let disk = FakeDisk::default();
    let broker = super::broker(&disk, 1000, info(Durability::Acknowledged, None)).unwrap();
    disk.stall(Operation::Sync);
    let first = publish_in_thread(&broker, "one", 0);
    disk.wait_until_stalled();
    let others: Vec<_> = (1..PUBLISHERS)
        .map(|number| publish_in_thread(&broker, "one", number))
        .collect();
    wait_until(|| broker.statistics().store.pending == PUBLISHERS);
    let before = disk.operations();
    disk.release();
    for result in [first].iter().chain(&others) {
        result.recv_timeout(LIMIT).unwrap().unwrap();
    }
    // The stalled sync; then one write and one sync for all the others.
    assert_eq!(disk.operations() - before, 3);
    assert_eq!(
        numbers_in(&broker, "one", Cursor::Oldest).0.len(),
        PUBLISHERS as usize
    );
    broker.stop(LIMIT).unwrap();
}
