//! [`PollThread`]: the thread that polls for a subscriber, so that the subscriber can stop waiting at any moment.

use std::convert::Infallible;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, at, never, select_biased};

use super::endpoint::{Endpoint, GRACE};
use super::response::SubscriptionResponse;
use crate::error::{Error, ErrorKind};
use crate::wire::SubscriptionRequest;

/// The longest time that dropping waits for the thread. A thread that is still connecting ends later, on its own.
const JOIN_TIMEOUT: Duration = Duration::from_millis(100);

type PollResult = Result<SubscriptionResponse, Error>;

/// Why a wait for the result of a poll ended without one.
#[derive(Debug)]
pub(crate) enum NoResult {
    /// The deadline passed. The poll goes on.
    Elapsed,
    /// The subscriber was stopped.
    Stopped,
}

pub(crate) struct PollThread {
    /// `None` only while dropping: closing the channel ends the thread.
    requests: Option<Sender<SubscriptionRequest>>,
    /// One result for each request. Disconnected when the thread has ended.
    results: Receiver<(PollResult, Duration)>,
    /// Disconnected when the subscriber is stopped.
    stopped: Receiver<Infallible>,
    thread: Option<JoinHandle<()>>,
}

impl PollThread {
    /// # Errors
    ///
    /// `Busy` if the system can't start another thread.
    pub(crate) fn start(
        endpoint: Endpoint,
        agent: ureq::Agent,
        stopped: Receiver<Infallible>,
    ) -> Result<Self, Error> {
        let (requests, received_requests) = crossbeam_channel::bounded::<SubscriptionRequest>(1);
        let (result_sender, results) = crossbeam_channel::bounded(1);
        let poll_all = move || {
            for request in received_requests {
                let started = Instant::now();
                let result = endpoint.poll(&agent, &request, GRACE);
                if result_sender.send((result, started.elapsed())).is_err() {
                    break;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("long-polling-subscriber".into())
            .spawn(poll_all)
            .map_err(|error| {
                let message = "can't start the thread that polls; allow the process more threads";
                Error::new(ErrorKind::Busy, message).with_source(error)
            })?;
        Ok(PollThread {
            requests: Some(requests),
            results,
            stopped,
            thread: Some(thread),
        })
    }

    /// Starts a poll. The one before it must be done.
    ///
    /// # Errors
    ///
    /// `Unreachable` if the thread has panicked; start another one then.
    pub(crate) fn send(&self, request: SubscriptionRequest) -> Result<(), Error> {
        let requests = self.requests.as_ref();
        match requests.is_some_and(|requests| requests.send(request).is_ok()) {
            true => Ok(()),
            false => Err(panicked()),
        }
    }

    /// Waits for the result of the poll, until the deadline if there is one, and returns it with the time that the poll took.
    /// If the thread has panicked, the result is `Unreachable`; start another one then.
    pub(crate) fn wait(
        &self,
        deadline: Option<Instant>,
    ) -> Result<(PollResult, Duration), NoResult> {
        let deadline = deadline.map_or_else(never, at);
        // In this order, because a poll that failed because of the stop is not an error.
        select_biased! {
            recv(self.stopped) -> _ => Err(NoResult::Stopped),
            recv(self.results) -> result => Ok(result.unwrap_or_else(|_| (Err(panicked()), Duration::ZERO))),
            recv(deadline) -> _ => Err(NoResult::Elapsed),
        }
    }
}

fn panicked() -> Error {
    let message = "the thread that polls has panicked";
    Error::new(ErrorKind::Unreachable, message)
}

impl Drop for PollThread {
    fn drop(&mut self) {
        self.requests = None;
        let deadline = Instant::now() + JOIN_TIMEOUT;
        while self.results.recv_deadline(deadline).is_ok() {}
        if let Some(thread) = self.thread.take()
            && (thread.is_finished() || Instant::now() < deadline)
        {
            // The panic hook has reported a panic already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::transport::new_agent;
    use super::*;
    use crossbeam_channel::RecvTimeoutError;
    use std::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(10);

    fn poll_thread(
        listener: &TcpListener,
        agent: &ureq::Agent,
        stopped: Receiver<Infallible>,
    ) -> PollThread {
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let endpoint = Endpoint::new(&url, None, None, None).unwrap();
        PollThread::start(endpoint, agent.clone(), stopped).unwrap()
    }

    #[test]
    fn an_idle_thread_ends_when_it_is_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_running, stopped) = crossbeam_channel::bounded(0);
        let thread = poll_thread(&listener, &new_agent(), stopped);
        let results = thread.results.clone();
        drop(thread);
        let ended = results.recv_timeout(LIMIT).map(drop);
        assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_polling_thread_ends_when_its_agent_is_shut_down() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (running, stopped) = crossbeam_channel::bounded(0);
        let agent = new_agent();
        let poll_thread = poll_thread(&listener, &agent, stopped);
        let results = poll_thread.results.clone();

        let poll = thread::spawn(move || {
            poll_thread.send(SubscriptionRequest::new("c")).unwrap();
            let past = Some(Instant::now());
            assert!(matches!(poll_thread.wait(past), Err(NoResult::Elapsed)));
            matches!(poll_thread.wait(None), Err(NoResult::Stopped))
        });
        let connection = listener.accept().unwrap();
        drop(running);
        agent.shutdown();
        assert!(poll.join().unwrap(), "a stopped poll has no result");

        while let Ok((result, _)) = results.recv_timeout(LIMIT) {
            assert!(result.is_err(), "the listener sends no response");
        }
        let ended = results.recv_timeout(LIMIT).map(drop);
        assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
        drop(connection);
    }
}
