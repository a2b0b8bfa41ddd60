//! A compacted log restores the same as the whole log: a broker keeps both while random steps are taken, and brokers that
//! start from them at random moments have to give the same answers, which are those of the first broker. Runs 100 cases,
//! or as many as the environment variable `LOG_CASES` says:
//!
//! ```sh
//! LOG_CASES=20000 cargo test --release --features testing --lib compacted
//! ```
//!
//! There are two exceptions. A log that is compacted up to an event that is no longer the newest does not have the events that
//! were evicted since, for the limits of all categories together (`max_categories`, `max_event_bytes`). The following
//! events of the log then meet fewer others, and evict fewer and other ones. The broker that starts from it may hold events
//! that were lost, and may have lost events that were held. A compaction that writes only the events in memory can't avoid
//! that. The same holds for events that a full ring loses because they have expired by the timestamp of a later event, which
//! may be ahead of the clock. No follower is misled, which is what the test then checks: every missing event is reported by a gap, and no
//! retrieved event comes again.

mod expiry;
mod logs;
mod steps;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use self::logs::{LogKeeper, Logs};
use self::steps::{Log, Probe, Step, case};
use super::*;
use crate::broker::ManualClock;
use crate::error::ErrorKind;
use crate::event::Draft;
use crate::position::Run;

const START: u64 = 1_700_000_000_000;
/// No two of them share a row of the table of losses.
const NAMES: [&str; 3] = ["a", "b", "c"];
const LIMIT: Duration = Duration::from_secs(20);

/// A broker, its two logs, and all positions and times that it has returned.
struct Trial {
    options: BrokerOptions,
    clock: ManualClock,
    keeper: LogKeeper,
    broker: Broker,
    parked: Vec<Parked>,
    positions: Vec<EventId>,
    times: Vec<u64>,
    /// An event has had a time to live of its own.
    uses_own_ttl: bool,
    /// All events that were published and not refused, also those that a kill has lost since.
    published: Vec<Published>,
}

struct Published {
    id: EventId,
    category: &'static str,
    timestamp: u64,
}

/// The answer to a poll. Positions are of different runs, so that only their numbers can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    events: Vec<EventId>,
    gap: bool,
    last: u64,
}

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It has every record.
    Known,
    /// It does not have the end of the run: a follower at the end may have missed events.
    Unknown,
    /// Its last few records are missing.
    Lost,
}

fn number(id: EventId) -> u64 {
    id.sequence().unwrap_or(0)
}

fn look(broker: &Broker, of: &[&str], cursor: Cursor) -> Answer {
    let polled = broker.poll(&Categories::from(of), cursor, None, PollMode::Peek);
    let Ok(Polled::Ready(batch)) = polled else {
        panic!("a poll that does not park");
    };
    Answer {
        events: batch.events().iter().map(|event| event.id()).collect(),
        gap: batch.gap(),
        last: number(batch.last_id()),
    }
}

