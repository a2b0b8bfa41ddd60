//! Socket activation of the program `long-polling-server`, by the protocol of sd_listen_fds(3): a parent opens the socket.
//! The flags for the Unix socket
//! are those of the unit in the guide.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};

use crate::process::{PUBLISH, Tool, shell};
use crate::support::{Connection, until};
use crate::unix::{exchange, publish};

const PAGE: &str = include_str!("../../src/guide/deploying.md");

/// The flags of the program in the guide's drop-in for socket activation, with the file in this folder.
fn unit_flags(folder: &str) -> Vec<String> {
    let (_, unit) = PAGE.split_once("/socket.conf\n").expect("the drop-in");
    let mut lines = unit.lines();
    let start = lines
        .find_map(|line| line.strip_prefix("ExecStart=/"))
        .expect("its command");
    let words = start.split_whitespace().skip(1);
    words
        .map(|word| word.replace("/var/lib/long-polling", folder))
        .collect()
}

/// A shell with a socket as standard input that passes it to the program as descriptor 3, as systemd does.
fn activated(socket: OwnedFd, protocol: &str) -> Command {
    let script = format!(r#"exec 3<&0 0</dev/null; {protocol} exec "$0" "$@""#);
    let mut command = shell(&script);
    command.stdin(Stdio::from(socket));
    command
}

const ONE_SOCKET: &str = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=events";

#[test]
fn a_unix_socket_of_systemd_is_served_and_listens_on_after_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let flags = unit_flags(folder.path().to_str().unwrap());
    for run in 1..=2 {
        // Before the program starts, and answered all the same.
        let early = UnixStream::connect(&path).unwrap();
        let mut command = activated(listener.try_clone().unwrap().into(), ONE_SOCKET);
        command.args(&flags);
        let (mut tool, place) = Tool::spawn(command);
        assert_eq!(place, format!("unix:{}", path.display()));
        publish(&path);
        let answer = exchange(&path, "GET", "/events?category=c&timeout=5&since_time=1");
        assert_eq!(answer.matches("kept").count(), run, "{answer}");
        drop(early);
        tool.signal("TERM");
        tool.ended_cleanly();
    }
    // The file is systemd's.
    assert!(path.exists());
    assert!(
        fs::read_to_string(folder.path().join("events.log"))
            .unwrap()
            .contains("kept")
    );
}

#[test]
fn a_tcp_socket_of_systemd_takes_the_place_of_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..2 {
        let command = activated(listener.try_clone().unwrap().into(), ONE_SOCKET);
        let mut tool = Tool::start_by_parent(command, &["--address", "127.0.0.1:1"]);
        assert_eq!(tool.address, address);
        tool.publish();
        until("the log says so", || {
            tool.logged("takes the place of --address")
        });
        // Accepted by the next run: systemd's duplicate listens on.
        tool.signal("TERM");
        tool.ended_cleanly();
        let mut waiting = Connection::open(address);
        waiting.publish(PUBLISH);
        let command = activated(listener.try_clone().unwrap().into(), ONE_SOCKET);
        let mut next = Tool::start_by_parent(command, &[]);
        assert_eq!(waiting.receive().status, 200);
        next.signal("TERM");
        next.ended_cleanly();
    }
}

#[test]
fn a_socket_for_another_process_is_left_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for protocol in [
        "LISTEN_PID=1 LISTEN_FDS=1",
        "LISTEN_FDS=1",
        "LISTEN_PID=x LISTEN_FDS=1",
        "LISTEN_PID=$$ LISTEN_FDS=0",
    ] {
        let command = activated(listener.try_clone().unwrap().into(), protocol);
        let tool = Tool::start_by_parent(command, &["--address", "127.0.0.1:0"]);
        assert_ne!(tool.address, listener.local_addr().unwrap(), "{protocol}");
        tool.publish();
    }
}

#[test]
fn what_can_not_be_served_is_an_error_that_says_so() {
    let tcp = || TcpListener::bind("127.0.0.1:0").unwrap().into();
    let (one, _other) = UnixDatagram::pair().unwrap();
    let file = || OwnedFd::from(tempfile::tempfile().unwrap());
    for (socket, protocol, words) in [
        (tcp(), "LISTEN_PID=$$ LISTEN_FDS=2", "passes \"2\" sockets"),
        (
            tcp(),
            "LISTEN_PID=$$ LISTEN_FDS=99999999999",
            "passes \"99999999999\" sockets",
        ),
        (
            file(),
            ONE_SOCKET,
            "descriptor 3 is neither a TCP socket nor",
        ),
        (
            one.into(),
            ONE_SOCKET,
            "descriptor 3 is neither a TCP socket nor",
        ),
    ] {
        let output = activated(socket, protocol).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.starts_with("LISTEN_FDS: ") && said.contains(words),
            "{said}"
        );
    }
}
