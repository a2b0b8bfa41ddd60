//! [`Model`]: what a broker promises, in the fewest words: a list of all events ever published and what became of each.

use std::collections::HashMap;

use long_polling::{BrokerOptions, Cursor, EventId};

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Held,
    /// Handed out, and deleted by that.
    Consumed,
    Lost,
}

pub(crate) struct Published {
    pub(crate) id: EventId,
    pub(crate) category: usize,
    pub(crate) timestamp: u64,
    /// Bytes of its JSON.
    pub(crate) size: usize,
    pub(crate) fate: Fate,
    /// How many events had been published when it was handed out and deleted by that: one handed to whoever was parked
    /// does not count itself.
    consumed_after: Option<usize>,
}

/// Where a poll starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Oldest,
    /// After so many of all events.
    After(usize),
    Time(u64),
}

pub(crate) struct Answer {
    /// By their numbers in the list.
    pub(crate) events: Vec<usize>,
    pub(crate) gap: bool,
    /// No limit has left anything for the next answer.
    pub(crate) whole: bool,
}

pub(crate) struct Model {
    pub(crate) options: BrokerOptions,
    pub(crate) clock: u64,
    /// All events ever published, in publish order.
    pub(crate) events: Vec<Published>,
    /// Those before are of runs that left no file: nothing is known of them any more.
    known_from: usize,
    /// The positions that runs told before their first event, and how many events were before each.
    positions: HashMap<EventId, usize>,
}

impl Model {
    pub(crate) fn new(options: BrokerOptions, clock: u64) -> Self {
        Model {
            options,
            clock,
            events: Vec::new(),
            known_from: 0,
            positions: HashMap::new(),
        }
    }

    pub(crate) fn known(&self) -> &[Published] {
        &self.events[self.known_from..]
    }

    /// The time, which never decreases.
    fn now(&self) -> u64 {
        let last = self.known().last();
        last.map_or(self.clock, |last| last.timestamp.max(self.clock))
    }

    pub(crate) fn publish(&mut self, category: usize, id: EventId, someone_is_parked: bool) {
        let timestamp = self.now();
        let deleted = someone_is_parked && self.options.delete_after_first_retrieval;
        let (name, data) = (super::NAMES[category], super::data(self.events.len()));
        let json = format!(
            r#"{{"timestamp":{timestamp},"category":"{name}","data":"{data}","id":"{id}"}}"#
        );
        self.events.push(Published {
            id,
            category,
            timestamp,
            size: json.len(),
            fate: Fate::Consumed,
            consumed_after: deleted.then_some(self.events.len()),
        });
        self.expire();
        if !deleted {
            self.hold(self.events.len() - 1);
        }
    }

    /// Keeps an event, at the price of others.
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
        let mut rings: Vec<_> = (0..super::NAMES.len())
            .map(|category| held_of(&self.events, category))
            .filter(|ring| !ring.is_empty())
            .collect();
        rings.sort_by_key(|ring| ring.last().copied());
        let max = self.options.max_event_bytes;
        let enough = match self.held_bytes() > max {
            true => max - max / 16,
            false => usize::MAX,
        };
        if rings.len() > self.options.max_categories {
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
        self.expire_by(self.now());
    }

    fn expire_by(&mut self, now: u64) {
        let Some(ttl) = self.options.event_ttl else {
            return;
        };
        let before = now - ttl.as_millis() as u64;
        for event in &mut self.events {
            if event.fate == Fate::Held && event.timestamp < before {
                event.fate = Fate::Lost;
            }
        }
    }

    /// Where a poll that found nothing says that it stands: after all events.
    pub(crate) fn is_told(&mut self, id: EventId) {
        let count = self.events.len();
        match self.place(id) {
            Some(place) => assert_eq!(place, Place::After(count)),
            None => assert_eq!(self.positions.insert(id, count), None),
        }
    }

    /// Where an id stands, if it is known.
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

    /// What a poll of these categories finds, which it then has retrieved.
    pub(crate) fn poll(&mut self, of: &[usize], cursor: Cursor, limit: Option<usize>) -> Answer {
        self.expire();
        let (place, unplaced) = match cursor {
            Cursor::Now => (Place::After(self.events.len()), false),
            Cursor::Oldest => (Place::Oldest, false),
            Cursor::SinceTime(time) => (Place::Time(time), false),
            Cursor::LastId(id) => match self.place(id) {
                Some(place) => (place, false),
                None => (Place::Oldest, true),
            },
            // That an id of another program's is not known says nothing: its time decides.
            Cursor::LastIdOrSinceTime(id, time) => match self.place(id) {
                Some(place) => (place, false),
                None => (Place::Time(time), id != super::unknown(true)),
            },
        };
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
            .filter(|number| self.events[*number].fate != Fate::Consumed)
            .partition(|number| self.events[*number].fate == Fate::Lost);
        let count = self.portion(&there, place, limit);
        let whole = count == there.len();
        there.truncate(count);
        if self.options.delete_after_first_retrieval {
            let count = self.events.len();
            for number in &there {
                self.events[*number].fate = Fate::Consumed;
                self.events[*number].consumed_after = Some(count);
            }
        }
        Answer {
            gap: unplaced || !lost.is_empty(),
            events: there,
            whole,
        }
    }

    /// How many of these events one answer has.
    fn portion(&self, there: &[usize], place: Place, limit: Option<usize>) -> usize {
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
        // Time alone does not place anybody within a millisecond.
        let parts = |count: &usize| {
            let latest = events[..*count].iter().map(|event| event.timestamp).max();
            let mut rest = events[*count..].iter();
            rest.all(|event| Some(event.timestamp) > latest)
        };
        let within = (1..=largest).rfind(parts);
        within.or((largest..=events.len()).find(parts)).unwrap_or(0)
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
        // All that happened to the events happens again when it did, but for what expired by a clock that was set back
        // afterwards.
        for number in self.known_from..self.events.len() {
            self.expire_by(self.events[number].timestamp);
            if self.events[number].consumed_after == Some(number) {
                self.events[number].fate = Fate::Consumed;
            } else {
                self.hold(number);
            }
            for event in &mut self.events[self.known_from..=number] {
                if event.consumed_after == Some(number + 1) && event.fate == Fate::Held {
                    event.fate = Fate::Consumed;
                }
            }
        }
        self.expire();
    }
}
