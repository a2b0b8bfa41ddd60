//! Two logs of one broker: the whole one, and one that is made smaller now and then.

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
    /// So many records were there at least when this run had begun, and when the second log was made smaller: a kill
    /// leaves them.
    kept: usize,
}

impl Default for Logs {
    fn default() -> Self {
        Logs {
            whole: Vec::new(),
            compacted: Vec::new(),
            exact: true,
            kept: 0,
        }
    }
}

impl Logs {
    /// The events that were handed out.
    pub(super) fn taken(&self) -> HashSet<EventId> {
        let taken = self.whole.iter().filter_map(|record| match record {
            Record::Taken { ids, .. } => Some(ids),
            _ => None,
        });
        taken.flatten().copied().collect()
    }

    pub(super) fn push(&mut self, record: Record) {
        self.whole.push(record.clone());
        self.compacted.push(record);
    }

    /// Loses the last few records that a kill may cost, and says how many.
    pub(super) fn lose(&mut self, count: usize) -> usize {
        let count = count.min(self.whole.len() - self.kept);
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
pub(super) struct Keeper(Arc<Mutex<State>>);

struct State {
    logs: Logs,
    live: Snapshot,
    acknowledges: bool,
    appended: u64,
    hook: Option<Box<dyn FnOnce() + Send>>,
    refuse: bool,
}

/// What a broker has of a keeper.
pub(super) struct Kept {
    keeper: Keeper,
    from: Log,
}

/// The number of the newest event that a record tells of.
fn reached(record: &Record) -> Option<u64> {
    match record {
        Record::Published { sequence, .. } => Some(*sequence),
        Record::Started { position: id, .. }
        | Record::Refused(id)
        | Record::Compacted { position: id, .. } => Some(number(*id)),
        _ => None,
    }
}

impl Keeper {
    pub(super) fn with(logs: &Logs, acknowledges: bool) -> Self {
        Keeper(Arc::new(Mutex::new(State {
            logs: logs.clone(),
            live: Snapshot::default(),
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

    /// Of a published event.
    pub(super) fn timestamp(&self, id: EventId) -> u64 {
        let state = self.0.lock();
        let mut events = state.logs.whole.iter().rev().filter_map(Record::event);
        let event = events.find(|event| event.id() == id).expect("an event");
        event.timestamp()
    }

    pub(super) fn store(&self, from: Log) -> Kept {
        Kept {
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

    pub(super) fn forget_what_waits(&self) {
        let mut state = self.0.lock();
        (state.hook, state.refuse) = (None, false);
    }

    /// Puts what the broker holds in place of the second log's records.
    pub(super) fn compact(&self, back: u64, cut: usize, exact: bool) {
        let live = self.0.lock().live.clone();
        let records = self.0.lock().logs.compacted.clone();
        let started = |record: &Record| matches!(record, Record::Started { .. });
        let run = records.iter().rposition(started).unwrap();
        // What was made smaller already is not whole before that.
        let first = records[..=run].iter().chain(
            records
                .iter()
                .filter(|record| matches!(record, Record::Compacted { .. })),
        );
        let first = first.filter_map(reached).max().unwrap();
        let newest = records[run..].iter().filter_map(reached).max().unwrap();
        let up_to = newest.saturating_sub(back).max(first);
        let told = |record: &Record| reached(record).is_some_and(|to| to <= up_to);
        let from = run + records[run..].iter().rposition(told).unwrap() + 1;
        // What is held does not say that the run has ended.
        let after = |record: &Record| {
            reached(record).is_some_and(|to| to > up_to) || matches!(record, Record::Ended(_))
        };
        let most = records[from..].iter().position(after);
        let cut = from + cut.min(most.unwrap_or(records.len() - from));
        let mut smaller = live.records(up_to);
        assert!(!smaller.is_empty());
        smaller.extend_from_slice(&records[cut..]);
        let mut state = self.0.lock();
        state.logs.compacted = smaller;
        state.logs.exact &= exact || up_to == newest;
        state.logs.kept = state.logs.whole.len();
    }
}

impl Store for Kept {
    fn start(&mut self, live: Snapshot, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        let mut state = self.keeper.0.lock();
        state.live = live;
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
            record.event().is_some(),
        );
        state.logs.push(record);
        state.appended += 1;
        if started || published && state.acknowledges {
            state.logs.kept = state.logs.whole.len();
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
            let at = log.iter().rposition(|record| record.event().is_some());
            let Record::Published { event, .. } = log.remove(at.unwrap()) else {
                unreachable!("an event");
            };
            log.push(Record::Refused(event.id()));
        }
        Err(Error::new(ErrorKind::Busy, "refused"))
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }

    fn acknowledges(&self) -> bool {
        self.keeper.0.lock().acknowledges
    }
}
