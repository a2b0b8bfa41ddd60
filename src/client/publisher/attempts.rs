//! [`Attempts`]: the attempts of one publish, which end with a success, with an error that another attempt can't change, or
//! when the time for attempts is over.

use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use super::Publisher;
use super::failed::Failed;
use super::known_window::window_of;
use super::moment::Moment;
use crate::client::backoff::Backoff;
use crate::client::endpoint::{Endpoint, Limits, agent_or_shared};
use crate::client::publish_content::PublishContent;
use crate::client::response::PublishResponse;
use crate::client::sender::{ConnectionReuse, Target};
use crate::error::Error;

/// The shortest timeout of an attempt at the end of the server's window.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);

/// The attempts of one publish.
pub(super) struct Attempts<'a> {
    publisher: &'a Publisher,
    endpoint: &'a Endpoint,
    content: &'a PublishContent,
    backoff: Backoff,
    started: Instant,
    /// The number of attempts, with those to ask the server whether it knows keys that failed.
    count: u32,
    /// The end of the first attempt that failed.
    first_failure: Option<Moment>,
    /// The begin of the first attempt by which the event may have been published, and the target of that attempt. All later
    /// attempts go to this target, because another server may not know the key.
    maybe_published: Option<(Moment, Target)>,
    /// A server has responded that it is being stopped. The attempt after the first such response does not wait.
    has_seen_stop: bool,
}

/// Why no other attempt follows.
enum End {
    /// Another attempt would fail in the same way, or none is to be made.
    Final,
    /// The time for attempts is over before the wait is.
    Time,
    /// The server may have forgotten the key when the wait is over.
    Window(Duration),
    /// The server may have published the event, and does not know keys.
    NoKeys,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(
        publisher: &'a Publisher,
        endpoint: &'a Endpoint,
        content: &'a PublishContent,
    ) -> Self {
        let (min, max) = publisher.backoff;
        Attempts {
            publisher,
            endpoint,
            content,
            backoff: Backoff::new(min, max),
            started: Instant::now(),
            count: 0,
            first_failure: None,
            maybe_published: None,
            has_seen_stop: false,
        }
    }

