//! A server that follows a script: it records what it is asked, and answers what the test told it to.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

pub(crate) use crate::support::LIMIT;

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The value of a parameter of the query, as it was sent.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(other, _)| *other == name)
            .map(|(_, value)| value)
    }
}

pub(crate) enum Reply {
    /// These bytes.
    Bytes(String),
    /// These bytes, then the server hangs up.
    Last(String),
    /// No answer: the server waits for the client to hang up.
    Silence,
    /// No answer: the server hangs up.
    HangUp,
}

/// An answer with a body, on a connection that stays open.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut text = format!("HTTP/1.1 {status} Status\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if status != 204 {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    Reply::Bytes(format!("{text}\r\n{body}"))
}

/// The id of the event, or position, with this number.
pub(crate) fn id(number: u32) -> String {
    format!("019a5b3c-1234-8abc-8000-{number:012x}")
}

/// The JSON of an event: its timestamp is its number.
pub(crate) fn event(number: u32) -> String {
    let id = id(number);
    format!(r#"{{"timestamp":{number},"category":"c","data":"event {number}","id":"{id}"}}"#)
}

/// A 200 of this crate's server with these events.
pub(crate) fn events(numbers: &[u32]) -> Reply {
    let list: Vec<String> = numbers.iter().copied().map(event).collect();
    let last = numbers.last().copied().map(id).unwrap_or_default();
    let body = format!(r#"{{"events":[{}]}}"#, list.join(","));
    answer(200, &[("Last-Event-ID", &last)], &body)
}

/// A 204 of this crate's server that tells this position.
pub(crate) fn nothing(position: u32) -> Reply {
    answer(204, &[("Last-Event-ID", &id(position))], "")
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Receiver<Request>,
    hang_ups: Receiver<usize>,
}

impl Server {
    /// Gives these answers one after the other, then none.
    pub(crate) fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        Server::on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    pub(crate) fn on(listener: TcpListener, script: impl IntoIterator<Item = Reply>) -> Self {
        let script: VecDeque<Reply> = script.into_iter().collect();
        let script = Arc::new(Mutex::new(script));
        let address = listener.local_addr().unwrap();
        let (asked, requests) = mpsc::channel();
        let (hung_up, hang_ups) = mpsc::channel();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (script, asked, hung_up) = (script.clone(), asked.clone(), hung_up.clone());
                let stream = stream.unwrap();
                thread::spawn(move || {
                    serve(stream, number, &script, &asked);
                    let _ = hung_up.send(number);
                });
            }
        });
        Server {
            address,
            requests,
            hang_ups,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next request, once it has come.
    pub(crate) fn request(&self) -> Request {
        self.requests.recv_timeout(LIMIT).expect("a request")
    }

    /// The number of requests that have come and were not asked for yet.
    pub(crate) fn pending(&self) -> usize {
        self.requests.try_iter().count()
    }

    /// The connection that was closed next, once it was.
    pub(crate) fn hang_up(&self) -> usize {
        self.hang_ups.recv_timeout(LIMIT).expect("a hang-up")
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    script: &Mutex<VecDeque<Reply>>,
    asked: &Sender<Request>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read(&mut reader, connection) {
        // The answer is taken first, so that a test that has seen the request knows which one it was.
        let reply = script.lock().unwrap().pop_front().unwrap_or(Reply::Silence);
        let _ = asked.send(request);
        match reply {
            Reply::Bytes(bytes) => stream.write_all(bytes.as_bytes()).unwrap(),
            Reply::Last(bytes) => return stream.write_all(bytes.as_bytes()).unwrap(),
            Reply::Silence => {
                let _ = reader.read(&mut [0]);
                return;
            }
            Reply::HangUp => return,
        }
    }
}

fn read(reader: &mut impl BufRead, connection: usize) -> Option<Request> {
    let mut line = || {
        let mut line = String::new();
        let length = reader.read_line(&mut line).ok()?;
        (length > 0).then(|| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut request = Request {
        method,
        target,
        headers,
        body: String::new(),
        connection,
    };
    let length = request
        .header("Content-Length")
        .map(|length| length.parse().unwrap());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}
