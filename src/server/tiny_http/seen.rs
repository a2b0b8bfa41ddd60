//! [`Seen`]: which connections have sent a request before.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use super::peers::without_scope;
use crate::atomic::AtomicU64;

/// The connections that have sent a request, in a hash table of fixed size without chains. Two connections with the same
/// slot replace each other, and are both seen as new again and again: that costs probes, and nothing else.
pub(super) struct Seen {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Seen {
    const SLOTS: usize = 1 << 13;

    pub(super) fn new() -> Self {
        Seen {
            slots: (0..Seen::SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Adds a connection. Returns `true` if it was not there.
    pub(super) fn insert(&self, remote: SocketAddr) -> bool {
        let (slot, hash) = self.slot(remote);
        let new = slot.load(Relaxed) != hash;
        if new {
            slot.store(hash, Relaxed);
        }
        new
    }

    pub(super) fn contains(&self, remote: SocketAddr) -> bool {
        let (slot, hash) = self.slot(remote);
        slot.load(Relaxed) == hash
    }

    fn slot(&self, remote: SocketAddr) -> (&AtomicU64, u64) {
        let hash = self.hasher.hash_one(without_scope(remote));
        (&self.slots[hash as usize % Seen::SLOTS], hash)
    }
}
