//! What a poll asks for, by its query and, where parameters are missing, by its header fields.

use std::time::Duration;

use super::info::ServerInfo;
use super::request::Request;
use crate::error::Error;
use crate::position::Cursor;
use crate::wire::{LAST_EVENT_ID, SubscriptionRequest};

/// The name of the preference of RFC 7240, section 4.3.
const WAIT: &str = "wait";

/// What a poll asks for.
pub(super) struct PollRequest {
    pub(super) subscription: SubscriptionRequest,
    /// The timeout comes from the field `Prefer`, so that the answer has `Preference-Applied`.
    pub(super) is_preference: bool,
}

impl PollRequest {
    /// Reads a poll. The field `Last-Event-ID` counts as `last_id`, and the preference `wait` as `timeout`, where the
    /// parameter is missing. The categories are not checked yet.
    ///
    /// A stream needs no timeout. Of a stream, the field `Last-Event-ID` precedes the parameter: a browser that connects again
    /// has the URL of the first time, and sends the field for the position since then.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` that names the parameter or the field.
    pub(super) fn read(request: &Request, is_stream: bool) -> Result<Self, Error> {
        let mut is_preference = false;
        let wait = || {
            let wait = preferred_wait(request);
            is_preference = wait.is_some();
            wait.or(is_stream.then_some(Duration::MAX))
        };
        let mut subscription = SubscriptionRequest::from_query(request.query(), wait)?;
        if (subscription.last_id.is_none() || is_stream)
            && let Some(id) = request.header(LAST_EVENT_ID)
            && !id.trim().is_empty()
        {
            let wrong = |error: Error| error.context("the header Last-Event-ID is wrong");
            subscription.last_id = Some(id.trim().parse().map_err(wrong)?);
        }
        Ok(PollRequest {
            subscription,
            is_preference,
        })
    }
}

/// Where a poll starts.
pub(super) fn cursor(poll: &SubscriptionRequest, info: &ServerInfo) -> Cursor {
    match (poll.last_id, poll.since_time) {
        (Some(id), Some(time)) => Cursor::LastIdOrSinceTime(id, time),
        (Some(id), None) => Cursor::LastId(id),
        (None, Some(time)) => Cursor::SinceTime(time),
        (None, None) => info.poll_without_cursor.into(),
    }
}

/// Returns the time that the preference `wait` gives. Of several, the first one counts (RFC 7240, section 2). One that is
/// not a number of seconds is ignored, as any preference that a server does not know.
fn preferred_wait(request: &Request) -> Option<Duration> {
    let fields = request.headers().iter();
    let fields = fields.filter(|(name, _)| name.eq_ignore_ascii_case("Prefer"));
    let preferences = fields.flat_map(|(_, value)| split_unquoted(value, ','));
    let mut waits = preferences.filter_map(|preference| {
        let first = split_unquoted(preference, ';').next()?;
        let (name, value) = first.split_once('=')?;
        let value = value.trim();
        let unquoted = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'));
        let is_wait = name.trim().eq_ignore_ascii_case(WAIT);
        is_wait.then(|| unquoted.unwrap_or(value))
    });
    let seconds = waits.next()?;
    let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = seconds.parse().unwrap_or(u64::MAX);
    is_number.then(|| Duration::from_secs(seconds))
}

/// Splits a field's value at a separator that is not within a quoted string.
fn split_unquoted(value: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    value.split(move |character| {
        if std::mem::take(&mut escaped) {
            return false;
        }
        match character {
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ => return character == separator && !quoted,
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(fields: &[&str]) -> Option<u64> {
        let request = fields
            .iter()
            .fold(Request::new("GET", "/"), |request, field| {
                request.with_added_header("prefer", field)
            });
        preferred_wait(&request).map(|wait| wait.as_secs())
    }

    #[test]
    fn the_first_wait_of_all_preferences_counts() {
        for (fields, seconds) in [
            (&["wait=10"][..], Some(10)),
            (&["respond-async, WAIT = 7 ; x=y"], Some(7)),
            (&["wait=\"8\""], Some(8)),
            (&["handling=lenient", "wait=3, wait=4", "wait=5"], Some(3)),
            (&["x=\"a, wait=1\", wait=2"], Some(2)),
            (&["x=\"\\\", wait=1\", wait=2"], Some(2)),
            (&["x; wait=1"], None),
            (&["wait=99999999999999999999999"], Some(u64::MAX)),
            (&["wait"], None),
            (&["wait="], None),
            (&["wait=-1"], None),
            (&["wait=1.5"], None),
            (&["wait=x, wait=5"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(wait(fields), seconds, "{fields:?}");
        }
    }

    #[test]
    fn parameters_take_precedence_over_header_fields() {
        let id = "019a5b3c-1234-8abc-8000-000000000007";
        let other = "019a5b3c-1234-8abc-8000-000000000008";
        let read = |target: &str, id: &str| {
            let request = Request::new("GET", target)
                .with_header("Prefer", "wait=9")
                .with_header("last-event-id", id);
            PollRequest::read(&request, false)
        };
        let poll = read("/events?category=c", id).unwrap();
        assert!(poll.is_preference);
        assert_eq!(poll.subscription.timeout, Duration::from_secs(9));
        assert_eq!(poll.subscription.last_id, Some(id.parse().unwrap()));

        let target = format!("/events?category=c&timeout=3&last_id={other}");
        let poll = read(&target, "wrong").unwrap();
        assert!(!poll.is_preference);
        assert_eq!(poll.subscription.timeout, Duration::from_secs(3));
        assert_eq!(poll.subscription.last_id, Some(other.parse().unwrap()));

        let poll = read("/events?category=c&last_id=", " ").unwrap();
        assert_eq!(poll.subscription.last_id, None);
        let error = read("/events?category=c", "wrong").err().unwrap();
        assert!(error.report().to_string().contains("Last-Event-ID"));
        // A parameter that is wrong is not missing.
        assert!(read("/events?category=c&timeout=x", id).is_err());
    }

    #[test]
    fn a_stream_needs_no_timeout_and_its_newest_position_is_in_the_header() {
        let id = "019a5b3c-1234-8abc-8000-000000000007";
        let other = "019a5b3c-1234-8abc-8000-000000000008";
        let target = format!("/events?category=c&last_id={other}");
        let first = Request::new("GET", &target);
        assert!(PollRequest::read(&first, false).is_err());
        let stream = PollRequest::read(&first, true).unwrap().subscription;
        assert_eq!(stream.last_id, Some(other.parse().unwrap()));
        assert_eq!(stream.timeout, Duration::MAX);
        let again = first.with_header("Last-Event-ID", id);
        let stream = PollRequest::read(&again, true).unwrap().subscription;
        assert_eq!(stream.last_id, Some(id.parse().unwrap()));
    }
}
