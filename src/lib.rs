//! draft
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(feature = "client")]
mod client;
mod error;
mod event;
mod headers;
mod position;
mod wire;

#[cfg(feature = "client")]
pub use client::{
    Credentials, PublishResponse, Publisher, Stopper, Subscriber, SubscriptionResponse, publish,
    subscription,
};
pub use error::{Error, ErrorKind};
pub use event::Event;
pub use headers::Headers;
pub use position::{Cursor, EventId};
pub use wire::{Categories, PublishRequest, SubscriptionRequest};
