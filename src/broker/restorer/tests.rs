use super::super::ring::Place;
use super::super::sequencer::Placed;
use super::*;
use crate::event::Draft;

fn draft() -> Draft {
    Draft::new("c".into(), "x").unwrap()
}

fn stamped(sequencer: &Sequencer) -> Entry {
    sequencer.stamp(draft(), |_| Ok(())).unwrap().0
}

/// The sequencer that follows a log that ends with its last event, and does not have the end of the run.
fn restored(events: impl IntoIterator<Item = Event>) -> Sequencer {
    let mut restorer = Restorer::default();
    events
        .into_iter()
        .for_each(|event| drop(restorer.place(0, event)));
    restorer.finish(Clock::System, false)
}

/// The log of a run that published this many events and ended.
fn ended(run: Run, events: u64) -> Restorer {
    let mut restorer = Restorer::default();
    restorer.start(EventId::new(run, 0), false);
    for number in 1..=events {
        restorer.place(0, draft().stamp(number, EventId::new(run, number)));
    }
    restorer.end(EventId::new(run, events));
    restorer
}

#[test]
fn a_file_whose_last_event_lies_in_the_future_is_continued_after_it() {
    let future = Clock::System.now() + 3_600_000;
    let id = EventId::new(Run::new(future, 5), 41);
    let sequencer = restored([draft().stamp(future, id)]);
    let next = stamped(&sequencer);
    // One number is left out for what the run may have lost, and the timestamps that it may have stepped to.
    assert_eq!((next.sequence, next.event.timestamp()), (43, future + 1002));
    assert!(next.event.id() > id);
}

#[test]
fn positions_of_earlier_runs_are_known_as_far_as_the_file_goes() {
    let run = Run::new(1_700_000_000_000, 9);
    let sequencer = ended(run, 3).finish(Clock::System, false);
    assert_eq!(sequencer.lost(), Loss::default());
    let at = |sequence| Placed::At(Place::Sequence(sequence));
    assert_eq!(sequencer.locate(EventId::new(run, 2)), at(2));
    assert_eq!(sequencer.locate(EventId::new(run, 3)), at(3));
    assert_eq!(
        sequencer.locate(EventId::new(run, 4)),
        Placed::PastEnd(Place::Sequence(3))
    );
    assert_eq!(sequencer.high_water_mark().sequence, 3);
    let next = stamped(&sequencer);
    assert_eq!(sequencer.locate(next.event.id()), at(4));
    let unknown = EventId::new(Run::new(1_700_000_000_000, 10), 1);
    assert_eq!(sequencer.locate(unknown), Placed::UnknownRun);
    assert_eq!(sequencer.locate(EventId::from(7)), Placed::Foreign);
}

#[test]
fn a_run_without_events_is_known_where_it_ended() {
    let (first, second) = (
        Run::new(1_700_000_000_000, 9),
        Run::new(1_700_000_000_001, 9),
    );
    let mut restorer = ended(first, 3);
    restorer.start(EventId::new(second, 3), false);
    restorer.end(EventId::new(second, 3));
    let sequencer = restorer.finish(Clock::System, false);
    assert_eq!(
        sequencer.locate(EventId::new(second, 3)),
        Placed::At(Place::Sequence(3))
    );
    assert_eq!(
        (sequencer.lost(), sequencer.high_water_mark().sequence),
        (Loss::default(), 3)
    );
}

#[test]
fn a_run_that_did_not_end_may_have_lost_what_it_published_last() {
    let (first, second) = (
        Run::new(1_700_000_000_000, 9),
        Run::new(1_700_000_000_001, 9),
    );
    let mut restorer = ended(first, 3);
    restorer.start(EventId::new(second, 3), false);
    restorer.place(0, draft().stamp(9, EventId::new(second, 4)));
    let sequencer = restorer.finish(Clock::System, false);
    // A follower that has seen all events that are left may still have missed one; one that saw more is past the end.
    assert_eq!(sequencer.lost().sequence, 5);
    // It was published by now.
    assert!(sequencer.lost().timestamp > 1_700_000_000_000);
    assert!(Place::Sequence(4).misses(sequencer.lost()));
    assert_eq!(
        sequencer.locate(EventId::new(second, 6)),
        Placed::PastEnd(Place::Sequence(4))
    );
    assert_eq!(stamped(&sequencer).sequence, 6);
    assert!(!Place::Sequence(6).misses(sequencer.lost()));
}

#[test]
fn a_run_that_acknowledged_has_lost_no_event_that_was_visible() {
    let (first, second) = (
        Run::new(1_700_000_000_000, 9),
        Run::new(1_700_000_000_001, 9),
    );
    let mut restorer = Restorer::default();
    restorer.start(EventId::new(first, 0), true);
    restorer.place(0, draft().stamp(9, EventId::new(first, 1)));
    restorer.start(EventId::new(second, 1), true);
    restorer.place(0, draft().stamp(9, EventId::new(second, 2)));
    let sequencer = restorer.finish(Clock::System, true);
    assert_eq!(sequencer.lost(), Loss::default());
    assert_eq!(stamped(&sequencer).sequence, 3);
    // A damaged event may have been visible; a torn one was still being written.
    for (damage, lost) in [
        (Restorer::damaged as fn(&mut Restorer), 1),
        (Restorer::torn, 0),
    ] {
        let mut restorer = Restorer::default();
        restorer.start(EventId::new(first, 0), true);
        damage(&mut restorer);
        assert_eq!(restorer.finish(Clock::System, true).lost().sequence, lost);
    }
    let mut restorer = ended(first, 3);
    restorer.torn();
    assert_eq!(restorer.finish(Clock::System, true).lost().sequence, 4);
}

