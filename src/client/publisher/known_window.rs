//! [`KnownWindow`]: how long a server remembers idempotency keys, as far as a publisher knows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::client::response::PublishResponse;
use crate::client::url::Url;
use crate::wire::IDEMPOTENCY_WINDOW;

/// The window of the server that was asked last. The clones of a publisher share it.
#[derive(Clone, Default)]
pub(super) struct KnownWindow(Arc<Mutex<Option<(Url, Duration)>>>);

impl KnownWindow {
    /// Returns the window of the server at this URL, or `None` if the server has not been asked or knows no keys.
    pub(super) fn of(&self, url: &Url) -> Option<Duration> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref().filter(|(asked, _)| asked == url);
        known.map(|(_, window)| *window)
    }

    pub(super) fn set(&self, url: Url, window: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((url, window));
    }
}

/// Reads the window from a response to OPTIONS: whole seconds, more than zero. `None` if the server knows no keys.
pub(super) fn window_of(response: &PublishResponse) -> Option<Duration> {
    let seconds = response.headers.get(IDEMPOTENCY_WINDOW)?.trim().parse();
    let window = seconds.map(Duration::from_secs).ok();
    window.filter(|window| !window.is_zero())
}
