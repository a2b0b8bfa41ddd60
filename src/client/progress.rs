//! [`Progress`]: how far a subscriber has come, and what of an answer is new to it.

use std::collections::{HashSet, VecDeque};

use super::response::SubscriptionResponse;
use crate::event::Event;
use crate::position::{Cursor, EventId};

/// How many events' ids are remembered, at least; always those of the last answer. Ids of one run are compared, and need
/// no memory: it is for golongpoll's random ids, and for runs whose order is not known.
const REMEMBERED: usize = 4096;

#[derive(Debug)]
pub(crate) struct Progress {
    /// Where the next poll starts: after all that was received.
    cursor: Cursor,
    recent: VecDeque<EventId>,
    remembered: HashSet<EventId>,
    /// The last answer with a gap brought nothing else; the gap was reported.
    gap_reported: bool,
}

/// What an answer brings.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// The events that were not received before, in the answer's order.
    pub(crate) events: Vec<Event>,
    /// Events were lost before these.
    pub(crate) gap: bool,
    /// The answer repeats events that were received before, and brings nothing else.
    pub(crate) stale: bool,
    /// The answer goes on in a run that is older by its ids: of a server that was started again with its clock set back,
    /// or another server.
    pub(crate) rewound: bool,
}

impl Progress {
    pub(crate) fn new(cursor: Cursor) -> Self {
        Progress {
            cursor,
            recent: VecDeque::new(),
            remembered: HashSet::new(),
            gap_reported: false,
        }
    }

    pub(crate) fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The id that the next poll starts after, if any.
    pub(crate) fn id(&self) -> Option<EventId> {
        self.cursor.parameters().1
    }

    /// Takes in a successful answer to a poll from the cursor.
    pub(crate) fn take(&mut self, response: SubscriptionResponse) -> News {
        let before = self.cursor;
        let repeats = !response.events.is_empty();
        let mut events = response.events;
        events.retain(|event| self.is_new(event.id(), response.gap) && self.remember(event.id()));
        self.forget_all_but(events.len());

        let (time, id) = before.parameters();
        // The server may have left the id alone, and gone by the time.
        let lost = response.gap || time.is_some();
        self.cursor = match (events.last(), response.last_id, response.timestamp) {
            (_, Some(reached), _) if leads_on(id, reached, lost) => Cursor::LastId(reached),
            (Some(event), Some(_), _) if leads_on(id, event.id(), lost) => {
                Cursor::LastId(event.id())
            }
            // golongpoll heeds an id only beside a time.
            (Some(event), None, _) => Cursor::LastIdOrSinceTime(event.id(), event.timestamp()),
            (None, None, Some(now)) => {
                let time = time.map_or(now, |time| time.max(now));
                match id {
                    Some(id) => Cursor::LastIdOrSinceTime(id, time),
                    None => Cursor::SinceTime(time),
                }
            }
            _ => before,
        };
        let progress = !events.is_empty() || self.cursor != before;
        // Nothing before the oldest event was promised.
        let gap = response.gap && before != Cursor::Oldest && (progress || !self.gap_reported);
        self.gap_reported = response.gap && (gap || !progress);
        News {
            gap,
            stale: repeats && !progress,
            rewound: id
                .zip(self.id())
                .is_some_and(|(old, new)| is_older_run(new, old)),
            events,
        }
    }

    /// Whether the event was not received before. An event of an older run than the position's comes only where the
    /// server says that the position is lost, or has placed the poll by its time.
    fn is_new(&self, id: EventId, gap: bool) -> bool {
        let (time, position) = self.cursor.parameters();
        let passed = match position {
            Some(position) if is_older_run(id, position) => !gap && time.is_none(),
            Some(position) => is_same_run(id, position) && id <= position,
            None => false,
        };
        !passed && !self.remembered.contains(&id)
    }

    /// False where the id was remembered already.
    fn remember(&mut self, id: EventId) -> bool {
        let new = self.remembered.insert(id);
        if new {
            self.recent.push_back(id);
        }
        new
    }