#[test]
fn events_lost_by_a_kill_were_published_before_the_next_start() {
    let (first, second) = (
        Run::new(1_700_000_000_000, 9),
        Run::new(1_700_000_000_500, 9),
    );
    let mut restorer = Restorer::default();
    restorer.start(EventId::new(first, 0), false);
    restorer.place(0, draft().stamp(1_700_000_000_001, EventId::new(first, 1)));
    restorer.start(EventId::new(second, 2), false);
    restorer.place(0, draft().stamp(1_700_000_009_000, EventId::new(second, 3)));
    restorer.end(EventId::new(second, 3));
    assert_eq!(
        restorer.finish(Clock::System, false).lost(),
        Loss {
            sequence: 2,
            timestamp: 1_700_000_001_500
        }
    );
}

#[test]
fn a_run_whose_clock_was_far_ahead_does_not_date_a_loss_there() {
    let now = Clock::System.now();
    let (first, second) = (Run::new(now - 500, 9), Run::new(now + 100_000_000, 9));
    let mut restorer = Restorer::default();
    restorer.start(EventId::new(first, 0), false);
    restorer.start(EventId::new(second, 1), false);
    restorer.end(EventId::new(second, 1));
    let sequencer = restorer.finish(Clock::System, false);
    assert_eq!(sequencer.lost().sequence, 1);
    assert!(sequencer.lost().timestamp < now + 60_000);
    assert!(stamped(&sequencer).event.timestamp() < now + 60_000);
}

#[test]
fn a_number_that_is_missing_in_the_file_is_a_lost_event() {
    let run = Run::new(1_700_000_000_000, 9);
    let mut restorer = Restorer::default();
    restorer.start(EventId::new(run, 0), false);
    for number in [1, 2, 4] {
        restorer.place(0, draft().stamp(number, EventId::new(run, number)));
    }
    restorer.end(EventId::new(run, 4));
    assert_eq!(
        restorer.finish(Clock::System, false).lost(),
        Loss {
            sequence: 3,
            timestamp: 4
        }
    );
    // Also the last ones.
    let mut restorer = ended(run, 3);
    restorer.end(EventId::new(run, 5));
    assert_eq!(restorer.finish(Clock::System, false).lost().sequence, 5);
}

#[test]
fn numbers_whose_events_compaction_dropped_at_the_end_are_not_given_twice() {
    let run = Run::new(1_700_000_000_000, 9);
    let mut restorer = Restorer::default();
    restorer.compacted(EventId::new(run, 5), 1);
    restorer.start(EventId::new(run, 0), false);
    restorer.place(1, draft().stamp(1, EventId::new(run, 1)));
    let sequencer = restorer.finish(Clock::System, false);
    let last = sequencer.locate(EventId::new(run, 5));
    assert_eq!(last, Placed::At(Place::Sequence(5)));
    // It was killed, so one more may be lost.
    assert_eq!(sequencer.lost().sequence, 6);
    assert_eq!(stamped(&sequencer).sequence, 7);
}

fn run(number: u64) -> Run {
    Run::new(1_700_000_000_000 + number, 9)
}

/// Returns `true` if the event of this run with this number has a place.
fn has_place(restorer: &mut Restorer, run: Run, number: u64) -> bool {
    let event = draft().stamp(number, EventId::new(run, number));
    restorer.place(number, event).is_some()
}

#[test]
fn an_event_that_comes_twice_or_too_late_has_no_place_and_counts_as_lost() {
    let mut restorer = ended(run(1), 3);
    restorer.start(EventId::new(run(2), 3), false);
    assert!(has_place(&mut restorer, run(2), 4));
    assert!(has_place(&mut restorer, run(2), 6));
    for (run, number) in [(run(1), 3), (run(2), 4), (run(2), 5), (run(2), 6)] {
        assert!(!has_place(&mut restorer, run, number));
    }
    assert!(has_place(&mut restorer, run(2), 7));
    // Nor does a run begin or end twice.
    restorer.end(EventId::new(run(1), 3));
    restorer.start(EventId::new(run(2), 3), false);
    restorer.end(EventId::new(run(2), 7));
    let sequencer = restorer.finish(Clock::System, false);
    let lost = Loss {
        sequence: 6,
        timestamp: 6,
    };
    assert_eq!(
        (sequencer.lost(), sequencer.high_water_mark().sequence),
        (lost, 7)
    );
    let position = sequencer.locate(EventId::new(run(2), 4));
    assert_eq!(position, Placed::At(Place::Sequence(4)));
}

