//! [`PositionFile`]: the file in which a subscriber keeps its position.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};
use crate::position::{Cursor, EventId};

/// More bytes than any cursor's text has.
const MAX_BYTES: u64 = 256;

/// A place for the position of a subscriber. A subscriber has it as a trait object, so that programs which do not call
/// `Subscriber::save_position` do not link the code for files.
pub(crate) trait PositionStore: Send {
    /// Returns the saved cursor, if there is one and this is the first call.
    ///
    /// # Errors
    ///
    /// `File` if the place can't be used.
    fn restore(&mut self) -> Result<Option<Cursor>, Error>;

    /// Saves the cursor unless that was done, or has failed, already.
    ///
    /// # Errors
    ///
    /// `File`.
    fn save_when_due(&mut self, cursor: Cursor) -> Result<(), Error>;

    /// Saves the cursor unless that was done already.
    ///
    /// # Errors
    ///
    /// `File`.
    fn commit(&mut self, cursor: Cursor) -> Result<(), Error>;

    /// Has a cursor that could not be saved be due again.
    fn retry(&mut self);
}

/// The file, and what it has.
pub(crate) struct PositionFile {
    path: PathBuf,
    state: State,
    saved: Option<Cursor>,
    /// The cursor that was saved last, or could not be saved.
    attempted: Option<Cursor>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The file was not read yet.
    Unread,
    /// The file could not be read, and is left as it is.
    Unusable,
    Open,
}

impl PositionFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        PositionFile {
            path,
            state: State::Unread,
            saved: None,
            attempted: None,
        }
    }

    fn check_folder(&self, path: &Path) -> Result<(), Error> {
        match path.parent() {
            Some(folder) if !folder.is_dir() => {
                let message = format!(
                    "the folder {} of the file for the position does not exist; create it",
                    folder.display()
                );
                Err(Error::new(ErrorKind::File, message))
            }
            _ => Ok(()),
        }
    }

    fn unreadable(&self, error: io::Error) -> Error {
        let message = format!(
            "can't read the position from {}; make the file readable, or name another one",
            self.path.display()
        );
        Error::new(ErrorKind::File, message).with_source(error)
    }

    fn damaged(&self, text: &[u8]) -> Error {
        let shown: String = String::from_utf8_lossy(text).chars().take(64).collect();
        let message = format!(
            "{} has no position: {shown:?}; write the id of the last event that was processed into it, or remove it to \
             start without a saved position",
            self.path.display()
        );
        Error::new(ErrorKind::File, message)
    }
}

/// The file that a path leads to, and that does not exist yet, through at most as many links as Linux follows.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    for _ in 0..40 {
        let Ok(link) = fs::read_link(&path) else {
            return Ok(path);
        };
        // Of a relative link, to the folder of the link itself.
        path = path.parent().unwrap_or(Path::new("/")).join(link);
    }
    Err(io::Error::other("too many symbolic links lead to it"))
}

impl PositionStore for PositionFile {
    fn restore(&mut self) -> Result<Option<Cursor>, Error> {
        if self.state != State::Unread {
            return Ok(None);
        }
        self.state = State::Unusable;
        // A later change of the working directory does not move the file, and a symbolic link stays.
        let path = fs::canonicalize(&self.path).or_else(|_| target(&self.path));
        let path = path.map_err(|error| self.unreadable(error))?;
        self.saved = match read(&path) {
            Ok(text) => Some(parse(&text).ok_or_else(|| self.damaged(&text))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.check_folder(&path)?;
                None
            }
            Err(error) => return Err(self.unreadable(error)),
        };
        self.attempted = self.saved;
        (self.path, self.state) = (path, State::Open);
        Ok(self.saved)
    }

    fn save_when_due(&mut self, cursor: Cursor) -> Result<(), Error> {
        match self.attempted == Some(cursor) {
            true => Ok(()),
            false => self.commit(cursor),
        }
    }

