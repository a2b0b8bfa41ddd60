//! A look into the rings of a poll's categories, under their locks: [`Query`] says where it starts, [`Look`] what it found.

use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::batch::Batch;
use super::batch_limit::BatchLimit;
use super::catalog::CategoryGuards;
#[cfg(feature = "redis")]
use super::placed::Ahead;
use super::ring::Place;
use super::selection::{Retrieval, Selection};
use super::sequencer::{HighWaterMark, Placed, Sequencer};
use crate::position::{Cursor, EventId};

/// How far `since_time` may be ahead of the broker's time, in milliseconds: a client may stamp its polls by its own clock.
const MAX_AHEAD: u64 = 60_000;

/// What a poll does if there are no events yet, and whether it counts as a retrieval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollMode {
    /// Parks.
    Park,
    /// Answers at once.
    NoWait,
    /// Answers at once, and does not delete the events that it finds, whatever `delete_after_first_retrieval` says.
    Peek,
}

/// What a poll asks for.
#[derive(Clone, Copy)]
pub(super) struct Query {
    pub(super) cursor: Cursor,
    pub(super) limit: Option<usize>,
    pub(super) mode: PollMode,
    /// The position that another node has reached, and this one had not when it looked.
    #[cfg(feature = "redis")]
    pub(super) ahead: Option<Ahead>,
    /// The poll has waited for that position.
    #[cfg(feature = "redis")]
    pub(super) checked: bool,
}

impl Query {
    pub(super) fn new(cursor: Cursor, limit: Option<usize>, mode: PollMode) -> Self {
        Query {
            cursor,
            limit,
            mode,
            #[cfg(feature = "redis")]
            ahead: None,
            #[cfg(feature = "redis")]
            checked: false,
        }
    }

    /// Finds the place of an id.
    fn locate(&self, order: &Sequencer, id: EventId) -> Placed {
        #[cfg(feature = "redis")]
        if let Some(timeline) = order.timeline() {
            return timeline.locate(id, self.checked);
        }
        order.locate(id)
    }

    /// Returns the time that a follower by time has to wait for before it can park, or get a position, when the clock shows
    /// `now`.
    #[cfg(feature = "redis")]
    fn ahead_in_time(&self, order: &Sequencer, place: Place, now: u64) -> Option<Ahead> {
        match (place, order.timeline()) {
            (Place::Time(time), Some(timeline)) if self.mode != PollMode::Peek && !self.checked => {
                timeline.ahead_in_time(time, now)
            }
            _ => None,
        }
    }
}

/// Where a poll starts.
struct Start {
    place: Place,
    /// The cursor has no place, so that events may be missing.
    is_unknown: bool,
    /// The follower may go on from the answer by time alone.
    by_time: bool,
    #[cfg(feature = "redis")]
    ahead: Option<Ahead>,
}

/// What a poll finds under the locks of its categories.
pub(super) struct Look {
    pub(super) selection: Selection,
    /// Events after the cursor were lost.
    pub(super) gap: bool,
    /// Every event up to here was considered.
    pub(super) mark: HighWaterMark,
    pub(super) limit: BatchLimit,
    pub(super) by_time: bool,
    /// The poll has a position that this node has not reached: it has to look again.
    #[cfg(feature = "redis")]
    pub(super) ahead: Option<Ahead>,
}

#[cfg(feature = "redis")]
impl Look {
    fn ahead(ahead: Ahead, mark: HighWaterMark) -> Self {
        Look {
            selection: Selection::put_off(),
            gap: false,
            mark,
            limit: BatchLimit {
                events: 0,
                bytes: 0,
                whole_milliseconds: false,
            },
            by_time: false,
            ahead: Some(ahead),
        }
    }
}

