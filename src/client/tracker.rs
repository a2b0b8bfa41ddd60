//! [`PositionTracker`]: the position of a subscriber, and which events of a response are new to it.

use std::collections::{HashSet, VecDeque};

use super::response::SubscriptionResponse;
use crate::event::Event;
use crate::position::{Cursor, EventId};

/// The number of event ids that a tracker remembers. If the last response had more events, it remembers all of those.
///
/// Ids of one run have an order and need no memory. This is for golongpoll's random ids, and for runs without an order.
const REMEMBERED_IDS: usize = 4096;

/// The position of a subscriber, and the ids of the events that it received last.
#[derive(Debug)]
pub(crate) struct PositionTracker {
    /// The start of the next poll, after all events received.
    cursor: Cursor,
    /// The remembered ids, oldest first. Always the same ids as `remembered`.
    recent: VecDeque<EventId>,
    remembered: HashSet<EventId>,
    /// The last response had a gap and nothing else, and the gap was reported.
    gap_reported: bool,
}

/// The new content of a response.
#[derive(Debug, Default)]
pub(crate) struct Update {
    /// The events that were not received before, in the order of the response.
    pub(crate) events: Vec<Event>,
    /// Events were lost before `events`.
    pub(crate) gap: bool,
    /// The response has events, all of which were received before, and no newer position.
    pub(crate) is_stale: bool,
    /// The response continues in a run with lower ids: the server was restarted with its clock set back, or another
    /// server responded.
    pub(crate) is_older_run: bool,
}

impl PositionTracker {
    pub(crate) fn new(cursor: Cursor) -> Self {
        PositionTracker {
            cursor,
            recent: VecDeque::new(),
            remembered: HashSet::new(),
            gap_reported: false,
        }
    }

    pub(crate) fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Returns the id after which the next poll starts, if any.
    pub(crate) fn id(&self) -> Option<EventId> {
        self.cursor.parameters().1
    }

