//! Keeping the position of a [`Subscriber`] in a file.

use std::path::PathBuf;

use super::Subscriber;
use crate::client::position_file::PositionFile;
use crate::client::tracker::PositionTracker;
use crate::error::Error;
use crate::position::Cursor;

impl Subscriber {
    /// Keeps the position in this file, so that a program that is started again continues where it was. Defaults to none.
    ///
    /// The first call of [`next`](Iterator::next) reads the file. If there is one, the subscriber starts at its position; if
    /// not, at that of [`start_at`](Subscriber::start_at), and the file is created. The folder must exist. Each subscriber
    /// needs a file of its own.
    ///
    /// The subscriber saves the position after an event when the program asks for the next one: then it has processed the
    /// event. If the program ends or is killed in between, the event comes again after the restart: each event comes at least
    /// once. A program that leaves its loop without asking for another event calls [`commit`](Subscriber::commit). A poll
    /// without events may move the position, too.
    ///
    /// To save, the subscriber writes a new file, whose name has `.new` at its end, waits until the disk has it (`fsync`), and
    /// renames it. So the file has a whole position at any moment, also after a power cut, which may bring back a somewhat
    /// older position: then more events come again, and none is lost. The subscriber takes no more events a second than the
    /// disk completes such saves. If the file is a symbolic link, the file that it leads to is replaced.
    ///
    /// The file has one line, the text of a [`Cursor`], such as `last_id=019a5b3c-1234-8abc-8000-000000000007`; an id alone
    /// and `oldest` are read, too.
    ///
    /// ```
    /// # use long_polling::{Cursor, Server, ServerInfo, Subscriber};
    /// # let server = Server::start(ServerInfo::new("127.0.0.1:0"))?;
    /// # let url = format!("http://{}/events", server.local_addr());
    /// # let folder = tempfile::tempdir()?;
    /// # let file = folder.path().join("updates.position");
    /// # for number in 1..=4 {
    /// #     server.publish("updates", &number)?;
    /// # }
    /// for expected in [["1", "2"], ["3", "4"]] {
    ///     let mut updates = Subscriber::new(&url, "updates")
    ///         .start_at(Cursor::Oldest)
    ///         .save_position(&file);
    ///     for expected in expected {
    ///         assert_eq!(updates.next().unwrap()?.text(), expected);
    ///     }
    ///     updates.commit()?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `next` returns an error of kind [`File`](crate::ErrorKind::File)
    ///
    /// - once, and then ends, if the file can't be read or has no position, or if its folder does not exist. It does not
    ///   touch such a file.
    /// - in place of the next event if the position can't be saved. The next call continues with that event. The subscriber
    ///   tries to save the position again after each further event, and after each poll without events.
    pub fn save_position(mut self, path: impl Into<PathBuf>) -> Self {
        self.position_file = Some(Box::new(PositionFile::new(path.into())));
        self
    }

    /// Saves the position after the last event that was returned, without waiting until the program asks for the next one.
    /// For a program that leaves its loop after an event that it has processed. Does nothing without
    /// [`save_position`](Subscriber::save_position), before the first event, and if the position is saved already.
    ///
    /// # Errors
    ///
    /// [`File`](crate::ErrorKind::File) if the position can't be saved.
    pub fn commit(&mut self) -> Result<(), Error> {
        match (self.resume_cursor(), &mut self.position_file) {
            (Some(cursor), Some(file)) => file.commit(cursor),
            _ => Ok(()),
        }
    }

    /// Starts at the position in the file, if this is the first call.
    ///
    /// # Errors
    ///
    /// `File`.
    pub(super) fn restore_position(&mut self) -> Result<(), Error> {
        let restored = match &mut self.position_file {
            None => None,
            Some(file) => file.restore()?,
        };
        if let Some(cursor) = restored {
            self.tracker = PositionTracker::new(cursor);
            self.position = self.tracker.id();
        }
        Ok(())
    }

    /// Saves the position unless that was done, or has failed, already.
    ///
    /// # Errors
    ///
    /// `File`.
    pub(super) fn save_when_due(&mut self) -> Result<(), Error> {
        match (self.resume_cursor(), &mut self.position_file) {
            (Some(cursor), Some(file)) => file.save_when_due(cursor),
            _ => Ok(()),
        }
    }

    /// Returns the cursor from which another subscriber continues; `None` while the position is not known.
    fn resume_cursor(&self) -> Option<Cursor> {
        let id = self.position?;
        Some(match self.tracker.cursor() {
            // golongpoll ignores an id without a time.
            Cursor::LastIdOrSinceTime(_, time) => {
                Cursor::LastIdOrSinceTime(id, self.position_time.unwrap_or(time))
            }
            _ => Cursor::LastId(id),
        })
    }
}
