//! [`Error`], with a [`kind`](Error::kind) to match on and a message that says what to do.

use std::error::Error as StdError;
use std::{fmt, io};

/// An error of this crate: an [`ErrorKind`] to match on, a message for people, and the cause where there is one.
///
/// `Display` gives the message alone; the cause is [`source`](std::error::Error::source). Log or print
/// [`report`](Error::report), which gives both. `Debug`, which `unwrap` and `main` print, gives the report with the kind before
/// it, on one line; `{:#?}` gives each part a line.
///
/// ```
/// use long_polling::{Error, ErrorKind, EventId};
///
/// let error: Error = "not-a-uuid".parse::<EventId>().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidRequest);
/// assert_eq!(
///     error.to_string(),
///     r#"not an event id (a UUID is expected): "not-a-uuid""#
/// );
/// assert_eq!(
///     format!("{error:?}"),
///     r#"invalid request: not an event id (a UUID is expected): "not-a-uuid""#
/// );
/// ```
// Boxed, so that a `Result` of this crate is the size of a pointer.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    status: Option<u16>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of [`Error`]. Later versions may add kinds, so a `match` needs a wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting can't be used; the message names it and says why. Fix the program's configuration.
    InvalidSetting,
    /// The server could not listen on its address, most often because it is in use.
    Listen,
    /// A file could not be opened, read or written.
    File,
    /// A store of the program's own failed; the cause says why. Over HTTP, a publish is answered with 503 and `Retry-After`.
    Store,
    /// The request itself is wrong: an empty category, data that is not JSON, an id that is not a UUID, a bad URL.
    InvalidRequest,
    /// The data of an event can't be decoded into the type that [`Event::decode`](crate::Event::decode) was given.
    Decode,
    /// An event is larger than `max_event_size`.
    TooLarge,
    /// A limit was reached, for example on parked subscribers. Try again later.
    Busy,
    /// The server, broker or subscriber has been stopped.
    Stopped,
    /// [`stop`](crate::Server::stop) reached its timeout before every request was done.
    StopTimeout,
    /// The server has accepted no connection for [`restore_timeout`](crate::ServerInfo::restore_timeout); given to
    /// [`on_failure`](crate::ServerInfo::on_failure).
    ServingFailed,
    /// The server could not be reached, or the connection broke. Another try may succeed.
    Unreachable,
    /// The server did not respond in time. Another try may succeed. From a publish to a broker in Redis, and from a publish
    /// with an idempotency key: whether the event was published is not known.
    TimedOut,
    /// The response does not follow the long-polling API.
    InvalidResponse,
    /// The server refused the request; [`Error::status`] has the HTTP status.
    Refused,
    /// The idempotency key of a publish was given to other events before. Give each publish a key of its own.
    KeyReused,
    /// The category lies in a stream that this node does not read; see
    /// `RedisBackplane::read_streams`.
    Misdirected,
    /// Events between the subscriber's position and the next event were lost. The events that follow are complete.
    Gap,
}

/// A few words, such as `invalid setting`.
impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ErrorKind::InvalidSetting => "invalid setting",
            ErrorKind::Listen => "can't listen",
            ErrorKind::File => "file error",
            ErrorKind::Store => "store failed",
            ErrorKind::InvalidRequest => "invalid request",
            ErrorKind::Decode => "can't decode data",
            ErrorKind::TooLarge => "too large",
            ErrorKind::Busy => "busy",
            ErrorKind::Stopped => "stopped",
            ErrorKind::StopTimeout => "stop timed out",
            ErrorKind::ServingFailed => "serving failed",
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::TimedOut => "timed out",
            ErrorKind::InvalidResponse => "invalid response",
            ErrorKind::Refused => "refused",
            ErrorKind::KeyReused => "key reused",
            ErrorKind::Misdirected => "misdirected",
            ErrorKind::Gap => "gap",
        })
    }
}

