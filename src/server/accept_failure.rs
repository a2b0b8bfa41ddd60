//! [`AcceptFailure`]: how long no connection could be accepted, for the settings `restore_timeout` and `on_failure`.

use std::io;
use std::time::{Duration, Instant};

use super::info::{OnFailure, ServerInfo};
use crate::error::{Error, ErrorKind};

pub(super) struct AcceptFailure {
    /// Since when no connection could be accepted.
    since: Option<Instant>,
    restore_timeout: Duration,
    /// `None` once it has been called.
    on_failure: Option<OnFailure>,
}

impl AcceptFailure {
    pub(super) fn new(info: &ServerInfo) -> Self {
        AcceptFailure {
            since: None,
            restore_timeout: info.restore_timeout,
            on_failure: info.on_failure.clone(),
        }
    }

    /// Records that no connection can be accepted. Calls the program's callback after the restore timeout.
    pub(super) fn begin(&mut self, error: &io::Error) {
        let since = *self.since.get_or_insert_with(|| {
            log::warn!("accepting connections failed: {error}; the server tries again");
            Instant::now()
        });
        if since.elapsed() >= self.restore_timeout
            && let Some(on_failure) = self.on_failure.take()
        {
            let message = format!(
                "no connection could be accepted for {:?}: {error}; the server tries again; free descriptors, threads or \
                 memory, or allow the process more",
                since.elapsed()
            );
            on_failure.call(Error::new(ErrorKind::ServingFailed, message));
        }
    }

    /// Records that a connection was accepted.
    pub(super) fn end(&mut self) {
        if let Some(since) = self.since.take() {
            log::warn!("connections are accepted again after {:?}", since.elapsed());
        }
    }
}
