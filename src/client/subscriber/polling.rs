//! The polls of a [`Subscriber`]: the request of each, what its response changes, and the wait before the next one.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use super::Subscriber;
use crate::client::backoff::retry_after;
use crate::client::endpoint::Endpoint;
use crate::client::failure::{redacted, refusal};
use crate::client::poll_thread::{NoResult, PollThread};
use crate::client::response::SubscriptionResponse;
use crate::client::tracker::is_ahead;
use crate::client::transport::new_agent;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::position::Cursor;
use crate::wire::SubscriptionRequest;

/// A response without events that comes sooner than this was not held by the server.
const QUICK: Duration = Duration::from_millis(500);
/// The number of successive quick responses from which on the subscriber waits before the next poll.
const QUICK_RESPONSES: u32 = 3;
/// The longest wait after a quick response.
const QUICK_WAIT: Duration = Duration::from_secs(1);

/// The timeout of the polls by which a subscriber that starts at [`Cursor::Now`] learns its position. The server answers
/// them at once, so that no event between the response and the next poll is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstPoll {
    /// A timeout of zero.
    NoWait,
    /// One second, the shortest timeout that golongpoll allows.
    ShortestWait,
    /// The position is known, or the server sends none without an event.
    Done,
}

/// Why a wait for the next event ends without one.
pub(super) enum Pause {
    /// The deadline passed.
    Elapsed,
    /// The subscriber ends, with an error unless it was stopped.
    End(Option<Error>),
}

type Step = ControlFlow<Pause>;

impl Subscriber {
    /// Takes the response of one poll, after the wait that the poll before it has asked for. At the deadline, the poll goes
    /// on, and the next call takes its response.
    pub(super) fn poll_until(&mut self, deadline: Option<Instant>) -> Step {
        self.wait_for_retry(deadline)?;
        let (result, took) = self.poll_result(deadline)?;
        self.is_polling = false;
        match result {
            Ok(response) if response.success() => self.accept_response(response, took),
            Ok(response) if self.retry_with_longer_timeout(&response) => ControlFlow::Continue(()),
            Ok(response) => {
                let message = response.error.as_deref();
                let location = response.headers.get("Location");
                let error = refusal(
                    "the poll",
                    &response.route,
                    response.status,
                    message,
                    location,
                );
                let wait = response.headers.get("Retry-After").and_then(retry_after);
                self.wait_after_failure(error, wait)
            }
            Err(error) => {
                // The next poll starts another thread, because this one may have panicked.
                self.poll_thread = None;
                self.wait_after_failure(error, None)
            }
        }
    }

    /// Returns the result of the poll in progress and how long it took. Starts a poll if none is in progress.
    fn poll_result(
        &mut self,
        deadline: Option<Instant>,
    ) -> ControlFlow<Pause, (Result<SubscriptionResponse, Error>, Duration)> {
        let request = (!self.is_polling).then(|| self.next_request());
        self.is_polling = true;
        let waited = self.poll_thread().and_then(|thread| {
            if let Some(request) = request {
                thread.send(request)?;
            }
            Ok(thread.wait(deadline))
        });
        match waited {
            Ok(Ok(result)) => ControlFlow::Continue(result),
            Ok(Err(NoResult::Elapsed)) => ControlFlow::Break(Pause::Elapsed),
            Ok(Err(NoResult::Stopped)) => ControlFlow::Break(Pause::End(None)),
            Err(error) => ControlFlow::Continue((Err(error), Duration::ZERO)),
        }
    }

    fn next_request(&self) -> SubscriptionRequest {
        let (since_time, last_id) = self.tracker.cursor().parameters();
        let timeout = match self.first_poll {
            _ if self.tracker.cursor() != Cursor::Now => self.request.timeout,
            FirstPoll::NoWait => Duration::ZERO,
            FirstPoll::ShortestWait => Duration::from_secs(1),
            FirstPoll::Done => self.request.timeout,
        };
        self.request
            .clone()
            .since_time(since_time)
            .last_id(last_id)
            .timeout(timeout)
    }

    fn is_first_poll(&self) -> bool {
        self.tracker.cursor() == Cursor::Now && self.first_poll != FirstPoll::Done
    }

    /// Returns `true` if the server may have refused the short timeout of a first poll. The next poll has a longer one.
    fn retry_with_longer_timeout(&mut self, refused: &SubscriptionResponse) -> bool {
        // golongpoll refuses with status 200.
        if !self.is_first_poll() || !matches!(refused.status, 200 | 400 | 422) {
            return false;
        }
        self.first_poll = match self.first_poll {
            FirstPoll::NoWait => FirstPoll::ShortestWait,
            FirstPoll::ShortestWait | FirstPoll::Done => FirstPoll::Done,
        };
        true
    }

