//! [`ScriptedServer`]: a server that records requests and sends the responses of a script.

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
    /// The number of its connection, from 0.
    pub(crate) connection: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of all header fields of this name.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let same = move |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
        let fields = self.headers.iter().filter(same);
        fields.map(|(_, value)| value.as_str())
    }

    /// The value of a parameter of the query, without decoding.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(other, _)| *other == name)
            .map(|(_, value)| value)
    }
}

/// The server's reaction to one request.
pub(crate) enum Step {
    /// Sends these bytes.
    Send(String),
    /// Sends these bytes and closes the connection.
    SendAndClose(String),
    /// Sends nothing until the client closes the connection.
    Wait,
    /// Closes the connection.
    Close,
}

/// Sends a response with a body, on a connection that stays open.
pub(crate) fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Step {
    let mut text = format!("HTTP/1.1 {status} Status\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if status != 204 {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    Step::Send(format!("{text}\r\n{body}"))
}

/// The id with this sequence number.
pub(crate) fn id(number: u32) -> String {
    format!("019a5b3c-1234-8abc-8000-{number:012x}")
}

/// The JSON of the event with this number, which is also its timestamp.
pub(crate) fn event(number: u32) -> String {
    let id = id(number);
    format!(r#"{{"timestamp":{number},"category":"c","data":"event {number}","id":"{id}"}}"#)
}

/// A 200 of this crate's server with these events.
pub(crate) fn events(numbers: &[u32]) -> Step {
    let list: Vec<String> = numbers.iter().copied().map(event).collect();
    let last = numbers.last().copied().map(id).unwrap_or_default();
    let body = format!(r#"{{"events":[{}]}}"#, list.join(","));
    response(200, &[("Last-Event-ID", &last)], &body)
}

/// A 204 of this crate's server with this position.
pub(crate) fn no_events(position: u32) -> Step {
    response(204, &[("Last-Event-ID", &id(position))], "")
}

/// The response of this crate's server to a publish.
pub(crate) fn published() -> Step {
    response(200, &[("Last-Event-ID", &id(7))], r#"{"success": true}"#)
}

pub(crate) struct ScriptedServer {
    pub(crate) address: SocketAddr,
    requests: Receiver<Request>,
    closed: Receiver<usize>,
}

impl ScriptedServer {
    /// Starts a server that takes one step for each request, and waits after the last step.
    pub(crate) fn start(script: impl IntoIterator<Item = Step>) -> Self {
        ScriptedServer::on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    pub(crate) fn on(listener: TcpListener, script: impl IntoIterator<Item = Step>) -> Self {
        let script: VecDeque<Step> = script.into_iter().collect();
        let script = Arc::new(Mutex::new(script));
        let address = listener.local_addr().unwrap();
        let (request_sender, requests) = mpsc::channel();
        let (closed_sender, closed) = mpsc::channel();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (script, requests) = (script.clone(), request_sender.clone());
                let closed = closed_sender.clone();
                let stream = stream.unwrap();
                thread::spawn(move || {
                    serve(stream, number, &script, &requests);
                    let _ = closed.send(number);
                });
            }
        });
        ScriptedServer {
            address,
            requests,
            closed,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Waits for the next request.
    pub(crate) fn request(&self) -> Request {
        self.requests.recv_timeout(LIMIT).expect("a request")
    }

    /// Takes the requests that [`request`](Self::request) has not returned, and returns their number.
    pub(crate) fn count_requests(&self) -> usize {
        self.requests.try_iter().count()
    }

    /// Waits until the next connection is closed, and returns its number.
    pub(crate) fn closed_connection(&self) -> usize {
        self.closed
            .recv_timeout(LIMIT)
            .expect("a closed connection")
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    script: &Mutex<VecDeque<Step>>,
    requests: &Sender<Request>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read(&mut reader, connection) {
        // Takes the step before the test sees the request, so that the order of steps is the order of requests.
        let step = script.lock().unwrap().pop_front().unwrap_or(Step::Wait);
        let _ = requests.send(request);
        match step {
            Step::Send(bytes) => stream.write_all(bytes.as_bytes()).unwrap(),
            Step::SendAndClose(bytes) => return stream.write_all(bytes.as_bytes()).unwrap(),
            Step::Wait => {
                let _ = reader.read(&mut [0]);
                return;
            }
            Step::Close => return,
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
