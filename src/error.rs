//! What can go wrong: one [`Error`] with a [`kind`](Error::kind) to match on and a message that says what to do.

use std::error::Error as StdError;
use std::fmt;

/// An error of this crate: what happened, as an [`ErrorKind`] to match on and in words for a person.
///
/// ```
/// use long_polling::{Error, ErrorKind, EventId};
///
/// let error: Error = "not-a-uuid".parse::<EventId>().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidRequest);
/// assert_eq!(error.to_string(), r#"not an event id (a UUID is expected): "not-a-uuid""#);
/// ```
// Boxed, so that a `Result` of this crate costs a pointer where nothing goes wrong.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    status: Option<u16>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of thing went wrong. More may come: match with a wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting can't be used; the message names it and says why. Fix the program's configuration.
    InvalidSetting,
    /// The server could not listen on its address, most often because it is in use.
    Listen,
    /// A file could not be opened, read or written.
    File,
    /// What was asked for makes no sense: an empty category, data that is not JSON, an id that is not a UUID, a bad URL.
    InvalidRequest,
    /// An event is larger than the limit.
    TooLarge,
    /// A limit was reached, on parked subscribers for example. Try again later.
    Busy,
    /// The server, broker or subscriber has been stopped.
    Stopped,
    /// [`stop`](crate::Server::stop) reached its timeout before every request was done.
    StopTimeout,
    /// Serving ended and could not be restored; told to the failure callback.
    ServingFailed,
    /// The server could not be reached, or the connection broke. Trying again may help.
    Unreachable,
    /// The server did not answer in time. Trying again may help.
    TimedOut,
    /// An answer came that is not of the long-polling API.
    InvalidAnswer,
    /// The server refused; [`Error::status`] has the HTTP status.
    Refused,
    /// Events between the subscriber's position and the next event were lost. What follows is complete again.
    Gap,
}

impl Error {
    /// An error for a program's own part of this crate, such as a [`Store`](crate::Store). The message says what is wrong
    /// and what to do.
    ///
    /// ```
    /// use long_polling::{Error, ErrorKind};
    ///
    /// let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    /// let error = Error::new(ErrorKind::Busy, "the event could not be kept; try again").with_source(full);
    /// assert_eq!(error.to_string(), "the event could not be kept; try again: no storage space");
    /// ```
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            status: None,
            source: None,
        }))
    }

    #[cfg(feature = "server")]
    pub(crate) fn setting(name: &str, problem: impl fmt::Display) -> Self {
        Error::new(ErrorKind::InvalidSetting, format!("{name}: {problem}"))
    }

    pub(crate) fn request(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidRequest, message)
    }

    /// Adds the error that caused this one; the message goes on with its words.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        self.0.message = format!("{}: {source}", self.0.message);
        self.0.source = Some(source);
        self
    }

    #[cfg(feature = "client")]
    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The HTTP status of an answer that refused, or made no sense; `None` for errors that no answer carried.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// True where a subscriber is told that events were lost; see [`ErrorKind::Gap`].
    pub fn is_gap(&self) -> bool {
        self.kind() == ErrorKind::Gap
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            message,
            status,
            source,
        } = &*self.0;
        let mut debug = f.debug_struct("Error");
        debug.field("kind", kind).field("message", message);
        if let Some(status) = status {
            debug.field("status", status);
        }
        if let Some(source) = source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_its_cause_once_in_words_and_once_as_a_source() {
        let error = Error::new(ErrorKind::File, "can't open events.log")
            .with_source(std::io::Error::other("disk on fire"));
        assert_eq!(error.to_string(), "can't open events.log: disk on fire");
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("disk on fire")
        );
        assert!(!error.is_gap());
    }
}
