//! [`Location`]: where the file is, and whether a new one can replace it.

use std::path::PathBuf;

use super::beside;

/// Where the file is.
#[derive(Debug)]
pub(super) struct Location {
    /// The path without symbolic links, so that a rename replaces the file and not a link to it.
    pub(super) path: PathBuf,
    /// False if the file system gives files no lasting identity, so that a replaced file can't be noticed.
    pub(super) has_identity: bool,
    /// Why the file can't be replaced, to log a reason once.
    pub(super) unreplaceable: Option<String>,
}

impl Location {
    pub(super) fn new(path: PathBuf, has_identity: bool) -> Self {
        Location {
            path,
            has_identity,
            unreplaceable: None,
        }
    }

    /// Returns the path of a new file that is to replace this one.
    pub(super) fn new_path(&self) -> PathBuf {
        beside(&self.path, ".new")
    }
}
