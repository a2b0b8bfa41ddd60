//! [`FilePersistorInfo`]: the settings of a file.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

/// Where and how events are kept in a file, so that the next start has them again: the Go package's `FilePersistorInfo`.
///
/// The file has one line of JSON for each event, as golongpoll's has, with a checksum behind; golongpoll's own files are
/// read too. Stopping the server or broker writes and syncs everything; what a crash may cost says
/// [`durability`](FilePersistorInfo::durability).
///
/// The Go package's `Use: false` is `None` in place of this.
///
/// ```
/// use std::time::Duration;
/// use long_polling::{Durability, FilePersistorInfo};
///
/// let info = FilePersistorInfo::new("/var/lib/longpoll/events.db").durability(Durability::Acknowledged);
/// ```
///
/// # Files
///
/// Beside the file `events.db` there may be `events.db.lock`, which is locked as long as the file is open;
/// `events.db.new`, a smaller file on its way to take the place of the first; `events.db.corrupt-OFFSET`, the end of a
/// file that was cut off within a line, as a crash leaves it, kept for inspection; and `events.db.replaced-MILLISECONDS`, a
/// file that another program has put in place of the log while the log was open. Where `events.db` is a symbolic link,
/// these files are beside the file that it leads to; a second lock file is then beside the link.
///
/// # What belongs to the file
///
/// A compacted file replaces the old one by a rename. It has the old file's mode, owner and group, and takes the place of
/// the file behind a symbolic link, not of the link. Access control lists and extended attributes are not kept. A file
/// that can't be replaced so is not compacted, and a warning at start tells the reason: the file itself is a mount, it
/// has another hard link, its folder may not be written, or a new file would have another owner or group. If a sync of
/// such a file fails, no new file can take its place: the store fails until the program is started again.
///
/// One broker at a time may have the file, by whatever name. On Unix the file itself is locked, too. On other systems
/// only the lock file is, so that two hard links of one file are not recognized as one.
///
/// A file that is truncated while it is open, and on Unix one that is removed or replaced, is noticed at the next write.
/// It counts as a write that
/// failed: [`on_change`](FilePersistorInfo::on_change) is called, and the events in memory are written to a new file.
///
/// # A file that is no log
///
/// A file is refused, and left as it is, unless it holds nothing but blanks and NUL bytes, or a line of it can be read, or
/// begins or ends as lines of a log do and is damaged elsewhere, or it ends within its first line and that begins so.
#[derive(Clone, Debug)]
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

/// What a crash may cost of the events in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Events are written in the background, once
    /// [`write_buffer_size`](FilePersistorInfo::write_buffer_size) is reached or
    /// [`write_flush_period`](FilePersistorInfo::write_flush_period) is over, and publishing does not wait for that: the
    /// Go package's way. A process that is killed loses at most what that buffer and period hold. A power cut may cost
    /// what the system has not yet put on the disk, which with Linux's settings is up to some 30 seconds, too.
    #[default]
    Buffered,
    /// As `Buffered`, with `fdatasync` at each write, and this period in place of
    /// [`write_flush_period`](FilePersistorInfo::write_flush_period): a process that is killed and a power cut alike lose
    /// at most what that buffer and period hold.
    Synced {
        /// Events are on the disk at the latest this long after the first that waits. Zero is an error.
        period: Duration,
    },
    /// A publish returns, and its subscribers are woken, when the event is on the disk (`fdatasync`): neither a killed
    /// process nor a power cut loses an event of which anybody knows. Those who publish at the same time share one sync,
    /// so that the disk's syncs per second do not limit the events per second. Where the disk fails, publishes are
    /// refused. After a crash nobody is told of a gap, unless something of the file was damaged.
    ///
    /// An event whose publisher was told that it is refused may yet be there after a power cut, where that came before
    /// the disk has taken it back. That an event was deleted by its retrieval
    /// ([`delete_after_first_retrieval`](crate::BrokerOptions::delete_after_first_retrieval)) is written without anyone
    /// waiting for it: after a crash it may be there again.
    Acknowledged,
}

/// Whether a file can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileState {
    /// It can be written again.
    Working,
    /// It can't, and is tried again every [`write_flush_period`](FilePersistorInfo::write_flush_period).
    Failing {
        /// What the system says.
        reason: String,
    },
}

/// The callback of [`FilePersistorInfo::on_change`].
#[derive(Clone)]
pub(crate) struct OnChange(Arc<dyn Fn(&FileState) + Send + Sync>);

impl fmt::Display for Durability {
    /// The level's name, and with `Synced` its period.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Buffered => f.write_str("buffered"),
            Durability::Synced { period } => write!(f, "synced every {period:?}"),
            Durability::Acknowledged => f.write_str("acknowledged"),
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
    /// This file, with the default settings.
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

    /// Sets the file. A start creates it where it is missing, in a folder that exists. One broker at a time can open it: a
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
    /// for each publishing thread. The broker accepts no further event. 0 is an error. Defaults to 64 MiB.
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

    /// Sets the size in bytes from which the file is compacted, in the background: once it also has more than twice the
    /// bytes of the events held, a new file without the others replaces it. `None` keeps the full history. Defaults to
    /// 4 MiB.
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

    /// # Errors
    ///
    /// `InvalidSetting` that names the setting.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.file_name.as_os_str().is_empty() {
            let problem = "empty; name a file, or persist nothing";
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

    /// How long an event may wait to be written.
    pub(super) fn period(&self) -> Duration {
        match self.durability {
            Durability::Synced { period } => period,
            _ => self.write_flush_period,
        }
    }
}
