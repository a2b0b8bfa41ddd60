//! draft
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(feature = "server")]
mod broker;
mod error;
mod event;
mod headers;
mod position;
mod wire;

#[cfg(feature = "server")]
pub use broker::{Batch, Broker, BrokerOptions, FileStatistics, Statistics};
pub use error::{Error, ErrorKind};
pub use event::Event;
pub use headers::Headers;
pub use position::{Cursor, EventId};
pub use wire::{Categories, PublishRequest, SubscriptionRequest};
