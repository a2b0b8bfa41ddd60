//! The rows of the table: the request, what the standard asks of a server, and what ours does on the backend tiny_http.

use super::native;

/// How our server's answer compares with the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As asked.
    Conforms,
    /// Otherwise than asked, or laxer, which is allowed or harms no other client.
    Tolerates,
    /// Otherwise than asked; tiny_http does it, and only a proxy before the server can help.
    Proxy,
}

/// The state of the connection afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It serves the next request.
    Kept,
    /// The server hangs up.
    Closed,
    /// The last answer says `Connection: close`, and yet the next request is served.
    Announced,
    /// The last answer says so; further requests are not served, and refused.
    Refuses,
    /// It waits for more, and the server hangs up at the idle timeout.
    Waits,
    /// It stays as it is, even beyond the idle timeout.
    Hangs,
}

pub(crate) struct Row {
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    /// One byte for each character; `CATEGORY` stands for one of the row's own, as long.
    pub(crate) bytes: String,
    /// The client sends no more than this.
    pub(crate) finishes: bool,
    pub(crate) asked: &'static str,
    pub(crate) tiny_http: Outcome,
    pub(crate) native: Outcome,
}

/// What a server on one of the backends does with a row's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) statuses: &'static [u16],
    pub(crate) end: End,
    /// How many events were published.
    pub(crate) published: usize,
    pub(crate) verdict: Verdict,
}

/// 32 bytes, in hexadecimal 20.
const BODY: &str = r#"{"category":"CATEGORY","data":1}"#;
const POLL: &str = "/events?category=CATEGORY&timeout=0";
/// The most that a body may have with the settings of the test.
pub(crate) const MAX_EVENT_SIZE: usize = 1000;
const MAX_BODY: usize = MAX_EVENT_SIZE + 8 * 1024;

/// A poll with this request line, `POLL` in it being the target of one, and these fields.
fn line(line: &str, fields: &str) -> String {
    format!("{}\r\n{fields}\r\n", line.replace("POLL", POLL))
}

/// A poll whose target goes on like this.
fn target(more: &str) -> String {
    line(&format!("GET POLL{more} HTTP/1.1"), "Host: t\r\n")
}

/// A poll with these fields besides Host.
fn fields(fields: &str) -> String {
    line("GET POLL HTTP/1.1", &format!("Host: t\r\n{fields}"))
}

/// A publish with these fields, and this body, `BODY` in it being that of a good one.
fn post(fields: &str, body: &str) -> String {
    let body = body.replace("BODY", BODY);
    format!("POST /publish HTTP/1.1\r\nHost: t\r\n{fields}\r\n{body}")
}

