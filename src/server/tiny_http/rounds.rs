//! [`Rounds`]: what the listener knows from one check to the next, and when it may open another acceptor.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acceptor::Acceptor;

/// How long a new acceptor has to receive a heartbeat before yet another is opened: twice as long each time, up to the
/// longest pause. That grows with the time that has passed, up to the last pause.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_REOPEN_PAUSE: Duration = Duration::from_millis(400);
const LAST_REOPEN_PAUSE: Duration = Duration::from_secs(10);

/// What a check of the listener has found.
pub(super) enum Tick {
    /// Connections are accepted, as far as is known.
    Well,
    /// No connection is accepted, since this time and for this reason.
    Failing(Instant, String),
    /// A new acceptor, for which receivers are needed.
    Opened(Arc<Acceptor>),
    Closing,
}

/// What has happened at the listening socket lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// Requests came.
    Busy,
    /// No request came, but there may be a new connection.
    Unknown,
    /// No connection was opened, as the system counts them.
    Quiet,
}

#[derive(Default)]
pub(super) struct Rounds {
    /// Connections seen for the first time since the last check.
    pub(super) new_connections: usize,
    /// The heartbeat that has not been received yet.
    pub(super) heartbeat: Option<Heartbeat>,
    /// When the last heartbeat was sent.
    pub(super) last_heartbeat: Option<Instant>,
    /// Connections of heartbeats that were not received in time, kept open for as long as possible: tiny_http panics over a
    /// request whose connection has been reset.
    pub(super) unanswered: VecDeque<TcpStream>,
    /// `accept` failed, or no acceptor could be opened, and no connection was accepted since.
    pub(super) failing: Option<Failing>,
    /// Nothing shows that the newest acceptor accepts, though something should.
    pub(super) doubted: bool,
    pub(super) pace: Pace,
    pub(super) closing: bool,
}

/// Since when and why no connection is accepted.
pub(super) struct Failing {
    pub(super) since: Instant,
    pub(super) why: String,
}

/// A heartbeat on its way: a request of the listener to itself.
pub(super) struct Heartbeat {
    /// Open until the heartbeat has been received.
    pub(super) stream: TcpStream,
    pub(super) sent: Instant,
    /// Heartbeats that all acceptors had received before.
    pub(super) received_before: u64,
}

/// When the next acceptor may be opened.
pub(super) struct Pace {
    /// When the first acceptor was opened of those that have received no heartbeat.
    since: Instant,
    pub(super) next: Instant,
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
    pub(super) fn opened(&mut self) {
        let now = Instant::now();
        self.next = now + self.pause;
        let longest = self.since.elapsed() / 10;
        self.pause = (2 * self.pause).min(longest.clamp(LONGEST_REOPEN_PAUSE, LAST_REOPEN_PAUSE));
    }

    /// An attempt that opened no acceptor costs little, so the next one comes soon.
    pub(super) fn failed(&mut self) {
        self.next = Instant::now() + LONGEST_REOPEN_PAUSE.min(self.pause);
    }
}

impl Rounds {
    /// Records that no connection is accepted.
    pub(super) fn fail(&mut self, why: &str) {
        // A stop has shut the socket down, so that it accepts nothing.
        if self.closing {
            return;
        }
        let failing = self.failing.get_or_insert_with(|| {
            log::warn!("accepting connections failed: {why}; the server tries again");
            Failing {
                since: Instant::now(),
                why: String::new(),
            }
        });
        why.clone_into(&mut failing.why);
    }

    /// Records that a connection was accepted.
    pub(super) fn recover(&mut self) {
        self.doubted = false;
        if let Some(failing) = self.failing.take() {
            log::warn!(
                "connections are accepted again after {:?}",
                failing.since.elapsed()
            );
        }
    }

    /// The result of a check that changes nothing.
    pub(super) fn state(&self) -> Tick {
        match &self.failing {
            _ if self.closing => Tick::Closing,
            Some(failing) => Tick::Failing(failing.since, failing.why.clone()),
            None => Tick::Well,
        }
    }
}
