//! nginx and Caddy before the program `long-polling-server`, with the configurations of the guide's page `deploying`, over
//! TCP and over a Unix socket.
//!
//! These tests need nginx and Caddy, so they only run with: `cargo test --test tool proxies -- --ignored`. `.ci/run` does.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::nginx_process::Nginx;
use crate::ports::ClosedPort;
use crate::process::{PUBLISH, Tool, program};
use crate::support::{Connection, poll, until};

const PAGE: &str = include_str!("../../src/guide/deploying.md");

/// A process of Caddy. Dropping it ends the process.
struct Caddy {
    process: Child,
    address: SocketAddr,
    _port: ClosedPort,
    _folder: TempDir,
}

impl Caddy {
    /// Starts Caddy with the guide's configuration, but for the addresses, and without TLS and the interface for changes.
    fn before(upstream: &str) -> Self {
        let (_, site) = PAGE.split_once("```caddy\n").expect("a block of Caddy");
        let mut site = site.split_once("```").expect("its end").0.to_owned();
        let kept = ClosedPort::for_a_server();
        let address = kept.address;
        let port = address.port();
        for (written, tested) in [
            (
                "{\n\tservers {",
                "{\n\tadmin off\n\tauto_https off\n\tservers {",
            ),
            (
                "events.example.com {",
                &*format!("http://:{port} {{\n\tbind 127.0.0.1"),
            ),
            ("127.0.0.1:8080", upstream),
            ("read_header 10s", "read_header 1s"),
        ] {
            assert!(site.contains(written), "{written:?} is not on the page");
            site = site.replace(written, tested);
        }
        let folder = tempfile::tempdir().unwrap();
        let configuration = folder.path().join("Caddyfile");
        fs::write(&configuration, site).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut process = Command::new("caddy")
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(&configuration)
            // Where it keeps certificates and its last configuration.
            .env("HOME", folder.path())
            .env("XDG_DATA_HOME", folder.path())
            .env("XDG_CONFIG_HOME", folder.path())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("no caddy here; install it: apt-get install caddy");
        until("Caddy accepts connections", || {
            let ended = process.try_wait().unwrap();
            let log = || fs::read_to_string(folder.path().join("log"));
            assert!(ended.is_none(), "Caddy ended: {ended:?} {:?}", log());
            TcpStream::connect(address).is_ok()
        });
        Caddy {
            process,
            address,
            _port: kept,
            _folder: folder,
        }
    }
}

impl Drop for Caddy {
    fn drop(&mut self) {
        self.process.kill().expect("Caddy can be killed");
        self.process.wait().expect("Caddy has ended");
    }
}

fn on_tcp() -> Tool {
    Tool::start(&["--max-parked", "1", "--trusted-proxy", "127.0.0.0/8"])
}

fn on_unix_socket(path: &Path) -> Tool {
    let address = format!("unix:{}", path.display());
    let mut command = program(&["--max-parked", "1", "--address", &address]);
    command.args(["--socket-mode", "660", "--trust-unix-peers"]);
    command.stdin(Stdio::null());
    Tool::spawn(command).0
}

/// A poll that is parked in the server. Of two, the later one has the server answer the earlier one: it may park one only.
fn parked(proxy: SocketAddr, category: &str) -> Connection {
    let mut polls = [(); 2].map(|()| {
        let mut connection = Connection::open(proxy);
        connection.ask("GET", &poll(category, 60, ""));
        connection
    });
    let is_answered = |connection: &Connection| {
        connection.stream().set_nonblocking(true).unwrap();
        let is_answered = connection.stream().peek(&mut [0]).is_ok();
        connection.stream().set_nonblocking(false).unwrap();
        is_answered
    };
    let mut answered = None;
    until("one of two polls is parked", || {
        answered = polls.iter().position(is_answered);
        answered.is_some()
    });
    let answered = answered.expect("waited for it");
    assert_eq!(polls[answered].receive().status, 204);
    let [first, second] = polls;
    if answered == 0 { second } else { first }
}

/// A parked poll, a publish and a stop pass through the proxy.
fn passes_everything(proxy: SocketAddr, mut tool: Tool) {
    let mut waiting = parked(proxy, "c");
    let mut publisher = Connection::open(proxy);
    publisher.publish(PUBLISH);
    assert_eq!(publisher.receive().status, 200);
    assert_eq!(waiting.receive().data(), ["kept"]);

    let mut waiting = parked(proxy, "other");
    tool.signal("TERM");
    tool.ended_cleanly();
    assert_eq!(waiting.receive().status, 204);
}

/// Refusals that are the proxy's work.
fn refuses_bad_requests(proxy: SocketAddr) {
    let mut inner = Connection::open(proxy);
    inner.ask("GET", "/health");
    assert_eq!(inner.receive().status, 404);
    let mut large = Connection::open(proxy);
    let body = "x".repeat(1_200_000);
    let _ = large.try_send(format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    if let Some(answer) = large.next_or_end() {
        assert_eq!(answer.status, 413);
    }
    let mut slow = Connection::open(proxy);
    slow.send("GET /events?category=c HTTP/1.1\r\nX-Name: ");
    assert!(!slow.trickle(std::iter::repeat(b'x')));
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn nginx_passes_polls_publishes_and_the_stop() {
    let tool = on_tcp();
    let nginx = Nginx::changed(tool.address, &[]);
    passes_everything(nginx.address, tool);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.sock");
    let tool = on_unix_socket(&path);
    let nginx = Nginx::changed(format!("unix:{}", path.display()), &[]);
    passes_everything(nginx.address, tool);
}

#[test]
#[ignore = "needs Caddy; .ci/run runs it"]
fn caddy_passes_polls_publishes_and_the_stop_and_refuses_bad_requests() {
    let tool = on_tcp();
    let caddy = Caddy::before(&tool.address.to_string());
    refuses_bad_requests(caddy.address);
    passes_everything(caddy.address, tool);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.sock");
    let tool = on_unix_socket(&path);
    let caddy = Caddy::before(&format!("unix/{}", path.display()));
    passes_everything(caddy.address, tool);
}
