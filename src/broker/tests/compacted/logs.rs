//! Two logs of one broker: the whole one, and one that is compacted at times.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::number;
use super::steps::Log;
use crate::error::{Error, ErrorKind};
use crate::position::EventId;
use crate::store::Record;
use crate::store::{Snapshot, Store};

#[derive(Clone)]
pub(super) struct Logs {
    whole: Vec<Record>,
    compacted: Vec<Record>,
    /// Both say exactly the same.
    pub(super) exact: bool,
    /// A kill leaves at least this many records of the whole log: those up to the start of the run, and up to the last
    /// compaction.
    durable: usize,
}

impl Default for Logs {
    fn default() -> Self {
        Logs {
            whole: Vec::new(),
            compacted: Vec::new(),
            exact: true,
            durable: 0,
        }
    }
}

impl Logs {
    /// The events that subscribers retrieved.
    pub(super) fn retrieved(&self) -> HashSet<EventId> {
        let retrieved = self.whole.iter().filter_map(|record| match record {
            Record::Taken { ids, .. } => Some(ids),
            _ => None,
        });
        retrieved.flatten().copied().collect()
    }

    pub(super) fn push(&mut self, record: Record) {
        self.whole.push(record.clone());
        self.compacted.push(record);
    }

    /// Loses up to `count` of the last records, as a kill may, and returns how many.
    pub(super) fn lose(&mut self, count: usize) -> usize {
        let count = count.min(self.whole.len() - self.durable);
        self.whole.truncate(self.whole.len() - count);
        self.compacted.truncate(self.compacted.len() - count);
        count
    }
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, records) in [("whole", &self.whole), ("compacted", &self.compacted)] {
            writeln!(f, "{name}:")?;
            for record in records {
                writeln!(f, "  {}", record.to_line())?;
            }
        }
        Ok(())
    }
}

/// Keeps both logs, in memory.
#[derive(Clone)]
pub(super) struct LogKeeper(Arc<Mutex<LogState>>);

struct LogState {
    logs: Logs,
    snapshot: Snapshot,
    acknowledges: bool,
    appended: u64,
    hook: Option<Box<dyn FnOnce() + Send>>,
    refuse: bool,
}

/// The store of a broker that starts from one of the logs.
pub(super) struct LogStore {
    keeper: LogKeeper,
    from: Log,
}

/// The sequence number of the newest event that a record covers.
fn covers(record: &Record) -> Option<u64> {
    match record {
        Record::Published { sequence, .. } => Some(*sequence),
        Record::Started { position: id, .. }
        | Record::Refused(id)
        | Record::Purged { position: id, .. }
        | Record::Compacted { position: id, .. } => Some(number(*id)),
        _ => None,
    }
}

impl LogKeeper {
    pub(super) fn with(logs: &Logs, acknowledges: bool) -> Self {
        LogKeeper(Arc::new(Mutex::new(LogState {
            logs: logs.clone(),
            snapshot: Snapshot::default(),
            acknowledges,
            appended: 0,
            hook: None,
            refuse: false,
        })))
    }

    pub(super) fn acknowledges(&self) -> bool {
        self.0.lock().acknowledges
    }

    pub(super) fn logs(&self) -> Logs {
        self.0.lock().logs.clone()
    }

    /// The timestamp of a published event.
    pub(super) fn timestamp(&self, id: EventId) -> u64 {
        let state = self.0.lock();
        let mut events = state.logs.whole.iter().rev().filter_map(Record::event);
        let event = events.find(|event| event.id() == id).expect("an event");
        event.timestamp()
    }

    pub(super) fn store(&self, from: Log) -> LogStore {
        LogStore {
            keeper: self.clone(),
            from,
        }
    }

    pub(super) fn before_next_flush(&self, hook: impl FnOnce() + Send + 'static) {
        self.0.lock().hook = Some(Box::new(hook));
    }

