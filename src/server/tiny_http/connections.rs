//! Records of connections, by the address of their clients: parked polls, and connections that can't be used any more.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::broker::Waiter;

/// The parked polls, so that maintenance finds the polls of clients that have hung up.
#[derive(Default)]
pub(super) struct ParkedPeers(Mutex<HashMap<SocketAddr, Arc<Waiter>>>);

impl ParkedPeers {
    /// Runs `wait` while the poll is on the list.
    pub(super) fn during<T>(
        &self,
        remote: Option<SocketAddr>,
        waiter: &Arc<Waiter>,
        wait: impl FnOnce() -> T,
    ) -> T {
        let Some(remote) = remote else { return wait() };
        self.0.lock().insert(remote, waiter.clone());
        let done = wait();
        self.0.lock().remove(&remote);
        done
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub(super) fn snapshot(&self) -> Vec<(SocketAddr, Arc<Waiter>)> {
        self.0
            .lock()
            .iter()
            .map(|(remote, waiter)| (*remote, waiter.clone()))
            .collect()
    }
}

/// Beyond this number of records, the oldest one is removed.
const MAX_BAD_CONNECTIONS: usize = 4096;

/// Why a connection can't be used any more. tiny_http has no means to close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadConnection {
    /// The end of a request is unknown. What follows may be the rest of its body, though tiny_http takes it for another
    /// request; none of it may be served (RFC 9112, section 11.2).
    UnknownFraming,
    /// The client does not read its answers. Each further answer would wait for the write timeout.
    NotReading,
}

/// The connections that can't be used any more.
#[derive(Default)]
pub(super) struct BadConnections {
    /// With the time of the last request.
    connections: Mutex<HashMap<SocketAddr, (BadConnection, Instant)>>,
    /// False while there is none, as nearly always.
    any: AtomicBool,
}

impl BadConnections {
    pub(super) fn add(&self, remote: Option<SocketAddr>, why: BadConnection) {
        let Some(remote) = remote else { return };
        let mut connections = self.connections.lock();
        if connections.len() >= MAX_BAD_CONNECTIONS
            && let Some((&oldest, _)) = connections.iter().min_by_key(|(_, (_, last))| *last)
        {
            connections.remove(&oldest);
        }
        connections.insert(remote, (why, Instant::now()));
        self.any.store(true, Relaxed);
    }

    pub(super) fn get(&self, remote: Option<SocketAddr>) -> Option<BadConnection> {
        if !self.any.load(Relaxed) {
            return None;
        }
        let mut connections = self.connections.lock();
        let (why, last) = connections.get_mut(&remote?)?;
        *last = Instant::now();
        Some(*why)
    }

    /// Removes connections that have been silent for the idle timeout, so that tiny_http has ended them.
    pub(super) fn remove_idle(&self, idle_timeout: Duration) {
        if self.any.load(Relaxed) {
            let mut connections = self.connections.lock();
            connections.retain(|_, (_, last)| last.elapsed() <= idle_timeout);
            self.any.store(!connections.is_empty(), Relaxed);
        }
    }
}
