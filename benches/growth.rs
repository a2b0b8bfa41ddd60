//! How the cost of work grows with what a broker holds, as tables. Everything is in process, without HTTP.
//!
//! ```text
//! cargo bench --bench growth
//! ```
//!
//! Each figure is the median of several rounds, in which the rows of a table have their turns. Without `--bench`, as
//! `cargo test --bench growth` runs it, the tables end after a few rows and the figures mean nothing.

#[allow(dead_code)]
mod support;

use std::time::{Duration, Instant};

use long_polling::{Broker, BrokerOptions, Cursor};
use support::categories::Categories;
use support::parked::Parked;
use support::{is_bench, medians};

/// Publishes of one measurement.
const PUBLISHES: usize = 20_000;

fn main() {
    println!("A publish, in ns, with this many categories, each with one event:\n");
    let mut rows = rows(
        &[1, 10, 100, 1000, 10_000, 100_000, 1_000_000],
        Categories::new,
    );
    let columns = ["categories", "to one of them", "to a random one"];
    print(columns, &mut rows, |_, categories| {
        let one = nanoseconds(PUBLISHES, || categories.publish_to(0));
        [one, nanoseconds(PUBLISHES, || categories.publish_to_any())]
    });

    println!(
        "\nA publish to one category, which holds this many events and is full, in ns; and a poll, in µs, for the newest"
    );
    println!("event and for the oldest 64 KiB of events by id and by time:\n");
    let mut rows = self::rows(&[1, 10, 100, 1000, 10_000, 100_000, 1_000_000], Full::new);
    let columns = [
        "events held",
        "publish",
        "poll, newest",
        "oldest, by id",
        "oldest, by time",
    ];
    print(columns, &mut rows, |_, full| full.measure());

    println!("\nA publish, in ns, with this many subscribers parked, each in another category:\n");
    let mut rows = self::rows(&[0, 10, 100, 1000, 5000], |count| {
        let broker = broker(BrokerOptions::new());
        let parked = Parked::new(&broker, count, |number| format!("other {number}"));
        (broker, parked)
    });
    print(
        ["parked elsewhere", "publish"],
        &mut rows,
        |_, (broker, _)| [nanoseconds(PUBLISHES, || publish(broker))],
    );
    drop(rows);

    println!(
        "\nA publish to this many parked subscribers, in µs for each: until it returns, and until the last one has the"
    );
    println!("event:\n");
    let mut rows = self::rows(&[10, 100, 1000, 5000], |count| {
        Parked::new(&broker(BrokerOptions::new()), count, |_| CATEGORY.into())
    });
    let columns = ["parked", "publish returns", "last has it"];
    print(columns, &mut rows, |count, parked| {
        let delivery = parked.deliver(CATEGORY);
        [delivery.published, delivery.delivered].map(|took| took.as_secs_f64() * 1e6 / count as f64)
    });
}

/// One of these counts, and what is measured with it.
type Row<T> = (usize, T);

fn rows<T>(counts: &[usize], subject: impl Fn(usize) -> T) -> Vec<Row<T>> {
    let most = if is_bench() { usize::MAX } else { 100 };
    let counts = counts.iter().copied().filter(|count| *count <= most);
    counts.map(|count| (count, subject(count))).collect()
}

/// Measures the rows in turns, and prints their medians.
fn print<T, const FIGURES: usize, const COLUMNS: usize>(
    columns: [&str; COLUMNS],
    rows: &mut [Row<T>],
    mut measure: impl FnMut(usize, &T) -> [f64; FIGURES],
) {
    let rounds = if is_bench() { 15 } else { 1 };
    let medians = medians(rounds, rows, |(count, subject)| measure(*count, subject));
    println!("| {} |", columns.join(" | "));
    println!("{}|", "|---".repeat(COLUMNS));
    for ((count, _), figures) in rows.iter().zip(medians) {
        let figures = figures.map(|figure| {
            if figure < 100.0 {
                format!("{figure:.1}")
            } else {
                format!("{figure:.0}")
            }
        });
        println!("| {count} | {} |", figures.join(" | "));
    }
}

const CATEGORY: &str = "category";

fn broker(options: BrokerOptions) -> Broker {
    Broker::new(options).expect("a broker")
}

fn publish(broker: &Broker) {
    broker.publish(CATEGORY, "event").expect("published");
}

/// The mean time of one call.
fn nanoseconds(times: usize, mut call: impl FnMut()) -> f64 {
    let times = if is_bench() { times } else { times / 100 };
    let start = Instant::now();
    (0..times).for_each(|_| call());
    start.elapsed().as_secs_f64() * 1e9 / times as f64
}

/// A broker with one category, whose ring buffer is full.
struct Full {
    broker: Broker,
}

impl Full {
    fn new(events: usize) -> Self {
        let options = BrokerOptions::new()
            .events_per_category(events)
            .max_event_bytes(usize::MAX)
            .max_batch_size(64 << 10);
        let broker = broker(options);
        (0..events).for_each(|_| publish(&broker));
        assert_eq!(broker.statistics().events, events);
        Full { broker }
    }

    fn measure(&self) -> [f64; 4] {
        let broker = &self.broker;
        let published = nanoseconds(PUBLISHES, || publish(broker));
        let start = self.poll(Cursor::Now);
        let id = broker.publish(CATEGORY, "newest").expect("published");
        let newest = nanoseconds(1000, || assert_eq!(self.poll(start), Cursor::LastId(id)));
        // The oldest that were never read: a position before them would be a gap.
        let oldest = self.poll(Cursor::Oldest);
        let by_id = nanoseconds(100, || _ = self.poll(oldest));
        let by_time = nanoseconds(100, || _ = self.poll(Cursor::Oldest));
        [published, newest / 1e3, by_id / 1e3, by_time / 1e3]
    }

    /// Polls without waiting, and returns the position that the poll reached.
    fn poll(&self, cursor: Cursor) -> Cursor {
        let batch = self.broker.subscribe(CATEGORY, cursor, Duration::ZERO);
        Cursor::LastId(batch.expect("a batch").last_id())
    }
}