impl Trial {
    /// A broker whose log begins with events of golongpoll's: their categories, and how long before now they were published.
    fn new(options: BrokerOptions, acknowledges: bool, foreign: &[(usize, u64)]) -> Self {
        let clock = ManualClock::at(START);
        let mut logs = Logs::default();
        let mut published = Vec::new();
        for (number, (category, ago)) in foreign.iter().enumerate() {
            let (id, category, timestamp) =
                (EventId::from(number as u128), NAMES[*category], START - ago);
            let draft = Draft::new(category.into(), &"foreign").unwrap();
            logs.push(Record::Published {
                sequence: 0,
                event: draft.stamp(timestamp, id),
            });
            published.push(Published {
                id,
                category,
                timestamp,
            });
        }
        let keeper = LogKeeper::with(&logs, acknowledges);
        let broker = start(&options, &clock, &keeper, Log::Whole);
        Trial {
            options,
            clock,
            keeper,
            broker,
            parked: Vec::new(),
            positions: published.iter().map(|event| event.id).collect(),
            times: vec![START],
            uses_own_ttl: false,
            published,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Publish(category) => self.publish(&[category], None),
            Step::PublishFor(category, ttl) => self.publish(&[category], Some(ttl)),
            Step::PublishAll {
                of,
                ttl,
                is_refused,
            } => {
                if is_refused {
                    self.keeper.refuse_next();
                }
                self.publish(&of, ttl);
                self.keeper.clear_hooks();
            }
            Step::Purge(category) => match self.broker.purge(NAMES[category]) {
                Ok(position) => self.positions.push(position),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Busy),
            },
            Step::PublishDuring(category, probe) => {
                let (names, cursor) = self.resolve(&probe);
                let broker = self.broker.clone();
                let position = Arc::new(Mutex::new(None));
                let reached = position.clone();
                self.keeper.before_next_flush(move || {
                    let batch = poll(&broker, &names, cursor, probe.limit);
                    *reached.lock() = Some(batch.last_id());
                });
                self.publish(&[category], None);
                self.positions.extend(position.lock().take());
                self.keeper.clear_hooks();
            }
            Step::Refuse(category) => {
                self.keeper.refuse_next();
                self.publish(&[category], None);
                self.keeper.clear_hooks();
            }
            Step::Poll(probe) => {
                let (names, cursor) = self.resolve(&probe);
                let batch = poll(&self.broker, &names, cursor, probe.limit);
                self.positions.push(batch.last_id());
            }
            Step::Park(probe) => {
                let (names, cursor) = self.resolve(&probe);
                let polled = self
                    .broker
                    .poll(&names, cursor, probe.limit, PollMode::Park);
                match polled.unwrap() {
                    Polled::Ready(batch) => self.positions.push(batch.last_id()),
                    Polled::Parked(parked) => self.parked.push(parked),
                }
            }
            Step::Leave { number, hung_up } => {
                if !self.parked.is_empty() {
                    let parked = self.parked.remove(number % self.parked.len());
                    if hung_up {
                        parked.waiter().hang_up();
                    }
                    let batch = parked.wait(Some(Instant::now()));
                    self.positions.push(batch.last_id());
                }
            }
            Step::Advance(milliseconds) => self.clock.advance(Duration::from_millis(milliseconds)),
            Step::Compact { back, cut } => self.compact(back, cut),
            Step::Compare => self.compare_now(),
            Step::Stop {
                from,
                compact,
                switch,
            } => {
                self.broker.release();
                self.drain();
                self.broker.stop(LIMIT).unwrap();
                if let Some((back, cut)) = compact {
                    self.compact(back, cut);
                }
                let logs = self.keeper.logs();
                self.compare(&logs, End::Known);
                self.restart(logs, from, switch);
            }
            Step::Kill { from, lost, switch } => {
                let mut logs = self.keeper.logs();
                let end = match logs.lose(lost) {
                    0 => self.end_of_a_kill(),
                    _ => End::Lost,
                };
                self.compare(&logs, end);
                self.broker.release();
                self.drain();
                self.restart(logs, from, switch);
            }
        }
    }

    fn end_of_a_kill(&self) -> End {
        match self.keeper.acknowledges() {
            true => End::Known,
            false => End::Unknown,
        }
    }

    fn publish(&mut self, of: &[usize], ttl: Option<u64>) {
        self.uses_own_ttl |= ttl.is_some();
        let requests = of.iter().zip(self.published.len()..);
        let requests = requests.map(|(category, number)| {
            let width = [1, 30, 200][number % 3];
            PublishRequest::new(NAMES[*category], format!("{number:>width$}"))
                .ttl(ttl.map(Duration::from_millis))
        });
        let requests: Vec<_> = requests.collect();
        // An event that was refused or not published leaves its key to the next one.
        let number = self.published.len();
        let key = (number % 3 < 2).then(|| format!("key {number}"));
        let publish = || match (&requests[..], &key) {
            (requests, Some(key)) => self.broker.publish_all_once(key, requests),
            ([request], None) => self.broker.publish_with(request).map(|id| vec![id]),
            (requests, None) => self.broker.publish_all(requests),
        };
        let published = publish();
        if let (Ok(ids), Some(_)) = (&published, &key) {
            assert_eq!(publish().as_ref().ok(), Some(ids), "a repetition");
        }
        match published {
            Ok(ids) => {
                for (id, category) in ids.into_iter().zip(of) {
                    let timestamp = self.keeper.timestamp(id);
                    self.positions.push(id);
                    self.times.push(timestamp);
                    self.published.push(Published {
                        id,
                        category: NAMES[*category],
                        timestamp,
                    });
                }
            }
            Err(error) => {
                let is_possible = matches!(error.kind(), ErrorKind::Busy | ErrorKind::TooLarge);
                assert!(is_possible, "{error}");
            }
        }
    }

    fn compact(&mut self, back: u64, cut: usize) {
        let evicts =
            self.options.max_categories < NAMES.len() || self.options.max_event_bytes < 64 << 20;
        let is_exact = !evicts && !self.uses_own_ttl;
        self.keeper.compact(back, cut, is_exact);
    }

    fn resolve(&self, probe: &Probe) -> (Categories, Cursor) {
        let names = probe.of.iter().map(|category| NAMES[*category]).collect();
        (names, probe.from.cursor(&self.positions, &self.times))
    }

    fn drain(&mut self) {
        for parked in self.parked.drain(..) {
            self.positions.push(parked.wait(None).last_id());
        }
    }

    fn restart(&mut self, logs: Logs, from: Log, switch: bool) {
        self.keeper = LogKeeper::with(&logs, self.keeper.acknowledges() ^ switch);
        self.broker = start(&self.options, &self.clock, &self.keeper, from);
    }

    /// As if the broker had been stopped now, and as if it had been killed.
    fn compare_now(&mut self) {
        let killed = self.keeper.logs();
        self.compare(&killed, self.end_of_a_kill());
        let mut stopped = self.keeper.logs();
        stopped.push(Record::Ended(self.broker.0.sequencer.end()));
        self.compare(&stopped, End::Known);
    }

    fn compare(&mut self, logs: &Logs, end: End) {
        let [whole, compacted] = [Log::Whole, Log::Compacted].map(|from| {
            let keeper = LogKeeper::with(logs, self.keeper.acknowledges());
            start(&self.options, &self.clock, &keeper, from)
        });
        let numbered = |broker: &Broker| number(broker.0.sequencer.end());
        assert_eq!(numbered(&whole), numbered(&compacted), "{logs:?}");
        let keys = |broker: &Broker| {
            let records = broker.0.keys.records(u64::MAX, broker.0.age.now());
            records.iter().map(Record::to_line).collect::<Vec<_>>()
        };
        assert_eq!(keys(&whole), keys(&compacted), "{logs:?}");
        if end != End::Lost {
            assert_eq!(keys(&self.broker), keys(&whole), "{logs:?}");
        }
        let retrieved = logs.retrieved();
        for cursor in self.cursors() {
            for of in [&["a"][..], &["b"], &["c"], &["a", "b"], &["b", "c"]] {
                let live = look(&self.broker, of, cursor);
                let [whole, compacted] =
                    [&whole, &compacted].map(|broker| look(broker, of, cursor));
                let context =
                    || format!("{of:?}, {cursor:?}, live: {live:?}, end: {end:?}, {logs:?}");
                for answer in [&whole, &compacted] {
                    let sound = self.is_sound(answer, &retrieved, of, cursor);
                    assert!(sound, "{answer:?}, {}", context());
                }
                if !logs.exact {
                    continue;
                }
                assert_eq!(whole, compacted, "{}", context());
                if end != End::Lost {
                    assert_eq!(live.events, whole.events, "{}", context());
                    assert!(
                        self.is_sound(&live, &retrieved, of, cursor),
                        "{}",
                        context()
                    );
                }
                if end == End::Known {
                    assert_eq!(live.gap, whole.gap, "{}", context());
                    // No position covers the refused numbers before the next event is published.
                    let refused = self.keeper.acknowledges() && live.last < whole.last;
                    assert!(
                        live.last == whole.last || refused,
                        "{whole:?}, {}",
                        context()
                    );
                }
            }
        }
    }

    /// The start, and the newest positions and times that the broker has returned.
    fn cursors(&mut self) -> Vec<Cursor> {
        self.positions.sort_unstable();
        self.positions.dedup();
        self.times.dedup();
        let ids = self.positions.iter().rev().take(40);
        let times = self.times.iter().rev().take(10);
        let times = times.flat_map(|time| [time - 1, *time]);
        [Cursor::Oldest]
            .into_iter()
            .chain(ids.map(|id| Cursor::LastId(*id)))
            .chain(times.map(Cursor::SinceTime))
            .collect()
    }

    /// No retrieved event comes again, and no other is missing unless a gap is reported.
    fn is_sound(
        &self,
        answer: &Answer,
        retrieved: &HashSet<EventId>,
        of: &[&str],
        cursor: Cursor,
    ) -> bool {
        let index = |id| self.published.iter().position(|event| event.id == id);
        let foreign = |id: EventId| id.parts().is_none();
        let after = |event: &Published| match cursor {
            // golongpoll's come first; the id of one that is no longer in memory has no place.
            Cursor::LastId(id) if foreign(id) => answer.gap || index(event.id) > index(id),
            Cursor::LastId(id) => !foreign(event.id) && event.id > id,
            Cursor::SinceTime(time) => event.timestamp > time,
            _ => true,
        };
        let there = |event: &&Published| {
            of.contains(&event.category) && after(event) && !retrieved.contains(&event.id)
        };
        let there = self.published.iter().filter(there).map(|event| event.id);
        let there: Vec<EventId> = there.collect();
        // A batch may be too small for all.
        let cut_off = self.options.max_batch_size < 4 << 20 && !answer.events.is_empty();
        let all = there == answer.events || cut_off && there.starts_with(&answer.events);
        all || (answer.gap || cursor == Cursor::Oldest) && is_part(&answer.events, &there)
    }
}

