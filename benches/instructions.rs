//! Runs one piece of work in process again and again, for a tool that counts instructions: `.ci/instructions` does so, and
//! compares the counts with those of the commit before.
//!
//! ```text
//! cargo bench --bench instructions -- --list
//! cargo bench --bench instructions -- "publish" 1000
//! ```
//!
//! The work is done by one thread; subscribers that are parked sleep. Without arguments, as `cargo test --bench
//! instructions` runs it, each piece of work is done a few times.

#[allow(dead_code)]
mod support;

use std::hint::black_box;
use std::time::Duration;

use long_polling::{Broker, BrokerOptions, Cursor, Event, PublishRequest};
use support::parked::Parked;

/// The data of each event: 64 bytes of JSON.
const DATA: &str = "62 characters of text, which are 64 bytes of JSON with quotes.";
const CATEGORY: &str = "category";

/// Does the work this many times.
type Run = fn(usize);

const WORK: [(&str, Run); 5] = [
    ("publish", publish),
    ("publish, 100 parked elsewhere", publish_past_parked),
    ("publish and poll", publish_and_poll),
    ("backlog of 250", backlog),
    ("event from JSON and back", event_from_json),
];

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    match &arguments[..] {
        [] => WORK.iter().for_each(|(_, run)| run(3)),
        [list] if list == "--list" => WORK.iter().for_each(|(name, _)| println!("{name}")),
        [name, times] => {
            let work = WORK.iter().find(|(known, _)| known == name);
            let (_, run) = work.expect("a name that --list prints");
            run(times.parse().expect("a number of times"));
        }
        _ => panic!("expected no argument, --list, or a name and a number of times"),
    }
}

fn broker() -> Broker {
    Broker::new(BrokerOptions::default()).expect("a broker")
}

/// Publishes to a category without subscribers.
fn publish(times: usize) {
    publish_to(&broker(), times);
}

fn publish_to(broker: &Broker, times: usize) {
    for _ in 0..times {
        black_box(broker.publish(CATEGORY, DATA).expect("published"));
    }
}

/// Publishes to a category without subscribers, while others have one each.
fn publish_past_parked(times: usize) {
    let broker = broker();
    let _parked = Parked::new(&broker, 100, |number| format!("other {number}"));
    publish_to(&broker, times);
}

/// Publishes an event, and polls for it from the position before.
fn publish_and_poll(times: usize) {
    let broker = broker();
    let mut position = Cursor::Oldest;
    for _ in 0..times {
        broker.publish(CATEGORY, DATA).expect("published");
        let batch = broker
            .subscribe(CATEGORY, position, Duration::ZERO)
            .expect("a batch");
        assert_eq!(batch.events().len(), 1);
        position = Cursor::LastId(batch.last_id());
    }
}

/// Polls for a full ring buffer.
fn backlog(times: usize) {
    let broker = broker();
    publish_to(&broker, 250);
    for _ in 0..times {
        let batch = broker
            .subscribe(CATEGORY, Cursor::Oldest, Duration::ZERO)
            .expect("a batch");
        assert_eq!(batch.events().len(), 250);
    }
}

/// Renders a publish, reads an event and renders it, as a client does.
fn event_from_json(times: usize) {
    let broker = broker();
    publish_to(&broker, 1);
    let batch = broker
        .subscribe(CATEGORY, Cursor::Oldest, Duration::ZERO)
        .expect("a batch");
    let json = batch.events()[0].as_json();
    for _ in 0..times {
        let request = PublishRequest::new(CATEGORY, DATA);
        black_box(serde_json::to_string(&request).expect("a request"));
        let event: Event = serde_json::from_str(json).expect("an event");
        assert_eq!(event.text().len() + 2, event.data().len());
        black_box(serde_json::to_string(&event).expect("an event"));
    }
}
