//! [`Subscriber`]: follows categories, poll after poll, and returns each event once.

mod next;
mod polling;
mod saving;

use std::convert::Infallible;
use std::fmt;
use std::time::{Duration, Instant};
use std::vec;

use crossbeam_channel::Receiver;

use super::backoff::Backoff;
use super::credentials::Credentials;
use super::failure::redacted;
use super::poll_thread::PollThread;
use super::position_file::PositionStore;
use super::stopper::Stopper;
use super::tracker::PositionTracker;
use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::event::Event;
use crate::headers::Headers;
use crate::position::{Cursor, EventId};
use crate::wire::{Categories, SubscriptionRequest};
use polling::FirstPoll;

type OnRetry = Box<dyn Fn(&Error) + Send>;

/// An iterator over the events of categories, which polls, keeps its position and retries.
///
/// One poll follows all its categories. [`next`](Iterator::next) polls only when no event of the last poll is left, so the
/// subscriber takes no event from the server before the program asks for it. The poll runs on a thread of its own,
/// `long-polling-subscriber`, which ends with the subscriber.
///
/// # Position
///
/// The position comes from the events, and from the header `Last-Event-ID` of each response. A subscriber that starts at
/// [`Cursor::Now`] first polls with `timeout=0`, which the server answers at once, and so knows its position before it
/// waits. From then on it misses no event that the server still buffers, neither between two polls, nor while the server
/// is unreachable, nor when a proxy cuts polls off. If the server no longer buffers the next events, `next` returns an error
/// of kind [`Gap`](ErrorKind::Gap) and continues after the gap. To continue after a restart of the program, let
/// [`save_position`](Subscriber::save_position) keep the position in a file; or save
/// [`position`](Subscriber::position) and give it to [`start_at`](Subscriber::start_at).
///
/// golongpoll's own server has neither the header nor gaps; the subscriber follows it by event ids and times, as
/// golongpoll's Go client does. That server refuses `timeout=0`, so the first poll waits for up to a second.
///
/// A response with nothing newer than the position counts as a failed poll: the subscriber drops its events, keeps the
/// position, and waits for the [`backoff`](Subscriber::backoff) before the next poll.
///
/// # Errors
///
/// `next` returns an error
/// - of kind [`Gap`](ErrorKind::Gap), and continues;
/// - of kind [`Refused`](ErrorKind::Refused) once, then ends, for a status that another try would not change: 400, 401,
///   403, 404, 405 and 410;
/// - of kind [`InvalidRequest`](ErrorKind::InvalidRequest) once, then ends, if the URL, a header or a category can't be
///   used, and of kind [`Stopped`](ErrorKind::Stopped) if the [`agent`](Subscriber::agent) was shut down;
/// - of kind [`File`](ErrorKind::File) if the position can't be read from its
///   [file](Subscriber::save_position), and ends, or if it can't be saved, and continues.
///
/// The subscriber logs all other errors (unreachable, too slow, overloaded, an invalid response) as warnings, passes them
/// to [`on_retry`](Subscriber::on_retry), and retries after a [`backoff`](Subscriber::backoff), without limit.
///
/// ```no_run
/// use long_polling::{Cursor, Subscriber};
///
/// let subscriber =
///     Subscriber::new("http://localhost:8080/events", ["alerts", "updates"]);
/// for event in subscriber.start_at(Cursor::Oldest) {
///     match event {
///         Ok(event) => println!("{}: {}", event.category(), event.text()),
///         Err(gap) if gap.is_gap() => eprintln!("{gap}"),
///         Err(error) => return Err(error),
///     }
/// }
/// # Ok::<(), long_polling::Error>(())
/// ```
///
/// A `for` loop has the subscriber to itself. A loop that also calls its methods, such as
/// [`position`](Subscriber::position), is a `while let` loop; [`next_timeout`](Subscriber::next_timeout) and
/// [`try_next`](Subscriber::try_next) are for a program that has other work, too.
///
/// ```no_run
/// use long_polling::Subscriber;
///
/// let mut subscriber = Subscriber::new("http://localhost:8080/events", "alerts");
/// while let Some(event) = subscriber.next() {
///     println!("{}, position {:?}", event?.text(), subscriber.position());
/// }
/// # Ok::<(), long_polling::Error>(())
/// ```
#[must_use = "a subscriber polls only when `next` is called"]
pub struct Subscriber {
    url: String,
    headers: Headers,
    credentials: Option<Credentials>,
    agent: Option<ureq::Agent>,
    /// Categories, timeout and limit. The cursor comes from `tracker`.
    request: SubscriptionRequest,
    backoff: Backoff,
    on_retry: Option<OnRetry>,

