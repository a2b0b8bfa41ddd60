//! The tests of `overload` on the native backend, but for those of tiny_http's limits, and those of what tiny_http can't do.

#[cfg(target_os = "linux")]
#[path = "../support/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

#[path = "../overload/child.rs"]
mod child;
#[path = "../overload/connections.rs"]
mod connections;
#[path = "../overload/turn.rs"]
mod turn;
#[path = "../overload/unread.rs"]
mod unread;

mod limits;
mod mutated;
mod stopping;
