//! [`Report`]: the values of all metrics at one moment. Its serialization is the JSON form.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::broker::Statistics;
use crate::server::monitoring::Status;

#[derive(Serialize)]
pub(super) struct Report {
    /// The version of this crate.
    pub(super) version: &'static str,
    /// `"tiny_http"`, `"native"`, or `"mounted"`.
    pub(super) http: &'static str,
    /// Unix seconds.
    pub(super) start_time: u64,
    pub(super) stopping: bool,
    /// Open connections; `None` if nothing counts them.
    pub(super) connections: Option<usize>,
    pub(super) connections_refused: u64,
    /// Open streams of Server-Sent Events.
    pub(super) event_streams: u64,
    /// Answers by status.
    pub(super) responses: BTreeMap<u16, u64>,
    pub(super) limits: Limits,
    pub(super) statistics: Statistics,
}

/// The settings of the broker by which an operator judges its gauges.
#[derive(Serialize)]
pub(super) struct Limits {
    pub(super) max_parked: usize,
    pub(super) max_categories: usize,
    pub(super) max_event_bytes: usize,
}

impl Report {
    pub(super) fn of(status: &Status<'_>) -> Self {
        let Status {
            broker, traffic, ..
        } = status;
        let options = broker.options();
        Report {
            version: env!("CARGO_PKG_VERSION"),
            http: traffic.backend(),
            start_time: traffic.started(),
            stopping: status.is_stopping,
            connections: traffic.open_connections(),
            connections_refused: traffic.connections_refused(),
            event_streams: traffic.streams(),
            responses: traffic.answers().collect(),
            limits: Limits {
                max_parked: options.max_parked,
                max_categories: options.max_categories,
                max_event_bytes: options.max_event_bytes,
            },
            statistics: broker.statistics(),
        }
    }
}
