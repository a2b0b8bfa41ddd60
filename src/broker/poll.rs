//! A poll: looking into the rings, parking under the same locks, and taking what has come.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::batch::Batch;
use super::batch_limit::BatchLimit;
use super::catalog::{Category, State};
use super::ring::{Entry, Place, Ring};
use super::sequencer::{HighWaterMark, Placed};
use super::sync::MutexGuard;
use super::waiter::{Waiter, Woken, stopped};
use super::{Broker, Shared};
use crate::error::Error;
use crate::event::Event;
use crate::position::Cursor;
use crate::store::Record;
use crate::wire::Categories;

/// The most ids of one record: golongpoll stops at a line of more than 64 KiB.
const MAX_TAKEN: usize = 1000;

/// How far `since_time` may be ahead of the broker's time, in milliseconds: the clock of a client that stamps its own
/// polls.
const MAX_AHEAD: u64 = 60_000;

/// Where a poll starts.
struct Start {
    place: Place,
    /// The cursor could not be placed, so that something may be missing.
    unplaced: bool,
    /// The follower may go on from the answer by time alone.
    by_time: bool,
}

/// What a poll does where there is nothing yet, and whether it counts as a retrieval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollMode {
    /// Park.
    Park,
    /// Say so.
    NoWait,
    /// Say so; and where there is something, leave it there, even with deletion after retrieval.
    Peek,
}

/// What a poll comes to before it waits.
pub(crate) enum Polled {
    Ready(Arc<Batch>),
    Parked(Parked),
}

impl Broker {
    /// Looks for events, at most `limit` of them, and parks where there are none: the caller then has to
    /// [`wait`](Parked::wait).
    ///
    /// # Errors
    ///
    /// Those of [`Broker::subscribe_up_to`].
    pub(crate) fn poll(
        &self,
        names: &Categories,
        cursor: Cursor,
        limit: Option<usize>,
        look: PollMode,
    ) -> Result<Polled, Error> {
        if limit == Some(0) {
            return Err(Error::request("a limit of 0 events: give 1 or more"));
        }
        let polled = names
            .check()
            .and_then(|()| self.0.poll(&self.0, names, cursor, limit, look));
        if let Ok(Polled::Ready(batch)) = &polled {
            self.0.count_answered(batch);
        }
        polled
    }

    /// What a poll would find, after the stop: events that are held are as good as ever, and the position reached is one
    /// that the next run places where it has the file. `None` where a retrieval would have to delete them: that can't be
    /// told to the file any more.
    pub(crate) fn look_after_stop(
        &self,
        names: &Categories,
        cursor: Cursor,
        limit: Option<usize>,
    ) -> Option<Arc<Batch>> {
        let polled = self.poll(names, cursor, limit, PollMode::Peek).ok()?;
        match polled {
            Polled::Ready(batch) if batch.events().is_empty() => Some(batch),
            Polled::Ready(batch) if !self.0.options.delete_after_first_retrieval => Some(batch),
            _ => None,
        }
    }
}

type Guards<'a> = Vec<MutexGuard<'a, State>>;

/// The categories of a poll, in the order of their names and locked.
struct Locked<'a> {
    categories: &'a [Arc<Category>],
    states: Guards<'a>,
}

impl Locked<'_> {
    /// True where a follower that stands at these places, category by category, misses an event.
    fn lost_after(&self, place: impl Fn(usize) -> Place) -> bool {
        self.states
            .iter()
            .enumerate()
            .any(|(at, state)| place(at).misses(state.ring.lost))
    }
}

impl Shared {
    fn poll(
        &self,
        shared: &Arc<Shared>,
        names: &Categories,
        cursor: Cursor,
        limit: Option<usize>,
        look: PollMode,
    ) -> Result<Polled, Error> {
        if self.parking.is_closed() && look != PollMode::Peek {
            return Err(stopped());
        }
        let mut names: Vec<&str> = names.iter().collect();
        names.sort_unstable();
        self.with_all(&names, |locked| {
            self.look_or_park(shared, locked, cursor, limit, look)
        })
    }

