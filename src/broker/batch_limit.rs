//! [`BatchLimit`]: the most that one batch may hold.

use super::ring::Entry;

/// The most that one batch may hold. It holds the oldest events, and at least one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimit {
    /// The most events.
    pub(crate) events: usize,
    /// The most bytes of JSON, with a comma for each event.
    pub(crate) bytes: usize,
    /// The batch ends between two milliseconds, if a whole one fits.
    pub(crate) whole_milliseconds: bool,
}

/// The room that is left in a batch.
struct Room {
    events: usize,
    bytes: usize,
    empty: bool,
}

impl Room {
    /// Takes the room of an event. Returns `false` if the event does not fit.
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

    /// Counts how many of a category's events one batch of several categories may need, and one more, which shows that there
    /// are more. Every event up to the sequence number `least` is needed.
    ///
    /// The timestamps of one category ascend. So the one more has the least timestamp of all that are left out, which is
    /// what [`count`](Self::count) needs to know of them.
    pub(crate) fn needed<'a>(
        self,
        entries: impl Iterator<Item = &'a Entry>,
        least: Option<u64>,
    ) -> usize {
        let (mut room, mut full) = (self.room(), false);
        let needed = entries.take_while(|entry| {
            let needed = !full;
            full = !room.fits(entry) && Some(entry.sequence) > least;
            needed
        });
        needed.count()
    }

    /// Counts how many of these events, which are in publish order, one batch holds.
    pub(crate) fn count(self, entries: &[Entry]) -> usize {
        let mut room = self.room();
        let most = entries.iter().take_while(|entry| room.fits(entry)).count();
        if self.whole_milliseconds && most < entries.len() {
            between_milliseconds(entries, most).unwrap_or(most)
        } else {
            most
        }
    }
}

/// Returns the most events, up to `most`, whose timestamps are all less than those of the rest. Events of several
/// categories that were read from a log may be in another order than their timestamps.
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
            more: 0,
            event: Draft::new("c".into(), "x")
                .unwrap()
                .stamp(timestamp, EventId::from(u128::from(sequence))),
        };
        std::iter::zip(1.., timestamps.iter().copied())
            .map(entry)
            .collect()
    }

    /// The bytes of one of these events, with its comma.
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
    fn a_batch_has_as_many_events_as_fit_and_at_least_one() {
        let entries = entries(&[1, 1, 2, 2]);
        for (limit, count) in [
            (exact(usize::MAX, 4 * size()), 4),
            (exact(usize::MAX, 4 * size() - 1), 3),
            (exact(usize::MAX, 1), 1),
            (exact(3, usize::MAX), 3),
            (exact(3, 2 * size()), 2),
            (exact(1, 2 * size()), 1),
        ] {
            assert_eq!(limit.count(&entries), count, "{limit:?}");
            let needed = limit.needed(entries.iter(), None);
            assert_eq!(needed, entries.len().min(count + 1), "{limit:?}");
            let needed = limit.needed(entries.iter(), Some(3));
            assert_eq!(needed, 4, "{limit:?}");
        }
        assert_eq!(exact(1, 1).count(&[]), 0);
    }

    #[test]
    fn a_batch_for_a_follower_by_time_ends_between_two_milliseconds() {
        for (timestamps, most, count) in [
            (&[1, 1, 2, 2, 3][..], 4, 4),
            (&[1, 1, 2, 2, 3], 3, 2),
            // Not in order: 4 follows 5, so that neither can be the end.
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
            assert_eq!(limit.count(&entries), count, "{timestamps:?}");
            let needed = limit.needed(entries.iter(), None);
            assert_eq!(needed, entries.len().min(most + 1), "{timestamps:?}");
        }
    }
}
