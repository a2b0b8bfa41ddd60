//! [`Service`]: what all threads of a server share, whichever backend they belong to.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::info::ServerInfo;
use crate::broker::Broker;

pub(super) struct Service {
    pub(super) info: ServerInfo,
    pub(super) broker: Broker,
    stopping: AtomicBool,
}

impl Service {
    pub(super) fn new(info: ServerInfo, broker: Broker) -> Self {
        Service {
            info,
            broker,
            stopping: AtomicBool::new(false),
        }
    }

    /// True once the stop has begun: publishes are refused, and connections are closed after the next answer.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    pub(super) fn begin_stop(&self) {
        self.stopping.store(true, Relaxed);
    }
}
