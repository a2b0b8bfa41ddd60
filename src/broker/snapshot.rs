//! What a broker holds, told as the log that would bring it back: what a store writes when it makes its log smaller.

use super::Shared;
use super::calls::{self, Call};
use super::ring::Entry;
use crate::store::{Loss, Record, SnapshotSource};

/// The bytes that a line of a log has besides its event's JSON, about.
const ADDED: usize = 64;

impl SnapshotSource for Shared {
    fn bytes(&self) -> u64 {
        let counters = self.counters.snapshot();
        (counters.event_bytes + counters.events * ADDED) as u64
    }

    /// What is held of the events up to `last`, run by run, as the log said it when it happened.
    ///
    /// What was lost is told as far as those events go: what follows in the log tells the rest.
    ///
    /// Empty where the events can't be had without waiting for the store's own call.
    fn records(&self, last: u64) -> Vec<Record> {
        if calls::is_inside(self, Call::Append) {
            log::error!(
                "a store asked for the broker's records within its append, where the broker's locks are held: it gets \
                 none, and has to ask later or in a thread of its own"
            );
            return Vec::new();
        }
        // Whoever has handed the last of them to the store holds this lock until it waits to be seen.
        let _ = self.sequencer.end();
        let mut entries: Vec<Entry> = Vec::new();
        if calls::is_inside(self, Call::Settle) {
            // This thread makes events visible, and no other does so meanwhile: what waits is not in a ring.
            entries = self.commits.waiting_up_to(last);
        } else if !self.commits.wait_for(self, last) {
            log::error!(
                "a store asked for the broker's records up to number {last}, and its flush of these does not return: it \
                 gets none; flush must not wait for a thread that asks"
            );
            return Vec::new();
        }
        let capped = |lost: Loss| Loss {
            sequence: lost.sequence.min(last),
            ..lost
        };
        let mut records = vec![Record::Compacted {
            position: self.sequencer.position(last),
            timestamp: self.sequencer.timestamp(),
        }];
        let lost = |category: &str, lost: Loss| {
            let Loss {
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
        records.push(Record::LossTable(self.catalog.loss_table(&gone, capped)));
        entries.sort_unstable_by_key(|entry| entry.sequence);
        let mut entries = entries.into_iter().peekable();
        let published = |entry: Entry| Record::Published {
            sequence: entry.sequence,
            event: entry.event,
        };
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
