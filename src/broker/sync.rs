//! The locks, condition variables and atomics of the broker: those of parking_lot and std, or those of shuttle in the tests
//! that explore [schedules](super::tests).

#[cfg(not(all(test, shuttle)))]
pub(crate) use crate::atomic::AtomicU64;
#[cfg(not(all(test, shuttle)))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::atomic::AtomicUsize;

#[cfg(all(test, shuttle))]
pub(crate) use explored::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::atomic::{AtomicU64, AtomicUsize};

/// The part of parking_lot's interface that the broker uses, over shuttle's locks.
#[cfg(all(test, shuttle))]
mod explored {
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::time::Instant;

    use shuttle::rand::{Rng, thread_rng};
    use shuttle::sync::{RwLockReadGuard, RwLockWriteGuard};

    use crate::deadline::TimedCondvar;

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    pub(crate) struct MutexGuard<'a, T> {
        lock: &'a Mutex<T>,
        /// `None` only while a condition variable has it.
        held: Option<shuttle::sync::MutexGuard<'a, T>>,
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            MutexGuard {
                lock: self,
                held: Some(held),
            }
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.held.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.held.as_mut().unwrap()
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let held = guard.held.take().unwrap();
            let held = self.0.wait(held).unwrap_or_else(PoisonError::into_inner);
            guard.held = Some(held);
        }
    }

    impl<T> TimedCondvar<MutexGuard<'_, T>> for Condvar {
        fn wait(&self, guard: &mut MutexGuard<'_, T>) {
            Condvar::wait(self, guard);
        }

        /// A schedule has no time: a deadline may pass at any moment, and a condition variable may also wake up for
        /// nothing. So this only lets other threads run; a test of a wakeup waits without a deadline.
        fn wait_until(&self, guard: &mut MutexGuard<'_, T>, _deadline: Instant) -> bool {
            guard.held = None;
            shuttle::thread::yield_now();
            guard.held = guard.lock.lock().held;
            thread_rng().r#gen()
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