    fn forget_all_but(&mut self, last: usize) {
        while self.recent.len() > REMEMBERED.max(last) {
            if let Some(id) = self.recent.pop_front() {
                self.remembered.remove(&id);
            }
        }
    }
}

/// Whether a position is further on than the old one. Where the old one is lost to the server, one of any other run is.
pub(crate) fn leads_on(old: Option<EventId>, new: EventId, lost: bool) -> bool {
    let Some(old) = old else {
        return true;
    };
    match (old.parts(), new.parts()) {
        (Some((old_run, _)), Some((new_run, _))) => new > old || (lost && new_run != old_run),
        // Random ids have no order.
        _ => new != old,
    }
}

fn is_same_run(one: EventId, other: EventId) -> bool {
    match (one.parts(), other.parts()) {
        (Some((one, _)), Some((other, _))) => one == other,
        _ => false,
    }
}

fn is_older_run(one: EventId, than: EventId) -> bool {
    match (one.parts(), than.parts()) {
        (Some((one, _)), Some((than, _))) => one < than,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Run;

    const OLD: Run = Run::new(1000, 1);
    const NEW: Run = Run::new(2000, 1);

    fn event(id: EventId, timestamp: u64) -> Event {
        let json = format!(r#"{{"timestamp":{timestamp},"category":"c","data":1,"id":"{id}"}}"#);
        serde_json::from_str(&json).unwrap()
    }

    fn ours(run: Run, numbers: &[u64]) -> SubscriptionResponse {
        let ids = numbers.iter().map(|number| EventId::new(run, *number));
        let last_id = ids.clone().next_back();
        SubscriptionResponse {
            events: ids.map(|id| event(id, 5)).collect(),
            last_id,
            ..SubscriptionResponse::default()
        }
    }

    fn with_gap(response: SubscriptionResponse) -> SubscriptionResponse {
        SubscriptionResponse {
            gap: true,
            ..response
        }
    }

    fn golongpoll(ids: &[u128], timestamp: Option<u64>) -> SubscriptionResponse {
        SubscriptionResponse {
            events: ids.iter().map(|id| event(EventId::from(*id), 5)).collect(),
            timestamp,
            ..SubscriptionResponse::default()
        }
    }

    fn at(run: Run, number: u64) -> Progress {
        Progress::new(Cursor::LastId(EventId::new(run, number)))
    }

    /// The sequence numbers of the new events.
    fn numbers(news: &News) -> Vec<u64> {
        let ids = news.events.iter().map(|event| event.id().parts());
        ids.map(|parts| parts.unwrap().1).collect()
    }

    #[test]
    fn events_up_to_the_position_are_old_and_the_others_of_the_answer_new() {
        let mut progress = at(OLD, 4);
        assert_eq!(numbers(&progress.take(ours(OLD, &[3, 4, 5, 6]))), [5, 6]);
        let again = progress.take(ours(OLD, &[5, 6]));
        assert!(again.stale && again.events.is_empty());
        let older = progress.take(ours(OLD, &[2]));
        assert!(older.stale);
        assert_eq!(progress.id(), Some(EventId::new(OLD, 6)));
    }

    #[test]
    fn a_gap_does_not_make_old_events_new_nor_is_it_reported_without_end() {
        let mut progress = at(OLD, 4);
        let first = progress.take(with_gap(ours(OLD, &[7, 8])));
        assert!(first.gap && numbers(&first) == [7, 8]);
        for _ in 0..3 {
            let again = progress.take(with_gap(ours(OLD, &[7, 8])));
            assert!(again.stale, "{again:?}");
        }
        // Without events and position, it is reported once.
        let mut progress = at(OLD, 4);
        assert!(progress.take(with_gap(golongpoll(&[], None))).gap);
        assert!(!progress.take(with_gap(golongpoll(&[], None))).gap);
        assert!(progress.take(with_gap(ours(OLD, &[9]))).gap);
        assert!(progress.take(with_gap(ours(OLD, &[12]))).gap);
    }

    #[test]
    fn the_next_run_goes_on_and_an_older_one_only_behind_a_gap() {
        let mut progress = at(OLD, 9);
        assert_eq!(numbers(&progress.take(ours(NEW, &[1, 2]))), [1, 2]);
        assert!(progress.take(ours(OLD, &[10])).stale);
        assert_eq!(progress.id(), Some(EventId::new(NEW, 2)));

        // A server without a file, started again with its clock set back.
        let back = progress.take(with_gap(ours(OLD, &[1, 2])));
        assert!(back.gap && back.rewound && numbers(&back) == [1, 2]);
        assert_eq!(progress.id(), Some(EventId::new(OLD, 2)));
        // What was received of the other run is not new again.
        assert!(progress.take(with_gap(ours(OLD, &[1, 2]))).stale);
        assert!(
            progress
                .take(with_gap(ours(NEW, &[1, 2])))
                .events
                .is_empty()
        );
    }

    #[test]
    fn a_poll_placed_by_its_time_brings_events_of_any_run() {
        let cursor = Cursor::LastIdOrSinceTime(EventId::new(NEW, 7), 4);
        let mut progress = Progress::new(cursor);
        assert_eq!(numbers(&progress.take(ours(OLD, &[1, 2]))), [1, 2]);
        assert_eq!(progress.id(), Some(EventId::new(OLD, 2)));
    }

    #[test]
    fn the_events_lead_on_where_the_servers_position_does_not() {
        let mut progress = at(OLD, 4);
        let stuck = SubscriptionResponse {
            last_id: Some(EventId::new(OLD, 4)),
            ..ours(OLD, &[5, 6])
        };
        assert_eq!(numbers(&progress.take(stuck)), [5, 6]);
        assert_eq!(progress.id(), Some(EventId::new(OLD, 6)));
    }

    #[test]
    fn a_position_without_events_leads_on_and_never_back() {
        let mut progress = Progress::new(Cursor::Now);
        progress.take(ours(OLD, &[3]));
        let position = |number| SubscriptionResponse {
            events: Vec::new(),
            ..ours(OLD, &[number])
        };
        for number in [5, 5, 4] {
            assert!(!progress.take(position(number)).stale);
            assert_eq!(progress.cursor(), Cursor::LastId(EventId::new(OLD, 5)));
        }
    }

    #[test]
    fn golongpolls_random_ids_are_remembered() {
        let mut progress = Progress::new(Cursor::Now);
        progress.take(golongpoll(&[], Some(4)));
        assert_eq!(progress.cursor(), Cursor::SinceTime(4));
        assert_eq!(progress.take(golongpoll(&[9, 3], None)).events.len(), 2);
        assert!(progress.take(golongpoll(&[9, 3], None)).stale);
        assert_eq!(progress.take(golongpoll(&[9, 3, 1], None)).events.len(), 1);
        // An older answer, from a cache between here and the server.
        assert!(progress.take(golongpoll(&[9], None)).stale);
        assert!(!progress.take(golongpoll(&[], Some(2))).stale);
        let cursor = Cursor::LastIdOrSinceTime(EventId::from(1), 5);
        assert_eq!(progress.cursor(), cursor);
    }

    #[test]
    fn the_ids_remembered_are_bounded_but_hold_a_whole_answer() {
        let mut progress = Progress::new(Cursor::Oldest);
        let many: Vec<u128> = (0..2 * REMEMBERED as u128).collect();
        assert_eq!(
            progress.take(golongpoll(&many, None)).events.len(),
            many.len()
        );
        assert!(progress.take(golongpoll(&many, None)).stale);
        progress.take(golongpoll(&[u128::MAX], None));
        assert_eq!(progress.recent.len(), REMEMBERED);
        assert_eq!(progress.remembered.len(), REMEMBERED);
    }
}