/// True where the first has some of the second's, in their order.
fn is_part(some: &[EventId], all: &[EventId]) -> bool {
    let mut all = all.iter();
    some.iter().all(|id| all.any(|other| other == id))
}

fn start(options: &BrokerOptions, clock: &ManualClock, keeper: &LogKeeper, from: Log) -> Broker {
    let clock = Clock::Manual(clock.clone());
    let store = Box::new(keeper.store(from));
    Broker::restore(options.clone(), clock, store).unwrap()
}

fn poll(broker: &Broker, names: &Categories, cursor: Cursor, limit: Option<usize>) -> Arc<Batch> {
    match broker.poll(names, cursor, limit, PollMode::NoWait).unwrap() {
        Polled::Ready(batch) => batch,
        Polled::Parked(_) => panic!("a poll that does not park"),
    }
}

#[test]
fn a_compacted_log_restores_the_same_as_the_whole_one() {
    let cases = std::env::var("LOG_CASES").map_or(100, |cases| cases.parse().unwrap());
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    };
    let run = |(options, acknowledges, foreign, steps): (_, _, Vec<_>, Vec<Step>)| {
        let mut trial = Trial::new(options, acknowledges, &foreign);
        steps.into_iter().for_each(|step| trial.take(step));
        trial.compare_now();
        Ok(())
    };
    if let Err(failure) = TestRunner::new(config).run(&case(), run) {
        panic!("{failure}");
    }
}

