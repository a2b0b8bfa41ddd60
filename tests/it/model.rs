//! The broker against a model: random steps, after each of which both give the same answers. About 100,000 steps, or as many
//! as the environment variable `MODEL_STEPS` says.

mod keys;
mod reference;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use long_polling::testing::{self, ManualClock};
use long_polling::{
    Batch, Broker, Cursor, Durability, ErrorKind, EventId, FilePersistorInfo, PublishRequest,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

use crate::limits::Limits;
use crate::support::until;

use reference::{Answer, Fate, Model, Place};

/// Few, so that steps meet. No two of them share a row of the broker's table of losses.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const LIMIT: Duration = Duration::from_secs(20);
const START: u64 = 1_700_000_000_000;

/// How long events live, and the clock's steps: some as long to the millisecond.
const TTLS: [Duration; 3] = [
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_secs(1),
];
const ADVANCES: [u64; 9] = [0, 1, 2, 9, 10, 11, 500, 1000, 3000];

/// Categories, by their numbers.
type Set = Vec<usize>;
/// The most events of an answer.
type Limit = Option<usize>;

#[derive(Clone, Debug)]
enum Step {
    /// To a category, with a time to live of the event's own, in milliseconds.
    Publish(usize, Option<u64>),
    /// Several events in one publish, to categories in which nobody is parked.
    PublishAll(Vec<usize>, Option<u64>),
    /// With one of a few keys.
    PublishOnce(usize, usize, Option<u64>),
    Purge(usize),
    /// A poll that does not wait; or, if it is to, times out at once.
    Poll {
        of: Set,
        from: From,
        limit: Limit,
        waiting: bool,
    },
    /// A poll that stays parked until an event comes, others take its place, or the broker stops.
    Park {
        of: Set,
        from: From,
        limit: Limit,
    },
    /// One of the followers goes on from where it is.
    Follow(usize, Limit),
    Advance(u64),
    SetBack(u64),
    /// With the file, if there is one and it survives.
    Restart {
        keeping: bool,
        end: End,
    },
}

/// How a run comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stopped,
    /// Killed, with an acknowledged file that has every record; stopped, with any other file.
    Killed,
}

/// A cursor, its position chosen among those that the broker has returned, counted from the newest, and its time among those of
/// the events.
#[derive(Clone, Debug)]
enum From {
    Now,
    Oldest,
    Time(usize, i64),
    Position(usize),
    PositionOrTime(usize, usize),
    Unknown(bool),
    UnknownOrTime(bool, usize),
}

fn set() -> impl Strategy<Value = Set> {
    proptest::sample::subsequence((0..NAMES.len()).collect::<Vec<_>>(), 1..=NAMES.len())
}

fn from() -> impl Strategy<Value = From> {
    let back = || prop_oneof![3 => 0..6usize, 1 => 0..1000usize];
    prop_oneof![
        2 => Just(From::Now),
        2 => Just(From::Oldest),
        2 => (back(), -1..=1i64).prop_map(|(event, by)| From::Time(event, by)),
        8 => back().prop_map(From::Position),
        1 => (back(), back()).prop_map(|(position, event)| From::PositionOrTime(position, event)),
        1 => any::<bool>().prop_map(From::Unknown),
        1 => (any::<bool>(), back()).prop_map(|(foreign, event)| From::UnknownOrTime(foreign, event)),
    ]
}

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![3 => Just(None), 1 => (1..4usize).prop_map(Some)]
}

/// The data of the event with this number: events of several sizes, the largest of `LARGEST` bytes of JSON.
fn data(number: usize) -> String {
    let width = [1, 30, 200][number % 3];
    format!("{number:>width$}")
}

const LARGEST: usize = 202;

