//! When a broker calls its store, what the store may call from within, and a store whose calls do not return.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use crate::store_probe::{Probe, SOON, StoreCall, in_time};
use crate::support::{LIMIT, until};
use long_polling::{Cursor, ErrorKind};

#[test]
fn a_store_that_asks_for_the_brokers_records_within_a_call_gets_them_or_none_at_once() {
    for acknowledges in [false, true] {
        for (call, complete) in [
            (StoreCall::Admit, true),
            (StoreCall::Append, false),
            (StoreCall::AppendEnd, false),
            (StoreCall::Flush, true),
            (StoreCall::Settled, true),
            (StoreCall::Stop, true),
            (StoreCall::Statistics, true),
        ] {
            let store = Probe::new(|state| {
                state.acknowledges = acknowledges;
                state.asks_in = Some(call);
            });
            let broker = store.broker();
            store.state().answers.clear();
            in_time(move || {
                for number in 0..3 {
                    broker.publish("c", &number).unwrap();
                }
                broker.statistics();
                broker.stop(LIMIT).unwrap();
            });
            let answers = store.state().answers.clone();
            let context = format!("{call:?}, {acknowledges}: {answers:?}");
            let expected: &[usize] = match call {
                StoreCall::Admit => &[0, 1, 2],
                StoreCall::Append => &[0, 0, 0],
                StoreCall::AppendEnd => &[0],
                // Also the event that is being flushed, and not visible yet.
                StoreCall::Flush | StoreCall::Settled if acknowledges => &[1, 2, 3],
                StoreCall::Flush | StoreCall::Settled => &[],
                // Dropping the broker stops the store again.
                StoreCall::Stop => &[3, 3],
                StoreCall::Statistics => &[3],
            };
            assert_eq!(answers, expected, "{context}");
            assert!(complete || answers.iter().all(|count| *count == 0));
        }
    }
}

#[test]
fn a_flush_that_waits_for_a_thread_that_asks_for_records_goes_on_without_them() {
    let store = Probe::new(|state| state.acknowledges = true);
    let broker = store.broker();
    {
        let mut state = store.state();
        (state.asks_in, state.asks_in_a_thread) = (Some(StoreCall::Flush), true);
    }
    let publisher = broker.clone();
    in_time(move || publisher.publish("c", &1).map(drop)).unwrap();
    assert_eq!(store.state().answers, [0]);
    broker.stop(LIMIT).unwrap();
}

#[test]
fn a_stop_keeps_its_timeout_whatever_call_of_the_store_does_not_return() {
    for (call, acknowledges, period, named) in [
        (StoreCall::Append, false, None, "`append` of an event"),
        (StoreCall::Append, true, None, "`append` of an event"),
        (StoreCall::AppendEnd, false, None, "that the run has ended"),
        (StoreCall::Flush, false, Some(Duration::ZERO), "`flush`"),
        (StoreCall::Stop, true, None, "`stop`"),
    ] {
        let store = Probe::new(|state| (state.acknowledges, state.period) = (acknowledges, period));
        let broker = store.broker();
        until("the start is flushed", || store.state().flushes > 0);
        store.state().blocks_in.insert(call);
        let publisher = broker.clone();
        let publishing = thread::spawn(move || publisher.publish("c", &1).map(drop));
        if call == StoreCall::Append {
            until("blocked", || store.state().blocked == 1);
        } else {
            until("published", || publishing.is_finished());
        }
        for _ in 0..2 {
            let began = Instant::now();
            let stopping = broker.clone();
            let error = in_time(move || stopping.stop(SOON)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StopTimeout, "{call:?}");
            assert!(error.to_string().contains(named), "{call:?}: {error}");
            assert!(began.elapsed() >= SOON, "{call:?}");
        }
        // Dropping it does not wait again for what has not returned.
        if call != StoreCall::Append {
            in_time(move || drop(broker));
            store.release();
        } else {
            store.release();
            in_time(move || broker.stop(LIMIT)).unwrap();
        }
        let _ = publishing.join().unwrap();
        until("no thread holds the store", || !store.is_held());
    }
}

#[test]
fn a_stop_answers_publishers_whose_flush_does_not_return_once_it_does() {
    let store = Probe::new(|state| state.acknowledges = true);
    let broker = store.broker();
    store
        .state()
        .blocks_in
        .extend([StoreCall::Flush, StoreCall::Stop]);
    let publisher = broker.clone();
    let publishing = thread::spawn(move || publisher.publish("c", &1));
    until("blocked", || store.state().blocked == 1);
    let stopping = broker.clone();
    let error = in_time(move || stopping.stop(SOON)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StopTimeout);
    store.release();
    let id = publishing.join().unwrap().unwrap();
    broker.stop(LIMIT).unwrap();
    assert!(
        store
            .state()
            .records
            .iter()
            .any(|record| { record.event().is_some_and(|event| event.id() == id) })
    );
}

#[test]
fn without_acknowledgement_or_a_period_a_store_is_flushed_at_the_start_only() {
    let store = Probe::default();
    let broker = store.broker();
    for number in 0..20 {
        broker.publish("c", &number).unwrap();
    }
    broker.stop(LIMIT).unwrap();
    assert_eq!(store.state().flushes, 1);
}

#[test]
fn with_a_period_everything_appended_is_flushed_soon_and_once_more_before_the_stop() {
    let store = Probe::new(|state| state.period = Some(Duration::from_millis(5)));
    let broker = store.broker();
    for _ in 0..3 {
        for number in 0..20 {
            broker.publish("c", &number).unwrap();
        }
        let appended = store.state().records.len() as u64;
        until("flushed", || store.state().flushed >= appended);
    }
    let flushes = store.state().flushes;
    assert!(flushes < 60, "not one flush for each event: {flushes}");
    broker.stop(LIMIT).unwrap();
    assert!(store.is_flushed());
    drop(broker);
    until("the thread has ended", || !store.is_held());

    let rarely = Probe::new(|state| state.period = Some(Duration::MAX));
    let broker = rarely.broker();
    broker.publish("c", &1).unwrap();
    broker.stop(LIMIT).unwrap();
    assert!(rarely.is_flushed());
}

#[test]
fn a_periodic_flush_that_fails_or_panics_is_counted_and_tried_again() {
    let store = Probe::new(|state| state.period = Some(Duration::from_millis(1)));
    let broker = store.broker();
    let failing = || broker.statistics().store.failing;
    assert_eq!(failing(), None);
    store.state().fails = Some("disk on fire");
    broker.publish("c", &1).unwrap();
    until("it fails", || {
        failing().is_some_and(|reason| reason.contains("disk on fire"))
    });
    until("it is tried again", || {
        broker.statistics().store.failures > 2
    });
    {
        let mut state = store.state();
        (state.fails, state.panics) = (None, true);
    }
    until("it panics", || {
        failing().is_some_and(|reason| reason.contains("panicked"))
    });
    store.state().panics = false;
    until("it works", || failing().is_none());
    // Publishing and polling went on all the time.
    let batch = broker.subscribe("c", Cursor::Oldest, Duration::ZERO);
    assert_eq!(batch.unwrap().events().len(), 1);
    let stopped = catch_unwind(AssertUnwindSafe(|| broker.stop(LIMIT)));
    stopped.unwrap().unwrap();
    assert!(store.is_flushed());
}