impl Error {
    /// Returns an error without a cause, for a program's own implementation of a trait of this crate, such as a
    /// [`Store`](crate::store::Store). The message says what failed and what to do about it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            status: None,
            source: None,
        }))
    }

    /// Returns the error of a program's own [`Store`](crate::store::Store) for the error of a library that it uses, which
    /// becomes the [`source`](std::error::Error::source). Meant for `map_err`. An [`io::Error`] and a boxed error need
    /// none: `?` converts them.
    ///
    /// ```
    /// use std::fs;
    /// use long_polling::{Error, ErrorKind};
    ///
    /// fn read(path: &str) -> Result<u64, Error> {
    ///     let text = fs::read_to_string(path)?;
    ///     text.trim().parse().map_err(Error::store)
    /// }
    ///
    /// let error = read("no-such-file").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Store);
    /// assert!(error.report().to_string().starts_with("the store failed: "));
    /// ```
    pub fn store(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error::new(ErrorKind::Store, "the store failed").with_source(source)
    }

    #[cfg(feature = "_server")]
    pub(crate) fn setting(name: &str, problem: impl fmt::Display) -> Self {
        Error::new(ErrorKind::InvalidSetting, format!("{name}: {problem}"))
    }

    /// A text that does not stand for a value: `not WHAT: "TEXT"; give EXPECTED`.
    pub(crate) fn not_a(what: &str, text: &str, expected: impl fmt::Display) -> Self {
        const MAX_QUOTED_CHARS: usize = 64;
        let quoted: String = text.chars().take(MAX_QUOTED_CHARS).collect();
        let message = format!("not {what}: {quoted:?}; give {expected}");
        Error::new(ErrorKind::InvalidSetting, message)
    }

    pub(crate) fn request(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidRequest, message)
    }

    /// Sets the cause of this error, which [`source`](std::error::Error::source) returns. The message stays as it is.
    ///
    /// ```
    /// use long_polling::{Error, ErrorKind};
    ///
    /// let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    /// let error = Error::new(ErrorKind::Busy, "the event could not be stored; try again")
    ///     .with_source(full);
    /// assert_eq!(
    ///     error.to_string(),
    ///     "the event could not be stored; try again"
    /// );
    /// assert_eq!(
    ///     error.report().to_string(),
    ///     "the event could not be stored; try again: no storage space"
    /// );
    /// ```
    #[must_use = "`with_source` returns the error"]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts what follows from the error before its message; the kind, the status and the cause stay.
    #[cfg(any(feature = "_server", feature = "client"))]
    pub(crate) fn context(mut self, consequence: impl fmt::Display) -> Self {
        self.0.message = format!("{consequence}: {}", self.0.message);
        self
    }

    /// Puts what to do about the error after its message; the kind, the status and the cause stay.
    #[cfg(feature = "client")]
    pub(crate) fn with_hint(mut self, hint: impl fmt::Display) -> Self {
        self.0.message = format!("{}; {hint}", self.0.message);
        self
    }

    #[cfg(feature = "client")]
    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    /// Returns the message and all causes on one line: `message: cause: cause's cause`. Meant for logs and terminals.
    ///
    /// ```
    /// use long_polling::Event;
    ///
    /// let event: Event = serde_json::from_str(
    ///     r#"{"timestamp":1,"category":"c","data":"text","id":"019a5b3c-1234-8abc-8000-000000000007"}"#,
    /// )?;
    /// let error = event.decode::<u32>().unwrap_err();
    /// eprintln!("skipped: {}", error.report());
    /// assert!(
    ///     error.report().to_string().ends_with(
    ///         r#": invalid type: string "text", expected u32 at line 1 column 6"#
    ///     )
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn report(&self) -> impl fmt::Display + '_ {
        Report(self)
    }

    /// Returns the kind of this error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the HTTP status of the response that caused this error, or `None` if no response did.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// Returns `true` if events were lost between the subscriber's position and its next event: [`ErrorKind::Gap`].
    pub fn is_gap(&self) -> bool {
        self.kind() == ErrorKind::Gap
    }
}

struct Report<'a>(&'a Error);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
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
        if !f.alternate() {
            return write!(f, "{kind}: {}", self.report());
        }
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

/// [`Error::store`], for `?` in a program's own store.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::store(error)
    }
}

/// [`Error::store`], for `?` in a program's own store. An [`Error`] in the box is returned as it is.
impl From<Box<dyn StdError + Send + Sync>> for Error {
    fn from(error: Box<dyn StdError + Send + Sync>) -> Self {
        match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::store(error),
        }
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
    fn display_gives_the_message_alone_and_report_each_cause_once() {
        let disk = Error::new(ErrorKind::File, "can't open events.log")
            .with_source(std::io::Error::other("disk on fire"));
        let error = Error::new(ErrorKind::Busy, "try again").with_source(disk);
        assert_eq!(error.to_string(), "try again");
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("can't open events.log")
        );
        assert_eq!(
            error.report().to_string(),
            "try again: can't open events.log: disk on fire"
        );
        assert!(!error.is_gap());
    }

    #[test]
    fn errors_of_other_libraries_become_errors_of_a_store_and_errors_in_a_box_stay_themselves() {
        fn boxed(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Result<(), Error> {
            Err(error.into())?
        }
        fn system() -> Result<(), Error> {
            Err(std::io::Error::other("disk on fire"))?
        }
        for error in [system(), boxed("disk on fire")] {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Store);
            assert_eq!(error.report().to_string(), "the store failed: disk on fire");
        }
        let busy = boxed(Error::new(ErrorKind::Busy, "try again")).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Busy);
        assert_eq!(busy.report().to_string(), "try again");
    }

    #[test]
    fn debug_gives_the_kind_and_the_report_on_one_line_and_the_parts_on_several() {
        let error = Error::request("bad URL");
        assert_eq!(format!("{error:?}"), "invalid request: bad URL");
        let parts = "Error {\n    kind: InvalidRequest,\n    message: \"bad URL\",\n}";
        assert_eq!(format!("{error:#?}"), parts);
        let disk = Error::new(ErrorKind::File, "can't open events.log")
            .with_source(std::io::Error::other("disk on fire"));
        let error = Error::new(ErrorKind::Busy, "try again").with_source(disk);
        assert_eq!(
            format!("{error:?}"),
            "busy: try again: can't open events.log: disk on fire"
        );
        assert!(format!("{error:#?}").contains("disk on fire"));
    }
}
