//! [`ConformanceReport`]: which rules a store keeps.

use std::fmt;

/// Which rules of [`Store`](crate::store::Store) a store keeps, by [`StoreConformance::run`](super::StoreConformance::run).
///
/// `Display` lists all rules, with what was seen where one is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConformanceReport {
    rules: Vec<CheckedRule>,
}

/// One rule of a [`ConformanceReport`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckedRule {
    /// The name of the rule: a short sentence.
    pub name: &'static str,
    /// Whether the store keeps it.
    pub outcome: RuleOutcome,
}

/// Whether a store keeps a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleOutcome {
    /// No violation was seen.
    Kept,
    /// The store breaks the rule; what was seen.
    Broken(String),
    /// The rule was not checked; what the [`StorePlace`](super::StorePlace) would need for that.
    NotChecked(String),
}

impl ConformanceReport {
    pub(super) fn new(rules: Vec<CheckedRule>) -> Self {
        ConformanceReport { rules }
    }

    /// Returns all rules, in the order in which they were checked.
    pub fn rules(&self) -> &[CheckedRule] {
        &self.rules
    }

    /// Returns the names of the rules that the store breaks.
    pub fn broken(&self) -> Vec<&'static str> {
        self.names(|outcome| matches!(outcome, RuleOutcome::Broken(_)))
    }

    /// Returns the names of the rules that were not checked.
    pub fn not_checked(&self) -> Vec<&'static str> {
        self.names(|outcome| matches!(outcome, RuleOutcome::NotChecked(_)))
    }

    fn names(&self, is_wanted: impl Fn(&RuleOutcome) -> bool) -> Vec<&'static str> {
        let wanted = self.rules.iter().filter(|rule| is_wanted(&rule.outcome));
        wanted.map(|rule| rule.name).collect()
    }

    /// Does nothing if no rule is broken.
    ///
    /// # Panics
    ///
    /// If a rule is broken, with the whole report as the message.
    #[track_caller]
    pub fn assert_kept(&self) {
        assert!(
            self.broken().is_empty(),
            "the store breaks rules of the trait Store:\n{self}"
        );
    }
}

impl fmt::Display for ConformanceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for CheckedRule { name, outcome } in &self.rules {
            match outcome {
                RuleOutcome::Kept => writeln!(f, "kept         {name}")?,
                RuleOutcome::Broken(seen) => writeln!(f, "BROKEN       {name}: {seen}")?,
                RuleOutcome::NotChecked(why) => writeln!(f, "not checked  {name}: {why}")?,
            }
        }
        Ok(())
    }
}
