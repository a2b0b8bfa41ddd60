//! Files of several runs that are damaged anywhere.

use fastrand::Rng;

use super::run_history::{Story, compacted_to, lines, number, records};
use super::*;

const STORIES: usize = 15;
/// Of each story.
const FILES: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    BitsFlipped,
    RangeZeroed,
    RangeTakenOut,
    LineLost,
    LineTwice,
    LinesSwapped,
}

const KINDS: [Damage; 6] = [
    Damage::BitsFlipped,
    Damage::RangeZeroed,
    Damage::RangeTakenOut,
    Damage::LineLost,
    Damage::LineTwice,
    Damage::LinesSwapped,
];

/// A damaged file, and whether what it no longer has can be known.
fn damaged(bytes: &[u8], damage: Damage, random: &mut Rng) -> (Vec<u8>, bool) {
    let mut left = bytes.to_vec();
    let mut lines: Vec<&[u8]> = lines(bytes).collect();
    let (one, other) = (random.usize(..lines.len()), random.usize(..lines.len()));
    let start = random.usize(..bytes.len());
    let range = start..(start + random.usize(1..600)).min(bytes.len());
    match damage {
        Damage::BitsFlipped => {
            for _ in 0..random.usize(1..5) {
                let bit = random.usize(..8 * left.len());
                left[bit / 8] ^= 1 << (bit % 8);
            }
        }
        Damage::RangeZeroed => left[range].fill(0),
        Damage::RangeTakenOut => drop(left.drain(range)),
        Damage::LineLost => {
            let known = can_be_missed(&records(bytes), one);
            lines.remove(one);
            return (lines.concat(), known);
        }
        Damage::LineTwice => {
            lines.insert(other, lines[one]);
            return (lines.concat(), one <= other);
        }
        Damage::LinesSwapped => {
            lines.swap(one, other);
            return (lines.concat(), false);
        }
    }
    let known = shows(&left);
    (left, known)
}

/// False where whole lines are gone, and where the end is that of a run that acknowledged: what stood there may have been
/// on its way, and seen by nobody.
fn shows(bytes: &[u8]) -> bool {
    let records = records(bytes);
    let mut marks = records.iter().rev().flatten();
    let last = marks.find(|record| matches!(record, Record::Started { .. } | Record::Ended(_)));
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

/// True where the numbers of what stands before and after a line show that it is gone. They can't where a file was made
/// smaller, which lets go of some, and says how far the lost ones reach; nor at the end; nor before events that were
/// refused, which have no lines.
fn can_be_missed(records: &[Option<Record>], at: usize) -> bool {
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
fn a_file_of_several_runs_that_is_damaged_anywhere_serves_what_is_left_and_tells_of_the_rest() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    for _ in 0..STORIES {
        let story = Story::new(&mut random);
        let text = String::from_utf8_lossy(&story.bytes).into_owned();
        story.check(&story.bytes, true, &text);
        for file in 0..FILES {
            let damage = KINDS[file % KINDS.len()];
            let (bytes, known) = damaged(&story.bytes, damage, &mut random);
            let left = String::from_utf8_lossy(&bytes);
            story.check(&bytes, known, &format!("{damage:?}:\n{left}\nof:\n{text}"));
        }
    }
}