    /// Publishes, with as many attempts as it takes and as the publisher's settings allow.
    ///
    /// # Errors
    ///
    /// That of the last attempt.
    pub(super) fn run(mut self) -> Result<PublishResponse, Error> {
        loop {
            let mut failed = match self.publish() {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let mut has_waited = false;
            while self.must_ask(&failed) {
                match self.ask() {
                    Ok(Some(_)) => break,
                    Ok(None) => return Err(self.error(failed, End::NoKeys)),
                    Err(unanswered) => failed = unanswered,
                }
                if let Err(end) = self.wait(&failed) {
                    return Err(self.error(failed, end));
                }
                has_waited = true;
            }
            let waited = match has_waited {
                true => self.check_time(Duration::ZERO),
                false => self.wait(&failed),
            };
            if let Err(end) = waited {
                return Err(self.error(failed, end));
            }
        }
    }

    /// Makes one attempt to publish.
    fn publish(&mut self) -> Result<PublishResponse, Failed> {
        let begin = Moment::now();
        let mut target = match &self.maybe_published {
            Some((_, target)) => target.clone(),
            None => self.endpoint.target(),
        };
        let limits = self.limits();
        self.count += 1;
        let agent = agent_or_shared(self.publisher.agent.as_ref());
        let failed = match self
            .endpoint
            .publish(agent, self.content, &mut target, limits)
        {
            Ok(response) if response.success() => return Ok(response),
            Ok(response) => Failed::of_publish(response),
            Err(failure) => Failed::of_failure(failure),
        };
        self.first_failure.get_or_insert_with(Moment::now);
        if failed.maybe_published {
            self.maybe_published.get_or_insert((begin, target));
        }
        Err(failed)
    }

    /// Returns the limits of the next attempt. It ends before the server may have forgotten the key. Only the first attempt
    /// uses a connection that was kept open, because a server that was restarted has closed all of them.
    fn limits(&self) -> Limits {
        let timeout = self.publisher.timeout;
        let timeout = match (&self.maybe_published, self.window()) {
            (Some((since, _)), Some(window)) => {
                let left = window.saturating_sub(since.elapsed());
                timeout.min(left).max(SHORTEST_TIMEOUT)
            }
            _ => timeout,
        };
        let reuse = match self.count {
            0 => ConnectionReuse::Allowed,
            _ => ConnectionReuse::Forbidden,
        };
        Limits { timeout, reuse }
    }

    /// Returns the window of the server that may have published the event, if the publisher knows it.
    fn window(&self) -> Option<Duration> {
        let (_, target) = self.maybe_published.as_ref()?;
        self.publisher.known_window.of(&target.url)
    }

    /// Returns `true` if another attempt could publish the event twice unless the server knows keys, and the publisher does
    /// not know whether it does.
    fn must_ask(&self, failed: &Failed) -> bool {
        let goes_on = failed.is_temporary && !self.publisher.retry_for.is_zero();
        goes_on && self.maybe_published.is_some() && self.window().is_none()
    }

    /// Asks the server that may have published the event how long it remembers keys. `None`: it knows no keys.
    fn ask(&mut self) -> Result<Option<Duration>, Failed> {
        let Some((_, target)) = &self.maybe_published else {
            return Ok(None);
        };
        let agent = agent_or_shared(self.publisher.agent.as_ref());
        let asked = self.endpoint.options(agent, target.clone(), self.limits());
        let response = match asked {
            Ok(response) => response,
            Err(failure) => {
                self.count += 1;
                return Err(Failed::of_failure(failure));
            }
        };
        if let Some(window) = window_of(&response) {
            let url = target.url.clone();
            self.publisher.known_window.set(url, window);
            return Ok(Some(window));
        }
        let failed = Failed::of_question(response);
        match failed.is_temporary {
            true => {
                self.count += 1;
                Err(failed)
            }
            false => Ok(None),
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    ///
    /// Why no other attempt follows.
    fn wait(&mut self, failed: &Failed) -> Result<(), End> {
        let retry_for = self.publisher.retry_for;
        if !failed.is_temporary || retry_for.is_zero() {
            return Err(End::Final);
        }
        let wait = match failed.is_stopping() && !mem::replace(&mut self.has_seen_stop, true) {
            true => Duration::ZERO,
            false => self.backoff.delay_at_least(failed.retry_after()),
        };
        self.check_time(wait)?;
        log::warn!("{failed}; trying again in {wait:?}");
        thread::sleep(wait);
        Ok(())
    }

    /// Checks that another attempt may begin after this wait.
    ///
    /// # Errors
    ///
    /// `Time` if the time for attempts is over then, and `Window` if the server may have forgotten the key.
    fn check_time(&self, wait: Duration) -> Result<(), End> {
        let elapsed = self.first_failure.map(|first| first.elapsed());
        if elapsed.unwrap_or_default() + wait > self.publisher.retry_for {
            return Err(End::Time);
        }
        match (&self.maybe_published, self.window()) {
            (Some((since, _)), Some(window)) if since.elapsed() + wait >= window => {
                Err(End::Window(window))
            }
            _ => Ok(()),
        }
    }

    /// Returns the error of the publish.
    fn error(&self, failed: Failed, end: End) -> Error {
        let wanted = failed.retry_after();
        let key = self.content.key.as_ref();
        let error = failed.into_error(self.maybe_published.is_some(), key);
        let retry_for = self.publisher.retry_for;
        let error = match end {
            End::NoKeys => error.with_hint(
                "its answer to OPTIONS has no Idempotency-Window, so it may not know idempotency \
                 keys, and another attempt could publish the event twice: look whether it was \
                 published before you publish it again",
            ),
            End::Window(window) => error.with_hint(format!(
                "no other attempt follows, because the server remembers the idempotency key for \
                 {window:?} only: look whether the event was published before you publish it again"
            )),
            End::Time if wanted.is_some_and(|wanted| wanted > retry_for) => {
                error.with_hint(format!(
                    "it asks for a longer wait ({:?}) than `retry_for` allows ({retry_for:?})",
                    wanted.unwrap_or_default()
                ))
            }
            End::Time | End::Final => error,
        };
        match self.count {
            0 | 1 => error,
            count => {
                let took = self.started.elapsed();
                error.context(format!("after {count} attempts in {took:.1?}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_attempt_begins_when_the_time_is_over_by_either_clock() {
        let publisher = Publisher::new("http://localhost/publish");
        let endpoint = Endpoint::new(&publisher.url, None, None, None).unwrap();
        let content = PublishContent::of("c", "data", None).unwrap();
        let mut attempts = Attempts::new(&publisher, &endpoint, &content);
        let second = Duration::from_secs(1);
        assert!(attempts.check_time(9 * second).is_ok());
        attempts.first_failure = Some(Moment::before(4 * second));
        assert!(attempts.check_time(5 * second).is_ok());
        assert!(matches!(attempts.check_time(6 * second), Err(End::Time)));
        // The question whether the server knows keys took long, or the machine was suspended.
        attempts.first_failure = Some(Moment::before(10 * second));
        assert!(matches!(
            attempts.check_time(Duration::ZERO),
            Err(End::Time)
        ));
    }
}