impl Shared {
    /// Calls `work` with all these categories locked, whose names are given in order, and without their expired events.
    pub(super) fn with_categories<T>(
        &self,
        names: &[&str],
        work: impl FnOnce(&mut CategoryGuards<'_>) -> T,
    ) -> T {
        self.catalog.with_all(names, |categories| {
            if categories.iter().any(|state| state.ring.can_expire()) {
                let now = self.age.now();
                let rings = categories.iter_mut().map(|state| &mut state.ring);
                rings.for_each(|ring| self.expire(ring, now));
            }
            work(categories)
        })
    }

    /// Looks for events, and retrieves those that it finds unless the query only peeks.
    pub(super) fn look(&self, categories: &mut CategoryGuards<'_>, query: Query) -> Look {
        let name = categories.first_name();
        let (order, mark) = (self.order_of(name), self.high_water_mark(name));
        let start = self.resolve(query, categories, &mark);
        #[cfg(feature = "redis")]
        if let Some(ahead) = start
            .ahead
            .or_else(|| query.ahead_in_time(order, start.place, mark.time))
        {
            return Look::ahead(ahead, mark);
        }
        let Start {
            place,
            is_unknown,
            by_time,
            ..
        } = start;
        if let Place::Time(time) = place {
            order.stamp_after(time.min(mark.time));
        }
        let gap = is_unknown
            || misses(categories, |_| place)
            || place.misses(order.lost())
            || self.exceeds_batch(place, categories);
        let limit = BatchLimit {
            events: query.limit.unwrap_or(usize::MAX),
            bytes: self.options.max_batch_size,
            // A follower that gives a limit goes on by the last id.
            whole_milliseconds: query.limit.is_none() && by_time,
        };
        let retrieval = Retrieval {
            limit,
            by_time,
            deletes: query.mode != PollMode::Peek,
            visible: mark.sequence,
        };
        let selection = self.select(categories, |_| place, Vec::new(), retrieval);
        Look {
            selection,
            gap,
            mark,
            limit,
            by_time,
            #[cfg(feature = "redis")]
            ahead: None,
        }
    }

    pub(super) fn batch(&self, category: &str, look: Look) -> Batch {
        // The client keeps its position.
        #[cfg(feature = "redis")]
        if let Some(ahead) = look.ahead {
            let (id, is_put_off) = match ahead {
                Ahead::Position { id, .. } => (id, false),
                Ahead::Time(_) => (look.mark.id, true),
            };
            let batch = Batch::new(Vec::new(), false, id).put_off(is_put_off);
            return batch.up_to(look.mark.before);
        }
        self.batch_of(category, look.selection, look.gap, look.mark, look.by_time)
    }

    /// Returns `true` if the events of the place's millisecond do not fit into one batch, so that a follower that stands
    /// there by time did not receive all of them. Only a log can bring that much, or a batch size that was reduced.
    fn exceeds_batch(&self, place: Place, categories: &CategoryGuards<'_>) -> bool {
        let Place::Time(time) = place else {
            return false;
        };
        let max = self.options.max_batch_size;
        let (mut events, mut bytes) = (0usize, 0usize);
        for entry in categories.iter().flat_map(|state| state.ring.at(time)) {
            events += 1;
            bytes = bytes.saturating_add(entry.event.as_json().len() + 1);
            if events > 1 && bytes > max {
                return true;
            }
        }
        false
    }

    /// Returns the position up to which every event is visible. Called with the locks of the polled categories held.
    pub(super) fn high_water_mark(&self, category: &str) -> HighWaterMark {
        let mut mark = self.order_of(category).high_water_mark();
        mark.before = self.before_hidden(category, &mark);
        mark
    }

    fn before_hidden(&self, category: &str, mark: &HighWaterMark) -> u64 {
        match self.oldest_hidden(category, mark.sequence) {
            Some(hidden) => mark.before.min(hidden.saturating_sub(1)),
            None => mark.before,
        }
    }

    /// Returns the time from which a follower by time goes on that gets no event, and has all later events stamped after it,
    /// even if the clock steps back. Called with the locks of the polled categories held.
    pub(super) fn pass_time(&self, category: &str, mark: &HighWaterMark) -> u64 {
        self.order_of(category).stamp_after(mark.before);
        // An event that was stamped since the mark was read, by a clock that stepped back, is hidden.
        self.before_hidden(category, mark)
    }

    /// Finds the place of a cursor.
    fn resolve(
        &self,
        query: Query,
        categories: &CategoryGuards<'_>,
        mark: &HighWaterMark,
    ) -> Start {
        let start = |place, is_unknown, by_time| Start {
            place,
            is_unknown,
            by_time,
            #[cfg(feature = "redis")]
            ahead: None,
        };
        let by_time = |place, is_unknown| start(place, is_unknown, true);
        let by_id = |place, is_unknown| start(place, is_unknown, false);
        let since = |time: u64, is_unknown: bool| {
            // No event can have had this timestamp: the broker's clock was ahead when it was given, or the client's is.
            if time > mark.time.saturating_add(MAX_AHEAD) {
                by_time(Place::Oldest, true)
            } else {
                by_time(Place::Time(time), is_unknown)
            }
        };
        let (id, since_time) = match query.cursor {
            // The first answer has a time as well as an id.
            Cursor::Now => return by_time(Place::Sequence(mark.sequence), false),
            Cursor::Oldest => return by_time(Place::Oldest, false),
            Cursor::SinceTime(time) => return since(time, false),
            Cursor::LastId(id) => (id, None),
            Cursor::LastIdOrSinceTime(id, time) => (id, Some(time)),
        };
        let order = self.order_of(categories.first_name());
        let placed = query.locate(order, id);
        match placed {
            #[cfg(feature = "redis")]
            Placed::Ahead(ahead) => Start {
                ahead: Some(ahead),
                ..by_id(Place::Oldest, false)
            },
            Placed::At(place) => by_id(place, false),
            Placed::PastEnd(place) => by_id(place, true),
            Placed::UnknownRun | Placed::Foreign => {
                match categories.iter().find_map(|state| state.ring.find(id)) {
                    Some(sequence) => by_id(Place::Sequence(sequence), false),
                    // The event of a foreign id may have been pushed out: a time shows whether any is missing.
                    None => match since_time {
                        Some(time) => since(time, placed == Placed::UnknownRun),
                        None => by_time(Place::Oldest, true),
                    },
                }
            }
        }
    }

    pub(super) fn count_answered(&self, batch: &Batch) {
        let counters = &self.counters;
        if batch.events().is_empty() {
            counters.timed_out.fetch_add(1, Relaxed);
        } else {
            counters
                .delivered
                .fetch_add(batch.events().len() as u64, Relaxed);
            counters.gaps.fetch_add(u64::from(batch.gap()), Relaxed);
        }
    }
}

/// Returns `true` if a follower that stands at these places, category by category, misses an event.
pub(super) fn misses(categories: &CategoryGuards<'_>, place: impl Fn(usize) -> Place) -> bool {
    let mut states = categories.iter().enumerate();
    states.any(|(index, state)| place(index).misses(state.ring.lost))
}
