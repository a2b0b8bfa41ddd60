//! [`Timeline`]: the order of the events of one stream, which a [`Backplane`](super::backplane::Backplane) decides and not
//! this broker.
//!
//! A stream has *epochs*, each with an id of its own and consecutive sequence numbers. An epoch either continues the one
//! before it, with the next number, or something was lost between the two: then its first number is greater than every
//! number before, and a position of an earlier epoch gets a gap.

use super::placed::{Ahead, HighWaterMark, Placed};
use super::ring::Place;
use super::sync::{Condvar, Mutex};
use crate::deadline::Deadline;
use crate::position::{EventId, Run};
use crate::store::Loss;

/// The sequence numbers from `first` on, up to the next epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch {
    pub(crate) run: Run,
    pub(crate) first: u64,
    /// Nothing was lost before it.
    pub(crate) continues: bool,
}

/// The order of a stream's events, as far as this broker has read the stream.
pub(crate) struct Timeline {
    state: Mutex<State>,
    /// Notified when an event is shown, a millisecond is closed or a check is done.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    epochs: Vec<Epoch>,
    /// The newest event that this broker should have and lacks.
    lost: Loss,
    /// The sequence number and timestamp of the newest event that subscribers can see.
    visible: u64,
    timestamp: u64,
    /// Every event that becomes visible from now on has at least this timestamp.
    open_from: u64,
    /// The events up to this sequence number have timestamps less than `open_from`.
    closed: u64,
    /// The newest sequence number of the stream at the last check.
    newest: u64,
    /// The checks of the stream that have begun, and those that are done.
    begun: u64,
    done: u64,
}

/// How far the clocks of the node and the backplane may differ, in milliseconds.
const CLOCKS_DIFFER: u64 = 100;

impl State {
    /// Returns the position after this event. Between two epochs it is the earlier one's, which every node knows already,
    /// unless something was lost between them.
    fn position(&self, sequence: u64) -> EventId {
        let is_of = |epoch: &&Epoch| {
            epoch.first <= sequence || !epoch.continues && epoch.first == sequence + 1
        };
        let epoch = self.epochs.iter().rev().find(is_of);
        let epoch = epoch.or(self.epochs.first());
        EventId::new(epoch.map_or(Run::new(0, 0), |epoch| epoch.run), sequence)
    }

    /// Returns the index of an id's epoch and the id's sequence number. `Err` if the id is not of this crate.
    fn find(&self, id: EventId) -> Result<(Option<usize>, u64), ()> {
        let (run, sequence) = id.parts().ok_or(())?;
        let index = self.epochs.iter().rposition(|epoch| epoch.run == run);
        Ok((index, sequence))
    }

    /// Returns where an id is, or `None` if the broker has not read that far, or does not know the id's epoch.
    fn locate(&self, id: EventId) -> Option<Placed> {
        let Ok((index, sequence)) = self.find(id) else {
            return Some(Placed::Foreign);
        };
        let later = &self.epochs[index? + 1..];
        let end = later.first().map_or(u64::MAX, |next| next.first - 1);
        if sequence > end || later.iter().any(|epoch| !epoch.continues) {
            let place = Place::Sequence(sequence.min(end));
            return Some(Placed::PastEnd(place));
        }
        (sequence <= self.visible).then_some(Placed::At(Place::Sequence(sequence)))
    }

    /// Returns `true` if the stream had this position at the last check.
    fn is_known(&self, id: EventId) -> bool {
        matches!(self.find(id), Ok((Some(_), sequence)) if sequence <= self.newest)
    }

    /// Closes all milliseconds before this one.
    fn close(&mut self, before: u64) {
        if before > self.open_from {
            self.open_from = before;
            self.closed = self.visible;
        }
    }

