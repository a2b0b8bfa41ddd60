//! Waiting for the next event of a [`Subscriber`]: for ever, for some time, or not at all.

use std::iter::FusedIterator;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::Subscriber;
use super::polling::Pause;
use crate::error::Error;
use crate::event::Event;

impl Subscriber {
    /// Returns the next event, and waits for it at most for `timeout`. It returns
    ///
    /// - `Some(Ok(Some(event)))` for an event,
    /// - `Some(Ok(None))` if no event came within the time,
    /// - `Some(Err(error))` for the same errors as [`next`](Iterator::next),
    /// - `None` after the subscriber was stopped or has ended, as `next`.
    ///
    /// The poll goes on after the timeout, on a thread of its own, and the next call takes its events. So the subscriber
    /// misses none however short the timeouts are, but with a server that deletes events after their retrieval, it may take
    /// events that the program has not asked for yet. The wait before a retry counts as time without an event.
    ///
    /// ```
    /// # use long_polling::{Cursor, Server, ServerInfo, Subscriber};
    /// # let server = Server::start(ServerInfo::new("127.0.0.1:0"))?;
    /// # let url = format!("http://{}/events", server.local_addr());
    /// # server.publish("alerts", "disk almost full")?;
    /// use std::time::Duration;
    ///
    /// let mut subscriber = Subscriber::new(url, "alerts").start_at(Cursor::Oldest);
    /// # let stopper = subscriber.stopper();
    /// while let Some(event) = subscriber.next_timeout(Duration::from_secs(1)) {
    ///     match event? {
    ///         Some(event) => println!("{}", event.text()),
    ///         None => println!("nothing new"),
    ///     }
    ///     # stopper.stop();
    /// }
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<Option<Event>, Error>> {
        // A time that the clock can't represent never comes.
        self.next_until(Instant::now().checked_add(timeout))
    }

    /// Returns the next event if it has been received already, and does not wait: [`next_timeout`](Subscriber::next_timeout)
    /// with a timeout of zero. Polls run in the background: a call that has no event left starts the next one.
    ///
    /// ```
    /// # use long_polling::{Server, ServerInfo, Subscriber};
    /// # let server = Server::start(ServerInfo::new("127.0.0.1:0"))?;
    /// # let url = format!("http://{}/events", server.local_addr());
    /// let mut subscriber = Subscriber::new(url, "alerts");
    /// // For a program with a loop of its own, such as a game: it takes what has come.
    /// while let Some(Some(event)) = subscriber.try_next().transpose()? {
    ///     println!("{}", event.text());
    /// }
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn try_next(&mut self) -> Option<Result<Option<Event>, Error>> {
        self.next_timeout(Duration::ZERO)
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> Option<Result<Option<Event>, Error>> {
        if let Err(error) = self.restore_position() {
            self.end();
            return Some(Err(error));
        }
        loop {
            if let Err(error) = self.save_when_due() {
                return Some(Err(error));
            }
            if self.ended || self.stopper.is_stopped() {
                return None;
            }
            if let Some(gap) = self.gap.take() {
                return Some(Err(gap));
            }
            if let Some(event) = self.pending.next() {
                self.advance_position(&event);
                return Some(Ok(Some(event)));
            }
            match self.poll_until(deadline) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(Pause::Elapsed) => return Some(Ok(None)),
                ControlFlow::Break(Pause::End(error)) => {
                    // A poll that failed because of the stop is not an error.
                    let error = error.filter(|_| !self.stopper.is_stopped());
                    self.end();
                    return error.map(Err);
                }
            }
        }
    }

    fn end(&mut self) {
        self.ended = true;
        // A stop before the first poll found no agent to shut down.
        self.stopper.stop();
        self.poll_thread = None;
    }
}

impl Iterator for Subscriber {
    type Item = Result<Event, Error>;

    /// Returns the next event, and waits until there is one.
    ///
    /// Returns `None` after the subscriber was stopped, even if events are pending, and after an error that ends it.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(next) = self.next_until(None)?.transpose() {
                return Some(next);
            }
        }
    }
}

impl FusedIterator for Subscriber {}
