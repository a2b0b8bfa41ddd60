//! Tickets, and what a flush that succeeded keeps.

use super::{Checked, NEEDS_KILL};
use crate::testing::store_conformance::Place;
use crate::testing::store_conformance::records::{difference, events};
use crate::testing::store_conformance::session::{Call, Seen, Session};

pub(super) fn tickets_grow(place: &Place) -> Seen<Checked> {
    let session = place.start(&[])?;
    let mut before = 0;
    for (index, record) in events(1..=20)?.into_iter().enumerate() {
        let ticket = session.append(record)?;
        if index > 0 && ticket <= before {
            return Err(format!(
                "`append` returned {ticket} after {before}; each ticket is greater than the one before"
            ));
        }
        before = ticket;
        if index % 5 == 0 {
            session.flush(ticket)?;
        }
    }
    session.stop()?;
    Ok(Checked::Yes)
}

pub(super) fn of_any_ticket(place: &Place) -> Seen<Checked> {
    let session = place.start(&[])?;
    let records = events(1..=5)?;
    let tickets = records.into_iter().map(|record| session.append(record));
    let tickets = tickets.collect::<Seen<Vec<u64>>>()?;
    // The newest first, then those that were written with it, and all once more.
    for ticket in tickets.iter().rev().chain(&tickets) {
        session.flush(*ticket)?;
    }
    session.stop()?;
    Ok(Checked::Yes)
}

pub(super) fn settled(place: &Place) -> Seen<Checked> {
    let session = place.start(&[])?;
    for record in events(1..=10)? {
        let ticket = session.append(record)?;
        session.flush(ticket)?;
        let settled = session.settled()?;
        if settled > ticket {
            return Err(format!(
                "`settled` returned {settled}, and the newest ticket is {ticket}"
            ));
        }
        session.flush_at_once(settled)?;
    }
    session.stop()?;
    Ok(Checked::Yes)
}

pub(super) fn with_appends(place: &Place) -> Seen<Checked> {
    let session = place.start(&[])?;
    let records = events(1..=400)?;
    let mut flushes = Vec::new();
    for some in records.chunks(4) {
        let ticket = session.append_all(some)?;
        flushes.push(session.begin_flush(ticket)?);
    }
    let limit = session.limit();
    let finished = |flush: &Call<_>| {
        let flushed: Result<(), crate::Error> = flush.finish(limit)?;
        flushed.map_err(|error| format!("`flush` failed: {}", error.report()))
    };
    flushes.iter().try_for_each(finished)?;
    session.stop()?;
    drop(session);
    place.start(&records)?.stop()?;
    Ok(Checked::Yes)
}

pub(super) fn without_a_stop(place: &Place) -> Seen<Checked> {
    let records = events(1..=20)?;
    let flushed = start_and_flush(place, &records)?;
    drop(flushed);
    place.start(&records)?.stop()?;
    Ok(Checked::Yes)
}

fn start_and_flush(place: &Place, records: &[crate::store::Record]) -> Seen<Session> {
    let session = place.start(&[])?;
    let ticket = session.append_all(records)?;
    session.flush(ticket)?;
    Ok(session)
}

pub(super) fn before_a_kill(place: &Place) -> Seen<Checked> {
    let records = events(1..=60)?;
    let session = start_and_flush(place, &records[..10])?;
    for run in 1..5 {
        let (flushed, later) = records.split_at(10 * run);
        let unflushed = &later[..10];
        let ticket = session.append_all(unflushed)?;
        let Some(replayed) = place.replay_after_kill()? else {
            return Ok(NEEDS_KILL);
        };
        // Of those that no flush has covered, any number may be there, but none without those before it.
        let expected = &records[..replayed.len().clamp(flushed.len(), flushed.len() + 10)];
        if let Some(difference) = difference(expected, &replayed) {
            let count = flushed.len();
            return Err(format!(
                "after a kill, with {count} records flushed: {difference}"
            ));
        }
        session.flush(ticket)?;
    }
    session.stop()?;
    Ok(Checked::Yes)
}
