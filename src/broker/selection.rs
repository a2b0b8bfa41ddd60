//! [`Selection`]: the events that one answer to a poll has.

use super::Shared;
use super::batch::Batch;
use super::batch_limit::BatchLimit;
use super::catalog::CategoryGuards;
use super::ring::{Entry, Place, Ring};
use super::sequencer::HighWaterMark;
use super::statistics::Removal;
use crate::event::Event;
use crate::store::Record;

/// The most ids of one record: golongpoll stops at a line of more than 64 KiB.
const MAX_RECORD_IDS: usize = 1000;

/// How events are selected.
#[derive(Clone, Copy)]
pub(super) struct Retrieval {
    pub(super) limit: BatchLimit,
    /// The follower may go on from the answer by time alone.
    pub(super) by_time: bool,
    /// `false` if the events stay in their rings, whatever `delete_after_first_retrieval` says.
    pub(super) deletes: bool,
    /// The newest visible sequence number when the categories were locked.
    pub(super) visible: u64,
}

/// Events in publish order.
#[derive(Default)]
pub(super) struct Selection {
    pub(super) entries: Vec<Entry>,
    /// The sequence number of the first event that did not fit.
    rest: Option<u64>,
    /// A follower by time passes over events that did not fit, since their timestamps are not in order (a log's), or hidden
    /// events of the millisecond of an event that can't be left out.
    skips: bool,
    /// Nothing could be selected, because hidden events may have the timestamp of the first visible one. After the hidden
    /// event with this sequence number is settled, something can.
    pub(super) awaits: Option<u64>,
}

#[cfg(feature = "redis")]
impl Selection {
    /// Returns the selection of a poll that has to look again.
    pub(super) fn put_off() -> Self {
        Selection {
            awaits: Some(0),
            ..Selection::default()
        }
    }
}

impl Shared {
    /// Selects from the `offered` events and the events after each category's place, as many as the limit allows. With
    /// `delete_after_first_retrieval`, a retrieval removes them from the rings.
    ///
    /// A follower that goes on by time alone gets no events of a millisecond that hidden events may have, too: it would
    /// pass over those.
    pub(super) fn select(
        &self,
        categories: &mut CategoryGuards<'_>,
        place: impl Fn(usize) -> Place,
        offered: Vec<Entry>,
        retrieval: Retrieval,
    ) -> Selection {
        let name = categories.first_name();
        let (limit, deletes) = (retrieval.limit, self.options.delete_after_first_retrieval);
        // Offered events were deleted when they were offered, and are nowhere else.
        let sequences = offered.iter().map(|entry| entry.sequence);
        let least_up_to = sequences.max().filter(|_| deletes);
        let mut entries = offered;
        for (index, state) in categories.iter().enumerate() {
            let ring = state.ring.after(place(index));
            let needed = limit.needed(ring.clone(), least_up_to);
            entries.extend(ring.take(needed).cloned());
        }
        if categories.len() > 1 {
            entries.sort_unstable_by_key(|entry| entry.sequence);
        }
        let least = entries.partition_point(|entry| Some(entry.sequence) <= least_up_to);
        let mut count = limit.count(&entries).max(least);
        if retrieval.by_time {
            self.stamp_after(name, &entries[..count]);
        }
        let complete = match limit.whole_milliseconds {
            true => self.complete(name, &entries, retrieval.visible),
            false => entries.len(),
        };
        count = count.min(complete.max(least));
        let (selected, rest) = entries.split_at(count);
        let passes_over = |latest| rest.iter().any(|entry| entry.time() < latest);
        let latest = selected.iter().map(Entry::time).max();
        let skips = limit.whole_milliseconds && latest.is_some_and(passes_over) || count > complete;
        let awaits = rest.first().filter(|_| count == 0).map(|first| {
            let hidden = self.newest_hidden(name, first.time(), retrieval.visible);
            hidden.unwrap_or(retrieval.visible)
        });
        let rest = rest.first().map(|first| first.sequence);
        entries.truncate(count);
        if let (true, true, Some(last)) = (deletes, retrieval.deletes, entries.last()) {
            for (index, state) in categories.iter_mut().enumerate() {
                self.retrieve(&mut state.ring, place(index), last.sequence);
            }
        }
        Selection {
            entries,
            rest,
            skips,
            awaits,
        }
    }

    /// Has the next event stamped later than these, which a follower by time receives.
    fn stamp_after(&self, category: &str, entries: &[Entry]) {
        if let Some(latest) = entries.iter().map(Entry::time).max() {
            self.order_of(category).stamp_after(latest);
        }
    }

    /// Counts the events, from the first on, of milliseconds that no hidden event has. Events that are stamped after
    /// [`stamp_after`](Shared::stamp_after) are later. In this run, timestamps ascend with sequence numbers.
    fn complete(&self, category: &str, entries: &[Entry], visible: u64) -> usize {
        let Some(hidden) = self.oldest_hidden(category, visible) else {
            return entries.len();
        };
        let complete = entries.iter().take_while(|entry| entry.time() < hidden);
        complete.count()
    }