/// Counts only in a case with such times.
fn own_ttl() -> impl Strategy<Value = Option<u64>> {
    proptest::option::weighted(0.3, proptest::sample::select(&[1, 9, 10, 500, 2000][..]))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => (0..NAMES.len(), own_ttl()).prop_map(|(category, ttl)| Step::Publish(category, ttl)),
        4 => (proptest::collection::vec(0..NAMES.len(), 2..5), own_ttl())
            .prop_map(|(of, ttl)| Step::PublishAll(of, ttl)),
        6 => (0..4usize, 0..NAMES.len(), own_ttl())
            .prop_map(|(key, category, ttl)| Step::PublishOnce(key, category, ttl)),
        2 => (0..NAMES.len()).prop_map(Step::Purge),
        20 => (set(), from(), limit(), any::<bool>())
            .prop_map(|(of, from, limit, waiting)| Step::Poll { of, from, limit, waiting }),
        10 => (set(), from(), limit()).prop_map(|(of, from, limit)| Step::Park { of, from, limit }),
        20 => (0..3usize, limit()).prop_map(|(follower, limit)| Step::Follow(follower, limit)),
        6 => proptest::sample::select(&ADVANCES[..]).prop_map(Step::Advance),
        1 => (0..7_200_000u64).prop_map(Step::SetBack),
        1 => (any::<bool>(), prop_oneof![Just(End::Stopped), Just(End::Killed)])
            .prop_map(|(keeping, end)| Step::Restart { keeping, end }),
    ]
}

prop_compose! {
    fn options()(
        events_per_category in 1..6usize,
        event_ttl in proptest::option::of(proptest::sample::select(&TTLS[..])),
        delete_after_first_retrieval in proptest::bool::weighted(0.3),
        max_parked in 1..4usize,
        max_categories in 1..=NAMES.len(),
        max_batch_size in prop_oneof![Just(4 << 20), 1..1000usize],
        // Some hold no event of the largest, with all its JSON.
        max_event_bytes in prop_oneof![Just(64 << 20), LARGEST..3000],
        special in proptest::option::weighted(0.3, (
            Just("b"),
            1..6usize,
            proptest::option::of(proptest::option::of(proptest::sample::select(&TTLS[..]))),
        )),
    ) -> Limits {
        Limits {
            events_per_category,
            event_ttl,
            delete_after_first_retrieval,
            max_parked,
            max_categories,
            max_batch_size,
            max_event_bytes,
            max_event_size: LARGEST,
            special,
        }
    }
}

/// Of the file, if there is one.
fn durability() -> impl Strategy<Value = Option<Durability>> {
    prop_oneof![
        2 => Just(None),
        1 => Just(Some(Durability::Buffered)),
        1 => Just(Some(Durability::Acknowledged)),
    ]
}

struct Parked {
    of: Set,
    gap: bool,
    by_time: bool,
    thread: JoinHandle<Arc<Batch>>,
}

/// A follower that goes on from poll to poll, by the positions that the broker returns.
struct Follower {
    of: Set,
    cursor: Cursor,
    /// The number of all events before its position, if the broker can still know that.
    reached: Option<usize>,
}

/// The broker and its model, side by side.
struct Pair {
    model: Model,
    broker: Broker,
    /// Events have times to live of their own.
    own_ttls: bool,
    clock: ManualClock,
    /// The latest time that the clock has shown.
    latest: u64,
    file: Option<File>,
    parked: Vec<Parked>,
    followers: Vec<Follower>,
    /// The positions of events and answers.
    positions: Vec<EventId>,
    /// The keys that the broker remembers, by their numbers.
    keys: HashMap<usize, keys::First>,
}

fn names(of: &Set) -> Vec<&'static str> {
    of.iter().map(|category| NAMES[*category]).collect()
}

struct File {
    folder: TempDir,
    durability: Durability,
}

