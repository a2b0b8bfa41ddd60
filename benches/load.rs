//! Measures how fast a broker reads a file back when it is opened, and how much memory that takes.
//!
//! ```text
//! cargo bench --bench load
//! ```
//!
//! Each load runs in its own process, to measure its memory. The file is in a temporary folder, and in the system's cache
//! after it was written. Without `--bench`, as `cargo test --bench load` runs it, the files are small and the results are
//! meaningless.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use long_polling::{Broker, BrokerOptions, FilePersistorInfo};

/// Loads of each file. The median is printed.
const ROUNDS: usize = 7;
/// The environment variable with the file that a child process loads.
const LOAD_VARIABLE: &str = "LONG_POLLING_BENCH_LOAD";

/// The events of a file.
struct Shape {
    name: &'static str,
    events: u64,
    categories: u64,
    /// Bytes of an event's data.
    data: usize,
}

const SHAPES: [Shape; 3] = [
    Shape {
        name: "1 KB of data",
        events: 450_000,
        categories: 1000,
        data: 1000,
    },
    Shape {
        name: "small events, 1,000 categories in turns",
        events: 1_000_000,
        categories: 1000,
        data: 12,
    },
    Shape {
        name: "small events, one category",
        events: 1_000_000,
        categories: 1,
        data: 12,
    },
];

fn main() {
    if let Some(file) = std::env::var_os(LOAD_VARIABLE) {
        return load(file.as_ref());
    }
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    for mut shape in SHAPES {
        if !is_bench {
            shape.events /= 1000;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("events.db");
        fill(&file, &shape);
        let bytes = std::fs::metadata(&file).expect("a file").len();
        let rounds = if is_bench { ROUNDS } else { 1 };
        let mut loads: Vec<Loaded> = (0..rounds).map(|_| load_in_process(&file)).collect();
        loads.sort_by_key(|load| load.took);
        let Loaded { took, .. } = loads[rounds / 2];
        let memory = loads.iter().filter_map(|load| load.memory).max();
        let memory = memory.map_or("an unknown amount".to_owned(), |kib| {
            format!("{} MiB", kib >> 10)
        });
        println!(
            "{}: {} events, {} MB in {took:.0?}, {:.0} MB/s; at most {memory} of memory",
            shape.name,
            shape.events,
            bytes / 1_000_000,
            bytes as f64 / 1e6 / took.as_secs_f64()
        );
    }
}

fn open(file: &Path) -> Broker {
    let info = FilePersistorInfo::new(file).compact_from(None);
    Broker::open(BrokerOptions::default(), info).expect("a broker")
}

/// Writes the file with a broker.
fn fill(file: &Path, shape: &Shape) {
    let broker = open(file);
    let data = "x".repeat(shape.data - 2);
    for number in 0..shape.events {
        let category = format!("category {}", number % shape.categories);
        broker.publish(&category, &data).expect("published");
    }
    broker.stop(Duration::from_secs(600)).expect("stopped");
}

struct Loaded {
    took: Duration,
    /// The peak memory of the process, in KiB, if the system reports it.
    memory: Option<u64>,
}

fn load_in_process(file: &Path) -> Loaded {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .env(LOAD_VARIABLE, file)
        .output()
        .expect("a process");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let took = numbers
        .next()
        .expect("a time")
        .expect("a time in microseconds");
    Loaded {
        took: Duration::from_micros(took),
        memory: numbers.next().and_then(Result::ok),
    }
}

/// Loads the file in a child process. Prints the duration in microseconds and the peak memory in KiB.
fn load(file: &Path) {
    let start = Instant::now();
    let broker = open(file);
    let took = start.elapsed();
    assert_eq!(broker.statistics().store.damaged, 0);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let memory = memory.unwrap_or_default().trim_end_matches("kB").trim();
    println!("{} {memory}", took.as_micros());
    // A stop would change the file, which the next load reads again.
    std::process::exit(0);
}
