//! Random numbers and keys. The keys of a hasher are std's only source of randomness.

use std::hash::{BuildHasher, RandomState};
use std::process;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

/// Returns a random number, at least 0 and less than 1.
pub(super) fn fraction() -> f64 {
    let bits = RandomState::new().hash_one(()) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// Returns a new idempotency key: 128 random bits, as 32 hexadecimal digits.
///
/// std asks the system for random bits once in each thread. The hashed number, process and time let the keys differ in a
/// process that was forked, and in a copy of a virtual machine, too.
pub(super) fn key() -> String {
    static KEYS: AtomicUsize = AtomicUsize::new(0);
    let number = KEYS.fetch_add(1, Relaxed);
    let input = (number, process::id(), SystemTime::now());
    let half = || RandomState::new().hash_one(input);
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::thread;

    #[test]
    fn keys_have_32_digits_and_differ_in_each_half() {
        let keys: Vec<String> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..250).map(|_| key()).collect::<Vec<_>>()))
                .collect();
            let keys = threads.into_iter().map(|thread| thread.join().unwrap());
            keys.flatten().collect()
        });
        assert!(keys.iter().all(|key| key.len() == 32), "{keys:?}");
        let halves: HashSet<&str> = keys
            .iter()
            .flat_map(|key| [&key[..16], &key[16..]])
            .collect();
        assert_eq!(halves.len(), 2 * keys.len());
    }

    #[test]
    fn fractions_lie_between_0_and_1() {
        let drawn: Vec<f64> = (0..100).map(|_| fraction()).collect();
        assert!(drawn.iter().all(|number| (0.0..1.0).contains(number)));
        assert!(drawn.iter().any(|number| *number != drawn[0]));
    }
}