    first_poll: FirstPoll,
    /// The position after all events received.
    tracker: PositionTracker,
    /// The position after all events returned.
    position: Option<EventId>,
    /// The timestamp of the last event returned.
    position_time: Option<u64>,
    position_file: Option<Box<dyn PositionStore>>,
    /// The gap to return before the pending events.
    gap: Option<Error>,
    /// The next event follows a gap, so it may belong to another run than the position.
    after_gap: bool,
    /// The events received and not returned yet.
    pending: vec::IntoIter<Event>,
    /// The number of successive responses that had no event and came at once.
    quick_responses: u32,
    /// When the next poll may start, if the last one has asked for a wait.
    retry_at: Option<Instant>,
    /// The poll thread has a poll whose result was not taken yet.
    is_polling: bool,
    ended: bool,

    stopper: Stopper,
    stopped: Receiver<Infallible>,
    poll_thread: Option<PollThread>,
}

impl Subscriber {
    /// Creates a subscriber that follows `categories` at this URL, such as `http://localhost:8080/events`, from now on.
    ///
    /// The first [`next`](Iterator::next) checks the URL and sends the first request.
    pub fn new(url: impl Into<String>, categories: impl Into<Categories>) -> Self {
        let (stopper, stopped) = Stopper::new();
        Subscriber {
            url: url.into(),
            headers: Headers::new(),
            credentials: None,
            agent: None,
            request: SubscriptionRequest::new(categories),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(30)),
            on_retry: None,
            first_poll: FirstPoll::NoWait,
            tracker: PositionTracker::new(Cursor::Now),
            position: None,
            position_time: None,
            position_file: None,
            gap: None,
            after_gap: false,
            pending: vec::IntoIter::default(),
            quick_responses: 0,
            retry_at: None,
            is_polling: false,
            ended: false,
            stopper,
            stopped,
            poll_thread: None,
        }
    }

    /// Sets the position to start at: a [`Cursor`], or an [`EventId`] that was saved. Defaults to [`Cursor::Now`], the
    /// moment at which the server answers the first poll.
    ///
    /// ```
    /// use long_polling::{EventId, Subscriber};
    ///
    /// let saved: EventId = "019a5b3c-1234-8abc-8000-000000000007".parse()?;
    /// let subscriber =
    ///     Subscriber::new("http://localhost:8080/events", "alerts").start_at(saved);
    /// assert_eq!(subscriber.position(), Some(saved));
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn start_at(mut self, cursor: impl Into<Cursor>) -> Self {
        self.tracker = PositionTracker::new(cursor.into());
        self.position = self.tracker.id();
        self
    }

    /// Sets the longest time that the server may hold one poll, in whole seconds, rounded up, at least one. Defaults to 60
    /// seconds. The server may hold it for less.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = timeout.max(Duration::from_secs(1));
        self
    }

    /// Sets the most events that one poll returns, at least 1. Defaults to the server's own limit. golongpoll's server
    /// ignores it.
    ///
    /// A lower limit means more round trips, but fewer events in memory. With a server that deletes events after their
    /// retrieval, and a limit of 1, several subscribers share the events of a category as work: each takes the next event
    /// only when its program asks for it. All subscribers that are parked when an event is published receive it.
    pub fn limit(mut self, limit: usize) -> Self {
        self.request.limit = Some(limit.max(1));
        self
    }

    /// Sets the name by which the server counts this subscriber as present, also between its polls: 1 to 255 bytes. Defaults
    /// to none: the server counts it without a name.
    ///
    /// The server does so if its setting `BrokerOptions::presence` is on, and gives the names to the program that embeds it.
    /// All subscribers of one name count as one. A name proves nothing: any client can give any name.
    ///
    /// ```no_run
    /// use long_polling::Subscriber;
    ///
    /// let events = Subscriber::new("http://localhost:8080/events", "room/1").name("alice");
    /// # drop(events);
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.request.subscriber = Some(name.into());
        self
    }

    /// Adds a header field to every poll. Defaults to no fields.
    ///
    /// An `Authorization` takes precedence over [`credentials`](Subscriber::credentials). After a redirect to another
    /// origin the fields are not sent.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.headers.add(name, value);
        self
    }

    /// Sets the credentials for HTTP authentication at the URL's own origin. Defaults to those in the URL, if any.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Sets an agent with settings of your own (proxy, TLS). Defaults to an agent with ureq's settings. The agent's
    /// timeouts are not used.
    ///
    /// The subscriber owns the agent, and shuts it and all its clones down when the subscriber ends, is stopped or dropped.
    /// Give each subscriber an agent of its own.
    pub fn agent(mut self, agent: ureq::Agent) -> Self {
        self.agent = Some(agent);
        self
    }

    /// Sets the shortest and the longest wait before a retry. Defaults to 100 milliseconds and 30 seconds; at least 10
    /// milliseconds.
    ///
    /// The wait is `min` after the first failure, and doubles after each further one up to `max`. A random part, up to a
    /// half, is subtracted, so that many subscribers do not retry at the same moment. If the server's `Retry-After` asks
    /// for a longer wait, the subscriber waits that long, up to 5 minutes.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = Backoff::new(min, max);
        self
    }

    /// Sets a callback for each error after which the subscriber retries. Defaults to none.
    ///
    /// The thread that waits for the next event runs it, before the wait for the retry.
    ///
    /// ```
    /// use long_polling::Subscriber;
    ///
    /// let subscriber = Subscriber::new("http://localhost:8080/events", "alerts")
    ///     .on_retry(|error| eprintln!("trying again: {}", error.report()));
    /// # assert_eq!(subscriber.position(), None);
    /// ```
    pub fn on_retry(mut self, callback: impl Fn(&Error) + Send + 'static) -> Self {
        self.on_retry = Some(Box::new(callback));
        self
    }

    /// Returns the position after all events that `next` has returned, or `None` if it is not known yet.
    ///
    /// It is the id of the last event, or a later position at which the server had nothing newer. Give it to
    /// [`start_at`](Subscriber::start_at) of a new subscriber to continue from here.
    ///
    /// In a loop over `&mut subscriber` (or [`by_ref`](Iterator::by_ref)), the position can be read after the loop; within
    /// it, [`Event::id`] is the position after that event.
    ///
    /// ```
    /// # use long_polling::{Cursor, Server, ServerInfo, Subscriber};
    /// # let server = Server::start(ServerInfo::new("127.0.0.1:0"))?;
    /// # let url = format!("http://{}/events", server.local_addr());
    /// # server.publish("alerts", "first")?;
    /// # let second = server.publish("alerts", "second")?;
    /// let mut subscriber = Subscriber::new(url, "alerts").start_at(Cursor::Oldest);
    /// for event in subscriber.by_ref().take(2) {
    ///     let event = event?;
    ///     println!("{}, position {}", event.text(), event.id());
    /// }
    /// assert_eq!(subscriber.position(), Some(second));
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn position(&self) -> Option<EventId> {
        self.position
    }

    /// Returns a handle that stops this subscriber from another thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber")
            .field("url", &redacted(&self.url))
            .field("request", &self.request)
            .field("cursor", &self.tracker.cursor())
            .field("position", &self.position)
            .field("pending", &self.pending.len())
            .field("stopper", &self.stopper)
            .finish_non_exhaustive()
    }
}
