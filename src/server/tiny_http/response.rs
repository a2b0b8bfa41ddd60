//! Writing answers: in one write where the whole request has been read, else by one of tiny_http's own ways.

use std::io::{self, Write};
use std::time::SystemTime;

use tiny_http::ReadWrite;

use crate::server::render::{Persistence, http_date};
use crate::server::response::Response;

/// The protocol that [`upgrade`] offers: the one that is spoken already.
const PROTOCOL: &str = "HTTP/1.1";

/// Sends a whole answer in one write, and so in as few packets as it fits into. tiny_http's own `respond` would write head
/// and body apart and drop a `Connection` field. tiny_http's writer is buffered, so a short answer leaves with the flush.
pub(super) fn write(mut writer: Box<dyn Write + Send>, answer: &[u8]) -> io::Result<()> {
    writer.write_all(answer)?;
    writer.flush()
}

/// Answers a request whose body has not been read: tiny_http sends the answer, and then takes the rest of the body off the
/// connection, which may wait for the client. Not for a request with `TE`, over which tiny_http may panic here.
pub(super) fn respond(incoming: tiny_http::Request, response: &Response) {
    let remote = incoming.remote_addr().copied();
    if let Err(error) = incoming.respond(to_tiny_http(response)) {
        log::debug!("an answer did not reach {remote:?}: {error}");
    }
}

/// The response as tiny_http has it, with a `Date` of ours: tiny_http panics where the clock shows a time that HTTP has no
/// form for.
fn to_tiny_http(response: &Response) -> tiny_http::Response<io::Cursor<Vec<u8>>> {
    let body = response.body.clone();
    let mut converted = tiny_http::Response::from_data(body).with_status_code(response.status);
    let date = http_date(SystemTime::now());
    let fields = response.fields();
    for (name, value) in fields.chain([("Date", date.as_str())]) {
        if let Ok(field) = tiny_http::Header::from_bytes(name, value) {
            converted.add_header(field);
        }
    }
    converted
}

/// Answers a request whose body has not been read, and gives the connection with the rest of the body on it. tiny_http
/// offers that for a change of protocol alone, whose head has no length, so the fields that frame the answer are part of
/// the value of its first field, `Date`.
///
/// tiny_http panics over some values of `TE`, unless the status is informational: there the answer comes after an
/// informational one, which every client of HTTP/1.1 passes over (RFC 9110, section 15.2).
pub(super) fn upgrade(
    incoming: tiny_http::Request,
    response: &Response,
    head_only: bool,
    has_te: bool,
) -> Box<dyn ReadWrite + Send> {
    let body: &[u8] = if head_only { &[] } else { &response.body };
    if has_te {
        let answer = response.render(Persistence::Close, head_only);
        let mut stream = incoming.upgrade(PROTOCOL, tiny_http::Response::empty(103));
        let _ = stream.write_all(&answer);
        return stream;
    }
    let mut head = tiny_http::Response::empty(response.status);
    let framing = format!(
        "{}\r\nContent-Length: {}\r\nConnection: close",
        http_date(SystemTime::now()),
        response.body.len()
    );
    let fields = [("Date", framing.as_str())];
    for (name, value) in fields.into_iter().chain(response.fields()) {
        if let Ok(field) = tiny_http::Header::from_bytes(name, value) {
            head.add_header(field);
        }
    }
    let mut stream = incoming.upgrade(PROTOCOL, head);
    let _ = stream.write_all(body);
    stream
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_by_tiny_http_has_a_date_of_ours_and_a_single_field_once() {
        let response = Response::error(413, "x").with_added_header("content-type", "text/html");
        let converted = to_tiny_http(&response);
        let count = |name: &'static str| {
            let fields = converted.headers().iter();
            fields.filter(|field| field.field.equiv(name)).count()
        };
        assert_eq!((count("Date"), count("Content-Type")), (1, 1));
    }
}
