//! The metrics endpoint: [`ServerInfo::metrics_uri`] and [`ServerInfo::before_metrics`].
//!
//! A [`Report`] has the values. `text` writes it in the format of Prometheus, `accept` chooses between that and JSON.

mod accept;
mod report;
mod text;

use self::accept::Format;
use self::report::Report;
use super::hooks::Handler;
use super::info::ServerInfo;
use super::monitoring::{MonitoringEndpoint, Status};
use super::request::Request;
use super::response::Response;

impl ServerInfo {
    /// Sets the path at which the server reports what it has done and holds, such as `"/metrics"`: everything in
    /// [`Statistics`](crate::Statistics), the limits of the broker, connections, and answers by status. Defaults to none.
    ///
    /// The answer to GET is in the text format of Prometheus, version 0.0.4, or JSON where the request's `Accept` prefers
    /// `application/json`. [`guide::deploying`](crate::guide::deploying) lists the metrics. Every client that reaches the
    /// server may read them, unless [`before_metrics`](ServerInfo::before_metrics) or a proxy decides otherwise.
    ///
    /// ```
    /// use long_polling::ServerInfo;
    /// use long_polling::server::Handler;
    ///
    /// let info = ServerInfo::new(":8080")
    ///     .metrics_uri("/metrics")
    ///     .before_metrics(Handler::bearer_token("secret"));
    /// ```
    pub fn metrics_uri(mut self, path: impl Into<String>) -> Self {
        self.metrics = Some(MonitoringEndpoint {
            path: path.into(),
            answer,
        });
        self
    }

    /// Sets a hook that runs before each answer at [`metrics_uri`](ServerInfo::metrics_uri), as
    /// [`before_subscription`](ServerInfo::before_subscription) does before each poll. Defaults to none.
    pub fn before_metrics(mut self, handler: impl Into<Handler>) -> Self {
        self.before_metrics = Some(handler.into());
        self
    }
}

fn answer(status: &Status<'_>, request: &Request) -> Response {
    let report = Report::of(status);
    let response = match Format::accepted(request.headers().get_all("Accept")) {
        Format::Text => Response::text(200, text::render(&report))
            .with_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8"),
        Format::Json => Response::json(200, &report),
    };
    response.with_header("Vary", "Accept")
}
