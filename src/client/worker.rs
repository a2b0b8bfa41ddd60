//! [`Worker`]: the thread that polls for a subscriber, so that the wait for an answer can be given up at any moment.

use std::convert::Infallible;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select_biased};

use super::endpoint::{Endpoint, GRACE};
use super::response::SubscriptionResponse;
use crate::error::{Error, ErrorKind};
use crate::wire::SubscriptionRequest;

/// How long dropping waits for the thread. One that is still connecting is left to end by itself.
const PATIENCE: Duration = Duration::from_millis(100);

type Reply = Result<SubscriptionResponse, Error>;

pub(crate) struct Worker {
    /// `None` only while dropping: the thread ends when it is gone.
    requests: Option<Sender<SubscriptionRequest>>,
    /// One reply to each request. Disconnected when the thread has ended.
    replies: Receiver<Reply>,
    /// Disconnected when nobody waits for a reply any more.
    stopped: Receiver<Infallible>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// # Errors
    ///
    /// `Busy` where the system can't start another thread.
    pub(crate) fn start(
        endpoint: Endpoint,
        agent: ureq::Agent,
        stopped: Receiver<Infallible>,
    ) -> Result<Self, Error> {
        let (requests, asked) = crossbeam_channel::bounded::<SubscriptionRequest>(1);
        let (answer, replies) = crossbeam_channel::bounded(1);
        let poll = move || {
            for request in asked {
                let reply = endpoint.poll(&agent, &request, GRACE);
                if answer.send(reply).is_err() {
                    break;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("long-polling-subscriber".into())
            .spawn(poll)
            .map_err(|error| {
                let message = "can't start the thread that polls; is a limit on threads reached?";
                Error::new(ErrorKind::Busy, message).with_source(error)
            })?;
        Ok(Worker {
            requests: Some(requests),
            replies,
            stopped,
            thread: Some(thread),
        })
    }

    /// Polls once; `None` as soon as the subscriber is stopped.
    ///
    /// # Errors
    ///
    /// What the poll's error is; `Unreachable` where the thread is gone, which takes another worker.
    pub(crate) fn poll(&self, request: SubscriptionRequest) -> Option<Reply> {
        let gone = || {
            let message = "the poll ended without an answer: its thread panicked";
            Err(Error::new(ErrorKind::Unreachable, message))
        };
        let sent = self.requests.as_ref().map(|asked| asked.send(request));
        if !matches!(sent, Some(Ok(()))) {
            return Some(gone());
        }
        // In this order: a poll that failed because of the stop is no error.
        select_biased! {
            recv(self.stopped) -> _ => None,
            recv(self.replies) -> reply => Some(reply.unwrap_or_else(|_| gone())),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.requests = None;
        let deadline = Instant::now() + PATIENCE;
        while self.replies.recv_deadline(deadline).is_ok() {}
        if let Some(thread) = self.thread.take()
            && (thread.is_finished() || Instant::now() < deadline)
        {
            // A panic was told by the panic hook, and by `poll`.
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

    fn worker(
        listener: &TcpListener,
        agent: &ureq::Agent,
        stopped: Receiver<Infallible>,
    ) -> Worker {
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let endpoint = Endpoint::new(&url, None, None, None).unwrap();
        Worker::start(endpoint, agent.clone(), stopped).unwrap()
    }

    #[test]
    fn a_thread_that_waits_for_work_ends_with_its_worker() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_running, stopped) = crossbeam_channel::bounded(0);
        let worker = worker(&listener, &new_agent(), stopped);
        let replies = worker.replies.clone();
        drop(worker);
        let ended = replies.recv_timeout(LIMIT).map(drop);
        assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_thread_that_polls_ends_once_its_agent_is_shut_down() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (running, stopped) = crossbeam_channel::bounded(0);
        let agent = new_agent();
        let worker = worker(&listener, &agent, stopped);
        let replies = worker.replies.clone();

        let poll = thread::spawn(move || worker.poll(SubscriptionRequest::new("c")).is_none());
        let connection = listener.accept().unwrap();
        drop(running);
        agent.shutdown();
        assert!(poll.join().unwrap(), "a stopped poll has no reply");

        while let Ok(reply) = replies.recv_timeout(LIMIT) {
            assert!(reply.is_err(), "nobody answered");
        }
        let ended = replies.recv_timeout(LIMIT).map(drop);
        assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
        drop(connection);
    }
}
