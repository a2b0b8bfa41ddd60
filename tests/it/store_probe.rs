//! [`Probe`]: a store for tests, which notes the calls of its broker, and can block in them.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::LIMIT;
use long_polling::store::{Record, Snapshot, Store, StoreStatistics};
use long_polling::{Broker, BrokerOptions, Error, ErrorKind};

pub(crate) const SOON: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StoreCall {
    Admit,
    Append,
    /// Of the record that the run has ended.
    AppendEnd,
    Flush,
    Settled,
    Stop,
    Statistics,
}

/// A store for tests, which can block forever in a call, ask for the broker's records there, fail or panic.
#[derive(Clone, Default)]
pub(crate) struct Probe(Arc<ProbeShared>);

#[derive(Default)]
struct ProbeShared {
    state: Mutex<ProbeState>,
    released: Condvar,
}

#[derive(Default)]
pub(crate) struct ProbeState {
    pub(crate) acknowledges: bool,
    pub(crate) period: Option<Duration>,
    pub(crate) blocks_in: HashSet<StoreCall>,
    pub(crate) asks_in: Option<StoreCall>,
    /// Another thread asks, and the call waits for it.
    pub(crate) asks_in_a_thread: bool,
    pub(crate) fails: Option<&'static str>,
    pub(crate) panics: bool,
    pub(crate) snapshot: Snapshot,
    pub(crate) records: Vec<Record>,
    /// The number of events in the broker's records each time.
    pub(crate) answers: Vec<usize>,
    pub(crate) flushes: usize,
    pub(crate) flushed: u64,
    pub(crate) blocked: usize,
}

impl Probe {
    pub(crate) fn new(set: impl FnOnce(&mut ProbeState)) -> Self {
        let probe = Probe::default();
        set(&mut probe.state());
        probe
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, ProbeState> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn broker(&self) -> Broker {
        Broker::with_store(BrokerOptions::default(), self.clone()).unwrap()
    }

    /// Returns `true` while a broker or one of its threads has the store.
    pub(crate) fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    pub(crate) fn is_flushed(&self) -> bool {
        let state = self.state();
        state.flushed == state.records.len() as u64
    }

    pub(crate) fn release(&self) {
        self.state().blocks_in.clear();
        self.0.released.notify_all();
    }

    fn called(&self, call: StoreCall) {
        let mut state = self.state();
        if state.blocks_in.contains(&call) {
            state.blocked += 1;
            while state.blocks_in.contains(&call) {
                let waited = self.0.released.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
        }
        if state.asks_in != Some(call) {
            return;
        }
        let (snapshot, in_a_thread) = (state.snapshot.clone(), state.asks_in_a_thread);
        let newest = state.records.iter().rev().find_map(|record| match record {
            Record::Published { sequence, .. } => Some(*sequence),
            _ => None,
        });
        drop(state);
        let ask = move || events(&snapshot.records(newest.unwrap_or(0)));
        let answer = match in_a_thread {
            true => thread::spawn(ask).join().unwrap(),
            false => ask(),
        };
        self.state().answers.push(answer);
    }
}

pub(crate) fn events(records: &[Record]) -> usize {
    records.iter().filter_map(Record::event).count()
}

impl Store for Probe {
    fn start(&mut self, snapshot: Snapshot, _: &mut dyn FnMut(Record)) -> Result<(), Error> {
        assert!(snapshot.records(0).is_empty());
        self.state().snapshot = snapshot;
        Ok(())
    }

    fn admit(&self, _: usize) -> Result<(), Error> {
        self.called(StoreCall::Admit);
        Ok(())
    }

    fn append(&self, record: Record) -> Result<u64, Error> {
        match &record {
            Record::Published { .. } => self.called(StoreCall::Append),
            Record::Ended(_) => self.called(StoreCall::AppendEnd),
            _ => {}
        }
        let mut state = self.state();
        state.records.push(record);
        Ok(state.records.len() as u64)
    }

    fn flush(&self, ticket: u64) -> Result<(), Error> {
        self.called(StoreCall::Flush);
        let mut state = self.state();
        state.flushes += 1;
        if let Some(reason) = state.fails {
            return Err(Error::new(ErrorKind::Busy, reason));
        }
        let panics = state.panics;
        if !panics {
            state.flushed = state.flushed.max(ticket);
        }
        drop(state);
        assert!(!panics, "on purpose");
        Ok(())
    }

    fn settled(&self) -> u64 {
        self.called(StoreCall::Settled);
        self.state().flushed
    }

    fn acknowledges(&self) -> bool {
        self.state().acknowledges
    }

    fn flush_period(&self) -> Option<Duration> {
        self.state().period
    }

    fn stop(&self, _: Duration) -> Result<(), Error> {
        self.called(StoreCall::Stop);
        Ok(())
    }

    fn statistics(&self) -> StoreStatistics {
        self.called(StoreCall::Statistics);
        StoreStatistics::default()
    }
}

/// Does `work` on a thread of its own, which has to be done in time.
pub(crate) fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(LIMIT).expect("it returns in time")
}
