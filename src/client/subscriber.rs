//! [`Subscriber`]: follows categories, poll after poll, and gives each event once.

use std::convert::Infallible;
use std::fmt;
use std::iter::FusedIterator;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use std::vec;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::backoff::{Backoff, retry_after};
use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::failure::{refusal, shown};
use super::progress::{Progress, leads_on};
use super::response::SubscriptionResponse;
use super::stopper::Stopper;
use super::transport::new_agent;
use super::worker::Worker;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::headers::Headers;
use crate::position::{Cursor, EventId};
use crate::wire::{Categories, SubscriptionRequest};

/// A poll that is answered "no events" sooner than this was not held by the server.
const QUICK: Duration = Duration::from_millis(500);
/// So many quick answers in a row are let pass.
const QUICK_ANSWERS: u32 = 3;
/// The longest wait between polls that a server answers, but does not hold.
const QUICK_WAIT: Duration = Duration::from_secs(1);

/// How the position is learned, where a subscriber starts from now and so has none: the server is asked without waiting,
/// so that nothing between this answer and the next poll is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The answer is asked for at once.
    AtOnce,
    /// The server refuses a timeout of zero, as golongpoll does: the shortest it takes.
    Shortest,
    /// The position is known, or the server tells none before an event.
    Begun,
}

type OnRetry = Box<dyn Fn(&Error) + Send>;

/// Follows categories: an iterator over their events, which polls, keeps its position and retries.
///
/// One poll follows all its categories. A poll is made only when [`next`](Iterator::next) is called and no event is held
/// from the last one, so that no event is taken from the server before somebody wants it. It runs on a thread of its
/// own, `long-polling-subscriber`, which ends with the subscriber.
///
/// # Position
///
/// The position comes from the events, and from the header `Last-Event-ID` of each answer. A subscriber that starts from
/// now first asks with `timeout=0`, which the server answers at once, and so learns the position before it waits. From
/// this answer on no event is missed, neither between two polls nor while the server can't be reached, nor where a proxy
/// cuts polls off, as long as the server still buffers it. Where it does not, `next` gives an error of kind [`Gap`](ErrorKind::Gap) before the events
/// that follow the gap, and goes on after it. To go on after a restart of the program, save
/// [`position`](Subscriber::position) and give it back as `Cursor::LastId`.
///
/// golongpoll's own server, which has neither header nor gaps, is followed by event ids and times as its Go client does.
/// It refuses `timeout=0`, so that its first poll waits for a second.
///
/// An answer that brings nothing newer than the position counts as a failed poll: its events are not given again, the
/// position stays, and the next poll waits for the [`backoff`](Subscriber::backoff).
///
/// # Errors
///
/// `next` gives an error
/// - of kind [`Gap`](ErrorKind::Gap), and goes on;
/// - of kind [`Refused`](ErrorKind::Refused) once, then ends, where asking again can't help: status 400, 401, 403, 404,
///   405 and 410;
/// - of kind [`InvalidRequest`](ErrorKind::InvalidRequest) once, then ends, where the URL, a header or a category can't
///   be used, and of kind [`Stopped`](ErrorKind::Stopped) where the [`agent`](Subscriber::agent) was shut down.
///
/// All else (not reachable, too slow, overloaded, an answer that makes no sense) is logged as a warning, told to
/// [`on_retry`](Subscriber::on_retry), and tried again after a [`backoff`](Subscriber::backoff), without end.
///
/// ```no_run
/// use long_polling::{Cursor, Subscriber};
///
/// for event in Subscriber::new("http://localhost:8080/events", ["alerts", "updates"]).start_at(Cursor::Oldest) {
///     match event {
///         Ok(event) => println!("{}: {}", event.category(), event.text()),
///         Err(gap) if gap.is_gap() => eprintln!("{gap}"),
///         Err(error) => return Err(error),
///     }
/// }
/// # Ok::<(), long_polling::Error>(())
/// ```
pub struct Subscriber {
    url: String,
    headers: Headers,
    credentials: Option<Credentials>,
    agent: Option<ureq::Agent>,
    /// Categories and timeout; the rest comes from `cursor`.
    request: SubscriptionRequest,
    backoff: Backoff,
    on_retry: Option<OnRetry>,

    start: Start,
    /// After all that was received.
    progress: Progress,
    /// After all that the caller was given.
    position: Option<EventId>,
    /// Comes before the events held.
    gap: Option<Error>,
    /// The next event follows a gap, so that it may be of another run than the position.
    after_gap: bool,
    held: vec::IntoIter<Event>,
    /// How many answers in a row had no event and came at once.
    quick: u32,
    ended: bool,

    stopper: Stopper,
    stopped: Receiver<Infallible>,
    worker: Option<Worker>,
}

