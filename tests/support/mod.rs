//! The real server on a free port, a client that sends exact bytes and reads answers to the letter, and waiting.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "native-http")]
use long_polling::server::HttpBackend;
use long_polling::{Server, ServerInfo};
use serde_json::Value;

/// The longest wait for something that must happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// True in the programs `native` and `overload_native`, which run tests of `it` and `overload` on the native backend.
pub(crate) const IS_NATIVE: bool = is_native(env!("CARGO_CRATE_NAME"));

const fn is_native(name: &str) -> bool {
    matches!(name.as_bytes(), b"native" | b"overload_native")
}

/// Settings for a test: a free port, polls that are long enough to be parked for all of a test, and any `Host`.
pub(crate) fn info() -> ServerInfo {
    let info = ServerInfo::new("127.0.0.1:0")
        .timeout(Duration::from_secs(60))
        .hosts(["*"]);
    #[cfg(feature = "native-http")]
    if IS_NATIVE {
        return info.http_backend(HttpBackend::Native);
    }
    info
}

pub(crate) fn start(info: ServerInfo) -> Server {
    Server::start(info).expect("a server")
}

/// A server with the settings for a test.
pub(crate) fn server() -> Server {
    start(info())
}

/// Waits until the condition is met, for `LIMIT` at most.
pub(crate) fn until(what: &str, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !met() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// Waits until exactly `count` subscribers are parked.
pub(crate) fn until_parked(server: &Server, count: usize) {
    until("parked", || server.statistics().parked == count);
}

/// The target of a poll: these categories, a timeout in seconds, and more parameters such as `&since_time=1`.
pub(crate) fn poll(category: &str, timeout: u32, more: &str) -> String {
    format!("/events?category={category}&timeout={timeout}{more}")
}

/// One request on a connection of its own.
pub(crate) fn ask(server: &Server, method: &str, target: &str) -> Answer {
    let mut connection = Connection::to(server);
    connection.ask(method, target);
    connection.read(method == "HEAD").expect("an answer")
}

pub(crate) fn get(server: &Server, target: &str) -> Answer {
    ask(server, "GET", target)
}

/// The buffered events of a category, by a poll that does not wait.
pub(crate) fn buffered(server: &Server, category: &str) -> Answer {
    get(server, &poll(category, 0, "&since_time=1"))
}

/// A publish with exactly this body, on a connection of its own.
pub(crate) fn publish(server: &Server, body: impl AsRef<[u8]>) -> Answer {
    let mut connection = Connection::to(server);
    connection.publish(body);
    connection.receive()
}

/// Publishes and polls, each on a connection of its own: a server that is busy with other clients serves these, too.
// For the programs `overload` and `overload_native`.
#[allow(dead_code)]
pub(crate) fn serves_others(server: &Server) {
    for _ in 0..5 {
        let published = publish(server, r#"{"category":"c","data":1}"#);
        assert_eq!(published.status, 200);
        assert_eq!(get(server, &poll("c", 0, "&since_time=1")).status, 200);
    }
}

/// A connection to the server.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn to(server: &Server) -> Self {
        Connection::open(server.local_addr())
    }

    pub(crate) fn open(address: SocketAddr) -> Self {
        Connection::over(TcpStream::connect(address).expect("a connection"))
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Connection::on(stream)
    }

    pub(crate) fn on(stream: TcpStream) -> Self {
        Connection(BufReader::new(stream))
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// Sends exactly this.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the server reads");
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())
    }

    /// Sends byte after byte, a tenth of a second apart. Returns `false` if the other side answered or hung up before the last
    /// byte.
    pub(crate) fn trickle(&mut self, bytes: impl IntoIterator<Item = u8>) -> bool {
        let pace = Duration::from_millis(100);
        self.stream().set_read_timeout(Some(pace)).unwrap();
        let end = Instant::now() + LIMIT;
        let all = bytes.into_iter().all(|byte| {
            assert!(
                Instant::now() < end,
                "the other side neither answers nor hangs up"
            );
            self.try_send([byte]).is_ok()
                && self
                    .stream()
                    .peek(&mut [0])
                    .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        });
        self.stream().set_read_timeout(Some(LIMIT)).unwrap();
        all
    }

    /// Sends a request without a body.
    pub(crate) fn ask(&mut self, method: &str, target: &str) {
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
    }

    /// Sends a publish with exactly this body.
    pub(crate) fn publish(&mut self, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let length = body.len();
        let head = format!(
            "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        );
        self.send([head.as_bytes(), body].concat());
    }

    /// The next answer to anything but HEAD.
    pub(crate) fn receive(&mut self) -> Answer {
        self.read(false).expect("an answer")
    }

    /// The next answer to anything but HEAD, or `None` if the server hangs up instead. The server must do one of both.
    pub(crate) fn next_or_end(&mut self) -> Option<Answer> {
        if self.is_over() {
            return None;
        }
        match self.read(false) {
            // A reset discards bytes that have come.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            answer => Some(answer.expect("a whole answer or an end")),
        }
    }

    /// The next answer; to HEAD it has no body, whatever its length says.
    pub(crate) fn read(&mut self, head_only: bool) -> io::Result<Answer> {
        let mut head = String::new();
        loop {
            let start = head.len();
            if self.0.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if &head[start..] == "\r\n" {
                break;
            }
        }
        let mut answer = Answer::of(head);
        let length = answer.header("Content-Length").map(|length| {
            let length: usize = length.parse().expect("a length");
            length
        });
        let bodiless = head_only || matches!(answer.status, 100..=199 | 204 | 304);
        if !bodiless {
            answer.body = vec![0; length.expect("a length of the body")];
            self.0.read_exact(&mut answer.body)?;
        }
        Ok(answer)
    }

    /// The next chunk of a body; empty for the last one.
    pub(crate) fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut size = String::new();
        self.0.read_line(&mut size)?;
        let size = size
            .strip_suffix("\r\n")
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk)?;
        assert!(chunk.ends_with(b"\r\n"), "a chunk without an end");
        chunk.truncate(size);
        Ok(chunk)
    }

    /// What has come of a body that the end of the connection ends; empty there.
    pub(crate) fn piece(&mut self) -> io::Result<Vec<u8>> {
        let piece = self.0.fill_buf()?.to_vec();
        self.0.consume(piece.len());
        Ok(piece)
    }

    /// Waits for more bytes or the end. Returns `true` if the server has hung up without sending more.
    pub(crate) fn is_over(&mut self) -> bool {
        match self.0.fill_buf() {
            Ok(more) => more.is_empty(),
            Err(error) => matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ),
        }
    }
}

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn of(head: String) -> Self {
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let status = status.strip_prefix("HTTP/1.1 ").expect("HTTP/1.1");
        let fields = lines.filter(|line| !line.is_empty()).map(|line| {
            let (name, value) = line.split_once(": ").expect("a header field");
            (name.to_owned(), value.to_owned())
        });
        Answer {
            status: status[..3].parse().expect("a status"),
            headers: fields.collect(),
            body: Vec::new(),
        }
    }

    /// The value of a header field, which must not come twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice: {:?}", self.headers);
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The events' data, of a 200; none of a 204.
    pub(crate) fn data(&self) -> Vec<Value> {
        if self.status == 204 {
            return Vec::new();
        }
        let mut json = self.json();
        let events = json["events"].as_array_mut();
        let events = events.unwrap_or_else(|| panic!("no events: {self:?}"));
        assert!(!events.is_empty(), "a 200 without events");
        events
            .iter_mut()
            .map(|event| event["data"].take())
            .collect()
    }

    /// The events' ids, of a 200.
    pub(crate) fn ids(&self) -> Vec<String> {
        let json = self.json();
        let events = json["events"].as_array().expect("events").iter();
        events
            .map(|event| event["id"].as_str().expect("an id").to_owned())
            .collect()
    }

    /// The position reached.
    pub(crate) fn position(&self) -> &str {
        self.header("Last-Event-ID").expect("Last-Event-ID")
    }

    pub(crate) fn gap(&self) -> bool {
        !self.body.is_empty() && self.json()["gap"] == true
    }

    /// Checks the header fields that every answer has.
    pub(crate) fn has_the_promised_headers(&self) {
        let fields = [
            ("X-Content-Type-Options", Some("nosniff")),
            ("Cache-Control", Some("no-cache, no-store, must-revalidate")),
            ("Pragma", Some("no-cache")),
            ("Expires", Some("0")),
            (
                "Content-Type",
                (!self.body.is_empty()).then_some("application/json"),
            ),
        ];
        for (name, value) in fields {
            assert_eq!(self.header(name), value, "{name} of {self:?}");
        }
        if self.status == 204 {
            assert_eq!(self.header("Content-Length"), None);
            assert_eq!(self.header("Transfer-Encoding"), None);
        }
    }

    /// Checks that the answer is a refusal in the API's form, with this text in it.
    pub(crate) fn refuses(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{self:?}");
        self.has_the_promised_headers();
        let json = self.json();
        assert_eq!(json.as_object().map(|members| members.len()), Some(1));
        let error = json["error"].as_str().expect("an error in words");
        assert!(error.contains(words), "{error:?} has no {words:?}");
    }
}
