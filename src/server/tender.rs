//! The thread that tends the door: it looks after the accept loops, the crew, the clients that hang up and the events
//! that expire, and after the stop it sees the last connections off.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::crew::Crew;
use super::door::Round;
use super::gate::Gate;
use super::info::OnFailure;
use super::{Inner, peers};
use crate::error::{Error, ErrorKind};

/// How often the crew is looked after, and who is connected; the latter less often where looking takes long.
const LOOK: Duration = Duration::from_millis(100);
/// A client that sends nothing for so long after it connected may have been accepted by nobody.
const UNSERVED: Duration = Duration::from_millis(500);
/// How often expired events are looked for.
const SWEEP: Duration = Duration::from_secs(1);

pub(super) struct Tender {
    inner: Arc<Inner>,
    crew: Arc<Crew>,
    gates: Vec<Watched>,
    /// The clients that were connected at the last look, each with the time of the look that found it first.
    connected: HashMap<SocketAddr, Instant>,
    on_failure: Option<OnFailure>,
    next_look: Instant,
    next_peers: Instant,
    next_sweep: Instant,
}

/// A gate, how many requests it has given, and since when no more.
struct Watched {
    gate: Arc<Gate>,
    given: u64,
    since: Instant,
}

impl Tender {
    pub(super) fn start(inner: Arc<Inner>, crew: Arc<Crew>) -> io::Result<()> {
        let now = Instant::now();
        let on_failure = inner.info.on_failure.clone();
        let tender = Tender {
            inner,
            crew,
            gates: Vec::new(),
            connected: HashMap::new(),
            on_failure,
            next_look: now,
            next_peers: now,
            next_sweep: now,
        };
        let thread = thread::Builder::new().name("long-polling-door".into());
        thread.spawn(move || tender.run()).map(drop)
    }

    fn run(mut self) {
        let inner = self.inner.clone();
        loop {
            let busy = self
                .gates
                .iter()
                .any(|watched| watched.since.elapsed() < Duration::from_secs(1));
            match inner.door.tend(busy) {
                Round::Closing => break,
                Round::Well => {}
                Round::Failing(since, why) => self.failing(since, &why),
                Round::Opened(gate) => {
                    if let Err(error) = self.crew.receive_at(&gate) {
                        log::warn!("no thread can be had to receive requests: {error}");
                    }
                }
            }
            self.look_after();
        }
        self.see_off();
    }

    /// Gives back what others may need to go on, and tells who asked to be told.
    fn failing(&mut self, since: Instant, why: &str) {
        self.look_at_peers();
        self.crew.dismiss_idle();
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
                .spoiled
                .forget(self.inner.info.effective_idle_timeout());
        }
    }

    fn look_after_gates(&mut self) {
        let Inner { door, info, .. } = &*self.inner;
        let gates = door.gates();
        self.gates
            .retain(|watched| gates.iter().any(|gate| Arc::ptr_eq(gate, &watched.gate)));
        for gate in gates {
            let Some(watched) = self
                .gates
                .iter_mut()
                .find(|watched| Arc::ptr_eq(&watched.gate, &gate))
            else {
                let (_, given) = gate.progress();
                self.gates.push(Watched {
                    gate,
                    given,
                    since: Instant::now(),
                });
                continue;
            };
            let given = self.crew.relieve(&gate, watched.given);
            if given != watched.given {
                (watched.given, watched.since) = (given, Instant::now());
            } else if watched.since.elapsed() > info.effective_idle_timeout() {
                door.retire(&gate);
            }
        }
    }

    /// Looks up who is connected: the door learns of new clients and of those that nobody serves, the threads of parked
    /// polls whose clients are gone are woken, and the refused bodies of such clients are closed.
    fn look_at_peers(&mut self) {
        // In this order: the client of a poll that is parked now is connected now, unless it has hung up.
        let parked = self.inner.parked.snapshot();
        let Inner { door, unread, .. } = &*self.inner;
        let Some(connected) = peers::connected(door.address()) else {
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
            .filter(|(remote, since)| now - **since > UNSERVED && !door.has_seen(**remote))
            .map(|(_, since)| *since)
            .max();
        door.connected(newcomers, unserved);
        let gone = parked
            .iter()
            .filter(|(remote, _)| !connected.contains(&peers::without_scope(*remote)));
        gone.for_each(|(_, waiter)| waiter.hang_up());
        unread.look_after(&connected);
    }

    /// As long as clients keep connections open, whatever they still send is answered, so that none hangs; then all
    /// threads end.
    fn see_off(mut self) {
        let address = self.inner.door.address();
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
        self.crew.wait_until_done(Instant::now() + LOOK);
        self.inner.door.close();
        self.crew.close();
    }
}
