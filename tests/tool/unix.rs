//! The example `server` on a Unix socket, ended by signals.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::process::{PUBLISH, program};
use crate::support::{LIMIT, until};

/// Starts the server on this path, and waits until it says that it listens.
fn start(path: &Path) -> Child {
    let mut child = Command::new(program())
        .args(["--http", "native", "--socket-mode", "600", "--address"])
        .arg(format!("unix:{}", path.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = child.stdout.as_mut().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, format!("listening on unix:{}\n", path.display()));
    child
}

fn publish(path: &Path) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = PUBLISH.len();
    write!(
        stream,
        "POST /publish HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{PUBLISH}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_killed_server_leaves_its_socket_which_the_next_one_replaces_and_removes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.sock");
    for _ in 0..3 {
        let mut child = start(&path);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        publish(&path);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(path.exists());
    }
    let mut child = start(&path);
    publish(&path);
    let pid = child.id().to_string();
    let status = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(status.unwrap().success());
    let mut status = None;
    until("it has ended", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
