//! Redis, or Valkey, as the common history of several servers: [`RedisBackplane`].
//!
//! - `settings` are the program's; `backplane` is what the broker sees of Redis.
//! - For each stream: a `reader` thread follows the stream and shows its events; a `publisher` thread appends the events that
//!   wait in its queue (`publish`). `stream` is what the two share.
//! - `link` is a connection with its commands, `open.lua` and `append.lua` are the scripts that Redis runs, `entry` and
//!   `keys` are the forms of both sides. `state` reports and counts.
//!
//! The page `guide::redis` describes what happens at a publish, at a start and after a loss.

mod backoff;
mod backplane;
mod entry;
mod keys;
mod link;
mod publish;
mod publisher;
mod reader;
mod settings;
mod state;
mod stream;
#[cfg(feature = "redis-tls")]
mod tls;

use crate::broker::Backplane;
use crate::error::Error;

pub use settings::RedisBackplane;
pub use state::RedisState;

impl RedisBackplane {
    /// Returns the backplane of a broker.
    ///
    /// # Errors
    ///
    /// `InvalidSetting`.
    pub(crate) fn into_backplane(self) -> Result<Box<dyn Backplane>, Error> {
        Ok(Box::new(backplane::RedisStreams::new(self)?))
    }
}
