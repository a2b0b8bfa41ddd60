//! The health endpoint: [`ServerInfo::health_uri`].

use super::info::ServerInfo;
use super::monitoring::{MonitoringEndpoint, Status};
use super::request::Request;
use super::response::Response;

impl ServerInfo {
    /// Sets the path of a health check for load balancers and service managers, such as `"/health"`. Defaults to none.
    ///
    /// The answer to GET is 200 with `{"status":"ok"}`, or 503 with `{"status":"failing","reason":"…"}` while the file, the
    /// store or Redis fails, and from the begin of a stop on. HEAD gets the same status. Hooks do not run for it, so that the
    /// check needs no credentials. The reason is one of a few fixed texts: details are in the log, and in the metrics.
    ///
    /// ```
    /// use long_polling::ServerInfo;
    ///
    /// let info = ServerInfo::new(":8080").health_uri("/health");
    /// ```
    pub fn health_uri(mut self, path: impl Into<String>) -> Self {
        self.health = Some(MonitoringEndpoint {
            path: path.into(),
            answer,
        });
        self
    }
}

fn answer(status: &Status<'_>, _: &Request) -> Response {
    match failure(status) {
        None => Response::from_json(200, r#"{"status":"ok"}"#),
        Some(reason) => {
            let json = format!(r#"{{"status":"failing","reason":"{reason}"}}"#);
            Response::from_json(503, json).with_header("Retry-After", "1")
        }
    }
}

/// Why the server does not work as it should. Without details, since everybody may ask.
fn failure(status: &Status<'_>) -> Option<&'static str> {
    if status.is_stopping {
        return Some("the server stops");
    }
    let statistics = status.broker.statistics();
    if statistics.store.failing.is_some() {
        return Some("the store can't keep events");
    }
    #[cfg(feature = "redis")]
    if statistics
        .backplane
        .is_some_and(|backplane| !backplane.connected)
    {
        return Some("the backplane can't be reached, or refuses publishes");
    }
    None
}
