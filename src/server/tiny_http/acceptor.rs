//! [`Acceptor`]: one accept loop of tiny_http's, watched and replaceable.
//!
//! The loop ends at its first error, and silently where a descriptor or a thread is missing. So an acceptor reports the
//! error where there is one, and receives heartbeats while its loop runs: requests with a [`HeartbeatPath`], which the
//! listener sends to itself. Requests of connections that it has accepted come out of an acceptor also after its loop has
//! ended.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::atomic::AtomicU64;

/// tiny_http's accept loop and the first threads of its pool, which it starts without asking whether it can.
const THREADS: usize = 6;
/// The acceptor's own descriptor, and two of each of some connections.
const DESCRIPTORS: usize = 8;

/// The path of a listener's heartbeats, which no client can guess.
pub(super) struct HeartbeatPath(String);

impl HeartbeatPath {
    pub(super) fn new() -> Self {
        let random = || RandomState::new().hash_one(0);
        HeartbeatPath(format!("/{:016x}{:016x}", random(), random()))
    }

    /// The heartbeat: a request that an acceptor recognises.
    pub(super) fn request(&self) -> String {
        format!(
            "GET {} HTTP/1.1\r\nHost: self\r\nConnection: close\r\n\r\n",
            self.0
        )
    }
}

/// How an accept loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// No connection came for as long as the idle timeout, which `accept` inherits from the listening socket.
    TimedOut,
    Failed,
}

pub(super) struct Acceptor {
    /// `None` while dropping only.
    server: Option<tiny_http::Server>,
    /// Held while a thread takes a request and looks whether an earlier request of its connection is still being served.
    /// Otherwise two threads that took two requests of one connection could queue them in the wrong order, and the one
    /// that serves them would wait for itself.
    order: Mutex<()>,
    heartbeat_path: Arc<HeartbeatPath>,
    /// Threads that wait for a request here.
    waiting: AtomicUsize,
    /// Requests given out, without heartbeats.
    given: AtomicU64,
    /// Heartbeats received.
    heartbeats: AtomicU64,
    opened: Instant,
    /// When the accept loop was last known to run: a heartbeat or another new connection came, or the acceptor was opened.
    last_accept: Mutex<Instant>,
    /// How and when the accept loop ended; `None` while it has reported no error.
    ended: Mutex<Option<(Ended, Instant)>>,
    /// How long `accept` waits for a connection.
    accept_timeout: Duration,
    closed: AtomicBool,
}

impl Acceptor {
    /// Starts an accept loop.
    ///
    /// # Errors
    ///
    /// Where the system has too few descriptors or threads for the loop and some connections: then it would end at once.
    pub(super) fn open(
        socket: &TcpListener,
        heartbeat_path: &Arc<HeartbeatPath>,
        accept_timeout: Duration,
    ) -> io::Result<Arc<Self>> {
        let descriptors: Vec<_> = (0..DESCRIPTORS)
            .map(|_| socket.try_clone())
            .collect::<io::Result<_>>()?;
        let threads: Vec<_> = (0..THREADS)
            .map(|_| thread::Builder::new().spawn(thread::park))
            .collect();
        for thread in threads.iter().flatten() {
            thread.thread().unpark();
        }
        let threads: io::Result<Vec<_>> = threads.into_iter().collect();
        threads?.into_iter().for_each(|thread| drop(thread.join()));
        drop(descriptors);
        let socket = socket.try_clone()?;
        let server = catch_unwind(|| tiny_http::Server::from_listener(socket, None))
            .map_err(|_| io::Error::other("no thread could be started to accept connections"))?
            .map_err(io::Error::other)?;
        Ok(Arc::new(Acceptor {
            server: Some(server),
            order: Mutex::new(()),
            heartbeat_path: heartbeat_path.clone(),
            waiting: AtomicUsize::new(0),
            given: AtomicU64::new(0),
            heartbeats: AtomicU64::new(0),
            opened: Instant::now(),
            last_accept: Mutex::new(Instant::now()),
            ended: Mutex::new(None),
            accept_timeout,
            closed: AtomicBool::new(false),
        }))
    }

    /// The next request; `None` where `max_waiting` other threads wait here already, and at the end.
    pub(super) fn next(
        &self,
        max_waiting: usize,
        unless_queued: impl Fn(tiny_http::Request) -> Option<tiny_http::Request>,
        accept_failed: impl Fn(io::Error),
    ) -> Option<tiny_http::Request> {
        if self.waiting.fetch_add(1, SeqCst) >= max_waiting {
            self.waiting.fetch_sub(1, SeqCst);
            return None;
        }
        let next = loop {
            let Some(server) = &self.server else {
                break None;
            };
            if self.closed.load(SeqCst) {
                break None;
            }
            let order = self.order.lock();
            match server.recv() {
                Ok(request) if request.url() == self.heartbeat_path.0 => {
                    // Not dropped, which would answer it; no one reads the answer.
                    drop(request.into_writer());
                    self.record_accept();
                    self.heartbeats.fetch_add(1, SeqCst);
                }
                Ok(request) => {
                    let request = unless_queued(request);
                    drop(order);
                    if request.is_some() {
                        break request;
                    }
                    self.given.fetch_add(1, SeqCst);
                }
                // `close` has ended the wait.
                Err(_) if self.closed.load(SeqCst) => break None,
                Err(error) => {
                    *self.ended.lock() = Some((self.how_ended(&error), Instant::now()));
                    accept_failed(error);
                }
            }
        };
        self.given.fetch_add(u64::from(next.is_some()), SeqCst);
        self.waiting.fetch_sub(1, SeqCst);
        next
    }

    /// How many threads wait for a request, and how many requests have been given out.
    pub(super) fn progress(&self) -> (usize, u64) {
        (self.waiting.load(SeqCst), self.given.load(SeqCst))
    }

    /// How many heartbeats have been received.
    pub(super) fn heartbeats(&self) -> u64 {
        self.heartbeats.load(SeqCst)
    }

    /// Records that the accept loop runs: it has accepted a new connection.
    pub(super) fn record_accept(&self) {
        *self.last_accept.lock() = Instant::now();
    }

    /// When the accept loop was last known to run.
    pub(super) fn last_accept(&self) -> Instant {
        *self.last_accept.lock()
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// How the accept loop ended; `None` where it runs, or ended without reporting an error.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.ended.lock().map(|(ended, _)| ended)
    }

    /// When the accept loop ended.
    pub(super) fn ended_at(&self) -> Option<Instant> {
        self.ended.lock().map(|(_, at)| at)
    }

    fn how_ended(&self, error: &io::Error) -> Ended {
        let timed_out = matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        );
        // A time-out that comes sooner counts as a failure: opening acceptors for it would not end.
        if timed_out && self.opened.elapsed() >= self.accept_timeout / 2 {
            Ended::TimedOut
        } else {
            Ended::Failed
        }
    }

    /// Ends the waits of all threads that wait for a request here.
    pub(super) fn close(&self) {
        self.closed.store(true, SeqCst);
        if let Some(server) = &self.server {
            (0..self.waiting.load(SeqCst)).for_each(|_| server.unblock());
        }
    }
}

impl Drop for Acceptor {
    /// tiny_http connects to its own address when it is dropped, which takes minutes where a firewall drops the packets: so
    /// a thread does that.
    fn drop(&mut self) {
        let server = self.server.take();
        let thread = thread::Builder::new().name("long-polling-close".into());
        if let Err(error) = thread.spawn(move || drop(server)) {
            log::debug!("an accept loop was closed without a thread of its own: {error}");
        }
    }
}
