//! What the crate does, by topic: all integration tests that can share a process. `crash`, `overload`, `tool`, `memory` and `nuls` have
//! processes of their own, for the reasons that they give.

#[path = "../support/limits.rs"]
mod limits;
#[allow(dead_code)]
#[path = "../support/nginx.rs"]
mod nginx_process;
#[path = "../support/ports.rs"]
mod ports;
// Only tests for Unix need a part of it.
#[allow(dead_code)]
#[path = "../support/process.rs"]
mod process;
#[path = "../support/sse.rs"]
mod sse;
// Some tests are for Unix alone.
#[cfg_attr(not(unix), allow(dead_code))]
#[path = "../support/mod.rs"]
mod support;

mod scripted;

mod backlog;
mod backlog_broker;
mod broker;
mod client;
mod clock;
mod config;
mod conformance;
mod cut;
mod damage;
mod event_stream;
mod event_ttl;
mod eviction;
mod exposition;
mod follow;
mod hook_broker;
mod hooks;
mod http_answers;
mod http_connection;
mod http_headers;
mod http_publish;
mod http_subscribe;
mod idempotency;
mod idempotency_broker;
mod listener;
mod log;
#[cfg(unix)]
mod log_file;
mod model;
mod monitoring;
mod mounted;
mod nginx;
mod pages;
mod persistence;
mod presence;
mod proxy;
mod publish_all;
mod publish_all_broker;
mod publisher;
mod publishing_once;
mod purge;
mod redirect;
mod relay;
mod seed;
mod server;
mod settings;
mod shared_broker;
#[cfg(target_os = "linux")]
mod sqlite;
mod store;
mod store_calls;
mod store_conformance;
mod store_probe;
mod stuck_store;
mod subscriber;
mod time;
mod wrong_stores;
