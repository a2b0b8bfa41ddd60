//! What does not wait for a disk that stalls, and what does.

use std::time::Duration;

use super::{Checked, NEEDS_STALL};
use crate::testing::store_conformance::records::{event, events};
use crate::testing::store_conformance::session::{Seen, Session};
use crate::testing::store_conformance::{Fault, Place};

/// How many times a call is made while a flush waits. The flush may take a moment to reach the disk.
const CALLS: u64 = 20;
/// The time between two calls.
const PAUSE: Duration = Duration::from_millis(5);

/// Calls `call` with numbers that grow while a flush waits for a disk that stalls; afterwards, the flush has to return.
/// Returns whether the flush succeeded while the disk stalled, or `None` if the place can't stall.
fn while_flushing(
    place: &Place,
    mut call: impl FnMut(&Session, u64) -> Seen<()>,
) -> Seen<Option<bool>> {
    let session = place.start(&[])?;
    let Some(fault) = place.with_fault(Fault::Stall) else {
        return Ok(None);
    };
    let ticket = session.append_all(&events(1..=1)?)?;
    let flushing = session.begin_flush(ticket)?;
    let mut flushed = None;
    for number in 2..=1 + CALLS {
        call(&session, number)?;
        if flushed.is_none() {
            flushed = flushing.within(PAUSE)?;
        }
    }
    drop(fault);
    if flushed.is_none() && flushing.within(session.limit())?.is_none() {
        return Err("`flush` did not return after the disk had stalled".into());
    }
    session.stop()?;
    Ok(Some(matches!(flushed, Some(Ok(())))))
}

/// Whether the rule could be checked, if it does not depend on the flush.
fn checked(flushed: Option<bool>) -> Checked {
    match flushed {
        Some(_) => Checked::Yes,
        None => NEEDS_STALL,
    }
}

pub(super) fn append(place: &Place) -> Seen<Checked> {
    while_flushing(place, |session, number| {
        append_number(session, number).map(drop)
    })
    .map(checked)
}

/// Appends an event, which must not wait.
fn append_number(session: &Session, number: u64) -> Seen<u64> {
    session.append(event(number)?)
}

pub(super) fn statistics(place: &Place) -> Seen<Checked> {
    while_flushing(place, |session, _| session.statistics().map(drop)).map(checked)
}

pub(super) fn flush(place: &Place) -> Seen<Checked> {
    let flushed = while_flushing(place, |session, number| {
        let ticket = append_number(session, number)?;
        let settled = session.settled()?;
        match settled >= ticket {
            true => Err(format!(
                "`settled` returned {settled} while the disk stalled, and ticket {ticket} is not flushed"
            )),
            false => Ok(()),
        }
    })?;
    match flushed {
        Some(true) => Err("`flush` returned Ok while the disk stalled".into()),
        flushed => Ok(checked(flushed)),
    }
}