#[test]
fn files_that_were_joined_are_numbered_one_after_the_other() {
    let mut restorer = ended(run(2), 3);
    restorer.start(EventId::new(run(1), 0), false);
    assert!(has_place(&mut restorer, run(1), 1));
    assert!(has_place(&mut restorer, run(1), 2));
    assert!(!has_place(&mut restorer, run(1), 2));
    assert!(!has_place(&mut restorer, run(2), 2));
    restorer.end(EventId::new(run(1), 2));
    assert_eq!(
        restorer
            .finish(Clock::System, false)
            .high_water_mark()
            .sequence,
        5
    );
}

#[test]
fn an_event_that_is_damaged_before_refused_events_is_lost() {
    let refused = |damaged: bool| {
        let mut restorer = Restorer::default();
        restorer.start(EventId::new(run(1), 0), true);
        assert!(has_place(&mut restorer, run(1), 1));
        if damaged {
            restorer.damaged();
        }
        restorer.refuse(EventId::new(run(1), 3));
        assert!(has_place(&mut restorer, run(1), 4));
        restorer.finish(Clock::System, true).lost().sequence
    };
    assert_eq!((refused(false), refused(true)), (0, 3));
    // The record of refused events may be all that is left of a run.
    let mut restorer = Restorer::default();
    restorer.start(EventId::new(run(1), 0), false);
    restorer.refuse(EventId::new(run(2), 3));
    let sequencer = restorer.finish(Clock::System, true);
    assert!(sequencer.lost().sequence >= 3);
    let position = sequencer.locate(EventId::new(run(1), 2));
    assert_eq!(position, Placed::PastEnd(Place::Sequence(0)));
}

#[test]
fn an_end_without_its_start_is_not_the_end_of_the_run_before() {
    let mut restorer = Restorer::default();
    restorer.start(EventId::new(run(1), 0), false);
    assert!(has_place(&mut restorer, run(1), 1));
    restorer.end(EventId::new(run(2), 3));
    let sequencer = restorer.finish(Clock::System, false);
    assert_eq!(sequencer.lost().sequence, 3);
    for (number, place) in [
        (1, Placed::At(Place::Sequence(1))),
        (3, Placed::PastEnd(Place::Sequence(1))),
    ] {
        assert_eq!(sequencer.locate(EventId::new(run(1), number)), place);
    }
    assert_eq!(
        sequencer.locate(EventId::new(run(2), 3)),
        Placed::At(Place::Sequence(3))
    );
}

#[test]
fn damage_before_the_first_run_may_hide_any_loss() {
    let mut restorer = Restorer::default();
    restorer.damaged();
    restorer.start(EventId::new(run(1), 0), true);
    assert!(has_place(&mut restorer, run(1), 1));
    let sequencer = restorer.finish(Clock::System, true);
    assert!(Place::Sequence(1).misses(sequencer.lost()));
}

#[test]
fn the_end_of_a_run_that_is_damaged_in_a_compacted_log_is_not_known() {
    let mut restorer = Restorer::default();
    restorer.compacted(EventId::new(run(2), 5), 1);
    restorer.start(EventId::new(run(1), 0), false);
    assert!(has_place(&mut restorer, run(1), 2));
    restorer.damaged();
    restorer.start(EventId::new(run(2), 5), false);
    let sequencer = restorer.finish(Clock::System, false);
    let position = sequencer.locate(EventId::new(run(1), 4));
    assert_eq!(position, Placed::PastEnd(Place::Sequence(2)));
}

#[test]
fn the_greatest_possible_numbers_leave_room_for_later_runs() {
    let mut records = Vec::new();
    let mut restorer = Restorer::default();
    let first = EventId::new(Run::new(MAX_START, 7), MAX_STEP);
    let mut position = first;
    for _ in 0..100 {
        let started = Record::Started {
            position,
            acknowledges: false,
        };
        records.push(started);
        restorer = Restorer::default();
        for record in &records {
            assert!(restorer.is_possible(record), "{record:?}");
            match record {
                Record::Started { position, .. } => restorer.start(*position, false),
                Record::Published { sequence, event } => {
                    assert!(restorer.place(*sequence, event.clone()).is_some());
                }
                other => panic!("{other:?}"),
            }
        }
        let sequencer = std::mem::take(&mut restorer).finish(Clock::System, false);
        position = sequencer.end();
        let Entry {
            sequence, event, ..
        } = stamped(&sequencer);
        assert!(event.id() > first && sequence > MAX_STEP);
        records.push(Record::Started {
            position,
            acknowledges: false,
        });
        records.push(Record::Published { sequence, event });
        position = sequencer.end();
    }
    // One step more is impossible.
    let beyond = EventId::new(Run::new(1, 0), MAX_STEP + 1);
    assert!(!Restorer::default().is_possible(&Record::Ended(beyond)));
    let late = EventId::new(Run::new(MAX_START + MAX_START_STEP + 1, 0), 1);
    assert!(Restorer::default().is_possible(&Record::Ended(first)));
    assert!(!restorer.is_possible(&Record::Ended(late)));
}
