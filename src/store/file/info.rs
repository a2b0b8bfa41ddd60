//! [`FilePersistorInfo`]: the settings of a file.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Durability;
use crate::config::{FilePath, Optional, Parsed, Size, Time, settings};
use crate::error::Error;

/// Settings of a file that keeps the events, so that the next start restores them: the Go package's `FilePersistorInfo`.
///
/// The file has one line of JSON for each event, as golongpoll's has, with a checksum at its end; golongpoll's own files are
/// read too. Stopping the server or broker writes and syncs everything. What a crash may cost depends on
/// [`durability`](FilePersistorInfo::durability). A background thread, the *flusher*, writes the file.
///
/// Without these settings nothing is kept: the Go package's `Use: false`.
///
/// ```
/// use std::time::Duration;
/// use long_polling::{Durability, FilePersistorInfo};
///
/// let info = FilePersistorInfo::new("/var/lib/longpoll/events.db")
///     .durability(Durability::Acknowledged);
/// ```
///
/// A configuration file can have these settings; [`ServerInfo`](crate::ServerInfo) says how.
///
/// # Files
///
/// Other files can be beside the file `events.db`. If `events.db` is a symbolic link, they are beside the file that it leads
/// to, and a second lock file is beside the link.
///
/// - `events.db.lock` is locked for as long as the file is open.
/// - `events.db.new` is a compacted file that is being written.
/// - `events.db.corrupt-OFFSET` is the incomplete line at the end of the file that a crash left, for inspection.
/// - `events.db.replaced-MILLISECONDS` is a file that another program has put in the place of the open file.
///
/// # Compaction and the file's attributes
///
/// A compacted file replaces the old one by a rename. It has the old file's mode, owner and group. It replaces the file
/// behind a symbolic link, not the link. Access control lists and extended attributes are not kept.
///
/// A file that can't be replaced is not compacted, and a warning at the start says why: the file itself is a mount, it has
/// another hard link, its folder may not be written, or a new file would have another owner or group. If a sync of such a
/// file fails, no new file can replace it: the store fails until the program is started again.
///
/// # Other processes
///
/// One broker at a time can open the file, by whatever name. On Unix the file itself is locked, too. On other systems only
/// the lock file is locked, so two hard links of one file are not recognized as one.
///
/// The flusher notices at the next write if the open file was truncated, and on Unix also if it was removed or replaced.
/// It treats that as a failed write: it calls [`on_change`](FilePersistorInfo::on_change), and writes the events in memory
/// to a new file.
///
/// # Files that are not logs
///
/// A start refuses a file that is not a log, and does not change it. A file is a log in any of these cases:
///
/// - It has nothing but blanks and NUL bytes.
/// - At least one of its lines can be read.
/// - At least one of its lines begins or ends as a log's lines do, and is damaged elsewhere.
/// - It ends within its first line, and that line begins as a log's lines do.
#[derive(Clone, Debug)]
#[must_use = "settings do nothing until a broker or server starts with them"]
pub struct FilePersistorInfo {
    pub(crate) file_name: PathBuf,
    pub(crate) durability: Durability,
    pub(crate) write_buffer_size: usize,
    pub(crate) write_flush_period: Duration,
    pub(crate) max_queue_size: usize,
    pub(crate) max_wait: Duration,
    pub(crate) compact_from: Option<u64>,
    pub(crate) on_change: Option<OnChange>,
}

settings!(
    FilePersistorInfo, of "a file", unset FilePersistorInfo::default(),
    {
        file_name: FilePath,
        durability: Parsed<Durability>,
        write_buffer_size: Size,
        write_flush_period: Time,
        max_queue_size: Size,
        max_wait: Time,
        compact_from: Optional<Size<u64>>,
    }
);

/// Whether the file can be written, for [`FilePersistorInfo::on_change`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileState {
    /// The file can be written again.
    Working,
    /// The file can't be written. The flusher tries again every
    /// [`write_flush_period`](FilePersistorInfo::write_flush_period).
    Failing {
        /// The error of the operating system.
        reason: String,
    },
}

/// The callback of [`FilePersistorInfo::on_change`].
#[derive(Clone)]
pub(crate) struct OnChange(Arc<dyn Fn(&FileState) + Send + Sync>);

impl fmt::Display for FileState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileState::Working => f.pad("working"),
            FileState::Failing { reason } => f.pad(&format!("failing: {reason}")),
        }
    }
}

impl OnChange {
    pub(super) fn call(&self, state: &FileState) {
        if catch_unwind(AssertUnwindSafe(|| (self.0)(state))).is_err() {
            log::error!("the callback FilePersistorInfo::on_change panicked");
        }
    }
}