    /// Removes the events of a ring after `place`, up to this sequence number, and has the store keep that.
    fn retrieve(&self, ring: &mut Ring, place: Place, last: u64) {
        let retrieved = ring
            .after(place)
            .take_while(|entry| entry.sequence <= last)
            .map(|entry| entry.event.clone());
        let retrieved: Vec<Event> = retrieved.collect();
        let Some(first) = retrieved.first() else {
            return;
        };
        let removed = ring.retrieve(place, last);
        self.counters.removed(removed, Removal::Retrieved);
        let category = first.shared_category();
        let seen = self.sequencer.high_water_mark().id;
        for events in retrieved.chunks(MAX_RECORD_IDS) {
            self.record(Record::Taken {
                category: category.clone(),
                seen,
                ids: events.iter().map(Event::id).collect(),
            });
        }
    }

    /// Makes a batch of a selection from this category and others, for which every event up to `mark` was considered.
    /// `by_time`: the follower may go on from the answer by time alone. Called with the locks of the polled categories held.
    pub(super) fn batch_of(
        &self,
        category: &str,
        selection: Selection,
        gap: bool,
        mark: HighWaterMark,
        by_time: bool,
    ) -> Batch {
        let gap = gap || selection.skips;
        let entries = selection.entries.into_iter();
        let events: Vec<Event> = entries.map(|entry| entry.event).collect();
        let last_id = match (events.last(), selection.rest) {
            (Some(last), Some(_)) => last.id(),
            (Some(last), None) if !gap => last.id(),
            (None, Some(rest)) => self.order_of(category).position(rest - 1),
            // The lost event may be newer than the last one here, and the gap is not to be reported twice.
            _ => mark.id,
        };
        let before = match by_time && events.is_empty() {
            true => self.pass_time(category, &mark),
            false => mark.before,
        };
        Batch::new(events, gap, last_id).up_to(before)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::look::PollMode;
    use super::super::{Batch, Broker, BrokerOptions, Parked, Polled};
    use crate::deadline::Deadline;
    use crate::position::Cursor;
    use crate::wire::Categories;

    /// A subscriber that is parked in the categories "a" and "b".
    fn parked(broker: &Broker, limit: Option<usize>) -> Parked {
        let names = Categories::from(["a", "b"]);
        match broker.poll(&names, Cursor::Now, limit, PollMode::Park) {
            Ok(Polled::Parked(parked)) => parked,
            _ => panic!("not parked"),
        }
    }

    fn texts(batch: &Batch) -> Vec<String> {
        let events = batch.events().iter();
        events.map(|event| event.text().into_owned()).collect()
    }

    /// Polls until nothing is left.
    fn follow(broker: &Broker, first: Arc<Batch>, limit: usize) -> Vec<String> {
        let (mut batch, mut received) = (first, Vec::new());
        while !batch.events().is_empty() {
            assert!(!batch.gap(), "{received:?}");
            received.extend(texts(&batch));
            let cursor = Cursor::LastId(batch.last_id());
            let next = broker.subscribe_up_to(limit, ["a", "b"], cursor, Duration::ZERO);
            batch = next.unwrap();
        }
        received
    }

    /// The subscriber has the first event of each category before it wakes, and those are deleted. All events between them
    /// have to be in the same answer, since a position after the last would pass over them.
    #[test]
    fn a_small_batch_has_all_events_between_two_that_were_offered() {
        let published = ["b1", "b2", "b3", "b4", "b5", "a1", "b6", "b7"];
        for limit in 1..=published.len() {
            for max_batch_size in [1, 300, 1 << 20] {
                let options = BrokerOptions::new().delete_after_first_retrieval(true);
                let broker = Broker::new(options.max_batch_size(max_batch_size)).unwrap();
                let subscriber = parked(&broker, Some(limit));
                for text in published {
                    broker.publish(&text[..1], text).unwrap();
                }
                let first = subscriber.wait(Deadline::after(Duration::from_secs(10)));
                assert_eq!(follow(&broker, first, limit), published, "{limit}");
            }
        }
    }

    /// A follower by time gets whole milliseconds, and a batch of them needs no look at the events far behind it.
    #[test]
    fn a_follower_by_time_receives_every_event_in_small_batches() {
        for deletes in [false, true] {
            let options = BrokerOptions::new()
                .delete_after_first_retrieval(deletes)
                .max_batch_size(300);
            let broker = Broker::new(options).unwrap();
            let subscriber = parked(&broker, None);
            let published: Vec<String> = (0..200)
                .map(|number| format!("{}{number}", if number % 7 == 3 { "a" } else { "b" }))
                .collect();
            for text in &published {
                broker.publish(&text[..1], text).unwrap();
            }
            let mut batch = subscriber.wait(Deadline::after(Duration::from_secs(10)));
            let mut received = Vec::new();
            while let Some(last) = batch.events().last() {
                assert!(!batch.gap(), "{received:?}");
                received.extend(texts(&batch));
                let cursor = Cursor::SinceTime(last.timestamp());
                batch = broker
                    .subscribe(["a", "b"], cursor, Duration::ZERO)
                    .unwrap();
            }
            assert_eq!(received, published, "{deletes}");
        }
    }
}
