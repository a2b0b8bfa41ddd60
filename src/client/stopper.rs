//! [`Stopper`]: ends a subscriber from another thread.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crossbeam_channel::{Receiver, Sender};

/// Ends a [`Subscriber`](crate::Subscriber) from another thread, or from a signal's handler thread. Clones end the same.
///
/// ```
/// use long_polling::Subscriber;
///
/// let mut subscriber = Subscriber::new("http://localhost:8080/events", "alerts");
/// let stopper = subscriber.stopper();
/// std::thread::spawn(move || stopper.stop());
/// for event in subscriber {
///     println!("{}", event?);
/// }
/// # Ok::<(), long_polling::Error>(())
/// ```
#[derive(Clone)]
pub struct Stopper(Arc<Shared>);

struct Shared {
    /// Nothing is ever sent: that it is gone wakes whoever waits on the receiver.
    running: Mutex<Option<Sender<Infallible>>>,
    /// The agent whose poll is under way; set when the first poll starts.
    agent: OnceLock<ureq::Agent>,
}

impl Stopper {
    /// A stopper, and a receiver that is disconnected once it has been used.
    pub(crate) fn new() -> (Self, Receiver<Infallible>) {
        let (running, stopped) = crossbeam_channel::bounded(0);
        let running = Mutex::new(Some(running));
        let agent = OnceLock::new();
        (Stopper(Arc::new(Shared { running, agent })), stopped)
    }

    /// Ends the subscriber: its `next`, wherever it waits, returns `None` within 100 milliseconds, and the connection of
    /// a poll under way is closed. Doing so again does nothing.
    pub fn stop(&self) {
        drop(self.running().take());
        if let Some(agent) = self.0.agent.get() {
            agent.clone().shutdown();
        }
    }

    /// True once [`stop`](Stopper::stop) was called, or the subscriber is gone.
    pub fn is_stopped(&self) -> bool {
        self.running().is_none()
    }

    /// The agent that stopping shuts down: this one, unless there is one already.
    pub(crate) fn agent(&self, make: impl FnOnce() -> ureq::Agent) -> &ureq::Agent {
        self.0.agent.get_or_init(make)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Sender<Infallible>>> {
        let running = self.0.running.lock();
        running.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Stopper");
        debug.field("stopped", &self.is_stopped()).finish()
    }
}
