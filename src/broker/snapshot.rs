//! The records that restore what a broker holds: a store writes them when it compacts its log.

use super::Shared;
use super::publish::record_of;
use super::ring::Entry;
use super::store_call::StoreCall;
use crate::store::{Loss, Record, SnapshotSource};

/// About how many bytes a line of a log has besides the JSON of its event.
const LINE_OVERHEAD: usize = 64;

impl SnapshotSource for Shared {
    fn bytes(&self) -> u64 {
        let keys = self.keys.statistics(self.age.now()).bytes;
        (self.counters.event_bytes() + self.counters.events() * LINE_OVERHEAD + keys) as u64
    }

    /// Returns the events up to `last` that the broker holds, run by run, and what it lost up to there, in the records that a
    /// log would have. The log that follows has what was lost later.
    ///
    /// Empty if the events can't be had without waiting for the call of the store that asks.
    fn records(&self, last: u64) -> Vec<Record> {
        if StoreCall::Append.is_active(self) {
            log::error!(
                "a store asked for the broker's records within its append, where the broker's locks are held: it gets \
                 none, and has to ask later or in a thread of its own"
            );
            return Vec::new();
        }
        let Some(mut entries) = self.hidden_entries(last) else {
            log::error!(
                "a store asked for the broker's records up to number {last}, and its flush of these does not return: it \
                 gets none; flush must not wait for a thread that asks"
            );
            return Vec::new();
        };
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
        let mut empty = Vec::new();
        self.catalog.for_each(|category| {
            let held = category.ring.up_to(last);
            if held.len() > 0 {
                records.extend(lost(category.name(), category.ring.lost));
            } else {
                empty.push((category.name().clone(), category.ring.lost));
            }
            entries.extend(held.cloned());
        });
        // After the categories, so that it has the losses of one that was removed meanwhile.
        let losses = self.catalog.loss_table(&empty, capped);
        records.push(Record::LossTable(losses));
        records.extend(self.keys.records(last, self.age.now()));
        entries.sort_unstable_by_key(|entry| entry.sequence);
        self.push_runs(&mut records, entries, last);
        records
    }
}

impl Shared {
    /// Returns the hidden events up to `last`, if this thread is the one that makes events visible, and waits until none is
    /// left otherwise. `None` if that takes too long.
    fn hidden_entries(&self, last: u64) -> Option<Vec<Entry>> {
        // A publisher holds the sequencer's lock from its append until its event is in the queue of hidden events.
        let _ = self.sequencer.end();
        if StoreCall::Settle.is_active(self) {
            // No other thread makes events visible meanwhile, so a hidden event is in no ring.
            return Some(self.commits.hidden_up_to(last));
        }
        let settled = self.commits.settle_flushed(self, last);
        settled.then(Vec::new)
    }

    /// Adds these events, which are in publish order, with the starts and ends of their runs. If events of one publish are
    /// on both sides of `last`, a [`Record::Batch`] comes before the first one.
    fn push_runs(&self, records: &mut Vec<Record>, entries: Vec<Entry>, last: u64) {
        let mut entries = entries.into_iter().peekable();
        let published = |entry: Entry| record_of(&entry);
        for run in self.sequencer.runs() {
            while let Some(entry) = entries.next_if(|entry| entry.sequence < run.first) {
                records.push(published(entry));
            }
            records.push(Record::Started {
                position: run.start(),
                // The losses of earlier runs have records of their own.
                acknowledges: self.store.acknowledges(),
            });
            let Some(end) = run.end() else { continue };
            while let Some(entry) = entries.next_if(|entry| entry.sequence <= run.last) {
                records.push(published(entry));
            }
            records.push(Record::Ended(end));
        }
        let mut is_cut = false;
        for entry in entries {
            let end = entry.sequence + u64::from(entry.more);
            if end > last && !std::mem::replace(&mut is_cut, true) {
                records.push(Record::Batch(self.sequencer.position(end)));
            }
            records.push(published(entry));
        }
    }
}
