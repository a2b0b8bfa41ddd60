//! The order of a category's events, and which of them may still come: those of the [`Sequencer`] and the
//! [`Commits`](super::commit::Commits), or those of a stream if the broker has a backplane.

use super::Shared;
use super::batch::Batch;
use super::look::Query;
use super::ring::Place;
use super::sequencer::Sequencer;
use super::waiter::Waiter;
use crate::deadline::Deadline;

/// How long a poll waits for the end of a millisecond.
#[cfg(feature = "redis")]
const CLOSE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
/// How long a poll that must not wait waits for a position that another node has reached.
#[cfg(feature = "redis")]
const CATCH_UP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);
/// How often a poll that waits for a position looks whether it is to end.
#[cfg(feature = "redis")]
const CATCH_UP_PACE: std::time::Duration = std::time::Duration::from_millis(200);

#[cfg(not(feature = "redis"))]
impl Shared {
    /// Returns the order of a category's events.
    pub(super) fn order_of(&self, _category: &str) -> &Sequencer {
        &self.sequencer
    }

    /// Returns the timestamp of the oldest event after `visible`, the newest visible sequence number, that is hidden.
    pub(super) fn oldest_hidden(&self, _category: &str, visible: u64) -> Option<u64> {
        self.commits.oldest_timestamp(visible)
    }

    /// Returns the sequence number of the newest event after `visible` that is hidden and has at most this timestamp.
    pub(super) fn newest_hidden(
        &self,
        _category: &str,
        timestamp: u64,
        visible: u64,
    ) -> Option<u64> {
        self.commits.newest_up_to(timestamp, visible)
    }

    /// Waits until the hidden event with this sequence number is settled. Returns `false` if that takes too long.
    pub(super) fn wait_for_hidden(&self, _category: &str, sequence: u64) -> bool {
        self.commits.wait_for(self, sequence)
    }

    /// Returns `true` if no event can come that has the timestamp of this batch's last one.
    pub(super) fn has_whole_millisecond(&self, _category: &str, batch: &Batch) -> bool {
        self.sequencer.end() == batch.last_id()
    }

    /// Returns `true` if a subscriber that parked at one of these places misses an event of any category. Without a
    /// backplane, only a start finds such losses.
    pub(super) fn misses(&self, _category: &str, _places: &[Place]) -> bool {
        false
    }

    /// Waits until a query that was put off can look again. Returns `false` if that takes too long.
    pub(super) fn wait_for_look(
        &self,
        category: &str,
        _query: &mut Query,
        sequence: u64,
        _waiter: &Waiter,
        _deadline: Deadline,
    ) -> bool {
        self.wait_for_hidden(category, sequence)
    }
}

#[cfg(feature = "redis")]
impl Shared {
    /// Returns the order of a category's events.
    pub(super) fn order_of(&self, category: &str) -> &Sequencer {
        match &self.streams {
            Some(streams) => streams.order_of(category),
            None => &self.sequencer,
        }
    }

    /// Returns the stream of a category.
    pub(super) fn stream_of(&self, category: &str) -> usize {
        let streams = self.streams.as_ref();
        streams.map_or(0, |streams| streams.backplane.stream_of(category))
    }

    pub(super) fn backplane_statistics(&self) -> Option<super::BackplaneStatistics> {
        Some(self.streams.as_ref()?.backplane.statistics())
    }

    /// Returns the timestamp of the oldest event after `visible`, the newest visible sequence number, that is hidden. With
    /// a backplane: the least that an event to come can have.
    pub(super) fn oldest_hidden(&self, category: &str, visible: u64) -> Option<u64> {
        match self.order_of(category).timeline() {
            Some(timeline) => Some(timeline.open_from()),
            None => self.commits.oldest_timestamp(visible),
        }
    }

    /// Returns the sequence number of the newest event after `visible` that is hidden and has at most this timestamp. With a
    /// backplane: of the newest visible event, if others of this timestamp may come.
    pub(super) fn newest_hidden(
        &self,
        category: &str,
        timestamp: u64,
        visible: u64,
    ) -> Option<u64> {
        match self.order_of(category).timeline() {
            Some(timeline) => timeline.open_at(timestamp),
            None => self.commits.newest_up_to(timestamp, visible),
        }
    }

    /// Waits until the hidden event with this sequence number is settled. Returns `false` if that takes too long.
    pub(super) fn wait_for_hidden(&self, category: &str, sequence: u64) -> bool {
        match self.order_of(category).timeline() {
            Some(timeline) => timeline.wait_until_closed(sequence, Deadline::after(CLOSE_TIMEOUT)),
            None => self.commits.wait_for(self, sequence),
        }
    }

    /// Returns `true` if no event can come that has the timestamp of this batch's last one.
    pub(super) fn has_whole_millisecond(&self, category: &str, batch: &Batch) -> bool {
        match self.order_of(category).timeline() {
            Some(_) => false,
            None => self.sequencer.end() == batch.last_id(),
        }
    }

    /// Returns `true` if a subscriber that parked at one of these places misses an event of any category.
    pub(super) fn misses(&self, category: &str, places: &[Place]) -> bool {
        let timeline = self.order_of(category).timeline();
        timeline.is_some_and(|timeline| {
            let lost = timeline.lost();
            places.iter().any(|place| place.misses(lost))
        })
    }

    /// Waits until a query that was put off can look again. Returns `false` if that takes too long.
    pub(super) fn wait_for_look(
        &self,
        category: &str,
        query: &mut Query,
        sequence: u64,
        waiter: &Waiter,
        deadline: Deadline,
    ) -> bool {
        let timeline = self.order_of(category).timeline();
        let (Some(timeline), Some(ahead)) = (timeline, query.ahead) else {
            return self.wait_for_hidden(category, sequence);
        };
        let deadline = match query.mode {
            super::PollMode::Park => deadline,
            _ => Deadline::after(CATCH_UP_TIMEOUT),
        };
        let is_over = || deadline.remaining().is_some_and(|left| left.is_zero());
        while !query.checked && !waiter.is_answered_early() && !is_over() {
            let pace = deadline.remaining().unwrap_or(CATCH_UP_PACE);
            query.checked = timeline.wait_for(ahead, Deadline::after(pace.min(CATCH_UP_PACE)));
        }
        query.checked
    }
}
