//! The rules, each a function that returns what it has seen of a store that breaks it.

mod admission;
mod broker;
mod fail;
mod flushing;
mod replay;
mod stall;
mod stopping;

use super::Place;
use super::session::Seen;

/// Whether a rule could be checked.
pub(super) enum Checked {
    Yes,
    /// What the place would need.
    No(&'static str),
}

const NEEDS_STALL: Checked = Checked::No("needs StorePlace::set_fault with Fault::Stall");
const NEEDS_FAIL: Checked = Checked::No("needs StorePlace::set_fault with Fault::Fail");
const NEEDS_KILL: Checked = Checked::No("needs StorePlace::after_kill");

/// A rule, by its name.
type Rule = (&'static str, fn(&Place) -> Seen<Checked>);

/// All rules, the simple ones first.
pub(super) const RULES: &[Rule] = &[
    ("a new place has no records", replay::of_nothing),
    ("every kind of record is replayed exactly", replay::of_kinds),
    (
        "records are replayed in the order of append",
        replay::in_order,
    ),
    (
        "records of earlier runs stay, and the newest too",
        replay::of_earlier_runs,
    ),
    ("tickets grow", flushing::tickets_grow),
    (
        "flush returns for every ticket that append returned",
        flushing::of_any_ticket,
    ),
    (
        "settled is a ticket up to which flush returns at once",
        flushing::settled,
    ),
    (
        "append and flush run at the same time",
        flushing::with_appends,
    ),
    (
        "flushed records are kept without a stop",
        flushing::without_a_stop,
    ),
    (
        "flushed records are kept if the process is killed",
        flushing::before_a_kill,
    ),
    ("append does not wait for the disk", stall::append),
    ("statistics do not wait for the disk", stall::statistics),
    (
        "flush succeeds only once the disk has the record",
        stall::flush,
    ),
    (
        "admit refuses with the kind Busy, and only while there is no room",
        admission::of_many,
    ),
    (
        "admit returns while the disk stalls",
        admission::while_stalled,
    ),
    (
        "a record whose flush failed is kept later or replaced by Refused",
        fail::of_an_event,
    ),
    (
        "acknowledges and flush_period never change",
        stopping::promises,
    ),
    ("stop keeps every record", stopping::keeps_records),
    ("stop can be called again", stopping::again),
    (
        "stop can be called again after its timeout",
        stopping::after_a_timeout,
    ),
    (
        "append after the stop fails, or keeps the record",
        stopping::append_afterwards,
    ),
    ("a broker restarts from the store", broker::restarts),
    (
        "a broker's retrievals that delete are kept",
        broker::deletes,
    ),
];
