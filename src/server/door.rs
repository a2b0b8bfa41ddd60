//! The door: the listening socket, and what tames tiny_http's way of accepting connections.
//!
//! - tiny_http's `bind` has a backlog of 128 and sets no option: [`listen`] makes a socket of our own, whose options
//!   accepted connections inherit (on Linux).
//! - tiny_http strands connections that come in a burst, until some other connection ends: the door *knocks*, that is,
//!   connects to itself and hangs up, which makes a thread of tiny_http's finish and take a stranded one. It knocks once
//!   for every connection first seen, by its request or in the system's table, and now and then.
//! - tiny_http's accept loop may end: where a knock does not come out of any [`Gate`], another one is opened.
//! - tiny_http can't be told to stop listening while it still serves: shutting the listening socket down does that.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::gate::{Gate, Secret};
use super::info::ServerInfo;
use crate::atomic::AtomicU64;
use crate::error::{Error, ErrorKind};

/// Connections that the kernel may hold until they are accepted; it has a limit of its own (on Linux
/// `net.core.somaxconn`, 4096).
const BACKLOG: i32 = 4096;
/// How often the door is tended while requests come, and while none does.
const BUSY_ROUND: Duration = Duration::from_millis(100);
const QUIET_ROUND: Duration = Duration::from_millis(250);
/// The most knocks at once.
const MOST_KNOCKS: usize = 1000;
/// A knock that does not come out for so long, while no other connection does, tells that nobody accepts.
const UNANSWERED: Duration = Duration::from_millis(300);
/// How long to wait for a new gate to prove itself before yet another is opened: twice as long each time, up to the
/// longest, which grows once serving counts as failed.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_REOPEN_PAUSE: Duration = Duration::from_millis(400);
/// A gate out of which no knock has come for so long, while others do well, has ended.
const LIFELESS: Duration = Duration::from_secs(60);

/// The listening socket and its gates.
pub(super) struct Door {
    listener: TcpListener,
    address: SocketAddr,
    secret: Arc<Secret>,
    gates: Mutex<Vec<Arc<Gate>>>,
    seen: Seen,
    /// The longest time between knocks: less than that after which accepting would time out.
    quiet_round: Duration,
    rounds: Mutex<Rounds>,
    /// Something is to be done before the next round.
    called: Condvar,
}

#[derive(Default)]
struct Rounds {
    /// Connections seen for the first time since the last round.
    newcomers: usize,
    /// The knock that has not come out yet.
    knock: Option<Knock>,
    /// Nobody accepts, as far as is known.
    failing: Option<Failing>,
    closing: bool,
}

/// Since when and why nobody accepts.
struct Failing {
    since: Instant,
    why: String,
    /// Another gate is wanted: the last one has ended.
    ended: bool,
    reopen_at: Instant,
    pause: Duration,
}

impl Rounds {
    /// The accept loop has ended.
    fn fail(&mut self, why: &io::Error) {
        // A stop has shut the socket: it is meant to accept nothing.
        if self.closing {
            return;
        }
        let now = Instant::now();
        let why = why.to_string();
        let failing = self.failing.get_or_insert_with(|| {
            log::warn!("accepting connections failed: {why}");
            Failing {
                since: now,
                why: String::new(),
                ended: true,
                reopen_at: now,
                pause: REOPEN_PAUSE,
            }
        });
        (failing.why, failing.ended) = (why, true);
    }

    fn may_reopen(&self) -> bool {
        self.failing
            .as_ref()
            .is_some_and(|failing| failing.ended && Instant::now() >= failing.reopen_at)
    }

    /// Somebody was accepted.
    fn recover(&mut self) {
        self.knock = None;
        if let Some(failing) = self.failing.take() {
            log::warn!(
                "connections are accepted again after {:?}",
                failing.since.elapsed()
            );
        }
    }
}

/// A knock on its way.
struct Knock {
    /// Kept until the knock has come out: tiny_http panics over a request whose connection is gone already.
    _stream: TcpStream,
    sent: Instant,
    /// What had come out of all gates before.
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
            match listen(address, info).and_then(|listener| Door::at(listener, info)) {
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
        Err(Error::new(ErrorKind::Listen, message).because(error))
    }

