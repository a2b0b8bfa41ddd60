//! The JavaScript client, as the server serves it: run by Node against servers of this process, and by Chromium in the page of
//! the example `chat`; and `EventSource` of Chromium.
//!
//! `cargo test --test browser -- --ignored`, where Node 18.17 or newer, Chromium and its driver are installed.

#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

mod chat;
mod event_source;
mod servers;
mod site;
mod webdriver;

use std::fs;
use std::process::{Command, Stdio};

use servers::Servers;
use support::get;

/// The tests of this file, run by Node, must pass. They send their requests to these servers.
fn run(tests: &str) {
    let servers = Servers::start();
    let module = get(&servers.plain, servers::CLIENT);
    assert_eq!(module.status, 200);
    let folder = tempfile::tempdir().unwrap();
    // Node takes a file for an ES module by its name.
    let path = folder.path().join("long-polling.mjs");
    fs::write(&path, &module.body).unwrap();
    let tests = format!("{}/tests/browser/{tests}", env!("CARGO_MANIFEST_DIR"));
    let node = Command::new("node")
        .args(["--test", &tests])
        .env("MODULE", format!("file://{}", path.display()))
        .envs(servers.urls())
        .stdin(Stdio::null())
        .status();
    match node {
        Ok(status) => assert!(status.success(), "{tests} failed: {status}"),
        Err(error) => panic!("node can't be run ({error}): apt-get install nodejs"),
    }
}

#[test]
#[ignore = "needs Node"]
fn the_client_keeps_its_promises_with_a_real_server() {
    run("real.test.mjs");
}

#[test]
#[ignore = "needs Node"]
fn the_client_keeps_its_promises_with_answers_of_every_kind() {
    run("scripted.test.mjs");
}