impl fmt::Debug for OnChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnChange").finish_non_exhaustive()
    }
}

impl Default for FilePersistorInfo {
    /// The file `events.log` in the working directory.
    fn default() -> Self {
        FilePersistorInfo::new("events.log")
    }
}

impl FilePersistorInfo {
    /// Returns the default settings for this file.
    pub fn new(file_name: impl Into<PathBuf>) -> Self {
        FilePersistorInfo {
            file_name: file_name.into(),
            durability: Durability::default(),
            write_buffer_size: 64 << 10,
            write_flush_period: Duration::from_secs(1),
            max_queue_size: 64 << 20,
            max_wait: Duration::from_secs(5),
            compact_from: Some(4 << 20),
            on_change: None,
        }
    }

    /// Sets the file. A start creates the file if it is missing; its folder must exist. One broker at a time can open it: a
    /// start with a file that is open already fails. The Go package's `FileName`. Defaults to `"events.log"`.
    pub fn file_name(mut self, file_name: impl Into<PathBuf>) -> Self {
        self.file_name = file_name.into();
        self
    }

    /// Sets what a crash may cost. Defaults to [`Durability::Buffered`], the Go package's way.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets how many bytes of events may wait before the flusher writes them: the Go package's `WriteBufferSize`. With 0,
    /// the flusher writes each event at once. More than 16 MiB counts as 16 MiB. Defaults to 64 KiB.
    pub fn write_buffer_size(mut self, bytes: usize) -> Self {
        self.write_buffer_size = bytes;
        self
    }

    /// Sets how long an event may wait before the flusher writes it, and how long the flusher waits between two attempts
    /// while the disk fails: the Go package's `WriteFlushPeriodSeconds`. Zero is an error. Defaults to 1 second.
    pub fn write_flush_period(mut self, period: Duration) -> Self {
        self.write_flush_period = period;
        self
    }

    /// Sets the most bytes of events that may wait for the file while the disk is slow or fails, plus or minus one event
    /// for each publishing thread. While the queue is full, the broker accepts no event. 0 is an error. Defaults to
    /// 64 MiB.
    pub fn max_queue_size(mut self, bytes: usize) -> Self {
        self.max_queue_size = bytes;
        self
    }

    /// Sets how long a publish waits for room in that queue while the disk works. After that the broker refuses it with
    /// [`Busy`](crate::ErrorKind::Busy), over HTTP with 503. Zero refuses at once. Defaults to 5 seconds.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Sets the size in bytes from which the file is compacted, in the background: once the file also has more than twice
    /// the bytes of the events in memory, a new file with those events replaces it. `None` keeps the full history. Defaults
    /// to 4 MiB.
    pub fn compact_from(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.compact_from = bytes.into();
        self
    }

    /// Sets a callback for changes of the file's state: it can no longer be written, or it can be written again. The
    /// flusher calls it and writes nothing meanwhile, so it should return soon. A panic in it is logged. Defaults to none.
    pub fn on_change(mut self, callback: impl Fn(&FileState) + Send + Sync + 'static) -> Self {
        self.on_change = Some(OnChange(Arc::new(callback)));
        self
    }

    /// Checks all settings.
    ///
    /// # Errors
    ///
    /// `InvalidSetting` that names the setting.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.file_name.as_os_str().is_empty() {
            let problem = "empty; name a file, or leave the setting out to keep nothing";
            return Err(Error::setting("FilePersistorInfo::file_name", problem));
        }
        if self.write_flush_period.is_zero() {
            let problem = "zero; give a time, such as 1 second, and for writing every event at once \
                           set write_buffer_size to 0";
            return Err(Error::setting(
                "FilePersistorInfo::write_flush_period",
                problem,
            ));
        }
        if self.period().is_zero() {
            let problem =
                "Synced with a period of zero; give a time, such as 1 second, or Acknowledged";
            return Err(Error::setting("FilePersistorInfo::durability", problem));
        }
        if self.max_queue_size == 0 {
            let problem = "0, so that nothing could be published; give 1 or more";
            return Err(Error::setting("FilePersistorInfo::max_queue_size", problem));
        }
        Ok(())
    }

    /// Returns the longest time that an event waits before it is written.
    pub(super) fn period(&self) -> Duration {
        match self.durability {
            Durability::Synced { period } => period,
            _ => self.write_flush_period,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_displayed_with_its_reason() {
        let reason = "no space".to_owned();
        assert_eq!(FileState::Working.to_string(), "working");
        assert_eq!(
            FileState::Failing { reason }.to_string(),
            "failing: no space"
        );
    }
}
