//! [`Catalog`]: the categories in use, found by name, and what is left of those that are not.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::ring::Ring;
use super::sync::{Mutex, MutexGuard, RwLock};
use super::waiter::Waiter;
use crate::store::{Loss, LossTable};

/// A category: its ring buffer and its parked subscribers, behind one lock.
pub(crate) struct Category {
    name: Arc<str>,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) ring: Ring,
    /// Parked subscribers by ticket, so the longest parked is woken first.
    pub(crate) waiters: BTreeMap<u64, Arc<Waiter>>,
    /// No longer in the catalog: whoever still holds this looks the name up again.
    gone: bool,
}

impl State {
    pub(crate) fn is_unused(&self) -> bool {
        self.ring.is_empty() && self.waiters.is_empty()
    }
}

impl Category {
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The lock of the category, for as long as it is in the catalog.
    pub(crate) fn lock(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.state.lock();
        (!state.gone).then_some(state)
    }
}

/// The map of categories. One that has neither events nor subscribers is not in it and takes no memory, but for the
/// shared table of what was lost.
///
/// Lock order: the map, then categories (several by name), then [`Parking`](super::waiter::Parking), then slots. The
/// [`Sequencer`](super::sequencer::Sequencer)'s comes after categories and holds no other.
pub(crate) struct Catalog {
    categories: RwLock<HashMap<Arc<str>, Arc<Category>>>,
    epitaphs: Mutex<Epitaphs>,
}

impl Catalog {
    pub(crate) fn new() -> Self {
        Catalog {
            categories: RwLock::default(),
            epitaphs: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Category>> {
        self.categories.read().get(name).cloned()
    }

    /// Does `work` with the category of this name, locked, made where there is none.
    pub(crate) fn with<T>(
        &self,
        name: &str,
        work: impl FnOnce(&Arc<Category>, &mut State) -> T,
    ) -> T {
        loop {
            let category = self.get_or_create(name);
            if let Some(mut state) = category.lock() {
                return work(&category, &mut state);
            }
        }
    }

    pub(crate) fn get_or_create(&self, name: &str) -> Arc<Category> {
        if let Some(category) = self.get(name) {
            return category;
        }
        let mut categories = self.categories.write();
        if let Some(category) = categories.get(name) {
            return category.clone();
        }
        let name: Arc<str> = name.into();
        let lost = self.epitaphs.lock().of(&name);
        let state = State {
            ring: Ring::new(lost),
            waiters: BTreeMap::new(),
            gone: false,
        };
        let category = Arc::new(Category {
            name: name.clone(),
            state: Mutex::new(state),
        });
        categories.insert(name, category.clone());
        category
    }

    /// Takes the category out, if it is still unused.
    pub(crate) fn remove_unused(&self, category: &Category) {
        let mut categories = self.categories.write();
        let Some(mut state) = category.lock() else {
            return;
        };
        if !state.is_unused() {
            return;
        }
        state.gone = true;
        self.epitaphs.lock().add(&category.name, state.ring.lost);
        categories.remove(&category.name);
        if categories.len() < categories.capacity() / 8 {
            categories.shrink_to_fit();
        }
    }

    /// What was lost with categories that are gone, and with these, each loss told as `told` has it.
    pub(crate) fn forgotten(
        &self,
        others: &[(Arc<str>, Loss)],
        told: impl Fn(Loss) -> Loss,
    ) -> LossTable {
        let mut epitaphs = self.epitaphs.lock().clone();
        others
            .iter()
            .for_each(|(name, lost)| epitaphs.add(name, *lost));
        let lines = epitaphs.lines.iter().copied().map(told).enumerate();
        LossTable {
            salt: epitaphs.salt,
            lines: lines.filter(|(_, lost)| lost.sequence > 0).collect(),
        }
    }

    /// Before anything else was lost here.
    pub(crate) fn remember(&self, forgotten: &LossTable) {
        let mut epitaphs = self.epitaphs.lock();
        epitaphs.salt = forgotten.salt;
        for (line, lost) in &forgotten.lines {
            if let Some(line) = epitaphs.lines.get_mut(*line) {
                *line = line.max(*lost);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.categories.read().len()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Category>> {
        self.categories.read().values().cloned().collect()
    }
}

/// What was lost with categories that are gone, in a table of fixed size: a name shares its line with others, which can
/// tell a follower of a gap that was another category's, but never hides one.
#[derive(Clone)]
struct Epitaphs {
    lines: Box<[Loss; Epitaphs::LINES]>,
    /// Which names share a line: other ones with every log.
    salt: u64,
}

impl Default for Epitaphs {
    fn default() -> Self {
        // A test that fails once in a thousand runs is none.
        let salt = if cfg!(feature = "testing") {
            0
        } else {
            RandomState::new().hash_one(0)
        };
        Epitaphs {
            lines: Box::new([Loss::default(); Epitaphs::LINES]),
            salt,
        }
    }
}

impl Epitaphs {
    const LINES: usize = 1024;

    /// By a hash that is the same in every program that reads the log: FNV-1a.
    fn line(&self, name: &str) -> usize {
        let start = self.salt ^ 0xcbf2_9ce4_8422_2325;
        let hash = name.bytes().fold(start, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        ((hash >> 32 ^ hash) % Epitaphs::LINES as u64) as usize
    }

    fn of(&self, name: &str) -> Loss {
        self.lines[self.line(name)]
    }

    fn add(&mut self, name: &str, lost: Loss) {
        let line = self.line(name);
        self.lines[line] = self.lines[line].max(lost);
    }
}
