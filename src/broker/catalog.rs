//! [`Catalog`]: the categories in use, by name, and the losses of categories that were removed.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::options::BrokerOptions;
use super::ring::Ring;
use super::sync::{Mutex, MutexGuard, RwLock};
use super::waiter::Waiter;
use crate::store::{Loss, LossTable};

/// A category: its ring buffer and its parked subscribers, behind one lock.
pub(crate) struct Category {
    name: Arc<str>,
    state: Mutex<CategoryState>,
}

pub(crate) struct CategoryState {
    pub(crate) ring: Ring,
    /// Parked subscribers by ticket, so that a publish wakes the longest parked first.
    pub(crate) waiters: BTreeMap<u64, Arc<Waiter>>,
    /// The category is no longer in the catalog: a thread that still holds it looks the name up again.
    removed: bool,
}

impl CategoryState {
    fn is_unused(&self) -> bool {
        self.ring.is_empty() && self.waiters.is_empty()
    }
}

impl Category {
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Locks the category; `None` if it is no longer in the catalog.
    fn lock(&self) -> Option<MutexGuard<'_, CategoryState>> {
        let state = self.state.lock();
        (!state.removed).then_some(state)
    }
}

/// A locked category. When this is dropped, also by a panic, the category is unlocked, and leaves the catalog if it is
/// unused.
pub(crate) struct CategoryGuard<'a> {
    // Fields are dropped in this order: the map's lock comes before those of categories.
    state: MutexGuard<'a, CategoryState>,
    removal: Removal<'a>,
}

impl<'a> CategoryGuard<'a> {
    pub(crate) fn name(&self) -> &'a Arc<str> {
        self.removal.category.name()
    }
}

impl Deref for CategoryGuard<'_> {
    type Target = CategoryState;

    fn deref(&self) -> &CategoryState {
        &self.state
    }
}

impl DerefMut for CategoryGuard<'_> {
    fn deref_mut(&mut self) -> &mut CategoryState {
        &mut self.state
    }
}

impl Drop for CategoryGuard<'_> {
    fn drop(&mut self) {
        self.removal.due = self.state.is_unused();
    }
}

/// Several locked categories, in the order of their names. When this is dropped, all are unlocked, and those that are
/// unused leave the catalog.
pub(crate) struct CategoryGuards<'a> {
    // Fields are dropped in this order: see `CategoryGuard`.
    states: Vec<MutexGuard<'a, CategoryState>>,
    removals: Vec<Removal<'a>>,
}

impl<'a> CategoryGuards<'a> {
    /// Returns the name of the first category; there is at least one.
    pub(crate) fn first_name(&self) -> &'a str {
        let first = self.removals.first();
        first.map_or("", |removal| removal.category.name())
    }

    /// Returns the category with this name and its state, if it is one of these.
    pub(crate) fn find(&mut self, name: &str) -> Option<(&'a Arc<str>, &mut CategoryState)> {
        let names = |removal: &Removal<'a>| removal.category.name();
        let by_name = |removal: &Removal<'a>| (**names(removal)).cmp(name);
        let index = self.removals.binary_search_by(by_name).ok()?;
        Some((names(&self.removals[index]), &mut self.states[index]))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let categories = self.removals.iter().map(|removal| removal.category);
        categories.map(Category::name)
    }
}

impl<'a> Deref for CategoryGuards<'a> {
    type Target = [MutexGuard<'a, CategoryState>];

    fn deref(&self) -> &Self::Target {
        &self.states
    }
}

impl DerefMut for CategoryGuards<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.states
    }
}

impl Drop for CategoryGuards<'_> {
    fn drop(&mut self) {
        for (state, removal) in std::iter::zip(&self.states, &mut self.removals) {
            removal.due = state.is_unused();
        }
    }
}

/// Removes a category from the catalog when dropped, if that is due.
struct Removal<'a> {
    catalog: &'a Catalog,
    category: &'a Category,
    due: bool,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        if self.due {
            self.catalog.remove_unused(self.category);
        }
    }
}

/// The map of categories. One that has neither events nor subscribers is not in it and takes no memory, except for its row
/// in the table of losses.
///
/// Lock order: the map, then categories (several by name), then [`Parking`](super::waiter::Parking), then the slots of
/// waiters. The [`Sequencer`](super::sequencer::Sequencer)'s lock comes after those of categories, and its holder takes no
/// other.
pub(crate) struct Catalog {
    categories: RwLock<HashMap<Arc<str>, Arc<Category>>>,
    /// The losses of categories that were removed.
    losses: Mutex<LossTable>,
    /// Which say what each category keeps.
    options: BrokerOptions,
}