    /// Moves the cursor past a successful response to a poll from it, and returns what is new.
    pub(crate) fn update(&mut self, response: SubscriptionResponse) -> Update {
        let before = self.cursor;
        let has_events = !response.events.is_empty();
        let mut events = response.events;
        events.retain(|event| self.is_new(event.id(), response.gap) && self.remember(event.id()));
        self.trim_remembered(events.len());

        let (time, id) = before.parameters();
        // With a time in the cursor, the server may have used the time instead of the id.
        let position_lost = response.gap || time.is_some();
        self.cursor = match (events.last(), response.last_id, response.timestamp) {
            (_, Some(end), _) if is_ahead(end, id, position_lost) => Cursor::LastId(end),
            (Some(event), Some(_), _) if is_ahead(event.id(), id, position_lost) => {
                Cursor::LastId(event.id())
            }
            // golongpoll ignores an id without a time.
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
        let moved = !events.is_empty() || self.cursor != before;
        // A subscriber that starts at the oldest event expects none before it.
        let gap = response.gap && before != Cursor::Oldest && (moved || !self.gap_reported);
        self.gap_reported = response.gap && (gap || !moved);
        Update {
            gap,
            is_stale: has_events && !moved,
            is_older_run: id
                .zip(self.id())
                .is_some_and(|(old, new)| is_older_run(new, old)),
            events,
        }
    }

    /// Returns `true` if the event was not received before.
    ///
    /// An event of an older run than the position's is new only if the server reports a gap, or has used the time of the
    /// cursor.
    fn is_new(&self, id: EventId, gap: bool) -> bool {
        let (time, position) = self.cursor.parameters();
        let is_passed = match position {
            Some(position) if is_older_run(id, position) => !gap && time.is_none(),
            Some(position) => is_same_run(id, position) && id <= position,
            None => false,
        };
        !is_passed && !self.remembered.contains(&id)
    }

    /// Remembers an id. Returns `false` if it was remembered already.
    fn remember(&mut self, id: EventId) -> bool {
        let new = self.remembered.insert(id);
        if new {
            self.recent.push_back(id);
        }
        new
    }

    fn trim_remembered(&mut self, last: usize) {
        while self.recent.len() > REMEMBERED_IDS.max(last) {
            if let Some(id) = self.recent.pop_front() {
                self.remembered.remove(&id);
            }
        }
    }
}

/// Returns `true` if `new` is a later position than `old`. After a loss of `old`, a position of any other run is later.
pub(crate) fn is_ahead(new: EventId, old: Option<EventId>, old_lost: bool) -> bool {
    let Some(old) = old else {
        return true;
    };
    match (old.parts(), new.parts()) {
        (Some((old_run, _)), Some((new_run, _))) => new > old || (old_lost && new_run != old_run),
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

    fn at(run: Run, number: u64) -> PositionTracker {
        PositionTracker::new(Cursor::LastId(EventId::new(run, number)))
    }

    /// The sequence numbers of the new events.
    fn numbers(update: &Update) -> Vec<u64> {
        let ids = update.events.iter().map(|event| event.id().parts());
        ids.map(|parts| parts.unwrap().1).collect()
    }

    #[test]
    fn events_up_to_the_position_are_old_and_the_others_are_new() {
        let mut tracker = at(OLD, 4);
        assert_eq!(numbers(&tracker.update(ours(OLD, &[3, 4, 5, 6]))), [5, 6]);
        let again = tracker.update(ours(OLD, &[5, 6]));
        assert!(again.is_stale && again.events.is_empty());
        let older = tracker.update(ours(OLD, &[2]));
        assert!(older.is_stale);
        assert_eq!(tracker.id(), Some(EventId::new(OLD, 6)));
    }

    #[test]
    fn a_gap_does_not_make_old_events_new_and_is_reported_once() {
        let mut tracker = at(OLD, 4);
        let first = tracker.update(with_gap(ours(OLD, &[7, 8])));
        assert!(first.gap && numbers(&first) == [7, 8]);
        for _ in 0..3 {
            let again = tracker.update(with_gap(ours(OLD, &[7, 8])));
            assert!(again.is_stale, "{again:?}");
        }
        // Without events and position, it is reported once.
        let mut tracker = at(OLD, 4);
        assert!(tracker.update(with_gap(golongpoll(&[], None))).gap);
        assert!(!tracker.update(with_gap(golongpoll(&[], None))).gap);
        assert!(tracker.update(with_gap(ours(OLD, &[9]))).gap);
        assert!(tracker.update(with_gap(ours(OLD, &[12]))).gap);
    }

    #[test]
    fn a_newer_run_continues_and_an_older_run_only_after_a_gap() {
        let mut tracker = at(OLD, 9);
        assert_eq!(numbers(&tracker.update(ours(NEW, &[1, 2]))), [1, 2]);
        assert!(tracker.update(ours(OLD, &[10])).is_stale);
        assert_eq!(tracker.id(), Some(EventId::new(NEW, 2)));

        // A server without a file was restarted with its clock set back.
        let back = tracker.update(with_gap(ours(OLD, &[1, 2])));
        assert!(back.gap && back.is_older_run && numbers(&back) == [1, 2]);
        assert_eq!(tracker.id(), Some(EventId::new(OLD, 2)));
        // Events of the other run that were received before stay old.
        assert!(tracker.update(with_gap(ours(OLD, &[1, 2]))).is_stale);
        assert!(
            tracker
                .update(with_gap(ours(NEW, &[1, 2])))
                .events
                .is_empty()
        );
    }

    #[test]
    fn a_poll_that_the_server_places_by_time_returns_events_of_any_run() {
        let cursor = Cursor::LastIdOrSinceTime(EventId::new(NEW, 7), 4);
        let mut tracker = PositionTracker::new(cursor);
        assert_eq!(numbers(&tracker.update(ours(OLD, &[1, 2]))), [1, 2]);
        assert_eq!(tracker.id(), Some(EventId::new(OLD, 2)));
    }

    #[test]
    fn the_position_follows_the_events_if_the_servers_position_stays() {
        let mut tracker = at(OLD, 4);
        let unmoved = SubscriptionResponse {
            last_id: Some(EventId::new(OLD, 4)),
            ..ours(OLD, &[5, 6])
        };
        assert_eq!(numbers(&tracker.update(unmoved)), [5, 6]);
        assert_eq!(tracker.id(), Some(EventId::new(OLD, 6)));
    }

    #[test]
    fn a_position_without_events_moves_forward_and_never_back() {
        let mut tracker = PositionTracker::new(Cursor::Now);
        tracker.update(ours(OLD, &[3]));
        let position = |number| SubscriptionResponse {
            events: Vec::new(),
            ..ours(OLD, &[number])
        };
        for number in [5, 5, 4] {
            assert!(!tracker.update(position(number)).is_stale);
            assert_eq!(tracker.cursor(), Cursor::LastId(EventId::new(OLD, 5)));
        }
    }

    #[test]
    fn golongpolls_random_ids_are_remembered() {
        let mut tracker = PositionTracker::new(Cursor::Now);
        tracker.update(golongpoll(&[], Some(4)));
        assert_eq!(tracker.cursor(), Cursor::SinceTime(4));
        assert_eq!(tracker.update(golongpoll(&[9, 3], None)).events.len(), 2);
        assert!(tracker.update(golongpoll(&[9, 3], None)).is_stale);
        assert_eq!(tracker.update(golongpoll(&[9, 3, 1], None)).events.len(), 1);
        // An older response, from a cache.
        assert!(tracker.update(golongpoll(&[9], None)).is_stale);
        assert!(!tracker.update(golongpoll(&[], Some(2))).is_stale);
        let cursor = Cursor::LastIdOrSinceTime(EventId::from(1), 5);
        assert_eq!(tracker.cursor(), cursor);
    }

    #[test]
    fn the_remembered_ids_are_bounded_but_include_a_whole_response() {
        let mut tracker = PositionTracker::new(Cursor::Oldest);
        let many: Vec<u128> = (0..2 * REMEMBERED_IDS as u128).collect();
        assert_eq!(
            tracker.update(golongpoll(&many, None)).events.len(),
            many.len()
        );
        assert!(tracker.update(golongpoll(&many, None)).is_stale);
        tracker.update(golongpoll(&[u128::MAX], None));
        assert_eq!(tracker.recent.len(), REMEMBERED_IDS);
        assert_eq!(tracker.remembered.len(), REMEMBERED_IDS);
    }
}
