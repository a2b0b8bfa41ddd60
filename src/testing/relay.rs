//! [`Relay`]: a connection that breaks when a test says so.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

/// Stands between clients and a server, passes everything on, and cuts an answer off when it is told to: the server has
/// done what it was asked, and its client sees the connection end.
///
#[cfg_attr(feature = "client", doc = "```")]
#[cfg_attr(not(feature = "client"), doc = "```ignore")]
/// use std::time::Duration;
/// use long_polling::testing::Relay;
/// use long_polling::{Cursor, Server, ServerInfo, Subscriber};
///
/// let server = Server::start(ServerInfo { address: "127.0.0.1:0".into(), ..ServerInfo::default() }, None, None)?;
/// let relay = Relay::to(server.local_addr())?;
/// let url = format!("http://{}/events", relay.address());
/// let mut events = Subscriber::new(url, "jobs")
///     .start_at(Cursor::Oldest)
///     .backoff(Duration::from_millis(1), Duration::from_millis(1));
///
/// server.publish("jobs", "first")?;
/// relay.drop_next_answer();
/// assert_eq!(events.next().unwrap()?.text(), "first");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Its connections end when it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// How much of the next answer is passed on, where that is not all of it.
    cut: Option<usize>,
    /// Both ends of each connection, by the client's address.
    connections: HashMap<SocketAddr, [TcpStream; 2]>,
    closed: bool,
}

impl Relay {
    /// A relay to the server that listens at this address.
    ///
    /// # Errors
    ///
    /// Where the system gives no port or thread for it.
    pub fn to(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let connections = shared.clone();
        let serve = move || {
            for client in listener.incoming() {
                if connections.lock().closed {
                    return;
                }
                // Where the server is not reached, the client sees its connection end.
                let _ = client.and_then(|client| connect(client, server, &connections));
            }
        };
        let thread = spawn(serve)?;
        Ok(Relay {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next answer, to whichever request, is not passed on, and its connection ends.
    pub fn drop_next_answer(&self) {
        self.cut_next_answer(0);
    }

    /// Of the next answer, to whichever request, only so many bytes are passed on before its connection ends. One that
    /// has no more than these is passed on whole, and what follows on its connection counts on.
    pub fn cut_next_answer(&self, after_bytes: usize) {
        self.shared.lock().cut = Some(after_bytes);
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
        shared.connections.values().flatten().for_each(end);
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("long-polling-relay".into())
        .spawn(work)
}

fn end(stream: &TcpStream) {
    // An error says that it has ended already.
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
    spawn(move || pass(requests, to_server, |passed| (passed, false)))?;
    let shared = shared.clone();
    spawn(move || {
        let mut left = None;
        let cut = |came: usize| {
            left = left.or_else(|| shared.lock().cut.take());
            let passed = left.map_or(came, |left| came.min(left));
            left = left.map(|left| left - passed);
            (passed, passed < came)
        };
        pass(server, client, cut);
        shared.lock().connections.remove(&peer);
    })?;
    Ok(())
}

/// Passes on what comes, as far as `cut` allows, until it says that this was the end.
fn pass(mut from: TcpStream, mut to: TcpStream, mut cut: impl FnMut(usize) -> (usize, bool)) {
    let mut buffer = [0; 16 << 10];
    while let Ok(came @ 1..) = from.read(&mut buffer) {
        let (passed, over) = cut(came);
        if to.write_all(&buffer[..passed]).is_err() || over {
            break;
        }
    }
    end(&from);
    end(&to);
}
