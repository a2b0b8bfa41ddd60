//! [`Model`]: a broker in its simplest form: a list of all events ever published, and the fate of each.

use std::collections::HashMap;

use long_polling::{Cursor, EventId};

use crate::limits::Limits;

/// The most milliseconds that timestamps are ahead of the clock because they have to increase. They count for the time to
/// live.
const MAX_STEPS: u64 = 1000;
/// The most milliseconds that a `since_time` may be ahead of the newest timestamp.
const MAX_AHEAD: u64 = 60_000;

/// The fate of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Held,
    /// Retrieved, and deleted by that.
    Retrieved,
    Lost,
}

pub(crate) struct Published {
    pub(crate) id: EventId,
    pub(crate) category: usize,
    pub(crate) timestamp: u64,
    /// When it was published, by elapsed time: what it expires by.
    published: u64,
    /// Bytes of its JSON.
    pub(crate) size: usize,
    pub(crate) fate: Fate,
    /// The number of events published before its retrieval deleted it. An event that was delivered to parked subscribers does
    /// not count itself.
    retrieved_after: Option<usize>,
}

/// Where a poll starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Oldest,
    /// After this many of all events.
    After(usize),
    Time(u64),
}

pub(crate) struct Answer {
    /// By their numbers in the list.
    pub(crate) events: Vec<usize>,
    pub(crate) gap: bool,
    /// The follower may go on from it by time alone.
    pub(crate) by_time: bool,
    /// No limit has left anything for the next answer.
    pub(crate) whole: bool,
}

pub(crate) struct Model {
    pub(crate) options: Limits,
    pub(crate) clock: u64,
    /// The time that the clock showed at the start, and what has passed since.
    age: u64,
    /// The greatest timestamp that a follower by time may go on from.
    reached: u64,
    /// Bytes of JSON, with commas, of the newest timestamp, in this run.
    bytes: usize,
    /// When the newest event was published, in this run.
    published: u64,
    /// All events ever published, in publish order.
    pub(crate) events: Vec<Published>,
    /// Those before are of runs that left no file: nothing is known of them any more.
    known_from: usize,
    /// The positions of runs before their first event, each with the number of events before it.
    positions: HashMap<EventId, usize>,
}

impl Model {
    pub(crate) fn new(options: Limits, clock: u64) -> Self {
        Model {
            options,
            clock,
            age: clock,
            reached: 0,
            bytes: 0,
            published: 0,
            events: Vec::new(),
            known_from: 0,
            positions: HashMap::new(),
        }
    }

    pub(crate) fn known(&self) -> &[Published] {
        &self.events[self.known_from..]
    }

    /// The newest timestamp, 0 before the first.
    fn newest(&self) -> u64 {
        self.known().last().map_or(0, |last| last.timestamp)
    }

    /// Time passes.
    pub(crate) fn advance(&mut self, milliseconds: u64) {
        self.clock += milliseconds;
        self.age += milliseconds;
    }

    /// `by_time`: somebody is parked who may go on by time alone.
    pub(crate) fn publish(
        &mut self,
        category: usize,
        id: EventId,
        someone_is_parked: bool,
        by_time: bool,
    ) {
        let mut timestamp = self.newest().max(self.clock);
        if self.reached >= timestamp {
            timestamp = self.reached + 1;
        }
        let deleted = someone_is_parked && self.options.delete_after_first_retrieval;
        let (name, data) = (super::NAMES[category], super::data(self.events.len()));
        let json = format!(
            r#"{{"timestamp":{timestamp},"category":"{name}","data":"{data}","id":"{id}"}}"#
        );
        // What has one timestamp fits into one answer.
        let added = json.len() + 1;
        if timestamp > self.newest() {
            self.bytes = 0;
        } else if self.bytes > 0 && self.bytes + added > self.options.max_batch_size {
            (timestamp, self.bytes) = (timestamp + 1, 0);
        }
        self.bytes += added;
        let ahead = timestamp - self.clock;
        let steps = if ahead <= MAX_STEPS { ahead } else { 0 };
        self.published = self.published.max(self.age + steps);
        if by_time {
            self.reached = self.reached.max(timestamp);
        }
        self.events.push(Published {
            id,
            category,
            timestamp,
            published: self.published,
            size: json.len(),
            fate: Fate::Retrieved,
            retrieved_after: deleted.then_some(self.events.len()),
        });
        self.expire();
        if !deleted {
            self.hold(self.events.len() - 1);
        }
    }

