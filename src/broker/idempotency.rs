//! [`Keys`]: the idempotency keys of recent publishes, so that a repetition of a publish publishes nothing.
//!
//! A key is in one of three states: *reserved*, while its publisher has not appended the events; *appended*, until the store
//! keeps them; and *settled*. A repetition waits until the key is settled. A publish that fails gives its key back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::BrokerOptions;
#[cfg(feature = "redis")]
use super::backplane::PublishKey;
use super::category_options::milliseconds;
use super::restored_key::RestoredKey;
use super::ring::Entry;
use super::sync::{Condvar, Mutex};
use crate::error::{Error, ErrorKind};
use crate::position::EventId;
use crate::store::Record;

/// What counts for a key besides its own bytes: its place in the table, and its line in the log.
pub(super) const KEY_OVERHEAD: usize = 128;

/// The idempotency keys of a broker.
pub(super) struct Keys {
    /// How long a key is remembered, in milliseconds of the broker's [`Age`](super::clock::Age). 0: keys are ignored.
    window: u64,
    max_keys: usize,
    max_bytes: usize,
    /// No other lock of the broker is taken while this one is held. A publisher takes it under the sequencer's lock.
    table: Mutex<Table>,
    /// Notified when a key is settled or given back.
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    slots: HashMap<Arc<str>, Slot>,
    /// The keys whose events are appended, by the order in which that was.
    order: BTreeMap<u64, Arc<str>>,
    /// The number of the newest key in `order`.
    newest: u64,
    /// The newest [`KeyedPublish::added`].
    added: u64,
    bytes: usize,
    statistics: KeyStatistics,
}

#[derive(Clone, Copy, Default)]
pub(super) struct KeyStatistics {
    pub(super) held: usize,
    pub(super) bytes: usize,
    pub(super) repetitions: u64,
    pub(super) forgotten: u64,
}

struct Slot {
    fingerprint: u64,
    /// `None` for a key that is only reserved.
    publish: Option<KeyedPublish>,
}

/// The events of a key.
#[derive(Clone, Copy)]
pub(super) struct KeyedPublish {
    /// The place in [`Table::order`].
    number: u64,
    /// The id of the last event.
    pub(super) last: EventId,
    pub(super) count: u16,
    /// The timestamp of the last event.
    timestamp: u64,
    /// The sequence number of the first event; 0 for a key that the log had at the start.
    first_sequence: u64,
    /// When the key was appended, by the broker's `Age`.
    added: u64,
    is_settled: bool,
    /// The publisher has panicked in a call of the store: another publisher settles the events, if one comes.
    is_abandoned: bool,
}

/// What [`Keys::begin`] finds.
pub(super) enum Begun<'a> {
    /// The key is new: the events are to be published.
    First(Reservation<'a>),
    /// The events were published already.
    Repetition(KeyedPublish),
}

/// A key that its publisher has reserved. Dropping it gives the key back.
pub(super) struct Reservation<'a> {
    keys: &'a Keys,
    key: Arc<str>,
    fingerprint: u64,
    is_appended: bool,
}

impl Keys {
    pub(super) fn new(options: &BrokerOptions) -> Self {
        Keys {
            window: milliseconds(options.idempotency_window),
            max_keys: options.max_idempotency_keys,
            max_bytes: options.max_idempotency_bytes,
            table: Mutex::default(),
            changed: Condvar::default(),
        }
    }

    /// Returns `true` if keys are remembered.
    pub(super) fn are_kept(&self) -> bool {
        self.window > 0
    }