impl Subscriber {
    /// Follows `categories` at this URL, such as `http://localhost:8080/events`, from now on. Nothing is checked or sent
    /// before the first [`next`](Iterator::next).
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
            start: Start::AtOnce,
            progress: Progress::new(Cursor::Now),
            position: None,
            gap: None,
            after_gap: false,
            held: vec::IntoIter::default(),
            quick: 0,
            ended: false,
            stopper,
            stopped,
            worker: None,
        }
    }

    /// Where to start. Defaults to [`Cursor::Now`], which is when the server answers the first poll.
    ///
    /// ```
    /// use long_polling::{Cursor, EventId, Subscriber};
    ///
    /// let saved: EventId = "019a5b3c-1234-8abc-8000-000000000007".parse()?;
    /// let subscriber = Subscriber::new("http://localhost:8080/events", "alerts").start_at(Cursor::LastId(saved));
    /// assert_eq!(subscriber.position(), Some(saved));
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn start_at(mut self, cursor: Cursor) -> Self {
        self.progress = Progress::new(cursor);
        self.position = self.progress.id();
        self
    }

    /// How long the server may hold one poll; whole seconds, rounded up, at least one. The server may hold it for less.
    /// Defaults to 60 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = timeout.max(Duration::from_secs(1));
        self
    }

    /// The most events that one poll brings, at least 1; golongpoll's server does not heed it. Defaults to as many as the
    /// server puts into one answer: fewer round trips, but more events held here.
    ///
    /// With a server that deletes events after their retrieval, a limit of 1 takes no event before this subscriber is
    /// asked for it: several subscribers share out a category's events as work. Those that are parked when an event is
    /// published all get it.
    pub fn limit(mut self, limit: usize) -> Self {
        self.request.limit = Some(limit.max(1));
        self
    }

    /// Adds a header field to every poll. An `Authorization` wins over [`credentials`](Subscriber::credentials).
    /// A redirect to another origin is followed without it.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.add(name, value);
        self
    }

    /// Credentials for HTTP authentication, for the URL's own origin only. Defaults to those in the URL, or none.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// An agent with settings of your own (proxy, TLS); its time limits are not used. Defaults to one with ureq's.
    ///
    /// The subscriber owns it: when the subscriber ends, is stopped or dropped, the agent is shut down, with all its
    /// clones. Give each subscriber an agent of its own.
    pub fn agent(mut self, agent: ureq::Agent) -> Self {
        self.agent = Some(agent);
        self
    }

    /// How long to wait before trying again: about `min` after the first failure, twice as long after each further one
    /// up to `max`, less up to a half by chance, so that not all subscribers come back at once. A `Retry-After` that asks
    /// for more is kept, up to 5 minutes. Defaults to 100 milliseconds and 30 seconds; at least 10 milliseconds.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = Backoff::new(min, max);
        self
    }

    /// Called with each error that is retried, before the wait, on the thread that called `next`.
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

    /// The position after everything that the caller was given: the id of the last event that `next` returned, or a
    /// position reached after it. `None` as long as there is none.
    ///
    /// Saved, and given back as [`Cursor::LastId`] to [`from`](Subscriber::from), it makes a new subscriber go on here.
    pub fn position(&self) -> Option<EventId> {
        self.position
    }

    /// Ends this subscriber from another thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// One poll, with the wait after it if it failed.
    fn step(&mut self) -> ControlFlow<Option<Error>> {
        let request = self.next_request();
        let asked = Instant::now();
        let reply = match self.worker() {
            Err(error) => Err(error),
            Ok(worker) => match worker.poll(request) {
                None => return ControlFlow::Break(None),
                Some(reply) => reply,
            },
        };
        match reply {
            Ok(response) if response.success() => self.take(response, asked.elapsed()),
            Ok(response) if self.start_differently(&response) => ControlFlow::Continue(()),
            Ok(response) => {
                let (status, words) = (response.status, response.error.as_deref());
                let location = response.headers.get("Location");
                let error = refusal("the poll", &response.source, status, words, location);
                let wait = response.headers.get("Retry-After").and_then(retry_after);
                self.fail(error, wait)
            }
            Err(error) => {
                // The next poll starts another, should this one have ended by a panic.
                self.worker = None;
                self.fail(error, None)
            }
        }
    }

    fn next_request(&self) -> SubscriptionRequest {
        let (since_time, last_id) = self.progress.cursor().parameters();
        let timeout = match self.start {
            _ if self.progress.cursor() != Cursor::Now => self.request.timeout,
            Start::AtOnce => Duration::ZERO,
            Start::Shortest => Duration::from_secs(1),
            Start::Begun => self.request.timeout,
        };
        self.request
            .clone()
            .since_time(since_time)
            .last_id(last_id)
            .timeout(timeout)
    }

    /// True where this refusal may be for the short timeout of a first poll, and the next one has a longer one.
    fn start_differently(&mut self, refused: &SubscriptionResponse) -> bool {
        let starting = self.progress.cursor() == Cursor::Now && self.start != Start::Begun;
        // golongpoll refuses with 200.
        if !starting || !matches!(refused.status, 200 | 400 | 422) {
            return false;
        }
        self.start = match self.start {
            Start::AtOnce => Start::Shortest,
            Start::Shortest | Start::Begun => Start::Begun,
        };
        true
    }

    fn worker(&mut self) -> Result<&Worker, Error> {
        if self.worker.is_none() {
            let (credentials, agent) = (self.credentials.as_ref(), self.agent.as_ref());
            let endpoint = Endpoint::new(&self.url, Some(&self.headers), credentials, agent)?;
            let agent = || self.agent.clone().unwrap_or_else(new_agent);
            let agent = self.stopper.agent(agent).clone();
            self.worker = Some(Worker::start(endpoint, agent, self.stopped.clone())?);
        }
        let none = || Error::new(ErrorKind::Stopped, "no thread polls");
        self.worker.as_ref().ok_or_else(none)
    }

    fn take(
        &mut self,
        response: SubscriptionResponse,
        took: Duration,
    ) -> ControlFlow<Option<Error>> {
        let (status, source) = (response.status, response.source.clone());
        let starting = self.progress.cursor() == Cursor::Now && self.start != Start::Begun;
        let news = self.progress.take(response);
        self.start = Start::Begun;
        if news.gap {
            self.gap = Some(self.lost());
        }
        self.after_gap |= news.gap || news.rewound;
        if news.events.is_empty() && self.gap.is_none() {
            self.position = self.progress.id().or(self.position);
        }
        let empty = news.events.is_empty();
        self.held = news.events.into_iter();
        if news.stale {
            let message = format!(
                "the answer of {source} brings nothing newer than the position asked for; check \
                 for a cache or proxy that answers in the server's place"
            );
            let error = Error::new(ErrorKind::InvalidAnswer, message).with_status(status);
            return self.fail(error, None);
        }
        if news.rewound {
            // Two servers that take turns would be asked without end.
            let wait = self.backoff.delay();
            return self.wait(wait);
        }
        if empty && took < QUICK && !starting {
            return self.slow_down();
        }
        self.quick = 0;
        self.backoff.reset();
        ControlFlow::Continue(())
    }

    /// Moves the position to an event that the caller is given; after the last one held, to what the answer reached.
    fn pass(&mut self, id: EventId) {
        let gap = std::mem::take(&mut self.after_gap);
        let reached = self.progress.id().filter(|_| self.held.len() == 0);
        for (id, gap) in [(Some(id), gap), (reached, false)] {
            self.position = match id {
                Some(id) if leads_on(self.position, id, gap) => Some(id),
                _ => self.position,
            };
        }
    }

    fn lost(&self) -> Error {
        let categories = &self.request.categories;
        let after = match self.position {
            Some(id) => format!("after {id}"),
            None => "before the next one".into(),
        };
        let message = format!(
            "events of {categories} {after} were lost: the server no longer had them; \
             what follows is complete again"
        );
        Error::new(ErrorKind::Gap, message)
    }

    /// A server that does not hold polls is not asked in a tight loop.
    fn slow_down(&mut self) -> ControlFlow<Option<Error>> {
        self.quick += 1;
        if self.quick < QUICK_ANSWERS {
            return ControlFlow::Continue(());
        }
        let wait = self.backoff.delay().min(QUICK_WAIT);
        log::debug!(
            "{} answers without waiting for events; asking again in {wait:?}",
            shown(&self.url)
        );
        self.wait(wait)
    }

    fn fail(&mut self, error: Error, retry_after: Option<Duration>) -> ControlFlow<Option<Error>> {
        if is_final(&error) {
            return ControlFlow::Break(Some(error));
        }
        let wait = self.backoff.delay_of(retry_after);
        log::warn!("{}; trying again in {wait:?}", error.report());
        if let Some(on_retry) = &self.on_retry {
            on_retry(&error);
        }
        self.wait(wait)
    }

    fn wait(&self, wait: Duration) -> ControlFlow<Option<Error>> {
        match self.stopped.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => ControlFlow::Continue(()),
            Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(None),
            Ok(never) => match never {},
        }
    }
}

