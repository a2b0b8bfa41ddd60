//! [`IdempotencyKey`]: the key by which a server recognizes a repetition of a publish.

use ureq::http::HeaderValue;

use super::random;
use crate::error::Error;
use crate::wire::{check_key, quote_key};

/// The key of a publish, checked.
#[derive(Clone, Debug)]
pub(crate) struct IdempotencyKey {
    key: String,
    field: HeaderValue,
}

impl IdempotencyKey {
    /// # Errors
    ///
    /// `InvalidRequest` for a key that is empty, too long, or not printable ASCII.
    pub(crate) fn new(key: impl Into<String>) -> Result<Self, Error> {
        let key = key.into();
        check_key(&key)?;
        let field = HeaderValue::from_str(&quote_key(&key));
        let field = field.map_err(|_| Error::request("the idempotency key can't be sent"))?;
        Ok(IdempotencyKey { key, field })
    }

    /// Returns a new random key, which no other publish has.
    ///
    /// # Errors
    ///
    /// None: a random key has a valid form.
    pub(crate) fn random() -> Result<Self, Error> {
        IdempotencyKey::new(random::key())
    }

    /// Returns the value of the field `Idempotency-Key`.
    pub(crate) fn field(&self) -> &HeaderValue {
        &self.field
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.key
    }
}
