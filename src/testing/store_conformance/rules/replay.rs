//! What the next start replays.

use super::Checked;
use crate::store::Record;
use crate::testing::store_conformance::Place;
use crate::testing::store_conformance::records::{difference, events, kind, of_each_kind};
use crate::testing::store_conformance::session::{Seen, Session};

pub(super) fn of_nothing(place: &Place) -> Seen<Checked> {
    place.start(&[])?.stop()?;
    place.start(&[])?.stop()?;
    Ok(Checked::Yes)
}

pub(super) fn of_kinds(place: &Place) -> Seen<Checked> {
    let records = of_each_kind()?;
    let session = place.start(&[])?;
    let ticket = session.append_all(&records)?;
    session.flush(ticket)?;
    session.stop()?;
    drop(session);
    let (session, replayed) = Session::start(place.open()?, place.limit)?;
    if let Some(difference) = difference(&records, &replayed) {
        let is_missing = |record: &&Record| !replayed.contains(record);
        let mut missing: Vec<&str> = records.iter().filter(is_missing).map(kind).collect();
        missing.dedup();
        return Err(format!(
            "{difference}; kinds with a record that is missing or changed: {missing:?}"
        ));
    }
    session.stop()?;
    Ok(Checked::Yes)
}

pub(super) fn in_order(place: &Place) -> Seen<Checked> {
    let records = events(1..=1000)?;
    let session = place.start(&[])?;
    for some in records.chunks(100) {
        let ticket = session.append_all(some)?;
        session.flush(ticket)?;
    }
    session.stop()?;
    drop(session);
    place.start(&records)?.stop()?;
    Ok(Checked::Yes)
}

pub(super) fn of_earlier_runs(place: &Place) -> Seen<Checked> {
    let records = events(1..=40)?;
    for run in 0..4 {
        let (earlier, later) = records.split_at(10 * run);
        let session = place.start(earlier)?;
        let ticket = session.append_all(&later[..10])?;
        // Some runs end without a flush.
        if run % 2 == 0 {
            session.flush(ticket)?;
        }
        session.stop()?;
    }
    place.start(&records)?.stop()?;
    // A run without a record changes nothing.
    place.start(&records)?.stop()?;
    Ok(Checked::Yes)
}
