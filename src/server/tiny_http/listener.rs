//! The listener: the listening socket, and what tames tiny_http's way of accepting connections.
//!
//! - tiny_http's `bind` has a backlog of 128 and sets no option: [`listen`] makes a socket of our own, whose options
//!   accepted connections inherit (on Linux).
//! - tiny_http strands connections that come in a burst, until some other connection ends. The listener sends a probe for
//!   every new connection: it connects to its own address and closes, which makes a thread of tiny_http's finish and take
//!   a stranded connection.
//! - tiny_http's accept loop ends at its first error, and silently where a thread or a descriptor is missing. Another
//!   [`Acceptor`] is opened then: at once after a time-out of `accept`, which is no failure; and with pauses after an error, or
//!   where nothing shows that the newest acceptor accepts.
//! - tiny_http can't be told to stop listening while it still serves: shutting the listening socket down does that.
//!
//! Serving does not depend on probes. A new connection out of the newest acceptor proves it, and a probe that fails proves
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

use super::acceptor::{Acceptor, Ended, Secret};
use super::peers::without_scope;
use super::probe::Prober;
use crate::atomic::AtomicU64;
use crate::error::{Error, ErrorKind};
use crate::server::info::ServerInfo;

/// Connections that the kernel may hold until they are accepted; it has a limit of its own (on Linux
/// `net.core.somaxconn`, 4096).
const BACKLOG: i32 = 4096;
/// How often the listener is looked after while requests come, and while none does.
const BUSY_ROUND: Duration = Duration::from_millis(100);
const QUIET_ROUND: Duration = Duration::from_millis(250);
/// The most probes at once.
const MOST_PROBES: usize = 1000;
/// After so long without an answer to a probe, or another new connection, another acceptor is opened.
const UNANSWERED: Duration = Duration::from_millis(300);
/// How long a new acceptor has to send_heartbeat itself before yet another is opened: twice as long each time, up to the longest,
/// which grows with the time that has passed, up to the last.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_REOPEN_PAUSE: Duration = Duration::from_millis(400);
const LAST_REOPEN_PAUSE: Duration = Duration::from_secs(10);
/// Where the server can't probe itself, a acceptor that has reported no error for so long after a failure is well.
const SETTLED: Duration = Duration::from_secs(1);
/// A acceptor out of which no new connection has come for so long, while others do well, has ended.
const LIFELESS: Duration = Duration::from_secs(60);
/// The most probes that are kept for want of an answer.
const MOST_UNANSWERED: usize = 16;
/// The most acceptors at once, unless all of them have failed.
const MOST_GATES: usize = 32;

/// The listening socket and its acceptors.
pub(in crate::server) struct Listener {
    listener: Mutex<TcpListener>,
    address: SocketAddr,
    prober: Prober,
    secret: Arc<Secret>,
    /// The newest is the last.
    acceptors: Mutex<Vec<Arc<Acceptor>>>,
    seen: Seen,
    idle_timeout: Duration,
    write_timeout: Duration,
    /// The longest time between probes: less than that after which accepting would time out.
    quiet_round: Duration,
    /// Locked after `acceptors`, where both are.
    rounds: Mutex<Rounds>,
    /// Something is to be done before the next round.
    called: Condvar,
    /// No acceptor can be opened, as where a thread is missing.
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
    /// `accept` failed, or no acceptor could be opened, and nobody was accepted since.
    failing: Option<Failing>,
    /// Nothing shows that the newest acceptor accepts, though something should.
    doubted: bool,
    pace: Pace,
    closing: bool,
}

/// Since when and why nobody is accepted.
struct Failing {
    since: Instant,
    why: String,
}

/// When the next acceptor may be opened.
struct Pace {
    /// When the first of the acceptors was opened that have not last_heartbeat themselves by a probe.
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

    /// An attempt that opened no acceptor costs little, so the next one comes soon.
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
    /// Probes received at all acceptors before.
    heartbeats: u64,
}

/// What a round at the listener has come to.
pub(in crate::server) enum Round {
    /// Connections are accepted, as far as is known.
    Well,
    /// They are not, since then and for that reason.
    Failing(Instant, String),
    /// A new acceptor, for which receivers are wanted.
    Opened(Arc<Acceptor>),
    Closing,
}

