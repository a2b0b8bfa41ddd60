//! [`Traffic`]: what a server counts besides its broker: answers by status, and connections.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::atomic::AtomicU64;

/// The least and the greatest status of an answer.
const FIRST: u16 = 200;
const LAST: u16 = 599;
const STATUSES: usize = (LAST - FIRST + 1) as usize;

/// The counters of a server.
pub(super) struct Traffic {
    started: SystemTime,
    /// Answers, by status.
    answers: [AtomicU64; STATUSES],
    connections_refused: AtomicU64,
    streams: AtomicU64,
    backend: OnceLock<BackendGauge>,
}

/// What the HTTP backend says of its connections.
struct BackendGauge {
    name: &'static str,
    open_connections: Box<dyn Fn() -> Option<usize> + Send + Sync>,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Traffic {
            started: SystemTime::now(),
            answers: std::array::from_fn(|_| AtomicU64::new(0)),
            connections_refused: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            backend: OnceLock::new(),
        }
    }

    /// Sets the backend's name, and the function that counts its open connections; this returns `None` where the system
    /// does not list them. Called once.
    pub(super) fn set_backend(
        &self,
        name: &'static str,
        open_connections: impl Fn() -> Option<usize> + Send + Sync + 'static,
    ) {
        let _ = self.backend.set(BackendGauge {
            name,
            open_connections: Box::new(open_connections),
        });
    }

    /// Counts an answer. A status out of range is sent as 500.
    pub(super) fn count_answer(&self, status: u16) {
        let status = if (FIRST..=LAST).contains(&status) {
            status
        } else {
            500
        };
        self.answers[usize::from(status - FIRST)].fetch_add(1, Relaxed);
    }

    /// Counts an open stream of events until the guard is dropped.
    pub(super) fn open_stream(&self) -> OpenStream<'_> {
        self.streams.fetch_add(1, Relaxed);
        OpenStream(&self.streams)
    }

    /// The number of open streams of events.
    pub(super) fn streams(&self) -> u64 {
        self.streams.load(Relaxed)
    }

    /// Counts a connection that is answered with 503 and closed.
    #[cfg(feature = "native-http")]
    pub(super) fn count_refused_connection(&self) {
        self.connections_refused.fetch_add(1, Relaxed);
    }

    /// Unix seconds of the start.
    pub(super) fn started(&self) -> u64 {
        let since_epoch = self.started.duration_since(UNIX_EPOCH);
        since_epoch.unwrap_or_default().as_secs()
    }

    /// The statuses that have been sent, and how often.
    pub(super) fn answers(&self) -> impl Iterator<Item = (u16, u64)> {
        let counts = self.answers.iter().map(|count| count.load(Relaxed));
        (FIRST..).zip(counts).filter(|(_, count)| *count > 0)
    }

    pub(super) fn connections_refused(&self) -> u64 {
        self.connections_refused.load(Relaxed)
    }

    /// The backend's name; `"mounted"` for endpoints in a program's own HTTP server.
    pub(super) fn backend(&self) -> &'static str {
        self.backend.get().map_or("mounted", |backend| backend.name)
    }

    /// `None` where nothing counts the connections.
    pub(super) fn open_connections(&self) -> Option<usize> {
        (self.backend.get()?.open_connections)()
    }
}

/// A stream of events that is open.
pub(super) struct OpenStream<'a>(&'a AtomicU64);

impl Drop for OpenStream<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
