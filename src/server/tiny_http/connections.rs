//! [`Connections`]: what is known of connections, by the addresses of their clients: tiny_http has no other name for them.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::broker::Waiter;

/// Slots of the table of clients seen.
const SEEN: usize = 1 << 13;

/// The connections of which a request is being served, and those that are refused.
#[derive(Default)]
pub(super) struct Connections(Mutex<Table>);

#[derive(Default)]
struct Table {
    connections: HashMap<SocketAddr, Connection>,
    /// Hashes of clients that have sent a request. Two clients with the same slot replace each other, and are both new
    /// again and again: that costs probes, and nothing else.
    seen: Vec<u64>,
    hasher: RandomState,
    /// New clients since the last check.
    new: usize,
}

#[derive(Default)]
struct Connection {
    is_in_use: bool,
    /// Requests that came after the one being served. A connection's answers leave in order, so a worker that served one
    /// of these at the same time would wait for the first.
    queue: VecDeque<tiny_http::Request>,
    /// The parked poll.
    waiter: Option<Arc<Waiter>>,
    /// Nothing more of this connection may be served. With the time of the last request.
    refused: Option<Instant>,
}

/// The address of the client that sent this request. tiny_http knows it for every connection of TCP.
pub(super) fn peer(request: &tiny_http::Request) -> SocketAddr {
    let unknown = (Ipv4Addr::UNSPECIFIED, 0).into();
    request.remote_addr().copied().unwrap_or(unknown)
}

impl Connections {
    /// Returns the request, unless an earlier one of its connection is still being served: then it goes to the queue. Also
    /// returns whether its client is new.
    pub(super) fn admit(&self, request: tiny_http::Request) -> (Option<tiny_http::Request>, bool) {
        let peer = peer(&request);
        let mut table = self.0.lock();
        let is_new = table.see(peer);
        let connection = table.connections.entry(peer).or_default();
        if std::mem::replace(&mut connection.is_in_use, true) {
            connection.queue.push_back(request);
            return (None, is_new);
        }
        (Some(request), is_new)
    }

    /// Called after a request of this client has been served. Returns the next one from the queue.
    pub(super) fn next(&self, peer: SocketAddr) -> Option<tiny_http::Request> {
        let mut table = self.0.lock();
        let connection = table.connections.get_mut(&peer)?;
        connection.waiter = None;
        let next = connection.queue.pop_front();
        connection.is_in_use = next.is_some();
        if !connection.is_in_use && connection.refused.is_none() {
            table.connections.remove(&peer);
        }
        next
    }

    /// Takes the number of new clients since the last call.
    pub(super) fn take_new(&self) -> usize {
        std::mem::take(&mut self.0.lock().new)
    }

    /// Records the poll that is parked for this client, until [`next`](Connections::next).
    pub(super) fn park(&self, peer: SocketAddr, waiter: &Arc<Waiter>) {
        let mut table = self.0.lock();
        table.connections.entry(peer).or_default().waiter = Some(waiter.clone());
    }

    /// The clients whose polls are parked.
    pub(super) fn parked(&self) -> Vec<(SocketAddr, Arc<Waiter>)> {
        let table = self.0.lock();
        let connections = table.connections.iter();
        let parked = connections.filter_map(|(peer, at)| Some((*peer, at.waiter.clone()?)));
        parked.collect()
    }

    /// Has later requests of this client refused. tiny_http has no means to close the connection.
    pub(super) fn refuse(&self, peer: SocketAddr) {
        let mut table = self.0.lock();
        table.connections.entry(peer).or_default().refused = Some(Instant::now());
    }

    pub(super) fn is_refused(&self, peer: SocketAddr) -> bool {
        let mut table = self.0.lock();
        let connection = table.connections.get_mut(&peer);
        let refused = connection.and_then(|connection| connection.refused.as_mut());
        refused.map(|last| *last = Instant::now()).is_some()
    }

    /// Removes refused connections that have been silent for this long, so that tiny_http has ended them.
    pub(super) fn forget_silent(&self, idle_timeout: Duration) {
        self.0.lock().connections.retain(|_, connection| {
            let is_recent = |last: Instant| last.elapsed() <= idle_timeout;
            connection.is_in_use || connection.refused.is_some_and(is_recent)
        });
    }
}

impl Table {
    /// Returns `true` if the client is new.
    fn see(&mut self, peer: SocketAddr) -> bool {
        self.seen.resize(SEEN, 0);
        let hash = self.hasher.hash_one(peer);
        let is_new = std::mem::replace(&mut self.seen[hash as usize % SEEN], hash) != hash;
        self.new += usize::from(is_new);
        is_new
    }
}
