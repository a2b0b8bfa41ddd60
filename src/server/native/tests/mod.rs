//! The native backend: what it reads, whom it accepts, and how it ends connections.

mod accepting;
mod ending;
mod reading;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::connections::Connections;
use crate::server::backend::Backend;
use crate::server::{HttpBackend, Server, ServerInfo};

/// The longest wait for something that must happen.
const LIMIT: Duration = Duration::from_secs(20);
const PUBLISH: &str = "POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 25\r\n\r\n{\"category\":\"c\",\"data\":1}";
const POLL: &str = "GET /events?category=c&timeout=60 HTTP/1.1\r\nHost: t\r\n\r\n";

fn info() -> ServerInfo {
    ServerInfo::new("127.0.0.1:0")
        .http_backend(HttpBackend::Native)
        .hosts(["*"])
}

fn start(info: ServerInfo) -> Server {
    Server::start(info).unwrap()
}

fn connections(server: &Server) -> &std::sync::Arc<Connections> {
    match &server.backend {
        Backend::Native(backend) => &backend.connections,
        #[cfg(feature = "server")]
        Backend::TinyHttp(_) => panic!("not the native backend"),
    }
}

fn until(what: &str, met: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !met() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Both ends of a connection, the server's first.
fn pair() -> (TcpStream, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    (listener.accept().unwrap().0, Client(client))
}

struct Client(TcpStream);

impl Client {
    fn of(server: &Server) -> Self {
        let stream = TcpStream::connect(server.local_addr()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Client(stream)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// The head and body of the next answer; empty if the server hangs up.
    fn receive(&mut self) -> String {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"\r\n\r\n") {
            match self.0.read(&mut byte) {
                Ok(0) => break,
                Ok(_) => text.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error}"),
            }
        }
        let mut text = String::from_utf8(text).unwrap();
        let length = text.split_once("Content-Length: ").map_or(0, |(_, rest)| {
            let digits = rest.split("\r\n").next().unwrap();
            digits.parse().unwrap()
        });
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        text.push_str(std::str::from_utf8(&body).unwrap());
        text
    }

    /// The status of the next answer; 0 if the server hangs up.
    fn status(&mut self) -> u16 {
        let answer = self.receive();
        let status = answer.split(' ').nth(1);
        status.map_or(0, |status| status.parse().unwrap())
    }

    fn is_over(&mut self) -> bool {
        self.receive().is_empty()
    }
}
