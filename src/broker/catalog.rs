//! [`Catalog`]: the categories in use, found by name, and what is left of those that are not.

use std::collections::{BTreeMap, HashMap};
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
    /// The losses of categories that were removed.
    losses: Mutex<LossTable>,
}

impl Catalog {
    pub(crate) fn new() -> Self {
        Catalog {
            categories: RwLock::default(),
            losses: Mutex::new(LossTable::new()),
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
        let loss = self.losses.lock().of(&name);
        let state = State {
            ring: Ring::new(loss),
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
        self.losses.lock().add(&category.name, state.ring.lost);
        categories.remove(&category.name);
        if categories.len() < categories.capacity() / 8 {
            categories.shrink_to_fit();
        }
    }

    /// Returns the losses of categories that were removed and of `others`, each changed by `change`.
    pub(crate) fn loss_table(
        &self,
        others: &[(Arc<str>, Loss)],
        change: impl Fn(Loss) -> Loss,
    ) -> LossTable {
        let mut losses = self.losses.lock().clone();
        for (name, loss) in others {
            losses.add(name, *loss);
        }
        losses.map(change)
    }

    /// Adds the losses of a table that was read from a log. Called before a category of this run has lost anything.
    pub(crate) fn restore_losses(&self, table: &LossTable) {
        self.losses.lock().restore(table);
    }

    pub(crate) fn len(&self) -> usize {
        self.categories.read().len()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Category>> {
        self.categories.read().values().cloned().collect()
    }
}
