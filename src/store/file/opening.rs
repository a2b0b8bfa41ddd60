//! Opening the file: its locks, its content, and the thread that writes it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Instant;

use super::beside;
use super::compaction;
use super::disk::{Disk, DiskFile, folder_of};
use super::flusher::{Flusher, WriteState};
use super::location::Location;
use super::recovery::{self, Unreadable};
use super::{FilePersistor, Snapshot};
use crate::error::{Error, ErrorKind};
use crate::store::Record;

/// How often the file is opened again if another process replaces it between opening and locking.
const OPEN_ATTEMPTS: usize = 3;

impl<D: Disk> FilePersistor<D> {
    /// Opens the file, passes its records to `each`, and starts the flusher.
    pub(super) fn open(
        &mut self,
        snapshot: Snapshot,
        each: &mut dyn FnMut(Record),
    ) -> Result<(), Error> {
        let start = Instant::now();
        let path = self.resolve()?;
        self.lock_beside(&path)?;
        let (mut file, location) = self.open_file(&path)?;
        // Without this, a power cut may take a file that was just created out of its folder.
        self.disk.sync_folder(&path).map_err(|error| {
            self.unusable("its folder can't be synced")
                .with_source(error)
        })?;
        self.recover(&mut file, &path, each)?;
        self.start_flusher(file, location, snapshot)?;
        log::info!(
            "{}: {} events read in {:?}; durability of new events: {}",
            self.info.file_name.display(),
            self.loaded.events,
            start.elapsed(),
            self.info.durability
        );
        Ok(())
    }

    fn resolve(&self) -> Result<PathBuf, Error> {
        let path = self.disk.resolve(&self.info.file_name);
        path.map_err(|error| self.unusable(open_problem(error.kind())).with_source(error))
    }

    /// Locks the lock file beside the file. If a symbolic link leads to the file, also locks the one beside the link:
    /// earlier versions know only that.
    fn lock_beside(&self, path: &Path) -> Result<(), Error> {
        let file_name = &self.info.file_name;
        match self.disk.lock(&beside(path, ".lock")) {
            Ok(lock_file) => self.lock_files.lock().push(lock_file),
            // In a folder that may not be written, the lock of the file itself must do.
            Err(error) if cfg!(unix) && is_denied(error.kind()) => log::info!(
                "{}: no lock file can be created beside it ({error}); the file itself is locked",
                file_name.display()
            ),
            Err(error) => return Err(self.not_opened(error)),
        }
        let by_name = file_name.file_name().and_then(|name| {
            let folder = self.disk.resolve_folder(folder_of(file_name)).ok()?;
            Some(folder.join(name))
        });
        if let Some(by_name) = by_name.filter(|by_name| by_name != path) {
            match self.disk.lock(&beside(&by_name, ".lock")) {
                Ok(lock_file) => self.lock_files.lock().push(lock_file),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(self.not_opened(error));
                }
                // An earlier version could not create the lock file either.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Opens and locks the file at this path.
    fn open_file(&self, path: &Path) -> Result<(D::File, Location), Error> {
        let mut attempts = 0;
        loop {
            let file = self.disk.open(path);
            let file = file.map_err(|error| self.not_opened(error))?;
            file.lock(path).map_err(|error| self.not_opened(error))?;
            attempts += 1;
            let is_at = self.disk.is_at(&file, path);
            let is_at = is_at.map_err(|error| self.not_opened(error))?;
            if !is_at && attempts < OPEN_ATTEMPTS {
                // The process that had locked the file until now has replaced it between opening and locking.
                continue;
            }
            if !is_at {
                log::warn!(
                    "{}: this file system gives files no lasting identity, so a removal of the open file is not noticed",
                    self.info.file_name.display()
                );
            }
            let location = Location::new(path.to_owned(), is_at);
            return Ok((file, location));
        }
    }

    /// Reads the file, and removes an incomplete line from its end.
    fn recover(
        &mut self,
        file: &mut D::File,
        path: &Path,
        each: &mut dyn FnMut(Record),
    ) -> Result<(), Error> {
        let file_name = &self.info.file_name;
        let recovered = recovery::read_back(file, file_name, each);
        let (mut loaded, torn) = recovered.map_err(|problem| match problem {
            Unreadable::Failed(error) => {
                self.unusable("can't be read to its end").with_source(error)
            }
            Unreadable::NotALog { lines } => self.unusable(&format!(
                "it is no log: none of its lines ({lines}) is one of this program's or of golongpoll's; it has been \
                 left as it is; name another file, or move this one away"
            )),
        })?;
        // A killed process may have left an incomplete compacted file.
        let _ = self.disk.remove(&compaction::new_path(path));
        if let Some(torn) = torn {
            recovery::repair_end(&*self.disk, file, file_name, path, &mut loaded, torn);
        }
        self.loaded = loaded;
        Ok(())
    }

    fn start_flusher(
        &self,
        file: D::File,
        location: Location,
        snapshot: Snapshot,
    ) -> Result<(), Error> {
        self.progress.bytes.store(self.loaded.bytes, Relaxed);
        let mut flusher = Flusher {
            disk: self.disk.clone(),
            info: self.info.clone(),
            location,
            queue: self.queue.clone(),
            progress: self.progress.clone(),
            snapshot,
            file,
            len: self.loaded.bytes,
            ends_with_newline: self.loaded.ends_with_newline,
            last_sequence: 0,
            state: WriteState::default(),
            compaction: None,
        };
        if self.info.compact_from.is_some() {
            flusher.check_replaceable();
        }
        let thread = thread::Builder::new().name("long-polling-flusher".into());
        let thread = thread.spawn(move || flusher.run()).map_err(|error| {
            self.unusable("the thread that writes it can't be started")
                .with_source(error)
        })?;
        *self.flusher.lock() = Some(thread);
        Ok(())
    }

    /// The error of a file that could not be opened or locked.
    fn not_opened(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::WouldBlock => self.unusable(
                "another process has it, or another broker of this one; stop that first, or name another file",
            ),
            kind => self.unusable(open_problem(kind)).with_source(error),
        }
    }

    fn unusable(&self, problem: &str) -> Error {
        let file_name = &self.info.file_name;
        let message = format!("FilePersistorInfo::file_name: {file_name:?}: {problem}");
        Error::new(ErrorKind::File, message)
    }
}

/// Returns `true` for the errors of creating a file in a folder that may not be written.
fn is_denied(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// Returns why a file can't be opened, and what to do about it.
fn open_problem(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "its folder does not exist; create it first",
        io::ErrorKind::IsADirectory => "it is a folder; name a file in it",
        io::ErrorKind::ReadOnlyFilesystem => {
            "its file system can only be read; name a file on another one"
        }
        io::ErrorKind::PermissionDenied => {
            "this program may not read and write it and its folder; change permissions or name another file"
        }
        io::ErrorKind::InvalidInput => "it is not a regular file; name another",
        _ => "it can't be opened for reading and writing; name another file",
    }
}
