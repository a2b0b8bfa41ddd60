//! What a broker does in process, without HTTP: publishes, their delivery to parked subscribers, a backlog, and a publish
//! with a file.
//!
//! ```text
//! cargo bench --bench broker
//! cargo bench --bench broker -- parked
//! ```
//!
//! criterion compares each figure with that of the run before. A word selects the figures whose names contain it. Without
//! `--bench`, as `cargo test --bench broker` runs it, everything is done once, with at most 1,000 categories and 100
//! subscribers.

#[allow(dead_code)]
mod support;

use std::cell::LazyCell;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use long_polling::{Broker, BrokerOptions, Cursor, FilePersistorInfo};
use support::categories::Categories;
use support::parked::{Delivery, Parked};
use support::{LIMIT, is_bench};

/// The data of each event: 64 bytes of JSON.
const DATA: &str = "62 characters of text, which are 64 bytes of JSON with quotes.";
/// The events that a ring buffer holds with the default options.
const CAPACITY: usize = 250;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .sample_size(30)
        .configure_from_args();
    publish(&mut criterion);
    parked(&mut criterion);
    categories(&mut criterion);
    backlog(&mut criterion);
    log(&mut criterion);
    criterion.final_summary();
}

fn broker() -> Broker {
    Broker::new(BrokerOptions::default()).expect("a broker")
}

/// A publish to a category without subscribers, whose ring buffer is full.
fn publish(criterion: &mut Criterion) {
    let broker = broker();
    for _ in 0..CAPACITY {
        broker.publish("category", DATA).expect("published");
    }
    criterion.bench_function("publish/no subscriber", |bencher| {
        bencher.iter(|| broker.publish("category", DATA).expect("published"));
    });
}

/// The part of a delivery that is measured.
type Phase = fn(Delivery) -> Duration;

/// A publish to a category with parked subscribers: until it returns to the publisher, which has woken all of them by then,
/// and until the last subscriber has the event. Parking again is not measured.
fn parked(criterion: &mut Criterion) {
    let returned: Phase = |delivery| delivery.published;
    let delivered: Phase = |delivery| delivery.delivered;
    let most = if is_bench() { 1000 } else { 100 };
    for (name, phase) in [("returns", returned), ("delivered", delivered)] {
        let mut group = criterion.benchmark_group(format!("publish/{name}, parked"));
        group.sampling_mode(SamplingMode::Flat);
        for count in [1, 10, 1000] {
            let parked = LazyCell::new(|| {
                let broker = broker();
                Parked::new(&broker, count.min(most), |_| "category".into())
            });
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter_custom(|times| {
                    (0..times).map(|_| phase(parked.deliver("category"))).sum()
                });
            });
        }
        group.finish();
    }
}

/// A publish to a random one of many categories. Each has one event and no subscriber.
fn categories(criterion: &mut Criterion) {
    let most = if is_bench() { 1_000_000 } else { 1000 };
    let mut group = criterion.benchmark_group("publish/categories");
    for count in [1, 100, 10_000, 1_000_000] {
        let categories = LazyCell::new(|| Categories::new(count.min(most)));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| categories.publish_to_any());
        });
    }
    group.finish();
}

/// A poll without waiting that finds 250 events, a full ring buffer.
fn backlog(criterion: &mut Criterion) {
    let broker = broker();
    let start = broker.subscribe("category", Cursor::Now, Duration::ZERO);
    let start = Cursor::LastId(start.expect("a position").last_id());
    for _ in 0..CAPACITY {
        broker.publish("category", DATA).expect("published");
    }
    let mut group = criterion.benchmark_group("backlog of 250");
    group.throughput(Throughput::Elements(250));
    for (name, cursor) in [("by id", start), ("oldest", Cursor::Oldest)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let batch = broker
                    .subscribe("category", cursor, Duration::ZERO)
                    .expect("a batch");
                assert_eq!(batch.events().len(), 250);
                batch
            });
        });
    }
    group.finish();
}

/// A publish with a file that is `Buffered`, in a temporary folder: as fast as the broker's thread can write.
fn log(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = FilePersistorInfo::new(folder.path().join("events.log"));
    let broker = Broker::open(BrokerOptions::default(), file).expect("a broker");
    criterion.bench_function("publish/log", |bencher| {
        bencher.iter(|| broker.publish("category", DATA).expect("published"));
    });
    broker.stop(LIMIT).expect("stopped");
}