/// A publisher delivers its event to a parked subscriber, and another category is retrieved from at the same time.
#[test]
fn an_event_that_is_being_delivered_pushes_out_none_while_another_category_is_retrieved_from() {
    let event = |number: u64, category: &str| {
        let draft = Draft::new(category.into(), &number).unwrap();
        draft.stamp(START, position(number))
    };
    let published = |number, category| Record::Published {
        sequence: number,
        event: event(number, category),
    };
    let retrieved = |category: &str, seen, id| Record::Taken {
        category: category.into(),
        seen: position(seen),
        ids: vec![position(id)],
    };
    let mut logs = Logs::default();
    for record in [
        Record::Started {
            position: position(0),
            acknowledges: false,
        },
        published(1, "a"),
        published(2, "a"),
        published(3, "b"),
        retrieved("b", 3, 3),
        retrieved("a", 1, 2),
        Record::Ended(position(3)),
    ] {
        logs.push(record);
    }
    let options = BrokerOptions::new()
        .events_per_category(1)
        .delete_after_first_retrieval(true);
    let clock = ManualClock::at(START);
    let broker = start(&options, &clock, &LogKeeper::with(&logs, false), Log::Whole);
    let held = look(&broker, &["a", "b"], Cursor::LastId(position(0)));
    assert_eq!((held.events, held.gap), (vec![position(1)], false));
}

/// Otherwise a follower by time would pass over the next event.
#[test]
fn timestamps_do_not_fall_where_a_log_no_longer_has_the_newest() {
    let hour = Duration::from_secs(3600);
    let clock = ManualClock::at(START);
    clock.advance(hour);
    let options = BrokerOptions::new().delete_after_first_retrieval(true);
    let keeper = LogKeeper::with(&Logs::default(), false);
    let broker = start(&options, &clock, &keeper, Log::Whole);
    let next = |broker: &Broker| {
        broker.publish("a", "x").unwrap();
        let batch = broker.subscribe("a", Cursor::Oldest, Duration::ZERO);
        batch.unwrap().events()[0].timestamp()
    };
    let newest = next(&broker);
    keeper.compact(0, usize::MAX, true);
    clock.set(START);
    for from in [Log::Whole, Log::Compacted] {
        let keeper = LogKeeper::with(&keeper.logs(), false);
        assert_eq!(next(&start(&options, &clock, &keeper, from)), newest + 1002);
    }
}

/// A position of a run of an hour ago.
fn position(number: u64) -> EventId {
    EventId::new(Run::new(START - 3_600_000, 7), number)
}
