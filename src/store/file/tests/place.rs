//! A log that is removed or replaced while it is open, and one that can't be replaced.

use super::fake_disk::{FakeDisk, Kind};
use super::faults::{Published, newest, power_cut_keeps};
use super::*;
use crate::ErrorKind;

const LOG: &str = "events.log";

struct Run {
    disk: FakeDisk,
    broker: Broker,
    states: Receiver<FileState>,
    published: Published,
    next: u64,
    context: String,
}

fn start(disk: FakeDisk, durability: Durability, compact_from: Option<u64>) -> Run {
    let (tell, states) = crossbeam_channel::unbounded();
    let info = info(durability, compact_from).on_change(move |state| {
        let _ = tell.send(state.clone());
    });
    let broker = broker(&disk, RING, info).unwrap();
    Run {
        disk,
        broker,
        states,
        published: Published::default(),
        next: 0,
        context: format!("{durability:?}"),
    }
}

impl Run {
    /// Publishes one event; says whether it was taken.
    fn publish(&mut self) -> bool {
        let number = self.next;
        self.next += 1;
        match self.broker.publish("one", &number) {
            Ok(id) => self.published.taken.push((number, id)),
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

    /// Waits until all is in a file that works.
    fn wait_until_kept(&self) {
        wait_until(|| {
            let store = self.broker.statistics().store;
            store.pending == 0 && store.failing.is_none()
        });
    }

    fn reason(&self) -> String {
        match self.states.recv_timeout(LIMIT) {
            Ok(FileState::Failing { reason }) => reason,
            other => panic!("{}: {other:?}", self.context),
        }
    }

    /// What a kill leaves has all that was taken.
    fn is_there_after_a_kill(&self) {
        let (killed, _) = self.disk.left();
        let again = super::broker(
            &FakeDisk::with(&killed),
            RING,
            info(Durability::Buffered, None),
        );
        let (numbers, _) = held(&again.unwrap(), "one", Cursor::Oldest);
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
            run.wait_until_kept();
            match change {
                Change::Removed => run.disk.take_away(LOG),
                Change::Truncated => run.disk.empty(LOG),
                Change::Replaced(data) => run.disk.put(LOG, data),
            }
            let mut taken = 0;
            while taken < 3 {
                if run.publish() {
                    taken += 1;
                    if durability == Durability::Acknowledged {
                        // Nothing is acknowledged that a removed file has.
                        power_cut_keeps(&run.disk, "one", &run.published, RING, &run.context);
                    }
                } else {
                    assert_eq!(durability, Durability::Acknowledged);
                    wait_until(|| run.failing().is_none());
                }
            }
            run.wait_until_kept();
            let reason = run.reason();
            let what = match change {
                Change::Truncated => "was truncated",
                _ => "was removed or replaced",
            };
            assert!(reason.contains(what), "{reason}");
            assert_eq!(run.states.recv_timeout(LIMIT), Ok(FileState::Working));
            run.is_there_after_a_kill();
            run.broker.stop(LIMIT).unwrap();
            let (killed, _) = run.disk.left();
            let aside = killed.iter().find(|(name, _)| {
                let name = name.to_string_lossy();
                name.starts_with("events.log.replaced-")
            });
            // What somebody else has put there is kept, unless it is empty.
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
fn a_log_that_is_removed_before_the_stop_is_written_again_by_the_stop() {
    for durability in LEVELS {
        let mut run = start(FakeDisk::default(), durability, None);
        assert!(run.publish());
        run.wait_until_kept();
        run.disk.take_away(LOG);
        run.broker.stop(LIMIT).unwrap();
        run.is_there_after_a_kill();
    }
}

#[test]
fn a_stop_whose_log_was_removed_and_can_not_be_written_again_says_so() {
    for durability in LEVELS {
        let mut run = start(FakeDisk::default(), durability, None);
        assert!(run.publish());
        run.wait_until_kept();
        run.disk.take_away(LOG);
        run.disk.break_down(1, &[Kind::Create]);
        let error = run.broker.stop(LIMIT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File);
        let message = error.to_string();
        assert!(message.contains("the file events.log is gone"), "{message}");
    }
}

#[test]
fn a_log_that_can_not_be_replaced_grows_and_loses_nothing() {
    for durability in LEVELS {
        let mut run = start(FakeDisk::default().mount(), durability, Some(1));
        for _ in 0..40 {
            assert!(run.publish());
            run.wait_until_kept();
        }
        let store = run.broker.statistics().store;
        assert_eq!((store.rewritten, store.failures), (0, 0));
        run.is_there_after_a_kill();
        run.broker.stop(LIMIT).unwrap();
        assert!(run.states.is_empty());
    }
}

#[test]
fn a_log_that_can_be_neither_synced_nor_replaced_fails_with_what_to_do() {
    for durability in [LEVELS[1], LEVELS[2]] {
        let mut run = start(FakeDisk::default().mount(), durability, Some(1));
        assert!(run.publish());
        run.wait_until_kept();
        run.disk.break_down(1, &[Kind::Sync]);
        run.publish();
        wait_until(|| run.failing().is_some());
        run.disk.mend();
        let told = |reason: Option<String>| {
            reason.is_some_and(|reason| reason.contains("a new one can't take its place"))
        };
        wait_until(|| told(run.failing()));
        for _ in 0..3 {
            let taken = run.publish();
            assert_eq!(taken, durability != Durability::Acknowledged);
        }
        if durability == Durability::Acknowledged {
            power_cut_keeps(&run.disk, "one", &run.published, RING, &run.context);
        }
        assert!(run.broker.stop(LIMIT).is_err());
    }
}
