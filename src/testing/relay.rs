//! [`Relay`]: a TCP relay that cuts responses off, for tests of lost responses.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

/// A TCP relay between clients and a server that can cut a response off.
///
/// After a cut the server has processed the request, and the client sees the connection end without a complete response.
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
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The number of bytes to relay of the next response, if it is to be cut off.
    cut_after: Option<usize>,
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
        let shared = Arc::new(Mutex::new(Shared::default()));
        let accepting = shared.clone();
        let serve = move || {
            for client in listener.incoming() {
                if accepting.lock().closed {
                    return;
                }
                // If the server is unreachable, the client sees its connection end.
                let _ = client.and_then(|client| connect(client, server, &accepting));
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
        self.shared.lock().cut_after = Some(after_bytes);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        // Wakes the thread that accepts.
        if TcpStream::connect(self.address).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
        let shared = self.shared.lock();
        shared.connections.values().flatten().for_each(close);
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

fn connect(client: TcpStream, server: SocketAddr, shared: &Arc<Mutex<Shared>>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let peer = client.peer_addr()?;
    let both = [client.try_clone()?, server.try_clone()?];
    shared.lock().connections.insert(peer, both);
    let (requests, to_server) = (client.try_clone()?, server.try_clone()?);
    spawn(move || relay(requests, to_server, |read| (read, false)))?;
    let shared = shared.clone();
    spawn(move || {
        let mut left = None;
        let cut = |read: usize| {
            left = left.or_else(|| shared.lock().cut_after.take());
            let kept = left.map_or(read, |left| read.min(left));
            left = left.map(|left| left - kept);
            (kept, kept < read)
        };
        relay(server, client, cut);
        shared.lock().connections.remove(&peer);
    })?;
    Ok(())
}

/// Copies bytes until either side ends. For each read, `cut` returns how many of the bytes to copy, and whether to close the
/// connection after them.
fn relay(mut from: TcpStream, mut to: TcpStream, mut cut: impl FnMut(usize) -> (usize, bool)) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let (kept, close_now) = cut(read);
        if to.write_all(&buffer[..kept]).is_err() || close_now {
            break;
        }
    }
    close(&from);
    close(&to);
}
