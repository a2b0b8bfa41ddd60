//! Recovery: reads the file when it is opened. Every line that can be read becomes a record, whatever is between such lines.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::beside;
use super::disk::{self, Disk, DiskFile};
use super::lines::{Content, Line, Lines};
use super::signature::Signature;
use crate::store::Record;

/// The longest line that is read, in bytes: more than any useful event has, and small enough for memory. A file whose line
/// breaks were overwritten would otherwise be one line of its whole size.
const MAX_LINE_BYTES: usize = 64 << 20;
/// The most bytes that the line of an event has besides its data, rounded up: the name of a category has up to 6 KiB when all
/// of it is escaped.
const MAX_BESIDES_DATA: usize = 8 << 10;
/// The most bytes of data of an event whose line can be read.
pub(super) const MAX_EVENT_SIZE: usize = MAX_LINE_BYTES - MAX_BESIDES_DATA;
/// The number of damaged lines that are logged one by one. After them, only their total is logged.
const MAX_LOGGED_LINES: u64 = 5;
/// How often the progress of a long recovery is logged.
const LOG_PERIOD: Duration = Duration::from_secs(2);
/// The progress is checked once for this many lines.
const LINES_PER_CHECK: u64 = 4096;

/// What a file had when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Events that were read.
    pub(super) events: u64,
    /// Lines that could not be read, and were skipped.
    pub(super) damaged: u64,
    /// The file's size in bytes.
    pub(super) bytes: u64,
    /// False if the file has no line break at its end, as golongpoll's files. A line break must come before the next line.
    pub(super) ends_with_newline: bool,
}

/// Why a file could not be recovered.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// The file is not a log, and has this many lines.
    NotALog { lines: u64 },
    /// Reading failed.
    Failed(io::Error),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Unreadable::Failed(error)
    }
}

/// An incomplete line at the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TornLine {
    start: u64,
    /// The offset at which its text ends and NULs follow.
    text_end: u64,
}

/// Reads a file from its beginning to its end, with one line of it in memory at a time. Damaged lines are counted, and
/// logged with `file_name`. Call [`repair_end`] for the line that is returned before anything is appended.
///
/// # Errors
///
/// The error of reading, and `NotALog`. The file is unchanged in any case.
pub(super) fn read_back(
    file: &mut impl Read,
    file_name: &Path,
    each: impl FnMut(Record),
) -> Result<(Loaded, Option<TornLine>), Unreadable> {
    let reader = Reader {
        file_name,
        max_line_bytes: MAX_LINE_BYTES,
        log_period: LOG_PERIOD,
    };
    let (loaded, torn, signature) = reader.read(file, each)?;
    match signature.refused() {
        Some(lines) => Err(Unreadable::NotALog { lines }),
        None => Ok((loaded, torn)),
    }
}

/// Removes an incomplete line from the end of the file. Its text is moved to another file beside `path`; the NULs after it
/// are dropped. `file_name` is for messages.
pub(super) fn repair_end<D: Disk>(
    disk: &D,
    file: &mut D::File,
    file_name: &Path,
    path: &Path,
    loaded: &mut Loaded,
    torn: TornLine,
) {
    let TornLine { start, text_end } = torn;
    let name = file_name.display();
    match move_torn_line(disk, file, path, torn) {
        Ok(corrupt) => {
            if let Some(corrupt) = corrupt {
                log::warn!(
                    "{name}: it ended within a line at byte {start}, as after a crash; the text of that line is now in {}",
                    corrupt.display()
                );
            }
            let nuls = loaded.bytes - text_end;
            if nuls > 0 {
                log::warn!(
                    "{name}: it ended with {nuls} NUL bytes from byte {text_end} on, as after a power cut; they were \
                     removed"
                );
            }
            loaded.bytes = start;
            loaded.ends_with_newline = true;
        }
        Err(error) => {
            log::warn!(
                "{name}: it ends within a line at byte {start}, which could not be removed: {error}"
            );
        }
    }
}

/// Copies the text of an incomplete line to another file, and truncates the file before the line. Returns the path of the
/// other file, if the line has any text.
fn move_torn_line<D: Disk>(
    disk: &D,
    file: &mut D::File,
    path: &Path,
    TornLine { start, text_end }: TornLine,
) -> io::Result<Option<PathBuf>> {
    let corrupt = (text_end > start).then(|| beside(path, &format!(".corrupt-{start}")));
    if let Some(path) = &corrupt {
        let mut corrupt = disk.create(path, &*file)?;
        disk::copy(file, &mut corrupt, start, text_end)?;
        corrupt.sync()?;
        disk.sync_folder(path)?;
    }
    file.truncate(start)?;
    Ok(corrupt)
}

struct Reader<'a> {
    file_name: &'a Path,
    max_line_bytes: usize,
    log_period: Duration,
}

