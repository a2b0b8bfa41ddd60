//! [`Listener`]: the listening socket and its acceptors, and the remedies for the way in which tiny_http accepts connections.
//!
//! - tiny_http's `bind` has a backlog of 128 and sets no option: `sockets` makes a socket of our own.
//! - tiny_http strands connections that come in a burst, until some other connection ends. The listener makes a self-connect
//!   probe for every new connection: it connects to its own address and closes, which makes a thread of tiny_http's finish
//!   and take a stranded connection.
//! - tiny_http's accept loop ends at its first error, and silently where a thread or a descriptor is missing. The listener
//!   then opens another [`Acceptor`]: at once after a time-out of `accept`, which is no failure; and with pauses after an
//!   error, or where nothing shows that the newest acceptor accepts.
//! - tiny_http has no way to stop listening while it still serves: the listener shuts the listening socket down.
//!
//! Serving does not depend on probes. A new connection out of the newest acceptor shows that it accepts, and a probe that
//! fails shows nothing. Only an error of `accept` counts as a failure.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use socket2::SockRef;

use super::acceptor::{Acceptor, Ended, HeartbeatPath};
use super::probe::Prober;
use super::rounds::{Activity, Heartbeat, Pace, Rounds, Tick};
use super::seen::Seen;
use super::sockets::{self, is_listening, listen_once};
use crate::error::{Error, ErrorKind};
use crate::server::info::ServerInfo;
use crate::server::listen;

/// The time between two checks of the listener while requests come, and while none does.
const BUSY_PERIOD: Duration = Duration::from_millis(100);
const QUIET_PERIOD: Duration = Duration::from_millis(250);
/// The longest time between two heartbeats while no connection is opened.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The most probes at once.
const MAX_PROBES: usize = 1000;
/// After this time without an answer to a heartbeat, or another new connection, another acceptor is opened.
const UNANSWERED: Duration = Duration::from_millis(300);
/// Where the server can't connect to itself, an acceptor that has reported no error for this long after a failure is well.
const SETTLED: Duration = Duration::from_secs(1);
/// An acceptor out of which no new connection has come for this long, while others accept, has ended.
const LIFELESS: Duration = Duration::from_secs(60);
/// How long the stop waits for the port where duplicates of the listening socket may keep it.
const DUPLICATED: Duration = Duration::from_secs(1);
/// The most heartbeats that are kept for want of an answer.
const MAX_UNANSWERED: usize = 16;
/// The most acceptors at once, unless all of them have failed.
const MAX_ACCEPTORS: usize = 32;

pub(super) struct Listener {
    socket: Mutex<TcpListener>,
    address: SocketAddr,
    /// The program has made the socket, and may have duplicates of it.
    is_given: bool,
    prober: Prober,
    heartbeat_path: Arc<HeartbeatPath>,
    /// The newest is the last.
    acceptors: Mutex<Vec<Arc<Acceptor>>>,
    seen: Seen,
    idle_timeout: Duration,
    write_timeout: Duration,
    /// The time between two checks while no request comes: less than that after which accepting would time out.
    quiet_period: Duration,
    /// The longest time between two heartbeats, for the same reason.
    longest_pause: Duration,
    /// Locked after `acceptors`, where both are.
    rounds: Mutex<Rounds>,
    /// The next check is due before its time.
    due: Condvar,
    /// No acceptor can be opened, as where a thread is missing.
    #[cfg(test)]
    acceptors_fail: AtomicBool,
}

impl Listener {
    /// Listens, and opens the first acceptor.
    ///
    /// # Errors
    ///
    /// `InvalidSetting` for an address that is none, `Listen` where it can't be listened on.
    pub(super) fn open(info: &ServerInfo) -> Result<(Self, Arc<Acceptor>), Error> {
        let idle_timeout = info.effective_idle_timeout();
        if let Some(listener) = &info.listener {
            let socket = listener.take()?;
            return socket
                .set_nonblocking(false)
                .and_then(|()| sockets::prepare(socket, info.write_timeout, idle_timeout))
                .and_then(|socket| Listener::at(socket, info))
                .map_err(|error| {
                    let message = "listener: can't listen on it: give a listening socket of TCP";
                    Error::new(ErrorKind::Listen, message).with_source(error)
                });
        }
        listen::first(&info.address, |address| {
            let socket = sockets::listen(address, info.write_timeout, idle_timeout)?;
            Listener::at(socket, info)
        })
    }

