//! Networks that forbid the server to connect to its own address, made in a network namespace. Needs root, `unshare`, `ip`
//! and `nft`: `cargo test --test tool netns -- --ignored`. The unit tests of `src/server` make probes fail without them.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::support::{Connection, LIMIT};
use long_polling::{Error, Server, ServerInfo};
use socket2::{Domain, Socket, Type};

const INSIDE: &str = "LONG_POLLING_TEST_NETNS";
const SERVER: &str = "10.9.9.1";
const CLIENT: &str = "10.9.9.2:0";

/// Runs a test of this program again, in a network namespace. Returns `true` inside the namespace.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    command.arg("-n").arg(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored", "--nocapture"]);
    // Its own summary is not to be counted as another test's.
    let output = command.env(INSIDE, "1").output().expect("unshare");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    false
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let status = command.args(words).status().unwrap();
    assert!(status.success(), "{line}: {status}");
}

/// A server with short timeouts at an address of the namespace, and the errors that its failure callback got.
fn start() -> (Server, Receiver<Error>) {
    run("ip link set lo up");
    run("ip addr add 10.9.9.1/32 dev lo");
    run("ip addr add 10.9.9.2/32 dev lo");
    let (sender, failures) = channel();
    let info = ServerInfo::new(format!("{SERVER}:8080"))
        .idle_timeout(Duration::from_secs(1))
        .restore_timeout(Duration::from_secs(2));
    let info = info.on_failure(move |error| sender.send(error).unwrap());
    (Server::start(info).unwrap(), failures)
}

/// Publishes from the client's address.
fn publish(server: SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&CLIENT.parse::<SocketAddr>().unwrap().into())
        .unwrap();
    socket.connect_timeout(&server.into(), LIMIT).unwrap();
    let mut connection = Connection::over(TcpStream::from(socket));
    connection.publish(r#"{"category":"c","data":1}"#);
    assert_eq!(connection.receive().status, 200);
}

#[test]
#[ignore = "needs root, unshare, ip and nft"]
fn a_firewall_that_lets_only_the_client_connect_does_not_end_serving() {
    if !is_inside("netns::a_firewall_that_lets_only_the_client_connect_does_not_end_serving") {
        return;
    }
    let (server, failed) = start();
    run("nft add table t");
    run("nft add chain t i { type filter hook input priority 0 ; }");
    run("nft add rule t i tcp dport 8080 ip saddr != 10.9.9.2 drop");
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        publish(server.local_addr());
        assert!(failed.recv_timeout(Duration::from_millis(1500)).is_err());
    }
    publish(server.local_addr());
    server.stop(LIMIT).unwrap();
}

#[test]
#[ignore = "needs root, unshare and ip"]
fn an_address_that_goes_away_and_comes_back_does_not_end_serving() {
    if !is_inside("netns::an_address_that_goes_away_and_comes_back_does_not_end_serving") {
        return;
    }
    let (server, failed) = start();
    publish(server.local_addr());
    run("ip addr del 10.9.9.1/32 dev lo");
    assert!(failed.recv_timeout(Duration::from_secs(8)).is_err());
    run("ip addr add 10.9.9.1/32 dev lo");
    publish(server.local_addr());
    server.stop(LIMIT).unwrap();
}
