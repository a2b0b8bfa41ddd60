//! HTTP long polling for programs without an async runtime: a [`Server`] to embed, a blocking client, and the [`Broker`] of
//! events inside the server, in memory or with a file.
//!
//! A program publishes events to *categories*. The broker keeps the newest events of each category in a ring buffer. A
//! subscriber polls with its position; if there is no newer event, the server parks the poll until the next event or a
//! timeout. Subscribers therefore receive events immediately, over plain HTTP, and miss none between two polls.
//!
#![cfg_attr(all(feature = "_server", feature = "client"), doc = "```")]
#![cfg_attr(not(all(feature = "_server", feature = "client")), doc = "```ignore")]
//! use long_polling::{Cursor, Publisher, Server, ServerInfo, Subscriber};
//!
//! let server = Server::start(ServerInfo::new("127.0.0.1:0"))?;
//! let url = format!("http://{}", server.local_addr());
//!
//! // Publish from inside the program, and over HTTP.
//! server.publish("notifications", &["any", "JSON"])?;
//! Publisher::new(format!("{url}/publish")).publish("notifications", "Hello")?;
//!
//! // Follow the category from any program.
//! let mut events = Subscriber::new(format!("{url}/events"), "notifications")
//!     .start_at(Cursor::Oldest);
//! assert_eq!(
//!     events.next().unwrap()?.decode::<Vec<String>>()?,
//!     ["any", "JSON"]
//! );
//! assert_eq!(events.next().unwrap()?.text(), "Hello");
//! # Ok::<(), long_polling::Error>(())
//! ```
//!
//! # Where to look
//!
//! - Server: [`Server::start`] with the settings [`ServerInfo`] and [`BrokerOptions`]; authentication and other hooks in the
//!   module [`server`].
//! - Events that survive a restart: [`FilePersistorInfo`] and its [`Durability`]; your own storage, such
//!   as a database, by a [`RecordLog`](store::RecordLog) or a [`Store`](store::Store) in the module [`store`].
//! - Several servers with one history of events: `RedisBackplane`, with the feature `redis`.
//! - Client: [`Subscriber`] and [`Publisher`]; or one request at a time, as in the Go package, with [`subscription`] and
//!   [`publish`].
//! - Events within one process, without HTTP: [`Broker`].
//!
//! The HTTP API is that of golongpoll, with additions that its clients ignore. golongpoll's JavaScript and Go clients work
//! with this server, and this client works with golongpoll's server.
//!
//! # Features
//!
//! | feature | default | content |
//! |---|---|---|
//! | `server` | yes | [`Server`] on tiny_http, [`Broker`], files |
//! | `native-http` | no | [`Server`] on the native HTTP backend, beside tiny_http or, without the default features, alone |
//! | `client` | yes | [`Subscriber`], [`Publisher`], [`subscription`], [`publish`] |
//! | `tls` | no | `https://` for the client, by rustls |
//! | `redis` | no | `RedisBackplane`: several servers with one history of events in Redis or Valkey |
//! | `redis-tls` | no | `rediss://` for it, by rustls |
//! | `cli` | no | the program `long-polling-server`, with both HTTP backends |
//! | `testing` | no | the module `testing`, for tests of programs that embed a server or broker, or have a store of their own |

#![forbid(unsafe_code)]
#![deny(missing_docs)]
// Badges with the features that an item needs, which only docs.rs' nightly compiler can show.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Not to be named by programs; the items that need it name the features that bring it.
#![cfg_attr(docsrs, doc(auto_cfg(hide(feature = "_server"))))]
#![cfg_attr(not(any(feature = "_server", feature = "client")), allow(dead_code))]

#[cfg(feature = "_server")]
mod atomic;
#[cfg(feature = "_server")]
mod broker;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "_server")]
mod config;
#[cfg(feature = "_server")]
mod deadline;
mod error;
mod event;
#[cfg(all(feature = "_server", feature = "client"))]
#[cfg_attr(
    docsrs,
    doc(cfg(all(any(feature = "server", feature = "native-http"), feature = "client")))
)]
pub mod guide;
mod headers;
#[cfg(feature = "_server")]
mod open;
mod position;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "_server")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "server", feature = "native-http"))))]
pub mod server;
#[cfg(feature = "_server")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "server", feature = "native-http"))))]
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
pub mod units;
mod wire;

#[cfg(feature = "redis")]
#[doc(inline)]
pub use broker::BackplaneStatistics;
#[cfg(feature = "_server")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "server", feature = "native-http"))))]
#[doc(inline)]
pub use broker::{
    Batch, Broker, BrokerOptions, CategoryInfo, CategoryOptions, Presence, Statistics,
};
#[cfg(feature = "client")]
#[doc(inline)]
pub use client::{
    Credentials, PublishResponse, Publisher, Stopper, Subscriber, SubscriptionResponse, publish,
    subscription,
};
#[doc(inline)]
pub use error::{Error, ErrorKind};
#[doc(inline)]
pub use event::Event;
#[doc(inline)]
pub use headers::{Headers, HeadersIter};
#[doc(inline)]
pub use position::{Cursor, EventId};
#[cfg(feature = "redis")]
#[doc(inline)]
pub use redis::{RedisBackplane, RedisState};
#[cfg(feature = "_server")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "server", feature = "native-http"))))]
#[doc(inline)]
pub use server::{Server, ServerInfo};
#[cfg(feature = "_server")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "server", feature = "native-http"))))]
#[doc(inline)]
pub use store::file::{Durability, FilePersistorInfo, FileState};
/// The HTTP client whose agents [`Subscriber::agent`], [`Publisher::agent`], [`subscription`] and [`publish`] take.
#[cfg(feature = "client")]
pub use ureq;
#[doc(inline)]
pub use wire::{Categories, PublishRequest, SubscriptionRequest};

#[cfg(all(doctest, feature = "_server", feature = "client"))]
#[doc = include_str!("../README.md")]
struct Readme;
