//! The door: the listening socket, and what tames tiny_http's way of accepting connections.
//!
//! - tiny_http's `bind` has a backlog of 128 and sets no option: [`listen`] makes a socket of our own, whose options
//!   accepted connections inherit (on Linux).
//! - tiny_http strands connections that come in a burst, until some other connection ends. The door sends a probe for
//!   every new connection: it connects to its own address and closes, which makes a thread of tiny_http's finish and take
//!   a stranded connection.
//! - tiny_http's accept loop ends at its first error, and silently where a thread or a descriptor is missing. Another
//!   [`Gate`] is opened then: at once after a time-out of `accept`, which is no failure; and with pauses after an error, or
//!   where nothing shows that the newest gate accepts.
//! - tiny_http can't be told to stop listening while it still serves: shutting the listening socket down does that.
//!
//! Serving does not depend on probes. A new connection out of the newest gate proves it, and a probe that fails proves
//! nothing. Only an error of `accept` counts as a failure.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::gate::{Ended, Gate, Secret};
use super::info::ServerInfo;
use super::peers::without_scope;
use super::probe::Prober;
use crate::atomic::AtomicU64;
use crate::error::{Error, ErrorKind};

/// Connections that the kernel may hold until they are accepted; it has a limit of its own (on Linux
/// `net.core.somaxconn`, 4096).
const BACKLOG: i32 = 4096;
/// How often the door is looked after while requests come, and while none does.
const BUSY_ROUND: Duration = Duration::from_millis(100);
const QUIET_ROUND: Duration = Duration::from_millis(250);
/// The most probes at once.
const MOST_PROBES: usize = 1000;
/// After so long without an answer to a probe, or another new connection, another gate is opened.
const UNANSWERED: Duration = Duration::from_millis(300);
/// How long a new gate has to prove itself before yet another is opened: twice as long each time, up to the longest,
/// which grows with the time that has passed, up to the last.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_REOPEN_PAUSE: Duration = Duration::from_millis(400);
const LAST_REOPEN_PAUSE: Duration = Duration::from_secs(10);
/// Where the server can't probe itself, a gate that has reported no error for so long after a failure is well.
const SETTLED: Duration = Duration::from_secs(1);
/// A gate out of which no new connection has come for so long, while others do well, has ended.
const LIFELESS: Duration = Duration::from_secs(60);
/// The most probes that are kept for want of an answer.
const MOST_UNANSWERED: usize = 16;
/// The most gates at once, unless all of them have failed.
const MOST_GATES: usize = 32;

/// The listening socket and its gates.
pub(super) struct Door {
    listener: Mutex<TcpListener>,
    address: SocketAddr,
    prober: Prober,
    secret: Arc<Secret>,
    /// The newest is the last.
    gates: Mutex<Vec<Arc<Gate>>>,
    seen: Seen,
    idle_timeout: Duration,
    write_timeout: Duration,
    /// The longest time between probes: less than that after which accepting would time out.
    quiet_round: Duration,
    /// Locked after `gates`, where both are.
    rounds: Mutex<Rounds>,
    /// Something is to be done before the next round.
    called: Condvar,
    /// No gate can be opened, as where a thread is missing.
    #[cfg(test)]
    gates_fail: std::sync::atomic::AtomicBool,
}

#[derive(Default)]
struct Rounds {
    /// Connections seen for the first time since the last round.
    newcomers: usize,
    /// The probe that has not been received yet.
    probe: Option<Probe>,
    /// Connections of probes that were not received in time, kept open for as long as they may be: tiny_http panics over
    /// a request whose connection has been reset.
    unanswered: VecDeque<TcpStream>,
    /// `accept` failed, or no gate could be opened, and nobody was accepted since.
    failing: Option<Failing>,
    /// Nothing shows that the newest gate accepts, though something should.
    doubted: bool,
    pace: Pace,
    closing: bool,
}

/// Since when and why nobody is accepted.
struct Failing {
    since: Instant,
    why: String,
}

