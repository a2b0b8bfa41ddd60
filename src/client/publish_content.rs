//! [`PublishContent`]: the body and the key of a publish, checked.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::idempotency_key::IdempotencyKey;
use crate::error::Error;
use crate::wire::{PublishRequest, check_category, check_ttl, each_event};

/// What a publish sends.
pub(crate) struct PublishContent {
    /// The body.
    pub(crate) json: Vec<u8>,
    pub(crate) key: Option<IdempotencyKey>,
}

impl PublishContent {
    /// # Errors
    ///
    /// `InvalidRequest` that names what can't be published.
    pub(crate) fn of<T: Serialize + ?Sized>(
        category: &str,
        data: &T,
        ttl: Option<Duration>,
    ) -> Result<Self, Error> {
        PublishContent::new(&checked(category, data, ttl)?)
    }

    /// # Errors
    ///
    /// `InvalidRequest` that names what can't be published.
    pub(crate) fn of_request<T: Serialize>(request: &PublishRequest<T>) -> Result<Self, Error> {
        let content = PublishContent::of(&request.category, &request.data, request.ttl)?;
        content.with_key(request.key.as_deref())
    }

    /// # Errors
    ///
    /// `InvalidRequest` that names what can't be published, `TooLarge` for too many events.
    pub(crate) fn of_all<T: Serialize>(requests: &[PublishRequest<T>]) -> Result<Self, Error> {
        let event = |request: &PublishRequest<T>| {
            if request.key.is_some() {
                return Err(Error::request(
                    "an event of several has no idempotency key of its own: give one key for all \
                     of them to `publish_all_once`",
                ));
            }
            checked(&request.category, &request.data, request.ttl)
        };
        PublishContent::new(&each_event(requests, event)?)
    }

    /// # Errors
    ///
    /// `InvalidRequest` for a key that can't be used.
    pub(crate) fn with_key(mut self, key: Option<&str>) -> Result<Self, Error> {
        self.key = key.map(IdempotencyKey::new).transpose()?;
        Ok(self)
    }

    fn new(body: &impl Serialize) -> Result<Self, Error> {
        let json = serde_json::to_vec(body).map_err(not_json)?;
        Ok(PublishContent { json, key: None })
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