impl Catalog {
    pub(crate) fn new(options: BrokerOptions) -> Self {
        Catalog {
            categories: RwLock::default(),
            losses: Mutex::new(LossTable::new()),
            options,
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Category>> {
        self.categories.read().get(name).cloned()
    }

    /// Locks a category; `None` if it is no longer in the catalog.
    pub(crate) fn lock<'a>(&'a self, category: &'a Category) -> Option<CategoryGuard<'a>> {
        let state = category.lock()?;
        let removal = self.removal(category);
        Some(CategoryGuard { state, removal })
    }

    fn removal<'a>(&'a self, category: &'a Category) -> Removal<'a> {
        Removal {
            catalog: self,
            category,
            due: false,
        }
    }

    /// Calls `work` with the locked category of this name, which is created if there is none.
    pub(crate) fn with<T>(&self, name: &str, work: impl FnOnce(&mut CategoryGuard<'_>) -> T) -> T {
        loop {
            let category = self.get_or_create(name);
            if let Some(mut guard) = self.lock(&category) {
                return work(&mut guard);
            }
        }
    }

    /// Calls `work` with the locked category of this name, if there is one.
    pub(crate) fn with_existing(&self, name: &str, work: impl FnOnce(&mut CategoryGuard<'_>)) {
        if let Some(category) = self.get(name)
            && let Some(mut guard) = self.lock(&category)
        {
            work(&mut guard);
        }
    }

    /// Returns the number of subscribers that are parked in the category of this name.
    pub(crate) fn waiters(&self, name: &str) -> usize {
        let mut count = 0;
        self.with_existing(name, |category| count = category.waiters.len());
        count
    }

    /// Calls `work` with all these categories locked, whose names are given in order. A category that is not in the catalog
    /// is created: while it could not be locked, an event could be published to it, and the position that a poll reaches
    /// would lie after that event.
    pub(crate) fn with_all<T>(
        &self,
        names: &[&str],
        work: impl FnOnce(&mut CategoryGuards<'_>) -> T,
    ) -> T {
        loop {
            let categories = names.iter().map(|name| self.get_or_create(name));
            let categories: Vec<Arc<Category>> = categories.collect();
            // Another thread may have removed one meanwhile.
            let states: Option<Vec<_>> =
                categories.iter().map(|category| category.lock()).collect();
            let Some(states) = states else { continue };
            let removals = categories.iter().map(|category| self.removal(category));
            let mut guards = CategoryGuards {
                states,
                removals: removals.collect(),
            };
            return work(&mut guards);
        }
    }

    /// Calls `work` with each category in turn, locked.
    pub(crate) fn for_each(&self, mut work: impl FnMut(&mut CategoryGuard<'_>)) {
        for category in self.all() {
            if let Some(mut guard) = self.lock(&category) {
                work(&mut guard);
            }
        }
    }

    fn get_or_create(&self, name: &str) -> Arc<Category> {
        if let Some(category) = self.get(name) {
            return category;
        }
        let mut categories = self.categories.write();
        if let Some(category) = categories.get(name) {
            return category.clone();
        }
        let name: Arc<str> = name.into();
        let loss = self.losses.lock().of(&name);
        let state = CategoryState {
            ring: Ring::new(self.options.limits_of(&name), loss),
            waiters: BTreeMap::new(),
            removed: false,
        };
        let category = Arc::new(Category {
            name: name.clone(),
            state: Mutex::new(state),
        });
        categories.insert(name, category.clone());
        category
    }

    /// Replaces the rings of all categories that `is_replaced` names by these, in one step: `replace` is called with the old
    /// rings and the new ones while no thread can look at either. `wake` is called with each old category then.
    #[cfg(feature = "redis")]
    pub(crate) fn replace(
        &self,
        rings: HashMap<Arc<str>, Ring>,
        is_replaced: impl Fn(&str) -> bool,
        replace: impl FnOnce(&mut dyn Iterator<Item = &mut Ring>, &mut dyn Iterator<Item = &Ring>),
        wake: impl Fn(&mut CategoryState),
    ) {
        let mut categories = self.categories.write();
        let replaced = categories.values().filter(|old| is_replaced(&old.name));
        let mut replaced: Vec<Arc<Category>> = replaced.cloned().collect();
        // The order in which every thread locks several categories.
        replaced.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let states = replaced.iter().filter_map(|category| category.lock());
        let mut states: Vec<_> = states.collect();
        replace(
            &mut states.iter_mut().map(|state| &mut state.ring),
            &mut rings.values(),
        );
        for category in &replaced {
            categories.remove(&category.name);
        }
        for (name, ring) in rings {
            let state = CategoryState {
                ring,
                waiters: BTreeMap::new(),
                removed: false,
            };
            let category = Category {
                name: name.clone(),
                state: Mutex::new(state),
            };
            categories.insert(name, Arc::new(category));
        }
        drop(categories);
        for mut state in states {
            state.removed = true;
            wake(&mut state);
        }
    }

    /// Removes the category, if it is still unused.
    fn remove_unused(&self, category: &Category) {
        let mut categories = self.categories.write();
        let Some(mut state) = category.lock() else {
            return;
        };
        if !state.is_unused() {
            return;
        }
        state.removed = true;
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
