//! A client of Server-Sent Events, which reads a stream to the letter.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use long_polling::Server;
use serde_json::Value;

use crate::support::{Answer, Connection, LIMIT};

/// What an empty line ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) event: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) retry: Option<u64>,
    pub(crate) comments: usize,
}

impl Block {
    /// A block with no line that this client does not know.
    fn of(text: &str) -> Self {
        let mut block = Block::default();
        for line in text.lines() {
            let (name, value) = line.split_once(':').expect("a field or a comment");
            let value = value.strip_prefix(' ').unwrap_or(value);
            let replaced = match name {
                "" => {
                    block.comments += 1;
                    None
                }
                "event" => block.event.replace(value.into()),
                "data" => block.data.replace(value.into()),
                "id" => block.id.replace(value.into()),
                "retry" => {
                    block.retry = Some(value.parse().expect("milliseconds"));
                    None
                }
                _ => panic!("an unknown line {line:?}"),
            };
            assert_eq!(replaced, None, "{name} twice in {text:?}");
        }
        block
    }

    pub(crate) fn is_gap(&self) -> bool {
        let gap = Block {
            event: Some("gap".into()),
            data: Some("{}".into()),
            ..Block::default()
        };
        *self == gap
    }

    /// The event's JSON, whose id must be that of the block.
    pub(crate) fn event(&self) -> Value {
        let json: Value = serde_json::from_str(self.data.as_ref().expect("data")).expect("JSON");
        assert_eq!(json["id"].as_str(), self.id.as_deref());
        assert_eq!(self.event, None);
        json
    }
}

/// The blocks of a whole body.
pub(crate) fn blocks(body: &str) -> Vec<Block> {
    let whole = body.strip_suffix("\n\n").expect("an empty line at the end");
    whole.split("\n\n").map(Block::of).collect()
}

/// A stream that a server has begun.
pub(crate) struct Stream {
    pub(crate) connection: Connection,
    pub(crate) head: Answer,
    is_chunked: bool,
    text: String,
    blocks: VecDeque<Block>,
    has_ended: bool,
    /// What a browser would send as `Last-Event-ID`.
    pub(crate) last_id: Option<String>,
    /// The last time that the server has set, in milliseconds.
    pub(crate) retry: Option<u64>,
}

impl Stream {
    /// Asks for a stream with this query and these fields.
    pub(crate) fn open(server: &Server, query: &str, fields: &str) -> Self {
        let mut connection = Connection::to(server);
        connection.send(request("GET", "HTTP/1.1", query, fields));
        Stream::read(connection)
    }

    /// Reads the head of an answer that must be a stream.
    pub(crate) fn read(mut connection: Connection) -> Self {
        let head = connection.read(true).expect("a head");
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
        assert_eq!(head.header("Content-Length"), None);
        let coding = head.header("Transfer-Encoding");
        assert!(matches!(coding, None | Some("chunked")), "{coding:?}");
        Stream {
            is_chunked: coding.is_some(),
            connection,
            head,
            text: String::new(),
            blocks: VecDeque::new(),
            has_ended: false,
            last_id: None,
            retry: None,
        }
    }

    /// The next block of any kind; `None` at the regular end.
    pub(crate) fn try_block(&mut self) -> io::Result<Option<Block>> {
        while self.blocks.is_empty() && !self.has_ended {
            let piece = match self.is_chunked {
                true => self.connection.chunk()?,
                false => self.connection.piece()?,
            };
            self.has_ended = piece.is_empty();
            self.text += std::str::from_utf8(&piece).expect("UTF-8");
            if let Some(end) = self.text.rfind("\n\n") {
                let rest = self.text.split_off(end + 2);
                let whole = std::mem::replace(&mut self.text, rest);
                self.blocks.extend(blocks(&whole));
            }
        }
        let block = self.blocks.pop_front();
        match &block {
            None => assert_eq!(self.text, "", "the last block has no end"),
            Some(block) => {
                self.last_id = block.id.clone().or(self.last_id.take());
                self.retry = block.retry.or(self.retry);
            }
        }
        Ok(block)
    }

    pub(crate) fn block(&mut self) -> Option<Block> {
        self.try_block().expect("a block")
    }

    /// The next block that a page would see: an event or a gap; `None` at the end. Comments alone must not come for ever.
    pub(crate) fn dispatched(&mut self) -> Option<Block> {
        let end = Instant::now() + LIMIT;
        loop {
            assert!(Instant::now() < end, "neither an event nor an end");
            let block = self.block()?;
            if block.data.is_some() {
                return Some(block);
            }
        }
    }

    /// The data of the next event. There is no gap before it.
    pub(crate) fn data(&mut self) -> Value {
        self.dispatched().expect("an event").event()["data"].take()
    }

    /// The position that the beginning of a stream without events gives.
    pub(crate) fn position(&mut self) -> String {
        while self.last_id.is_none() {
            let block = self.block().expect("a position");
            assert_eq!(block.data, None, "{block:?}");
        }
        self.last_id.clone().expect("a position")
    }

    /// Reads to the regular end, and returns what a page would see until then.
    pub(crate) fn rest(&mut self) -> Vec<Block> {
        std::iter::from_fn(|| self.dispatched()).collect()
    }
}

/// A request for a stream.
pub(crate) fn request(method: &str, version: &str, query: &str, fields: &str) -> String {
    format!(
        "{method} /events?{query} {version}\r\nHost: localhost\r\nAccept: text/event-stream\r\n{fields}\r\n"
    )
}