    fn at(listener: TcpListener, info: &ServerInfo) -> io::Result<(Self, Arc<Gate>)> {
        let address = listener.local_addr()?;
        let secret = Arc::new(Secret::new());
        let gate = Gate::open(&listener, &secret)?;
        let door = Door {
            listener,
            address,
            secret,
            gates: Mutex::new(vec![gate.clone()]),
            seen: Seen::new(),
            quiet_round: QUIET_ROUND.min(info.idle_timeout() / 4),
            rounds: Mutex::default(),
            called: Condvar::new(),
        };
        Ok((door, gate))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn gates(&self) -> Vec<Arc<Gate>> {
        self.gates.lock().clone()
    }

    /// Told of each request: one of a connection not seen before may have others stranded behind it.
    pub(super) fn came(&self, remote: Option<SocketAddr>) {
        if remote.is_none_or(|remote| self.seen.is_new(remote)) {
            self.rounds.lock().newcomers += 1;
            self.called.notify_one();
        }
    }

    /// Told of connections of which no request has come yet: they may be stranded themselves, or strand others.
    pub(super) fn connected(&self, newcomers: usize) {
        // After the stop, somebody else may have the port.
        if self.rounds.lock().closing {
            return;
        }
        (0..newcomers.min(MOST_KNOCKS)).for_each(|_| self.knock());
    }

    /// Told of the error that ended an accept loop.
    pub(super) fn accept_failed(&self, error: &io::Error) {
        self.rounds.lock().fail(error);
        self.called.notify_one();
    }

    /// Waits for the next round, or a reason to do it earlier, and does what is due.
    pub(super) fn tend(&self, busy: bool) -> Round {
        let mut rounds = self.rounds.lock();
        if rounds.newcomers == 0 && !rounds.may_reopen() && !rounds.closing {
            let busy = busy || rounds.failing.is_some();
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
        if newcomers > 0 && rounds.failing.is_none() {
            // Somebody was accepted, so somebody accepts. While failing, it may have been one from before.
            rounds.knock = None;
        }
        drop(rounds);
        (0..newcomers).for_each(|_| self.knock());
        self.prove();
        self.reopen()
    }

    /// Connects and hangs up at once. With SO_LINGER 0 that leaves no connection in TIME_WAIT.
    fn knock(&self) {
        if let Ok(stream) = self.connect() {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Knocks so that it can be known whether anybody accepts, unless such a knock is still on its way.
    fn prove(&self) {
        let proofs = self.gates.lock().iter().map(|gate| gate.proofs()).sum();
        let mut rounds = self.rounds.lock();
        match &rounds.knock {
            Some(knock) if knock.proofs != proofs => rounds.recover(),
            Some(knock) if knock.sent.elapsed() < UNANSWERED => return,
            Some(_) => {
                rounds.knock = None;
                rounds.fail(&io::Error::other(
                    "a knock at the own door was not answered",
                ));
            }
            None => {}
        }
        drop(rounds);
        let knock = self.connect().and_then(|mut stream| {
            stream.write_all(self.secret.request().as_bytes())?;
            Ok(Knock {
                _stream: stream,
                sent: Instant::now(),
                proofs,
            })
        });
        match knock {
            Ok(knock) => self.rounds.lock().knock = Some(knock),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut
                ) =>
            {
                self.rounds.lock().fail(&error);
            }
            // For want of descriptors, most likely, and that tells nothing of the accept loop.
            Err(error) => log::debug!("the door can't knock at itself: {error}"),
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect_timeout(&self.own_address(), BUSY_ROUND)
    }

    /// The address at which this process reaches its own door.
    fn own_address(&self) -> SocketAddr {
        let ip: IpAddr = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        (ip, self.address.port()).into()
    }

    /// Opens another gate where one is wanted.
    fn reopen(&self) -> Round {
        let mut rounds = self.rounds.lock();
        let may_reopen = rounds.may_reopen();
        let Some(failing) = &mut rounds.failing else {
            return Round::Well;
        };
        let (since, why) = (failing.since, failing.why.clone());
        if !may_reopen {
            return Round::Failing(since, why);
        }
        let pause = failing.pause;
        failing.reopen_at = Instant::now() + pause;
        drop(rounds);
        match Gate::open(&self.listener, &self.secret) {
            Ok(gate) => {
                self.gates.lock().push(gate.clone());
                // Until it has proved itself, or failed like the last one.
                let mut rounds = self.rounds.lock();
                rounds.knock = None;
                if let Some(failing) = &mut rounds.failing {
                    failing.ended = false;
                    failing.pause = (2 * pause).min(LONGEST_REOPEN_PAUSE.max(since.elapsed() / 10));
                }
                Round::Opened(gate)
            }
            Err(error) => {
                self.rounds.lock().fail(&error);
                Round::Failing(since, error.to_string())
            }
        }
    }

    /// Lets go of a gate whose connections are all gone, if its accept loop has ended.
    pub(super) fn retire(&self, gate: &Arc<Gate>) {
        let mut gates = self.gates.lock();
        let newest = gates.iter().filter_map(|gate| gate.proved()).max();
        let ended = match (gate.proved(), newest) {
            (None, _) => true,
            (Some(proved), Some(newest)) => newest.duration_since(proved) > LIFELESS,
            (Some(_), None) => false,
        };
        if ended {
            gates.retain(|other| !Arc::ptr_eq(other, gate));
            gate.close();
        }
    }

    /// Takes no more connections, and frees the port. True where the connections that are open can still be served.
    pub(super) fn shut(&self) -> bool {
        self.rounds.lock().closing = true;
        self.called.notify_one();
        // On Linux this ends listening, also for tiny_http's thread that is accepting. Elsewhere it may fail; there the
        // socket is closed with the gates.
        SockRef::from(&self.listener)
            .shutdown(std::net::Shutdown::Both)
            .is_ok()
    }

    /// As if the system had taken the listening socket away.
    #[cfg(test)]
    pub(super) fn break_down(&self) {
        let _ = SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both);
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
fn listen(address: SocketAddr, info: &ServerInfo) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    // An answer leaves when it is written, not when the last one has been acknowledged.
    socket.set_tcp_nodelay(true)?;
    // A peer whose machine or network is gone is found out, even while its poll is parked.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
    // A peer that does not read blocks the thread that writes for this long at most.
    socket.set_write_timeout(Some(info.write_timeout))?;
    // tiny_http ends the connection of a peer that says nothing for this long. It applies to accepting, too, where it
    // would end tiny_http's loop: knocks come more often.
    socket.set_read_timeout(Some(info.idle_timeout()))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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
/// again and again, which only costs knocks.
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
        let hash = self.hasher.hash_one(remote);
        let line = &self.lines[hash as usize % Seen::LINES];
        let new = line.load(Relaxed) != hash;
        if new {
            line.store(hash, Relaxed);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_meets_the_stop_is_no_failure() {
        let info = ServerInfo {
            address: "127.0.0.1:0".into(),
            ..ServerInfo::default()
        };
        let (door, _gate) = Door::open(&info).unwrap();
        door.shut();
        // A round that had begun before the stop goes on with this.
        door.prove();
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        door.accept_failed(&refused);
        assert!(door.rounds.lock().failing.is_none());
        door.withdraw();
    }
}