impl Reader<'_> {
    /// Reads all lines. Returns what the file has, its incomplete last line, and whether it is a log.
    fn read(
        &self,
        file: impl Read,
        mut each: impl FnMut(Record),
    ) -> io::Result<(Loaded, Option<TornLine>, Signature)> {
        let start = Instant::now();
        let mut log_progress = self.progress_log();
        let mut lines = Lines::new(file, self.max_line_bytes);
        let mut loaded = Loaded {
            ends_with_newline: true,
            ..Loaded::default()
        };
        let mut signature = Signature::default();
        let mut torn = None;
        let mut count = 0u64;
        while let Some(line) = lines.next(&mut log_progress)? {
            let bytes = lines.line();
            loaded.bytes = line.end;
            loaded.ends_with_newline = line.ends_with_newline;
            torn = None;
            match self.parse(&line, bytes) {
                Ok(None) => {}
                Ok(Some(record)) => {
                    signature.add_readable();
                    loaded.events += u64::from(record.event().is_some());
                    each(record);
                }
                Err(reason) => {
                    signature.add_damaged(bytes, line.ends_with_newline);
                    loaded.damaged += 1;
                    self.log_damaged(&line, loaded.damaged, &reason);
                    torn = (!line.ends_with_newline).then_some(TornLine {
                        start: line.start,
                        text_end: line.nuls_from,
                    });
                    each(damage(&line, bytes));
                }
            }
            count += 1;
            if count.is_multiple_of(LINES_PER_CHECK) {
                log_progress(line.end);
            }
        }
        self.log_summary(&loaded, start);
        Ok((loaded, torn, signature))
    }

    fn parse(&self, line: &Line, bytes: &[u8]) -> Result<Option<Record>, String> {
        match line.content {
            Content::Read => Record::parse(bytes),
            Content::TooLong => {
                let max = self.max_line_bytes;
                Err(format!("the line is longer than {max} bytes"))
            }
            Content::Nuls => Err("the line has NUL bytes".into()),
        }
    }

    /// Returns a function that logs the offset that it is called with, once per period.
    fn progress_log(&self) -> impl FnMut(u64) {
        let mut last_logged = Instant::now();
        move |offset| {
            if last_logged.elapsed() >= self.log_period {
                last_logged = Instant::now();
                let (name, megabytes) = (self.file_name.display(), offset >> 20);
                log::info!("{name}: {megabytes} MiB have been read so far");
            }
        }
    }

    fn log_damaged(&self, line: &Line, count: u64, reason: &str) {
        if count <= MAX_LOGGED_LINES {
            let (name, start) = (self.file_name.display(), line.start);
            log::warn!("{name}: the line at byte {start} is damaged and is skipped: {reason}");
        }
    }

    fn log_summary(&self, loaded: &Loaded, start: Instant) {
        let Loaded {
            events, damaged, ..
        } = loaded;
        let (name, elapsed) = (self.file_name.display(), start.elapsed());
        if *damaged > MAX_LOGGED_LINES {
            log::warn!(
                "{name}: {damaged} lines are damaged and were skipped, the first {MAX_LOGGED_LINES} as logged"
            );
        }
        log::debug!("{name}: {events} events were read in {elapsed:?}");
    }
}

