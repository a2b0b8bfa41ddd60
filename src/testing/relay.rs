//! [`Relay`]: a TCP relay that loses requests and responses, and delays and replaces responses, for tests of a network and
//! of a server that fail.

mod request;

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::deadline::Deadline;
use crate::server::Response;

/// A TCP relay between clients and a server that can fail in the server's place: it cuts requests and responses off, delays
/// responses, refuses connections, and answers requests itself.
///
/// Until a method says otherwise, it passes on every byte. After a cut of a response, the server has processed the request;
/// after a cut of a request, it has not. In both cases the client sees the connection end without a complete response.
/// Dropping the relay closes its connections.
///
#[cfg_attr(feature = "client", doc = "```")]
#[cfg_attr(not(feature = "client"), doc = "```ignore")]
/// use std::time::Duration;
/// use long_polling::testing::Relay;
/// use long_polling::{Cursor, Server, ServerInfo, Subscriber};
///
/// let server = Server::start(ServerInfo::new("127.0.0.1:0"))?;
/// let relay = Relay::to(server.local_addr())?;
/// let url = format!("http://{}/events", relay.local_addr());
/// let mut events = Subscriber::new(url, "jobs")
///     .start_at(Cursor::Oldest)
///     .backoff(Duration::from_millis(1), Duration::from_millis(1));
///
/// server.publish("jobs", "first")?;
/// relay.drop_next_response();
/// assert_eq!(events.next().unwrap()?.text(), "first");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping a relay closes its connections"]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when the delay changes and at the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The number of bytes to relay of the next response, if it is to be cut off.
    cut_after: Option<usize>,
    /// The number of bytes to relay of the next request, if it is to be cut off.
    cut_request_after: Option<usize>,
    delay: Duration,
    /// The responses to the next requests, in place of the server's.
    answers: VecDeque<Response>,
    refuses: bool,
    /// The sockets to the client and to the server, by the client's address.
    connections: HashMap<SocketAddr, [TcpStream; 2]>,
    closed: bool,
}

