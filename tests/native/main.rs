//! The tests of `it` that send requests to a server, on the native backend: `support::info` chooses it by this program's name.
//! `unix` has what only this backend can do.

#[allow(dead_code)]
#[path = "../support/nginx.rs"]
mod nginx_process;
#[allow(dead_code)]
#[path = "../support/ports.rs"]
mod ports;
#[path = "../it/scripted.rs"]
#[allow(dead_code)]
mod scripted;
#[path = "../support/sse.rs"]
mod sse;
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

#[path = "../it/backlog.rs"]
mod backlog;
#[path = "../it/clock.rs"]
mod clock;
#[path = "../it/conformance.rs"]
mod conformance;
#[path = "../it/cut.rs"]
mod cut;
#[path = "../it/event_stream.rs"]
mod event_stream;
#[path = "../it/exposition.rs"]
mod exposition;
#[path = "../it/follow.rs"]
mod follow;
#[path = "../it/hook_broker.rs"]
mod hook_broker;
#[path = "../it/hooks.rs"]
mod hooks;
#[path = "../it/http_answers.rs"]
mod http_answers;
#[path = "../it/http_connection.rs"]
mod http_connection;
#[path = "../it/http_headers.rs"]
mod http_headers;
#[path = "../it/http_publish.rs"]
mod http_publish;
#[path = "../it/http_subscribe.rs"]
mod http_subscribe;
#[path = "../it/idempotency.rs"]
mod idempotency;
#[path = "../it/listener.rs"]
mod listener;
#[path = "../it/monitoring.rs"]
mod monitoring;
#[path = "../it/mounted.rs"]
mod mounted;
#[path = "../it/nginx.rs"]
mod nginx;
#[path = "../it/pages.rs"]
mod pages;
#[path = "../it/persistence.rs"]
mod persistence;
#[path = "../it/presence.rs"]
mod presence;
#[path = "../it/publish_all.rs"]
mod publish_all;
#[path = "../it/publishing_once.rs"]
mod publishing_once;
#[path = "../it/purge.rs"]
mod purge;
#[path = "../it/relay.rs"]
mod relay;
#[path = "../it/seed.rs"]
mod seed;
#[path = "../it/server.rs"]
mod server;
#[path = "../it/settings.rs"]
mod settings;
#[path = "../it/shared_broker.rs"]
mod shared_broker;
#[allow(dead_code)]
#[path = "../it/store_probe.rs"]
mod store_probe;
#[path = "../it/stuck_store.rs"]
mod stuck_store;
mod unix;
