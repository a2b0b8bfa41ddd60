//! Processes that are killed or restarted under load. They keep the machine busy for seconds, so tests that measure times
//! must not run at the same time: these are a test program of their own.

#[cfg(unix)]
#[path = "../support/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

mod committed;
mod crash;
#[cfg(unix)]
mod publishing_once;
mod restart;
