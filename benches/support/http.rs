//! [`Connection`]: a blocking HTTP client that keeps its connection open.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::LIMIT;

/// One connection. A request is sent and its answer read in two calls, so that one thread can have requests in flight on
/// many connections.
pub(crate) struct Connection {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
    line: String,
    body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| {
            panic!("no connection to {address}: {error}; `ulimit -n` may be too low")
        });
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        Connection {
            reader: BufReader::new(stream.try_clone().expect("a second handle")),
            writer: stream,
            line: String::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, request: &str) {
        self.writer.write_all(request.as_bytes()).expect("written");
    }

    /// Reads the answer, which must have the status 200, and returns its body.
    pub(crate) fn read(&mut self) -> &[u8] {
        self.read_line();
        assert!(self.line.starts_with("HTTP/1.1 200 "), "{}", self.line);
        let mut length = None;
        while self.line != "\r\n" {
            self.read_line();
            let (name, value) = self.line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            }
        }
        self.body.resize(length.expect("a length"), 0);
        self.reader.read_exact(&mut self.body).expect("a body");
        &self.body
    }

    fn read_line(&mut self) {
        self.line.clear();
        self.reader.read_line(&mut self.line).expect("an answer");
    }

    /// Sends a request, and waits for the answer.
    pub(crate) fn ask(&mut self, request: &str) -> &[u8] {
        self.send(request);
        self.read()
    }
}

/// A publish of JSON data.
pub(crate) fn publish(category: &str, data: &str) -> String {
    let body = format!(r#"{{"category":"{category}","data":{data}}}"#);
    let length = body.len();
    format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A poll, with more parameters such as `&since_time=1`.
pub(crate) fn poll(category: &str, more: &str) -> String {
    format!("GET /events?category={category}&timeout=60{more} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}
