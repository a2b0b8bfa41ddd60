//! [`PublishBytes`]: the body of a publish, checked.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::wire::{PublishRequest, check_category, check_count, check_ttl};

/// The body of a publish.
#[derive(Clone)]
pub(crate) struct PublishBytes(pub(crate) Vec<u8>);

impl PublishBytes {
    /// # Errors
    ///
    /// `InvalidRequest` that names what can't be published.
    pub(crate) fn of<T: Serialize + ?Sized>(
        category: &str,
        data: &T,
        ttl: Option<Duration>,
    ) -> Result<Self, Error> {
        let event = checked(category, data, ttl)?;
        serde_json::to_vec(&event)
            .map(PublishBytes)
            .map_err(not_json)
    }

    /// # Errors
    ///
    /// `InvalidRequest` that names what can't be published, `TooLarge` for too many events.
    pub(crate) fn of_all<T: Serialize>(requests: &[PublishRequest<T>]) -> Result<Self, Error> {
        check_count(requests.len())?;
        let events = requests.iter().enumerate().map(|(at, request)| {
            let which =
                |error: Error| error.context(format!("event {} of {}", at + 1, requests.len()));
            checked(&request.category, &request.data, request.ttl).map_err(which)
        });
        let events: Vec<_> = events.collect::<Result<_, _>>()?;
        serde_json::to_vec(&events)
            .map(PublishBytes)
            .map_err(not_json)
    }
}

fn checked<T: Serialize + ?Sized>(
    category: &str,
    data: &T,
    ttl: Option<Duration>,
) -> Result<PublishRequest<Box<RawValue>>, Error> {
    check_category(category)?;
    check_ttl(ttl)?;
    let data = serde_json::value::to_raw_value(data).map_err(not_json)?;
    if data.get() == "null" {
        return Err(Error::request("the data is null: an event needs some data"));
    }
    Ok(PublishRequest::new(category, data).ttl(ttl))
}

fn not_json(error: serde_json::Error) -> Error {
    Error::request("the data can't be written as JSON").with_source(error)
}
