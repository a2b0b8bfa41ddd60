//! [`Model`]: a broker in its simplest form: a list of all events ever published, and the fate of each.

use std::collections::HashMap;
use std::ops::RangeInclusive;

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
    /// Its own time to live, in milliseconds.
    own_ttl: Option<u64>,
    /// It is the purge of its category, and was lost from the beginning.
    is_purge: bool,
    /// The number of the last event of the same publish.
    together: usize,
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
    /// An event can expire, so that the time of publishing counts.
    can_expire: bool,
    /// All events ever published, and all purges, in publish order.
    pub(crate) events: Vec<Published>,
    /// Those before are of runs that left no file: nothing is known of them any more.
    known_from: usize,
    /// The positions of runs before their first event, each with the number of events before it.
    positions: HashMap<EventId, usize>,
}

impl Model {
    pub(crate) fn new(options: Limits, clock: u64) -> Self {
        Model {
            can_expire: options.can_expire(),
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

    fn next_timestamp(&self) -> u64 {
        self.newest().max(self.clock).max(self.reached + 1)
    }

    /// A follower by time got no event, and goes on from the greatest time before all events to come.
    pub(crate) fn pass_time(&mut self) {
        self.reached = self.next_timestamp() - 1;
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
        own_ttl: Option<u64>,
        someone_is_parked: bool,
        by_time: bool,
    ) {
        let deleted = someone_is_parked && self.options.delete_after_first_retrieval;
        let number = self.stamp(category, id, own_ttl, false);
        if by_time {
            self.reached = self.reached.max(self.events[number].timestamp);
        }
        self.events[number].retrieved_after = deleted.then_some(number);
        self.expire();
        if !deleted {
            self.hold(number..=number);
        }
    }

    /// Publishes several events at once, while nobody is parked.
    pub(crate) fn publish_all(&mut self, events: Vec<(usize, EventId)>, own_ttl: Option<u64>) {
        let (first, last) = (self.events.len(), self.events.len() + events.len() - 1);
        for (category, id) in events {
            let number = self.stamp(category, id, own_ttl, false);
            self.events[number].together = last;
        }
        self.expire();
        self.hold(first..=last);
    }

    /// Returns `false` if there was nothing to purge.
    pub(crate) fn purge(&mut self, category: usize, id: EventId) -> bool {
        self.expire();
        let held = |event: &Published| event.fate == Fate::Held && event.category == category;
        if !self.events.iter().any(held) {
            return false;
        }
        let number = self.stamp(category, id, None, true);
        self.reached = self.reached.max(self.events[number].timestamp);
        self.lose_all(category);
        true
    }

    fn lose_all(&mut self, category: usize) {
        let of_category = |event: &&mut Published| event.category == category;
        for event in self.events.iter_mut().filter(of_category) {
            if event.fate == Fate::Held {
                event.fate = Fate::Lost;
            }
        }
    }

    /// Adds an event or a purge, and returns its number.
    fn stamp(
        &mut self,
        category: usize,
        id: EventId,
        own_ttl: Option<u64>,
        is_purge: bool,
    ) -> usize {
        let mut timestamp = self.next_timestamp();
        let number = self.events.len();
        let data = match is_purge {
            true => "null".into(),
            false => format!("\"{}\"", super::data(number)),
        };
        let name = super::NAMES[category];
        let json =
            format!(r#"{{"timestamp":{timestamp},"category":"{name}","data":{data},"id":"{id}"}}"#);
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
        self.can_expire |= own_ttl.is_some();
        if self.can_expire {
            self.published = self.published.max(self.age + steps);
        }
        self.events.push(Published {
            id,
            category,
            timestamp,
            published: if self.can_expire { self.published } else { 0 },
            own_ttl,
            is_purge,
            together: number,
            size: json.len(),
            fate: if is_purge {
                Fate::Lost
            } else {
                Fate::Retrieved
            },
            retrieved_after: None,
        });
        number
    }

    fn held_of(&self, category: usize) -> Vec<usize> {
        let held = |number: &usize| {
            self.events[*number].fate == Fate::Held && self.events[*number].category == category
        };
        (0..self.events.len()).filter(held).collect()
    }

    /// The categories with events, the one that was published to least recently first.
    fn rings(&self) -> Vec<Vec<usize>> {
        let rings = (0..super::NAMES.len()).map(|category| self.held_of(category));
        let mut rings: Vec<_> = rings.filter(|ring| !ring.is_empty()).collect();
        rings.sort_by_key(|ring| ring.last().copied());
        rings
    }

    /// Returns the events of these that have expired by then, in the order in which they did.
    fn expired_by(&self, numbers: Vec<usize>, then: u64) -> Vec<usize> {
        let expired = |number: &usize| self.has_expired(&self.events[*number], then);
        let mut numbers: Vec<usize> = numbers.into_iter().filter(expired).collect();
        numbers.sort_by_key(|number| (self.expiry(&self.events[*number]), *number));
        numbers
    }

    fn capacity(&self, category: usize) -> usize {
        match self.options.special {
            Some((prefix, events, _)) if super::NAMES[category].starts_with(prefix) => events,
            _ => self.options.events_per_category,
        }
    }

    /// Holds the events of one publish, and evicts others for each.
    fn hold(&mut self, numbers: RangeInclusive<usize>) {
        let held: Vec<usize> = numbers.collect();
        for number in held.iter().copied() {
            let Published {
                category,
                published,
                ..
            } = self.events[number];
            self.events[number].fate = Fate::Held;
            let ring = self.held_of(category);
            if ring.len() > self.capacity(category) {
                let expired = self.expired_by(ring.clone(), published);
                let lost = expired.first().unwrap_or(&ring[0]);
                self.events[*lost].fate = Fate::Lost;
            }
        }
        for number in held {
            self.evict(self.events[number].published);
        }
    }

    /// Evicts events after one was published. As far as needed, what has expired by then goes first.
    fn evict(&mut self, published: u64) {
        let max = self.options.max_event_bytes;
        let max_categories = self.options.max_categories;
        let is_too_much =
            |model: &Self| model.held_bytes() > max || model.rings().len() > max_categories;
        if !is_too_much(self) {
            return;
        }
        for expired in self.expired_by(self.rings().concat(), published) {
            if is_too_much(self) {
                self.events[expired].fate = Fate::Lost;
            }
        }
        let mut rings = self.rings();
        let enough = match self.held_bytes() > max {
            true => max - max / 16,
            false => usize::MAX,
        };
        let surplus = rings.len().saturating_sub(max_categories);
        for evicted in rings.drain(..surplus).collect::<Vec<_>>().concat() {
            self.events[evicted].fate = Fate::Lost;
        }
        let mut evictable = rings.concat();
        evictable.pop();
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
        self.expiry(event) < now
    }

    /// Returns when an event expires.
    fn expiry(&self, event: &Published) -> u64 {
        let ttl = match self.options.special {
            Some((prefix, _, Some(ttl))) if super::NAMES[event.category].starts_with(prefix) => ttl,
            _ => self.options.event_ttl,
        };
        let ttl = ttl.map(|ttl| ttl.as_millis() as u64);
        let ttl = ttl.into_iter().chain(event.own_ttl).min();
        ttl.map_or(u64::MAX, |ttl| event.published + ttl)
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
        let now = self.newest().max(self.reached).max(self.clock);
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
        let mut number = self.known_from;
        while number < self.events.len() {
            let last = self.events[number].together;
            for number in number..=last {
                let published = restored(self.events[number].timestamp, self.age);
                self.events[number].published = published;
            }
            if self.events[number].is_purge {
                self.lose_all(self.events[number].category);
            } else if self.events[number].retrieved_after == Some(number) {
                self.events[number].fate = Fate::Retrieved;
            } else {
                self.hold(number..=last);
            }
            number = last + 1;
            for event in &mut self.events[self.known_from..number] {
                if event.retrieved_after == Some(number) && event.fate == Fate::Held {
                    event.fate = Fate::Retrieved;
                }
            }
        }
        self.expire();
        let can_expire = |event: &Published| event.fate == Fate::Held && event.own_ttl.is_some();
        self.can_expire = self.options.can_expire() || self.events.iter().any(can_expire);
    }
}
