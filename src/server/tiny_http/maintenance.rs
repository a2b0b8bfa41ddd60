//! One thread that checks the accept loop, the clients that hang up and the events that expire: [`start`].
//!
//! It connects to the own address for two reasons. tiny_http strands connections that come in a burst, until some other
//! connection ends: a probe connects and closes, so that a thread of tiny_http's takes a stranded connection. And a
//! heartbeat, which is a request, shows whether connections are accepted. Where a firewall forbids both, the server serves.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::listener::Listener;
use super::{Backend, peers, workers};
use crate::server::accept_failure::AcceptFailure;
use crate::server::listen;

/// The time between two checks while new clients come, and at other times.
const BUSY_PERIOD: Duration = Duration::from_millis(100);
const QUIET_PERIOD: Duration = Duration::from_secs(1);
/// For how long after a new client others are expected.
const BUSY: Duration = Duration::from_secs(2);
/// The least number of probes at a time.
const PROBES: usize = 8;
/// The longest time between two heartbeats.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(3);
/// The accept loop has ended if a heartbeat gets no answer in `STEPS` times this time.
const STEP: Duration = Duration::from_millis(100);
const STEPS: usize = 5;
/// The least time between two acceptors. One that reports no error for this long is well.
const REOPEN_PAUSE: Duration = Duration::from_millis(300);

struct Maintenance {
    backend: Arc<Backend>,
    last_new: Instant,
    next_heartbeat: Instant,
    failure: AcceptFailure,
    next_look: Instant,
}

pub(super) fn start(backend: &Arc<Backend>) -> io::Result<()> {
    let now = Instant::now();
    let maintenance = Maintenance {
        backend: backend.clone(),
        last_new: now,
        next_heartbeat: now,
        failure: AcceptFailure::new(&backend.service.info),
        next_look: now,
    };
    let thread = thread::Builder::new().name("long-polling-maintenance".into());
    let thread = thread.spawn(move || maintenance.run())?;
    let _ = backend.listener.maintenance.set(thread.thread().clone());
    Ok(())
}

impl Maintenance {
    fn run(mut self) {
        let backend = self.backend.clone();
        let listener = &backend.listener;
        while !listener.is_stopping() {
            let is_busy = self.probe();
            let is_accepting = self.heartbeat(is_busy);
            self.check_acceptor(is_accepting);
            self.look_at_clients();
            backend.service.broker.sweep();
            let period = if is_busy { BUSY_PERIOD } else { QUIET_PERIOD };
            thread::park_timeout(period.min(listener.idle_timeout / 4));
        }
        // Until no client keeps a connection open, so that none waits for an answer that never comes.
        let deadline = Instant::now() + listener.idle_timeout;
        // Another program may take the port, and have clients of its own.
        let connected = || peers::connected(listener.address.port());
        let mut here = connected();
        let mut pause = BUSY_PERIOD;
        while here.as_ref().is_none_or(|here| !here.is_empty()) && Instant::now() < deadline {
            thread::park_timeout(pause);
            // A client may keep its connection for long, and each look takes milliseconds.
            pause = (2 * pause).min(2 * QUIET_PERIOD);
            if let (Some(here), Some(connected)) = (&mut here, connected()) {
                here.retain(|client| connected.contains(client));
            }
        }
        // A request of theirs may still be on its way through tiny_http.
        thread::park_timeout(BUSY_PERIOD);
        backend.wait_until_done(deadline);
        backend.is_closed.store(true, SeqCst);
    }

    /// Makes probes while new clients come. Returns whether they do.
    fn probe(&mut self) -> bool {
        let new = self.backend.connections.take_new();
        if new > 0 {
            self.last_new = Instant::now();
        }
        let is_busy = self.last_new.elapsed() < BUSY || self.failure.is_ongoing();
        if is_busy {
            probe(&self.backend.listener, new.clamp(PROBES, 1000));
        }
        is_busy
    }

