//! The steps of a case, and random cases.

use std::time::Duration;

use proptest::prelude::*;

use super::NAMES;
use crate::broker::{BrokerOptions, CategoryOptions};
use crate::position::{Cursor, EventId};

/// How long events live, and the clock's steps: some as long to the millisecond.
const TTLS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];
const OWN_TTLS: [u64; 4] = [1, 9, 500, 2000];
const ADVANCES: [u64; 8] = [1, 2, 9, 10, 11, 500, 1000, 3000];
/// The most bytes of an event's data.
const LARGEST: usize = 202;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Log {
    Whole,
    Compacted,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Publish(usize),
    /// A publish of an event with a time to live of its own, in milliseconds.
    PublishFor(usize, u64),
    /// A publish of several events, all or none of which the store refuses, if it acknowledges.
    PublishAll {
        of: Vec<usize>,
        ttl: Option<u64>,
        is_refused: bool,
    },
    Purge(usize),
    /// A publish, and a poll while the event is hidden, if the store acknowledges.
    PublishDuring(usize, Probe),
    /// The store refuses an event, if it acknowledges.
    Refuse(usize),
    Poll(Probe),
    Park(Probe),
    /// A parked subscriber times out, or its client disconnects.
    Leave {
        number: usize,
        hung_up: bool,
    },
    Advance(u64),
    /// The second log is compacted, up to `back` events before the newest, and `cut` records after the record of that event
    /// go too, before the record of the next event.
    Compact {
        back: u64,
        cut: usize,
    },
    Compare,
    Stop {
        from: Log,
        /// The second log is compacted once more after the end.
        compact: Option<(u64, usize)>,
        switch: bool,
    },
    /// The logs end where they are, or some records before.
    Kill {
        from: Log,
        lost: usize,
        switch: bool,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) of: Vec<usize>,
    pub(super) from: From,
    pub(super) limit: Option<usize>,
}

/// A cursor, chosen from the positions and times that the broker has returned, counted from the newest.
#[derive(Clone, Debug)]
pub(super) enum From {
    Now,
    Oldest,
    Position(usize),
    Time(usize),
}

impl From {
    pub(super) fn cursor(&self, positions: &[EventId], times: &[u64]) -> Cursor {
        let newest_first = |back: usize, count: usize| count - 1 - back % count;
        match *self {
            From::Now => Cursor::Now,
            From::Position(back) if !positions.is_empty() => {
                Cursor::LastId(positions[newest_first(back, positions.len())])
            }
            From::Oldest | From::Position(_) => Cursor::Oldest,
            From::Time(back) => Cursor::SinceTime(times[newest_first(back, times.len())] - 1),
        }
    }
}

fn probe() -> impl Strategy<Value = Probe> {
    let names = proptest::sample::subsequence((0..NAMES.len()).collect::<Vec<_>>(), 1..=2);
    let from = prop_oneof![
        1 => Just(From::Now),
        3 => Just(From::Oldest),
        4 => (0..6usize).prop_map(From::Position),
        1 => (0..6usize).prop_map(From::Time),
    ];
    let limit = prop_oneof![1 => Just(None), 1 => (1..4usize).prop_map(Some)];
    (names, from, limit).prop_map(|(of, from, limit)| Probe { of, from, limit })
}

fn step() -> impl Strategy<Value = Step> {
    let category = || 0..NAMES.len();
    let log = || prop_oneof![Just(Log::Whole), Just(Log::Compacted)];
    let cut = || prop_oneof![Just(0usize), Just(usize::MAX), 0..6usize];
    let back = || prop_oneof![2 => Just(0u64), 1 => 0..5u64];
    let own_ttl = || proptest::sample::select(&OWN_TTLS[..]);
    let switch = || prop::bool::weighted(0.2);
    prop_oneof![
        40 => category().prop_map(Step::Publish),
        8 => (category(), own_ttl()).prop_map(|(category, ttl)| Step::PublishFor(category, ttl)),
        6 => (prop::collection::vec(category(), 1..5), prop::option::weighted(0.3, own_ttl()),
            prop::bool::weighted(0.1))
            .prop_map(|(of, ttl, is_refused)| Step::PublishAll { of, ttl, is_refused }),
        3 => category().prop_map(Step::Purge),
        5 => (category(), probe()).prop_map(|(category, probe)| Step::PublishDuring(category, probe)),
        2 => category().prop_map(Step::Refuse),
        15 => probe().prop_map(Step::Poll),
        10 => probe().prop_map(Step::Park),
        7 => (0..9usize, prop::bool::weighted(0.2))
            .prop_map(|(number, hung_up)| Step::Leave { number, hung_up }),
        8 => proptest::sample::select(&ADVANCES[..]).prop_map(Step::Advance),
        8 => (back(), cut()).prop_map(|(back, cut)| Step::Compact { back, cut }),
        3 => Just(Step::Compare),
        2 => (log(), prop::option::of((back(), cut())), switch())
            .prop_map(|(from, compact, switch)| Step::Stop { from, compact, switch }),
        3 => (log(), prop_oneof![Just(0usize), 1..5usize], switch())
            .prop_map(|(from, lost, switch)| Step::Kill { from, lost, switch }),
    ]
}

prop_compose! {
    fn options()(
        events_per_category in 1..6usize,
        event_ttl in prop::option::of(prop::sample::select(&TTLS[..])),
        delete_after_first_retrieval in any::<bool>(),
        special in prop::option::weighted(0.3, (
            1..6usize,
            prop::option::of(prop::option::of(prop::sample::select(&TTLS[..]))),
        )),
        max_categories in prop_oneof![Just(NAMES.len()), 1..NAMES.len()],
        max_batch_size in prop_oneof![Just(4 << 20), 1..1000usize],
        // Some hold no event of the largest, with all its JSON.
        max_event_bytes in prop_oneof![Just(64 << 20), LARGEST..3000],
    ) -> BrokerOptions {
        let mut options = BrokerOptions::new();
        if let Some((events, ttl)) = special {
            let mut special = CategoryOptions::new().events_per_category(events);
            if let Some(ttl) = ttl {
                special = special.event_ttl(ttl);
            }
            options = options.for_categories("b", special);
        }
        options
.events_per_category(events_per_category)
.event_ttl(event_ttl)
.delete_after_first_retrieval(delete_after_first_retrieval)
.max_categories(max_categories)
.max_batch_size(max_batch_size)
.max_event_bytes(max_event_bytes)
.max_event_size(LARGEST)
    }
}

/// Options, whether the store acknowledges, the events of golongpoll at the start of the log, and steps.
pub(super) fn case() -> impl Strategy<Value = (BrokerOptions, bool, Vec<(usize, u64)>, Vec<Step>)> {
    let steps = prop::collection::vec(step(), 1..120);
    // golongpoll stamps its events in their order, except for those of one instant.
    let ago = prop::collection::vec((0..NAMES.len(), 1..20u64), 0..10);
    let foreign = ago.prop_map(|mut foreign| {
        foreign.sort_by_key(|(_, ago)| std::cmp::Reverse(*ago));
        foreign
    });
    (options(), any::<bool>(), foreign, steps)
}
