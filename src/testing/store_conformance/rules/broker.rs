//! A broker that uses the store.

use std::time::Duration;

use super::Checked;
use crate::broker::{Broker, BrokerOptions};
use crate::error::Error;
use crate::position::{Cursor, EventId};
use crate::testing::store_conformance::Place;
use crate::testing::store_conformance::session::{Call, Seen};

const CATEGORIES: [&str; 3] = ["one", "two", "three"];
const EVENTS: u64 = 10;

/// The events of a category: ids and data.
type Events = Vec<(EventId, String)>;

/// Opens a broker on the store, and calls `work` with it, with a time limit for both.
fn with_broker<T: Send + 'static>(
    place: &Place,
    options: BrokerOptions,
    work: impl FnOnce(&Broker) -> Result<T, Error> + Send + 'static,
) -> Seen<T> {
    let store = place.open()?;
    let limit = place.limit;
    let run = move || {
        let broker = Broker::with_store(options, store)?;
        let done = work(&broker)?;
        broker.stop(limit)?;
        Ok(done)
    };
    let done: Result<T, Error> = Call::begin("a broker", run)?.finish(limit)?;
    done.map_err(|error| format!("a broker failed: {}", error.report()))
}

fn publish(broker: &Broker) -> Result<(), Error> {
    for number in 0..EVENTS {
        for category in CATEGORIES {
            broker.publish(category, &number)?;
        }
    }
    Ok(())
}

/// Returns the events of each category, and whether any has a gap.
fn read(broker: &Broker, cursor: Cursor) -> Result<(Vec<Events>, bool), Error> {
    let mut gap = false;
    let mut read = |category| {
        let batch = broker.subscribe(category, cursor, Duration::ZERO)?;
        gap |= batch.gap();
        let events = batch.events().iter();
        let events = events.map(|event| (event.id(), event.data().to_owned()));
        Ok(events.collect())
    };
    let categories = CATEGORIES.into_iter().map(&mut read);
    let events = categories.collect::<Result<Vec<Events>, Error>>()?;
    Ok((events, gap))
}

pub(super) fn restarts(place: &Place) -> Seen<Checked> {
    let options = BrokerOptions::new();
    let published = with_broker(place, options.clone(), |broker| {
        publish(broker)?;
        read(broker, Cursor::Oldest)
    })?;
    let first = published.0[0][0].0;
    let (restored, next) = with_broker(place, options, move |broker| {
        let restored = read(broker, Cursor::Oldest)?;
        let (_, gap) = read(broker, Cursor::LastId(first))?;
        let next = broker.publish(CATEGORIES[0], "next")?;
        Ok((restored, (next, gap)))
    })?;
    if restored != published {
        return Err(format!(
            "a broker has other events after a restart: {restored:?}, before: {published:?}"
        ));
    }
    let newest = published.0.iter().flatten().map(|(id, _)| *id).max();
    match next {
        (_, true) => Err("a subscriber gets a gap after a restart, where nothing was lost".into()),
        (id, _) if Some(id) <= newest => Err(format!(
            "the next event has the id {id}, which is not after that of the newest before the restart"
        )),
        _ => Ok(Checked::Yes),
    }
}

pub(super) fn deletes(place: &Place) -> Seen<Checked> {
    let options = BrokerOptions::new().delete_after_first_retrieval(true);
    with_broker(place, options.clone(), |broker| {
        publish(broker)?;
        for category in CATEGORIES {
            broker.subscribe_up_to(4, category, Cursor::Oldest, Duration::ZERO)?;
        }
        Ok(())
    })?;
    let (left, _) = with_broker(place, options, |broker| read(broker, Cursor::Oldest))?;
    let expected: Vec<String> = (4..EVENTS).map(|number| number.to_string()).collect();
    for (category, events) in CATEGORIES.iter().zip(left) {
        let data: Vec<String> = events.into_iter().map(|(_, data)| data).collect();
        if data != expected {
            return Err(format!(
                "four events of {category} were retrieved and deleted, and the next start has {data:?}"
            ));
        }
    }
    Ok(Checked::Yes)
}
