//! HTTP long polling for programs without an async runtime: a [`Server`] to embed, a blocking client, and the
//! [`Broker`] of events between them, in memory or with a file.
//!
//! Events are published to *categories* and kept in a ring buffer of each. A subscriber polls with the position that it
//! has reached; where nothing newer is there, the poll waits, *parked*, until something is published or its time is
//! over. So events arrive at once, over plain HTTP, and none is missed between two polls.
//!
#![cfg_attr(all(feature = "server", feature = "client"), doc = "```")]
#![cfg_attr(not(all(feature = "server", feature = "client")), doc = "```ignore")]
//! use std::time::Duration;
//! use long_polling::{Cursor, Publisher, Server, ServerInfo, Subscriber};
//!
//! // A server, on a free port.
//! let server = Server::start(ServerInfo { address: "127.0.0.1:0".into(), ..ServerInfo::default() }, None, None)?;
//! let url = format!("http://{}", server.local_addr());
//!
//! // Whoever may publish over HTTP ...
//! Publisher::new(format!("{url}/publish")).publish("notifications", "Hello")?;
//! // ... or from within the program.
//! server.publish("notifications", &["any", "JSON"])?;
//!
//! // Whoever follows.
//! let mut events = Subscriber::new(format!("{url}/events"), "notifications").start_at(Cursor::Oldest);
//! assert_eq!(events.next().unwrap()?.text(), "Hello");
//! assert_eq!(events.next().unwrap()?.decode::<Vec<String>>()?, ["any", "JSON"]);
//!
//! server.stop(Duration::from_secs(10))?;
//! # Ok::<(), long_polling::Error>(())
//! ```
//!
//! # Where to look
//!
//! - A server: [`Server::start`], its settings in [`ServerInfo`] and [`BrokerOptions`], a file with
//!   [`FilePersistorInfo`] and its [`Durability`], and what a program hooks in, in the module [`server`].
//! - A client: [`Subscriber`] and [`Publisher`]; or one request at a time, as the Go package does, with
//!   [`subscription`] and [`publish`].
//! - Within one process, without HTTP: [`Broker`].
//! - Events kept elsewhere than in a file: [`Store`].
//!
//! The HTTP API is golongpoll's, with additions that its clients ignore, so its JavaScript and Go clients work with this
//! server, and this client with its server.
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `server` | yes | [`Server`], [`Broker`], files |
//! | `client` | yes | [`Subscriber`], [`Publisher`], [`subscription`], [`publish`] |
//! | `tls` | no | `https://` for the client, by rustls |
//! | `testing` | no | the module `testing`, for tests of programs that embed a server or broker |

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(not(any(feature = "server", feature = "client")), allow(dead_code))]

#[cfg(feature = "server")]
mod atomic;
#[cfg(feature = "server")]
mod broker;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "server")]
mod deadline;
mod error;
mod event;
mod headers;
#[cfg(feature = "server")]
mod open;
mod position;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod wire;

#[cfg(feature = "server")]
pub use broker::{Batch, Broker, BrokerOptions, Statistics};
#[cfg(feature = "client")]
pub use client::{
    Credentials, PublishResponse, Publisher, Stopper, Subscriber, SubscriptionResponse, publish,
    subscription,
};
pub use error::{Error, ErrorKind};
pub use event::Event;
pub use headers::Headers;
pub use position::{Cursor, EventId};
#[cfg(feature = "server")]
pub use server::{Server, ServerInfo};
#[cfg(feature = "server")]
pub use store::file::{Durability, FilePersistorInfo, FileState};
pub use wire::{Categories, PublishRequest, SubscriptionRequest};

#[cfg(all(doctest, feature = "server", feature = "client"))]
#[doc = include_str!("../README.md")]
struct Readme;
