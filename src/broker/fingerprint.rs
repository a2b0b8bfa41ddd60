//! [`Fingerprint`]: what tells whether two publishes with one idempotency key are of the same events.

use crate::event::Draft;

/// The fingerprint of the events of a publish: FNV-1a over the category, the data and the time to live of each event, each
/// text with its length. It is in the log and in Redis, so it must never change.
pub(super) struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    pub(super) fn of(drafts: &[Draft]) -> u64 {
        let mut fingerprint = Fingerprint::default();
        for draft in drafts {
            fingerprint.add(draft.category(), draft.data(), draft.own_ttl());
        }
        fingerprint.finish()
    }

    pub(super) fn add(&mut self, category: &str, data: &str, ttl: Option<u64>) {
        for text in [category, data] {
            self.write(&(text.len() as u64).to_le_bytes());
            self.write(text.as_bytes());
        }
        self.write(&ttl.unwrap_or(0).to_le_bytes());
    }

    fn write(&mut self, bytes: &[u8]) {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        self.0 = bytes.iter().fold(self.0, step);
    }

    pub(super) fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A changed fingerprint would make each key of an older log one of other events.
    #[test]
    fn the_fingerprint_is_the_same_in_every_version() {
        let mut empty = Fingerprint::default();
        empty.write(b"");
        assert_eq!(empty.finish(), 0xcbf2_9ce4_8422_2325);
        let mut known = Fingerprint::default();
        known.write(b"foobar");
        assert_eq!(known.finish(), 0x8594_4171_f739_67e8);
        let draft = |category: &str, data: &str| Draft::new(category.into(), data).unwrap();
        let one = Fingerprint::of(&[draft("c", "x")]);
        assert_eq!(one, 0x9e87_007f_cd88_919a);
        assert_ne!(one, Fingerprint::of(&[draft("c", "x"), draft("c", "x")]));
        assert_ne!(
            Fingerprint::of(&[draft("ab", "c")]),
            Fingerprint::of(&[draft("a", "bc")])
        );
    }
}