    /// Holds an event, and evicts others for it. As far as needed, what has expired by the event's publish time goes first.
    fn hold(&mut self, number: usize) {
        self.events[number].fate = Fate::Held;
        let held_of = |events: &[Published], category: usize| -> Vec<usize> {
            let held = |number: &usize| {
                events[*number].fate == Fate::Held && events[*number].category == category
            };
            (0..events.len()).filter(held).collect()
        };
        let ring = held_of(&self.events, self.events[number].category);
        if ring.len() > self.options.events_per_category {
            self.events[ring[0]].fate = Fate::Lost;
        }
        let rings_of = |events: &[Published]| {
            let mut rings: Vec<_> = (0..super::NAMES.len())
                .map(|category| held_of(events, category))
                .filter(|ring| !ring.is_empty())
                .collect();
            rings.sort_by_key(|ring| ring.last().copied());
            rings
        };
        let max = self.options.max_event_bytes;
        let max_categories = self.options.max_categories;
        let is_too_much = |model: &Self| {
            model.held_bytes() > max || rings_of(&model.events).len() > max_categories
        };
        for expired in 0..number {
            let event = &self.events[expired];
            let by_then = self.events[number].published;
            if event.fate == Fate::Held && self.has_expired(event, by_then) && is_too_much(self) {
                self.events[expired].fate = Fate::Lost;
            }
        }
        let mut rings = rings_of(&self.events);
        let enough = match self.held_bytes() > max {
            true => max - max / 16,
            false => usize::MAX,
        };
        if rings.len() > max_categories {
            let evicted = rings.remove(0);
            evicted
                .iter()
                .for_each(|number| self.events[*number].fate = Fate::Lost);
        }
        let mut evictable = rings.concat();
        assert_eq!(evictable.pop(), Some(number), "the newest stays");
        for number in evictable {
            if self.held_bytes() <= enough {
                break;
            }
            self.events[number].fate = Fate::Lost;
        }
    }

    pub(crate) fn held_bytes(&self) -> usize {
        let held = |event: &&Published| event.fate == Fate::Held;
        let held = self.events.iter().filter(held);
        held.map(|event| event.size).sum()
    }

    fn expire(&mut self) {
        for number in 0..self.events.len() {
            let event = &self.events[number];
            if event.fate == Fate::Held && self.has_expired(event, self.age) {
                self.events[number].fate = Fate::Lost;
            }
        }
    }

    fn has_expired(&self, event: &Published, now: u64) -> bool {
        let ttl = self.options.event_ttl;
        ttl.is_some_and(|ttl| event.published < now - ttl.as_millis() as u64)
    }

    /// Checks the position of an answer without events: it is after all events.
    pub(crate) fn reach_end(&mut self, id: EventId) {
        let count = self.events.len();
        match self.place(id) {
            Some(place) => assert_eq!(place, Place::After(count)),
            None => assert_eq!(self.positions.insert(id, count), None),
        }
    }

    /// Returns the place of an id, if it is known.
    pub(crate) fn place(&self, id: EventId) -> Option<Place> {
        if let Some(count) = self.positions.get(&id) {
            return Some(Place::After(*count));
        }
        let at = self
            .known()
            .binary_search_by_key(&id, |event| event.id)
            .ok()?;
        Some(Place::After(self.known_from + at + 1))
    }