    fn at(socket: TcpListener, info: &ServerInfo) -> io::Result<(Self, Arc<Acceptor>)> {
        let address = socket.local_addr()?;
        let heartbeat_path = Arc::new(HeartbeatPath::new());
        let idle_timeout = info.effective_idle_timeout();
        let acceptor = Acceptor::open(&socket, &heartbeat_path, idle_timeout)?;
        let listener = Listener {
            socket: Mutex::new(socket),
            address,
            is_given: info.listener.is_some(),
            prober: Prober::new(address),
            heartbeat_path,
            acceptors: Mutex::new(vec![acceptor.clone()]),
            seen: Seen::new(),
            idle_timeout,
            write_timeout: info.write_timeout,
            quiet_period: QUIET_PERIOD.min(idle_timeout / 4),
            longest_pause: LONGEST_PAUSE.min(idle_timeout / 4),
            rounds: Mutex::default(),
            due: Condvar::new(),
            #[cfg(test)]
            acceptors_fail: AtomicBool::new(false),
        };
        Ok((listener, acceptor))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn acceptors(&self) -> Vec<Arc<Acceptor>> {
        self.acceptors.lock().clone()
    }

    fn newest(&self) -> Option<Arc<Acceptor>> {
        self.acceptors.lock().last().cloned()
    }

    /// Records a request that came out of `acceptor`. The first one of a connection shows that its acceptor accepts, and
    /// that other connections may be stranded behind it.
    pub(super) fn record_request(
        &self,
        remote: Option<SocketAddr>,
        acceptor: Option<&Arc<Acceptor>>,
    ) {
        if !remote.is_none_or(|remote| self.seen.insert(remote)) {
            return;
        }
        let newest = self.newest();
        let mut rounds = self.rounds.lock();
        if let Some(acceptor) = acceptor {
            acceptor.record_accept();
            if newest.is_some_and(|newest| Arc::ptr_eq(&newest, acceptor))
                && acceptor.ended().is_none()
            {
                rounds.recover();
            }
        }
        rounds.new_connections += 1;
        self.due.notify_one();
    }

    /// Records connections of which no request has come yet: `new` of them were not there before, and may be stranded
    /// themselves or strand others; the oldest has waited since `waiting`.
    pub(super) fn record_connections(&self, new: usize, waiting: Option<Instant>) {
        // After the stop, another program may have the port.
        if self.rounds.lock().closing {
            return;
        }
        (0..new.min(MAX_PROBES)).for_each(|_| self.prober.touch());
        if !self.prober.is_blocked() {
            return;
        }
        // Without probes, an accept loop that ended silently shows by a connection that is not served, or by the time-out
        // of `accept` that does not come.
        if let Some(newest) = self.newest()
            && (waiting.is_some_and(|since| newest.last_accept() < since)
                || newest.last_accept().elapsed() > 2 * self.idle_timeout)
        {
            self.rounds.lock().doubted = true;
        }
    }

    /// How many connections this listener has opened to itself.
    pub(super) fn own_connections(&self) -> u64 {
        self.prober.connected()
    }

    /// True where a request of this connection has come.
    pub(super) fn has_seen(&self, remote: SocketAddr) -> bool {
        self.seen.contains(remote)
    }

    /// Records the error that ended an acceptor's accept loop.
    pub(super) fn accept_failed(&self, acceptor: &Arc<Acceptor>, error: &io::Error) {
        let newest = self.newest();
        let mut rounds = self.rounds.lock();
        if rounds.closing || !newest.is_some_and(|newest| Arc::ptr_eq(&newest, acceptor)) {
            return;
        }
        if acceptor.ended() == Some(Ended::Failed) {
            rounds.fail(&error.to_string());
        }
        self.due.notify_one();
    }

    /// Waits until the next check is due, and makes it.
    pub(super) fn tick(&self, activity: Activity) -> Tick {
        let timed_out = self.accept_timed_out();
        let mut rounds = self.rounds.lock();
        let at_once = timed_out && rounds.failing.is_none();
        if rounds.new_connections == 0 && !at_once && !rounds.closing {
            let busy = activity == Activity::Busy || rounds.failing.is_some() || rounds.doubted;
            let period = if busy {
                BUSY_PERIOD.min(self.quiet_period)
            } else {
                self.quiet_period
            };
            self.due.wait_for(&mut rounds, period);
        }
        if rounds.closing {
            return Tick::Closing;
        }
        let new_connections = std::mem::take(&mut rounds.new_connections);
        drop(rounds);
        (0..new_connections.min(MAX_PROBES)).for_each(|_| self.prober.touch());
        let settled = self.settle_heartbeat();
        if new_connections > 0 || !self.can_pause(activity) {
            self.send_heartbeat(settled);
        }
        self.reopen()
    }

    fn accept_timed_out(&self) -> bool {
        self.newest()
            .is_some_and(|newest| newest.ended() == Some(Ended::TimedOut))
    }

    /// Looks whether the heartbeat has been received. Returns how many all acceptors have received; `None` while it is still
    /// on its way.
    fn settle_heartbeat(&self) -> Option<u64> {
        let acceptors = self.acceptors();
        let received = acceptors.iter().map(|acceptor| acceptor.heartbeats()).sum();
        let newest = acceptors.last();
        let mut rounds = self.rounds.lock();
        match rounds.heartbeat.take() {
            Some(heartbeat) if heartbeat.received_before != received => {
                if newest.is_some_and(|newest| newest.ended().is_none()) {
                    rounds.recover();
                }
                rounds.pace = Pace::default();
                rounds.unanswered.clear();
            }
            Some(heartbeat) if heartbeat.sent.elapsed() < UNANSWERED => {
                rounds.heartbeat = Some(heartbeat);
                return None;
            }
            // It may be stranded, or have gone elsewhere.
            Some(heartbeat) => {
                rounds.doubted |= newest.is_none_or(|newest| newest.last_accept() < heartbeat.sent);
                rounds.unanswered.truncate(MAX_UNANSWERED - 1);
                rounds.unanswered.push_front(heartbeat.stream);
            }
            None => {}
        }
        Some(received)
    }

    /// True where the next heartbeat can wait: no connection was opened that depends on it, and the accept loop is not in
    /// question.
    fn can_pause(&self, activity: Activity) -> bool {
        let rounds = self.rounds.lock();
        activity == Activity::Quiet
            && rounds.failing.is_none()
            && !rounds.doubted
            && rounds
                .last_heartbeat
                .is_some_and(|last| last.elapsed() < self.longest_pause)
    }

    /// Sends a heartbeat, which shows whether connections are accepted, unless one is still on its way.
    fn send_heartbeat(&self, received_before: Option<u64>) {
        let Some(received_before) = received_before else {
            return;
        };
        if let Some(stream) = self.prober.send(&self.heartbeat_path.request()) {
            let sent = Instant::now();
            let mut rounds = self.rounds.lock();
            rounds.last_heartbeat = Some(sent);
            rounds.heartbeat = Some(Heartbeat {
                stream,
                sent,
                received_before,
            });
        }
    }

    /// Opens another acceptor where one is needed.
    fn reopen(&self) -> Tick {
        let acceptors = self.acceptors();
        let newest = acceptors.last();
        let ended = newest.map_or(Some(Ended::Failed), |newest| newest.ended());
        let mut rounds = self.rounds.lock();
        let settled = newest.is_some_and(|newest| newest.opened().elapsed() > SETTLED);
        if rounds.failing.is_some() && ended.is_none() && settled && self.prober.is_blocked() {
            rounds.recover();
        }
        let due = Instant::now() >= rounds.pace.next;
        let needed = match ended {
            Some(Ended::TimedOut) => due || rounds.failing.is_none(),
            Some(Ended::Failed) => due,
            None => due && rounds.doubted && acceptors.len() < MAX_ACCEPTORS,
        };
        if rounds.closing || !needed {
            return rounds.state();
        }
        let listens = self.listen_again();
        drop(rounds);
        let opened = listens.and_then(|()| self.open_acceptor());
        let mut rounds = self.rounds.lock();
        match opened {
            Ok(acceptor) if rounds.closing => {
                acceptor.close();
                Tick::Closing
            }
            Ok(acceptor) => {
                rounds.doubted = false;
                if ended != Some(Ended::TimedOut) {
                    rounds.pace.opened();
                }
                drop(rounds);
                self.acceptors.lock().push(acceptor.clone());
                Tick::Opened(acceptor)
            }
            Err(error) => {
                rounds.pace.failed();
                rounds.fail(&error.to_string());
                rounds.state()
            }
        }
    }

    fn open_acceptor(&self) -> io::Result<Arc<Acceptor>> {
        #[cfg(test)]
        if self.acceptors_fail.load(Relaxed) {
            return Err(io::Error::other("a test"));
        }
        Acceptor::open(&self.socket.lock(), &self.heartbeat_path, self.idle_timeout)
    }

    /// Replaces the listening socket where it does not listen any more.
    fn listen_again(&self) -> io::Result<()> {
        let mut socket = self.socket.lock();
        if !is_listening(&socket) {
            if self.is_given {
                let message = "the program's own listener has been shut down";
                return Err(io::Error::other(message));
            }
            *socket = sockets::listen(self.address, self.write_timeout, self.idle_timeout)?;
        }
        Ok(())
    }

    /// Closes an acceptor without connections, if its accept loop has ended.
    pub(super) fn retire(&self, acceptor: &Arc<Acceptor>) {
        let mut acceptors = self.acceptors.lock();
        let last_accept = acceptors
            .iter()
            .map(|acceptor| acceptor.last_accept())
            .max();
        // Without probes, only a new connection or a time-out shows that a loop runs.
        let lifeless = if self.prober.is_blocked() {
            LIFELESS.max(3 * self.idle_timeout)
        } else {
            LIFELESS
        };
        let is_newest = acceptors
            .last()
            .is_some_and(|newest| Arc::ptr_eq(newest, acceptor));
        let outlived = last_accept
            .is_some_and(|last| last.saturating_duration_since(acceptor.last_accept()) > lifeless);
        // The connections that it accepted last may not have sent anything yet.
        let ended = acceptor
            .ended_at()
            .is_some_and(|at| at.elapsed() > self.idle_timeout);
        if ended || (outlived && !is_newest) {
            acceptors.retain(|other| !Arc::ptr_eq(other, acceptor));
            acceptor.close();
        }
    }

    /// Takes no more connections, and frees the port. Returns `true` if the connections that are open can still be served.
    pub(super) fn stop_listening(&self) -> bool {
        // Locked until the end: `reopen` must not listen again afterwards.
        let mut rounds = self.rounds.lock();
        rounds.closing = true;
        self.due.notify_one();
        // On Linux this ends listening, also for tiny_http's thread that is accepting, and for duplicates of a socket that the
        // program has made. Elsewhere it may fail; there the
        // socket is closed with the acceptors.
        SockRef::from(&*self.socket.lock())
            .shutdown(std::net::Shutdown::Both)
            .is_ok()
    }

    /// Undoes [`open`](Listener::open), where the server can't start for another reason.
    pub(super) fn withdraw(&self) {
        self.stop_listening();
        self.close();
        self.wait_until_free(Instant::now() + Duration::from_secs(1));
    }

    /// Ends the waiting for requests at all acceptors.
    pub(super) fn close(&self) {
        self.acceptors
            .lock()
            .drain(..)
            .for_each(|acceptor| acceptor.close());
    }

    /// Waits until another socket could listen on the address.
    pub(super) fn wait_until_free(&self, deadline: Instant) {
        // Duplicates may keep the port for good.
        let deadline = if self.is_given {
            deadline.min(Instant::now() + DUPLICATED)
        } else {
            deadline
        };
        while listen_once(self.address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
            && Instant::now() < deadline
        {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// Faults for tests.
#[cfg(test)]
impl Listener {
    /// Shuts the listening socket down, as if the system had taken it away.
    pub(super) fn break_down(&self) {
        let _ = SockRef::from(&*self.socket.lock()).shutdown(std::net::Shutdown::Both);
    }

    /// Opens no acceptor, as if the system had no thread left for it.
    pub(super) fn fail_acceptors(&self, fail: bool) {
        self.acceptors_fail.store(fail, Relaxed);
    }

    /// Ends the accept loop of every acceptor without an error.
    pub(super) fn end_accept_loops_silently(&self) {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let acceptor = Acceptor::open(&elsewhere, &self.heartbeat_path, self.idle_timeout).unwrap();
        let before = std::mem::replace(&mut *self.acceptors.lock(), vec![acceptor]);
        before.iter().for_each(|acceptor| acceptor.close());
    }

    /// Makes every probe fail with this error, as a firewall does.
    pub(super) fn forbid_probes(&self, errno: i32) {
        self.prober.fail_with(errno);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_that_meets_the_stop_is_no_failure() {
        let info = ServerInfo::new("127.0.0.1:0");
        let (listener, acceptor) = Listener::open(&info).unwrap();
        listener.stop_listening();
        // A check that began before the stop goes on with this.
        listener.send_heartbeat(Some(0));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        listener.accept_failed(&acceptor, &refused);
        assert!(listener.rounds.lock().failing.is_none());
        listener.withdraw();
    }
}