    fn commit(&mut self, cursor: Cursor) -> Result<(), Error> {
        if self.state != State::Open || self.saved == Some(cursor) {
            return Ok(());
        }
        self.attempted = Some(cursor);
        replace(&self.path, &cursor).map_err(|error| {
            let message = format!(
                "can't save the position in {}; the subscriber continues, but events since the last position that was \
                 saved will come again after a restart; check the disk and the rights of the folder",
                self.path.display()
            );
            Error::new(ErrorKind::File, message).with_source(error)
        })?;
        self.saved = Some(cursor);
        Ok(())
    }

    fn retry(&mut self) {
        self.attempted = self.saved;
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

fn parse(text: &[u8]) -> Option<Cursor> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let id = text.parse::<EventId>().map(Cursor::LastId);
    id.or_else(|_| text.parse::<Cursor>()).ok()
}

/// Replaces the file by one with this cursor. Without the sync, a power cut could leave an empty file in its place. The
/// rename is not synced: until the system has written it, a power cut brings the old file back.
fn replace(path: &Path, cursor: &Cursor) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = File::create(&new)?;
    let line = format!("{cursor}\n");
    let written = file
        .write_all(line.as_bytes())
        .and_then(|()| file.sync_all());
    // Windows renames no file that is open.
    drop(file);
    written
        .and_then(|()| fs::rename(&new, path))
        .inspect_err(|_| {
            // It would be overwritten by the next attempt anyway.
            let _ = fs::remove_file(&new);
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_from_the_text_that_it_was_saved_as() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("position");
        let id = EventId::from(7);
        for cursor in [Cursor::LastId(id), Cursor::LastIdOrSinceTime(id, 5)] {
            let mut file = PositionFile::new(path.clone());
            file.restore().unwrap();
            file.commit(cursor).unwrap();
            let mut file = PositionFile::new(path.clone());
            assert_eq!(file.restore().unwrap(), Some(cursor));
            assert_eq!(file.restore().unwrap(), None, "only the first call");
        }
        let files: Vec<_> = fs::read_dir(&folder).unwrap().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        for (text, cursor) in [
            (format!("{id}"), Cursor::LastId(id)),
            (format!(" {id}\r\n"), Cursor::LastId(id)),
            ("oldest\n".into(), Cursor::Oldest),
        ] {
            fs::write(&path, text).unwrap();
            let restored = PositionFile::new(path.clone()).restore();
            assert_eq!(restored.unwrap(), Some(cursor));
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("position");
        let long = "0".repeat(10_000);
        for text in ["", "\n", "7", "last_id=", "\0\0\0\0", "é", &long] {
            fs::write(&path, text).unwrap();
            let mut file = PositionFile::new(path.clone());
            let error = file.restore().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::File);
            let words = error.to_string();
            assert!(words.contains("has no position"), "{words}");
            assert!(words.contains(path.to_str().unwrap()), "{words}");
            // Nothing is saved over it.
            file.commit(Cursor::LastId(EventId::from(7))).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, b"\xff").unwrap();
        assert!(PositionFile::new(path).restore().is_err());
        let error = PositionFile::new(folder.path().into()).restore();
        assert_eq!(error.unwrap_err().kind(), ErrorKind::File);
    }

    #[test]
    #[cfg(unix)]
    fn a_symbolic_link_leads_to_the_file_that_is_replaced() {
        use std::os::unix::fs::symlink;

        for exists in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let (path, link) = (folder.path().join("position"), folder.path().join("link"));
            if exists {
                fs::write(&path, "oldest").unwrap();
            }
            symlink("position", folder.path().join("other")).unwrap();
            symlink(folder.path().join("other"), &link).unwrap();
            let mut file = PositionFile::new(link.clone());
            file.restore().unwrap();
            let id = EventId::from(7);
            file.commit(Cursor::LastId(id)).unwrap();
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(fs::read_to_string(path).unwrap(), format!("last_id={id}\n"));
        }
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("link", &link).unwrap();
        let error = PositionFile::new(link).restore().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File);
    }
}
