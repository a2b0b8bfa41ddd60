//! The example `server` as an operator runs it, with its flags, messages and signals.

// The tool's tests need a part of it.
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

mod flags;
// Signals, which are Unix's, need the most of it.
#[cfg_attr(not(unix), allow(dead_code))]
mod process;
#[cfg(unix)]
mod signals;
#[cfg(unix)]
mod unix;
