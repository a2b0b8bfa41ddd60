//! The program `long-polling-server` as an operator runs it: its flags, messages and signals, and what is around it.

// The tool's tests need a part of it.
#[allow(dead_code)]
#[path = "../support/nginx.rs"]
mod nginx_process;
#[allow(dead_code)]
#[path = "../support/ports.rs"]
mod ports;
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

#[cfg(unix)]
mod activation;
mod environment;
mod flags;
#[cfg(unix)]
mod notify;
// Signals, which are Unix's, need the most of it.
#[cfg_attr(not(unix), allow(dead_code))]
mod process;
#[cfg(target_os = "linux")]
mod proxies;
#[cfg(unix)]
mod signals;
mod tokens;
#[cfg(unix)]
mod unix;
