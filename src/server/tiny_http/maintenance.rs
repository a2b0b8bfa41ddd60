//! [`Maintenance`]: one thread that checks the accept loops, the clients that hang up and the events that expire, and that
//! ends the other threads after the stop.
//!
//! It connects to the server's own address, for two reasons. tiny_http strands connections that come in a burst, until some
//! other connection ends: a probe connects and closes, which makes a thread of tiny_http's take a stranded connection. And
//! a heartbeat, which is a request, shows whether connections are accepted. Where connections to itself are forbidden, the
//! server goes on without.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{Shared, peers, wait_until, workers};
use crate::error::{Error, ErrorKind};
use crate::server::info::OnFailure;
use crate::server::listen;

/// The time between two checks while new clients come, and at other times.
const BUSY_PERIOD: Duration = Duration::from_millis(100);
const QUIET_PERIOD: Duration = Duration::from_secs(1);
/// The longest time between two heartbeats.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(3);
/// For how long after a new client others are expected.
const BUSY: Duration = Duration::from_secs(2);
/// The probes of one check while new clients come: one for each, and at least and at most this number.
const PROBES: (usize, usize) = (4, 1000);
/// A heartbeat that is not received for this long puts the accept loop in doubt.
const UNANSWERED: Duration = Duration::from_millis(500);
/// The pause after another acceptor was opened because of doubt, and after a failure.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);
const FAILURE_PAUSE: Duration = Duration::from_millis(300);
/// The most acceptors because of doubt.
const MAX_ACCEPTORS: usize = 32;
/// An acceptor that is not the newest and has received nothing for this long, not even a heartbeat, has ended.
const LIFELESS: Duration = Duration::from_secs(120);
/// The longest time that a connection to the own address takes, and the pause after one that failed: a firewall that drops
/// packets costs the former each time.
const CONNECT: Duration = Duration::from_millis(100);
const BLOCKED: Duration = Duration::from_secs(2);
/// Looking for clients that have hung up takes one part in this number of the time at most.
const HANG_UP_SHARE: u32 = 50;

pub(super) struct Maintenance {
    shared: Arc<Shared>,
    own_address: SocketAddr,
    last_new: Instant,
    /// The heartbeat on its way: its connection, open until it has been received, when it was sent, and the number of
    /// those received before.
    heartbeat: Option<(TcpStream, Instant, usize)>,
    last_heartbeat: Option<Instant>,
    /// Connections of heartbeats that were not received in time: tiny_http panics over a request whose connection has been
    /// reset.
    unanswered: VecDeque<TcpStream>,
    /// The accept loop of the newest acceptor may have ended silently.
    is_doubted: bool,
    /// No connection is accepted, since this time.
    failing: Option<Instant>,
    next_open: Instant,
    next_connect: Instant,
    /// Connections to the own address that have failed one after another.
    failed_connects: usize,
    next_look: Instant,
    on_failure: Option<OnFailure>,
}

