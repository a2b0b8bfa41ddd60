//! What the program `long-polling-server` sends to a service manager, by the protocol of sd_notify(3).

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::process::{Tool, program};
use crate::support::{LIMIT, until};

fn started(name: impl AsRef<std::ffi::OsStr>) -> Tool {
    let mut command = program(&[]);
    command.env("NOTIFY_SOCKET", name);
    Tool::start_by(command, &[])
}

fn received(socket: &UnixDatagram) -> String {
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).expect("a state");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

/// The states of a start and a stop arrive at this socket.
fn hears_start_and_stop(socket: &UnixDatagram, mut tool: Tool) {
    let address = tool.address;
    assert_eq!(
        received(socket),
        format!("READY=1\nSTATUS=listening on http://{address}")
    );
    tool.publish();
    tool.signal("TERM");
    assert_eq!(received(socket), "STOPPING=1\nSTATUS=stopping");
    tool.ended_cleanly();
}

#[test]
fn the_service_manager_learns_of_the_start_and_of_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let tool = started(&path);
    hears_start_and_stop(&socket, tool);
}

#[cfg(target_os = "linux")]
#[test]
fn an_abstract_name_has_an_at_sign() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let name = format!("long-polling-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let tool = started(format!("@{name}"));
    hears_start_and_stop(&socket, tool);
}

#[test]
fn a_service_manager_that_can_not_be_reached_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    let long = Path::new("/").join("x".repeat(200));
    for name in [gone.as_path(), &long, Path::new("vsock:2:1234")] {
        let mut tool = started(name);
        tool.publish();
        until("it is logged", || {
            tool.logged("can't notify the service manager")
        });
        tool.signal("TERM");
        assert!(tool.ended().success());
    }
}