/// When the next gate may be opened.
struct Pace {
    /// When the first of the gates was opened that have not proved themselves by a probe.
    since: Instant,
    next: Instant,
    pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let now = Instant::now();
        Pace {
            since: now,
            next: now,
            pause: REOPEN_PAUSE,
        }
    }
}

impl Pace {
    fn opened(&mut self) {
        let now = Instant::now();
        self.next = now + self.pause;
        let longest = self.since.elapsed() / 10;
        self.pause = (2 * self.pause).min(longest.clamp(LONGEST_REOPEN_PAUSE, LAST_REOPEN_PAUSE));
    }

    /// An attempt that opened no gate costs little, so the next one comes soon.
    fn failed(&mut self) {
        self.next = Instant::now() + LONGEST_REOPEN_PAUSE.min(self.pause);
    }
}

impl Rounds {
    fn fail(&mut self, why: &str) {
        // A stop has shut the socket down, so that it accepts nothing.
        if self.closing {
            return;
        }
        let failing = self.failing.get_or_insert_with(|| {
            log::warn!("accepting connections failed: {why}; it is tried again");
            Failing {
                since: Instant::now(),
                why: String::new(),
            }
        });
        why.clone_into(&mut failing.why);
    }

    /// Somebody was accepted.
    fn recover(&mut self) {
        self.doubted = false;
        if let Some(failing) = self.failing.take() {
            log::warn!(
                "connections are accepted again after {:?}",
                failing.since.elapsed()
            );
        }
    }
}

/// A probe on its way.
struct Probe {
    /// Open until the probe has been received.
    stream: TcpStream,
    sent: Instant,
    /// Probes received at all gates before.
    proofs: u64,
}

/// What a round at the door has come to.
pub(super) enum Round {
    /// Connections are accepted, as far as is known.
    Well,
    /// They are not, since then and for that reason.
    Failing(Instant, String),
    /// A new gate, for which receivers are wanted.
    Opened(Arc<Gate>),
    Closing,
}

