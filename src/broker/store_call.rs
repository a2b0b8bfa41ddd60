//! [`StoreCall`]: which call of the store a thread is in, so that what would wait for that very call can do without.

use std::cell::RefCell;

use super::Shared;
#[cfg(all(test, shuttle))]
use shuttle::thread_local;

/// A call of a store by a thread of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreCall {
    /// `append`, with locks of the broker held.
    Append,
    /// `flush` or `settled`, without locks, by the thread that makes events visible once the store keeps them.
    Settle,
}

thread_local! {
    /// The calls that this thread is in, the innermost last, each with the address of its broker's state. A store may
    /// publish to another broker.
    static CALLS: RefCell<Vec<(usize, StoreCall)>> = const { RefCell::new(Vec::new()) };
}

fn address(shared: &Shared) -> usize {
    std::ptr::from_ref(shared) as usize
}

/// Ends a call when dropped, also by a panic.
pub(super) struct StoreCallGuard(());

impl Drop for StoreCallGuard {
    fn drop(&mut self) {
        CALLS.with(|calls| _ = calls.borrow_mut().pop());
    }
}

impl StoreCall {
    /// Notes that this thread enters such a call of this broker's store.
    pub(super) fn enter(self, shared: &Shared) -> StoreCallGuard {
        CALLS.with(|calls| calls.borrow_mut().push((address(shared), self)));
        StoreCallGuard(())
    }

    /// Returns `true` if this thread is in such a call of this broker's store.
    pub(super) fn is_active(self, shared: &Shared) -> bool {
        CALLS.with(|calls| calls.borrow().contains(&(address(shared), self)))
    }
}