/// True where asking again can't help.
fn is_final(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::InvalidRequest | ErrorKind::Stopped => true,
        ErrorKind::Refused => matches!(error.status(), Some(400 | 401 | 403 | 404 | 405 | 410)),
        _ => false,
    }
}

impl Iterator for Subscriber {
    type Item = Result<Event, Error>;

    /// The next event, as soon as there is one. `None` once the subscriber was stopped, though events be held, or has
    /// given up.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.ended || self.stopper.is_stopped() {
                return None;
            }
            if let Some(gap) = self.gap.take() {
                return Some(Err(gap));
            }
            if let Some(event) = self.held.next() {
                self.pass(event.id());
                return Some(Ok(event));
            }
            if let ControlFlow::Break(error) = self.step() {
                self.ended = true;
                // A poll that failed because of the stop is no error.
                let error = error.filter(|_| !self.stopper.is_stopped());
                // Once more: a stop may have come before there was an agent.
                self.stopper.stop();
                self.worker = None;
                return error.map(Err);
            }
        }
    }
}

impl FusedIterator for Subscriber {}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber")
            .field("url", &shown(&self.url))
            .field("request", &self.request)
            .field("cursor", &self.progress.cursor())
            .field("position", &self.position)
            .field("held", &self.held.len())
            .field("stopper", &self.stopper)
            .finish_non_exhaustive()
    }
}
