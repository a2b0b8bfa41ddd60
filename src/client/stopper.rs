//! [`Stopper`]: a handle that stops a subscriber from another thread.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crossbeam_channel::{Receiver, Sender};

/// A handle that stops a [`Subscriber`](crate::Subscriber) from another thread. Clones stop the same subscriber.
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
    /// `None` once stopped. Dropping the sender disconnects the receivers, which wakes the threads that wait on them. No
    /// value is ever sent.
    running: Mutex<Option<Sender<Infallible>>>,
    /// The subscriber's agent, set when the first poll starts.
    agent: OnceLock<ureq::Agent>,
}

impl Stopper {
    /// Creates a stopper, and a receiver that [`stop`](Self::stop) disconnects.
    pub(crate) fn new() -> (Self, Receiver<Infallible>) {
        let (running, stopped) = crossbeam_channel::bounded(0);
        let running = Mutex::new(Some(running));
        let agent = OnceLock::new();
        (Stopper(Arc::new(Shared { running, agent })), stopped)
    }

    /// Stops the subscriber: its `next` returns `None` within 100 milliseconds, and the connection of its poll is closed.
    ///
    /// Has no effect on a subscriber that is stopped already.
    pub fn stop(&self) {
        drop(self.running().take());
        if let Some(agent) = self.0.agent.get() {
            agent.clone().shutdown();
        }
    }

    /// Returns `true` if [`stop`](Stopper::stop) was called, or the subscriber has ended or was dropped.
    pub fn is_stopped(&self) -> bool {
        self.running().is_none()
    }

    /// Returns the agent that [`stop`](Self::stop) shuts down. The first call makes it.
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
