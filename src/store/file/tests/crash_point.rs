//! [`Moment`]: a moment of a disk, and what may be left where a process is killed or the power is cut then.

use std::collections::HashMap;
use std::path::PathBuf;

use fastrand::Rng;

/// The files that are left, by name.
pub(super) type Left = HashMap<PathBuf, Vec<u8>>;

/// Disks write so many bytes whole or not at all.
const SECTOR: usize = 512;

/// A file's bytes, and those that the last sync left.
#[derive(Clone)]
pub(super) struct Content {
    pub(super) data: Vec<u8>,
    pub(super) synced: Vec<u8>,
}

pub(super) struct Moment {
    pub(super) files: HashMap<PathBuf, Content>,
    /// As they were when the folder was last synced, and after each change of a name since.
    pub(super) since_synced: Vec<HashMap<PathBuf, Content>>,
    /// What the test said by then.
    pub(super) note: Vec<u64>,
}

/// What becomes of the bytes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsynced {
    Lost,
    Kept,
    /// The first of them are kept.
    Cut,
    /// The first of them are kept, and the file has the length that it would have had.
    CutAndFilled,
    /// A sector of them is not.
    WithoutSector,
}

impl Unsynced {
    pub(super) const ALL: [Unsynced; 5] = [
        Unsynced::Lost,
        Unsynced::Kept,
        Unsynced::Cut,
        Unsynced::CutAndFilled,
        Unsynced::WithoutSector,
    ];
}

impl Content {
    fn after_cut(&self, unsynced: Unsynced, random: &mut Rng) -> Vec<u8> {
        let same = std::iter::zip(&self.data, &self.synced).take_while(|(a, b)| a == b);
        let (from, to) = (same.count(), self.data.len());
        let mut left = self.data.clone();
        match unsynced {
            Unsynced::Lost => left = self.synced.clone(),
            Unsynced::Kept => {}
            Unsynced::Cut => left.truncate(random.usize(from..=to)),
            Unsynced::CutAndFilled => left[random.usize(from..=to)..].fill(0),
            Unsynced::WithoutSector if from < to => {
                let start = random.usize(from..to) / SECTOR * SECTOR;
                left[start.max(from)..(start + SECTOR).min(to)].fill(0);
            }
            Unsynced::WithoutSector => {}
        }
        left
    }
}

impl Moment {
    /// What a killed process leaves.
    pub(super) fn killed(&self) -> Left {
        let left = |(name, content): (&PathBuf, &Content)| (name.clone(), content.data.clone());
        self.files.iter().map(left).collect()
    }

    /// What a power cut leaves that takes all that was not synced.
    pub(super) fn cut(&self) -> Left {
        let left = |(name, content): (&PathBuf, &Content)| (name.clone(), content.synced.clone());
        self.since_synced[0].iter().map(left).collect()
    }

    /// What a power cut may leave that takes some of what was not synced: of the changes of names the last few, and of the
    /// bytes of files some.
    pub(super) fn cuts(&self, random: &mut Rng) -> Vec<(String, Left)> {
        let mut cuts = Vec::new();
        for (changes, files) in self.since_synced.iter().enumerate() {
            for unsynced in Unsynced::ALL {
                let left = files
                    .iter()
                    .map(|(name, content)| (name.clone(), content.after_cut(unsynced, random)));
                let what =
                    format!("{changes} changes of names kept, what was not synced {unsynced:?}");
                cuts.push((what, left.collect()));
            }
        }
        cuts
    }
}
