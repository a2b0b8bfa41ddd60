//! The file store on disks that fail, stall and crash.

#[cfg(feature = "testing")]
mod conformance;
mod crash_point;
mod damage;
mod fake_disk;
mod faults;
mod location;
mod outage;
mod partial_sync;
mod power_cut;
mod run_history;
mod stalled;
mod uncommitted;

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use self::fake_disk::FakeDisk;
use super::*;
use crate::broker::{Broker, BrokerOptions, Clock};
use crate::event::{Draft, Event};
use crate::position::{Cursor, EventId};

/// An event with an id that is not this crate's, as golongpoll's have.
pub(super) fn event(timestamp: u64, data: &str) -> Event {
    let draft = Draft::new("category".into(), data).unwrap();
    draft.stamp(timestamp, EventId::from(u128::from(timestamp)))
}

fn wait_until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LIMIT, "nothing happened for {LIMIT:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

const LIMIT: Duration = Duration::from_secs(20);
/// The period between two attempts to write to a disk that fails, and of `Synced`.
const SOON: Duration = Duration::from_millis(1);
/// Every durability, with a short period.
const LEVELS: [Durability; 3] = [
    Durability::Buffered,
    Durability::Synced { period: SOON },
    Durability::Acknowledged,
];
/// The size of the ring buffers in tests whose file is to be compacted soon.
const RING: usize = 4;
const CATEGORIES: [&str; 2] = ["one", "two"];

fn info(durability: Durability, compact_from: Option<u64>) -> FilePersistorInfo {
    FilePersistorInfo::new("events.log")
        .durability(durability)
        .write_buffer_size(0)
        .write_flush_period(SOON)
        .compact_from(compact_from)
}

fn broker(
    disk: &FakeDisk,
    events_per_category: usize,
    info: FilePersistorInfo,
) -> Result<Broker, Error> {
    let options = BrokerOptions::new().events_per_category(events_per_category);
    let store = FilePersistor::new(disk.clone(), info)?;
    Broker::restore(options, Clock::System, Box::new(store))
}

/// Publishes in a new thread. The channel receives the result.
fn publish_in_thread(
    broker: &Broker,
    category: &'static str,
    number: u64,
) -> Receiver<Result<EventId, Error>> {
    let (broker, (sender, result)) = (broker.clone(), bounded(1));
    thread::spawn(move || sender.send(broker.publish(category, &number)));
    result
}

/// Returns the numbers that a category has after `cursor`, and whether the answer has a gap.
fn numbers_in(broker: &Broker, category: &str, cursor: Cursor) -> (Vec<u64>, bool) {
    let batch = broker.subscribe(category, cursor, Duration::ZERO).unwrap();
    let numbers = batch.events().iter().map(|event| event.decode().unwrap());
    let ids: Vec<EventId> = batch.events().iter().map(Event::id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    (numbers.collect(), batch.gap())
}
