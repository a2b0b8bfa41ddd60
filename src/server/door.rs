//! The door: the listening socket, and everything that tames tiny_http's way of accepting connections.
//!
//! - tiny_http's `bind` has a backlog of 128 and sets no option: [`listen`] makes a socket of our own, whose options
//!   accepted connections inherit on Linux.
//! - tiny_http strands connections that come in a burst, until some other connection ends: [`Door::tend`] knocks, that
//!   is, connects to the door and hangs up, which makes a thread of tiny_http's finish and take a stranded one.
//! - tiny_http's accept loop ends at its first error: a [`Gate`] is one such loop, and a new one takes its place.
//! - tiny_http can't be told to stop listening while it still serves: shutting the listening socket down does that.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::info::ServerInfo;
use crate::error::{Error, ErrorKind};

/// Connections that the kernel may hold until they are accepted; the kernel has a limit of its own (on Linux
/// `net.core.somaxconn`, 4096).
const BACKLOG: i32 = 4096;
/// How often the door is tended while requests come, and while none does.
const BUSY_ROUND: Duration = Duration::from_millis(100);
const QUIET_ROUND: Duration = Duration::from_millis(500);
/// An accept loop that ends sooner than this is not replaced at once again.
const SHORT_LIVED: Duration = Duration::from_millis(500);

/// One accept loop of tiny_http's, with the connections that it accepted. It goes on giving their requests after its
/// loop has ended.
pub(super) struct Gate {
    server: tiny_http::Server,
    /// Threads that wait for a request here.
    waiting: AtomicUsize,
    /// Requests given out.
    given: AtomicU64,
    /// Its accept loop has ended.
    failed: AtomicBool,
    closed: AtomicBool,
}

impl Gate {
    /// The next request; `None` for a thread that is surplus, when `most` others wait here already, and at the end.
    pub(super) fn next(
        &self,
        most: usize,
        accept_failed: impl Fn(io::Error),
    ) -> Option<tiny_http::Request> {
        if self.waiting.fetch_add(1, Relaxed) >= most {
            self.waiting.fetch_sub(1, Relaxed);
            return None;
        }
        let next = loop {
            if self.closed.load(Relaxed) {
                break None;
            }
            match self.server.recv() {
                Ok(request) => break Some(request),
                // The wake-up call of `close`.
                Err(_) if self.closed.load(Relaxed) => break None,
                Err(error) => {
                    self.failed.store(true, Relaxed);
                    accept_failed(error);
                }
            }
        };
        self.given.fetch_add(u64::from(next.is_some()), Relaxed);
        self.waiting.fetch_sub(1, Relaxed);
        next
    }

    /// How many threads wait for a request, and how many requests have been given out.
    pub(super) fn progress(&self) -> (usize, u64) {
        (self.waiting.load(Relaxed), self.given.load(Relaxed))
    }

    /// True where its accept loop has ended.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// Ends the waiting of all threads here.
    fn close(&self) {
        self.closed.store(true, Relaxed);
        for _ in 0..self.waiting.load(Relaxed) {
            self.server.unblock();
        }
    }
}

/// The listening socket and its gates.
pub(super) struct Door {
    listener: TcpListener,
    address: SocketAddr,
    gates: Mutex<Vec<Arc<Gate>>>,
    seen: Seen,
    rounds: Mutex<Rounds>,
    /// Something is to be done before the next round.
    called: Condvar,
}

#[derive(Default)]
struct Rounds {
    /// Connections seen for the first time since the last round.
    newcomers: usize,
    /// What ended the newest accept loop.
    accept_error: Option<io::Error>,
    /// When a new gate was last opened, or could not be.
    reopened: Option<Instant>,
    closing: bool,
}

impl Rounds {
    /// An accept loop has ended, and may be replaced now.
    fn may_reopen(&self) -> bool {
        self.accept_error.is_some() && self.reopened.is_none_or(|at| at.elapsed() >= SHORT_LIVED)
    }
}