/// Returns the record in the place of a line that can't be read.
fn damage(line: &Line, bytes: &[u8]) -> Record {
    let is_incomplete = !line.ends_with_newline && line.content != Content::TooLong;
    // If the line without its last byte is a record, the write was complete, and only the line break was damaged.
    let was_complete = || {
        let without_last = bytes.split_last().map_or(&[][..], |(_, rest)| rest);
        line.content == Content::Read && matches!(Record::parse(without_last), Ok(Some(_)))
    };
    match is_incomplete && !was_complete() {
        true => Record::Torn,
        false => Record::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::num::NonZeroU64;

    use super::*;
    use crate::event::Draft;
    use crate::position::{EventId, MAX_SEQUENCE, Run};
    use crate::store::event_line_len;
    use crate::store::file::disk::SystemDisk;
    use crate::store::file::tests::event;

    fn read(file: impl AsRef<[u8]>, max_line_bytes: usize) -> (Vec<u64>, Loaded, Option<u64>) {
        let mut timestamps = Vec::new();
        let reader = Reader {
            file_name: Path::new("events.log"),
            max_line_bytes,
            log_period: LOG_PERIOD,
        };
        let read = reader.read(file.as_ref(), |record| match record {
            Record::Published { event, .. } => timestamps.push(event.timestamp()),
            Record::Damaged | Record::Torn => {}
            other => panic!("{other:?}"),
        });
        let (loaded, torn, _) = read.unwrap();
        (timestamps, loaded, torn.map(|torn| torn.start))
    }

    #[test]
    fn the_longest_line_of_an_event_is_within_the_limit() {
        let category = "\u{1}".repeat(1024);
        let (run, id) = (Run::new(u64::MAX, u64::MAX), MAX_SEQUENCE);
        let draft = Draft::new((&*category).into(), "").unwrap();
        let draft = draft.with_own_ttl(NonZeroU64::new(u64::MAX));
        let (data, admitted) = (draft.data().len(), event_line_len(draft.json_len()));
        let event = draft.stamp(u64::MAX, EventId::new(run, id));
        let sequence = u64::MAX;
        let mut line = Vec::new();
        Record::Published { sequence, event }.push_line(&mut line);
        assert!(line.len() > 6 * category.len(), "the name is escaped");
        assert!(line.len().max(admitted) - data <= MAX_BESIDES_DATA);
    }

    #[test]
    fn an_empty_file_has_no_records_and_needs_no_newline() {
        let (timestamps, loaded, torn) = read("", 100);
        assert!(timestamps.is_empty() && loaded.ends_with_newline && torn.is_none());
        assert_eq!((loaded.events, loaded.damaged, loaded.bytes), (0, 0, 0));
    }

    #[test]
    fn lines_that_are_not_records_are_skipped_and_counted() {
        let mut file = Vec::new();
        for timestamp in [3, 1, 2] {
            file.extend_from_slice(b"\xff\xff\n\n{\"torn\n\0\0\0\n[1]\r\n");
            file.extend_from_slice(event(timestamp, "x").as_json().as_bytes());
            file.extend_from_slice(b"\r\n");
        }
        let (timestamps, loaded, torn) = read(&file, 1000);
        assert_eq!((timestamps, torn), (vec![3, 1, 2], None));
        assert_eq!((loaded.events, loaded.damaged), (3, 12));
        assert_eq!(loaded.bytes, file.len() as u64);
        assert!(loaded.ends_with_newline);
    }

    #[test]
    fn a_line_too_long_counts_once_and_the_next_is_read() {
        let last = event(2, "x");
        let max = last.as_json().len();
        for long in [max + 1, max + 2, 2 * max, 2 * max + 2, 10 * max + 3] {
            let file = format!("{}\n{last}", "x".repeat(long));
            let (timestamps, loaded, torn) = read(&file, max);
            assert_eq!((timestamps, torn), (vec![2], None), "{long}");
            assert_eq!(loaded.damaged, 1, "{long}");
            assert!(!loaded.ends_with_newline);
            let (timestamps, loaded, torn) = read("x".repeat(long), max);
            assert_eq!((timestamps.len(), torn), (0, Some(0)));
            assert_eq!((loaded.damaged, loaded.ends_with_newline), (1, false));
        }
    }

    thread_local! {
        static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    struct Logger;

    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            let line = format!("{} {}", record.level(), record.args());
            LOGGED.with_borrow_mut(|logged| logged.push(line));
        }

        fn flush(&self) {}
    }

    #[test]
    fn damaged_lines_and_the_progress_of_a_long_recovery_are_logged() {
        log::set_logger(&Logger).expect("no other test sets a logger");
        log::set_max_level(log::LevelFilter::Info);
        let line = format!("{}\n", event(1, &"x".repeat(200)).as_json());
        let file = format!(
            "{line}damaged\n{}{}",
            line.repeat(2 * 4096),
            "damaged\n".repeat(9)
        );
        let reader = Reader {
            file_name: Path::new("events.log"),
            max_line_bytes: 1000,
            log_period: Duration::ZERO,
        };
        reader.read(file.as_bytes(), |_| {}).unwrap();
        let logged = LOGGED.take();
        let first = format!(
            "WARN events.log: the line at byte {} is damaged and is skipped: ",
            line.len()
        );
        assert!(logged[0].starts_with(&first), "{logged:?}");
        assert_eq!(logged[1], "INFO events.log: 1 MiB have been read so far");
        assert_eq!(logged[2], "INFO events.log: 2 MiB have been read so far");
        let last = "WARN events.log: 10 lines are damaged and were skipped, the first 5 as logged";
        assert_eq!((logged.len(), &*logged[7]), (8, last));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.log");
        std::fs::write(&path, format!("{line}{{\"torn")).unwrap();
        let mut file = SystemDisk.open(&path).unwrap();
        let (mut loaded, torn) = read_back(&mut file, &path, |_| {}).unwrap();
        repair_end(
            &SystemDisk,
            &mut file,
            &path,
            &path,
            &mut loaded,
            torn.unwrap(),
        );
        let torn = LOGGED.take().pop().unwrap();
        let moved = format!("is now in {}.corrupt-{}", path.display(), line.len());
        assert!(torn.starts_with("WARN") && torn.ends_with(&moved), "{torn}");
    }

    #[test]
    fn an_error_of_reading_is_returned() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("disk on fire"))
            }
        }
        let reader = Reader {
            file_name: Path::new("events.log"),
            max_line_bytes: 100,
            log_period: LOG_PERIOD,
        };
        let error = reader.read(Broken, |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "disk on fire");
    }
}