    /// Sends a heartbeat, if one is due. Returns `false` if the accept loop has ended.
    fn heartbeat(&mut self, is_busy: bool) -> bool {
        let listener = &self.backend.listener;
        if !is_busy && Instant::now() < self.next_heartbeat {
            return true;
        }
        self.next_heartbeat = Instant::now() + HEARTBEAT_PERIOD.min(listener.idle_timeout / 4);
        let path = &listener.heartbeat_path;
        let request = format!("GET {path} HTTP/1.1\r\nHost: self\r\nConnection: close\r\n\r\n");
        let Ok(mut stream) = connect(listener) else {
            return true;
        };
        if stream.write_all(request.as_bytes()).is_err() {
            return true;
        }
        for _ in 0..STEPS {
            // tiny_http closes the connection, once the heartbeat has been received.
            if stream.read(&mut [0]).is_ok() {
                return true;
            }
            // It may be stranded, as others then are.
            self.last_new = Instant::now();
            // No more at a time: tiny_http panics over each that is reset before it is accepted.
            probe(listener, PROBES);
        }
        self.backend.connections.take_new() > 0
    }

    /// Opens another acceptor where the newest one has ended.
    fn check_acceptor(&mut self, is_accepting: bool) {
        let backend = self.backend.clone();
        let newest = backend.listener.newest();
        let is_old = newest.opened.elapsed() > REOPEN_PAUSE;
        if let Some(error) = newest.error.get() {
            self.fail(error);
        } else if is_accepting {
            if is_old {
                self.failure.end();
            }
            return;
        }
        if is_old {
            let opened = backend.listener.reopen();
            let receives = opened.and_then(|opened| workers::receive_at(&backend, &opened));
            receives.unwrap_or_else(|error| self.fail(&error));
        }
    }

    fn fail(&mut self, error: &io::Error) {
        // A stop has shut the socket down, so that it accepts nothing.
        if !self.backend.listener.is_stopping() {
            self.failure.begin(error);
        }
    }

    /// Ends the polls of clients that have hung up, and refuses none any more whose connection has ended: where the system
    /// lists connections, and otherwise after the idle timeout, at which tiny_http ends them.
    fn look_at_clients(&mut self) {
        let now = Instant::now();
        if now < self.next_look {
            return;
        }
        let connections = &self.backend.connections;
        let idle_timeout = self.backend.listener.idle_timeout;
        // In this order: the client of a poll that is parked now is connected now, unless it has hung up.
        let (parked, refused) = (connections.parked(), connections.refused(QUIET_PERIOD));
        if parked.is_empty() && refused.is_empty() {
            return;
        }
        let gone = self.missing(parked, |(peer, _)| *peer, peers::connected);
        gone.iter().for_each(|(_, waiter)| waiter.hang_up());
        let silent = connections.refused(idle_timeout);
        let ended = self.missing(refused, |peer| *peer, peers::held);
        let ended = ended.into_iter().chain(silent);
        ended.for_each(|peer| connections.forget(peer));
        // The kernel walks its table of all sockets for that, which takes milliseconds.
        self.next_look = now + (20 * now.elapsed()).clamp(QUIET_PERIOD, 2 * QUIET_PERIOD);
    }

    /// Returns the clients that the system's list lacks. While others connect and hang up, it may lack a client that is
    /// there: one that has gone is in none of two lists.
    fn missing<T>(
        &self,
        mut clients: Vec<T>,
        peer: fn(&T) -> SocketAddr,
        list: fn(u16) -> Option<HashSet<String>>,
    ) -> Vec<T> {
        for _ in 0..2 {
            if clients.is_empty() {
                break;
            }
            let Some(listed) = list(self.backend.listener.address.port()) else {
                return Vec::new();
            };
            clients.retain(|client| !listed.contains(&peers::key(peer(client))));
        }
        clients
    }
}

fn probe(listener: &Listener, probes: usize) {
    (0..probes).all(|_| connect(listener).is_ok());
}

/// Connects to the own address. Closing the connection resets it, which leaves none in TIME_WAIT.
fn connect(listener: &Listener) -> io::Result<TcpStream> {
    #[cfg(test)]
    listener.check_reachable()?;
    // A firewall that drops packets costs a step.
    let stream = TcpStream::connect_timeout(&listen::own_address(listener.address), STEP)
        .inspect_err(|error| log::debug!("the server can't connect to its own address: {error}"))?;
    stream.set_read_timeout(Some(STEP))?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(stream)
}