    /// Begins a publish with this key. Waits while another publish with the same key and the same fingerprint is in flight.
    ///
    /// # Errors
    ///
    /// `KeyReused` for a key of other events, `TimedOut` where it is not known whether the first publish takes effect.
    pub(super) fn begin(&self, key: &str, fingerprint: u64, now: u64) -> Result<Begun<'_>, Error> {
        let mut table = self.table.lock();
        table.expire(now, self.window);
        loop {
            let Some(slot) = table.slots.get(key) else {
                let key: Arc<str> = key.into();
                table.insert(key.clone(), fingerprint, None);
                return Ok(Begun::First(Reservation {
                    keys: self,
                    key,
                    fingerprint,
                    is_appended: false,
                }));
            };
            if slot.fingerprint != fingerprint {
                return Err(reused(key));
            }
            match slot.publish {
                Some(publish) if publish.is_settled => {
                    table.statistics.repetitions += 1;
                    return Ok(Begun::Repetition(publish));
                }
                Some(publish) if publish.is_abandoned => return Err(unknown(key)),
                _ => self.changed.wait(&mut table),
            }
        }
    }

    /// Notes that the store keeps the events of the key with this number, or has refused them.
    pub(super) fn settle(&self, number: u64, is_kept: bool) {
        let mut table = self.table.lock();
        match table.publish_mut(number) {
            Some(publish) if is_kept => publish.is_settled = true,
            _ => table.remove_number(number),
        }
        self.limit(&mut table);
        drop(table);
        self.changed.notify_all();
    }

    /// Returns a guard for the wait until the events of the key with this number are settled.
    pub(super) fn wait(&self, number: u64) -> KeyWait<'_> {
        KeyWait { keys: self, number }
    }

    /// Returns what a backplane needs to know of a key.
    #[cfg(feature = "redis")]
    pub(super) fn for_backplane(&self, key: &str, fingerprint: u64) -> PublishKey {
        PublishKey {
            key: key.into(),
            fingerprint,
            window: self.window,
            max_keys: self.max_keys,
        }
    }

    /// Counts a repetition that a backplane has found.
    #[cfg(feature = "redis")]
    pub(super) fn count_repetition(&self) {
        self.table.lock().statistics.repetitions += 1;
    }

    /// Adds a key of the log, unless it has expired by now. `added` is the time of its events.
    pub(super) fn restore(&self, key: &RestoredKey, added: u64, now: u64) {
        if added.saturating_add(self.window) <= now {
            return;
        }
        let mut table = self.table.lock();
        table.remove(&key.key);
        let publish = KeyedPublish {
            number: 0,
            last: key.last,
            count: key.count,
            timestamp: key.timestamp,
            first_sequence: 0,
            added,
            is_settled: true,
            is_abandoned: false,
        };
        table.insert(key.key.clone(), key.fingerprint, Some(publish));
        self.limit(&mut table);
    }

    /// Forgets the oldest settled keys past the limits. The newest key stays.
    fn limit(&self, table: &mut Table) {
        while table.order.len() > 1
            && (table.order.len() > self.max_keys || table.bytes > self.max_bytes)
            && let Some(oldest) = table.oldest_settled()
        {
            table.remove(&oldest);
            table.statistics.forgotten += 1;
        }
    }

    /// Returns the records of the keys whose first event has at most this sequence number, in the order of the events. The
    /// last of them may have events that come later: its publish is cut there.
    pub(super) fn records(&self, last: u64, now: u64) -> Vec<Record> {
        let mut table = self.table.lock();
        table.expire(now, self.window);
        let slots = table.order.values().filter_map(|key| {
            let slot = table.slots.get(key)?;
            Some((key, slot.fingerprint, slot.publish.as_ref()?))
        });
        slots
            .filter(|(_, _, publish)| publish.first_sequence <= last)
            .map(|(key, fingerprint, publish)| Record::Keyed {
                key: key.clone(),
                fingerprint,
                last: publish.last,
                count: publish.count,
                timestamp: publish.timestamp,
            })
            .collect()
    }

    pub(super) fn statistics(&self, now: u64) -> KeyStatistics {
        let mut table = self.table.lock();
        table.expire(now, self.window);
        KeyStatistics {
            held: table.order.len(),
            bytes: table.bytes,
            ..table.statistics
        }
    }
}

impl Table {
    /// Adds a key, or sets the events of one that is reserved. Returns the number of the events.
    fn insert(&mut self, key: Arc<str>, fingerprint: u64, publish: Option<KeyedPublish>) -> u64 {
        let publish = publish.map(|publish| {
            self.newest += 1;
            self.added = self.added.max(publish.added);
            self.order.insert(self.newest, key.clone());
            KeyedPublish {
                number: self.newest,
                added: self.added,
                ..publish
            }
        });
        let bytes = key.len() + KEY_OVERHEAD;
        let slot = Slot {
            fingerprint,
            publish,
        };
        if self.slots.insert(key, slot).is_none() {
            self.bytes += bytes;
        }
        self.newest
    }

