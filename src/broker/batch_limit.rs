//! [`BatchLimit`]: how much of what is there one batch holds.

use super::ring::Entry;

/// How much of what is there one batch holds: the oldest, at least one event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimit {
    /// The most events.
    pub(crate) events: usize,
    /// The most bytes of JSON, with a comma for each event.
    pub(crate) bytes: usize,
    /// It ends between two milliseconds, where one of them fits.
    pub(crate) whole_milliseconds: bool,
}

/// The room that is left in a batch.
struct Room {
    events: usize,
    bytes: usize,
    empty: bool,
}

impl Room {
    /// False where the event does not fit any more.
    fn fits(&mut self, entry: &Entry) -> bool {
        let size = entry.event.as_json().len() + 1;
        let fits = self.empty || (self.events > 0 && self.bytes >= size);
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
        self.empty = false;
        fits
    }
}

impl BatchLimit {
    fn room(self) -> Room {
        Room {
            events: self.events,
            bytes: self.bytes,
            empty: true,
        }
    }

    /// As many of a category's events as can be needed to find the limit of several categories, and one more, which
    /// tells that it is not all.
    pub(crate) fn needed<'a>(
        self,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> impl Iterator<Item = &'a Entry> {
        let (mut room, mut full) = (self.room(), false);
        entries.take_while(move |entry| {
            let needed = !full;
            full = !self.whole_milliseconds && !room.fits(entry);
            needed
        })
    }

    /// How many of these events, which are in publish order, are the limit.
    pub(crate) fn of(self, entries: &[Entry]) -> usize {
        let mut room = self.room();
        let most = entries.iter().take_while(|entry| room.fits(entry)).count();
        if self.whole_milliseconds && most < entries.len() {
            between_milliseconds(entries, most).unwrap_or(most)
        } else {
            most
        }
    }
}

/// The largest part of at most `most` events whose timestamps are all less than those of the rest. Events of several
/// categories that were read from a file may be in another order than their timestamps.
fn between_milliseconds(entries: &[Entry], most: usize) -> Option<usize> {
    let mut earliest_of_rest = vec![u64::MAX; entries.len() + 1];
    for (at, entry) in entries.iter().enumerate().rev() {
        earliest_of_rest[at] = earliest_of_rest[at + 1].min(entry.time());
    }
    let mut latest = 0;
    let ends = std::iter::zip(1.., &entries[..most]).filter_map(|(count, entry)| {
        latest = latest.max(entry.time());
        (latest < earliest_of_rest[count]).then_some(count)
    });
    ends.last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Draft;
    use crate::position::EventId;

    /// Events with these timestamps.
    fn entries(timestamps: &[u64]) -> Vec<Entry> {
        let entry = |(sequence, timestamp)| Entry {
            sequence,
            published: 0,
            event: Draft::new("c".into(), "x")
                .unwrap()
                .stamp(timestamp, EventId::from(u128::from(sequence))),
        };
        std::iter::zip(1.., timestamps.iter().copied())
            .map(entry)
            .collect()
    }

    /// Of one of them, with its comma.
    fn size() -> usize {
        entries(&[1])[0].event.as_json().len() + 1
    }

    fn exact(events: usize, bytes: usize) -> BatchLimit {
        BatchLimit {
            events,
            bytes,
            whole_milliseconds: false,
        }
    }

    #[test]
    fn a_portion_has_as_many_events_as_fit_and_at_least_one() {
        let entries = entries(&[1, 1, 2, 2]);
        for (limit, count) in [
            (exact(usize::MAX, 4 * size()), 4),
            (exact(usize::MAX, 4 * size() - 1), 3),
            (exact(usize::MAX, 1), 1),
            (exact(3, usize::MAX), 3),
            (exact(3, 2 * size()), 2),
            (exact(1, 2 * size()), 1),
        ] {
            assert_eq!(limit.of(&entries), count, "{limit:?}");
            let needed = limit.needed(entries.iter()).count();
            assert_eq!(needed, entries.len().min(count + 1), "{limit:?}");
        }
        assert_eq!(exact(1, 1).of(&[]), 0);
    }

    #[test]
    fn a_portion_for_a_follower_by_time_ends_between_two_milliseconds() {
        for (timestamps, most, count) in [
            (&[1, 1, 2, 2, 3][..], 4, 4),
            (&[1, 1, 2, 2, 3], 3, 2),
            // Not in order: 5 is followed by 4, so that neither can be the end.
            (&[1, 5, 4, 6, 7], 2, 1),
            (&[1, 5, 4, 6, 7], 3, 3),
            (&[1, u64::MAX, u64::MAX], 2, 1),
            // No millisecond fits: as many events as fit.
            (&[1, 1, 2, 2, 3], 1, 1),
            (&[1, 1, 1], 2, 2),
            (&[3, 5, 4, 2, 7], 1, 1),
            (&[3, 2, 1], 1, 1),
            (&[u64::MAX, u64::MAX], 1, 1),
        ] {
            let entries = entries(timestamps);
            let longest = entries.iter().map(|entry| entry.event.as_json().len() + 1);
            let limit = BatchLimit {
                events: most,
                bytes: longest.max().unwrap() * entries.len(),
                whole_milliseconds: true,
            };
            assert_eq!(limit.of(&entries), count, "{timestamps:?}");
            let needed = limit.needed(entries.iter()).count();
            assert_eq!(needed, entries.len());
        }
    }
}
