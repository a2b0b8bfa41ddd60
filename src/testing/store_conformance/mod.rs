//! [`StoreConformance`]: checks a [`Store`](crate::store::Store) against the rules of the trait.

mod place;
mod records;
mod report;
mod rules;
mod session;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use place::{Fault, StorePlace};
pub use report::{CheckedRule, ConformanceReport, RuleOutcome};

use self::rules::{Checked, RULES};
use self::session::{Seen, Session};
use crate::store::{Record, Store};

/// Checks a [`Store`](crate::store::Store) against the rules of the trait, without a broker and with one: that it replays
/// each kind of record exactly and in order, that it keeps what a flush succeeded for, that `append` does not wait for the
/// disk, that it can be stopped, killed and started again, and more.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use std::time::Duration;
/// use long_polling::store::{GroupCommit, Record, RecordLog};
/// use long_polling::Error;
/// use long_polling::testing::StoreConformance;
///
/// #[derive(Clone, Default)]
/// struct Memory(Arc<Mutex<Vec<Record>>>);
///
/// impl RecordLog for Memory {
///     fn open(&mut self, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
///         self.0.lock().unwrap().iter().cloned().for_each(each);
///         Ok(())
///     }
///     fn write(&mut self, records: &[Record]) -> Result<(), Error> {
///         self.0.lock().unwrap().extend_from_slice(records);
///         Ok(())
///     }
/// }
///
/// // The outer closure makes an empty place for each rule; the inner one opens the
/// // store there.
/// let report = StoreConformance::new(|| {
///     let memory = Memory::default();
///     move || Ok(GroupCommit::new(memory.clone()))
/// })
/// .run();
/// report.assert_kept();
/// // A closure can neither stall the disk nor kill the process. A type that implements
/// // StorePlace can.
/// assert!(
///     report
///         .not_checked()
///         .contains(&"append does not wait for the disk")
/// );
/// ```
#[must_use = "call `run` to check the store"]
pub struct StoreConformance<'a> {
    new_place: Box<dyn FnMut() -> Box<dyn StorePlace> + 'a>,
    limit: Duration,
    /// The names of the rules to check; all if empty.
    only: Vec<String>,
}

impl<'a> StoreConformance<'a> {
    /// Checks the stores that such places open. `new_place` is called for each rule, and returns an empty place each time.
    pub fn new<P: StorePlace + 'static>(mut new_place: impl FnMut() -> P + 'a) -> Self {
        StoreConformance {
            new_place: Box::new(move || Box::new(new_place())),
            limit: Duration::from_secs(20),
            only: Vec::new(),
        }
    }

    /// Checks only the rule of this name, and those of other calls. Defaults to all rules.
    pub fn only(mut self, rule: impl Into<String>) -> Self {
        self.only.push(rule.into());
        self
    }

    /// Sets how long a call that may wait for the disk can take before it counts as one that does not return. It should be
    /// longer than the store's own limits, such as that of [`admit`](crate::store::Store::admit). Defaults to 20 seconds.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Checks the rules. A call that does not return is left behind in a thread of its own.
    ///
    /// # Panics
    ///
    /// If no rule has a name that was given to [`only`](StoreConformance::only).
    pub fn run(mut self) -> ConformanceReport {
        for only in &self.only {
            let is_known = RULES.iter().any(|(name, _)| name == only);
            assert!(
                is_known,
                "StoreConformance::only: no rule is named {only:?}"
            );
        }
        let only = std::mem::take(&mut self.only);
        let chosen = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
        let chosen = RULES.iter().filter(|(name, _)| chosen(name));
        let rules = chosen.map(|(name, check)| {
            let place = Place {
                place: (self.new_place)(),
                limit: self.limit,
            };
            let checked = catch_unwind(AssertUnwindSafe(|| check(&place)));
            let outcome = match checked {
                Ok(Ok(Checked::Yes)) => RuleOutcome::Kept,
                Ok(Ok(Checked::No(why))) => RuleOutcome::NotChecked(why.into()),
                Ok(Err(seen)) => RuleOutcome::Broken(seen),
                Err(_) => RuleOutcome::Broken("the place or the store panicked".into()),
            };
            CheckedRule { name, outcome }
        });
        ConformanceReport::new(rules.collect())
    }
}

impl fmt::Debug for StoreConformance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConformance")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// The place that one rule is checked on.
struct Place {
    place: Box<dyn StorePlace>,
    limit: Duration,
}

impl Place {
    fn open(&self) -> Seen<Box<dyn Store>> {
        let opened = self.place.open();
        opened.map_err(|error| format!("`StorePlace::open` failed: {}", error.report()))
    }

    /// Starts the store, which must replay these records.
    fn start(&self, expected: &[Record]) -> Seen<Session> {
        let (session, replayed) = Session::start(self.open()?, self.limit)?;
        match records::difference(expected, &replayed) {
            None => Ok(session),
            Some(difference) => Err(difference),
        }
    }

    /// Starts the store on what is left after a kill, and returns what it replays without the marks of damage. `None` if the
    /// place can't do that.
    fn replay_after_kill(&self) -> Seen<Option<Vec<Record>>> {
        let killed = self.place.after_kill();
        let killed =
            killed.map_err(|error| format!("`StorePlace::after_kill` failed: {}", error.report()));
        let Some(store) = killed? else {
            return Ok(None);
        };
        let (_session, mut replayed) = Session::start(store, self.limit)?;
        replayed.retain(|record| !matches!(record, Record::Damaged | Record::Torn));
        Ok(Some(replayed))
    }

    /// Makes the disk fail until the result is dropped. `None` if the place can't do that.
    fn with_fault(&self, fault: Fault) -> Option<FaultGuard<'_>> {
        let is_set = self.place.set_fault(Some(fault));
        is_set.then(|| FaultGuard(&*self.place))
    }
}

/// Ends a fault when dropped, also by a rule that is broken: calls that wait can then return.
struct FaultGuard<'a>(&'a dyn StorePlace);

impl Drop for FaultGuard<'_> {
    fn drop(&mut self) {
        self.0.set_fault(None);
    }
}
