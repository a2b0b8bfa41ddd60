//! [`PresenceTable`]: which clients are present in which categories, by a time that the caller gives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Places of clients, and what has changed since a caller took the last transition.
///
/// A place is one client in one category. Polls hold it; after the last one, it stays for a set time. A client without a name
/// has no place of its own: its next poll takes the place that was left first.
///
/// If transitions are announced, a place whose time is over stays in the table until its transition was taken. So a place has
/// at most one transition of each kind in the queue, and the number of places bounds the queue.
pub(super) struct PresenceTable {
    /// How long a place stays after its last poll, in milliseconds.
    keep: u64,
    max_places: usize,
    /// A caller takes the transitions.
    announces: bool,
    categories: BTreeMap<Arc<str>, Category>,
    places: BTreeMap<u64, Place>,
    /// Of each present place without a poll: when its time ends, and its id.
    ends: BTreeSet<(u64, u64)>,
    next_id: u64,
    /// The number of present places.
    present: usize,
    queue: VecDeque<Queued>,
}

/// The places of one category.
#[derive(Default)]
struct Category {
    named: BTreeMap<Arc<str>, u64>,
    /// Of each place without a name and without a poll: when its time ends, and its id. The first one was left first.
    free: BTreeSet<(u64, u64)>,
    /// All of its places in the table.
    places: usize,
    present: usize,
}

struct Place {
    category: Arc<str>,
    name: Option<Arc<str>>,
    /// The polls that hold it.
    polls: usize,
    /// When its time ends, or has ended, if no poll holds it.
    end: u64,
    is_present: bool,
    /// Its [`Queued::Left`] is in the queue.
    has_queued_leave: bool,
}

/// A transition in the queue, with the id of its place.
enum Queued {
    Came(u64),
    /// To be skipped if the client has come back since.
    Left(u64),
}

/// What a client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Came,
    Left,
}

/// A client that came to a category, or left it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) change: Change,
    pub(super) category: Arc<str>,
    pub(super) name: Option<Arc<str>>,
    /// The clients that are present in the category now.
    pub(super) subscribers: usize,
}

impl PresenceTable {
    pub(super) fn new(keep: u64, max_places: usize, announces: bool) -> Self {
        PresenceTable {
            keep,
            max_places,
            announces,
            categories: BTreeMap::new(),
            places: BTreeMap::new(),
            ends: BTreeSet::new(),
            next_id: 0,
            present: 0,
            queue: VecDeque::new(),
        }
    }

    /// Has a poll hold the place of its client, and returns the place's id. `None` if the table is full.
    pub(super) fn enter(&mut self, category: &str, name: Option<&str>, now: u64) -> Option<u64> {
        self.expire(now);
        let found = self.categories.get(category).and_then(|of| match name {
            Some(name) => of.named.get(name).copied(),
            None => of.free.first().map(|(_, id)| *id),
        });
        match found {
            Some(id) => {
                self.hold(id);
                Some(id)
            }
            None => self.add(category, name),
        }
    }

    /// Ends the hold of one poll.
    pub(super) fn leave(&mut self, id: u64, now: u64) {
        let Some(place) = self.places.get_mut(&id) else {
            return;
        };
        place.polls -= 1;
        if place.polls > 0 {
            return;
        }
        place.end = now.saturating_add(self.keep);
        self.ends.insert((place.end, id));
        if let (None, Some(of)) = (&place.name, self.categories.get_mut(&place.category)) {
            of.free.insert((place.end, id));
        }
    }

