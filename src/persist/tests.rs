use crate::event::{Draft, Event};
use crate::position::{EventId, Run};

/// An event whose sequence number is its timestamp.
pub(super) fn event(timestamp: u64, data: &str) -> Event {
    let id = EventId::new(Run::new(1_700_000_000_000, 7), timestamp);
    let draft = Draft::new("category".into(), data).unwrap();
    draft.stamp(timestamp, id)
}
