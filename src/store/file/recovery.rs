//! Reading a file back when it is opened: every readable record in the file's order, whatever else stands between them.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::beside;
use super::disk::{Disk, DiskFile};
use super::lines::{Content, Line, Lines};
use super::signature::Signature;
use crate::store::Record;

/// The longest line that is read, in bytes: far more than any event that is worth delivering, and little enough to read
/// into memory. A file whose line breaks were overwritten would else be one line of its whole size.
const MAX_LINE_BYTES: usize = 64 << 20;
/// How many damaged lines are logged one by one, before their sum.
const LINES_LOGGED: u64 = 5;
const COPIED_BYTES: u64 = 256 << 10;
/// A load that takes longer is logged, and again so often.
const LOGGED_EVERY: Duration = Duration::from_secs(2);

/// What a file held when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Events that were read.
    pub(super) events: u64,
    /// Lines that could not be read, and were skipped.
    pub(super) damaged: u64,
    /// The file's size in bytes.
    pub(super) bytes: u64,
    /// False where the file ends within a line, or with golongpoll's last one: the next line must not be glued to it.
    pub(super) ends_with_newline: bool,
}

/// Why a file could not be read back.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It is no log; the number of its lines.
    NoLog(u64),
    Failed(io::Error),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Unreadable::Failed(error)
    }
}

/// Reads a file from its beginning to its end once, holding one line of it at a time. Damaged lines are counted, and
/// logged under the file's name. [`repair_end`] has to follow before anything is appended.
///
/// # Errors
///
/// Those of reading, and `NoLog` for a file that is none. Nothing has been changed then.
pub(super) fn read_back(
    file: &mut impl Read,
    file_name: &Path,
    each: impl FnMut(Record),
) -> Result<(Loaded, Option<Torn>), Unreadable> {
    let reader = Reader {
        file_name,
        max_line_bytes: MAX_LINE_BYTES,
        logged_every: LOGGED_EVERY,
    };
    let (loaded, torn, signature) = reader.read(file, each)?;
    match signature.refused() {
        Some(lines) => Err(Unreadable::NoLog(lines)),
        None => Ok((loaded, torn)),
    }
}

/// The line that a file ends within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Torn {
    start: u64,
    /// Where its text ends; NULs follow.
    text_end: u64,
}

/// Takes the line that the file ends within out of it. The line's text is moved to a file of its own beside `path`; NULs
/// behind it are dropped, however many there are. `file_name` is for messages.
pub(super) fn repair_end<D: Disk>(
    disk: &D,
    file: &mut D::File,
    file_name: &Path,
    path: &Path,
    loaded: &mut Loaded,
    torn: Torn,
) {
    let Torn { start, text_end } = torn;
    let name = file_name.display();
    match cut_off(disk, file, path, torn) {
        Ok(corrupt) => {
            if let Some(corrupt) = corrupt {
                log::warn!(
                    "{name}: it ended within a line at byte {start}, as a crash leaves it; what is left of that line \
                     is now in {}",
                    corrupt.display()
                );
            }
            let nuls = loaded.bytes - text_end;
            if nuls > 0 {
                log::warn!(
                    "{name}: it ended with {nuls} NUL bytes from byte {text_end} on, as a power cut leaves them; they \
                     were cut off"
                );
            }
            loaded.bytes = start;
            loaded.ends_with_newline = true;
        }
        Err(error) => {
            log::warn!("{name}: it ends within a line at byte {start}, which stays there: {error}")
        }
    }
}

/// Moves the text at the end of a file to another one, whose path is returned, and cuts it off with all that follows.
fn cut_off<D: Disk>(
    disk: &D,
    file: &mut D::File,
    path: &Path,
    Torn { start, text_end }: Torn,
) -> io::Result<Option<PathBuf>> {
    let mut left = text_end - start;
    let corrupt = (left > 0).then(|| beside(path, &format!(".corrupt-{start}")));
    if let Some(path) = &corrupt {
        file.seek(SeekFrom::Start(start))?;
        let mut corrupt = disk.create(path, &*file)?;
        let mut piece = vec![0; left.min(COPIED_BYTES) as usize];
        while left > 0 {
            let piece = &mut piece[..left.min(COPIED_BYTES) as usize];
            file.read_exact(piece)?;
            corrupt.append_all(piece)?;
            left -= piece.len() as u64;
        }
        corrupt.sync()?;
        disk.sync_folder(path)?;
    }
    file.truncate(start)?;
    Ok(corrupt)
}