    /// Returns the answer to a poll of these categories, which retrieves its events.
    pub(crate) fn poll(&mut self, of: &[usize], cursor: Cursor, limit: Option<usize>) -> Answer {
        self.expire();
        let now = self.newest().max(self.clock);
        // A time that no event can have had yet has no place.
        let since = |time, unplaced| match time > now + MAX_AHEAD {
            true => (Place::Oldest, true, true),
            false => (Place::Time(time), unplaced, true),
        };
        let (place, unplaced, by_time) = match cursor {
            Cursor::Now => (Place::After(self.events.len()), false, true),
            Cursor::Oldest => (Place::Oldest, false, true),
            Cursor::SinceTime(time) => since(time, false),
            Cursor::LastId(id) => match self.place(id) {
                Some(place) => (place, false, false),
                None => (Place::Oldest, true, true),
            },
            // That an id of another program's is not known says nothing: its time decides.
            Cursor::LastIdOrSinceTime(id, time) => match self.place(id) {
                Some(place) => (place, false, false),
                None => since(time, id != super::unknown(true)),
            },
        };
        if let Place::Time(time) = place {
            self.reached = self.reached.max(time.min(now));
        }
        let asked_for = |number: &usize| {
            let event = &self.events[*number];
            of.contains(&event.category)
                && match place {
                    Place::Oldest => event.fate != Fate::Lost,
                    Place::After(count) => *number >= count,
                    Place::Time(time) => event.timestamp > time,
                }
        };
        let (lost, mut there): (Vec<usize>, Vec<usize>) = (self.known_from..self.events.len())
            .filter(asked_for)
            .filter(|number| self.events[*number].fate != Fate::Retrieved)
            .partition(|number| self.events[*number].fate == Fate::Lost);
        let count = self.batch_len(&there, place, limit);
        let whole = count == there.len();
        there.truncate(count);
        if by_time {
            let times = there.iter().map(|number| self.events[*number].timestamp);
            self.reached = self.reached.max(times.max().unwrap_or(0));
        }
        if self.options.delete_after_first_retrieval {
            let count = self.events.len();
            for number in &there {
                self.events[*number].fate = Fate::Retrieved;
                self.events[*number].retrieved_after = Some(count);
            }
        }
        Answer {
            gap: unplaced || !lost.is_empty(),
            events: there,
            by_time,
            whole,
        }
    }

    /// Counts how many of these events one answer has.
    fn batch_len(&self, there: &[usize], place: Place, limit: Option<usize>) -> usize {
        let events: Vec<&Published> = there.iter().map(|number| &self.events[*number]).collect();
        let size = |count: &usize| -> usize {
            let sizes = events[..*count].iter().map(|event| event.size + 1);
            sizes.sum()
        };
        let fits = |count: &usize| {
            *count == 1
                || size(count) <= self.options.max_batch_size
                    && limit.is_none_or(|limit| *count <= limit)
        };
        let largest = (1..=events.len()).rfind(fits).unwrap_or(0);
        if limit.is_some() || matches!(place, Place::After(_)) {
            return largest;
        }
        // A time is no place within a millisecond.
        let parts = |count: &usize| {
            let latest = events[..*count].iter().map(|event| event.timestamp).max();
            let mut rest = events[*count..].iter();
            rest.all(|event| Some(event.timestamp) > latest)
        };
        let within = (1..=largest).rfind(parts);
        within.unwrap_or(largest)
    }

    /// The file is read again, event by event; without one everything is lost.
    pub(crate) fn restart(&mut self, keeping_the_file: bool) {
        if !keeping_the_file {
            self.known_from = self.events.len();
            self.positions.clear();
        }
        for event in &mut self.events {
            event.fate = Fate::Lost;
        }
        // A follower of the last run may stand at its newest event.
        (self.age, self.reached, self.bytes) = (self.clock, self.newest(), 0);
        let restored = |timestamp: u64, start: u64| timestamp.min(start + MAX_STEPS);
        self.published = restored(self.newest(), self.age);
        // All that happened to the events happens again when it did, as far as their timestamps say.
        for number in self.known_from..self.events.len() {
            let published = restored(self.events[number].timestamp, self.age);
            self.events[number].published = published;
            if self.events[number].retrieved_after == Some(number) {
                self.events[number].fate = Fate::Retrieved;
            } else {
                self.hold(number);
            }
            for event in &mut self.events[self.known_from..=number] {
                if event.retrieved_after == Some(number + 1) && event.fate == Fate::Held {
                    event.fate = Fate::Retrieved;
                }
            }
        }
        self.expire();
    }
}
