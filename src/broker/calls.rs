//! Which call of its store a thread is in, so that what would wait for that call itself fails or works at once.

use std::cell::RefCell;

use super::Shared;
#[cfg(all(test, shuttle))]
use shuttle::thread_local;

/// A call of a store that a thread of the broker's makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// With locks of the broker's held.
    Append,
    /// As the thread that makes events visible once the store keeps them, without locks.
    Settle,
}

thread_local! {
    /// The calls that this thread is in, the innermost last, each with the address of its broker's state. A store may
    /// publish to another broker.
    static CALLS: RefCell<Vec<(usize, Call)>> = const { RefCell::new(Vec::new()) };
}

fn address(shared: &Shared) -> usize {
    std::ptr::from_ref(shared) as usize
}

/// A call that lasts until this is dropped, also by a panic.
pub(super) struct InCall(());

impl Drop for InCall {
    fn drop(&mut self) {
        CALLS.with(|calls| _ = calls.borrow_mut().pop());
    }
}

pub(super) fn enter(shared: &Shared, call: Call) -> InCall {
    CALLS.with(|calls| calls.borrow_mut().push((address(shared), call)));
    InCall(())
}

/// True if this thread is in such a call of this broker's store.
pub(super) fn is_inside(shared: &Shared, call: Call) -> bool {
    CALLS.with(|calls| calls.borrow().contains(&(address(shared), call)))
}
