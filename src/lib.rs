//! draft
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod error;
mod event;
mod headers;
mod position;
mod wire;

pub use error::{Error, ErrorKind};
pub use event::Event;
pub use headers::Headers;
pub use position::{Cursor, EventId};
pub use wire::{Categories, PublishRequest, SubscriptionRequest};
