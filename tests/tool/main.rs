//! The example `server`, run as a program: its flags, its messages and its signals.

// The tool's tests need a part of it.
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

mod flags;
mod process;
#[cfg(unix)]
mod signals;