    /// Ends the places whose time is over.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some((end, id)) = self.ends.first().copied()
            && end <= now
        {
            self.ends.pop_first();
            let Some(place) = self.places.get_mut(&id) else {
                continue;
            };
            place.is_present = false;
            self.present -= 1;
            if let Some(of) = self.categories.get_mut(&place.category) {
                of.present -= 1;
            }
            if !self.announces {
                self.remove(id);
            } else if !std::mem::replace(&mut place.has_queued_leave, true) {
                self.queue.push_back(Queued::Left(id));
            }
        }
    }

    /// Takes the next transition.
    pub(super) fn next_transition(&mut self, now: u64) -> Option<Transition> {
        self.expire(now);
        while let Some(queued) = self.queue.pop_front() {
            match queued {
                Queued::Came(id) => return self.transition(Change::Came, id),
                Queued::Left(id) => {
                    let place = self.places.get_mut(&id)?;
                    place.has_queued_leave = false;
                    if !place.is_present {
                        let transition = self.transition(Change::Left, id);
                        self.remove(id);
                        return transition;
                    }
                }
            }
        }
        None
    }

    pub(super) fn has_transitions(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Returns when the time of a place ends next.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Returns the number of present places in all categories.
    pub(super) fn present(&self) -> usize {
        self.present
    }

    /// Returns the number of clients that are present in a category.
    pub(super) fn subscribers(&self, category: &str) -> usize {
        self.categories.get(category).map_or(0, |of| of.present)
    }

    /// Returns the names of the clients that are present in a category, in their order.
    pub(super) fn names(&self, category: &str) -> Vec<String> {
        let named = self.categories.get(category).map(|of| &of.named);
        let named = named.into_iter().flatten();
        let is_present = |id: &u64| self.places.get(id).is_some_and(|place| place.is_present);
        let present = named.filter(|(_, id)| is_present(id));
        present.map(|(name, _)| (**name).to_owned()).collect()
    }

    /// Has another poll hold a place of the table.
    fn hold(&mut self, id: u64) {
        let Some(place) = self.places.get_mut(&id) else {
            return;
        };
        place.polls += 1;
        if place.polls > 1 {
            return;
        }
        self.ends.remove(&(place.end, id));
        let of = self.categories.get_mut(&place.category);
        let came_back = !std::mem::replace(&mut place.is_present, true);
        self.present += usize::from(came_back);
        if let Some(of) = of {
            of.free.remove(&(place.end, id));
            of.present += usize::from(came_back);
        }
    }

    fn add(&mut self, category: &str, name: Option<&str>) -> Option<u64> {
        if self.places.len() >= self.max_places {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        let known = self.categories.get_key_value(category);
        let category = known.map_or_else(|| category.into(), |(known, _)| known.clone());
        let name: Option<Arc<str>> = name.map(Into::into);
        let of = self.categories.entry(category.clone()).or_default();
        of.places += 1;
        of.present += 1;
        if let Some(name) = &name {
            of.named.insert(name.clone(), id);
        }
        self.present += 1;
        let place = Place {
            category,
            name,
            polls: 1,
            end: 0,
            is_present: true,
            has_queued_leave: false,
        };
        self.places.insert(id, place);
        if self.announces {
            self.queue.push_back(Queued::Came(id));
        }
        Some(id)
    }

    /// Removes a place that is not present.
    fn remove(&mut self, id: u64) {
        let Some(place) = self.places.remove(&id) else {
            return;
        };
        let Some(of) = self.categories.get_mut(&place.category) else {
            return;
        };
        match &place.name {
            Some(name) => {
                of.named.remove(name);
            }
            None => {
                of.free.remove(&(place.end, id));
            }
        }
        of.places -= 1;
        if of.places == 0 {
            self.categories.remove(&place.category);
        }
        if self.queue.capacity() > 64 && self.queue.len() < self.queue.capacity() / 8 {
            self.queue.shrink_to_fit();
        }
    }

    fn transition(&self, change: Change, id: u64) -> Option<Transition> {
        let place = self.places.get(&id)?;
        Some(Transition {
            change,
            category: place.category.clone(),
            name: place.name.clone(),
            subscribers: self.subscribers(&place.category),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: u64 = 10;

    fn table(announces: bool) -> PresenceTable {
        PresenceTable::new(KEEP, 100, announces)
    }

    /// The transitions that are due: what the client did, its name, and the number of subscribers.
    fn transitions(table: &mut PresenceTable, now: u64) -> Vec<(Change, String, usize)> {
        let next = std::iter::from_fn(|| table.next_transition(now));
        let brief = next.map(|it| {
            let name = it.name.as_deref().unwrap_or("-");
            (it.change, name.to_owned(), it.subscribers)
        });
        brief.collect()
    }

    fn is_empty(table: &PresenceTable) -> bool {
        table.categories.is_empty()
            && table.places.is_empty()
            && table.ends.is_empty()
            && table.queue.is_empty()
            && table.present == 0
    }

    #[test]
    fn a_place_stays_for_its_time_after_the_last_of_its_polls() {
        let mut table = table(false);
        let first = table.enter("c", Some("a"), 0).unwrap();
        let second = table.enter("c", Some("a"), 0).unwrap();
        assert_eq!(first, second);
        assert_eq!((table.subscribers("c"), table.present()), (1, 1));
        table.leave(first, 100);
        table.expire(1000);
        assert_eq!(table.names("c"), ["a"]);
        table.leave(second, 1000);
        table.expire(1009);
        assert_eq!(table.subscribers("c"), 1);
        table.expire(1010);
        assert_eq!(table.subscribers("c"), 0);
        assert!(is_empty(&table));
    }

    #[test]
    fn a_client_that_comes_back_in_time_keeps_its_place() {
        let mut table = table(true);
        let id = table.enter("c", Some("a"), 0).unwrap();
        for round in 1..50 {
            table.leave(id, round * 9);
            assert_eq!(table.enter("c", Some("a"), round * 9 + 9), Some(id));
        }
        assert_eq!(
            transitions(&mut table, 1000),
            [(Change::Came, "a".into(), 1)]
        );
    }

    #[test]
    fn polls_without_a_name_take_the_place_that_was_left_first() {
        let mut table = table(false);
        let [one, two] = [0, 1].map(|_| table.enter("c", None, 0).unwrap());
        assert_ne!(one, two);
        table.leave(two, 1);
        table.leave(one, 2);
        assert_eq!(table.enter("c", None, 3), Some(two));
        assert_eq!(table.enter("c", None, 3), Some(one));
        let third = table.enter("c", None, 3).unwrap();
        assert_eq!(table.subscribers("c"), 3);
        assert_eq!(table.names("c"), Vec::<String>::new());
        for id in [one, two, third] {
            table.leave(id, 3);
        }
        table.expire(13);
        assert!(is_empty(&table));
    }

    #[test]
    fn transitions_come_in_order_and_a_return_before_the_leave_was_taken_cancels_it() {
        let mut table = table(true);
        let a = table.enter("c", Some("a"), 0).unwrap();
        let none = table.enter("c", None, 0).unwrap();
        table.leave(a, 0);
        table.leave(none, 0);
        // Nobody has taken a transition yet, however often they come and go.
        for round in 1..1000 {
            let now = round * 100;
            assert_eq!(table.enter("c", Some("a"), now), Some(a));
            assert_eq!(table.enter("c", None, now), Some(none));
            table.leave(a, now);
            table.leave(none, now);
            table.expire(now + 50);
            assert_eq!(table.present(), 0);
            assert!(table.queue.len() <= 4);
        }
        let taken = transitions(&mut table, 1_000_000);
        let names: Vec<_> = taken
            .iter()
            .map(|(change, name, _)| (*change, &**name))
            .collect();
        assert_eq!(names[..2], [(Change::Came, "a"), (Change::Came, "-")]);
        assert_eq!(names[2..], [(Change::Left, "a"), (Change::Left, "-")]);
        assert!(is_empty(&table));

        let a = table.enter("c", Some("a"), 2_000_000).unwrap();
        table.leave(a, 2_000_000);
        assert_eq!(
            table.next_transition(2_000_009).unwrap().change,
            Change::Came
        );
        table.expire(2_000_010);
        assert!(table.has_transitions());
        assert_eq!(table.enter("c", Some("a"), 2_000_011), Some(a));
        assert_eq!(table.next_transition(2_000_011), None);
    }

    #[test]
    fn a_full_table_takes_nobody_until_a_place_is_free() {
        let mut table = PresenceTable::new(KEEP, 2, false);
        let first = table.enter("a", None, 0).unwrap();
        table.enter("b", Some("x"), 0).unwrap();
        assert_eq!(table.enter("b", Some("y"), 0), None);
        assert_eq!(table.enter("c", None, 0), None);
        assert_eq!(table.present(), 2);
        table.leave(first, 0);
        assert!(table.enter("c", None, KEEP).is_some());
    }
}
