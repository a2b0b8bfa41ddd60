//! What becomes of a record whose write failed.

use super::{Checked, NEEDS_FAIL};
use crate::event::Event;
use crate::store::Record;
use crate::testing::store_conformance::session::{Seen, Session};
use crate::testing::store_conformance::{Fault, Place, records};

/// An event, and whether a flush succeeded for it.
struct Attempt {
    sequence: u64,
    record: Record,
    flushed: bool,
}

fn attempt(session: &Session, sequence: u64) -> Seen<Option<Attempt>> {
    let record = records::event(sequence)?;
    if !session.admit(record.line_len())? {
        return Ok(None);
    }
    let Ok(ticket) = session.try_append(record.clone())? else {
        return Ok(None);
    };
    let flushed = session.try_flush(ticket)?.is_ok();
    Ok(Some(Attempt {
        sequence,
        record,
        flushed,
    }))
}

pub(super) fn of_an_event(place: &Place) -> Seen<Checked> {
    let session = place.start(&[])?;
    let mut attempts: Vec<Attempt> = attempt(&session, 1)?.into_iter().collect();
    if !attempts.iter().any(|first| first.flushed) {
        return Err("the first event could not be flushed".into());
    }
    let Some(fault) = place.with_fault(Fault::Fail) else {
        return Ok(NEEDS_FAIL);
    };
    let failed = attempt(&session, 2)?;
    if failed.as_ref().is_some_and(|attempt| attempt.flushed) {
        return Err("`flush` returned Ok while writes failed".into());
    }
    attempts.extend(failed);
    drop(fault);
    // The store may need a moment to notice. An event that was not appended leaves its number to the next one.
    let is_written = session.retry(|| {
        let sequence = attempts.last().map_or(0, |last| last.sequence) + 1;
        attempts.extend(attempt(&session, sequence)?);
        Ok(attempts.last().is_some_and(|last| last.flushed))
    })?;
    if !is_written {
        let limit = session.limit();
        return Err(format!(
            "no event could be written within {limit:?} after writes had failed once"
        ));
    }
    let (acknowledges, _) = session.promises()?;
    session.stop()?;
    drop(session);
    let (session, replayed) = Session::start(place.open()?, place.limit)?;
    attempts
        .iter()
        .try_for_each(|attempt| check(attempt, &replayed, acknowledges))?;
    session.stop()?;
    Ok(Checked::Yes)
}

/// Checks that the log has an event, or that it was refused.
fn check(attempt: &Attempt, replayed: &[Record], acknowledges: bool) -> Seen<()> {
    let sequence = attempt.sequence;
    let found = replayed.contains(&attempt.record);
    if attempt.flushed {
        return match found {
            true => Ok(()),
            false => Err(format!(
                "event {sequence}, which `flush` returned Ok for, is not replayed"
            )),
        };
    }
    if found && acknowledges {
        return Err(format!(
            "event {sequence} is replayed, although `flush` failed and its publisher got an error"
        ));
    }
    // The record of the refusal comes before the events after it.
    let later = |record: &Record| {
        record
            .event()
            .is_some_and(|event| is_after(event, sequence))
    };
    let before = replayed.iter().take_while(|record| !later(record));
    let is_refused = |record: &Record| matches!(record, Record::Refused(id) if *id >= records::position(sequence));
    match found || before.into_iter().any(is_refused) {
        true => Ok(()),
        false => Err(format!(
            "event {sequence} is not replayed, and no Refused is in its place, so that the next run reports a gap"
        )),
    }
}

fn is_after(event: &Event, sequence: u64) -> bool {
    event.id() > records::position(sequence)
}
