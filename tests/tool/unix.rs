//! The program `long-polling-server` on a Unix socket, ended by signals.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use crate::process::{PUBLISH, Tool, program};
use crate::support::LIMIT;

/// The answer to a request without a body, or to the publish of [`PUBLISH`], on a connection of its own.
pub(crate) fn exchange(path: &Path, method: &str, target: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let body = if method == "POST" { PUBLISH } else { "" };
    let length = body.len();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn publish(path: &Path) {
    let answer = exchange(path, "POST", "/publish");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Starts the server on this path, and waits until it says that it listens.
fn start(path: &Path) -> Tool {
    let address = format!("unix:{}", path.display());
    let mut command = program(&["--socket-mode", "600", "--address", &address]);
    command.stdin(Stdio::null());
    let (tool, place) = Tool::spawn(command);
    assert_eq!(place, address);
    tool
}

#[test]
fn a_killed_server_leaves_its_socket_which_the_next_one_replaces_and_removes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.sock");
    for _ in 0..3 {
        let mut tool = start(&path);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        publish(&path);
        tool.child.kill().unwrap();
        tool.child.wait().unwrap();
        assert!(path.exists());
    }
    let mut tool = start(&path);
    publish(&path);
    tool.signal("TERM");
    tool.ended_cleanly();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