struct Reader<'a> {
    file_name: &'a Path,
    max_line_bytes: usize,
    logged_every: Duration,
}

impl Reader<'_> {
    /// Also says which line the file ends within, if it does and the line is not whole, and what its lines have shown.
    fn read(
        &self,
        file: impl Read,
        mut each: impl FnMut(Record),
    ) -> io::Result<(Loaded, Option<Torn>, Signature)> {
        let file_name = self.file_name.display();
        let mut lines = Lines::new(file, self.max_line_bytes);
        let mut loaded = Loaded {
            ends_with_newline: true,
            ..Loaded::default()
        };
        let mut signature = Signature::default();
        let mut torn = None;
        let (began, mut logged) = (Instant::now(), Instant::now());
        let mut log_progress = |bytes: u64| {
            if logged.elapsed() >= self.logged_every {
                logged = Instant::now();
                let megabytes = bytes >> 20;
                log::info!("{file_name}: {megabytes} MiB have been read so far");
            }
        };
        let mut count = 0u64;
        while let Some(line) = lines.next(&mut log_progress)? {
            loaded.bytes = line.end;
            loaded.ends_with_newline = line.ends_with_newline;
            torn = None;
            match self.parse(&line, lines.line()) {
                Ok(None) => {}
                Ok(Some(record)) => {
                    signature.readable();
                    loaded.events += u64::from(record.event().is_some());
                    each(record);
                }
                Err(reason) => {
                    signature.damaged(lines.line(), line.ends_with_newline);
                    loaded.damaged += 1;
                    if loaded.damaged <= LINES_LOGGED {
                        log::warn!(
                            "{file_name}: the line at byte {} is damaged and is skipped: {reason}",
                            line.start
                        );
                    }
                    torn = (!line.ends_with_newline).then_some(Torn {
                        start: line.start,
                        text_end: line.nuls_from,
                    });
                    let cut_off = torn.is_some() && line.content != Content::TooLong;
                    // A line that was whole but for its last byte was damaged afterwards.
                    let was_whole = || {
                        let all_but_last = lines.line().split_last().map_or(&[][..], |(_, l)| l);
                        line.content == Content::Read
                            && matches!(Record::parse(all_but_last), Ok(Some(_)))
                    };
                    each(match cut_off && !was_whole() {
                        true => Record::Torn,
                        false => Record::Damaged,
                    });
                }
            }
            count += 1;
            if count.is_multiple_of(4096) {
                log_progress(line.end);
            }
        }
        let Loaded {
            events, damaged, ..
        } = loaded;
        if damaged > LINES_LOGGED {
            log::warn!(
                "{file_name}: {damaged} lines are damaged and were skipped, the first {LINES_LOGGED} as logged"
            );
        }
        log::debug!(
            "{file_name}: {events} events were read in {:?}",
            began.elapsed()
        );
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
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::store::file::disk::SystemDisk;
    use crate::store::file::tests::event;

    fn read(file: impl AsRef<[u8]>, max_line_bytes: usize) -> (Vec<u64>, Loaded, Option<u64>) {
        let mut timestamps = Vec::new();
        let reader = Reader {
            file_name: Path::new("events.log"),
            max_line_bytes,
            logged_every: LOGGED_EVERY,
        };
        let read = reader.read(file.as_ref(), |record| match record {
            Record::Published { event, .. } => timestamps.push(event.timestamp()),
            Record::Damaged | Record::Torn => {}
            mark => panic!("{mark:?}"),
        });
        let (loaded, torn, _) = read.unwrap();
        (timestamps, loaded, torn.map(|torn| torn.start))
    }

    #[test]
    fn an_empty_file_holds_nothing_and_needs_no_newline() {
        let (timestamps, loaded, torn) = read("", 100);
        assert!(timestamps.is_empty() && loaded.ends_with_newline && torn.is_none());
        assert_eq!((loaded.events, loaded.damaged, loaded.bytes), (0, 0, 0));
    }

    #[test]
    fn lines_that_are_no_records_are_skipped_and_counted() {
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
    fn the_log_tells_where_a_file_is_damaged_and_how_far_a_long_load_is() {
        log::set_logger(&Logger).expect("no other test has a logger");
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
            logged_every: Duration::ZERO,
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
    fn an_error_of_reading_is_handed_on() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("disk on fire"))
            }
        }
        let reader = Reader {
            file_name: Path::new("events.log"),
            max_line_bytes: 100,
            logged_every: LOGGED_EVERY,
        };
        let error = reader.read(Broken, |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "disk on fire");
    }
}
