//! Cases in which events are about to expire, and the timestamps of others are ahead of the clock: both logs restore what the
//! first broker holds. Random cases have found the first two.

use super::steps::From;
use super::*;

const TTL: Duration = Duration::from_secs(1);
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// Takes these steps and compares. The data of the events has 1, 30 and 200 bytes in turn.
fn compare(options: BrokerOptions, acknowledges: bool, steps: impl IntoIterator<Item = Step>) {
    let options = options.event_ttl(TTL).max_event_size(202);
    let mut trial = Trial::new(options, acknowledges, &[]);
    steps.into_iter().for_each(|step| trial.take(step));
    trial.compare_now();
}

/// From now or from the oldest event on, by time: the event after the newest one of the answer has a greater timestamp.
fn by_time(category: usize, from: From) -> Probe {
    Probe {
        of: vec![category],
        from,
        limit: None,
    }
}

/// The first event expires, so that the next poll removes it, and the log still has it. The second is as old as an event may
/// be.
fn expired_and_last() -> [Step; 4] {
    [
        Step::Publish(C),
        Step::Advance(1),
        Step::Publish(A),
        Step::Advance(1000),
    ]
}

#[test]
fn too_many_categories_in_a_log_evict_no_event_that_the_broker_holds() {
    let options = BrokerOptions::new()
        .max_categories(2)
        .delete_after_first_retrieval(true);
    let steps = expired_and_last().into_iter().chain([
        Step::Poll(by_time(C, From::Now)),
        Step::Park(by_time(B, From::Now)),
        Step::Publish(B),
        Step::Publish(B),
        Step::Compact { back: 0, cut: 0 },
    ]);
    compare(options, true, steps);
}

#[test]
fn too_many_bytes_in_a_log_evict_no_event_that_the_broker_holds() {
    // All but the first event fit.
    let options = BrokerOptions::new().max_event_bytes(600);
    let steps = expired_and_last().into_iter().chain([
        Step::Poll(by_time(C, From::Now)),
        Step::Publish(B),
        Step::Poll(by_time(B, From::Oldest)),
        Step::Publish(B),
    ]);
    compare(options, false, steps);
}

/// One event alone is past the limit of bytes.
#[test]
fn an_event_that_is_delivered_to_a_parked_subscriber_evicts_none() {
    let options = BrokerOptions::new()
        .max_event_bytes(202)
        .delete_after_first_retrieval(true);
    let steps = [
        Step::Publish(C),
        Step::Publish(C),
        Step::Publish(C),
        Step::Advance(1000),
        Step::Park(by_time(B, From::Now)),
        Step::Publish(B),
        Step::Park(by_time(B, From::Now)),
        Step::Publish(B),
    ];
    compare(options, false, steps);
}
