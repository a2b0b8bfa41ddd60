//! Another process removes, replaces or truncates the open log; or the log can't be replaced.

use super::fake_disk::{FakeDisk, Operation};
use super::faults::{Outcomes, assert_survives_power_cut, newest};
use super::*;
use crate::ErrorKind;

const LOG: &str = "events.log";

struct TestRun {
    disk: FakeDisk,
    broker: Broker,
    states: Receiver<FileState>,
    published: Outcomes,
    next: u64,
    context: String,
}

fn start(disk: FakeDisk, durability: Durability, compact_from: Option<u64>) -> TestRun {
    let (sender, states) = crossbeam_channel::unbounded();
    let info = info(durability, compact_from).on_change(move |state| {
        let _ = sender.send(state.clone());
    });
    let broker = broker(&disk, RING, info).unwrap();
    TestRun {
        disk,
        broker,
        states,
        published: Outcomes::default(),
        next: 0,
        context: format!("{durability:?}"),
    }
}

impl TestRun {
    /// Publishes one event. Returns `true` if it was accepted.
    fn publish(&mut self) -> bool {
        let number = self.next;
        self.next += 1;
        match self.broker.publish("one", &number) {
            Ok(id) => self.published.accepted.push((number, id)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Busy, "{}", self.context);
                self.published.refused.push(number);
                return false;
            }
        }
        true
    }

    fn failing(&self) -> Option<String> {
        self.broker.statistics().store.failing
    }

    /// Waits until the file works and has every event.
    fn wait_until_written(&self) {
        wait_until(|| {
            let store = self.broker.statistics().store;
            store.pending == 0 && store.failing.is_none()
        });
    }

    /// Returns the reason of the next failure that `on_change` reports.
    fn next_reason(&self) -> String {
        match self.states.recv_timeout(LIMIT) {
            Ok(FileState::Failing { reason }) => reason,
            other => panic!("{}: {other:?}", self.context),
        }
    }

    /// Asserts that a start after a kill restores the accepted events.
    fn assert_survives_kill(&self) {
        let (killed, _) = self.disk.after_crash();
        let restarted = super::broker(
            &FakeDisk::with(&killed),
            RING,
            info(Durability::Buffered, None),
        );
        let (numbers, _) = numbers_in(&restarted.unwrap(), "one", Cursor::Oldest);
        assert_eq!(numbers, newest(&self.published, RING), "{}", self.context);
    }
}

/// What another process does to the log.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Removed,
    Truncated,
    Replaced(&'static [u8]),
}

impl Change {
    const ALL: [Change; 4] = [
        Change::Removed,
        Change::Truncated,
        Change::Replaced(b""),
        Change::Replaced(b"another program's"),
    ];
}

#[test]
fn a_log_that_is_removed_replaced_or_truncated_is_reported_and_a_new_one_has_all_events() {
    for durability in LEVELS {
        for change in Change::ALL {
            let mut run = start(FakeDisk::default(), durability, None);
            for _ in 0..3 {
                assert!(run.publish());
            }
            run.wait_until_written();
            match change {
                Change::Removed => run.disk.remove_file(LOG),
                Change::Truncated => run.disk.truncate_file(LOG),
                Change::Replaced(data) => run.disk.replace_file(LOG, data),
            }
            let mut accepted = 0;
            while accepted < 3 {
                if run.publish() {
                    accepted += 1;
                    if durability == Durability::Acknowledged {
                        // An event in the removed file is not acknowledged.
                        assert_survives_power_cut(
                            &run.disk,
                            "one",
                            &run.published,
                            RING,
                            &run.context,
                        );
                    }
                } else {
                    assert_eq!(durability, Durability::Acknowledged);
                    wait_until(|| run.failing().is_none());
                }
            }
            run.wait_until_written();
            let reason = run.next_reason();
            let what = match change {
                Change::Truncated => "was truncated",
                _ => "was removed or replaced",
            };
            assert!(reason.contains(what), "{reason}");
            assert_eq!(run.states.recv_timeout(LIMIT), Ok(FileState::Working));
            run.assert_survives_kill();
            run.broker.stop(LIMIT).unwrap();
            let (killed, _) = run.disk.after_crash();
            let aside = killed.iter().find(|(name, _)| {
                let name = name.to_string_lossy();
                name.starts_with("events.log.replaced-")
            });
            // The file of the other process is kept, unless it is empty.
            let expected = match change {
                Change::Replaced(data) => Some(data).filter(|data| !data.is_empty()),
                _ => None,
            };
            assert_eq!(aside.map(|(_, data)| &data[..]), expected);
            assert!(run.states.is_empty());
        }
    }
}

#[test]
fn a_log_that_is_removed_before_the_stop_is_written_anew_by_the_stop() {
    for durability in LEVELS {
        let mut run = start(FakeDisk::default(), durability, None);
        assert!(run.publish());
        run.wait_until_written();
        run.disk.remove_file(LOG);
        run.broker.stop(LIMIT).unwrap();
        run.assert_survives_kill();
    }
}

#[test]
fn a_stop_whose_log_was_removed_and_can_not_be_written_anew_is_an_error() {
    for durability in LEVELS {
        let mut run = start(FakeDisk::default(), durability, None);
        assert!(run.publish());
        run.wait_until_written();
        run.disk.remove_file(LOG);
        run.disk.break_down(1, &[Operation::Create]);
        let error = run.broker.stop(LIMIT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File);
        let message = error.to_string();
        assert!(message.contains("the file events.log is gone"), "{message}");
    }
}

#[test]
fn a_log_that_can_not_be_replaced_grows_and_loses_nothing() {
    for durability in LEVELS {
        let mut run = start(FakeDisk::default().without_renames(), durability, Some(1));
        for _ in 0..40 {
            assert!(run.publish());
            run.wait_until_written();
        }
        let store = run.broker.statistics().store;
        assert_eq!((store.rewritten, store.failures), (0, 0));
        run.assert_survives_kill();
        run.broker.stop(LIMIT).unwrap();
        assert!(run.states.is_empty());
    }
}

#[test]
fn a_log_that_can_be_neither_synced_nor_replaced_fails_with_what_to_do() {
    for durability in [LEVELS[1], LEVELS[2]] {
        let mut run = start(FakeDisk::default().without_renames(), durability, Some(1));
        assert!(run.publish());
        run.wait_until_written();
        run.disk.break_down(1, &[Operation::Sync]);
        run.publish();
        wait_until(|| run.failing().is_some());
        run.disk.repair();
        let says_so = |reason: Option<String>| {
            reason.is_some_and(|reason| reason.contains("a new one can't take its place"))
        };
        wait_until(|| says_so(run.failing()));
        for _ in 0..3 {
            let is_accepted = run.publish();
            assert_eq!(is_accepted, durability != Durability::Acknowledged);
        }
        if durability == Durability::Acknowledged {
            assert_survives_power_cut(&run.disk, "one", &run.published, RING, &run.context);
        }
        assert!(run.broker.stop(LIMIT).is_err());
    }
}