impl Relay {
    /// Starts a relay, on a free port of 127.0.0.1, to the server that listens on this address.
    ///
    /// # Errors
    ///
    /// The system's error if it has no port or thread for the relay.
    pub fn to(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let accepting = shared.clone();
        let serve = move || {
            for client in listener.incoming() {
                let state = accepting.state.lock();
                let (closed, refuses) = (state.closed, state.refuses);
                drop(state);
                if closed {
                    return;
                }
                // If the server is unreachable, the client sees its connection end.
                if !refuses {
                    let _ = client.and_then(|client| connect(client, server, &accepting));
                }
            }
        };
        let thread = spawn(serve)?;
        Ok(Relay {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// Returns the address for clients to connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Drops the next response, to any request, and closes its connection.
    pub fn drop_next_response(&self) {
        self.cut_next_response(0);
    }

    /// Cuts the next response, to any request, off after `after_bytes` bytes, and closes its connection.
    ///
    /// If the response is not longer, the relay counts the bytes of the next response on the same connection, too.
    pub fn cut_next_response(&self, after_bytes: usize) {
        self.shared.state.lock().cut_after = Some(after_bytes);
    }

    /// Cuts the next request, of any client, off after `after_bytes` bytes, and closes its connection: the server does not
    /// get the whole request.
    ///
    /// A request that was sent before this call stays whole. If the next request is not longer, the relay counts the bytes of
    /// the next request on the same connection, too.
    ///
    #[cfg_attr(feature = "client", doc = "```")]
    #[cfg_attr(not(feature = "client"), doc = "```ignore")]
    /// use long_polling::testing::Relay;
    /// use long_polling::{Publisher, Server, ServerInfo};
    ///
    /// let server = Server::start(ServerInfo::new("127.0.0.1:0"))?;
    /// let relay = Relay::to(server.local_addr())?;
    /// let publisher = Publisher::new(format!("http://{}/publish", relay.local_addr()));
    /// relay.cut_next_request(100);
    /// publisher.publish("jobs", "first")?;
    /// assert_eq!(server.statistics().published, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cut_next_request(&self, after_bytes: usize) {
        self.shared.state.lock().cut_request_after = Some(after_bytes);
    }

    /// With `true`, closes all connections and, from now on, each new one before its first byte, as a server does that is
    /// down: the client gets no response. With `false`, accepts connections again.
    pub fn refuse_connections(&self, refuse: bool) {
        let mut state = self.shared.state.lock();
        state.refuses = refuse;
        if refuse {
            state.connections.values().flatten().for_each(close);
        }
    }

    /// Delays each response by this time, from its first byte on: those that begin from now on, and those that are delayed
    /// already. Zero, as at the beginning, passes them on at once.
    pub fn delay_responses(&self, delay: Duration) {
        self.shared.state.lock().delay = delay;
        self.shared.changed.notify_all();
    }

    /// Answers the next request, of any client, with this response; the server gets nothing of the request. After several
    /// calls, each answers one request, in order.
    ///
    /// A request that was sent before this call is the server's, for example a poll that is parked. A
    /// [delay](Relay::delay_responses) and a [cut](Relay::cut_next_response) are for responses of the server alone.
    pub fn answer_next_request(&self, response: Response) {
        self.shared.state.lock().answers.push_back(response);
    }

    /// Returns how many responses of [`answer_next_request`](Relay::answer_next_request) no request has had yet.
    pub fn unused_answers(&self) -> usize {
        self.shared.state.lock().answers.len()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_all();
        // Wakes the thread that accepts.
        if TcpStream::connect(self.address).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
        let state = self.shared.state.lock();
        state.connections.values().flatten().for_each(close);
    }
}

impl Shared {
    /// Waits as long as a response is to be delayed. Returns `false` if the relay was dropped.
    fn delay(&self) -> bool {
        let began = Instant::now();
        let mut state = self.state.lock();
        let delay = state.delay;
        if !delay.is_zero() {
            Deadline::after(delay).wait_while(&self.changed, &mut state, |state| {
                !state.closed && began.elapsed() < state.delay
            });
        }
        !state.closed
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("long-polling-relay".into())
        .spawn(work)
}

fn close(stream: &TcpStream) {
    // An error means that it is closed already.
    let _ = stream.shutdown(Shutdown::Both);
}

fn connect(client: TcpStream, server: SocketAddr, shared: &Arc<Shared>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let peer = client.peer_addr()?;
    let both = [client.try_clone()?, server.try_clone()?];
    shared.state.lock().connections.insert(peer, both);
    // No request is in progress: the next byte of the client begins one.
    let idle = Arc::new(AtomicBool::new(true));
    let (requests, to_server) = (client.try_clone()?, server.try_clone()?);
    let (relayed, is_idle) = (shared.clone(), idle.clone());
    spawn(move || relay_requests(requests, to_server, &relayed, &is_idle))?;
    let shared = shared.clone();
    spawn(move || {
        relay_responses(server, client, &shared, &idle);
        shared.state.lock().connections.remove(&peer);
    })?;
    Ok(())
}

/// Copies requests until either side ends, and answers those that have an answer of the relay.
fn relay_requests(
    mut client: TcpStream,
    mut server: TcpStream,
    shared: &Shared,
    idle: &AtomicBool,
) {
    let mut buffer = [0; 16 << 10];
    let mut left = None;
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let begins = idle.swap(false, SeqCst);
        let answer = begins.then(|| shared.state.lock().answers.pop_front());
        if let Some(response) = answer.flatten() {
            match respond(&mut client, &buffer[..read], &response) {
                Ok(true) => idle.store(true, SeqCst),
                _ => break,
            }
            continue;
        }
        if begins {
            left = left.or_else(|| shared.state.lock().cut_request_after.take());
        }
        let kept = keep(read, &mut left);
        if server.write_all(&buffer[..kept]).is_err() || kept < read {
            break;
        }
    }
    close(&client);
    close(&server);
}

/// Returns how many of the bytes read to relay, if `left` is the number of bytes before a cut. Subtracts them from it.
fn keep(read: usize, left: &mut Option<usize>) -> usize {
    let kept = left.map_or(read, |left| read.min(left));
    *left = left.map(|left| left - kept);
    kept
}

/// Reads the rest of a request, and answers it. Returns whether the connection stays.
fn respond(client: &mut TcpStream, begun: &[u8], response: &Response) -> io::Result<bool> {
    let request = request::read_to_end(begun, client)?;
    let keep = request.keeps_connection;
    client.write_all(&response.render_alone(keep, request.is_head))?;
    Ok(keep)
}

/// Copies responses until either side ends, or until one is cut off.
fn relay_responses(
    mut server: TcpStream,
    mut client: TcpStream,
    shared: &Shared,
    idle: &AtomicBool,
) {
    let mut buffer = [0; 16 << 10];
    let mut left = None;
    while let Ok(read @ 1..) = server.read(&mut buffer) {
        // An interim response (RFC 9110, section 15.2.1) comes in the middle of a request.
        let begins = !buffer[..read].starts_with(b"HTTP/1.1 100 ") && !idle.swap(true, SeqCst);
        if begins && !shared.delay() {
            break;
        }
        left = left.or_else(|| shared.state.lock().cut_after.take());
        let kept = keep(read, &mut left);
        if client.write_all(&buffer[..kept]).is_err() || kept < read {
            break;
        }
    }
    close(&server);
    close(&client);
}
