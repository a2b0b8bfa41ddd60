//! [`Connections`]: what is known of connections, by the addresses of their clients: tiny_http has no other name for them.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::broker::Waiter;

/// The number of slots for clients that have sent a request: several times as many as connections that this backend is for.
const SEEN: usize = 1 << 16;

/// The address of a client, which tiny_http knows for every connection of TCP.
pub(super) type Peer = Option<SocketAddr>;

#[derive(Default)]
pub(super) struct Connections(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// The connections of which a request is being served.
    in_use: HashMap<Peer, Connection>,
    /// Those of which no more requests may be served, with the time of the last request.
    refused: HashMap<Peer, Instant>,
    /// Hashes of clients that have sent a request. Two with the same slot replace each other, and are both new again and
    /// again, which costs checks and probes.
    seen: Vec<u64>,
    hasher: RandomState,
    new: usize,
}

#[derive(Default)]
struct Connection {
    /// Requests that came after the one being served. A connection's answers leave in order, so a worker that served one
    /// of these at the same time would wait for the first.
    queue: VecDeque<tiny_http::Request>,
    /// The parked poll.
    waiter: Option<Arc<Waiter>>,
}

impl Connections {
    /// Returns the request, unless an earlier one of its connection is still being served: then it goes to the queue. Also
    /// returns whether its client is the first new one since [`take_new`](Connections::take_new).
    pub(super) fn admit(&self, request: tiny_http::Request) -> (Option<tiny_http::Request>, bool) {
        let peer = request.remote_addr().copied();
        let table = &mut *self.0.lock();
        table.seen.resize(SEEN, 0);
        let hash = table.hasher.hash_one(peer);
        let slot = hash as usize % table.seen.len();
        let is_new = std::mem::replace(&mut table.seen[slot], hash) != hash;
        table.new += usize::from(is_new);
        match table.in_use.entry(peer) {
            Entry::Occupied(mut connection) => connection.get_mut().queue.push_back(request),
            Entry::Vacant(free) => {
                free.insert(Connection::default());
                return (Some(request), is_new && table.new == 1);
            }
        }
        (None, is_new && table.new == 1)
    }

    /// Takes the number of new clients since the last call.
    pub(super) fn take_new(&self) -> usize {
        std::mem::take(&mut self.0.lock().new)
    }

    /// Called after a request has been served. Returns the connection's next one from the queue.
    pub(super) fn next(&self, peer: Peer) -> Option<tiny_http::Request> {
        let mut table = self.0.lock();
        let connection = table.in_use.get_mut(&peer)?;
        connection.waiter = None;
        let next = connection.queue.pop_front();
        if next.is_none() {
            table.in_use.remove(&peer);
        }
        next
    }

    /// Records the poll that is parked, until [`next`](Connections::next).
    pub(super) fn park(&self, peer: Peer, waiter: &Arc<Waiter>) {
        let mut table = self.0.lock();
        table.in_use.entry(peer).or_default().waiter = Some(waiter.clone());
    }

    /// The clients whose polls are parked.
    pub(super) fn parked(&self) -> Vec<(SocketAddr, Arc<Waiter>)> {
        let table = self.0.lock();
        let parked = table.in_use.iter();
        let parked = parked.filter_map(|(peer, at)| Some(((*peer)?, at.waiter.clone()?)));
        parked.collect()
    }

    /// Has later requests refused. tiny_http has no means to close the connection.
    pub(super) fn refuse(&self, peer: Peer) {
        self.0.lock().refused.insert(peer, Instant::now());
    }

    pub(super) fn is_refused(&self, peer: Peer) -> bool {
        let mut table = self.0.lock();
        let last = table.refused.get_mut(&peer);
        last.map(|last| *last = Instant::now()).is_some()
    }

    /// The clients that are refused, and have sent nothing for this long.
    pub(super) fn refused(&self, silence: Duration) -> Vec<SocketAddr> {
        let table = self.0.lock();
        let silent = table.refused.iter();
        let silent = silent.filter(|(_, last)| last.elapsed() > silence);
        silent.filter_map(|(peer, _)| *peer).collect()
    }

    /// Refuses a client no more: its connection has ended, and a new one may have its port.
    pub(super) fn forget(&self, peer: SocketAddr) {
        self.0.lock().refused.remove(&Some(peer));
    }
}
