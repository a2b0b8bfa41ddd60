//! A log that ends with gigabytes of NUL bytes, as after a power cut, is opened in little memory and time.
#![cfg(feature = "_server")]

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use long_polling::{Broker, BrokerOptions, Cursor, FilePersistorInfo};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Reading such a sparse file takes a few seconds, and longer on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// The bound of the guide's page `memory` for a file, and the chunks in which the file is read.
const MAX_MEMORY: usize = 4 << 20;

fn open(file: &Path) -> Broker {
    Broker::open(BrokerOptions::default(), FilePersistorInfo::new(file)).unwrap()
}

fn numbers(broker: &Broker) -> Vec<u64> {
    let batch = broker
        .subscribe("c", Cursor::Oldest, Duration::ZERO)
        .unwrap();
    let events = batch.events().iter();
    events.map(|event| event.decode().unwrap()).collect()
}

/// The only test of this program: others would share the allocator.
#[test]
fn gigabytes_of_nuls_at_the_end_of_a_log_are_removed_in_little_memory_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let broker = open(&file);
    for number in 0..3u64 {
        broker.publish("c", &number).unwrap();
    }
    broker.stop(LIMIT).unwrap();
    let whole = fs::read(&file).unwrap();
    // After a complete line, within a line, and in an otherwise empty file.
    let (gigabytes, less) = (4 << 30, 100 << 20);
    for (kept, tail) in [
        (whole.len() - 10, gigabytes),
        (whole.len(), less),
        (0, less),
    ] {
        let mut kept_bytes = whole.clone();
        kept_bytes.truncate(kept);
        fs::write(&file, &kept_bytes).unwrap();
        let sparse = OpenOptions::new().write(true).open(&file).unwrap();
        sparse.set_len(kept as u64 + tail).unwrap();
        drop(sparse);
        let before = ALLOCATED.current_usage();
        ALLOCATED.reset_peak_usage();
        let began = Instant::now();
        let broker = open(&file);
        let took = began.elapsed();
        let peak = ALLOCATED.peak_usage() - before;
        assert!(peak < MAX_MEMORY, "{peak} bytes");
        assert!(took < LIMIT, "{took:?}");
        let expected: &[u64] = if kept > 0 { &[0, 1, 2] } else { &[] };
        assert_eq!(numbers(&broker), expected);
        broker.publish("c", &9u64).unwrap();
        broker.stop(LIMIT).unwrap();
        assert!(fs::metadata(&file).unwrap().len() < whole.len() as u64 + 2000);
        let again = open(&file);
        assert_eq!(numbers(&again), [expected, &[9]].concat());
        assert_eq!(again.statistics().store.damaged, 0);
        again.stop(LIMIT).unwrap();
        // The text of the incomplete line is kept, without the NULs.
        for entry in fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            assert!(entry.metadata().unwrap().len() < 10_000, "{entry:?}");
        }
    }
}
