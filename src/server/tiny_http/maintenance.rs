//! The thread that tends the listener: it looks after the accept loops, the workers, the clients that hang up and the events
//! that expire, and after the stop it sees the last connections off.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::acceptor::Acceptor;
use super::listener::Round;
use super::peers;
use super::workers::WorkerPool;
use crate::error::{Error, ErrorKind};
use crate::server::Inner;
use crate::server::info::OnFailure;

/// How often the workers is looked after, and who is connected; the latter less often where looking takes long.
const LOOK: Duration = Duration::from_millis(100);
/// A client that sends nothing for so long after it connected may have been accepted by nobody.
const UNSERVED: Duration = Duration::from_millis(500);
/// How often expired events are looked for.
const SWEEP: Duration = Duration::from_secs(1);

pub(in crate::server) struct Maintenance {
    inner: Arc<Inner>,
    workers: Arc<WorkerPool>,
    acceptors: Vec<Watched>,
    /// The clients that were connected at the last look, each with the time of the look that found it first.
    connected: HashMap<SocketAddr, Instant>,
    on_failure: Option<OnFailure>,
    next_look: Instant,
    next_peers: Instant,
    next_sweep: Instant,
}

/// A acceptor, how many requests it has given, and since when no more.
struct Watched {
    acceptor: Arc<Acceptor>,
    given: u64,
    since: Instant,
}

impl Maintenance {
    pub(in crate::server) fn start(inner: Arc<Inner>, workers: Arc<WorkerPool>) -> io::Result<()> {
        let now = Instant::now();
        let on_failure = inner.info.on_failure.clone();
        let maintenance = Maintenance {
            inner,
            workers,
            acceptors: Vec::new(),
            connected: HashMap::new(),
            on_failure,
            next_look: now,
            next_peers: now,
            next_sweep: now,
        };
        let thread = thread::Builder::new().name("long-polling-listener".into());
        thread.spawn(move || maintenance.run()).map(drop)
    }

    fn run(mut self) {
        let inner = self.inner.clone();
        loop {
            let busy = self
                .acceptors
                .iter()
                .any(|watched| watched.since.elapsed() < Duration::from_secs(1));
            match inner.listener.tick(busy) {
                Round::Closing => break,
                Round::Well => {}
                Round::Failing(since, why) => self.failing(since, &why),
                Round::Opened(acceptor) => {
                    if let Err(error) = self.workers.receive_at(&acceptor) {
                        log::warn!("no thread can be had to receive requests: {error}");
                    }
                }
            }
            self.look_after();
        }
        self.drain_connections();
    }

    /// Gives back what others may need to go on, and tells who asked to be told.
    fn failing(&mut self, since: Instant, why: &str) {
        self.look_at_peers();
        self.workers.dismiss_idle();
        if since.elapsed() < self.inner.info.restore_timeout {
            return;
        }
        if let Some(on_failure) = self.on_failure.take() {
            let message = format!("no connection could be accepted for {:?}", since.elapsed());
            on_failure.call(Error::new(ErrorKind::ServingFailed, message).with_source(why));
        }
    }

    /// Everything that is to be done now and then.
    fn look_after(&mut self) {
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + LOOK;
            self.look_after_gates();
        }
        if now >= self.next_peers {
            self.look_at_peers();
            self.next_peers = Instant::now() + LOOK.max(20 * now.elapsed());
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.inner.broker.sweep();
            self.inner
                .bad_connections
                .forget(self.inner.info.effective_idle_timeout());
        }
    }

    fn look_after_gates(&mut self) {
        let Inner { listener, info, .. } = &*self.inner;
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
            if given != watched.given {
                (watched.given, watched.since) = (given, Instant::now());
            } else if watched.since.elapsed() > info.effective_idle_timeout() {
                listener.retire(&acceptor);
            }
        }
    }

    /// Looks up who is connected: the listener learns of new clients and of those that nobody serves, the threads of parked
    /// polls whose clients are gone are woken, and the refused bodies of such clients are closed.
    fn look_at_peers(&mut self) {
        // In this order: the client of a poll that is parked now is connected now, unless it has hung up.
        let parked = self.inner.parked.snapshot();
        let Inner {
            listener, unread, ..
        } = &*self.inner;
        let Some(connected) = peers::connected(listener.address()) else {
            return;
        };
        let now = Instant::now();
        let newcomers = connected
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
        listener.connected(newcomers, unserved);
        let gone = parked
            .iter()
            .filter(|(remote, _)| !connected.contains(&peers::without_scope(*remote)));
        gone.for_each(|(_, waiter)| waiter.hang_up());
        unread.look_after(&connected);
    }

    /// As long as clients keep connections open, whatever they still send is answered, so that none hangs; then all
    /// threads end.
    fn drain_connections(mut self) {
        let address = self.inner.listener.address();
        let deadline = Instant::now() + self.inner.info.effective_idle_timeout();
        // Only those that are here now: somebody else may take the port, and have clients of its own.
        let mut here: Option<HashSet<SocketAddr>> = peers::connected(address);
        while here.as_ref().is_none_or(|here| !here.is_empty()) && Instant::now() < deadline {
            thread::park_timeout(LOOK);
            self.look_after();
            if let (Some(here), Some(connected)) = (&mut here, peers::connected(address)) {
                here.retain(|remote| connected.contains(remote));
            }
        }
        // A request of theirs may still be on its way through tiny_http.
        self.workers.wait_until_done(Instant::now() + LOOK);
        self.inner.listener.close();
        self.workers.close();
    }
}