/// What a round at the door has come to.
pub(super) enum Round {
    Served,
    /// An accept loop has ended and is not replaced yet.
    Waiting,
    /// A new gate, for which receivers are wanted.
    Opened(Arc<Gate>),
    /// No gate could be opened for this reason.
    Failed(io::Error),
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
            match listen(address, info).and_then(Door::at) {
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

    fn at(listener: TcpListener) -> io::Result<(Self, Arc<Gate>)> {
        let address = listener.local_addr()?;
        let gate = gate(&listener)?;
        let door = Door {
            listener,
            address,
            gates: Mutex::new(vec![gate.clone()]),
            seen: Seen::new(),
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

    /// Told of the error that ended an accept loop.
    pub(super) fn accept_failed(&self, error: io::Error) {
        let mut rounds = self.rounds.lock();
        if !rounds.closing {
            log::warn!("accepting connections failed: {error}");
            rounds.accept_error = Some(error);
            self.called.notify_one();
        }
    }

    /// Waits for the next round, or a reason to do it earlier, and does what is due.
    pub(super) fn tend(&self, busy: bool) -> Round {
        let mut rounds = self.rounds.lock();
        if rounds.newcomers == 0 && !rounds.may_reopen() && !rounds.closing {
            let pause = if busy || rounds.accept_error.is_some() {
                BUSY_ROUND
            } else {
                QUIET_ROUND
            };
            self.called.wait_for(&mut rounds, pause);
        }
        if rounds.closing {
            return Round::Closing;
        }
        if rounds.may_reopen() {
            rounds.reopened = Some(Instant::now());
            return match self.reopen() {
                Ok(gate) => {
                    rounds.accept_error = None;
                    Round::Opened(gate)
                }
                // Still short of descriptors, most likely: a later round tries again.
                Err(error) => Round::Failed(error),
            };
        }
        let newcomers = std::mem::take(&mut rounds.newcomers);
        let accepting = rounds.accept_error.is_none();
        drop(rounds);
        if !accepting {
            return Round::Waiting;
        }
        (0..newcomers.max(1)).for_each(|_| self.knock());
        Round::Served
    }

    fn reopen(&self) -> io::Result<Arc<Gate>> {
        // A gate needs a descriptor of its own, and each connection two: without that much room it would end at once.
        let room: Vec<TcpListener> = (0..4)
            .map(|_| self.listener.try_clone())
            .collect::<io::Result<_>>()?;
        drop(room);
        let gate = gate(&self.listener)?;
        self.gates.lock().push(gate.clone());
        Ok(gate)
    }

    /// Connects and hangs up at once. With SO_LINGER 0 that leaves no connection in TIME_WAIT.
    fn knock(&self) {
        let limit = Duration::from_millis(100);
        if let Ok(stream) = TcpStream::connect_timeout(&self.own_address(), limit) {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
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

    /// Ends all waiting for requests.
    pub(super) fn close(&self) {
        self.gates.lock().drain(..).for_each(|gate| gate.close());
    }

    /// Lets go of a gate whose accept loop has ended and whose connections are all gone.
    pub(super) fn retire(&self, gate: &Arc<Gate>) {
        self.gates.lock().retain(|other| !Arc::ptr_eq(other, gate));
        gate.close();
    }

    /// Waits until somebody else could listen on the address.
    pub(super) fn wait_until_free(&self, deadline: Instant) {
        while Socket::new(
            Domain::for_address(self.address),
            Type::STREAM,
            Some(Protocol::TCP),
        )
        .and_then(|socket| bind(&socket, self.address).and_then(|()| socket.listen(1)))
        .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
            && Instant::now() < deadline
        {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

fn gate(listener: &TcpListener) -> io::Result<Arc<Gate>> {
    let server =
        tiny_http::Server::from_listener(listener.try_clone()?, None).map_err(io::Error::other)?;
    let (waiting, given, failed, closed) = Default::default();
    Ok(Arc::new(Gate {
        server,
        waiting,
        given,
        failed,
        closed,
    }))
}

/// A listening socket whose options pass on to the connections that it accepts (on Linux).
fn listen(address: SocketAddr, info: &ServerInfo) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // An answer leaves when it is written, not when the last one has been acknowledged.
    socket.set_tcp_nodelay(true)?;
    // A peer whose machine or network is gone is found out, even while its poll is parked.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
    // A peer that does not read blocks the thread that writes for this long at most.
    socket.set_write_timeout(Some(info.write_timeout))?;
    // tiny_http ends the connection of a peer that says nothing for this long. It applies to accepting, too, where it
    // would end tiny_http's loop: the knocks of `Door::tend` come sooner.
    socket.set_read_timeout(Some(info.idle_timeout().max(2 * QUIET_ROUND)))?;
    bind(&socket, address)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    // As std does: connections of an earlier run in TIME_WAIT don't hold the port. On Windows it would share it.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // "[::]" takes IPv4, too, where the system lets it.
        let _ = socket.set_only_v6(false);
    }
    socket.bind(&address.into())
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
        Seen {
            lines: (0..Seen::LINES).map(|_| AtomicU64::new(0)).collect(),
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