    fn remove(&mut self, key: &str) {
        if let Some((key, slot)) = self.slots.remove_entry(key) {
            self.bytes -= key.len() + KEY_OVERHEAD;
            if let Some(publish) = slot.publish {
                self.order.remove(&publish.number);
            }
        }
    }

    fn remove_number(&mut self, number: u64) {
        if let Some(key) = self.order.get(&number).cloned() {
            self.remove(&key);
        }
    }

    fn publish_mut(&mut self, number: u64) -> Option<&mut KeyedPublish> {
        let key = self.order.get(&number)?;
        self.slots.get_mut(key)?.publish.as_mut()
    }

    fn publish_of(&self, key: &str) -> Option<&KeyedPublish> {
        self.slots.get(key)?.publish.as_ref()
    }

    /// Returns the oldest key whose publish is not in flight.
    fn oldest_settled(&self) -> Option<Arc<str>> {
        let is_settled = |key: &&Arc<str>| {
            self.publish_of(key)
                .is_some_and(|publish| publish.is_settled)
        };
        self.order.values().find(is_settled).cloned()
    }

    /// Forgets the keys that have been remembered for the whole window.
    fn expire(&mut self, now: u64, window: u64) {
        while let Some(oldest) = self.order.values().next()
            && let Some(publish) = self.publish_of(oldest)
            && publish.is_settled
            && publish.added.saturating_add(window) <= now
        {
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }
}

impl Reservation<'_> {
    /// Returns the record of the key for these events.
    pub(super) fn record(&self, entries: &[Entry]) -> Option<Record> {
        let last = entries.last()?;
        Some(Record::Keyed {
            key: self.key.clone(),
            fingerprint: self.fingerprint,
            last: last.event.id(),
            count: u16::try_from(entries.len()).unwrap_or(u16::MAX),
            timestamp: last.event.timestamp(),
        })
    }

    /// Returns the most bytes of the record's line.
    pub(super) fn line_len(&self) -> usize {
        Record::Keyed {
            key: self.key.clone(),
            fingerprint: 0,
            last: EventId::from(0),
            count: 1,
            timestamp: 0,
        }
        .line_len()
    }

    /// Notes that the store has accepted these events, and returns the number by which they are [settled](Keys::settle).
    /// Called under the sequencer's lock, so that the keys have the order of their events.
    pub(super) fn appended(mut self, entries: &[Entry], now: u64, is_settled: bool) -> Option<u64> {
        let (first, last) = (entries.first()?, entries.last()?);
        let publish = KeyedPublish {
            number: 0,
            last: last.event.id(),
            count: u16::try_from(entries.len()).unwrap_or(u16::MAX),
            timestamp: last.event.timestamp(),
            first_sequence: first.sequence,
            added: now,
            is_settled,
            is_abandoned: false,
        };
        self.is_appended = true;
        let mut table = self.keys.table.lock();
        let number = table.insert(self.key.clone(), self.fingerprint, Some(publish));
        self.keys.limit(&mut table);
        drop(table);
        if is_settled {
            self.keys.changed.notify_all();
        }
        Some(number)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.is_appended {
            self.keys.table.lock().remove(&self.key);
            self.keys.changed.notify_all();
        }
    }
}

/// A publisher's wait until its events are settled. If the store panics meanwhile, repetitions do not wait any longer.
pub(super) struct KeyWait<'a> {
    keys: &'a Keys,
    number: u64,
}

impl Drop for KeyWait<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(publish) = self.keys.table.lock().publish_mut(self.number) {
                publish.is_abandoned = true;
            }
            self.keys.changed.notify_all();
        }
    }
}

fn unknown(key: &str) -> Error {
    let message = format!(
        "the store panicked over the first publish with the idempotency key {key:?}, so that it is not known yet whether its \
         events are published: try again with the same key"
    );
    Error::new(ErrorKind::TimedOut, message)
}

/// The error of a key that was given to other events before.
pub(crate) fn reused(key: &str) -> Error {
    let message = format!(
        "the idempotency key {key:?} was given to another publish already, with other events: give each publish a key of its \
         own, and the same events with the same key"
    );
    Error::new(ErrorKind::KeyReused, message)
}
