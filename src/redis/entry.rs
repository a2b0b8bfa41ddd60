//! [`StreamEntry`]: an entry of a stream as Redis gives it.

use std::num::NonZeroU64;

use ::redis::Value;
use serde_json::value::RawValue;

use crate::event::{Draft, Event};
use crate::position::{EventId, Run};

/// An entry of a stream. Its id is `timestamp-sequence`.
#[derive(Debug)]
pub(super) struct StreamEntry {
    pub(super) id: String,
    pub(super) timestamp: u64,
    pub(super) sequence: u64,
    fields: Vec<Value>,
}

impl StreamEntry {
    fn field(&self, name: &str) -> Option<&[u8]> {
        let pair = self.fields.chunks_exact(2).find(
            |pair| matches!(&pair[0], Value::BulkString(bytes) if bytes == name.as_bytes()),
        )?;
        match &pair[1] {
            Value::BulkString(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Returns the epoch of the event.
    pub(super) fn run(&self) -> Option<Run> {
        parse_run(std::str::from_utf8(self.field("epoch")?).ok()?)
    }

    /// Returns the event or the purge; `None` if the entry is not one, as another program's.
    pub(super) fn event(&self) -> Option<Event> {
        let category = std::str::from_utf8(self.field("category")?).ok()?;
        if self.field("purge").is_some() {
            let purge = Draft::purge(category.into()).ok()?;
            let id = EventId::new(self.run()?, self.sequence);
            return Some(purge.stamp(self.timestamp, id));
        }
        let data: &RawValue = serde_json::from_slice(self.field("data")?).ok()?;
        let draft = Draft::new(category.into(), data).ok()?;
        let id = EventId::new(self.run()?, self.sequence);
        let ttl = self.field("ttl_ms").and_then(|ttl| {
            let ttl = number(std::str::from_utf8(ttl).ok()?)?;
            NonZeroU64::new(ttl)
        });
        Some(draft.with_own_ttl(ttl).stamp(self.timestamp, id))
    }
}

/// Returns the text of an epoch in Redis.
pub(super) fn hex(run: Run) -> String {
    format!("{:015x}", run.bits())
}

/// Reads the text of an epoch.
pub(super) fn parse_run(text: &str) -> Option<Run> {
    let bits = u64::from_str_radix(text, 16).ok()?;
    Some(Run::new(bits >> 12, bits))
}

/// Returns the text of a value.
pub(super) fn bulk(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

pub(super) fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// Reads the answer to XRANGE.
pub(super) fn entries(answer: Value) -> Option<Vec<StreamEntry>> {
    let Value::Array(list) = answer else {
        return None;
    };
    list.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Option<StreamEntry> {
    let Value::Array(parts) = value else {
        return None;
    };
    let mut parts = parts.into_iter();
    let id = bulk(&parts.next()?)?;
    let (timestamp, sequence) = id.split_once('-')?;
    let (timestamp, sequence) = (number(timestamp)?, number(sequence)?);
    let fields = match parts.next()? {
        Value::Array(fields) => fields,
        // An entry that was deleted meanwhile.
        Value::Nil => Vec::new(),
        _ => return None,
    };
    Some(StreamEntry {
        timestamp,
        sequence,
        fields,
        id,
    })
}

/// Reads the answer to XREAD of one stream.
pub(super) fn read_entries(answer: Value) -> Option<Vec<StreamEntry>> {
    let streams = match answer {
        Value::Nil => return Some(Vec::new()),
        Value::Array(streams) => streams,
        _ => return None,
    };
    let Value::Array(stream) = streams.into_iter().next()? else {
        return None;
    };
    entries(stream.into_iter().nth(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn answer(id: &str, fields: &[&str]) -> Value {
        let fields = fields.iter().map(|field| text(field)).collect();
        Value::Array(vec![Value::Array(vec![text(id), Value::Array(fields)])])
    }

    #[test]
    fn an_entry_becomes_the_event_that_was_published() {
        let fields = [
            "epoch",
            "00018bcfe568abc",
            "category",
            "c",
            "data",
            r#"{"a":1}"#,
        ];
        let entries = entries(answer("1700000000000-42", &fields)).unwrap();
        let event = entries[0].event().unwrap();
        assert_eq!((event.category(), event.data()), ("c", r#"{"a":1}"#));
        assert_eq!(event.timestamp(), 1_700_000_000_000);
        assert_eq!(event.id().parts(), Some((entries[0].run().unwrap(), 42)));
    }

    #[test]
    fn an_entry_of_another_program_is_no_event() {
        for fields in [
            &["x", "y"][..],
            &["epoch", "1", "category", "c"],
            &["epoch", "1", "category", "c", "data", "{"],
            &["epoch", "zz", "category", "c", "data", "1"],
        ] {
            let entries = entries(answer("1-2", fields)).unwrap();
            assert!(entries[0].event().is_none(), "{fields:?}");
        }
        assert!(entries(answer("1", &[])).is_none());
        assert!(read_entries(Value::Nil).unwrap().is_empty());
    }
}
