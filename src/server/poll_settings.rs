//! The settings of polls that are choices: [`TimeoutAnswer`] and [`PollWithoutCursor`].

use crate::position::Cursor;
use crate::text::named_values;

/// The answer to a poll that timed out. As text, for flags and configuration files: `no_content` or `golongpoll`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimeoutAnswer {
    /// 204 without a body: the Go package's way.
    #[default]
    NoContent,
    /// 200 with `{"timeout":"no events before timeout","timestamp":…}`: golongpoll's way, for its clients, of which the
    /// Go one sleeps for 30 seconds after a 204.
    Golongpoll,
}

named_values!(TimeoutAnswer, "a timeout answer", {
    NoContent = "no_content",
    Golongpoll = "golongpoll",
});

/// Where a poll without `since_time` and `last_id` starts. As text, for flags and configuration files: `now` or `oldest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PollWithoutCursor {
    /// With what is published from now on: golongpoll's way.
    #[default]
    Now,
    /// With the oldest event still buffered: what the test in the Go package's README expects.
    Oldest,
}

named_values!(PollWithoutCursor, "a start of a poll", {
    Now = "now",
    Oldest = "oldest",
});

impl From<PollWithoutCursor> for Cursor {
    fn from(start: PollWithoutCursor) -> Self {
        match start {
            PollWithoutCursor::Now => Cursor::Now,
            PollWithoutCursor::Oldest => Cursor::Oldest,
        }
    }
}
