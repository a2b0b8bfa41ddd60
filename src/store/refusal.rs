//! What the stores of this crate do with records that could not be written: [`refuse_events`] and [`RefusedTickets`].

use std::ops::RangeInclusive;

use super::Record;

/// Removes all events from these records, and puts one [`Record::Refused`] in their place.
pub(super) fn refuse_events(records: &mut Vec<Record>) {
    let mut newest_first = records.iter().rev();
    let refused = newest_first.find_map(Record::id);
    records.retain(|record| record.id().is_none() && !record.precedes_its_events());
    let Some(last) = refused else { return };
    records.retain(|record| !matches!(record, Record::Refused(_)));
    // Before the end of the run, and after all else.
    let end = records
        .iter()
        .position(|record| matches!(record, Record::Ended(_)));
    records.insert(end.unwrap_or(records.len()), Record::Refused(last));
}

/// The tickets of records that were refused, until their publishers have asked for them.
#[derive(Debug, Default)]
pub(super) struct RefusedTickets(Vec<RangeInclusive<u64>>);

impl RefusedTickets {
    pub(super) fn add(&mut self, tickets: RangeInclusive<u64>) {
        if !tickets.is_empty() {
            self.0.push(tickets);
        }
    }

    /// Returns `true` if the record with this ticket was refused. Forgets the refused tickets before it: publishers wait
    /// for their tickets in ascending order.
    pub(super) fn take(&mut self, ticket: u64) -> bool {
        self.0.retain(|tickets| *tickets.end() >= ticket);
        self.0.iter().any(|tickets| tickets.contains(&ticket))
    }
}
