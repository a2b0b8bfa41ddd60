//! What is remembered of connections, by the address of their clients: whose poll is parked, and whose are bad_connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::broker::Waiter;

/// The parked polls, so that those of clients that are gone can be found.
#[derive(Default)]
pub(in crate::server) struct ParkedPeers(Mutex<HashMap<SocketAddr, Arc<Waiter>>>);

impl ParkedPeers {
    /// Does `wait` with the poll on the list.
    pub(in crate::server) fn during<T>(
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

    pub(in crate::server) fn snapshot(&self) -> Vec<(SocketAddr, Arc<Waiter>)> {
        self.0
            .lock()
            .iter()
            .map(|(remote, waiter)| (*remote, waiter.clone()))
            .collect()
    }
}

/// The oldest is forgotten beyond this number.
const MAX_BAD_CONNECTIONS: usize = 4096;

/// Why a connection is of no more use. tiny_http can't be told to close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum BadConnection {
    /// A request had no clear end. What comes after it may be the rest of its body, though tiny_http takes it for another
    /// request; none of it may be served (RFC 9112, section 11.2).
    UnknownFraming,
    /// The client does not read, so that there is no use in answering it, which waits for the write timeout each time.
    NotReading,
}

/// The connections that are of no more use.
#[derive(Default)]
pub(in crate::server) struct BadConnections {
    /// With the time of the last request.
    connections: Mutex<HashMap<SocketAddr, (BadConnection, Instant)>>,
    /// False where there is none, as nearly always.
    any: AtomicBool,
}

impl BadConnections {
    pub(in crate::server) fn add(&self, remote: Option<SocketAddr>, why: BadConnection) {
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

    pub(in crate::server) fn get(&self, remote: Option<SocketAddr>) -> Option<BadConnection> {
        if !self.any.load(Relaxed) {
            return None;
        }
        let mut connections = self.connections.lock();
        let (why, last) = connections.get_mut(&remote?)?;
        *last = Instant::now();
        Some(*why)
    }

    /// Forgets connections that have said nothing for so long that tiny_http has ended them.
    pub(in crate::server) fn forget(&self, idle_timeout: Duration) {
        if self.any.load(Relaxed) {
            let mut connections = self.connections.lock();
            connections.retain(|_, (_, last)| last.elapsed() <= idle_timeout);
            self.any.store(!connections.is_empty(), Relaxed);
        }
    }
}
