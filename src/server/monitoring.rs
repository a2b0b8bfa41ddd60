//! [`MonitoringEndpoint`]: a path at which the server answers questions about itself, and [`Status`]: what it reports there.
//!
//! An endpoint has the function that answers. A program that does not set `metrics_uri` or `health_uri` does not name that
//! function, and so the linker leaves its code out.

use std::fmt;

use super::request::Request;
use super::response::Response;
use super::traffic::Traffic;
use crate::broker::Broker;

#[derive(Clone)]
pub(super) struct MonitoringEndpoint {
    pub(super) path: String,
    pub(super) answer: fn(&Status<'_>, &Request) -> Response,
}

impl fmt::Debug for MonitoringEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

/// The state of a server, as its monitoring endpoints see it.
pub(super) struct Status<'a> {
    pub(super) broker: &'a Broker,
    pub(super) traffic: &'a Traffic,
    /// The stop of the server or of its broker has begun.
    pub(super) is_stopping: bool,
}