    pub(super) fn refuse_next(&self) {
        self.0.lock().refuse = true;
    }

    pub(super) fn clear_hooks(&self) {
        let mut state = self.0.lock();
        (state.hook, state.refuse) = (None, false);
    }

    /// Replaces records of the second log by the snapshot of the broker.
    pub(super) fn compact(&self, back: u64, cut: usize, exact: bool) {
        let snapshot = self.0.lock().snapshot.clone();
        let records = self.0.lock().logs.compacted.clone();
        let started = |record: &Record| matches!(record, Record::Started { .. });
        let run = records.iter().rposition(started).unwrap();
        // A log that was compacted already does not have all records before that.
        // An earlier run may have events of a cut publish, whose numbers this run gives again.
        let first = std::iter::once(&records[run]).chain(
            records
                .iter()
                .filter(|record| matches!(record, Record::Compacted { .. })),
        );
        let first = first.filter_map(covers).max().unwrap();
        let newest = records[run..].iter().filter_map(covers).max().unwrap();
        let up_to = newest.saturating_sub(back).max(first);
        let covered = |record: &Record| covers(record).is_some_and(|to| to <= up_to);
        let from = run + records[run..].iter().rposition(covered).unwrap() + 1;
        // A snapshot does not have the end of the run.
        let after = |record: &Record| {
            let is_later = match record {
                // Its events follow.
                Record::Batch(last) | Record::Keyed { last, .. } => number(*last) > up_to,
                Record::Ended(_) => true,
                _ => false,
            };
            is_later || covers(record).is_some_and(|to| to > up_to)
        };
        let most = records[from..].iter().position(after);
        let cut = from + cut.min(most.unwrap_or(records.len() - from));
        let mut compacted = snapshot.records(up_to);
        assert!(!compacted.is_empty());
        compacted.extend_from_slice(&records[cut..]);
        let mut state = self.0.lock();
        state.logs.compacted = compacted;
        state.logs.exact &= exact || up_to == newest;
        state.logs.durable = state.logs.whole.len();
    }
}

impl Store for LogStore {
    fn start(&mut self, snapshot: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        let mut state = self.keeper.0.lock();
        state.snapshot = snapshot;
        let records = match self.from {
            Log::Whole => &state.logs.whole,
            Log::Compacted => &state.logs.compacted,
        };
        for record in records {
            each(Record::from_line(record.to_line())?.unwrap());
        }
        Ok(())
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        let mut state = self.keeper.0.lock();
        let (started, published) = (
            matches!(record, Record::Started { .. }),
            record.id().is_some(),
        );
        state.logs.push(record);
        state.appended += 1;
        if started || published && state.acknowledges {
            state.logs.durable = state.logs.whole.len();
        }
        Ok(state.appended)
    }

    fn flush(&self, _: u64) -> Result<(), Error> {
        let hook = self.keeper.0.lock().hook.take();
        if let Some(hook) = hook {
            hook();
        }
        let mut state = self.keeper.0.lock();
        if !std::mem::take(&mut state.refuse) {
            return Ok(());
        }
        let Logs {
            whole, compacted, ..
        } = &mut state.logs;
        for log in [whole, compacted] {
            let at = log.iter().rposition(|record| record.id().is_some());
            let id = log[at.unwrap()].id().unwrap();
            // All events of the publish.
            let batch = log.iter().rposition(|record| *record == Record::Batch(id));
            let from = batch.or(at).unwrap();
            let mut index = 0;
            log.retain(|record| {
                index += 1;
                let is_batch = matches!(record, Record::Batch(_));
                index <= from || record.id().is_none() && !is_batch
            });
            log.push(Record::Refused(id));
        }
        // One record is in the place of several.
        state.logs.durable = state.logs.durable.min(state.logs.whole.len());
        Err(Error::new(ErrorKind::Busy, "refused"))
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }

    fn acknowledges(&self) -> bool {
        self.keeper.0.lock().acknowledges
    }
}
