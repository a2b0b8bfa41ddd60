//! [`Service`]: what all threads of a server share, whichever backend they belong to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use super::hosts::Hosts;
use super::info::ServerInfo;
use super::monitoring::Status;
use super::poll_group::{Member, PollGroup};
use super::traffic::Traffic;
use crate::broker::{Broker, Waiter};
use crate::error::{Error, ErrorKind};

pub(super) struct Service {
    pub(super) info: ServerInfo,
    pub(super) broker: Broker,
    pub(super) hosts: Hosts,
    pub(super) traffic: Traffic,
    /// The polls parked through this server, if others may have the same broker.
    group: Option<Arc<PollGroup>>,
    /// Sequentially consistent; the backends compare it with their counts of requests in flight.
    stopping: AtomicBool,
}

impl Service {
    pub(super) fn new(info: ServerInfo, broker: Broker) -> Self {
        Service {
            hosts: Hosts::new(&info.hosts),
            group: info.shares_broker().then(Arc::default),
            info,
            broker,
            traffic: Traffic::new(),
            stopping: AtomicBool::new(false),
        }
    }

    /// True once the stop has begun: publishes are refused, and connections are closed after the next answer.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// What the monitoring endpoints report.
    pub(super) fn status(&self) -> Status<'_> {
        Status {
            broker: &self.broker,
            traffic: &self.traffic,
            is_stopping: self.is_stopping() || self.broker.is_stopped(),
        }
    }

    pub(super) fn begin_stop(&self) {
        self.stopping.store(true, SeqCst);
    }

    /// True where the broker is the program's own, and goes on after the stop.
    pub(super) fn shares_broker(&self) -> bool {
        self.group.is_some()
    }

    /// Makes a parked poll one that the stop of this server answers. `None` where the stop of the broker does that.
    pub(super) fn enter_group(&self, waiter: &Arc<Waiter>) -> Option<Member> {
        self.group.as_ref().map(|group| group.enter(waiter))
    }

    /// Answers the polls that are parked through this server as if they had timed out, those that come later, too. A broker
    /// that the server does not share answers all of its subscribers.
    pub(super) fn release_polls(&self) {
        match &self.group {
            Some(group) => group.close(),
            None => self.broker.release(),
        }
    }

    /// Stops the broker, unless it is shared.
    ///
    /// # Errors
    ///
    /// Those of [`Broker::stop`].
    pub(super) fn stop_broker(&self, timeout: Duration) -> Result<(), Error> {
        match self.shares_broker() {
            true => Ok(()),
            false => self.broker.stop(timeout),
        }
    }

    /// The error of a stop that did not wait for every request.
    pub(super) fn still_in_flight(&self, timeout: Duration) -> Error {
        let consequence = match self.shares_broker() {
            true => "they may still publish to the broker, which other servers share",
            false => "they can't publish any more",
        };
        let message = format!("requests were still in flight after {timeout:?}; {consequence}");
        Error::new(ErrorKind::StopTimeout, message)
    }
}
