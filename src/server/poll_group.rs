//! [`PollGroup`]: the polls that are parked through one of several servers with a common broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::broker::Waiter;

/// The polls that are parked through one server, so that its stop answers these and no others.
///
/// Lock order: no other lock is taken while the state is locked.
#[derive(Default)]
pub(super) struct PollGroup(Mutex<State>);

#[derive(Default)]
struct State {
    /// By the address of the waiter.
    waiters: BTreeMap<usize, Arc<Waiter>>,
    closed: bool,
}

/// The membership of one poll. It ends when this is dropped.
pub(super) struct Member {
    group: Arc<PollGroup>,
    key: usize,
}

impl PollGroup {
    /// Adds a poll. After [`close`](PollGroup::close), the poll is answered at once.
    pub(super) fn enter(self: &Arc<Self>, waiter: &Arc<Waiter>) -> Member {
        let key = Arc::as_ptr(waiter) as usize;
        let mut state = self.0.lock();
        let closed = state.closed;
        if !closed {
            state.waiters.insert(key, waiter.clone());
        }
        drop(state);
        if closed {
            waiter.answer_early();
        }
        Member {
            group: self.clone(),
            key,
        }
    }

    /// Answers all polls of the group as if they had timed out, those that come later, too.
    pub(super) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        waiters.values().for_each(|waiter| waiter.answer_early());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.group.0.lock().waiters.remove(&self.key);
    }
}