    /// Returns the thread that polls, and starts it if there is none.
    fn poll_thread(&mut self) -> Result<&PollThread, Error> {
        if self.poll_thread.is_none() {
            let (credentials, agent) = (self.credentials.as_ref(), self.agent.as_ref());
            let endpoint = Endpoint::new(&self.url, Some(&self.headers), credentials, agent)?;
            let agent = || self.agent.clone().unwrap_or_else(new_agent);
            let agent = self.stopper.agent(agent).clone();
            self.poll_thread = Some(PollThread::start(endpoint, agent, self.stopped.clone())?);
        }
        let none = || Error::new(ErrorKind::Stopped, "no thread polls");
        self.poll_thread.as_ref().ok_or_else(none)
    }

    /// Takes the events and the position from a successful response.
    fn accept_response(&mut self, response: SubscriptionResponse, took: Duration) -> Step {
        let (status, route) = (response.status, response.route.clone());
        let was_first_poll = self.is_first_poll();
        let update = self.tracker.update(response);
        self.first_poll = FirstPoll::Done;
        if update.gap {
            self.gap = Some(self.gap_error());
        }
        self.after_gap |= update.gap || update.is_older_run;
        if update.events.is_empty() && self.gap.is_none() {
            self.position = self.tracker.id().or(self.position);
        }
        let is_empty = update.events.is_empty();
        if let (true, Some(file)) = (is_empty, &mut self.position_file) {
            file.retry();
        }
        self.pending = update.events.into_iter();
        if update.is_stale {
            let message = format!(
                "the response of {route} has nothing newer than the position of the poll; check \
                 for a cache or proxy that responds in the server's place"
            );
            let error = Error::new(ErrorKind::InvalidResponse, message).with_status(status);
            return self.wait_after_failure(error, None);
        }
        if update.is_older_run {
            // A load balancer that alternates between two servers would cause polls without a pause.
            let wait = self.backoff.delay();
            self.retry_after(wait);
            return ControlFlow::Continue(());
        }
        if is_empty && took < QUICK && !was_first_poll {
            return self.wait_after_quick_response();
        }
        self.quick_responses = 0;
        self.backoff.reset();
        ControlFlow::Continue(())
    }

    /// Moves the position to an event that `next` returns, and after the last pending one to the end of the response.
    pub(super) fn advance_position(&mut self, event: &Event) {
        let id = event.id();
        self.position_time = Some(event.timestamp());
        let after_gap = std::mem::take(&mut self.after_gap);
        let end = self.tracker.id().filter(|_| self.pending.len() == 0);
        for (id, after_gap) in [(Some(id), after_gap), (end, false)] {
            self.position = match id {
                Some(id) if is_ahead(id, self.position, after_gap) => Some(id),
                _ => self.position,
            };
        }
    }

    fn gap_error(&self) -> Error {
        let categories = &self.request.categories;
        let after = match self.position {
            Some(id) => format!("after {id}"),
            None => "before the next one".into(),
        };
        let message = format!(
            "events of {categories} {after} were lost, because the server no longer had them; the \
             events that follow are complete"
        );
        Error::new(ErrorKind::Gap, message)
    }

    /// Waits if the server repeatedly does not hold polls.
    fn wait_after_quick_response(&mut self) -> Step {
        self.quick_responses += 1;
        if self.quick_responses < QUICK_RESPONSES {
            return ControlFlow::Continue(());
        }
        let wait = self.backoff.delay().min(QUICK_WAIT);
        log::debug!(
            "{} responds without waiting for events; the next poll is in {wait:?}",
            redacted(&self.url)
        );
        self.retry_after(wait);
        ControlFlow::Continue(())
    }

    /// Ends the subscriber if a retry can't help. Otherwise reports the error, and has the next poll wait.
    fn wait_after_failure(&mut self, error: Error, retry_after: Option<Duration>) -> Step {
        if is_final(&error) {
            return ControlFlow::Break(Pause::End(Some(error)));
        }
        let wait = self.backoff.delay_at_least(retry_after);
        log::warn!("{}; trying again in {wait:?}", error.report());
        if let Some(on_retry) = &self.on_retry {
            on_retry(&error);
        }
        self.retry_after(wait);
        ControlFlow::Continue(())
    }

    fn retry_after(&mut self, wait: Duration) {
        self.retry_at = Instant::now().checked_add(wait);
    }

    /// Waits until the next poll may start.
    fn wait_for_retry(&mut self, deadline: Option<Instant>) -> Step {
        let Some(retry_at) = self.retry_at else {
            return ControlFlow::Continue(());
        };
        let early = deadline.filter(|deadline| *deadline < retry_at);
        match self.stopped.recv_deadline(early.unwrap_or(retry_at)) {
            Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(Pause::End(None)),
            Err(RecvTimeoutError::Timeout) if early.is_some() => ControlFlow::Break(Pause::Elapsed),
            Err(RecvTimeoutError::Timeout) => {
                self.retry_at = None;
                ControlFlow::Continue(())
            }
            Ok(never) => match never {},
        }
    }
}

/// Returns `true` if another poll would fail in the same way.
fn is_final(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::InvalidRequest | ErrorKind::Stopped => true,
        ErrorKind::Refused => matches!(error.status(), Some(400 | 401 | 403 | 404 | 405 | 410)),
        _ => false,
    }
}
