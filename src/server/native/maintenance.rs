//! [`Maintenance`]: one thread that looks after what no other thread can: clients that hang up while their polls are parked,
//! refused connections, and events that expire. It sleeps while there is none of these.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::connections::Connections;
use crate::broker::Broker;

/// The time between two looks at the clients of parked polls. A refused connection is kept for one to two of it.
const PERIOD: Duration = Duration::from_millis(900);
/// The longest time between two searches for expired events.
const LONGEST_SWEEP: Duration = Duration::from_secs(60);
/// The most refused connections that are kept.
const MAX_REFUSED: usize = 32;

#[derive(Default)]
pub(super) struct Maintenance {
    state: Mutex<State>,
    changed: Condvar,
    /// The thread looks again by itself, so that nothing needs to wake it.
    is_awake: AtomicBool,
}

#[derive(Default)]
struct State {
    refused: Vec<TcpStream>,
    /// Refused before the last look.
    leaving: Vec<TcpStream>,
    stopped: bool,
}

impl Maintenance {
    /// Called after a poll has parked.
    pub(super) fn wake(&self) {
        if !self.is_awake.load(SeqCst) {
            let _state = self.state.lock();
            self.is_awake.store(true, SeqCst);
            self.changed.notify_one();
        }
    }

    /// Keeps a connection that has been refused for a while: if it were closed at once, what its client sends would reset
    /// it, and the client might not see the answer.
    pub(super) fn keep(&self, stream: TcpStream) {
        let mut state = self.state.lock();
        if state.refused.len() < MAX_REFUSED {
            state.refused.push(stream);
        }
        drop(state);
        self.wake();
    }

    /// Closes the refused connections that are kept, for want of descriptors.
    pub(super) fn close_refused(&self) {
        let mut state = self.state.lock();
        (state.refused, state.leaving) = Default::default();
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_one();
    }

    pub(super) fn run(&self, connections: &Connections, broker: &Broker) {
        loop {
            broker.sweep();
            let sweep = broker.sweep_pause();
            let sweep = sweep.map(|pause| pause.clamp(PERIOD, LONGEST_SWEEP));
            // Before the look: a poll that parks after it wakes this thread.
            self.is_awake.store(false, SeqCst);
            let parked = connections.parked();
            let has_parked = !parked.is_empty();
            parked
                .into_iter()
                .for_each(|connection| connection.look_at_client());
            let mut state = self.state.lock();
            // Closes those that were there at the last look.
            state.leaving = std::mem::take(&mut state.refused);
            if has_parked || !state.leaving.is_empty() {
                self.is_awake.store(true, SeqCst);
            }
            while !state.stopped {
                let is_awake = self.is_awake.load(SeqCst);
                match if is_awake { Some(PERIOD) } else { sweep } {
                    None => self.changed.wait(&mut state),
                    Some(time) if self.changed.wait_for(&mut state, time).timed_out() => break,
                    Some(_) => {}
                }
            }
            if state.stopped {
                return;
            }
        }
    }
}
