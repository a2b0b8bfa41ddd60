//! [`RestoredKey`]: an idempotency key as a log has it, and [`OpenKey`], which finds out whether its events were published.

use std::sync::Arc;

use super::fingerprint::Fingerprint;
use crate::event::Event;
use crate::position::EventId;

/// A key of a log, whose events may still have to be read.
pub(super) struct RestoredKey {
    pub(super) key: Arc<str>,
    pub(super) fingerprint: u64,
    pub(super) last: EventId,
    pub(super) count: u16,
    pub(super) timestamp: u64,
}

/// A key of a log whose events follow. It takes effect with the last of them.
pub(super) struct OpenKey {
    key: RestoredKey,
    /// The fingerprint of the events read.
    read: Fingerprint,
    /// The events read.
    count: u16,
    /// The events read that compaction can't have dropped.
    uncompacted: u64,
}

impl OpenKey {
    pub(super) fn new(key: RestoredKey) -> Self {
        OpenKey {
            key,
            read: Fingerprint::default(),
            count: 0,
            uncompacted: 0,
        }
    }

    /// Reads an event of the log. Returns `true` if it is the last event of the key.
    pub(super) fn read(&mut self, event: &Event, compacted_to: u64) -> bool {
        let (Some((run, number)), Some((of, last))) = (event.id().parts(), self.key.last.parts())
        else {
            return false;
        };
        if run != of || number > last || number + u64::from(self.key.count) <= last {
            return false;
        }
        self.read
            .add(event.category(), event.data(), event.own_ttl());
        self.count += 1;
        self.uncompacted += u64::from(number > compacted_to);
        number == last
    }

    /// Returns the key, if all of its events were read and are those of its publish. Events that compaction may have dropped
    /// need not be there.
    ///
    /// After an append that failed, the next event may have got the number, and so the id, of an event of the key. The
    /// fingerprint tells them apart.
    pub(super) fn finish(self, compacted_to: u64) -> Option<RestoredKey> {
        let last = self.key.last.sequence()?;
        let before = last.saturating_sub(self.key.count.into());
        let needed = last - before.max(compacted_to).min(last);
        let is_whole = self.count == self.key.count;
        let is_its_own = self.read.finish() == self.key.fingerprint;
        (self.uncompacted == needed && (is_its_own || !is_whole)).then_some(self.key)
    }
}
