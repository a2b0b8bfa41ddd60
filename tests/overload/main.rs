//! The server under more connections, or odder ones, than it can serve at once. These tests measure times, open thousands
//! of connections, and count the threads of their user: a program of their own.

#[cfg(target_os = "linux")]
#[path = "../support/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

mod child;
mod connections;
mod limits;
mod turn;
mod unread;
