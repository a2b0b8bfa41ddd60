//! [`PublishBytes`]: the body of a publish, checked.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::wire::{PublishRequest, check_category, check_ttl, each_event};

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
        let event =
            |request: &PublishRequest<T>| checked(&request.category, &request.data, request.ttl);
        let events = each_event(requests, event)?;
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