    /// Notes an event of a millisecond that is closed: the backplane's clock was set back, and another node has published.
    /// Followers by time, which may be past the event, get a gap; a position is not affected.
    fn note_late(&mut self) {
        self.lost = self.lost.max(Loss {
            sequence: 1,
            timestamp: self.open_from,
        });
        // A follower that has had the gap goes on after it.
        self.close(self.open_from + 1);
    }
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Timeline {
            state: Mutex::default(),
            changed: Condvar::default(),
        }
    }

    /// Returns the high-water mark of what is visible, when the broker's own clock shows `now`.
    pub(crate) fn high_water_mark(&self, now: u64) -> HighWaterMark {
        let state = self.state.lock();
        HighWaterMark {
            sequence: state.visible,
            id: state.position(state.visible),
            before: state.open_from.saturating_sub(1),
            time: state.timestamp.max(now),
        }
    }

    pub(crate) fn position(&self, sequence: u64) -> EventId {
        self.state.lock().position(sequence)
    }

    pub(crate) fn lost(&self) -> Loss {
        self.state.lock().lost
    }

    /// Returns the least timestamp of every event that becomes visible from now on.
    pub(crate) fn open_from(&self) -> u64 {
        self.state.lock().open_from
    }

    /// Returns `true` if an event may come that has the timestamp of the newest visible one.
    pub(crate) fn has_open_millisecond(&self) -> bool {
        let state = self.state.lock();
        state.closed < state.visible
    }

    /// Returns the newest visible sequence number if an event with this timestamp may still come.
    pub(crate) fn open_at(&self, timestamp: u64) -> Option<u64> {
        let state = self.state.lock();
        (timestamp >= state.open_from).then_some(state.visible)
    }

    /// Finds the place of an id. `checked`: the stream was checked after the poll came, so an unknown id is wrong.
    pub(crate) fn locate(&self, id: EventId, checked: bool) -> Placed {
        let state = self.state.lock();
        match state.locate(id) {
            Some(placed) => placed,
            None if checked && !state.is_known(id) => Placed::UnknownRun,
            None => Placed::Ahead(Ahead::Position {
                id,
                begun: state.begun,
            }),
        }
    }

    /// Returns the time up to which events may still come, for a follower by this time, when the broker's own clock shows
    /// `now`. `None` if none may. A time past all clocks counts as the present.
    pub(crate) fn ahead_in_time(&self, time: u64, now: u64) -> Option<Ahead> {
        let open_from = self.open_from();
        let time = time.min(open_from.max(now.saturating_add(CLOCKS_DIFFER)));
        (time >= open_from).then_some(Ahead::Time(time))
    }

    /// Waits until the position or time is reached, or a check shows that the stream does not have the position. Returns
    /// `false` at the deadline.
    pub(crate) fn wait_for(&self, ahead: Ahead, deadline: Deadline) -> bool {
        let mut state = self.state.lock();
        deadline.wait_while(&self.changed, &mut state, |state| match ahead {
            Ahead::Position { id, begun } => {
                state.locate(id).is_none() && (state.done <= begun || state.is_known(id))
            }
            Ahead::Time(time) => state.open_from <= time,
        })
    }

    /// Waits until no event can come that has the timestamp of one up to this sequence number. Returns `false` at the
    /// deadline.
    pub(crate) fn wait_until_closed(&self, sequence: u64, deadline: Deadline) -> bool {
        let mut state = self.state.lock();
        deadline.wait_while(&self.changed, &mut state, |state| state.closed < sequence)
    }

    /// Notes that every event up to this one is visible.
    pub(crate) fn make_visible(&self, sequence: u64, timestamp: u64) {
        let mut state = self.state.lock();
        if timestamp < state.open_from {
            state.note_late();
        }
        state.close(timestamp);
        (state.visible, state.timestamp) = (sequence, timestamp);
        state.newest = state.newest.max(sequence);
        drop(state);
        self.changed.notify_all();
    }

    /// Notes that every event before this time, in Unix milliseconds, is visible.
    pub(crate) fn close(&self, before: u64) {
        self.state.lock().close(before);
        self.changed.notify_all();
    }

    /// Notes that a check of the stream has begun.
    pub(crate) fn begin_check(&self) {
        self.state.lock().begun += 1;
    }

    /// Notes that the check has found this newest sequence number.
    pub(crate) fn end_check(&self, newest: u64) {
        let mut state = self.state.lock();
        state.newest = newest;
        state.done = state.begun;
        drop(state);
        self.changed.notify_all();
    }

    /// Returns the newest visible position, as the epoch and the sequence number; `None` before the first epoch.
    pub(crate) fn newest(&self) -> Option<(Run, u64)> {
        let state = self.state.lock();
        state
            .position(state.visible)
            .parts()
            .filter(|_| !state.epochs.is_empty())
    }

    #[cfg(test)]
    fn epochs(&self) -> Vec<Epoch> {
        self.state.lock().epochs.clone()
    }

    /// Sets the epochs, of which those after the present one continue it.
    pub(crate) fn continue_with(&self, epochs: Vec<Epoch>) {
        self.state.lock().epochs = epochs;
        self.changed.notify_all();
    }

    /// Notes the loss of events that were to become visible next.
    pub(crate) fn lose(&self, lost: Loss) {
        let mut state = self.state.lock();
        state.lost = state.lost.max(lost);
        state.close(lost.timestamp);
        (state.visible, state.timestamp) = (lost.sequence, lost.timestamp);
        drop(state);
        self.changed.notify_all();
    }

    /// Begins again with these epochs, after the events up to this sequence number and timestamp.
    pub(crate) fn begin_again(&self, epochs: Vec<Epoch>, lost: Loss, visible: u64, timestamp: u64) {
        let mut state = self.state.lock();
        state.lost = state.lost.max(lost);
        state.epochs = epochs;
        (state.visible, state.timestamp) = (visible, timestamp);
        state.open_from = state.open_from.max(timestamp);
        state.closed = 0;
        state.newest = state.newest.max(visible);
        drop(state);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Run = Run::new(10, 1);
    const SECOND: Run = Run::new(20, 2);
    const THIRD: Run = Run::new(30, 3);

    fn epoch(run: Run, first: u64, continues: bool) -> Epoch {
        Epoch {
            run,
            first,
            continues,
        }
    }

    fn timeline() -> Timeline {
        let timeline = Timeline::new();
        let epochs = vec![epoch(FIRST, 1, false), epoch(SECOND, 6, true)];
        timeline.begin_again(epochs, Loss::default(), 8, 100);
        timeline.end_check(9);
        timeline
    }

    fn at(sequence: u64) -> Placed {
        Placed::At(Place::Sequence(sequence))
    }

    #[test]
    fn an_epoch_that_continues_another_makes_no_gap() {
        let timeline = timeline();
        assert_eq!(timeline.locate(EventId::new(FIRST, 5), false), at(5));
        assert_eq!(timeline.locate(EventId::new(SECOND, 8), false), at(8));
        // These were given out and lost.
        let past = Placed::PastEnd(Place::Sequence(5));
        assert_eq!(timeline.locate(EventId::new(FIRST, 7), false), past);
        assert_eq!(timeline.position(6), EventId::new(SECOND, 6));
        assert_eq!(timeline.position(5), EventId::new(FIRST, 5));
        assert_eq!(timeline.position(3), EventId::new(FIRST, 3));
    }

    #[test]
    fn a_loss_between_epochs_is_a_gap_for_every_earlier_position() {
        let timeline = timeline();
        let mut epochs = timeline.epochs();
        epochs.push(epoch(THIRD, 1000, false));
        timeline.begin_again(epochs, Loss::default(), 999, 200);
        assert_eq!(timeline.position(999), EventId::new(THIRD, 999));
        for (id, place) in [
            (EventId::new(FIRST, 3), 3),
            (EventId::new(SECOND, 8), 8),
            (EventId::new(SECOND, 1200), 999),
        ] {
            let past = Placed::PastEnd(Place::Sequence(place));
            assert_eq!(timeline.locate(id, true), past);
        }
        assert_eq!(timeline.locate(EventId::new(THIRD, 999), false), at(999));
    }

    #[test]
    fn a_position_that_another_node_has_reached_is_waited_for() {
        let timeline = timeline();
        let ahead = EventId::new(SECOND, 9);
        let Placed::Ahead(wait) = timeline.locate(ahead, false) else {
            panic!("not ahead");
        };
        let now = || Deadline::after(std::time::Duration::ZERO);
        // A check has seen it, so it comes.
        timeline.begin_check();
        timeline.end_check(9);
        assert!(!timeline.wait_for(wait, now()));
        assert!(matches!(timeline.locate(ahead, true), Placed::Ahead(_)));
        timeline.make_visible(9, 101);
        assert!(timeline.wait_for(wait, now()));
        assert_eq!(timeline.locate(ahead, true), at(9));
    }

    #[test]
    fn a_position_that_a_later_check_does_not_find_is_unknown() {
        let timeline = timeline();
        timeline.begin_check();
        let unknown = EventId::new(THIRD, 12);
        let Placed::Ahead(wait) = timeline.locate(unknown, false) else {
            panic!("not ahead");
        };
        let now = || Deadline::after(std::time::Duration::ZERO);
        // This check had begun before the poll came.
        timeline.end_check(8);
        assert!(!timeline.wait_for(wait, now()));
        timeline.begin_check();
        timeline.end_check(8);
        assert!(timeline.wait_for(wait, now()));
        assert_eq!(timeline.locate(unknown, true), Placed::UnknownRun);
    }

    #[test]
    fn a_millisecond_is_open_until_a_later_event_or_time() {
        let timeline = timeline();
        timeline.make_visible(9, 105);
        assert_eq!(
            (timeline.open_at(104), timeline.open_at(105)),
            (None, Some(9))
        );
        timeline.make_visible(10, 105);
        assert!(timeline.has_open_millisecond());
        let now = || Deadline::after(std::time::Duration::ZERO);
        assert!(!timeline.wait_until_closed(10, now()));
        timeline.close(105);
        assert!(!timeline.wait_until_closed(10, now()));
        timeline.close(106);
        assert!(timeline.wait_until_closed(10, now()));
        assert_eq!(timeline.high_water_mark(0).before, 105);
        timeline.make_visible(11, 107);
        assert!(!timeline.wait_until_closed(11, now()));
        assert!(timeline.wait_until_closed(10, now()));
    }

    #[test]
    fn an_event_of_a_closed_millisecond_is_a_gap_for_followers_by_time_alone() {
        let timeline = timeline();
        timeline.close(200);
        timeline.make_visible(9, 200);
        assert_eq!(timeline.lost(), Loss::default());
        for (sequence, timestamp) in [(10, 150), (11, 151)] {
            // Where a follower by time can be.
            let followed = timeline.high_water_mark(0).before;
            timeline.make_visible(sequence, timestamp);
            let lost = timeline.lost();
            assert!(Place::Time(followed).misses(lost));
            // It goes on without another gap.
            assert!(!Place::Time(timeline.high_water_mark(0).before).misses(lost));
            assert!(!Place::Sequence(3).misses(lost));
        }
        let lost = timeline.lost();
        timeline.make_visible(12, timeline.open_from());
        assert_eq!(timeline.lost(), lost);
    }
}
