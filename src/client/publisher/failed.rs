//! [`Failed`]: an attempt that failed, and whether another one may succeed.

use std::fmt;
use std::time::Duration;

use crate::client::backoff::retry_after;
use crate::client::failure::{Failure, refusal};
use crate::client::idempotency_key::IdempotencyKey;
use crate::client::response::PublishResponse;
use crate::error::{Error, ErrorKind};

/// An attempt that failed.
pub(super) struct Failed {
    cause: Cause,
    /// Another attempt may succeed.
    pub(super) is_temporary: bool,
    /// The server may have published the event all the same.
    pub(super) maybe_published: bool,
}

/// Why an attempt failed.
enum Cause {
    /// There is no complete response.
    NoResponse(Error),
    /// The response to the publish.
    Refused(Box<PublishResponse>),
    /// The response to the question whether the server knows keys. It does not answer the question.
    NotAnswered(Box<PublishResponse>),
}

impl Failed {
    /// An attempt without a complete response.
    pub(super) fn of_failure(failure: Failure) -> Self {
        let Failure { error, never_sent } = failure;
        let is_temporary = match error.kind() {
            // A proxy that asks for credentials has a status.
            ErrorKind::Unreachable => error.status().is_none(),
            ErrorKind::TimedOut => true,
            // A response that was cut off in its head, or a redirect that can't be followed.
            ErrorKind::InvalidResponse => !never_sent,
            _ => false,
        };
        Failed {
            cause: Cause::NoResponse(error),
            is_temporary,
            maybe_published: !never_sent,
        }
    }

    /// A publish whose response is not a success.
    pub(super) fn of_publish(response: PublishResponse) -> Self {
        let (is_temporary, maybe_published) = match response.status {
            // The server has not processed the request.
            408 | 425 | 429 => (true, false),
            // From a server of the API, that is so for 503, too. A proxy may send it after it has passed the request on.
            503 => (true, !response.is_refusal_of_api()),
            300..500 => (false, false),
            // A success has a body of JSON, so this one was cut off, unless it is the page of another server.
            200..300 => (!response.has_json(), true),
            500 | 502 | 504 => (true, true),
            // A proxy at Cloudflare has no complete response of the server.
            520..=524 => (true, true),
            _ => (false, true),
        };
        Failed {
            cause: Cause::Refused(response.into()),
            is_temporary,
            maybe_published,
        }
    }

    /// A question whether the server knows keys, whose response has no window.
    pub(super) fn of_question(response: PublishResponse) -> Self {
        let is_temporary = matches!(response.status, 408 | 425 | 429 | 500 | 502..=504 | 520..=524);
        Failed {
            cause: Cause::NotAnswered(response.into()),
            is_temporary,
            maybe_published: true,
        }
    }

    fn response(&self) -> Option<&PublishResponse> {
        match &self.cause {
            Cause::NoResponse(_) => None,
            Cause::Refused(response) | Cause::NotAnswered(response) => Some(response),
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        let value = self.response()?.headers.get("Retry-After");
        value.and_then(retry_after)
    }

    /// Returns `true` if the server responds that it is being stopped.
    ///
    /// It does so once on each connection that was kept open. Only a new connection reaches a server that was started in its
    /// place on the same port.
    pub(super) fn is_stopping(&self) -> bool {
        self.response().is_some_and(|response| {
            response.status == 503 && response.headers.get("Connection") == Some("close")
        })
    }

    /// Returns the error of a publish whose last attempt this is. `maybe_published`: by one of the attempts.
    pub(super) fn into_error(self, maybe_published: bool, key: Option<&IdempotencyKey>) -> Error {
        let response = match self.cause {
            Cause::NoResponse(error) => {
                return error.context(consequence(maybe_published));
            }
            Cause::NotAnswered(response) => {
                let question = "the question whether it knows idempotency keys (OPTIONS)";
                return refused(question, &response).context(consequence(maybe_published));
            }
            Cause::Refused(response) => response,
        };
        let what = match maybe_published {
            false => "the event, which was not published,",
            true => "the event, which may have been published all the same,",
        };
        let error = refused(what, &response);
        match key.filter(|_| response.status == 422) {
            Some(key) => error.with_hint(format!(
                "the idempotency key is {:?}: give each publish a key of its own",
                key.as_str()
            )),
            None => error,
        }
    }
}

/// Says for the log what failed.
impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::NoResponse(error) => write!(f, "{}", error.report()),
            Cause::Refused(response) | Cause::NotAnswered(response) => {
                let PublishResponse { route, status, .. } = &**response;
                write!(f, "{route} responds with status {status}")
            }
        }
    }
}

/// Returns the part of a message that says whether the event was published.
pub(in crate::client) fn consequence(maybe_published: bool) -> &'static str {
    match maybe_published {
        false => "the event was not published",
        true => "the event may have been published all the same",
    }
}

fn refused(what: &str, response: &PublishResponse) -> Error {
    let (message, location) = (response.error(), response.headers.get("Location"));
    let (route, status) = (&response.route, response.status);
    refusal(what, route, status, message.as_deref(), location)
}