impl Door {
    /// Listens, and opens the first gate.
    ///
    /// # Errors
    ///
    /// `InvalidSetting` for an address that is none, `Listen` where it can't be listened on.
    pub(super) fn open(info: &ServerInfo) -> Result<(Self, Arc<Gate>), Error> {
        let mut failed = None;
        for address in info.addresses()? {
            let listener = listen(address, info.write_timeout, info.effective_idle_timeout());
            match listener.and_then(|listener| Door::at(listener, info)) {
                Ok(door) => return Ok(door),
                Err(error) => failed = Some(error),
            }
        }
        let error = failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                " (it is in use: stop what listens there, or give another port; 0 takes a free one)"
            }
            io::ErrorKind::PermissionDenied => " (ports under 1024 are for privileged programs)",
            _ => "",
        };
        let message = format!("address: can't listen on {:?}{hint}", info.address);
        Err(Error::new(ErrorKind::Listen, message).with_source(error))
    }

    fn at(listener: TcpListener, info: &ServerInfo) -> io::Result<(Self, Arc<Gate>)> {
        let address = listener.local_addr()?;
        let secret = Arc::new(Secret::new());
        let gate = Gate::open(&listener, &secret, info.effective_idle_timeout())?;
        let door = Door {
            listener: Mutex::new(listener),
            address,
            prober: Prober::new(address),
            secret,
            gates: Mutex::new(vec![gate.clone()]),
            seen: Seen::new(),
            idle_timeout: info.effective_idle_timeout(),
            write_timeout: info.write_timeout,
            quiet_round: QUIET_ROUND.min(info.effective_idle_timeout() / 4),
            rounds: Mutex::default(),
            called: Condvar::new(),
            #[cfg(test)]
            gates_fail: false.into(),
        };
        Ok((door, gate))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn gates(&self) -> Vec<Arc<Gate>> {
        self.gates.lock().clone()
    }

    fn newest(&self) -> Option<Arc<Gate>> {
        self.gates.lock().last().cloned()
    }

    /// Takes note of a request that came out of `gate`. One of a connection not seen before proves that its gate accepts,
    /// and others may be stranded behind it.
    pub(super) fn came(&self, remote: Option<SocketAddr>, gate: Option<&Arc<Gate>>) {
        if !remote.is_none_or(|remote| self.seen.is_new(remote)) {
            return;
        }
        let newest = self.newest();
        let mut rounds = self.rounds.lock();
        if let Some(gate) = gate {
            gate.prove();
            if newest.is_some_and(|newest| Arc::ptr_eq(&newest, gate)) && gate.ended().is_none() {
                rounds.recover();
            }
        }
        rounds.newcomers += 1;
        self.called.notify_one();
    }

    /// Takes note of connections of which no request has come yet: `newcomers` were not there before, and may be stranded
    /// themselves or strand others; the oldest has waited since `waiting`.
    pub(super) fn connected(&self, newcomers: usize, waiting: Option<Instant>) {
        // After the stop, somebody else may have the port.
        if self.rounds.lock().closing {
            return;
        }
        (0..newcomers.min(MOST_PROBES)).for_each(|_| self.prober.touch());
        if !self.prober.is_blocked() {
            return;
        }
        // Without probes, an accept loop that ended silently shows by a connection that nobody serves, or by the time-out
        // of `accept` that does not come.
        if let Some(newest) = self.newest()
            && (waiting.is_some_and(|since| newest.proved() < since)
                || newest.proved().elapsed() > 2 * self.idle_timeout)
        {
            self.rounds.lock().doubted = true;
        }
    }

    /// True where a request of this connection has come.
    pub(super) fn has_seen(&self, remote: SocketAddr) -> bool {
        self.seen.contains(remote)
    }

    /// Takes note of the error that ended a gate's accept loop.
    pub(super) fn accept_failed(&self, gate: &Arc<Gate>, error: &io::Error) {
        let newest = self.newest();
        let mut rounds = self.rounds.lock();
        if rounds.closing || !newest.is_some_and(|newest| Arc::ptr_eq(&newest, gate)) {
            return;
        }
        if gate.ended() == Some(Ended::Failed) {
            rounds.fail(&error.to_string());
        }
        self.called.notify_one();
    }

    /// Waits for the next round, or a reason to do it earlier, and does what is due.
    pub(super) fn tend(&self, busy: bool) -> Round {
        let timed_out = self.accept_timed_out();
        let mut rounds = self.rounds.lock();
        let at_once = timed_out && rounds.failing.is_none();
        if rounds.newcomers == 0 && !at_once && !rounds.closing {
            let busy = busy || rounds.failing.is_some() || rounds.doubted;
            let round = if busy {
                BUSY_ROUND.min(self.quiet_round)
            } else {
                self.quiet_round
            };
            self.called.wait_for(&mut rounds, round);
        }
        if rounds.closing {
            return Round::Closing;
        }
        let newcomers = std::mem::take(&mut rounds.newcomers);
        drop(rounds);
        (0..newcomers.min(MOST_PROBES)).for_each(|_| self.prober.touch());
        self.probe();
        self.reopen()
    }

    fn accept_timed_out(&self) -> bool {
        self.newest()
            .is_some_and(|newest| newest.ended() == Some(Ended::TimedOut))
    }

    /// Sends a request to itself so that it can be known whether anybody accepts, unless one is still on its way.
    fn probe(&self) {
        let gates = self.gates();
        let proofs = gates.iter().map(|gate| gate.proofs()).sum();
        let newest = gates.last();
        let mut rounds = self.rounds.lock();
        match rounds.probe.take() {
            Some(probe) if probe.proofs != proofs => {
                if newest.is_some_and(|newest| newest.ended().is_none()) {
                    rounds.recover();
                }
                rounds.pace = Pace::default();
                rounds.unanswered.clear();
            }
            Some(probe) if probe.sent.elapsed() < UNANSWERED => {
                rounds.probe = Some(probe);
                return;
            }
            // It may be stranded, or have gone elsewhere.
            Some(probe) => {
                rounds.doubted |= newest.is_none_or(|newest| newest.proved() < probe.sent);
                rounds.unanswered.truncate(MOST_UNANSWERED - 1);
                rounds.unanswered.push_front(probe.stream);
            }
            None => {}
        }
        drop(rounds);
        if let Some(stream) = self.prober.send(&self.secret.request()) {
            self.rounds.lock().probe = Some(Probe {
                stream,
                sent: Instant::now(),
                proofs,
            });
        }
    }

    /// Opens another gate where one is wanted.
    fn reopen(&self) -> Round {
        let gates = self.gates();
        let newest = gates.last();
        let ended = newest.map_or(Some(Ended::Failed), |newest| newest.ended());
        let mut rounds = self.rounds.lock();
        let settled = newest.is_some_and(|newest| newest.opened().elapsed() > SETTLED);
        if rounds.failing.is_some() && ended.is_none() && settled && self.prober.is_blocked() {
            rounds.recover();
        }
        let due = Instant::now() >= rounds.pace.next;
        let wanted = match ended {
            Some(Ended::TimedOut) => due || rounds.failing.is_none(),
            Some(Ended::Failed) => due,
            None => due && rounds.doubted && gates.len() < MOST_GATES,
        };
        let state = |rounds: &Rounds| match &rounds.failing {
            Some(failing) => Round::Failing(failing.since, failing.why.clone()),
            None => Round::Well,
        };
        if rounds.closing {
            return Round::Closing;
        }
        if !wanted {
            return state(&rounds);
        }
        let listens = self.listen_again();
        drop(rounds);
        let opened = listens.and_then(|()| self.open_gate());
        let mut rounds = self.rounds.lock();
        match opened {
            Ok(gate) if rounds.closing => {
                gate.close();
                Round::Closing
            }
            Ok(gate) => {
                rounds.doubted = false;
                if ended != Some(Ended::TimedOut) {
                    rounds.pace.opened();
                }
                drop(rounds);
                self.gates.lock().push(gate.clone());
                Round::Opened(gate)
            }
            Err(error) => {
                rounds.pace.failed();
                rounds.fail(&error.to_string());
                state(&rounds)
            }
        }
    }

    fn open_gate(&self) -> io::Result<Arc<Gate>> {
        #[cfg(test)]
        if self.gates_fail.load(Relaxed) {
            return Err(io::Error::other("a test"));
        }
        Gate::open(&self.listener.lock(), &self.secret, self.idle_timeout)
    }

    /// Replaces the listening socket where it does not listen any more.
    fn listen_again(&self) -> io::Result<()> {
        let mut listener = self.listener.lock();
        if !is_listening(&listener) {
            *listener = listen(self.address, self.write_timeout, self.idle_timeout)?;
        }
        Ok(())
    }

    /// Closes a gate whose connections are all gone, if its accept loop has ended.
    pub(super) fn retire(&self, gate: &Arc<Gate>) {
        let mut gates = self.gates.lock();
        let newest_proof = gates.iter().map(|gate| gate.proved()).max();
        // Without probes, a loop that runs is only known to accept somebody, or to time out.
        let lifeless = if self.prober.is_blocked() {
            LIFELESS.max(3 * self.idle_timeout)
        } else {
            LIFELESS
        };
        let is_newest = gates.last().is_some_and(|newest| Arc::ptr_eq(newest, gate));
        let outlived = newest_proof
            .is_some_and(|newest| newest.saturating_duration_since(gate.proved()) > lifeless);
        // Connections that it accepted last may not have sent anything yet.
        let ended = gate
            .ended_at()
            .is_some_and(|at| at.elapsed() > self.idle_timeout);
        if ended || (outlived && !is_newest) {
            gates.retain(|other| !Arc::ptr_eq(other, gate));
            gate.close();
        }
    }

    /// Takes no more connections, and frees the port. True where the connections that are open can still be served.
    pub(super) fn shut(&self) -> bool {
        // Locked until the end: `reopen` must not listen again afterwards.
        let mut rounds = self.rounds.lock();
        rounds.closing = true;
        self.called.notify_one();
        // On Linux this ends listening, also for tiny_http's thread that is accepting. Elsewhere it may fail; there the
        // socket is closed with the gates.
        SockRef::from(&*self.listener.lock())
            .shutdown(std::net::Shutdown::Both)
            .is_ok()
    }

    /// As if the system had taken the listening socket away.
    #[cfg(test)]
    pub(super) fn break_down(&self) {
        let _ = SockRef::from(&*self.listener.lock()).shutdown(std::net::Shutdown::Both);
    }

    /// As if the system had no thread left for another gate.
    #[cfg(test)]
    pub(super) fn fail_gates(&self, fail: bool) {
        self.gates_fail.store(fail, Relaxed);
    }

    /// As if the accept loop of every gate had ended without reporting an error.
    #[cfg(test)]
    pub(super) fn end_accept_loops_silently(&self) {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Gate::open(&elsewhere, &self.secret, self.idle_timeout).unwrap();
        let before = std::mem::replace(&mut *self.gates.lock(), vec![gate]);
        before.iter().for_each(|gate| gate.close());
    }

    #[cfg(test)]
    pub(super) fn forbid_probes(&self, errno: i32) {
        self.prober.force(errno);
    }

    /// Undoes [`open`](Door::open), where the server can't start for another reason.
    pub(super) fn withdraw(&self) {
        self.shut();
        self.close();
        self.wait_until_free(Instant::now() + Duration::from_secs(1));
    }

    /// Ends all waiting for requests.
    pub(super) fn close(&self) {
        self.gates.lock().drain(..).for_each(|gate| gate.close());
    }

    /// Waits until somebody else could listen on the address.
    pub(super) fn wait_until_free(&self, deadline: Instant) {
        while listen_once(self.address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
            && Instant::now() < deadline
        {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// A listening socket whose options pass on to the connections that it accepts (on Linux).
fn listen(
    address: SocketAddr,
    write_timeout: Duration,
    idle_timeout: Duration,
) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    // An answer leaves when it is written, not when the last one has been acknowledged.
    socket.set_tcp_nodelay(true)?;
    // A peer whose machine or network is gone is found out, even while its poll is parked.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
    // A peer that does not read blocks the thread that writes for this long at most.
    socket.set_write_timeout(Some(write_timeout))?;
    // tiny_http ends the connection of a peer that says nothing for this long. It applies to accepting, too, where it
    // ends tiny_http's loop unless probes come more often.
    socket.set_read_timeout(Some(idle_timeout))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// False where the system knows that the socket was shut down.
fn is_listening(listener: &TcpListener) -> bool {
    #[cfg(target_os = "linux")]
    return SockRef::from(listener).is_listener().unwrap_or(true);
    #[cfg(not(target_os = "linux"))]
    return SockRef::from(listener).local_addr().is_ok();
}

fn listen_once(address: SocketAddr) -> io::Result<()> {
    bind(address)?.listen(1)
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // As std does: connections of an earlier run in TIME_WAIT don't hold the port. On Windows it would share it.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // "[::]" takes IPv4, too, where the system lets it.
        let _ = socket.set_only_v6(false);
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Remembers which connections have been seen, in a table of fixed size. Two that share a line are both seen as new
/// again and again, which only costs probes.
struct Seen {
    lines: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Seen {
    const LINES: usize = 1 << 13;

    fn new() -> Self {
        let lines = (0..Seen::LINES).map(|_| AtomicU64::new(0)).collect();
        Seen {
            lines,
            hasher: RandomState::new(),
        }
    }

    fn is_new(&self, remote: SocketAddr) -> bool {
        let hash = self.hasher.hash_one(without_scope(remote));
        let line = &self.lines[hash as usize % Seen::LINES];
        let new = line.load(Relaxed) != hash;
        if new {
            line.store(hash, Relaxed);
        }
        new
    }

    fn contains(&self, remote: SocketAddr) -> bool {
        let hash = self.hasher.hash_one(without_scope(remote));
        self.lines[hash as usize % Seen::LINES].load(Relaxed) == hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_meets_the_stop_is_no_failure() {
        let info = ServerInfo::new("127.0.0.1:0");
        let (door, gate) = Door::open(&info).unwrap();
        door.shut();
        // A round that had begun before the stop goes on with this.
        door.probe();
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        door.accept_failed(&gate, &refused);
        assert!(door.rounds.lock().failing.is_none());
        door.withdraw();
    }
}