/// A publish of this length, or so it says.
fn length(value: &str, body: &str) -> String {
    post(&format!("Content-Length: {value}\r\n"), body)
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// A publish in one chunk, with this Transfer-Encoding.
fn coding(value: &str) -> String {
    let fields = format!("Transfer-Encoding: {value}\r\n");
    post(&fields, "20\r\nBODY\r\n0\r\n\r\n")
}

/// A good publish, hidden in another request.
fn hidden() -> String {
    length("32", "BODY")
}

struct Table {
    rows: Vec<Row>,
    group: &'static str,
}

impl Table {
    /// One row: nothing is published unless `publishes` follows.
    fn row(
        &mut self,
        name: &'static str,
        bytes: impl Into<String>,
        asked: &'static str,
        (statuses, end, verdict): (&'static [u16], End, Verdict),
    ) -> &mut Row {
        let outcome = Outcome {
            statuses,
            end,
            published: 0,
            verdict,
        };
        self.rows.push(Row {
            group: self.group,
            name,
            bytes: bytes.into(),
            finishes: false,
            asked,
            tiny_http: outcome,
            native: native::outcome(self.group, name).unwrap_or(outcome),
        });
        self.rows.last_mut().unwrap()
    }
}

impl Row {
    fn publishes(&mut self) -> &mut Self {
        if self.native == self.tiny_http {
            self.native.published += 1;
        }
        self.tiny_http.published += 1;
        self
    }

    fn finishes(&mut self) {
        self.finishes = true;
    }
}

pub(crate) fn rows() -> Vec<Row> {
    let mut table = Table {
        rows: Vec::new(),
        group: "",
    };
    request_lines(&mut table);
    targets(&mut table);
    limits(&mut table);
    not_http(&mut table);
    header_fields(&mut table);
    lengths(&mut table);
    chunks(&mut table);
    codings(&mut table);
    connections(&mut table);
    streams(&mut table);
    methods(&mut table);
    smuggling(&mut table);
    table.rows
}

use End::{Announced, Closed, Hangs, Kept, Refuses, Waits};
use Verdict::{Conforms, Proxy, Tolerates};

const BAD_LINE: &str = "SHOULD be 400 (9112 §3)";

fn request_lines(t: &mut Table) {
    t.group = "Request lines";
    t.row(
        "A good request",
        fields(""),
        "2xx",
        (&[204], Kept, Conforms),
    );
    t.row(
        "Bare LF after the request line",
        format!("GET {POLL} HTTP/1.1\nHost: t\r\n\r\n"),
        "MAY be taken for the end of the line, or refused (9112 §2.2)",
        (&[400], Closed, Conforms),
    );
    t.row(
        "Bare LF after every line",
        format!("GET {POLL} HTTP/1.1\nHost: t\n\n"),
        "MAY be taken for the ends of the lines (9112 §2.2)",
        (&[], Waits, Conforms),
    );
    t.row(
        "Bare CR after every line",
        format!("GET {POLL} HTTP/1.1\rHost: t\r\r"),
        "MUST NOT be taken for the ends of the lines (9112 §2.2)",
        (&[], Waits, Conforms),
    );
    t.row(
        "A second CR at the end of the request line",
        line("GET POLL HTTP/1.1\r", "Host: t\r\n"),
        "MUST be refused or taken for a space (9112 §2.2)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "Two spaces before the target",
        line("GET  POLL HTTP/1.1", "Host: t\r\n"),
        BAD_LINE,
        (&[400], Closed, Conforms),
    );
    t.row(
        "Two spaces before the version",
        line("GET POLL  HTTP/1.1", "Host: t\r\n"),
        BAD_LINE,
        (&[400], Closed, Conforms),
    );
    t.row(
        "Tabs for spaces",
        line("GET\tPOLL\tHTTP/1.1", "Host: t\r\n"),
        "MAY be taken for spaces, else SHOULD be 400 (9112 §3)",
        (&[400], Closed, Conforms),
    );
    t.row(
        "A space after the version",
        line("GET POLL HTTP/1.1 ", "Host: t\r\n"),
        "MAY be passed over (9112 §3)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "A space before the method",
        line(" GET POLL HTTP/1.1", "Host: t\r\n"),
        "MAY be passed over (9112 §3)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "A fourth word",
        line("GET POLL HTTP/1.1 HTTP/1.1", "Host: t\r\n"),
        BAD_LINE,
        (&[204], Kept, Proxy),
    );
    t.row(
        "A space in the target",
        target("&x=a b"),
        BAD_LINE,
        (&[400], Closed, Conforms),
    );
    t.row(
        "An empty line before the request line",
        format!("\r\n{}", fields("")),
        "SHOULD be passed over (9112 §2.2)",
        (&[400], Closed, Proxy),
    );
    t.row(
        "No version",
        line("GET POLL", "Host: t\r\n"),
        BAD_LINE,
        (&[400], Closed, Conforms),
    );
    t.row(
        "No target",
        line("GET HTTP/1.1", "Host: t\r\n"),
        BAD_LINE,
        (&[400], Closed, Conforms),
    );
    t.row(
        "No method",
        line("POLL HTTP/1.1", "Host: t\r\n"),
        BAD_LINE,
        (&[400], Closed, Conforms),
    );
    t.row(
        "HTTP/0.9",
        line("GET POLL HTTP/0.9", "Host: t\r\n"),
        "is not supported (9110 §15.6.6)",
        (&[400], Refuses, Conforms),
    );
    t.row(
        "HTTP/1.2",
        line("GET POLL HTTP/1.2", "Host: t\r\n"),
        "SHOULD be treated as HTTP/1.1 (9110 §2.5)",
        (&[400], Closed, Proxy),
    );
    t.row(
        "HTTP/2.0",
        line("GET POLL HTTP/2.0", "Host: t\r\n"),
        "MAY be 505 (9110 §15.6.6)",
        (&[], Hangs, Proxy),
    );
    t.row(
        "HTTP/3.0",
        line("GET POLL HTTP/3.0", "Host: t\r\n"),
        "MAY be 505 (9110 §15.6.6)",
        (&[], Hangs, Proxy),
    );
    t.row(
        "HTTP/9.9",
        line("GET POLL HTTP/9.9", "Host: t\r\n"),
        "MAY be 505 (9110 §15.6.6)",
        (&[400], Closed, Conforms),
    );
    t.row(
        "http/1.1",
        line("GET POLL http/1.1", "Host: t\r\n"),
        BAD_LINE,
        (&[400], Closed, Conforms),
    );
    t.row(
        "HTTP/1.10",
        line("GET POLL HTTP/1.10", "Host: t\r\n"),
        "SHOULD be 400: a digit each (9112 §2.3)",
        (&[400], Closed, Conforms),
    );
    t.row(
        "HTTP/1",
        line("GET POLL HTTP/1", "Host: t\r\n"),
        "SHOULD be 400: a digit each (9112 §2.3)",
        (&[400], Closed, Conforms),
    );
    t.row(
        "Another protocol's name",
        line("GET POLL ICE/1.0", "Host: t\r\n"),
        BAD_LINE,
        (&[400], Closed, Conforms),
    );
}

fn targets(t: &mut Table) {
    t.group = "Targets";
    t.row(
        "Absolute-form",
        line("GET http://tPOLL HTTP/1.1", "Host: t\r\n"),
        "MUST be accepted (9112 §3.2.2)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "Absolute-form with another host than Host",
        line("GET http://otherPOLL HTTP/1.1", "Host: t\r\n"),
        "MUST be accepted, and Host ignored (9112 §3.2.2)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "Absolute-form without a path, and a slash in its query",
        line("GET http://t?/events HTTP/1.1", "Host: t\r\n"),
        "MUST be taken for the path / (9112 §3.2.1)",
        (&[404], Kept, Conforms),
    );
    t.row(
        "Absolute-form of another scheme",
        line("GET ftp://tPOLL HTTP/1.1", "Host: t\r\n"),
        "is not ours: 4xx (9110 §7.4)",
        (&[400], Kept, Conforms),
    );
    t.row(
        "Authority-form",
        line("GET t:80 HTTP/1.1", "Host: t\r\n"),
        "only for CONNECT: 400 (9112 §3.2.3)",
        (&[400], Kept, Conforms),
    );
    t.row(
        "Asterisk-form",
        line("GET * HTTP/1.1", "Host: t\r\n"),
        "only for OPTIONS: 400 (9112 §3.2.4)",
        (&[400], Kept, Conforms),
    );
    t.row(
        "No slash before the path",
        line(
            "GET events?category=CATEGORY&timeout=0 HTTP/1.1",
            "Host: t\r\n",
        ),
        BAD_LINE,
        (&[400], Kept, Conforms),
    );
    t.row(
        "A fragment",
        target("#x"),
        "SHOULD be 400 (9112 §3.2)",
        (&[400], Refuses, Conforms),
    );
    t.row("NUL", target("\0"), BAD_LINE, (&[400], Refuses, Conforms));
    t.row(
        "A tab",
        target("\tx"),
        BAD_LINE,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "ESC and DEL",
        target("\x1b\x7f"),
        BAD_LINE,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "Bare LF",
        target("\nx"),
        BAD_LINE,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "Bare CR",
        target("\rx"),
        BAD_LINE,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "Bytes beyond ASCII",
        target("&x=\u{c3}\u{a9}"),
        BAD_LINE,
        (&[], Closed, Tolerates),
    );
    t.row(
        "Characters that should be encoded",
        target("&x=<{|}>\"^`"),
        BAD_LINE,
        (&[204], Kept, Tolerates),
    );
    t.row(
        "A malformed percent-encoding",
        line("GET /%zz HTTP/1.1", "Host: t\r\n"),
        "is no path of ours: 404 or 400",
        (&[404], Kept, Conforms),
    );
    t.row(
        "An encoded NUL",
        line(
            "GET /events%00?category=CATEGORY&timeout=0 HTTP/1.1",
            "Host: t\r\n",
        ),
        "is no path of ours: 404 or 400",
        (&[404], Kept, Conforms),
    );
    t.row(
        "Encoded line ends",
        line("GET /%0d%0aX:%201 HTTP/1.1", "Host: t\r\n"),
        "is no path of ours, and no field of the answer",
        (&[404], Kept, Conforms),
    );
    t.row(
        "Dot segments",
        line(
            "GET /x/../events?category=CATEGORY&timeout=0 HTTP/1.1",
            "Host: t\r\n",
        ),
        "MAY be another path (9110 §4.2.3)",
        (&[404], Kept, Conforms),
    );
    t.row(
        "8 KiB",
        target(&format!("&x={}", "a".repeat(8192))),
        "SHOULD be accepted up to 8000 bytes (9112 §3)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "64 KiB",
        target(&format!("&x={}", "a".repeat(65536))),
        "MAY be accepted (9112 §3)",
        (&[204], Kept, Conforms),
    );
}

fn limits(t: &mut Table) {
    t.group = "The parameter limit";
    for (name, more) in [
        ("One", "&limit=1"),
        ("Zeros before the number", "&limit=007"),
        ("Empty", "&limit="),
        ("More than 64 bits", "&limit=99999999999999999999999"),
        ("Given twice", "&limit=1&limit=2"),
    ] {
        t.row(name, target(more), "2xx", (&[204], Kept, Conforms));
    }
    for (name, more) in [
        ("Zero", "&limit=0"),
        ("Negative", "&limit=-1"),
        ("A fraction", "&limit=1.5"),
        ("A sign, encoded", "&limit=%2B1"),
        ("No number", "&limit=all"),
        ("Bad, then good", "&limit=x&limit=1"),
    ] {
        t.row(
            name,
            target(more),
            "400 (9110 §15.5.1)",
            (&[400], Kept, Conforms),
        );
    }
}

fn not_http(t: &mut Table) {
    t.group = "What is hardly HTTP";
    t.row(
        "Nothing at all, then FIN",
        "",
        "nothing",
        (&[], Closed, Conforms),
    )
    .finishes();
    t.row(
        "Nothing at all",
        "",
        "MAY be closed after a time (9112 §9.5)",
        (&[], Waits, Conforms),
    );
    t.row(
        "Half a head, then FIN",
        format!("GET {POLL} HTTP/1.1\r\nHos"),
        "MAY be answered before closing (9112 §8)",
        (&[], Closed, Conforms),
    )
    .finishes();
    t.row(
        "Half a head",
        format!("GET {POLL} HTTP/1.1\r\nHos"),
        "MAY be closed after a time (9112 §9.5)",
        (&[], Waits, Conforms),
    );
    t.row(
        "Only empty lines",
        "\r\n\r\n\r\n",
        "SHOULD be passed over (9112 §2.2)",
        (&[400], Closed, Proxy),
    );
    t.row(
        "NULs",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        BAD_LINE,
        (&[400], Closed, Conforms),
    );
    t.row(
        "A TLS ClientHello",
        "\x16\x03\x01\0\x2e\x01\0\0\x2a\x03\x03\u{9c}\u{ff}\u{80}\x11",
        BAD_LINE,
        (&[], Waits, Tolerates),
    );
    t.row(
        "The preface of HTTP/2",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "MAY be 505 (9110 §15.6.6)",
        (&[], Hangs, Proxy),
    );
    t.row(
        "A banner of SSH",
        "SSH-2.0-x\r\n",
        BAD_LINE,
        (&[400], Closed, Conforms),
    );
    t.row(
        "An answer for a request",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        BAD_LINE,
        (&[400], Closed, Conforms),
    );
}

fn header_fields(t: &mut Table) {
    const HOST: &str = "MUST be 400 (9112 §3.2)";
    const LINE: &str = "MUST be refused or taken for a space (9110 §5.5)";
    let host = |fields: &str| line("GET POLL HTTP/1.1", fields);
    t.group = "Header fields";
    t.row("No Host", host(""), HOST, (&[400], Kept, Conforms));
    t.row(
        "No Host, absolute-form",
        line("GET http://tPOLL HTTP/1.1", ""),
        HOST,
        (&[400], Kept, Conforms),
    );
    t.row(
        "No Host, HTTP/1.0",
        line("GET POLL HTTP/1.0", ""),
        "2xx: only HTTP/1.1 asks for it (9112 §3.2)",
        (&[204], Closed, Conforms),
    );
    t.row(
        "Two Hosts that differ",
        host("Host: t\r\nHost: u\r\n"),
        HOST,
        (&[400], Kept, Conforms),
    );
    t.row(
        "Two Hosts alike",
        host("Host: t\r\nHost: t\r\n"),
        HOST,
        (&[400], Kept, Conforms),
    );
    t.row(
        "Two hosts in one Host",
        host("Host: t, u\r\n"),
        HOST,
        (&[400], Kept, Conforms),
    );
    t.row(
        "A space in Host",
        host("Host: t u\r\n"),
        HOST,
        (&[400], Kept, Conforms),
    );
    t.row(
        "A path in Host",
        host("Host: t/x\r\n"),
        HOST,
        (&[400], Kept, Conforms),
    );
    t.row(
        "A user in Host",
        host("Host: user@t\r\n"),
        HOST,
        (&[400], Kept, Conforms),
    );
    t.row(
        "An empty Host",
        host("Host:\r\n"),
        "MAY be: the target may have no host (9110 §7.2)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "Host without a space",
        host("Host:t\r\n"),
        "2xx (9112 §5)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "Odd case",
        host("hOsT: t\r\n"),
        "2xx (9110 §5.1)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "A space before the colon",
        fields("X : a\r\n"),
        "MUST be 400 (9112 §5.1)",
        (&[400], Closed, Conforms),
    );
    t.row(
        "No colon",
        fields("X\r\n"),
        "SHOULD be 400",
        (&[400], Closed, Conforms),
    );
    t.row(
        "A folded line",
        fields("X: a\r\n b\r\n"),
        "MUST be 400 or unfolded (9112 §5.2)",
        (&[400], Closed, Conforms),
    );
    t.row(
        "A folded line with a colon",
        fields("X: a\r\n Y: b\r\n"),
        "MUST be 400 or unfolded (9112 §5.2)",
        (&[204], Kept, Proxy),
    );
    t.row(
        "A space before the first field",
        host(" X: a\r\nHost: t\r\n"),
        "MUST be refused or left out (9112 §2.2)",
        (&[204], Kept, Proxy),
    );
    t.row(
        "An empty name",
        fields(": a\r\n"),
        "SHOULD be 400",
        (&[400], Refuses, Conforms),
    );
    t.row(
        "A space in a name",
        fields("X Y: a\r\n"),
        "SHOULD be 400",
        (&[400], Closed, Conforms),
    );
    t.row(
        "A control character in a name",
        fields("X\x01Y: a\r\n"),
        "SHOULD be 400",
        (&[400], Refuses, Conforms),
    );
    t.row(
        "Brackets in a name",
        fields("X(Y): a\r\n"),
        "SHOULD be 400",
        (&[400], Refuses, Conforms),
    );
    t.row(
        "Bare CR in a value",
        fields("X: a\rb\r\n"),
        LINE,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "Bare CR after a value",
        fields("X: a\r\r\n"),
        LINE,
        (&[204], Kept, Conforms),
    );
    t.row(
        "Bare LF in a value",
        fields("X: a\nY: b\r\n"),
        "MAY be taken for the end of the line (9112 §2.2)",
        (&[400], Refuses, Conforms),
    );
    t.row(
        "Bare LF after the last field",
        format!("GET {POLL} HTTP/1.1\r\nHost: t\r\n\n"),
        "MAY be taken for the end (9112 §2.2)",
        (&[], Waits, Conforms),
    );
    t.row(
        "NUL in a value",
        fields("X: a\0b\r\n"),
        LINE,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "ESC in a value",
        fields("X: a\x1bb\r\n"),
        "MAY be accepted (9110 §5.5)",
        (&[400], Refuses, Conforms),
    );
    t.row(
        "A tab in a value",
        fields("X: a\tb\r\n"),
        "2xx (9110 §5.5)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "Bytes beyond ASCII in a value",
        fields("X: \u{e9}\r\n"),
        "SHOULD be accepted (9110 §5.5)",
        (&[], Closed, Proxy),
    );
    t.row(
        "An empty value",
        fields("X:\r\n"),
        "2xx (9110 §5.5)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "200 fields",
        fields(
            &(0..200)
                .map(|number| format!("X-{number}: a\r\n"))
                .collect::<String>(),
        ),
        "MAY be accepted (9110 §5.4)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "A field of 64 KiB",
        fields(&format!("X: {}\r\n", "a".repeat(65536))),
        "MAY be accepted (9110 §5.4)",
        (&[204], Kept, Conforms),
    );
}

fn lengths(t: &mut Table) {
    const BAD: &str = "MUST be 400, and the connection closed (9112 §6.3)";
    t.group = "Content-Length";
    t.row(
        "A good publish",
        length("32", "BODY"),
        "2xx",
        (&[200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "A byte order mark before the JSON",
        length("35", "\u{ef}\u{bb}\u{bf}BODY"),
        "MAY be passed over (8259 §8.1)",
        (&[200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "Negative",
        length("-1", ""),
        BAD,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "A plus sign",
        length("+32", "BODY"),
        BAD,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "A fraction",
        length("32.0", "BODY"),
        BAD,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "Hexadecimal",
        length("0x20", "BODY"),
        BAD,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "An exponent",
        length("3e1", "BODY"),
        BAD,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "Empty",
        length("", "BODY"),
        BAD,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "A space inside",
        length("3 2", "BODY"),
        BAD,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "A list of two alike",
        length("32, 32", "BODY"),
        "MAY be accepted, or 400 (9112 §6.3)",
        (&[400], Refuses, Conforms),
    );
    t.row(
        "A list of two that differ",
        length("32, 33", "BODY"),
        BAD,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "Two fields alike",
        post("Content-Length: 32\r\nContent-Length: 32\r\n", "BODY"),
        "MAY be accepted, or 400 (9110 §8.6)",
        (&[200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "Two fields that differ",
        post("Content-Length: 32\r\nContent-Length: 33\r\n", "BODY"),
        BAD,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "Spaces and tabs around it",
        length(" \t32 \t", "BODY"),
        "2xx (9110 §5.5)",
        (&[200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "A form feed before it",
        length("\x0c32", "BODY"),
        BAD,
        (&[200], Kept, Proxy),
    )
    .publishes();
    t.row(
        "Leading zeros",
        length("00032", "BODY"),
        "2xx: digits are digits (9110 §8.6)",
        (&[200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "2^64",
        length("18446744073709551616", "BODY"),
        "MUST NOT overflow (9110 §8.6)",
        (&[400], Refuses, Conforms),
    );
    t.row(
        "2^64 - 1",
        length("18446744073709551615", "BODY"),
        "MUST NOT overflow (9110 §8.6); 413",
        (&[413], Hangs, Conforms),
    );
    t.row(
        "More than is accepted, and not sent",
        length("10000", ""),
        "413 (9110 §15.5.14)",
        (&[413], Waits, Conforms),
    );
    t.row(
        "More than is accepted, and sent",
        length("10000", &"a".repeat(10000)),
        "413 (9110 §15.5.14)",
        (&[413], Kept, Conforms),
    );
    t.row(
        "0",
        length("0", ""),
        "400: no publish in it",
        (&[400], Kept, Conforms),
    );
    t.row(
        "None",
        post("", ""),
        "400 or 411 (9110 §15.5.12)",
        (&[400], Kept, Conforms),
    );
    t.row(
        "A GET with a body",
        line("GET POLL HTTP/1.1", "Host: t\r\nContent-Length: 5\r\n") + "hello",
        "MAY be accepted; the body MUST be read, or the connection closed (9112 §9.3)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "A short body, then FIN",
        length("42", "BODY"),
        "MAY be answered; is incomplete (9112 §8)",
        (&[], Closed, Conforms),
    )
    .finishes();
    t.row(
        "A short long body, then FIN",
        length("5000", "BODY"),
        "MAY be answered; is incomplete (9112 §8)",
        (&[400], Closed, Conforms),
    )
    .finishes();
    t.row(
        "A short body",
        length("42", "BODY"),
        "MAY be closed after a time (9112 §9.5)",
        (&[], Waits, Conforms),
    );
}

fn chunks(t: &mut Table) {
    const BAD: &str = "400: the framing is invalid (9112 §7.1)";
    const CUT: &str = "MAY be answered; is incomplete (9112 §8)";
    t.group = "Chunks";
    t.row(
        "One chunk",
        chunked("20\r\nBODY\r\n0\r\n\r\n"),
        "2xx (9112 §7.1)",
        (&[200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "Two chunks, a size in upper case",
        chunked("1B\r\n{\"category\":\"CATEGORY\",\"dat\r\n5\r\na\":1}\r\n0\r\n\r\n"),
        "2xx (9112 §7.1)",
        (&[200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "Leading zeros",
        chunked("000020\r\nBODY\r\n000\r\n\r\n"),
        "2xx (9112 §7.1)",
        (&[200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "An empty body",
        chunked("0\r\n\r\n"),
        "400: no publish in it",
        (&[400], Kept, Conforms),
    );
    t.row(
        "A size that is none",
        chunked("xyz\r\nBODY\r\n0\r\n\r\n"),
        BAD,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "An empty size",
        chunked("\r\nBODY\r\n0\r\n\r\n"),
        BAD,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "A negative size",
        chunked("-20\r\nBODY\r\n0\r\n\r\n"),
        BAD,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "A size with a plus sign",
        chunked("+20\r\nBODY\r\n0\r\n\r\n"),
        BAD,
        (&[200], Kept, Proxy),
    )
    .publishes();
    t.row(
        "A size with 0x",
        chunked("0x20\r\nBODY\r\n0\r\n\r\n"),
        BAD,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "A size with a space after it",
        chunked("20 \r\nBODY\r\n0\r\n\r\n"),
        "SHOULD be 400 (9112 §7.1)",
        (&[200], Kept, Tolerates),
    )
    .publishes();
    t.row(
        "A size of 2^64 and more",
        chunked("100000000000000020\r\nBODY\r\n0\r\n\r\n"),
        "MUST NOT overflow (9112 §7.1)",
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "A size of 2^64 - 1",
        chunked("ffffffffffffffff\r\nBODY"),
        "MUST NOT overflow (9112 §7.1)",
        (&[400], Closed, Conforms),
    );
    t.row(
        "Bare LF after a size",
        chunked("20\nBODY\r\n0\r\n\r\n"),
        BAD,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "No line end after a chunk",
        chunked("20\r\nBODY0\r\n\r\n"),
        BAD,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "A chunk longer than its size",
        chunked("1f\r\nBODY\r\n0\r\n\r\n"),
        BAD,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "An extension",
        chunked("20;a=b\r\nBODY\r\n0;c=\"d\"\r\n\r\n"),
        "MUST be passed over (9112 §7.1.1)",
        (&[200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "An extension with bare LF in it",
        chunked("20;a\nb\r\nBODY\r\n0\r\n\r\n"),
        BAD,
        (&[200], Kept, Proxy),
    )
    .publishes();
    t.row(
        "An extension of 64 KiB",
        chunked(&format!("20;{}\r\nBODY\r\n0\r\n\r\n", "a".repeat(65536))),
        "ought to be limited: 4xx (9112 §7.1.1)",
        (&[200], Kept, Proxy),
    )
    .publishes();
    t.row(
        "A trailer",
        chunked("20\r\nBODY\r\n0\r\nX: a\r\n\r\n"),
        "MUST be parsed; MAY be left out (9112 §7.1.2)",
        (&[400, 400], Closed, Proxy),
    );
    t.row(
        "Cut in a size",
        chunked("2"),
        CUT,
        (&[400], Closed, Conforms),
    )
    .finishes();
    t.row(
        "Cut in the JSON",
        chunked("20\r\n{\"category\""),
        CUT,
        (&[400], Closed, Conforms),
    )
    .finishes();
    t.row(
        "Cut after the JSON, in its chunk",
        chunked("21\r\nBODY"),
        "MUST NOT be taken for complete (9112 §8)",
        (&[200], Closed, Proxy),
    )
    .publishes()
    .finishes();
    t.row(
        "Cut after a chunk",
        chunked("20\r\nBODY"),
        CUT,
        (&[400], Closed, Conforms),
    )
    .finishes();
    t.row(
        "Cut before the last chunk",
        chunked("20\r\nBODY\r\n"),
        CUT,
        (&[400], Closed, Conforms),
    )
    .finishes();
    t.row(
        "Cut in the last chunk",
        chunked("20\r\nBODY\r\n0\r\n"),
        CUT,
        (&[400], Closed, Conforms),
    )
    .finishes();
    t.row(
        "Cut before the last chunk, and waiting",
        chunked("20\r\nBODY\r\n"),
        "MAY be closed after a time (9112 §9.5)",
        (&[400], Closed, Conforms),
    );
}

fn codings(t: &mut Table) {
    const UNKNOWN: &str = "SHOULD be 501 (9112 §6.1)";
    const NOT_LAST: &str = "MUST be 400, and the connection closed (9112 §6.3)";
    t.group = "Transfer-Encoding";
    t.row(
        "CHUNKED",
        coding("CHUNKED"),
        "2xx (9112 §7)",
        (&[200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "A tab before it",
        coding("\tchunked"),
        "2xx (9110 §5.5)",
        (&[200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "A vertical tab before it",
        coding("\x0bchunked"),
        "400 or 501 (9112 §6.1)",
        (&[200], Kept, Proxy),
    )
    .publishes();
    t.row(
        "chunked twice",
        coding("chunked, chunked"),
        "MUST NOT be sent (9112 §6.1)",
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "chunked in two fields",
        coding("chunked\r\nTransfer-Encoding: chunked"),
        "MUST NOT be sent (9112 §6.1)",
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "gzip and chunked",
        coding("gzip, chunked"),
        UNKNOWN,
        (&[501], Kept, Conforms),
    );
    t.row(
        "gzip and chunked in two fields",
        coding("gzip\r\nTransfer-Encoding: chunked"),
        UNKNOWN,
        (&[501], Kept, Conforms),
    );
    t.row(
        "chunked before gzip",
        coding("chunked, gzip"),
        NOT_LAST,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "gzip alone",
        coding("gzip"),
        NOT_LAST,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "identity",
        coding("identity"),
        NOT_LAST,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "xchunked",
        coding("xchunked"),
        NOT_LAST,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "chunked in quotes",
        coding("\"chunked\""),
        NOT_LAST,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "chunked with a parameter",
        coding("chunked;a=b"),
        NOT_LAST,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "An empty element before it",
        coding(", chunked"),
        "MUST be passed over (9110 §5.6.1.2)",
        (&[200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "An empty element after it",
        coding("chunked ,\t,"),
        "MUST be passed over (9110 §5.6.1.2)",
        (&[200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "gzip with a comma in quotes, and chunked",
        coding("gzip;a=\"b, chunked\""),
        NOT_LAST,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "Nothing",
        coding(""),
        NOT_LAST,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "A space before the colon",
        coding("a").replace("Encoding: a", "Encoding : chunked"),
        "MUST be 400 (9112 §5.1)",
        (&[400], Closed, Conforms),
    );
    t.row(
        "In HTTP/1.0",
        coding("chunked").replace("HTTP/1.1", "HTTP/1.0"),
        "MUST be taken for faulty (9112 §6.1)",
        (&[400], Closed, Conforms),
    );
    t.row(
        "With a Content-Length after it",
        coding("chunked\r\nContent-Length: 42"),
        "MAY be refused (9112 §6.1)",
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "With a Content-Length before it",
        coding("x").replace(
            "Transfer-Encoding: x",
            "Content-Length: 42\r\nTransfer-Encoding: chunked",
        ),
        "MAY be refused (9112 §6.1)",
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "A GET with a chunked body",
        fields("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n",
        "MAY be accepted; the body MUST be read, or the connection closed (9112 §9.3)",
        (&[204], Kept, Conforms),
    );
}

fn connections(t: &mut Table) {
    t.group = "Connections";
    t.row(
        "HTTP/1.0",
        line("GET POLL HTTP/1.0", ""),
        "closed (9112 §9.3)",
        (&[204], Closed, Conforms),
    );
    t.row(
        "HTTP/1.0 with keep-alive",
        line("GET POLL HTTP/1.0", "Connection: keep-alive\r\n"),
        "MAY be kept (9112 §9.3)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "close",
        fields("Connection: close\r\n"),
        "MUST be closed (9112 §9.6)",
        (&[204], Closed, Conforms),
    );
    t.row(
        "close in a list",
        fields("Connection: x , CLOSE\r\n"),
        "MUST be closed (9112 §9.6)",
        (&[204], Closed, Conforms),
    );
    t.row(
        "close in a second field",
        fields("Connection: x\r\nConnection: close\r\n"),
        "MUST be closed (9112 §9.6)",
        (&[204], Announced, Tolerates),
    );
    t.row(
        "A word with close in it",
        fields("Connection: foreclosed\r\n"),
        "kept (9112 §9.3)",
        (&[204], Closed, Conforms),
    );
    t.row(
        "Two requests after close",
        fields("Connection: close\r\n") + &hidden() + &hidden(),
        "MUST NOT be served (9112 §9.6)",
        (&[204], Closed, Conforms),
    );
    t.row(
        "Three good requests at once",
        fields("") + &hidden() + &fields(""),
        "are answered in order (9112 §9.3.2)",
        (&[204, 200, 204], Kept, Conforms),
    )
    .publishes();
    t.row(
        "A good request after a refused one",
        length("3", "{x}") + &hidden(),
        "is served (9112 §9.3.2)",
        (&[400, 200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "Garbage after a good request",
        hidden() + "garbage\r\n\r\n",
        "is refused (9112 §3)",
        (&[200, 400], Closed, Conforms),
    )
    .publishes();
    t.row(
        "An empty line after a body",
        hidden() + "\r\n" + &hidden(),
        "SHOULD be passed over (9112 §2.2)",
        (&[200, 400], Closed, Proxy),
    )
    .publishes();
    offers(t);
    t.row(
        "Expect: 100-continue",
        post("Expect: 100-continue\r\nContent-Length: 32\r\n", "BODY"),
        "100 MAY be left out when the body is there (9110 §10.1.1)",
        (&[100, 200], Kept, Conforms),
    )
    .publishes();
    t.row(
        "Expect: 100-continue without a body",
        fields("Expect: 100-continue\r\n"),
        "MAY be passed over (9110 §10.1.1)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "Expect: 100-continue with too large a body",
        post("Expect: 100-continue\r\nContent-Length: 10000\r\n", ""),
        "413 instead of 100 (9110 §10.1.1)",
        (&[413], Waits, Conforms),
    );
    t.row(
        "Expect: something else",
        post("Expect: x\r\nContent-Length: 32\r\n", "BODY"),
        "MAY be 417 (9110 §10.1.1)",
        (&[417], Closed, Conforms),
    );
    t.row(
        "Expect: 100-continue in HTTP/1.0",
        post("Expect: 100-continue\r\nContent-Length: 32\r\n", "BODY")
            .replace("HTTP/1.1", "HTTP/1.0"),
        "MUST be passed over (9110 §10.1.1)",
        (&[100, 200], Closed, Proxy),
    )
    .publishes();
}

/// Requests that offer another protocol, which the server passes over, as clients of HTTP/2 send them to any server that
/// they don't know. tiny_http reads no more requests after one.
fn offers(t: &mut Table) {
    const OFFER: &str = "MAY be passed over (9110 §7.8)";
    const H2C: &str = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                       HTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    let h2c = |more: &str, body: &str| post(&format!("{H2C}{more}"), body);
    t.row(
        "An offer of h2c",
        fields(H2C),
        OFFER,
        (&[204], Closed, Conforms),
    );
    t.row(
        "An offer of h2c in HTTP/1.0",
        fields(H2C).replace("HTTP/1.1", "HTTP/1.0"),
        "MUST be passed over (9110 §7.8)",
        (&[204], Closed, Conforms),
    );
    t.row(
        "An offer of WebSocket",
        fields(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
        OFFER,
        (&[204], Closed, Conforms),
    );
    t.row(
        "An offer with a body",
        h2c("Content-Length: 32\r\n", "BODY"),
        OFFER,
        (&[200], Closed, Conforms),
    )
    .publishes();
    t.row(
        "An offer with a chunked body",
        h2c(
            CHUNKED,
            "1b\r\n{\"category\":\"CATEGORY\",\"dat\r\n5\r\na\":1}\r\n0\r\n\r\n",
        ),
        OFFER,
        // tiny_http leaves the chunks encoded.
        (&[400], Closed, Tolerates),
    );
    t.row(
        "An offer, and Expect: 100-continue with a body",
        h2c("Expect: 100-continue\r\nContent-Length: 32\r\n", "BODY"),
        OFFER,
        (&[100, 200], Closed, Conforms),
    )
    .publishes();
    t.row(
        "An offer, and Expect: 100-continue with a chunked body",
        h2c(
            &format!("Expect: 100-continue\r\n{CHUNKED}"),
            "20\r\nBODY\r\n0\r\n\r\n",
        ),
        OFFER,
        (&[400], Closed, Tolerates),
    );
    t.row(
        "An offer, and chunks with extensions and a trailer",
        h2c(CHUNKED, "20;a=b\r\nBODY\r\n0\r\nX: a\r\n\r\n"),
        OFFER,
        (&[400], Closed, Tolerates),
    );
    for (name, body) in [
        (
            "An offer, and a size with a plus sign",
            "+20\r\nBODY\r\n0\r\n\r\n",
        ),
        (
            "An offer, and bare LF after a size",
            "20\nBODY\r\n0\r\n\r\n",
        ),
        (
            "An offer, and no line end after a chunk",
            "20\r\nBODY0\r\n\r\n",
        ),
        (
            "An offer, and a size of 2^64 and more",
            "100000000000000020\r\nBODY\r\n0\r\n\r\n",
        ),
    ] {
        t.row(
            name,
            h2c(CHUNKED, body),
            "400: the framing is invalid (9112 §7.1)",
            (&[400], Closed, Conforms),
        );
    }
    t.row(
        "An offer, and an extension of 64 KiB",
        h2c(
            CHUNKED,
            &format!("20;{}\r\nBODY\r\n0\r\n\r\n", "a".repeat(65536)),
        ),
        "ought to be limited: 4xx (9112 §7.1.1)",
        (&[400], Closed, Conforms),
    );
    t.row(
        "An offer, cut after the JSON, in its chunk",
        h2c(CHUNKED, "21\r\nBODY"),
        "MUST NOT be taken for complete (9112 §8)",
        (&[400], Closed, Conforms),
    )
    .finishes();
    t.row(
        "An offer, and more than is accepted in chunks",
        h2c(
            CHUNKED,
            &format!("2710\r\n{}\r\n0\r\n\r\n", "a".repeat(10000)),
        ),
        "413 (9110 §15.5.14)",
        (&[400], Closed, Tolerates),
    );
}

/// Polls that ask for Server-Sent Events.
fn streams(t: &mut Table) {
    const ACCEPT: &str = "Accept: text/event-stream\r\n";
    let old = |fields: &str| line("GET POLL HTTP/1.0", &format!("{ACCEPT}{fields}"));
    t.group = "Streams of events";
    t.row(
        "GET",
        fields(ACCEPT),
        "2xx in chunks (9112 §7.1)",
        (&[200], Kept, Conforms),
    );
    t.row(
        "HEAD",
        fields(ACCEPT).replace("GET", "HEAD"),
        "2xx without a body (9110 §9.3.2)",
        (&[200], Kept, Conforms),
    );
    t.row(
        "close",
        fields(&format!("{ACCEPT}Connection: close\r\n")),
        "MUST be closed (9112 §9.6)",
        (&[200], Closed, Conforms),
    );
    t.row(
        "HTTP/1.0",
        old(""),
        "2xx without chunks, closed (9112 §6.1)",
        (&[200], Closed, Conforms),
    );
    t.row(
        "HTTP/1.0 with keep-alive",
        old("Connection: keep-alive\r\n"),
        "2xx without chunks, MAY be kept (9112 §6.1, §9.3)",
        (&[200], Kept, Conforms),
    );
    t.row(
        "A weight of 0",
        fields("Accept: text/event-stream;q=0\r\n"),
        "another form (9110 §12.4.2)",
        (&[204], Kept, Conforms),
    );
}

fn methods(t: &mut Table) {
    const OTHER: &str = "SHOULD be 405 with Allow (9110 §9.1)";
    const UNKNOWN: &str = "SHOULD be 501 (9110 §9.1)";
    let method = |method: &str| line(&format!("{method} POLL HTTP/1.1"), "Host: t\r\n");
    t.group = "Methods";
    t.row(
        "HEAD",
        method("HEAD"),
        "2xx without a body (9110 §9.3.2)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "HEAD of what is not there",
        line("HEAD /x HTTP/1.1", "Host: t\r\n"),
        "404 without a body (9110 §9.3.2)",
        (&[404], Kept, Conforms),
    );
    t.row(
        "OPTIONS",
        method("OPTIONS"),
        "2xx (9110 §9.3.7)",
        (&[204], Kept, Conforms),
    );
    t.row(
        "OPTIONS *",
        line("OPTIONS * HTTP/1.1", "Host: t\r\n"),
        "2xx (9110 §9.3.7)",
        (&[204], Kept, Conforms),
    );
    t.row("TRACE", method("TRACE"), OTHER, (&[405], Kept, Conforms));
    t.row("DELETE", method("DELETE"), OTHER, (&[405], Kept, Conforms));
    t.row("PATCH", method("PATCH"), OTHER, (&[405], Kept, Conforms));
    t.row(
        "PUT of a publish",
        hidden().replace("POST", "PUT"),
        OTHER,
        (&[405], Kept, Conforms),
    );
    t.row(
        "GET of a publish",
        hidden().replace("POST", "GET"),
        OTHER,
        (&[405], Kept, Conforms),
    );
    t.row(
        "CONNECT",
        line("CONNECT t:80 HTTP/1.1", "Host: t\r\n"),
        "SHOULD be 501 (9110 §9.1, §9.3.6)",
        (&[501], Kept, Conforms),
    );
    t.row(
        "CONNECT of a path",
        method("CONNECT"),
        "SHOULD be 501 (9110 §9.1, §9.3.6)",
        (&[501], Kept, Conforms),
    );
    t.row(
        "One that nobody knows",
        method("FOO"),
        UNKNOWN,
        (&[405], Kept, Tolerates),
    );
    t.row(
        "Lower case",
        method("get"),
        "SHOULD be 501: case matters (9110 §9.1)",
        (&[405], Kept, Tolerates),
    );
    t.row(
        "8 KiB",
        method(&"A".repeat(8192)),
        "SHOULD be 501 (9112 §3)",
        (&[405], Kept, Tolerates),
    );
    t.row(
        "A bracket",
        method("G(T"),
        BAD_LINE,
        (&[400], Refuses, Conforms),
    );
    t.row(
        "NUL",
        method("GE\0T"),
        BAD_LINE,
        (&[400], Refuses, Conforms),
    );
}

fn smuggling(t: &mut Table) {
    const HIDDEN: &str = "The hidden publish MUST NOT be served (9112 §6.3, §11.2)";
    let size = hidden().len();
    let behind = |fields: &str| post(fields, "") + &hidden();
    let too_long = "a".repeat(MAX_BODY + 1);
    t.group = "A publish hidden in another request";
    t.row(
        "In the body of a GET",
        fields(&format!("Content-Length: {size}\r\n")) + &hidden(),
        HIDDEN,
        (&[204], Kept, Conforms),
    );
    t.row(
        "In the body of a publish",
        behind(&format!("Content-Length: {size}\r\n")),
        HIDDEN,
        (&[400], Kept, Conforms),
    );
    t.row(
        "In a chunk",
        chunked(&format!("{size:x}\r\n{}\r\n0\r\n\r\n", hidden())),
        HIDDEN,
        (&[400], Kept, Conforms),
    );
    t.row(
        "After the last chunk, in a Content-Length",
        behind(&format!(
            "Transfer-Encoding: chunked\r\nContent-Length: {}\r\n",
            size + 5
        ))
        .replacen("\r\n\r\n", "\r\n\r\n0\r\n\r\n", 1),
        HIDDEN,
        (&[400, 400], Closed, Conforms),
    );
    t.row(
        "In a Content-Length besides a Transfer-Encoding",
        behind(&format!(
            "Content-Length: {size}\r\nTransfer-Encoding: chunked\r\n"
        )),
        HIDDEN,
        (&[400, 400], Refuses, Conforms),
    );
    t.row(
        "In a body of an unknown coding",
        behind(&format!(
            "Transfer-Encoding: identity\r\nContent-Length: {size}\r\n"
        )),
        HIDDEN,
        (&[400, 400], Refuses, Conforms),
    );
    t.row(
        "In the longer one of two lengths",
        behind(&format!("Content-Length: 0\r\nContent-Length: {size}\r\n")),
        HIDDEN,
        (&[400, 400], Refuses, Conforms),
    );
    t.row(
        "In a list of lengths",
        behind(&format!("Content-Length: {size}, {size}\r\n")),
        HIDDEN,
        (&[400, 400], Refuses, Conforms),
    );
    t.row(
        "Behind a length in hexadecimal",
        behind("Content-Length: 0x0\r\n"),
        HIDDEN,
        (&[400, 400], Refuses, Conforms),
    );
    t.row(
        "Behind a length that overflows",
        behind("Content-Length: 18446744073709551616\r\n"),
        HIDDEN,
        (&[400, 400], Refuses, Conforms),
    );
    t.row(
        "Behind a length with a space before the colon",
        behind(&format!("Content-Length : {size}\r\n")),
        HIDDEN,
        (&[400], Closed, Conforms),
    );
    t.row(
        "Behind a length after a bare LF",
        behind(&format!("X: a\nContent-Length: {size}\r\n")),
        HIDDEN,
        (&[400, 400], Refuses, Conforms),
    );
    t.row(
        "Behind a length after a bare CR",
        behind(&format!("X: a\rContent-Length: {size}\r\n")),
        HIDDEN,
        (&[400, 400], Refuses, Conforms),
    );
    t.row(
        "Behind a length in a folded line",
        behind(&format!("X: a\r\n Content-Length: {size}\r\n")),
        "MUST be 400 or unfolded (9112 §5.2)",
        (&[400], Kept, Proxy),
    );
    t.row(
        "Behind a size that is none",
        chunked("xyz\r\n") + &hidden(),
        HIDDEN,
        (&[400, 400], Refuses, Conforms),
    );
    t.row(
        "Behind a last chunk that a bare LF ends",
        chunked("0\n\r\n") + &hidden(),
        HIDDEN,
        (&[400, 400], Refuses, Conforms),
    );
    t.row(
        "In the rest of chunks that are too large",
        chunked(&format!(
            "{:x}\r\n{too_long}{}\r\n0\r\n\r\n",
            MAX_BODY + 1 + size,
            hidden()
        )),
        HIDDEN,
        (&[413, 400, 400], Closed, Conforms),
    );
    t.row(
        "Behind a head of HTTP/0.9",
        behind("").replacen("HTTP/1.1", "HTTP/0.9", 1),
        HIDDEN,
        (&[400, 400], Refuses, Conforms),
    );
    t.row(
        "Behind an expectation that is not met",
        behind(&format!("Expect: x\r\nContent-Length: {size}\r\n")),
        HIDDEN,
        (&[417], Closed, Conforms),
    );
    t.row(
        "Behind an offer of another protocol",
        fields("Connection: upgrade\r\nUpgrade: h2c\r\n") + &hidden(),
        "MAY be passed over; then a second request follows (9110 §7.8)",
        (&[204], Closed, Conforms),
    );
}
