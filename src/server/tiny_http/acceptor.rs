//! [`Acceptor`]: one accept loop of tiny_http's, watched and replaceable.
//!
//! The loop ends at its first error, and it ends without a word where a descriptor or a thread is wanting. So a acceptor
//! tells of the error where there is one, and proves from time to time that its loop still runs: a request with a
//! [`Secret`] path, sent by the listener to itself, comes out of it. The requests of connections that it has accepted come
//! out of a acceptor also after its loop has ended.

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
/// The acceptor's own descriptor, and some connections' two each.
const DESCRIPTORS: usize = 8;

/// The path of a listener's probes to itself, which nobody else can guess.
pub(in crate::server) struct Secret(String);

impl Secret {
    pub(in crate::server) fn new() -> Self {
        let random = || RandomState::new().hash_one(0);
        Secret(format!("/{:016x}{:016x}", random(), random()))
    }

    /// A request that a acceptor recognises.
    pub(in crate::server) fn request(&self) -> String {
        format!(
            "GET {} HTTP/1.1\r\nHost: self\r\nConnection: close\r\n\r\n",
            self.0
        )
    }
}

/// How an accept loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Ended {
    /// Nobody connected for as long as the idle timeout, which `accept` inherits from the listening socket.
    TimedOut,
    Failed,
}

pub(in crate::server) struct Acceptor {
    /// `None` while dropping only.
    server: Option<tiny_http::Server>,
    /// Held from taking a request to knowing whether an earlier one of its connection is still being served: two
    /// threads that took two requests of one connection could else queue them in the wrong order, and the one that
    /// serves them would wait for itself.
    order: Mutex<()>,
    secret: Arc<Secret>,
    /// Threads that wait for a request here.
    waiting: AtomicUsize,
    /// Requests given out, but for probes.
    given: AtomicU64,
    /// Probes received.
    heartbeats: AtomicU64,
    opened: Instant,
    /// When the accept loop was last known to run: a probe or another new connection came, or the acceptor was opened.
    last_heartbeat: Mutex<Instant>,
    /// How and when the accept loop ended; `None` while it has reported no error.
    ended: Mutex<Option<(Ended, Instant)>>,
    /// How long `accept` waits for a connection.
    accept_timeout: Duration,
    closed: AtomicBool,
}

impl Acceptor {
    /// # Errors
    ///
    /// Where there is not room enough for a acceptor and some connections: then it would end at once.
    pub(in crate::server) fn open(
        listener: &TcpListener,
        secret: &Arc<Secret>,
        accept_timeout: Duration,
    ) -> io::Result<Arc<Self>> {
        let descriptors: Vec<_> = (0..DESCRIPTORS)
            .map(|_| listener.try_clone())
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
        let listener = listener.try_clone()?;
        let server = catch_unwind(|| tiny_http::Server::from_listener(listener, None))
            .map_err(|_| io::Error::other("no thread can be had to accept connections"))?
            .map_err(io::Error::other)?;
        Ok(Arc::new(Acceptor {
            server: Some(server),
            order: Mutex::new(()),
            secret: secret.clone(),
            waiting: AtomicUsize::new(0),
            given: AtomicU64::new(0),
            heartbeats: AtomicU64::new(0),
            opened: Instant::now(),
            last_heartbeat: Mutex::new(Instant::now()),
            ended: Mutex::new(None),
            accept_timeout,
            closed: AtomicBool::new(false),
        }))
    }

    /// The next request; `None` for a thread that is surplus, when `most` others wait here already, and at the end.
    pub(in crate::server) fn next(
        &self,
        most: usize,
        unless_queued: impl Fn(tiny_http::Request) -> Option<tiny_http::Request>,
        accept_failed: impl Fn(io::Error),
    ) -> Option<tiny_http::Request> {
        if self.waiting.fetch_add(1, SeqCst) >= most {
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
                Ok(request) if request.url() == self.secret.0 => {
                    // Not dropped, which would answer it; nobody reads the answer.
                    drop(request.into_writer());
                    self.send_heartbeat();
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
                // The wake-up call of `close`.
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
    pub(in crate::server) fn progress(&self) -> (usize, u64) {
        (self.waiting.load(SeqCst), self.given.load(SeqCst))
    }

    /// How many probes have been received.
    pub(in crate::server) fn heartbeats(&self) -> u64 {
        self.heartbeats.load(SeqCst)
    }

    /// Records that the accept loop runs: it has accepted a new connection.
    pub(in crate::server) fn send_heartbeat(&self) {
        *self.last_heartbeat.lock() = Instant::now();
    }

    /// When the accept loop was last known to run.
    pub(in crate::server) fn last_heartbeat(&self) -> Instant {
        *self.last_heartbeat.lock()
    }

    pub(in crate::server) fn opened(&self) -> Instant {
        self.opened
    }

    /// How the accept loop ended; `None` where it runs, or ended without reporting an error.
    pub(in crate::server) fn ended(&self) -> Option<Ended> {
        self.ended.lock().map(|(ended, _)| ended)
    }

    /// When the accept loop ended.
    pub(in crate::server) fn ended_at(&self) -> Option<Instant> {
        self.ended.lock().map(|(_, at)| at)
    }

    fn how_ended(&self, error: &io::Error) -> Ended {
        let timed_out = matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        );
        // One that comes sooner is none: opening acceptors for it would not end.
        if timed_out && self.opened.elapsed() >= self.accept_timeout / 2 {
            Ended::TimedOut
        } else {
            Ended::Failed
        }
    }

    /// Ends the waiting of all threads here.
    pub(in crate::server) fn close(&self) {
        self.closed.store(true, SeqCst);
        if let Some(server) = &self.server {
            (0..self.waiting.load(SeqCst)).for_each(|_| server.unblock());
        }
    }
}

impl Drop for Acceptor {
    /// tiny_http connects to its own address here, which takes minutes where a firewall drops that: in a thread of its own.
    fn drop(&mut self) {
        let server = self.server.take();
        let thread = thread::Builder::new().name("long-polling-close".into());
        if let Err(error) = thread.spawn(move || drop(server)) {
            log::debug!("an accept loop was closed without a thread of its own: {error}");
        }
    }
}
