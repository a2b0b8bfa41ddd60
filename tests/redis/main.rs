//! Several nodes over a real redis-server, which the tests start on a free port and with a folder of its own:
//! `cargo test --features redis --test redis`. `REDIS_SERVER` names another program, such as `valkey-server`.
#![cfg(unix)]

#[allow(dead_code)]
#[path = "../it/exposition.rs"]
mod exposition;
#[allow(dead_code)]
#[path = "../support/nginx.rs"]
mod nginx_process;
#[allow(dead_code)]
#[path = "../support/ports.rs"]
mod ports;
#[allow(dead_code)]
#[path = "../support/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "../support/sse.rs"]
mod sse;
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

mod basics;
mod cluster;
mod cut;
mod event_stream;
mod figures;
mod idempotency;
mod loss;
mod midway;
mod monitoring;
mod nginx;
mod order;
mod publishing;
mod refusals;
mod server;
mod streams;
#[cfg(feature = "redis-tls")]
mod tls;