impl Listener {
    /// Listens, and opens the first acceptor.
    ///
    /// # Errors
    ///
    /// `InvalidSetting` for an address that is none, `Listen` where it can't be listened on.
    pub(in crate::server) fn open(info: &ServerInfo) -> Result<(Self, Arc<Acceptor>), Error> {
        let mut failed = None;
        for address in info.addresses()? {
            let listener = listen(address, info.write_timeout, info.effective_idle_timeout());
            match listener.and_then(|listener| Listener::at(listener, info)) {
                Ok(listener) => return Ok(listener),
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

    fn at(listener: TcpListener, info: &ServerInfo) -> io::Result<(Self, Arc<Acceptor>)> {
        let address = listener.local_addr()?;
        let secret = Arc::new(Secret::new());
        let acceptor = Acceptor::open(&listener, &secret, info.effective_idle_timeout())?;
        let listener = Listener {
            listener: Mutex::new(listener),
            address,
            prober: Prober::new(address),
            secret,
            acceptors: Mutex::new(vec![acceptor.clone()]),
            seen: Seen::new(),
            idle_timeout: info.effective_idle_timeout(),
            write_timeout: info.write_timeout,
            quiet_round: QUIET_ROUND.min(info.effective_idle_timeout() / 4),
            rounds: Mutex::default(),
            called: Condvar::new(),
            #[cfg(test)]
            gates_fail: false.into(),
        };
        Ok((listener, acceptor))
    }

    pub(in crate::server) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(in crate::server) fn acceptors(&self) -> Vec<Arc<Acceptor>> {
        self.acceptors.lock().clone()
    }

    fn newest(&self) -> Option<Arc<Acceptor>> {
        self.acceptors.lock().last().cloned()
    }

    /// Takes note of a request that came out of `acceptor`. One of a connection not seen before proves that its acceptor accepts,
    /// and others may be stranded behind it.
    pub(in crate::server) fn came(
        &self,
        remote: Option<SocketAddr>,
        acceptor: Option<&Arc<Acceptor>>,
    ) {
        if !remote.is_none_or(|remote| self.seen.is_new(remote)) {
            return;
        }
        let newest = self.newest();
        let mut rounds = self.rounds.lock();
        if let Some(acceptor) = acceptor {
            acceptor.send_heartbeat();
            if newest.is_some_and(|newest| Arc::ptr_eq(&newest, acceptor))
                && acceptor.ended().is_none()
            {
                rounds.recover();
            }
        }
        rounds.newcomers += 1;
        self.called.notify_one();
    }

    /// Takes note of connections of which no request has come yet: `newcomers` were not there before, and may be stranded
    /// themselves or strand others; the oldest has waited since `waiting`.
    pub(in crate::server) fn connected(&self, newcomers: usize, waiting: Option<Instant>) {
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
            && (waiting.is_some_and(|since| newest.last_heartbeat() < since)
                || newest.last_heartbeat().elapsed() > 2 * self.idle_timeout)
        {
            self.rounds.lock().doubted = true;
        }
    }

    /// True where a request of this connection has come.
    pub(in crate::server) fn has_seen(&self, remote: SocketAddr) -> bool {
        self.seen.contains(remote)
    }

    /// Takes note of the error that ended a acceptor's accept loop.
    pub(in crate::server) fn accept_failed(&self, acceptor: &Arc<Acceptor>, error: &io::Error) {
        let newest = self.newest();
        let mut rounds = self.rounds.lock();
        if rounds.closing || !newest.is_some_and(|newest| Arc::ptr_eq(&newest, acceptor)) {
            return;
        }
        if acceptor.ended() == Some(Ended::Failed) {
            rounds.fail(&error.to_string());
        }
        self.called.notify_one();
    }

    /// Waits for the next round, or a reason to do it earlier, and does what is due.
    pub(in crate::server) fn tick(&self, busy: bool) -> Round {
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
        let acceptors = self.acceptors();
        let heartbeats = acceptors.iter().map(|acceptor| acceptor.heartbeats()).sum();
        let newest = acceptors.last();
        let mut rounds = self.rounds.lock();
        match rounds.probe.take() {
            Some(probe) if probe.heartbeats != heartbeats => {
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
                rounds.doubted |= newest.is_none_or(|newest| newest.last_heartbeat() < probe.sent);
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
                heartbeats,
            });
        }
    }

    /// Opens another acceptor where one is wanted.
    fn reopen(&self) -> Round {
        let acceptors = self.acceptors();
        let newest = acceptors.last();
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
            None => due && rounds.doubted && acceptors.len() < MOST_GATES,
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
            Ok(acceptor) if rounds.closing => {
                acceptor.close();
                Round::Closing
            }
            Ok(acceptor) => {
                rounds.doubted = false;
                if ended != Some(Ended::TimedOut) {
                    rounds.pace.opened();
                }
                drop(rounds);
                self.acceptors.lock().push(acceptor.clone());
                Round::Opened(acceptor)
            }
            Err(error) => {
                rounds.pace.failed();
                rounds.fail(&error.to_string());
                state(&rounds)
            }
        }
    }

    fn open_gate(&self) -> io::Result<Arc<Acceptor>> {
        #[cfg(test)]
        if self.gates_fail.load(Relaxed) {
            return Err(io::Error::other("a test"));
        }
        Acceptor::open(&self.listener.lock(), &self.secret, self.idle_timeout)
    }

    /// Replaces the listening socket where it does not listen any more.
    fn listen_again(&self) -> io::Result<()> {
        let mut listener = self.listener.lock();
        if !is_listening(&listener) {
            *listener = listen(self.address, self.write_timeout, self.idle_timeout)?;
        }
        Ok(())
    }

    /// Closes a acceptor whose connections are all gone, if its accept loop has ended.
    pub(in crate::server) fn retire(&self, acceptor: &Arc<Acceptor>) {
        let mut acceptors = self.acceptors.lock();
        let newest_proof = acceptors
            .iter()
            .map(|acceptor| acceptor.last_heartbeat())
            .max();
        // Without probes, a loop that runs is only known to accept somebody, or to time out.
        let lifeless = if self.prober.is_blocked() {
            LIFELESS.max(3 * self.idle_timeout)
        } else {
            LIFELESS
        };
        let is_newest = acceptors
            .last()
            .is_some_and(|newest| Arc::ptr_eq(newest, acceptor));
        let outlived = newest_proof.is_some_and(|newest| {
            newest.saturating_duration_since(acceptor.last_heartbeat()) > lifeless
        });
        // Connections that it accepted last may not have sent anything yet.
        let ended = acceptor
            .ended_at()
            .is_some_and(|at| at.elapsed() > self.idle_timeout);
        if ended || (outlived && !is_newest) {
            acceptors.retain(|other| !Arc::ptr_eq(other, acceptor));
            acceptor.close();
        }
    }

    /// Takes no more connections, and frees the port. True where the connections that are open can still be served.
    pub(in crate::server) fn shut(&self) -> bool {
        // Locked until the end: `reopen` must not listen again afterwards.
        let mut rounds = self.rounds.lock();
        rounds.closing = true;
        self.called.notify_one();
        // On Linux this ends listening, also for tiny_http's thread that is accepting. Elsewhere it may fail; there the
        // socket is closed with the acceptors.
        SockRef::from(&*self.listener.lock())
            .shutdown(std::net::Shutdown::Both)
            .is_ok()
    }

    /// As if the system had taken the listening socket away.
    #[cfg(test)]
    pub(in crate::server) fn break_down(&self) {
        let _ = SockRef::from(&*self.listener.lock()).shutdown(std::net::Shutdown::Both);
    }

    /// As if the system had no thread left for another acceptor.
    #[cfg(test)]
    pub(in crate::server) fn fail_gates(&self, fail: bool) {
        self.gates_fail.store(fail, Relaxed);
    }

    /// As if the accept loop of every acceptor had ended without reporting an error.
    #[cfg(test)]
    pub(in crate::server) fn end_accept_loops_silently(&self) {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let acceptor = Acceptor::open(&elsewhere, &self.secret, self.idle_timeout).unwrap();
        let before = std::mem::replace(&mut *self.acceptors.lock(), vec![acceptor]);
        before.iter().for_each(|acceptor| acceptor.close());
    }

    #[cfg(test)]
    pub(in crate::server) fn forbid_probes(&self, errno: i32) {
        self.prober.force(errno);
    }

    /// Undoes [`open`](Listener::open), where the server can't start for another reason.
    pub(in crate::server) fn withdraw(&self) {
        self.shut();
        self.close();
        self.wait_until_free(Instant::now() + Duration::from_secs(1));
    }

    /// Ends all waiting for requests.
    pub(in crate::server) fn close(&self) {
        self.acceptors
            .lock()
            .drain(..)
            .for_each(|acceptor| acceptor.close());
    }

    /// Waits until somebody else could listen on the address.
    pub(in crate::server) fn wait_until_free(&self, deadline: Instant) {
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
        let (listener, acceptor) = Listener::open(&info).unwrap();
        listener.shut();
        // A round that had begun before the stop goes on with this.
        listener.probe();
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        listener.accept_failed(&acceptor, &refused);
        assert!(listener.rounds.lock().failing.is_none());
        listener.withdraw();
    }
}