impl File {
    fn new(durability: Durability) -> Self {
        File {
            folder: TempDir::new().unwrap(),
            durability,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("events.db")
    }

    /// The file that a killed process leaves.
    fn copy(&self) -> Self {
        let copy = File::new(self.durability);
        fs::copy(self.path(), copy.path()).unwrap();
        copy
    }
}

fn start(options: &Limits, own_ttls: bool, file: &Option<File>, clock: &ManualClock) -> Broker {
    let can_expire = own_ttls || options.can_expire();
    let can_evict = options.max_categories < NAMES.len() || options.max_event_bytes < 64 << 20;
    let info = file.as_ref().map(|file| {
        FilePersistorInfo::new(file.path())
            .durability(file.durability)
            // Compacted at times, except where that changes the answers: events that were evicted since may be back after
            // it, and events that expire by a clock that was set back may be missing.
            .compact_from((!can_evict && !can_expire).then_some(2000))
            .write_flush_period(Duration::from_millis(1))
    });
    let settings = options.options().idempotency_window(keys::WINDOW);
    match info {
        None => testing::broker(settings, clock),
        Some(info) => testing::open(settings, info, clock),
    }
    .unwrap()
}

fn subscribe(
    broker: &Broker,
    of: &Set,
    cursor: Cursor,
    limit: Limit,
    timeout: Duration,
) -> Arc<Batch> {
    let batch = match limit {
        None => broker.subscribe(names(of), cursor, timeout),
        Some(limit) => broker.subscribe_up_to(limit, names(of), cursor, timeout),
    };
    batch.unwrap()
}

impl Pair {
    fn new(options: Limits, own_ttls: bool, durability: Option<Durability>) -> Self {
        let clock = ManualClock::at(START);
        let file = durability.map(File::new);
        let follower = |of| Follower {
            of,
            cursor: Cursor::Now,
            reached: Some(0),
        };
        Pair {
            broker: start(&options, own_ttls, &file, &clock),
            own_ttls,
            model: Model::new(options, START),
            clock,
            latest: START,
            file,
            parked: Vec::new(),
            followers: [vec![0], vec![1, 2], vec![0, 1, 2, 3]].map(follower).into(),
            positions: Vec::new(),
            keys: HashMap::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Publish(category, ttl) => _ = self.publish(category, ttl, None),
            Step::PublishOnce(key, category, ttl) => self.publish_once(key, category, ttl),
            Step::PublishAll(of, ttl) => self.publish_all(&of, ttl),
            Step::Purge(category) => self.purge(category),
            Step::Poll {
                of,
                from,
                limit,
                waiting,
            } => {
                let cursor = self.cursor(&from);
                self.poll(&of, cursor, limit, waiting);
            }
            Step::Park { of, from, limit } => self.park(of, &from, limit),
            Step::Follow(follower, limit) => self.follow(follower, limit),
            Step::Advance(milliseconds) => {
                self.clock.advance(Duration::from_millis(milliseconds));
                self.model.advance(milliseconds);
                self.latest = self.latest.max(self.model.clock);
            }
            Step::SetBack(milliseconds) => {
                // What has expired is gone once it was looked at; the model has it gone at once.
                self.poll(&(0..NAMES.len()).collect(), Cursor::Now, None, false);
                self.model.clock -= milliseconds;
                self.clock.set(self.model.clock);
            }
            Step::Restart { keeping, end } => self.restart(keeping, end),
        }
        // What has expired is held until somebody looks.
        if !self.own_ttls && !self.model.options.can_expire() {
            let held = self.broker.statistics().event_bytes;
            assert_eq!(held, self.model.held_bytes());
        }
    }

    fn request(&self, category: usize, number: usize, ttl: Option<u64>) -> PublishRequest<String> {
        let ttl = ttl.filter(|_| self.own_ttls).map(Duration::from_millis);
        PublishRequest::new(NAMES[category], data(number)).ttl(ttl)
    }

    fn publish_all(&mut self, of: &[usize], ttl: Option<u64>) {
        let is_followed = |category: &usize| {
            let mut parked = self.parked.iter();
            parked.any(|parked| parked.of.contains(category))
        };
        if of.iter().any(is_followed) {
            return of
                .iter()
                .for_each(|category| _ = self.publish(*category, ttl, None));
        }
        let numbers = self.model.events.len()..;
        let requests = of.iter().zip(numbers);
        let requests = requests.map(|(category, number)| self.request(*category, number, ttl));
        let requests: Vec<_> = requests.collect();
        match self.broker.publish_all(&requests) {
            Ok(ids) => {
                assert!(ids.is_sorted() && ids.len() == of.len());
                self.positions.extend(&ids);
                let ttl = ttl.filter(|_| self.own_ttls);
                let events = of.iter().copied().zip(ids).collect();
                self.model.publish_all(events, ttl);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TooLarge);
                assert!(self.model.options.max_event_bytes < 3000);
            }
        }
    }

