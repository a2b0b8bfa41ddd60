//! Whether an event is admitted.

use super::{Checked, NEEDS_STALL};
use crate::testing::store_conformance::records::event_with;
use crate::testing::store_conformance::session::{Seen, Session};
use crate::testing::store_conformance::{Fault, Place};

/// The size of each event, and how many there are: 16 MiB together, since not every store has a limit.
const EVENT_BYTES: usize = 64 << 10;
const EVENTS: u64 = 256;

/// Appends events that are admitted until one is refused, or until there are enough. Returns the newest ticket.
fn fill(session: &Session) -> Seen<u64> {
    let mut ticket = 0;
    for sequence in 1..=EVENTS {
        let event = event_with(sequence, "category", &"x".repeat(EVENT_BYTES))?;
        if !session.admit(event.line_len())? {
            break;
        }
        ticket = session.append(event)?;
    }
    Ok(ticket)
}

/// Checks that an event is admitted now, or soon.
fn admits_again(session: &Session) -> Seen<()> {
    match session.retry(|| session.admit(EVENT_BYTES))? {
        true => Ok(()),
        false => Err(format!(
            "`admit` refuses an event {:?} after all records were flushed",
            session.limit()
        )),
    }
}

pub(super) fn of_many(place: &Place) -> Seen<Checked> {
    let session = place.start(&[])?;
    if !session.admit(1024)? {
        return Err("`admit` refused the first event, which has 1 KiB".into());
    }
    let ticket = fill(&session)?;
    session.flush(ticket)?;
    admits_again(&session)?;
    session.stop()?;
    Ok(Checked::Yes)
}

pub(super) fn while_stalled(place: &Place) -> Seen<Checked> {
    let session = place.start(&[])?;
    let Some(fault) = place.with_fault(Fault::Stall) else {
        return Ok(NEEDS_STALL);
    };
    let ticket = fill(&session)?;
    drop(fault);
    // A store that gave up while the disk stalled has refused these events.
    let _ = session.try_flush(ticket)?;
    admits_again(&session)?;
    session.stop()?;
    Ok(Checked::Yes)
}
