//! [`Parked`]: subscribers that poll a broker in process, each in a thread of its own.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use long_polling::{Broker, Cursor};

use super::{LIMIT, until};

/// Subscribers that poll again as soon as they have an event. They end when this is dropped, which stops the broker.
pub(crate) struct Parked {
    broker: Broker,
    count: usize,
    missing: Arc<Missing>,
    threads: Vec<JoinHandle<()>>,
}

/// The subscribers that have not received the event yet. The last one that does unparks the publisher.
struct Missing {
    count: AtomicUsize,
    publisher: Thread,
}

/// What a publish to parked subscribers took.
pub(crate) struct Delivery {
    /// Until the publish returned.
    pub(crate) published: Duration,
    /// Until the last subscriber had the event.
    pub(crate) delivered: Duration,
}

impl Parked {
    /// Parks `count` subscribers, each in the category that `category` returns for its number. The thread that calls this is
    /// the one that publishes.
    pub(crate) fn new(broker: &Broker, count: usize, category: impl Fn(usize) -> String) -> Self {
        let missing = Arc::new(Missing {
            count: AtomicUsize::new(0),
            publisher: thread::current(),
        });
        let threads = (0..count).map(|number| {
            let (broker, missing, category) = (broker.clone(), missing.clone(), category(number));
            // Thousands of stacks of std's size fit no address space of 32 bits.
            let builder = thread::Builder::new().stack_size(256 << 10);
            let spawned = builder.spawn(move || follow(&broker, &category, &missing));
            spawned.expect("a thread for a subscriber: the system's limit of threads is too low")
        });
        let parked = Parked {
            broker: broker.clone(),
            count,
            threads: threads.collect(),
            missing,
        };
        parked.wait();
        parked
    }

    /// Waits until all subscribers are parked.
    fn wait(&self) {
        until("all are parked", || {
            self.broker.statistics().parked == self.count
        });
    }

    /// Publishes an event to a category in which all of them are parked.
    pub(crate) fn deliver(&self, category: &str) -> Delivery {
        self.wait();
        self.missing.count.store(self.count, Release);
        let start = Instant::now();
        self.broker.publish(category, "event").expect("published");
        let published = start.elapsed();
        while self.missing.count.load(Acquire) > 0 {
            thread::park_timeout(LIMIT);
            assert!(start.elapsed() < LIMIT, "a subscriber has no event");
        }
        Delivery {
            published,
            delivered: start.elapsed(),
        }
    }
}

/// Polls until the broker stops.
fn follow(broker: &Broker, category: &str, missing: &Missing) {
    let mut cursor = Cursor::Now;
    while let Ok(batch) = broker.subscribe(category, cursor, Duration::from_secs(3600)) {
        cursor = Cursor::LastId(batch.last_id());
        let events = batch.events().len();
        if events > 0 && missing.count.fetch_sub(events, Release) == events {
            missing.publisher.unpark();
        }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.broker.stop(LIMIT).expect("stopped");
        for thread in self.threads.drain(..) {
            thread.join().expect("a subscriber");
        }
    }
}