    fn purge(&mut self, category: usize) {
        let id = self.broker.purge(NAMES[category]).unwrap();
        self.positions.push(id);
        if !self.model.purge(category, id) {
            return self.model.reach_end(id);
        }
        let parked = self.parked.iter_mut();
        let parked = parked.filter(|parked| parked.of.contains(&category));
        parked.for_each(|parked| parked.gap = true);
    }

    fn cursor(&self, from: &From) -> Cursor {
        let back_from_end = |count: usize, back: usize| count - 1 - back % count;
        let time = |back: usize| match self.model.events.len() {
            0 => START,
            count => self.model.events[back_from_end(count, back)].timestamp,
        };
        let position = |back: usize| match self.positions.len() {
            0 => unknown(false),
            count => self.positions[back_from_end(count, back)],
        };
        match *from {
            From::Now => Cursor::Now,
            From::Oldest => Cursor::Oldest,
            From::Time(back, by) => Cursor::SinceTime(time(back).saturating_add_signed(by)),
            From::Position(back) => Cursor::LastId(position(back)),
            From::PositionOrTime(back, event) => {
                Cursor::LastIdOrSinceTime(position(back), time(event))
            }
            From::Unknown(foreign) => Cursor::LastId(unknown(foreign)),
            From::UnknownOrTime(foreign, event) => {
                Cursor::LastIdOrSinceTime(unknown(foreign), time(event))
            }
        }
    }

    fn poll(&mut self, of: &Set, cursor: Cursor, limit: Limit, waiting: bool) -> Arc<Batch> {
        let answer = self.model.poll(of, cursor, limit);
        let timeout = Duration::from_nanos(waiting.into());
        let batch = subscribe(&self.broker, of, cursor, limit, timeout);
        self.check(&batch, &answer);
        if waiting && answer.events.is_empty() {
            self.make_room();
        }
        batch
    }

    fn park(&mut self, of: Set, from: &From, limit: Limit) {
        let cursor = self.cursor(from);
        let answer = self.model.poll(&of, cursor, limit);
        let (broker, parked_of) = (self.broker.clone(), of.clone());
        let thread = thread::spawn(move || subscribe(&broker, &parked_of, cursor, limit, LIMIT));
        if !answer.events.is_empty() {
            return self.check(&thread.join().unwrap(), &answer);
        }
        self.make_room();
        let Answer { gap, by_time, .. } = answer;
        self.parked.push(Parked {
            of,
            gap,
            by_time,
            thread,
        });
        assert!(testing::wait_until_parked(
            &self.broker,
            self.parked.len(),
            LIMIT
        ));
    }

    /// One more has parked: where that was one too many, the one parked longest is answered early.
    fn make_room(&mut self) {
        if self.parked.len() == self.model.options.max_parked {
            let oldest = self.parked.remove(0);
            self.answered_early(oldest);
        }
    }

    fn answered_early(&mut self, parked: Parked) {
        let answer = Answer {
            events: Vec::new(),
            gap: parked.gap,
            by_time: parked.by_time,
            whole: true,
        };
        self.check(&parked.thread.join().unwrap(), &answer);
    }

    /// Compares an answer of the broker with that of the model.
    fn check(&mut self, batch: &Batch, answer: &Answer) {
        let events = &self.model.events;
        let got: Vec<usize> = batch
            .events()
            .iter()
            .map(|event| event.text().trim().parse().unwrap())
            .collect();
        assert_eq!((&got, batch.gap()), (&answer.events, answer.gap));
        for (event, number) in batch.events().iter().zip(&got) {
            let expected = &events[*number];
            assert_eq!(
                (event.id(), event.timestamp(), event.category()),
                (expected.id, expected.timestamp, NAMES[expected.category])
            );
            assert_eq!(event.as_json().len(), expected.size);
        }
        match got.last() {
            Some(last) if !answer.gap || !answer.whole => {
                assert_eq!(batch.last_id(), events[*last].id)
            }
            // After all that was lost, too.
            _ => self.model.reach_end(batch.last_id()),
        }
        self.positions.push(batch.last_id());
        if got.is_empty() && answer.by_time {
            self.model.pass_time();
        }
    }

