//! What a broker holds, told as the log that would bring it back: what a store writes when it makes its log smaller.

use super::Shared;
use super::ring::{Entry, Lost};
use crate::record::Record;

/// The bytes that a line of a log has besides its event's JSON, about.
const ADDED: usize = 64;

impl Shared {
    pub(super) fn live_bytes(&self) -> u64 {
        let counters = self.counters.snapshot();
        (counters.event_bytes + counters.events * ADDED) as u64
    }

    /// What is held of the events up to `last`, run by run, as the log said it when it happened.
    ///
    /// What was lost is told as far as those events go: what follows in the log tells the rest.
    pub(super) fn live_records(&self, last: u64) -> Vec<Record> {
        // Whoever has handed the last of them to the store holds this lock until it waits to be seen.
        let _ = self.sequencer.end();
        self.commits.wait_for(self, last);
        let capped = |lost: Lost| Lost {
            sequence: lost.sequence.min(last),
            ..lost
        };
        let mut records = vec![Record::Compacted {
            position: self.sequencer.position(last),
            timestamp: self.sequencer.timestamp(),
        }];
        let lost = |category: &str, lost: Lost| {
            let Lost {
                sequence,
                timestamp,
            } = capped(lost);
            (sequence > 0).then(|| Record::Lost {
                category: category.into(),
                sequence,
                timestamp,
            })
        };
        records.extend(lost("", self.sequencer.lost()));
        let mut entries: Vec<Entry> = Vec::new();
        let mut gone = Vec::new();
        for category in self.catalog.all() {
            let Some(state) = category.lock() else {
                continue;
            };
            let held = state.ring.up_to(last);
            if held.len() > 0 {
                records.extend(lost(category.name(), state.ring.lost));
            } else {
                gone.push((category.name().clone(), state.ring.lost));
            }
            entries.extend(held.cloned());
        }
        // After the categories: one that left in the meantime is told of here.
        records.push(Record::Forgotten(self.catalog.forgotten(&gone, capped)));
        entries.sort_unstable_by_key(|entry| entry.sequence);
        let mut entries = entries.into_iter().peekable();
        let published = |Entry { sequence, event }: Entry| Record::Published { sequence, event };
        for span in self.sequencer.spans() {
            let first = span.first;
            while let Some(entry) = entries.next_if(|entry| entry.sequence < first) {
                records.push(published(entry));
            }
            records.push(Record::Started {
                position: span.start(),
                // Of earlier runs, what is missing is told already.
                acknowledges: self.store.acknowledges(),
            });
            let Some(end) = span.end() else { continue };
            while let Some(entry) = entries.next_if(|entry| entry.sequence <= span.last) {
                records.push(published(entry));
            }
            records.push(Record::Ended(end));
        }
        records.extend(entries.map(published));
        records
    }
}
