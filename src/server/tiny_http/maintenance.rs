//! [`Maintenance`]: one thread that checks the accept loops, the workers, the clients that hang up and the events that
//! expire, and that serves the last connections after the stop.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::Shared;
use super::acceptor::Acceptor;
use super::peers::{self, OpenedConnections};
use super::rounds::{Activity, Tick};
use super::workers::WorkerPool;
use crate::error::{Error, ErrorKind};
use crate::server::info::OnFailure;

/// The time between two checks of the workers and of the connected clients.
const CHECK: Duration = Duration::from_millis(100);
/// The most time that checks of the connected clients take: one part in this many while connections are opened, and while
/// none is.
const SHARE_BUSY: u32 = 20;
const SHARE_QUIET: u32 = 200;
/// The longest time between two checks of the connected clients while a poll is parked: within twice this time, the server
/// finds that a client has hung up.
const HANG_UP: Duration = Duration::from_secs(1);
/// A client that sends nothing for this long after it connected may not have been accepted.
const UNSERVED: Duration = Duration::from_millis(500);
/// The time between two searches for expired events.
const SWEEP: Duration = Duration::from_secs(1);

pub(super) struct Maintenance {
    shared: Arc<Shared>,
    workers: Arc<WorkerPool>,
    acceptors: Vec<Watched>,
    /// The clients that were connected at the last check, each with the time of the check that found it first.
    connected: HashMap<SocketAddr, Instant>,
    /// One of them has sent nothing yet.
    has_unserved: bool,
    opened: OpenedConnections,
    /// The count of opened connections at the last look, without the server's own.
    opened_before: Option<u64>,
    on_failure: Option<OnFailure>,
    next_check: Instant,
    next_peers: Instant,
    next_sweep: Instant,
}

/// An acceptor, the number of requests that it has given out, and the time since which it has given out no more.
struct Watched {
    acceptor: Arc<Acceptor>,
    given: u64,
    since: Instant,
}

impl Maintenance {
    pub(super) fn start(shared: Arc<Shared>, workers: Arc<WorkerPool>) -> io::Result<()> {
        let now = Instant::now();
        let on_failure = shared.service.info.on_failure.clone();
        let maintenance = Maintenance {
            shared,
            workers,
            acceptors: Vec::new(),
            connected: HashMap::new(),
            has_unserved: false,
            opened: OpenedConnections::new(),
            opened_before: None,
            on_failure,
            next_check: now,
            next_peers: now,
            next_sweep: now,
        };
        let thread = thread::Builder::new().name("long-polling-maintenance".into());
        thread.spawn(move || maintenance.run()).map(drop)
    }

    fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let activity = self.activity();
            match shared.listener.tick(activity) {
                Tick::Closing => break,
                Tick::Well => {}
                Tick::Failing(since, why) => self.failing(since, &why),
                Tick::Opened(acceptor) => {
                    if let Err(error) = self.workers.receive_at(&acceptor) {
                        log::warn!("no thread could be started to receive requests: {error}");
                    }
                }
            }
            self.check(activity);
        }
        self.drain_connections();
    }

    fn activity(&mut self) -> Activity {
        let busy = self
            .acceptors
            .iter()
            .any(|watched| watched.since.elapsed() < Duration::from_secs(1));
        let own = self.shared.listener.own_connections();
        let opened = self.opened.count().map(|all| all.wrapping_sub(own));
        let unchanged = opened.is_some() && opened == self.opened_before;
        self.opened_before = opened;
        match (busy, unchanged) {
            (true, _) => Activity::Busy,
            (false, true) if !self.has_unserved => Activity::Quiet,
            _ => Activity::Unknown,
        }
    }

    /// Gives threads and descriptors back that accepting may need, and calls the program's callback after the restore
    /// timeout.
    fn failing(&mut self, since: Instant, why: &str) {
        self.check_peers();
        self.workers.end_idle();
        if since.elapsed() < self.shared.service.info.restore_timeout {
            return;
        }
        if let Some(on_failure) = self.on_failure.take() {
            let message = format!(
                "no connection could be accepted for {:?}: {why}; the server tries again; free descriptors, threads or \
                 memory, or allow the process more",
                since.elapsed()
            );
            on_failure.call(Error::new(ErrorKind::ServingFailed, message));
        }
    }

    /// Makes the checks that are due.
    fn check(&mut self, activity: Activity) {
        let now = Instant::now();
        if now >= self.next_check {
            self.next_check = now + CHECK;
            self.check_acceptors();
        }
        let quiet = activity == Activity::Quiet;
        if now >= self.next_peers && !(quiet && self.needs_no_peers()) {
            self.check_peers();
            let took = now.elapsed();
            let pause = if quiet {
                (SHARE_QUIET * took).min(HANG_UP)
            } else {
                SHARE_BUSY * took
            };
            self.next_peers = Instant::now() + pause.max(CHECK);
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            let service = &self.shared.service;
            service.broker.sweep();
            self.shared
                .bad_connections
                .remove_idle(service.info.effective_idle_timeout());
        }
    }

    /// True where nothing depends on which clients are connected.
    fn needs_no_peers(&self) -> bool {
        self.shared.parked.is_empty() && self.shared.unread.is_empty()
    }

    fn check_acceptors(&mut self) {
        let listener = &self.shared.listener;
        let acceptors = listener.acceptors();
        self.acceptors.retain(|watched| {
            acceptors
                .iter()
                .any(|acceptor| Arc::ptr_eq(acceptor, &watched.acceptor))
        });
        for acceptor in acceptors {
            let Some(watched) = self
                .acceptors
                .iter_mut()
                .find(|watched| Arc::ptr_eq(&watched.acceptor, &acceptor))
            else {
                let (_, given) = acceptor.progress();
                self.acceptors.push(Watched {
                    acceptor,
                    given,
                    since: Instant::now(),
                });
                continue;
            };
            let given = self.workers.ensure_receiver(&acceptor, watched.given);
            let idle_timeout = self.shared.service.info.effective_idle_timeout();
            if given != watched.given {
                (watched.given, watched.since) = (given, Instant::now());
            } else if watched.since.elapsed() > idle_timeout {
                listener.retire(&acceptor);
            }
        }
    }

    /// Lists the connected clients. Reports new clients and unserved ones to the listener, ends the polls of clients that
    /// have hung up, and closes their refused bodies.
    fn check_peers(&mut self) {
        // In this order: the client of a poll that is parked now is connected now, unless it has hung up.
        let parked = self.shared.parked.snapshot();
        let Shared {
            listener, unread, ..
        } = &*self.shared;
        let Some(connected) = peers::connected(listener.address()) else {
            return;
        };
        let now = Instant::now();
        let new = connected
            .iter()
            .filter(|remote| !self.connected.contains_key(remote))
            .count();
        self.connected = connected
            .iter()
            .map(|remote| (*remote, *self.connected.get(remote).unwrap_or(&now)))
            .collect();
        let unserved = self
            .connected
            .iter()
            .filter(|(remote, since)| now - **since > UNSERVED && !listener.has_seen(**remote))
            .map(|(_, since)| *since)
            .max();
        self.has_unserved = connected.iter().any(|remote| !listener.has_seen(*remote));
        listener.record_connections(new, unserved);
        parked
            .iter()
            .filter(|(remote, _)| !connected.contains(&peers::without_scope(*remote)))
            .for_each(|(_, waiter)| waiter.hang_up());
        unread.close_abandoned(&connected);
    }

    /// Serves for as long as clients keep connections open, so that none waits for an answer that never comes; then ends
    /// all threads.
    fn drain_connections(mut self) {
        let address = self.shared.listener.address();
        let deadline = Instant::now() + self.shared.service.info.effective_idle_timeout();
        // Only the clients that are connected now: another program may take the port, and have clients of its own.
        let mut here: Option<HashSet<SocketAddr>> = peers::connected(address);
        while here.as_ref().is_none_or(|here| !here.is_empty()) && Instant::now() < deadline {
            thread::park_timeout(CHECK);
            self.check(Activity::Unknown);
            if let (Some(here), Some(connected)) = (&mut here, peers::connected(address)) {
                here.retain(|remote| connected.contains(remote));
            }
        }
        // A request of theirs may still be on its way through tiny_http.
        self.workers.wait_until_done(Instant::now() + CHECK);
        self.shared.listener.close();
        self.workers.close();
    }
}
