//! The stop, and what does not change before it.

use std::time::Duration;

use super::{Checked, NEEDS_STALL};
use crate::testing::store_conformance::records::events;
use crate::testing::store_conformance::session::Seen;
use crate::testing::store_conformance::{Fault, Place};

pub(super) fn promises(place: &Place) -> Seen<Checked> {
    let session = place.start(&[])?;
    let at_the_start = session.promises()?;
    let is_same = |when: &str| {
        let now = session.promises()?;
        match now == at_the_start {
            true => Ok(()),
            false => Err(format!(
                "`acknowledges` and `flush_period` are {now:?} after {when}, and were {at_the_start:?} at the start"
            )),
        }
    };
    let ticket = session.append_all(&events(1..=3)?)?;
    is_same("an append")?;
    session.flush(ticket)?;
    is_same("a flush")?;
    session.stop()?;
    is_same("the stop")?;
    Ok(Checked::Yes)
}

pub(super) fn keeps_records(place: &Place) -> Seen<Checked> {
    let records = events(1..=100)?;
    let session = place.start(&[])?;
    session.append_all(&records)?;
    session.stop()?;
    drop(session);
    place.start(&records)?.stop()?;
    Ok(Checked::Yes)
}

pub(super) fn again(place: &Place) -> Seen<Checked> {
    let records = events(1..=3)?;
    let session = place.start(&[])?;
    let ticket = session.append_all(&records)?;
    session.stop()?;
    session
        .stop()
        .map_err(|seen| format!("the second {seen}"))?;
    // A publisher may be waiting for its flush, and a program may look at the statistics.
    let flushed = session.flush(ticket);
    flushed.map_err(|seen| format!("after the stop, {seen}"))?;
    session.statistics()?;
    drop(session);
    place.start(&records)?.stop()?;
    Ok(Checked::Yes)
}

pub(super) fn after_a_timeout(place: &Place) -> Seen<Checked> {
    let records = events(1..=3)?;
    let session = place.start(&[])?;
    let Some(fault) = place.with_fault(Fault::Stall) else {
        return Ok(NEEDS_STALL);
    };
    session.append_all(&records)?;
    let timeout = Duration::from_millis(50);
    let stopping = session.begin_stop(timeout)?;
    // It need not return before the fault ends: the broker leaves its thread behind.
    let first = stopping.within(2 * timeout)?;
    if let Some(Ok(())) = first {
        return Err("`stop` returned Ok while the disk stalled".into());
    }
    drop(fault);
    session.stop()?;
    if first.is_none() {
        let _ = stopping.within(session.limit())?;
    }
    drop(session);
    place.start(&records)?.stop()?;
    Ok(Checked::Yes)
}

pub(super) fn append_afterwards(place: &Place) -> Seen<Checked> {
    let records = events(1..=4)?;
    let session = place.start(&[])?;
    session.append_all(&records[..3])?;
    session.stop()?;
    let accepted = session.try_append(records[3].clone())?.is_ok();
    drop(session);
    let kept = if accepted { 4 } else { 3 };
    let started = place.start(&records[..kept]);
    let context = |seen| match accepted {
        true => format!("`append` after the stop returned Ok: {seen}"),
        false => format!("`append` after the stop failed: {seen}"),
    };
    started.map_err(context)?.stop()?;
    Ok(Checked::Yes)
}
