//! [`CrashPoint`]: the files of a disk at one moment, and what a kill or a power cut may leave of them.

use std::collections::HashMap;
use std::path::PathBuf;

use fastrand::Rng;

/// The bytes of files by name.
pub(super) type Files = HashMap<PathBuf, Vec<u8>>;

/// The bytes that a disk writes completely or not at all.
const SECTOR: usize = 512;

/// A file's bytes, and its bytes at the last sync.
#[derive(Clone)]
pub(super) struct Content {
    pub(super) data: Vec<u8>,
    pub(super) synced: Vec<u8>,
}

/// The files of a disk at one moment.
pub(super) struct CrashPoint {
    pub(super) files: HashMap<PathBuf, Content>,
    /// The files when the folder was last synced, and after each change of a name since.
    pub(super) since_synced: Vec<HashMap<PathBuf, Content>>,
    /// What the test has noted by then.
    pub(super) note: Vec<u64>,
}

/// What a power cut does to the bytes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsynced {
    Lost,
    Kept,
    /// Keeps only the first of them.
    Truncated,
    /// Keeps the first of them, and fills the file with NULs up to its length.
    TruncatedAndFilled,
    /// Fills one sector with NULs.
    WithoutSector,
}

impl Unsynced {
    pub(super) const ALL: [Unsynced; 5] = [
        Unsynced::Lost,
        Unsynced::Kept,
        Unsynced::Truncated,
        Unsynced::TruncatedAndFilled,
        Unsynced::WithoutSector,
    ];
}

impl Content {
    fn after_power_cut(&self, unsynced: Unsynced, random: &mut Rng) -> Vec<u8> {
        let same = std::iter::zip(&self.data, &self.synced).take_while(|(a, b)| a == b);
        let (from, to) = (same.count(), self.data.len());
        let mut data = self.data.clone();
        match unsynced {
            Unsynced::Lost => data = self.synced.clone(),
            Unsynced::Kept => {}
            Unsynced::Truncated => data.truncate(random.usize(from..=to)),
            Unsynced::TruncatedAndFilled => data[random.usize(from..=to)..].fill(0),
            Unsynced::WithoutSector if from < to => {
                let start = random.usize(from..to) / SECTOR * SECTOR;
                data[start.max(from)..(start + SECTOR).min(to)].fill(0);
            }
            Unsynced::WithoutSector => {}
        }
        data
    }
}

impl CrashPoint {
    /// Returns the files after a kill.
    pub(super) fn killed(&self) -> Files {
        let file = |(name, content): (&PathBuf, &Content)| (name.clone(), content.data.clone());
        self.files.iter().map(file).collect()
    }

    /// Returns the files after a power cut that loses everything not synced.
    pub(super) fn power_cut(&self) -> Files {
        let file = |(name, content): (&PathBuf, &Content)| (name.clone(), content.synced.clone());
        self.since_synced[0].iter().map(file).collect()
    }

    /// Returns the files after power cuts that lose some of what was not synced: the last changes of names, and some bytes of
    /// files. Each comes with a description.
    pub(super) fn power_cuts(&self, random: &mut Rng) -> Vec<(String, Files)> {
        let mut cuts = Vec::new();
        for (changes, files) in self.since_synced.iter().enumerate() {
            for unsynced in Unsynced::ALL {
                let after = files.iter().map(|(name, content)| {
                    (name.clone(), content.after_power_cut(unsynced, random))
                });
                let what = format!("{changes} changes of names kept, unsynced bytes {unsynced:?}");
                cuts.push((what, after.collect()));
            }
        }
        cuts
    }
}
