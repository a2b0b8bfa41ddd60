//! Files of several runs with damage at random places.

use fastrand::Rng;

use super::run_history::{RunHistory, compacted_to, lines, number, records};
use super::*;

const HISTORIES: usize = 15;
/// Damaged files of each hihistory.
const FILES: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    BitsFlipped,
    RangeZeroed,
    RangeRemoved,
    LineRemoved,
    LineRepeated,
    LinesSwapped,
}

const KINDS: [Damage; 6] = [
    Damage::BitsFlipped,
    Damage::RangeZeroed,
    Damage::RangeRemoved,
    Damage::LineRemoved,
    Damage::LineRepeated,
    Damage::LinesSwapped,
];

/// Damages a file. Returns it, and whether a start can know what is missing.
fn damaged(bytes: &[u8], damage: Damage, random: &mut Rng) -> (Vec<u8>, bool) {
    let mut damaged = bytes.to_vec();
    let mut lines: Vec<&[u8]> = lines(bytes).collect();
    let (one, other) = (random.usize(..lines.len()), random.usize(..lines.len()));
    let start = random.usize(..bytes.len());
    let range = start..(start + random.usize(1..600)).min(bytes.len());
    match damage {
        Damage::BitsFlipped => {
            for _ in 0..random.usize(1..5) {
                let bit = random.usize(..8 * damaged.len());
                damaged[bit / 8] ^= 1 << (bit % 8);
            }
        }
        Damage::RangeZeroed => damaged[range].fill(0),
        Damage::RangeRemoved => drop(damaged.drain(range)),
        Damage::LineRemoved => {
            let known = is_removal_visible(&records(bytes), one);
            lines.remove(one);
            return (lines.concat(), known);
        }
        Damage::LineRepeated => {
            lines.insert(other, lines[one]);
            return (lines.concat(), one <= other);
        }
        Damage::LinesSwapped => {
            lines.swap(one, other);
            return (lines.concat(), false);
        }
    }
    let known = is_visible(&damaged);
    (damaged, known)
}

/// Returns `false` if every line can be read, or if the file ends within a line of a run that acknowledges: that line may be an
/// event that nobody has seen yet.
fn is_visible(bytes: &[u8]) -> bool {
    let records = records(bytes);
    let mut runs = records.iter().rev().flatten();
    let last = runs.find(|record| matches!(record, Record::Started { .. } | Record::Ended(_)));
    let acknowledged = matches!(
        last,
        Some(Record::Started {
            acknowledges: true,
            ..
        })
    );
    let torn = !bytes.ends_with(b"\n");
    let unreadable = lines(bytes).any(|line| Record::from_line(line).is_err());
    unreadable && !(acknowledged && torn)
}

/// Returns `true` if the sequence numbers before and after a line show that it was removed. They do not if a compaction has
/// removed events there, at the end of the file, and before events that were refused, which have no lines.
fn is_removal_visible(records: &[Option<Record>], at: usize) -> bool {
    let taken = |record: &&Record| matches!(record, Record::Taken { .. });
    let mut after = records[at + 1..].iter().flatten().skip_while(taken);
    let is_followed = !matches!(after.next(), None | Some(Record::Refused(_)));
    match &records[at] {
        Some(Record::Lost { .. } | Record::LossTable(_)) => false,
        Some(Record::Ended(id)) => number(*id) > compacted_to(records),
        Some(Record::Published { sequence, .. }) => {
            *sequence > compacted_to(records) && is_followed
        }
        Some(Record::Started { .. }) => is_followed,
        _ => true,
    }
}

#[test]
fn a_damaged_file_of_several_runs_serves_what_is_readable_and_the_rest_is_a_gap() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    for _ in 0..HISTORIES {
        let history = RunHistory::new(&mut random);
        let text = String::from_utf8_lossy(&history.bytes).into_owned();
        history.check(&history.bytes, true, &text);
        for file in 0..FILES {
            let damage = KINDS[file % KINDS.len()];
            let (bytes, known) = damaged(&history.bytes, damage, &mut random);
            let damaged_text = String::from_utf8_lossy(&bytes);
            history.check(
                &bytes,
                known,
                &format!("{damage:?}:\n{damaged_text}\nof:\n{text}"),
            );
        }
    }
}