    /// The promise itself: every event of the follower's categories once, in publish order, or a gap, and a gap only if an
    /// event is missing.
    fn follow(&mut self, number: usize, limit: Limit) {
        let follower = &self.followers[number];
        let (of, cursor, reached) = (follower.of.clone(), follower.cursor, follower.reached);
        let batch = self.poll(&of, cursor, limit, number == 0);
        let events = &self.model.events;
        let got: Vec<EventId> = batch.events().iter().map(|event| event.id()).collect();
        let Some(Place::After(now_at)) = self.model.place(batch.last_id()) else {
            panic!("the position reached is not known");
        };
        if let (Some(reached), true) = (reached, cursor != Cursor::Now) {
            let missed = |to: usize| {
                events[reached..to]
                    .iter()
                    .filter(|event| of.contains(&event.category) && !got.contains(&event.id))
                    .any(|event| event.fate != Fate::Retrieved)
            };
            assert!(batch.gap() || !missed(now_at), "an event is missing");
            assert!(missed(events.len()) || !batch.gap(), "nothing is missing");
            assert!(
                got.iter()
                    .all(|id| events[reached..].iter().any(|event| event.id == *id)),
                "an event came twice"
            );
        } else if cursor != Cursor::Now {
            assert!(batch.gap());
        }
        let follower = &mut self.followers[number];
        follower.cursor = Cursor::LastId(batch.last_id());
        follower.reached = Some(now_at);
    }

    fn restart(&mut self, keeping: bool, end: End) {
        let killed =
            |file: &&File| end == End::Killed && file.durability == Durability::Acknowledged;
        let copy = self.file.as_ref().filter(killed).map(|file| {
            // That events were taken is written a little later.
            until("it is written", || {
                self.broker.statistics().store.pending == 0
            });
            file.copy()
        });
        self.broker.stop(LIMIT).unwrap();
        for parked in std::mem::take(&mut self.parked) {
            self.answered_early(parked);
        }
        let refused = [
            self.broker.publish(NAMES[0], "late").map(drop),
            self.broker
                .subscribe(NAMES[0], Cursor::Oldest, LIMIT)
                .map(drop),
        ];
        for refused in refused {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Stopped);
        }
        let keeping = keeping && self.file.is_some();
        self.file = copy.or(self.file.take());
        if !keeping {
            self.keys.clear();
            self.file = self.file.take().map(|file| File::new(file.durability));
            // Runs without a common file differ by their start time.
            self.latest += 1;
            self.take(Step::Advance(self.latest - self.model.clock));
        }
        self.model.restart(keeping);
        self.broker = start(&self.model.options, self.own_ttls, &self.file, &self.clock);
        for follower in &mut self.followers {
            if let Cursor::LastId(id) = follower.cursor {
                let known = matches!(self.model.place(id), Some(Place::After(_)));
                follower.reached = follower.reached.filter(|_| known);
            }
        }
    }
}

/// An id that no broker of a test made: golongpoll's kind, or of a run of ours.
fn unknown(foreign: bool) -> EventId {
    let text = if foreign {
        "d1f5a7c2-5d5e-4b0e-9c39-1d2c3b4a5f60"
    } else {
        "00000000-0001-8000-8000-000000000001"
    };
    text.parse().unwrap()
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Those who are still parked, after a step that failed too.
        let _ = self.broker.stop(LIMIT);
        for parked in self.parked.drain(..) {
            let _ = parked.thread.join();
        }
    }
}

#[test]
fn the_broker_answers_as_its_model_does_whatever_is_done() {
    const STEPS_OF_A_CASE: usize = 100;
    let steps = std::env::var("MODEL_STEPS").map_or(100_000, |steps| steps.parse().unwrap());
    let config = ProptestConfig {
        cases: (steps / STEPS_OF_A_CASE) as u32,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    // Short cases among long ones, so that the mean is as it should be.
    let case = (
        options(),
        proptest::bool::weighted(0.4),
        durability(),
        prop::collection::vec(step(), 1..2 * STEPS_OF_A_CASE),
    );
    let run = |(options, own_ttls, durability, steps): (_, _, _, Vec<Step>)| {
        let mut pair = Pair::new(options, own_ttls, durability);
        steps.into_iter().for_each(|step| pair.take(step));
        Ok(())
    };
    if let Err(failure) = TestRunner::new(config).run(&case, run) {
        panic!("{failure}");
    }
}
