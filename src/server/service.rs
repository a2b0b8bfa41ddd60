//! [`Service`]: what all threads of a server share, whichever backend they belong to.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use super::hosts::Hosts;
use super::info::ServerInfo;
use super::monitoring::Status;
use super::traffic::Traffic;
use crate::broker::Broker;
use crate::error::{Error, ErrorKind};

pub(super) struct Service {
    pub(super) info: ServerInfo,
    pub(super) broker: Broker,
    pub(super) hosts: Hosts,
    pub(super) traffic: Traffic,
    /// Sequentially consistent; the backends compare it with their counts of requests in flight.
    stopping: AtomicBool,
}

impl Service {
    pub(super) fn new(info: ServerInfo, broker: Broker) -> Self {
        Service {
            hosts: Hosts::new(&info.hosts),
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
            is_stopping: self.is_stopping() || self.broker.is_stopping(),
        }
    }

    pub(super) fn begin_stop(&self) {
        self.stopping.store(true, SeqCst);
    }
}

/// The error of a stop that did not wait for every request.
pub(super) fn still_in_flight(timeout: Duration) -> Error {
    let message =
        format!("requests were still in flight after {timeout:?}; they can't publish any more");
    Error::new(ErrorKind::StopTimeout, message)
}
