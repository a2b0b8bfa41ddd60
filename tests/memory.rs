//! The bytes that brokers and servers allocate, compared with the formula of the guide's page `memory`: never more, and
//! more than a third of it.

#[path = "support/limits.rs"]
mod limits;
#[allow(dead_code)]
mod support;

use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use limits::Limits;
use long_polling::server::{Endpoints, Request};
use long_polling::{Broker, Cursor, FilePersistorInfo, ServerInfo};
use peak_alloc::PeakAlloc;
use support::{Connection, LIMIT, info, poll, start, until};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;

/// The inputs of the formula besides the settings.
#[derive(Clone, Copy, Default)]
struct Use {
    /// Bytes of JSON of the smallest event.
    smallest: usize,
    /// Bytes of a category's name.
    name: usize,
    /// Threads that publish.
    publishing: usize,
    /// Requests that publish.
    requests: usize,
    parked: usize,
    /// Idempotency keys, and the bytes of each.
    keys: usize,
    key: usize,
    /// Categories of a parked subscriber.
    followed: usize,
    /// Answers being written.
    answers: usize,
    files: usize,
    /// Events that the disk has not taken yet, and their bytes as the queue counts them.
    waiting: usize,
    waiting_bytes: usize,
    /// Clients that are counted, in each of their categories, and the bytes of a client's name.
    present: usize,
    client: usize,
    /// Categories in which a client is present.
    visited: usize,
    /// A file is compacted meanwhile.
    compacted: bool,
}

/// The formula of the guide's page `memory`, in bytes.
fn most(options: &Limits, of: Use) -> usize {
    let events = options
        .max_categories
        .saturating_mul(options.events_per_category)
        .min(options.max_event_bytes / of.smallest);
    options.max_event_bytes
        + events * 240
        + options.max_categories * (400 + 2 * of.name)
        + of.publishing * 3 * options.max_event_size
        + of.requests * 5 * options.max_event_size
        + of.parked * (1000 + of.followed * (500 + 2 * of.name))
        + of.present * (300 + of.client)
        + of.visited * (700 + of.name)
        + of.keys * (450 + of.key)
        + of.answers * 3 * options.max_batch_size
        + of.files * MIB
        + of.waiting_bytes
        + of.waiting * 200
        + if of.compacted { events * 50 } else { 0 }
        + 100_000
}

/// Runs `fill`, and checks the most memory that was allocated meanwhile against the formula.
fn fits<T>(what: &str, options: &Limits, of: Use, fill: impl FnOnce() -> T) -> T {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let filled = fill();
    let peak = ALLOCATED.peak_usage() - before;
    let most = most(options, of);
    println!("{what}: {peak} bytes of {most}, {} %", 100 * peak / most);
    assert!(peak <= most, "{what}: {peak} bytes, but at most {most}");
    assert!(peak >= most / 3, "{what}: {peak} bytes, far from {most}");
    filled
}

/// A broker with these options and `count` published events. `event` returns the category of each, and its bytes of `DATA`.
fn fill(options: &Limits, count: usize, event: impl Fn(usize) -> (String, usize)) -> Broker {
    let broker = Broker::new(options.options()).unwrap();
    for number in 0..count {
        let (category, length) = event(number);
        broker.publish(&category, &DATA[..length]).unwrap();
    }
    broker
}

/// Data of an event, without its quotes. Not allocated.
static DATA: &str = match std::str::from_utf8(&[b'x'; MIB - 2]) {
    Ok(data) => data,
    Err(_) => "",
};

fn options() -> Limits {
    Limits {
        max_event_size: 4096,
        max_event_bytes: 4 * MIB,
        max_categories: 1,
        events_per_category: usize::MAX,
        ..Limits::default()
    }
}

fn name(number: usize, length: usize) -> String {
    format!("{number:0length$}")
}

/// One test, since all of them would share the allocator.
#[test]
fn the_memory_allocated_is_what_the_readme_says() {
    many_small_events();
    few_large_events();
    many_categories();
    events_of_all_sizes();
    full_rings();
    a_file();
    a_file_that_waits();
    a_compacted_file();
    several_publishers();
    idempotency_keys();
    parked_subscribers();
    present_clients();
    // Last, since a server's threads give back their memory a little after it has stopped.
    a_publish_over_http();
    answers_that_no_client_reads();
}

fn many_small_events() {
    for categories in [1, 500] {
        let options = Limits {
            max_categories: categories,
            ..options()
        };
        let of = Use {
            smallest: 98,
            name: 3,
            publishing: 1,
            ..Use::default()
        };
        let broker = fits("many small events", &options, of, || {
            fill(&options, 150_000, |number| {
                (name(number % categories, 3), 1)
            })
        });
        let statistics = broker.statistics();
        assert!(statistics.evicted > 100_000 && statistics.event_bytes <= 4 * MIB);
    }
}