impl Maintenance {
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
        let now = Instant::now();
        let maintenance = Maintenance {
            shared: shared.clone(),
            own_address: listen::own_address(shared.listener.address),
            last_new: now,
            heartbeat: None,
            last_heartbeat: None,
            unanswered: VecDeque::new(),
            is_doubted: false,
            failing: None,
            next_open: now,
            next_connect: now,
            failed_connects: 0,
            next_look: now,
            on_failure: shared.service.info.on_failure.clone(),
        };
        let thread = thread::Builder::new().name("long-polling-maintenance".into());
        let thread = thread.spawn(move || maintenance.run())?;
        let _ = shared.listener.maintenance.set(thread.thread().clone());
        Ok(())
    }

    fn run(mut self) {
        let shared = self.shared.clone();
        while !shared.listener.is_closing() {
            self.probe();
            self.check_acceptors();
            self.look_for_hang_ups();
            shared.service.broker.sweep();
            shared
                .connections
                .forget_silent(shared.listener.idle_timeout);
            let period = if self.is_busy() || self.heartbeat.is_some() || self.failing.is_some() {
                BUSY_PERIOD
            } else {
                QUIET_PERIOD
            };
            thread::park_timeout(period.min(shared.listener.idle_timeout / 4));
        }
        self.drain_connections();
    }

    fn is_busy(&self) -> bool {
        self.last_new.elapsed() < BUSY
    }

    /// Makes probes for new clients, and sends a heartbeat where one is due.
    fn probe(&mut self) {
        let new = self.shared.connections.take_new();
        if new > 0 {
            self.last_new = Instant::now();
        }
        if self.is_busy() {
            let probes = new.clamp(PROBES.0, PROBES.1);
            let _ = (0..probes).all(|_| self.connect().is_some());
        }
        let received = self.shared.listener.heartbeats_received.load(SeqCst);
        if let Some((stream, sent, before)) = self.heartbeat.take() {
            if received != before {
                self.is_doubted = false;
            } else if sent.elapsed() < UNANSWERED {
                self.heartbeat = Some((stream, sent, before));
                return;
            } else {
                // It may be stranded itself, so a new client counts, too.
                self.is_doubted |= self.last_new < sent;
                self.unanswered.push_front(stream);
                self.unanswered.truncate(16);
            }
        }
        let is_recent = |last: Instant| {
            last.elapsed() < HEARTBEAT_PERIOD.min(self.shared.listener.idle_timeout / 4)
        };
        if self.is_busy() || self.failing.is_some() || !self.last_heartbeat.is_some_and(is_recent) {
            self.heartbeat = self
                .send_heartbeat()
                .map(|stream| (stream, Instant::now(), received));
            self.last_heartbeat = Some(Instant::now());
        }
    }

    fn send_heartbeat(&mut self) -> Option<TcpStream> {
        let path = &self.shared.listener.heartbeat_path;
        let request = format!("GET {path} HTTP/1.1\r\nHost: self\r\nConnection: close\r\n\r\n");
        let mut stream = self.connect()?;
        stream.write_all(request.as_bytes()).ok()?;
        Some(stream)
    }

    fn connect(&mut self) -> Option<TcpStream> {
        if Instant::now() < self.next_connect {
            return None;
        }
        let connected = TcpStream::connect_timeout(&self.own_address, CONNECT);
        #[cfg(test)]
        let connected = connected.and_then(|stream| {
            let is_unreachable = self.shared.listener.is_unreachable.load(SeqCst);
            if is_unreachable {
                Err(io::Error::other("a test"))
            } else {
                Ok(stream)
            }
        });
        match connected {
            Ok(stream) => {
                self.failed_connects = 0;
                // Closing resets the connection, which leaves none in TIME_WAIT.
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                Some(stream)
            }
            Err(error) => {
                self.next_connect = Instant::now() + BLOCKED;
                self.failed_connects += 1;
                // One alone may have met a busy moment.
                if self.failed_connects == 3 {
                    log::warn!(
                        "the server can't connect to its own address {}: {error}; it serves all the same, but connections \
                         that arrive in a burst may wait for one another: allow connections from this host to that \
                         address",
                        self.own_address
                    );
                }
                None
            }
        }
    }

    /// Opens another acceptor where the newest one has ended, and retires those that have ended for long.
    fn check_acceptors(&mut self) {
        let listener = &self.shared.listener;
        let acceptors = listener.acceptors();
        let Some((newest, older)) = acceptors.split_last() else {
            return;
        };
        for acceptor in older {
            let limit = if acceptor.error().is_some() {
                Duration::ZERO
            } else {
                LIFELESS
            };
            if acceptor.quiet_for() > limit.max(listener.idle_timeout) {
                listener.retire(acceptor);
            }
        }
        let error = newest.error();
        if let Some(error) = error {
            self.fail(error);
        } else if newest.opened.elapsed() > FAILURE_PAUSE
            && !self.is_doubted
            && let Some(since) = self.failing.take()
        {
            log::warn!("connections are accepted again after {:?}", since.elapsed());
        }
        let is_doubted = self.is_doubted && acceptors.len() < MAX_ACCEPTORS;
        if (error.is_none() && !is_doubted) || Instant::now() < self.next_open {
            return;
        }
        let opened = self.shared.listener.reopen();
        let received = opened.and_then(|opened| workers::receive_at(&self.shared, &opened));
        let pause = if error.is_some() || received.is_err() {
            FAILURE_PAUSE
        } else {
            DOUBT_PAUSE
        };
        self.next_open = Instant::now() + pause;
        match received {
            Ok(()) => self.is_doubted = false,
            Err(error) => self.fail(&error),
        }
    }

    /// Records that no connection is accepted, and calls the program's callback after the restore timeout.
    fn fail(&mut self, error: &io::Error) {
        // A stop has shut the socket down, so that it accepts nothing.
        if self.shared.listener.is_closing() {
            return;
        }
        let since = *self.failing.get_or_insert_with(|| {
            log::warn!("accepting connections failed: {error}; the server tries again");
            Instant::now()
        });
        let is_long = since.elapsed() >= self.shared.service.info.restore_timeout;
        if is_long && let Some(on_failure) = self.on_failure.take() {
            let message = format!(
                "no connection could be accepted for {:?}: {error}; the server tries again; free descriptors, threads or \
                 memory, or allow the process more",
                since.elapsed()
            );
            on_failure.call(Error::new(ErrorKind::ServingFailed, message));
        }
    }

    /// Ends the polls of clients that have hung up, where the system lists connections.
    fn look_for_hang_ups(&mut self) {
        let now = Instant::now();
        if now < self.next_look {
            return;
        }
        // In this order: the client of a poll that is parked now is connected now, unless it has hung up.
        let parked = self.shared.connections.parked();
        if !parked.is_empty()
            && let Some(connected) = peers::connected(self.shared.listener.address.port())
        {
            let gone = parked
                .iter()
                .filter(|(peer, _)| !connected.contains(&peers::key(*peer)));
            gone.for_each(|(_, waiter)| waiter.hang_up());
            self.next_look = now + QUIET_PERIOD.max(HANG_UP_SHARE * now.elapsed());
        }
    }

    /// Serves for as long as clients keep connections open, so that none waits for an answer that never comes; then ends
    /// all threads.
    fn drain_connections(self) {
        let Shared {
            listener, workers, ..
        } = &*self.shared;
        let deadline = Instant::now() + listener.idle_timeout;
        // Only the clients that are connected now: another program may take the port, and have clients of its own.
        let connected = || peers::connected(listener.address.port());
        let mut here = connected();
        while here.as_ref().is_none_or(|here| !here.is_empty()) && Instant::now() < deadline {
            thread::park_timeout(BUSY_PERIOD);
            if let (Some(here), Some(connected)) = (&mut here, connected()) {
                here.retain(|client| connected.contains(client));
            }
        }
        // A request of theirs may still be on its way through tiny_http.
        thread::park_timeout(BUSY_PERIOD);
        wait_until(deadline, || self.shared.in_flight.load(SeqCst) == 0);
        listener.close();
        workers.close();
    }
}
