//! Conformance to HTTP/1.1: the table of good, odd and bad requests, and pipelining.

// With paths, since the test program `native` includes this file from another folder.
#[path = "conformance/native.rs"]
mod native;
#[path = "conformance/rows.rs"]
mod rows;

use crate::support;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use long_polling::{BrokerOptions, Server, ServerInfo};
use rows::{End, MAX_EVENT_SIZE, Outcome, Row, Verdict, rows};
use support::{Answer, Connection, LIMIT, buffered, info, server, start};

/// The server's idle timeout.
const IDLE: Duration = Duration::from_secs(4);
/// The answer to no other request.
const MARKER: &str = "PUT /events HTTP/1.1\r\nHost: t\r\n\r\n";
const MARKED: u16 = 405;

#[test]
#[cfg_attr(
    not(target_os = "linux"),
    ignore = "rows that end at the idle timeout need sockets that inherit it"
)]
fn every_row_of_the_table_is_answered_as_it_says() {
    let server = start(settings());
    let rows = rows();
    let wrong: Vec<String> = thread::scope(|scope| {
        let tests: Vec<_> = rows
            .iter()
            .enumerate()
            .map(|(number, row)| {
                let server = &server;
                scope.spawn(move || {
                    let tested = test(server, row, &format!("row-{number:04}"));
                    tested.map_err(|why| format!("{}: {}: {why}", row.group, row.name))
                })
            })
            .collect();
        tests
            .into_iter()
            .filter_map(|test| test.join().expect("no panic").err())
            .collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn settings() -> ServerInfo {
    let info = info()
        .idle_timeout(IDLE)
        .broker(BrokerOptions::new().max_event_size(MAX_EVENT_SIZE));
    #[cfg(feature = "native-http")]
    if support::IS_NATIVE {
        return info.head_timeout(IDLE).body_timeout(IDLE);
    }
    info
}

/// Sends the row's request, and compares the outcome with the row.
fn test(server: &Server, row: &Row, category: &str) -> Result<(), String> {
    let expected = if support::IS_NATIVE {
        row.native
    } else {
        row.tiny_http
    };
    let mut peer = Peer::to(server);
    let bytes = row.bytes.replace("CATEGORY", category);
    peer.send(&bytes);
    if row.finishes {
        peer.0.get_ref().shutdown(Shutdown::Write).unwrap();
    }
    let sent = Instant::now();
    // Other clients are served in any case.
    let others = unrefused(|| support::get(server, "/nowhere")).status;
    let head_only = bytes.starts_with("HEAD");
    let mut last_says_close = false;
    for &status in expected.statuses {
        match peer.read(head_only, LIMIT) {
            Came::Answer(came, close) if came == status => last_says_close = close,
            came => return Err(format!("{came:?} came for {status}")),
        }
    }
    let close_expected = match expected.end {
        End::Kept => Some(false),
        End::Refuses | End::Announced => Some(true),
        End::Closed | End::Waits | End::Hangs => None,
    };
    if close_expected.is_some_and(|is_close| is_close != last_says_close) {
        return Err(format!("`Connection: close`: {last_says_close}"));
    }
    // A connection that hangs outlasts the timeout by half of it. An end that must come may be later.
    let longest = match expected.end {
        End::Hangs => IDLE * 3 / 2,
        _ => IDLE * 3,
    };
    let end = match expected.end {
        End::Kept | End::Refuses | End::Announced => {
            peer.send(MARKER);
            match peer.read(false, LIMIT) {
                Came::Answer(MARKED, false) if last_says_close => End::Announced,
                Came::Answer(MARKED, false) => End::Kept,
                Came::Answer(400, true) => End::Refuses,
                came => return Err(format!("{came:?} came for {:?}", expected.end)),
            }
        }
        End::Closed | End::Waits | End::Hangs => match peer.read(false, longest) {
            // It can't be earlier than the timeout of the server's socket, but for the clocks.
            Came::End if sent.elapsed() < IDLE * 9 / 10 => End::Closed,
            Came::End if expected.end == End::Closed && !expected.statuses.is_empty() => {
                End::Closed
            }
            Came::End => End::Waits,
            Came::Nothing => End::Hangs,
            came => return Err(format!("{came:?} came for {:?}", expected.end)),
        },
    };
    let published = unrefused(|| buffered(server, category)).data().len();
    if (end, published, others) != (expected.end, expected.published, 404) {
        return Err(format!(
            "{end:?}, {published} published, others got {others}"
        ));
    }
    Ok(())
}

/// The answer to a request on a new connection. tiny_http tells connections apart by their clients' ports only, and a new one
/// may have that of a connection which another row has had refused: then the next one is asked.
fn unrefused(ask: impl Fn() -> Answer) -> Answer {
    let refused =
        |answer: &Answer| answer.status == 400 && answer.text().contains("an earlier request");
    let mut answers = (0..3).map(|_| ask());
    let answer = answers.find(|answer| support::IS_NATIVE || !refused(answer));
    answer.expect("an answer to this request")
}

/// A client that accepts any answer.
struct Peer(BufReader<TcpStream>);

#[derive(Debug)]
enum Came {
    /// Its status, and whether it says that the connection will be closed.
    Answer(u16, bool),
    /// The server has hung up.
    End,
    /// No byte within the limit.
    Nothing,
    /// No answer of HTTP.
    Garbage,
}

impl Peer {
    fn to(server: &Server) -> Self {
        let stream = TcpStream::connect(server.local_addr()).expect("a connection");
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Peer(BufReader::new(stream))
    }

    /// Sends a byte for each character. A server that has hung up is noticed when its answer is read.
    fn send(&mut self, text: &str) {
        let bytes: Vec<u8> = text
            .chars()
            .map(|char| u8::try_from(char).expect("a byte"))
            .collect();
        let _ = self.0.get_mut().write_all(&bytes);
    }

    fn read(&mut self, head_only: bool, limit: Duration) -> Came {
        self.0.get_ref().set_read_timeout(Some(limit)).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match self.0.read_line(&mut head) {
                Ok(0) if head.is_empty() => return Came::End,
                Ok(0) => return Came::Garbage,
                Ok(_) => {}
                Err(error) => match error.kind() {
                    ErrorKind::ConnectionReset => return Came::End,
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Came::Nothing,
                    _ => return Came::Garbage,
                },
            }
        }
        let head = head.to_ascii_lowercase();
        let field = |name: &str| head.split("\r\n").find_map(|line| line.strip_prefix(name));
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let (true, Some(status)) = (head.starts_with("http/1."), status) else {
            return Came::Garbage;
        };
        let is_stream = field("content-type: ") == Some("text/event-stream");
        let body = match field("content-length: ") {
            _ if head_only => Ok(()),
            None if is_stream && field("transfer-encoding: ") == Some("chunked") => self.chunks(),
            None if is_stream => self.0.read_to_end(&mut Vec::new()).map(drop),
            None => Ok(()),
            Some(length) => match length.parse() {
                Ok(length) => self.0.read_exact(&mut vec![0; length]),
                Err(_) => return Came::Garbage,
            },
        };
        match body {
            Ok(()) => Came::Answer(status, field("connection: ") == Some("close")),
            Err(_) => Came::Garbage,
        }
    }

    fn chunks(&mut self) -> io::Result<()> {
        loop {
            let mut size = String::new();
            self.0.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim_end(), 16);
            let size = size.map_err(|_| io::ErrorKind::InvalidData)?;
            let mut chunk = vec![0; size + 2];
            self.0.read_exact(&mut chunk)?;
            match (size, chunk.ends_with(b"\r\n")) {
                (_, false) => return Err(io::ErrorKind::InvalidData.into()),
                (0, true) => return Ok(()),
                (_, true) => {}
            }
        }
    }
}

#[test]
fn the_page_is_the_table() {
    let rows = rows();
    let mut names = HashSet::new();
    for row in &rows {
        assert!(names.insert((row.group, row.name)), "{} twice", row.name);
    }
    for (group, differences) in native::DIFFERENCES {
        for (name, ..) in *differences {
            assert!(names.contains(&(*group, *name)), "no row {group}: {name}");
        }
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/guide/conformance.md");
    let page = page(&rows);
    if std::env::var_os("UPDATE_CONFORMANCE").is_some() {
        std::fs::write(&path, page).expect("the page is written");
    } else {
        let there = std::fs::read_to_string(&path).expect("the page");
        let there = there.replace("\r\n", "\n");
        assert!(
            there == page,
            "UPDATE_CONFORMANCE=1 cargo test writes it anew"
        );
    }
}

/// The table as the guide has it.
fn page(rows: &[Row]) -> String {
    let mut page = format!(
        "What the server alone, without a proxy before it, answers to {} good, odd and bad requests.\n\n\
         A test sends each request to a server on each backend, and compares the statuses of the answers, the state of the\n\
         connection and the events published with this table. It checks that other clients are served in the meantime. The\n\
         column `asked` quotes [RFC 9110](https://www.rfc-editor.org/rfc/rfc9110) and\n\
         [RFC 9112](https://www.rfc-editor.org/rfc/rfc9112).\n\n\
         Verdicts, with how many rows tiny_http and the native backend have of each:\n\n\
         - `conforms` ({}): as asked.\n\
         - `tolerates` ({}): laxer than it might be, or a refusal of another kind than is asked, or of what need not be\n  \
           refused. That is allowed, or harms no other client.\n\
         - `proxy` ({}): not as asked. The cause is in tiny_http, and this crate can't correct it. A server that untrusted\n  \
           clients reach has the native backend, or belongs behind a proxy, which refuses such requests, or corrects them.\n  \
           (Bytes beyond ASCII in a header field are an exception: a proxy passes them unless its configuration removes the\n  \
           field.)\n\n\
         Connections:\n\n\
         - `kept`: the next request on it is served.\n\
         - `closed`: the server hangs up.\n\
         - `announced`: the answer says `Connection: close`, and yet the next request is served. tiny_http has no means to\n  \
           hang up.\n\
         - `refuses`: the answer says `Connection: close`, and no further request on it is served, whatever it is. tiny_http\n  \
           has no means to hang up.\n\
         - `waits`: the server waits for more, and hangs up at the idle timeout.\n\
         - `hangs`: a thread and the connection stay until the client hangs up, or longer.\n\n\
         `CATEGORY` stands for a category whose name is as long; `\\xe9` is one byte. The server has `hosts([\"*\"])`: by default,\n\
         one on a loopback address would answer 421 to the host `t`.\n",
        rows.len(),
        counts(rows, Verdict::Conforms),
        counts(rows, Verdict::Tolerates),
        counts(rows, Verdict::Proxy),
    );
    page.push_str("\n# What needs a proxy before tiny_http\n\n");
    for row in rows {
        if row.tiny_http.verdict == Verdict::Proxy {
            let _ = writeln!(page, "- {}: {}.", row.group, row.name);
        }
    }
    let mut group = "";
    for row in rows {
        if row.group != group {
            group = row.group;
            let _ = write!(
                page,
                "\n# {group}\n\n| | sent | asked | tiny_http | native |\n|---|---|---|---|---|\n"
            );
        }
        let native = if row.native == row.tiny_http {
            "the same".to_owned()
        } else {
            cell(row.native)
        };
        let (sent, tiny_http) = (shown(row), cell(row.tiny_http));
        let _ = writeln!(
            page,
            "| {} | {sent} | {} | {tiny_http} | {native} |",
            row.name, row.asked
        );
    }
    page
}

/// How many rows of each backend have this verdict.
fn counts(rows: &[Row], verdict: Verdict) -> String {
    let count = |of: fn(&Row) -> Outcome| {
        let verdicts = rows.iter().map(|row| of(row).verdict);
        verdicts.filter(|other| *other == verdict).count()
    };
    let (tiny_http, native) = (count(|row| row.tiny_http), count(|row| row.native));
    format!("{tiny_http}, {native}")
}

/// An outcome in a cell of the table.
fn cell(outcome: Outcome) -> String {
    let statuses: Vec<String> = outcome.statuses.iter().map(u16::to_string).collect();
    let answered = match (statuses.join(", "), outcome.published) {
        (none, _) if none.is_empty() => "nothing".to_owned(),
        (statuses, 0) => statuses,
        (statuses, _) => format!("{statuses} and published"),
    };
    let end = format!("{:?}", outcome.end).to_lowercase();
    let verdict = match outcome.verdict {
        Verdict::Conforms => "conforms",
        Verdict::Tolerates => "tolerates",
        Verdict::Proxy => "**proxy**",
    };
    format!("{answered}; {end}; {verdict}")
}

/// The bytes in a cell of a table; long ones in short.
fn shown(row: &Row) -> String {
    const MOST: usize = 400;
    let mut shown = String::new();
    let mut rest = row.bytes.chars().peekable();
    while let Some(char) = rest.next() {
        let mut times = 1;
        while char.is_alphanumeric() && rest.next_if_eq(&char).is_some() {
            times += 1;
        }
        let escaped = match char {
            '\\' => "\\\\".to_owned(),
            '|' => "\\|".to_owned(),
            '\r' => "\\r".to_owned(),
            '\n' => "\\n".to_owned(),
            '\t' => "\\t".to_owned(),
            ' '..='~' => char.to_string(),
            other => format!("\\x{:02x}", u32::from(other)),
        };
        if times > 16 {
            let _ = write!(shown, "{escaped}… ({times} times)");
        } else {
            shown.push_str(&escaped.repeat(times));
        }
    }
    if let Some((at, _)) = shown.char_indices().nth(MOST) {
        shown.truncate(at);
        shown.push('…');
    }
    let fin = if row.finishes { " FIN" } else { "" };
    if shown.is_empty() {
        return fin.trim().to_owned();
    }
    // Spaces at either end would be taken for part of the fence.
    format!("`` {shown} ``{fin}")
}

#[test]
fn publishes_that_are_sent_at_once_take_effect_in_order() {
    let server = server();
    let mut connection = Connection::to(&server);
    for round in 0..300 {
        let category = format!("c{round}");
        let both: String = (0..4)
            .map(|number| {
                let body = format!(r#"{{"category":"{category}","data":{number}}}"#);
                let length = body.len();
                format!(
                    "POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}"
                )
            })
            .collect();
        connection.send(both);
        for _ in 0..4 {
            assert_eq!(connection.receive().status, 200);
        }
        assert_eq!(buffered(&server, &category).data(), [0, 1, 2, 3]);
    }
}
