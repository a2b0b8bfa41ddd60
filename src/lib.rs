//! draft
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(feature = "server")]
mod broker;
mod error;
mod event;
mod headers;
#[cfg(feature = "server")]
mod persist;
mod position;
#[cfg(feature = "server")]
pub mod server;
mod wire;

#[cfg(feature = "server")]
pub use broker::{Batch, Broker, BrokerOptions, FileStatistics, Statistics};
pub use error::{Error, ErrorKind};
pub use event::Event;
pub use headers::Headers;
#[cfg(feature = "server")]
pub use persist::FilePersistorInfo;
pub use position::{Cursor, EventId};
#[cfg(feature = "server")]
pub use server::{Server, ServerInfo};
pub use wire::{Categories, PublishRequest, SubscriptionRequest};