fn few_large_events() {
    let options = Limits {
        max_event_size: MIB,
        max_event_bytes: 8 * MIB,
        ..options()
    };
    let of = Use {
        smallest: MIB,
        name: 1,
        publishing: 1,
        ..Use::default()
    };
    let broker = fits("few large events", &options, of, || {
        fill(&options, 40, |_| ("c".into(), MIB - 2))
    });
    assert!(broker.statistics().evicted > 30);
}

fn many_categories() {
    for length in [5, 1024] {
        let options = Limits {
            max_categories: 3000,
            max_event_bytes: 3000 * (length + 94),
            ..options()
        };
        let of = Use {
            smallest: length + 94,
            name: length,
            publishing: 1,
            ..Use::default()
        };
        let broker = fits("many categories", &options, of, || {
            fill(&options, 20_000, |number| (name(number, length), 0))
        });
        assert!(broker.statistics().evicted > 16_000);
    }
}

fn events_of_all_sizes() {
    let options = Limits {
        max_categories: 20,
        ..options()
    };
    let of = Use {
        smallest: 1000,
        name: 2,
        publishing: 1,
        ..Use::default()
    };
    let broker = fits("events of all sizes", &options, of, || {
        fill(&options, 10_000, |number| {
            (name(number % 20, 2), 900 + number * 7919 % 3000)
        })
    });
    assert!(broker.statistics().evicted > 5000);
}

fn full_rings() {
    let options = Limits {
        max_categories: 100,
        events_per_category: 129,
        max_event_bytes: 100 * 129 * 98,
        ..options()
    };
    let of = Use {
        smallest: 98,
        name: 3,
        publishing: 1,
        ..Use::default()
    };
    let broker = fits("full rings", &options, of, || {
        fill(&options, 50_000, |number| (name(number % 100, 3), 1))
    });
    assert!(broker.statistics().pushed_out > 30_000);
}

fn a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("events.db"));
    let options = Limits {
        max_categories: 10,
        ..options()
    };
    let writer = Broker::open(options.options(), file.clone()).unwrap();
    for number in 0..10_000 {
        writer.publish(&name(number % 10, 500), &number).unwrap();
    }
    writer.stop(LIMIT).unwrap();
    drop(writer);
    let of = Use {
        smallest: 595,
        name: 500,
        publishing: 1,
        files: 1,
        ..Use::default()
    };
    let broker = fits("a file", &options, of, || {
        Broker::open(options.options(), file).unwrap()
    });
    assert!(broker.statistics().evicted > 2000);
}

/// The events are in no ring any more, but not yet in the file.
fn a_file_that_waits() {
    // Just past a power of two, when the queue has grown and copied itself.
    const COUNT: usize = 66_000;
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("events.db"))
        .write_buffer_size(usize::MAX)
        .write_flush_period(Duration::MAX);
    let options = Limits {
        events_per_category: 1,
        ..options()
    };
    let broker = Broker::open(options.options(), file).unwrap();
    // What the queue counts is known only then; it is the same for every event.
    broker.publish("c", &1).unwrap();
    let bytes = broker.statistics().store.pending_bytes as usize;
    let of = Use {
        smallest: 95,
        name: 1,
        publishing: 1,
        files: 1,
        waiting: COUNT,
        waiting_bytes: COUNT * bytes,
        ..Use::default()
    };
    fits("events on their way to the file", &options, of, || {
        for _ in 1..COUNT {
            broker.publish("c", &1).unwrap();
        }
    });
    let store = broker.statistics().store;
    assert_eq!(store.pending_bytes as usize, COUNT * bytes);
    broker.stop(LIMIT).unwrap();
}

fn a_compacted_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = FilePersistorInfo::new(folder.path().join("events.db"))
        .write_buffer_size(0)
        .compact_from(1);
    let options = Limits {
        events_per_category: 40_000,
        max_event_bytes: 8 * MIB,
        ..options()
    };
    let of = Use {
        smallest: 98,
        name: 3,
        publishing: 1,
        files: 1,
        compacted: true,
        ..Use::default()
    };
    let broker = Broker::open(options.options(), file).unwrap();
    fits("a compacted file", &options, of, || {
        for number in 0..100_000 {
            broker.publish("one", "x").unwrap();
            if number % 100 == 0 {
                until("written", || broker.statistics().store.pending == 0);
            }
        }
    });
    assert!(broker.statistics().store.rewritten > 0);
    broker.stop(LIMIT).unwrap();
}

fn several_publishers() {
    let options = Limits {
        max_categories: 4,
        max_event_size: MIB,
        max_event_bytes: 8 * MIB,
        ..options()
    };
    let of = Use {
        smallest: MIB,
        name: 1,
        publishing: 4,
        ..Use::default()
    };
    let broker = Broker::new(options.options()).unwrap();
    fits("several publishers", &options, of, || {
        thread::scope(|scope| {
            for category in 0..4 {
                let broker = &broker;
                scope.spawn(move || {
                    for _ in 0..20 {
                        broker.publish(&name(category, 1), DATA).unwrap();
                    }
                });
            }
        })
    });
    assert!(broker.statistics().evicted > 60);
}