    /// Does `work` under the locks of all these categories, given in order. Those not in the catalog are made: while one
    /// is not there to be locked, an event may be published to it, and what is reached would pass it over. Categories
    /// found or left unused leave the catalog.
    fn with_all<T>(&self, names: &[&str], work: impl FnOnce(&mut Locked<'_>) -> T) -> T {
        loop {
            let categories: Vec<Arc<Category>> = names
                .iter()
                .map(|name| self.catalog.get_or_create(name))
                .collect();
            // One may have left the catalog in the meantime.
            let states: Option<Guards<'_>> =
                categories.iter().map(|category| category.lock()).collect();
            let Some(states) = states else { continue };
            let mut locked = Locked {
                categories: &categories,
                states,
            };
            if self.options.event_ttl.is_some() {
                let now = self.age.now();
                let states = locked.states.iter_mut();
                states.for_each(|state| self.expire(&mut state.ring, now));
            }
            let done = work(&mut locked);
            let unused = locked
                .states
                .iter()
                .map(|state| state.is_unused())
                .collect::<Vec<_>>();
            drop(locked);
            for (category, _) in std::iter::zip(&categories, unused).filter(|(_, unused)| *unused) {
                self.catalog.remove_unused(category);
            }
            return done;
        }
    }

    fn look_or_park(
        &self,
        shared: &Arc<Shared>,
        locked: &mut Locked<'_>,
        cursor: Cursor,
        limit: Option<usize>,
        look: PollMode,
    ) -> Result<Polled, Error> {
        let newest = self.newest();
        let Start {
            place,
            unplaced,
            by_time,
        } = self.resolve(cursor, &locked.states, &newest);
        if let Place::Time(time) = place {
            self.sequencer.reached(time.min(newest.time));
        }
        let gap = unplaced
            || locked.lost_after(|_| place)
            || place.misses(self.sequencer.lost())
            || self.cut_within(place, &locked.states);
        let limit = BatchLimit {
            events: limit.unwrap_or(usize::MAX),
            bytes: self.options.max_batch_size,
            // A follower that gives a limit goes on by the last id.
            whole_milliseconds: limit.is_none() && by_time,
        };
        let states = &mut locked.states;
        let retrieval = look != PollMode::Peek;
        let taken = self.take(states, |_| place, Vec::new(), limit, retrieval);
        if by_time {
            self.note_reached(&taken);
        }
        if !taken.entries.is_empty() || look != PollMode::Park {
            return Ok(Polled::Ready(Arc::new(taken.batch(gap, newest))));
        }
        let (ticket, waiter) = self.parking.enter(by_time)?;
        for state in &mut locked.states {
            state.waiters.insert(ticket, waiter.clone());
        }
        let names = locked
            .categories
            .iter()
            .map(|category| category.name().clone())
            .collect();
        let shared = shared.clone();
        Ok(Polled::Parked(Parked {
            shared,
            names,
            ticket,
            waiter,
            parked_at: newest.sequence,
            limit,
            gap,
            listed: true,
        }))
    }

    /// Has the next event stamped later than the events that a follower by time receives.
    fn note_reached(&self, taken: &Taken) {
        if let Some(latest) = taken.entries.iter().map(Entry::time).max() {
            self.sequencer.reached(latest);
        }
    }

    /// True where the events of this millisecond do not fit into one batch, so that a follower that stands there by time
    /// did not receive all of them. Only a log can bring that much, or a batch size that was reduced.
    fn cut_within(&self, place: Place, states: &Guards<'_>) -> bool {
        let Place::Time(time) = place else {
            return false;
        };
        let max = self.options.max_batch_size;
        let (mut events, mut bytes) = (0usize, 0usize);
        for entry in states.iter().flat_map(|state| state.ring.at(time)) {
            events += 1;
            bytes = bytes.saturating_add(entry.event.as_json().len() + 1);
            if events > 1 && bytes > max {
                return true;
            }
        }
        false
    }

    /// How far everything can be seen, with the locks of the categories held in which one looks.
    fn newest(&self) -> HighWaterMark {
        let mut newest = self.sequencer.newest();
        if let Some(hidden) = self.commits.oldest_timestamp() {
            newest.before = newest.before.min(hidden.saturating_sub(1));
        }
        newest
    }

    /// Where the cursor stands.
    fn resolve(&self, cursor: Cursor, states: &Guards<'_>, newest: &HighWaterMark) -> Start {
        let by_time = |place, unplaced| Start {
            place,
            unplaced,
            by_time: true,
        };
        let by_id = |place, unplaced| Start {
            place,
            unplaced,
            by_time: false,
        };
        let since = |time: u64, unplaced: bool| {
            // No event can have had this timestamp: the clock was ahead when it was given, or the client's clock is.
            if time > newest.time.saturating_add(MAX_AHEAD) {
                by_time(Place::Oldest, true)
            } else {
                by_time(Place::Time(time), unplaced)
            }
        };
        let (id, since_time) = match cursor {
            // The first answer tells a time as well as an id.
            Cursor::Now => return by_time(Place::Sequence(newest.sequence), false),
            Cursor::Oldest => return by_time(Place::Oldest, false),
            Cursor::SinceTime(time) => return since(time, false),
            Cursor::LastId(id) => (id, None),
            Cursor::LastIdOrSinceTime(id, time) => (id, Some(time)),
        };
        let placed = self.sequencer.locate(id);
        match placed {
            Placed::At(place) => by_id(place, false),
            Placed::PastEnd(place) => by_id(place, true),
            Placed::UnknownRun | Placed::Foreign => {
                match states.iter().find_map(|state| state.ring.find(id)) {
                    Some(sequence) => by_id(Place::Sequence(sequence), false),
                    // A foreign id may simply have been pushed out: with a time, that tells whether anything is missing.
                    None => match since_time {
                        Some(time) => since(time, placed == Placed::UnknownRun),
                        None => by_time(Place::Oldest, true),
                    },
                }
            }
        }
    }

    /// A limit of what was `offered` and of the events after each category's place, in publish order; a retrieval
    /// removes it from the rings where it is to be deleted.
    fn take(
        &self,
        states: &mut Guards<'_>,
        place: impl Fn(usize) -> Place,
        offered: Vec<Entry>,
        limit: BatchLimit,
        retrieval: bool,
    ) -> Taken {
        let deletes = self.options.delete_after_first_retrieval;
        // What was offered has been deleted by that, and is nowhere else.
        let sequences = offered.iter().map(|entry| entry.sequence);
        let not_before = sequences.max().filter(|_| deletes);
        let mut entries = offered;
        for (at, state) in states.iter().enumerate() {
            let ring = state.ring.after(place(at));
            entries.extend(limit.needed(ring).cloned());
        }
        if states.len() > 1 {
            entries.sort_unstable_by_key(|entry| entry.sequence);
        }
        let least = entries.partition_point(|entry| Some(entry.sequence) <= not_before);
        let count = limit.of(&entries).max(least);
        let cut_off = count < entries.len();
        let (given, rest) = entries.split_at(count);
        let latest = given.iter().map(Entry::time).max();
        let passes_over = limit.whole_milliseconds
            && rest
                .iter()
                .map(Entry::time)
                .min()
                .is_some_and(|rest| Some(rest) < latest);
        entries.truncate(count);
        if let (true, true, Some(last)) = (deletes, retrieval, entries.last()) {
            for (at, state) in states.iter_mut().enumerate() {
                self.delete(&mut state.ring, place(at), last.sequence);
            }
        }
        Taken {
            entries,
            cut_off,
            passes_over,
        }
    }

    /// Deletes the events of a ring after `place`, up to this sequence number: they are being handed out.
    fn delete(&self, ring: &mut Ring, place: Place, last: u64) {
        let handed_out = ring
            .after(place)
            .take_while(|entry| entry.sequence <= last)
            .map(|entry| entry.event.clone());
        let handed_out: Vec<Event> = handed_out.collect();
        let Some(first) = handed_out.first() else {
            return;
        };
        let removed = self.remove(ring, |ring| ring.take(place, last));
        self.counters.removed(removed);
        let category = first.shared_category();
        let seen = self.sequencer.newest().id;
        for events in handed_out.chunks(MAX_TAKEN) {
            self.record(Record::Taken {
                category: category.clone(),
                seen,
                ids: events.iter().map(Event::id).collect(),
            });
        }
    }

    fn count_answered(&self, batch: &Batch) {
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

/// What a poll gets, in publish order.
struct Taken {
    entries: Vec<Entry>,
    /// There is more after it.
    cut_off: bool,
    /// And a follower by time passes over some of that, since its timestamps are not in order: a log's.
    passes_over: bool,
}

impl Taken {
    /// `newest` is how far was looked.
    fn batch(self, gap: bool, newest: HighWaterMark) -> Batch {
        let gap = gap || self.passes_over;
        let events: Vec<Event> = self.entries.into_iter().map(|entry| entry.event).collect();
        let last_id = match events.last() {
            // What was lost may be newer than the last event: whoever was told of it stands behind it.
            Some(last) if self.cut_off || !gap => last.id(),
            _ => newest.id,
        };
        Batch::new(events, gap, last_id).up_to(newest.before)
    }
}

/// A subscriber that is parked. It leaves when this is dropped.
pub(crate) struct Parked {
    shared: Arc<Shared>,
    /// The categories' names, in order.
    names: Vec<Arc<str>>,
    ticket: u64,
    waiter: Arc<Waiter>,
    /// The newest sequence number when it parked: all events up to here have been looked at.
    parked_at: u64,
    limit: BatchLimit,
    /// To be told with the first events.
    gap: bool,
    /// Some category may still have the waiter in its list.
    listed: bool,
}

impl Parked {
    /// By which the wait is ended if the subscriber turns out to be gone.
    pub(crate) fn waiter(&self) -> &Arc<Waiter> {
        &self.waiter
    }

    /// Waits until an event comes or the deadline passes; `None` is no deadline.
    pub(crate) fn wait(mut self, deadline: Option<Instant>) -> Arc<Batch> {
        let woken = self.waiter.wait(deadline);
        let batch = match woken {
            Woken::Filled if self.names.len() == 1 && !self.gap => self.take_shared(),
            Woken::Filled | Woken::Empty => None,
        };
        let batch = batch.unwrap_or_else(|| self.look_again());
        self.shared.count_answered(&batch);
        batch
    }

    /// The usual case: one category, and the batch is shared with all who were parked there. The publisher has taken
    /// the waiter off the list, so no lock but the slot's is needed.
    fn take_shared(&mut self) -> Option<Arc<Batch>> {
        let batch = self.waiter.close().into_iter().next();
        self.listed = batch.is_none();
        batch
    }

    /// All else: several categories, where a publisher of one may come before another's slightly older event; and after
    /// timing out, since an event may have been published in that instant. Under the locks of all the categories, what
    /// was put into the slot and what is in the rings is everything.
    fn look_again(&mut self) -> Arc<Batch> {
        let (shared, ticket, parked_at) = (&self.shared, self.ticket, self.parked_at);
        let names: Vec<&str> = self.names.iter().map(|name| &**name).collect();
        self.listed = false;
        shared.with_all(&names, |locked| {
            locked
                .states
                .iter_mut()
                .for_each(|state| drop(state.waiters.remove(&ticket)));
            let offered: Vec<Entry> = self
                .waiter
                .close()
                .iter()
                .flat_map(|batch| batch.events())
                .map(entry)
                .collect();
            // Of each category, the slot holds the first event after parking; the ring is asked for those after it.
            let place = |category: &Category| {
                let of_this = offered
                    .iter()
                    .filter(|entry| entry.event.category() == &**category.name());
                Place::Sequence(
                    of_this
                        .map(|entry| entry.sequence)
                        .max()
                        .unwrap_or(parked_at),
                )
            };
            let places: Vec<Place> = locked
                .categories
                .iter()
                .map(|category| place(category))
                .collect();
            let lost = locked.lost_after(|at| places[at]);
            let newest = shared.newest();
            let there = !self.waiter.has_hung_up();
            let states = &mut locked.states;
            let taken = shared.take(states, |at| places[at], offered, self.limit, there);
            if self.waiter.goes_by_time() {
                shared.note_reached(&taken);
            }
            Arc::new(taken.batch(self.gap || lost, newest))
        })
    }
}

/// An event published in this run, whose id tells its sequence number.
fn entry(event: &Event) -> Entry {
    let sequence = event.id().parts().map_or(0, |(_, sequence)| sequence);
    Entry {
        sequence,
        published: 0,
        event: event.clone(),
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.shared.parking.leave(self.ticket);
        if !self.listed {
            return;
        }
        let catalog = &self.shared.catalog;
        for category in self.names.iter().filter_map(|name| catalog.get(name)) {
            let unused = category.lock().is_some_and(|mut state| {
                state.waiters.remove(&self.ticket);
                state.is_unused()
            });
            if unused {
                catalog.remove_unused(&category);
            }
        }
    }
}
