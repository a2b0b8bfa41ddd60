//! [`Loss`]: the newest event that a category lost, and [`LossTable`]: the losses of categories that are no longer in
//! memory.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

/// The newest event that a category lost. An event is lost when it is pushed out of its ring buffer, expires or is
/// evicted, but not when its retrieval deletes it. A subscriber with an older position gets a gap. All zero if nothing was
/// lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) sequence: u64,
    pub(crate) timestamp: u64,
}

impl Loss {
    pub(crate) fn max(self, other: Loss) -> Loss {
        Loss {
            sequence: self.sequence.max(other.sequence),
            timestamp: self.timestamp.max(other.timestamp),
        }
    }

    fn is_none(self) -> bool {
        self == Loss::default()
    }
}

/// The losses of categories that are no longer in memory, in a table of at most 1024 rows.
///
/// A category's row is a hash of its name, so that several names share a row. A subscriber may therefore get a gap for an
/// event that another category lost, but no gap is ever missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossTable {
    /// Decides which names share a row. Every new log has another one.
    salt: u64,
    /// The rows that have a loss. A log from another version may have rows past the last one: they are kept, and no name
    /// has them.
    rows: BTreeMap<usize, Loss>,
}

impl LossTable {
    /// The rows of a table. The number is part of the file format.
    const ROWS: u64 = 1024;

    /// Returns an empty table with a random salt.
    pub(crate) fn new() -> Self {
        // Two names that share a row by chance would fail a test once in a thousand runs.
        let salt = if cfg!(feature = "testing") {
            0
        } else {
            RandomState::new().hash_one(0)
        };
        LossTable::from_rows(salt, [])
    }

    /// Returns a table with these rows. If a row is given twice, the table has the greater of the two losses.
    pub(super) fn from_rows(salt: u64, rows: impl IntoIterator<Item = (usize, Loss)>) -> Self {
        let mut table = LossTable {
            salt,
            rows: BTreeMap::new(),
        };
        for (row, loss) in rows {
            table.add_to(row, loss);
        }
        table
    }

    /// Returns the newest loss of this category and of the others that share its row.
    pub(crate) fn of(&self, category: &str) -> Loss {
        self.rows
            .get(&self.row(category))
            .copied()
            .unwrap_or_default()
    }

    /// Records that this category lost this event and older ones.
    pub(crate) fn add(&mut self, category: &str, loss: Loss) {
        self.add_to(self.row(category), loss);
    }

    /// Adds the losses of a table that was read from a log, and takes over its salt. Losses that were added before, under
    /// another salt, would be in the wrong rows.
    pub(crate) fn restore(&mut self, table: &LossTable) {
        self.salt = table.salt;
        for (row, loss) in &table.rows {
            if (*row as u64) < LossTable::ROWS {
                self.add_to(*row, *loss);
            }
        }
    }

    /// Returns the table with each loss changed by `change`, without the rows that no longer have a lost event.
    pub(crate) fn map(&self, change: impl Fn(Loss) -> Loss) -> LossTable {
        let rows = self.rows.iter().map(|(row, loss)| (*row, change(*loss)));
        let rows = rows.filter(|(_, loss)| loss.sequence > 0);
        LossTable::from_rows(self.salt, rows)
    }

    /// Returns the losses of all rows.
    pub(crate) fn losses(&self) -> impl Iterator<Item = Loss> + '_ {
        self.rows.values().copied()
    }

    pub(super) fn salt(&self) -> u64 {
        self.salt
    }

    /// Returns the rows that have a loss, by number.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = (usize, Loss)> + '_ {
        self.rows.iter().map(|(row, loss)| (*row, *loss))
    }

    fn add_to(&mut self, row: usize, loss: Loss) {
        if !loss.is_none() {
            let entry = self.rows.entry(row).or_default();
            *entry = entry.max(loss);
        }
    }

    /// The hash is FNV-1a. It is part of the file format: every program that reads the log must compute the same rows.
    fn row(&self, category: &str) -> usize {
        let start = self.salt ^ 0xcbf2_9ce4_8422_2325;
        let hash = category.bytes().fold(start, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        ((hash >> 32 ^ hash) % LossTable::ROWS) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(sequence: u64, timestamp: u64) -> Loss {
        Loss {
            sequence,
            timestamp,
        }
    }

    #[test]
    fn a_table_has_the_newest_loss_of_each_category() {
        let mut table = LossTable::from_rows(7, []);
        assert_eq!(table.of("a"), Loss::default());
        table.add("a", loss(3, 10));
        table.add("a", loss(2, 20));
        assert_eq!(table.of("a"), loss(3, 20));
        assert_eq!(table.rows().len(), 1);
        table.add("b", Loss::default());
        assert_eq!(table.rows().len(), 1);
        let rows = table.map(|loss| Loss {
            sequence: loss.sequence.min(2),
            ..loss
        });
        assert_eq!(rows.of("a"), loss(2, 20));
        assert_eq!(table.map(|_| loss(0, 20)).rows().len(), 0);
    }

    #[test]
    fn a_restored_table_finds_the_losses_of_the_one_that_was_written() {
        let mut written = LossTable::from_rows(42, []);
        for number in 0..2000 {
            written.add(&number.to_string(), loss(number, number));
        }
        assert!(written.rows().len() <= LossTable::ROWS as usize);
        let mut restored = LossTable::from_rows(0, []);
        restored.restore(&written);
        assert_eq!(restored, written);
        // Rows of another version belong to no name.
        restored.restore(&LossTable::from_rows(42, [(5000, loss(1, 1))]));
        assert_eq!(restored, written);
    }

    /// The rows are part of the file format.
    #[test]
    fn the_row_of_a_name_never_changes() {
        let rows = |salt| {
            let table = LossTable::from_rows(salt, []);
            ["", "a", "category", "é"].map(|name| table.row(name))
        };
        assert_eq!(
            (rows(0), rows(u64::MAX)),
            ([961, 192, 366, 262], [961, 882, 845, 46])
        );
    }
}