fn a_publish_over_http() {
    let options = Limits {
        max_event_size: MIB,
        max_event_bytes: MIB,
        ..options()
    };
    let of = Use {
        smallest: MIB,
        name: 1,
        requests: 1,
        ..Use::default()
    };
    let length = format!("Content-Length: {}", DATA.len() + 26);
    for (framing, chunks) in [(&*length, false), ("Transfer-Encoding: chunked", true)] {
        let server = fits("a publish over HTTP", &options, of, || {
            let server = start(info().broker(options.options()));
            let mut connection = Connection::to(&server);
            connection.send(format!(
                "POST /publish HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n"
            ));
            for part in [r#"{"category":"c","data":""#, DATA, r#""}"#] {
                if chunks {
                    connection.send(format!("{:x}\r\n", part.len()));
                }
                connection.send(part);
                if chunks {
                    connection.send("\r\n");
                }
            }
            if chunks {
                connection.send("0\r\n\r\n");
            }
            assert_eq!(connection.receive().status, 200);
            server
        });
        assert_eq!(server.statistics().published, 1);
    }
}

fn idempotency_keys() {
    let options = Limits {
        max_event_bytes: MIB / 16,
        ..options()
    };
    for key in [10, 200] {
        let of = Use {
            smallest: 95,
            name: 1,
            keys: 20_000,
            key,
            ..Use::default()
        };
        let broker = fits("idempotency keys", &options, of, || {
            let of_keys = options.options().max_idempotency_keys(20_000);
            let broker = Broker::new(of_keys).unwrap();
            for number in 0..50_000 {
                let key = format!("{number:>key$}");
                broker.publish_once(&key, "c", "x").unwrap();
            }
            broker
        });
        assert_eq!(broker.statistics().idempotency_keys, 20_000);
    }
}

fn parked_subscribers() {
    let options = Limits {
        max_event_bytes: MIB / 16,
        ..options()
    };
    for followed in [1, 30] {
        let of = Use {
            smallest: 4096,
            name: 100,
            parked: 200,
            followed,
            ..Use::default()
        };
        let broker = Broker::new(options.options()).unwrap();
        let subscribers: Vec<_> = fits("parked subscribers", &options, of, || {
            let park = |subscriber: usize| {
                let categories: Vec<String> = (0..followed)
                    .map(|category| name(subscriber * followed + category, 100))
                    .collect();
                let broker = broker.clone();
                thread::spawn(move || broker.subscribe(categories, Cursor::Now, LIMIT))
            };
            let subscribers = (0..200).map(park).collect();
            until("parked", || broker.statistics().parked == 200);
            subscribers
        });
        broker.stop(LIMIT).unwrap();
        for subscriber in subscribers {
            assert!(subscriber.join().unwrap().unwrap().events().is_empty());
        }
    }
}

/// With a hook that does not return, so that each client waits for its calls.
fn present_clients() {
    for (clients, categories) in [(20_000, 1), (5000, 5000)] {
        let options = Limits {
            max_event_bytes: MIB / 16,
            ..options()
        };
        let of = Use {
            smallest: 4096,
            name: 100,
            present: clients,
            client: 50,
            visited: categories,
            ..Use::default()
        };
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let counting = options.options().presence(LIMIT).on_subscribe(move |_| {
            let _ = released.lock().unwrap().recv_timeout(LIMIT);
        });
        let endpoints = Endpoints::new(ServerInfo::default().broker(counting)).unwrap();
        fits("present clients", &options, of, || {
            for number in 0..clients {
                let (category, client) = (name(number % categories, 100), name(number, 50));
                let target = format!("/events?category={category}&timeout=0&subscriber={client}");
                let answer = endpoints.answer(Request::new("GET", &target));
                assert_eq!(answer.status, 204);
            }
        });
        assert_eq!(endpoints.broker().statistics().present, Some(clients));
        drop(release);
        endpoints.stop(LIMIT).unwrap();
    }
}

/// Answers so large that they do not fit into the system's buffers.
fn answers_that_no_client_reads() {
    let options = Limits {
        max_event_size: MIB,
        max_event_bytes: 24 * MIB,
        max_batch_size: 24 * MIB,
        ..options()
    };
    let of = Use {
        smallest: MIB,
        name: 1,
        publishing: 1,
        answers: 3,
        ..Use::default()
    };
    fits("answers that no client reads", &options, of, || {
        let server = start(info().broker(options.options()).write_timeout(2 * LIMIT));
        let before = ALLOCATED.current_usage();
        for _ in 0..23 {
            server.publish("c", DATA).unwrap();
        }
        let published = ALLOCATED.current_usage() - before;
        let connections = [(); 3].map(|()| {
            let mut connection = Connection::to(&server);
            connection.ask("GET", &poll("c", 1, "&since_time=1"));
            connection
        });
        until("all are being written", || {
            ALLOCATED.current_usage() - before >= published + 3 * 23 * MIB
        });
        drop(connections);
    });
}
