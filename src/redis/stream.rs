//! [`Stream`]: what the reader and the publisher of one stream share.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::link::{Known, Link, Opened, Target, Trouble};
use super::state::Monitor;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::position::Run;

/// What the reader and the publisher of one stream share.
pub(super) struct Stream {
    pub(super) number: usize,
    pub(super) target: Target,
    pub(super) monitor: Arc<Monitor>,
    shared: Mutex<StreamState>,
    stopped: Condvar,
}

#[derive(Default)]
struct StreamState {
    /// The newest event that this node knows, by a read or by an answer to an append.
    known: Known,
    is_stopped: bool,
}

impl Stream {
    pub(super) fn new(number: usize, target: Target, monitor: Arc<Monitor>) -> Self {
        Stream {
            number,
            target,
            monitor,
            shared: Mutex::default(),
            stopped: Condvar::new(),
        }
    }

    /// Returns the newest event that this node knows.
    pub(super) fn known(&self) -> Known {
        self.shared.lock().known
    }

    /// Notes that the stream has an event.
    pub(super) fn knows(&self, run: Run, sequence: u64, timestamp: u64) {
        let known = &mut self.shared.lock().known;
        if known.run.is_none() || sequence >= known.sequence {
            *known = Known {
                run: Some(run),
                sequence,
                timestamp: timestamp.max(known.timestamp),
            };
        }
    }

    /// Notes the least timestamp that a later event must have. The clock of Redis may be set back, and then be less.
    pub(super) fn raise(&self, timestamp: u64) {
        let known = &mut self.shared.lock().known;
        known.timestamp = known.timestamp.max(timestamp);
    }

    /// Opens the stream over a new connection, or again over an open one.
    pub(super) fn open(&self, link: &mut Link) -> Result<Opened, Trouble> {
        link.open(self.known(), RandomState::new().hash_one(self.number))
    }

    pub(super) fn stop(&self) {
        self.shared.lock().is_stopped = true;
        self.stopped.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.shared.lock().is_stopped
    }

    /// Pauses, until the stop at most.
    pub(super) fn pause(&self, pause: std::time::Duration) {
        let mut shared = self.shared.lock();
        let deadline = Deadline::after(pause);
        deadline.wait_while(&self.stopped, &mut shared, |shared| !shared.is_stopped);
    }

    /// Returns the error of a start.
    pub(super) fn start_error(&self, trouble: Trouble) -> Error {
        match trouble {
            Trouble::Refused(reason) => Error::setting("redis", reason),
            Trouble::Away(reason) | Trouble::Moved(reason) => {
                let message = format!(
                    "Redis can't be reached: {reason}; start it, or give the right URL and network"
                );
                Error::new(ErrorKind::Unreachable, message)
            }
        }
    }
}
