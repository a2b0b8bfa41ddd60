//! [`RedisState`]: whether Redis can be reached, and [`Monitor`]: which reports it and counts.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use crate::atomic::AtomicU64;
use crate::broker::BackplaneStatistics;

/// A change that [`RedisBackplane::on_state`](crate::RedisBackplane::on_state) reports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisState {
    /// All streams are being read, and publishes go through.
    Connected,
    /// Redis can't be reached, or refuses publishes. The node tries again by itself.
    Away {
        /// Why, for people.
        reason: String,
    },
    /// Events were lost: Redis lost them, or trimmed them before this node had read them. Subscribers get a gap.
    Lost {
        /// The stream.
        stream: usize,
        /// What happened, for people.
        reason: String,
    },
}

impl fmt::Display for RedisState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisState::Connected => f.pad("connected"),
            RedisState::Away { reason } => f.pad(&format!("away: {reason}")),
            RedisState::Lost { stream, reason } => {
                f.pad(&format!("events of stream {stream} lost: {reason}"))
            }
        }
    }
}

/// The callback of [`RedisBackplane::on_state`](crate::RedisBackplane::on_state).
#[derive(Clone)]
pub(super) struct OnState(pub(super) Arc<dyn Fn(&RedisState) + Send + Sync>);

/// A thread that talks to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Reader(usize),
    Publisher(usize),
}

/// Counts, and reports changes of the state.
#[derive(Default)]
pub(super) struct Monitor {
    on_state: Option<OnState>,
    state: Mutex<MonitorState>,
    pub(super) published: AtomicU64,
    pub(super) read: AtomicU64,
    reconnects: AtomicU64,
    losses: AtomicU64,
}

#[derive(Default)]
struct MonitorState {
    /// The parts that can't work, and why.
    failing: Vec<(Part, String)>,
    is_away: bool,
}

impl Monitor {
    pub(super) fn new(on_state: Option<OnState>) -> Self {
        Monitor {
            on_state,
            ..Monitor::default()
        }
    }

    fn call(&self, state: &RedisState) {
        if let Some(OnState(callback)) = &self.on_state
            && catch_unwind(AssertUnwindSafe(|| callback(state))).is_err()
        {
            log::error!("the callback RedisBackplane::on_state panicked");
        }
    }

    /// Notes that a part can't work. Reports only the first one.
    pub(super) fn failed(&self, part: Part, reason: &str) {
        let mut state = self.state.lock();
        state.failing.retain(|(other, _)| *other != part);
        state.failing.push((part, reason.to_owned()));
        if !std::mem::replace(&mut state.is_away, true) {
            drop(state);
            log::warn!("Redis can't be used: {reason}; polls of what is buffered go on");
            self.call(&RedisState::Away {
                reason: reason.to_owned(),
            });
        }
    }

    /// Notes that a part works, and whether it works again over a new connection.
    pub(super) fn works(&self, part: Part, reconnected: bool) {
        if reconnected {
            self.reconnects.fetch_add(1, Relaxed);
        }
        let mut state = self.state.lock();
        state.failing.retain(|(other, _)| *other != part);
        if state.failing.is_empty() && std::mem::take(&mut state.is_away) {
            drop(state);
            log::info!("Redis can be used again");
            self.call(&RedisState::Connected);
        }
    }

    /// Notes that events were lost.
    pub(super) fn lost(&self, stream: usize, reason: &str) {
        self.losses.fetch_add(1, Relaxed);
        log::error!("events of stream {stream} were lost: {reason}; subscribers get a gap");
        self.call(&RedisState::Lost {
            stream,
            reason: reason.to_owned(),
        });
    }

    /// Returns why Redis can't be used, if so.
    pub(super) fn failing(&self) -> Option<String> {
        let state = self.state.lock();
        state.failing.first().map(|(_, reason)| reason.clone())
    }

    pub(super) fn statistics(&self, waiting: usize) -> BackplaneStatistics {
        let failing = self.failing();
        BackplaneStatistics {
            connected: failing.is_none(),
            failing,
            published: self.published.load(Relaxed),
            read: self.read.load(Relaxed),
            waiting: waiting as u64,
            reconnects: self.reconnects.load(Relaxed),
            losses: self.losses.load(Relaxed),
        }
    }
}
