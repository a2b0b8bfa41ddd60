//! A kill or a power cut after each operation of the disk.

use super::fake_disk::FakeDisk;
use super::*;

/// Publishes to one category, and starts again from the files after each operation.
fn run(durability: Durability, ring: usize, compact_from: Option<u64>) {
    const COUNT: usize = 40;
    let (disk, returned) = FakeDisk::default().recorded();
    let broker = super::broker(&disk, ring, info(durability, compact_from)).unwrap();
    for number in 0..COUNT {
        broker.publish("one", &number).unwrap();
        returned.lock().push(number as u64);
        wait_until(|| broker.statistics().store.pending == 0);
    }
    broker.stop(LIMIT).unwrap();
    let rewritten = broker.statistics().store.rewritten;
    assert_eq!(rewritten > 0, compact_from.is_some());
    let history = disk.history();
    assert!(history.len() > COUNT / 4, "{}", history.len());
    for (at, point) in history.iter().enumerate() {
        let acknowledged = durability == Durability::Acknowledged;
        let crashes = [("kill", point.killed()), ("power cut", point.power_cut())];
        for (what, files) in crashes {
            let context = format!("{durability:?}, {compact_from:?}, {what} after operation {at}");
            let copy = FakeDisk::with(&files);
            let broker = super::broker(&copy, ring, info(durability, compact_from)).unwrap();
            let (numbers, _) = numbers_in(&broker, "one", Cursor::Oldest);
            // The newest events of some first part of what was published, which includes every acknowledged event.
            let end = numbers.last().map_or(0, |last| *last as usize + 1);
            let expected: Vec<u64> = (end.saturating_sub(ring)..end)
                .map(|at| at as u64)
                .collect();
            assert_eq!(numbers, expected, "{context}");
            if acknowledged {
                let returned = point.note.len();
                assert!(end >= returned, "{context}: {end} of {returned}");
            }
            // The broker goes on from there.
            broker.publish("one", &end).unwrap();
            broker.stop(LIMIT).unwrap();
        }
    }
}

#[test]
fn a_kill_or_power_cut_at_any_moment_keeps_a_first_part_without_gaps() {
    for durability in LEVELS {
        run(durability, 1000, None);
    }
}

#[test]
fn a_kill_or_power_cut_at_any_step_of_a_compaction_keeps_one_complete_log() {
    for durability in LEVELS {
        run(durability, RING, Some(1));
    }
}
