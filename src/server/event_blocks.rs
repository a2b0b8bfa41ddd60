//! The text of a stream of Server-Sent Events (HTML Living Standard, section 9.2.5), piece by piece: [`Blocks`].

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;

use super::render::Framing;
use crate::broker::Batch;
use crate::position::EventId;

/// Comes before the events after which others were lost. It has no id, so that a client that loses the connection right after
/// it gets it again.
const GAP: &[u8] = b"event: gap\ndata: {}\n\n";
/// What proxies see of a stream without events.
const COMMENT: &[u8] = b":\n\n";
/// The bytes of an event's block besides its JSON.
const AROUND_EVENT: usize = 64;

/// The time before a client connects again after a regular end, in milliseconds. Not zero: clients of a server that has gone
/// keep it until they reach another one.
pub(super) const SOON: Range<u64> = 50..150;
/// The same after a break, such as the restart of the server, which all clients see in the same instant.
pub(super) const LATER: Range<u64> = 1000..3000;

/// A piece of a stream that has not been written: blocks, each of which ends with an empty line, in the framing of the answer.
pub(super) struct Blocks {
    pub(super) bytes: Vec<u8>,
    framing: Framing,
}

impl Blocks {
    /// Begins with these bytes, which are not framed.
    pub(super) fn after(head: Vec<u8>, framing: Framing) -> Self {
        Blocks {
            bytes: head,
            framing,
        }
    }

    /// Sets how long the client waits before it connects again: some time in this range, so that a thousand clients don't come
    /// back in the same instant.
    pub(super) fn retry(&mut self, milliseconds: Range<u64>) {
        let random = RandomState::new().hash_one(0);
        let time = milliseconds.start + random % (milliseconds.end - milliseconds.start);
        self.push(format!("retry: {time}\n\n").as_bytes());
    }

    /// Sets the position from which the client goes on. A block without data is no event to it.
    pub(super) fn position(&mut self, id: EventId) {
        let mut block = Vec::with_capacity(AROUND_EVENT);
        push_id(&mut block, id);
        block.push(b'\n');
        self.push(&block);
    }

    pub(super) fn comment(&mut self) {
        self.push(COMMENT);
    }

    /// The blocks of a batch's events. All streams with this framing share them.
    pub(super) fn of_events(batch: &Batch, framing: Framing) -> Arc<[u8]> {
        // No variant of an answer to a poll has such a name.
        let variant = match framing {
            Framing::Chunked => "event stream, chunked",
            _ => "event stream",
        };
        batch.rendered(variant, |batch| {
            let mut blocks = Blocks::after(Vec::new(), framing);
            blocks.push(&events(batch));
            blocks.bytes
        })
    }

    /// Ends the answer's body.
    pub(super) fn end(&mut self) {
        if self.framing == Framing::Chunked {
            self.bytes.extend_from_slice(b"0\r\n\r\n");
        }
    }

    fn push(&mut self, block: &[u8]) {
        let is_chunk = self.framing == Framing::Chunked;
        if is_chunk {
            let size = format!("{:x}\r\n", block.len());
            self.bytes.extend_from_slice(size.as_bytes());
        }
        self.bytes.extend_from_slice(block);
        if is_chunk {
            self.bytes.extend_from_slice(b"\r\n");
        }
    }
}

fn push_id(block: &mut Vec<u8>, id: EventId) {
    block.extend_from_slice(b"id: ");
    block.extend_from_slice(&id.to_text());
    block.push(b'\n');
}

fn events(batch: &Batch) -> Vec<u8> {
    let sizes = batch.events().iter();
    let size: usize = sizes
        .map(|event| event.as_json().len() + AROUND_EVENT)
        .sum();
    let mut text = Vec::with_capacity(size + AROUND_EVENT);
    if batch.gap() {
        text.extend_from_slice(GAP);
    }
    for event in batch.events() {
        push_id(&mut text, event.id());
        // An event's JSON is one line.
        for part in ["data: ", event.as_json(), "\n\n"] {
            text.extend_from_slice(part.as_bytes());
        }
    }
    // After lost events, where these are later than the last one here.
    if batch.events().last().map(|event| event.id()) != Some(batch.last_id()) {
        push_id(&mut text, batch.last_id());
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::{Broker, BrokerOptions};
    use crate::position::Cursor;

    #[test]
    fn streams_of_one_framing_share_the_blocks_of_a_batch() {
        let broker = Broker::new(BrokerOptions::new()).unwrap();
        broker.publish("c", "x").unwrap();
        let batch = broker.subscribe("c", Cursor::Oldest, Duration::ZERO);
        let batch = batch.unwrap();
        let of = |framing| Blocks::of_events(&batch, framing);
        let chunk = of(Framing::Chunked);
        let plain = of(Framing::UntilClose);
        assert!(Arc::ptr_eq(&chunk, &of(Framing::Chunked)));
        assert!(Arc::ptr_eq(&plain, &of(Framing::UntilClose)));
        let event = &batch.events()[0];
        let text = format!("id: {}\ndata: {}\n\n", event.id(), event.as_json());
        assert_eq!(&*plain, text.as_bytes());
        let framed = format!("{:x}\r\n{text}\r\n", text.len());
        assert_eq!(&*chunk, framed.as_bytes());
    }

    #[test]
    fn a_gap_comes_before_the_events_and_a_position_past_them_after() {
        let position = EventId::from(9);
        let batch = Batch::new(Vec::new(), true, position);
        let text = String::from_utf8(events(&batch)).unwrap();
        assert_eq!(
            text,
            format!("event: gap\ndata: {{}}\n\nid: {position}\n\n")
        );
    }
}
