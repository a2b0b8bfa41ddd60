//! Reading a file back when it is opened: every readable record in the file's order, whatever else stands between them.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use super::beside;
use super::disk::{Disk, DiskFile};
use crate::record::Record;

/// The longest line that is read, in bytes: far more than any event that is worth delivering, and little enough to read
/// into memory. A file whose line breaks were overwritten would else be one line of its whole size.
const MAX_LINE_BYTES: usize = 64 << 20;
/// How many damaged lines are logged one by one, before their sum.
const LINES_LOGGED: u64 = 5;
const READ_BYTES: usize = 256 << 10;
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

/// Reads a file from its beginning to its end once, holding one line of it at a time. Damaged lines are counted, and
/// logged under the file's name. What is left of a line that the file ends within is moved to a file of its own.
///
/// # Errors
///
/// Those of reading; what the file holds is never an error.
pub(super) fn read_back<D: Disk>(
    disk: &D,
    file: &mut D::File,
    file_name: &Path,
    each: impl FnMut(Record),
) -> io::Result<Loaded> {
    let reader = Reader {
        file_name,
        max_line_bytes: MAX_LINE_BYTES,
        logged_every: LOGGED_EVERY,
    };
    let (mut loaded, torn) = reader.read(&mut *file, each)?;
    if let Some(start) = torn {
        let path = beside(file_name, &format!(".corrupt-{start}"));
        match cut_off(disk, file, start, &path) {
            Ok(()) => {
                log::warn!(
                    "{}: it ended within a line at byte {start}, as a crash leaves it; what is left of that line is \
                     now in {}",
                    file_name.display(),
                    path.display()
                );
                loaded.bytes = start;
                loaded.ends_with_newline = true;
            }
            Err(error) => log::warn!(
                "{}: it ends within a line at byte {start}, which stays there: {error}",
                file_name.display()
            ),
        }
    }
    Ok(loaded)
}

/// Moves the end of a file to another one.
fn cut_off<D: Disk>(disk: &D, file: &mut D::File, start: u64, path: &Path) -> io::Result<()> {
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.read_to_end(&mut rest)?;
    let mut corrupt = disk.create(path)?;
    corrupt.append_all(&rest)?;
    corrupt.sync()?;
    disk.sync_folder(path)?;
    file.truncate(start)
}

struct Reader<'a> {
    file_name: &'a Path,
    max_line_bytes: usize,
    logged_every: Duration,
}

impl Reader<'_> {
    /// Also says where the line begins that the file ends within, if it does and the line is not whole.
    fn read(
        &self,
        file: impl Read,
        mut each: impl FnMut(Record),
    ) -> io::Result<(Loaded, Option<u64>)> {
        let file_name = self.file_name.display();
        let mut reader = BufReader::with_capacity(READ_BYTES, file);
        let mut loaded = Loaded {
            ends_with_newline: true,
            ..Loaded::default()
        };
        let mut line = Vec::new();
        let mut within_long_line = false;
        let mut start = 0;
        let mut whole = true;
        let (began, mut logged) = (Instant::now(), Instant::now());
        let mut lines = 0u64;
        loop {
            line.clear();
            let most = self.max_line_bytes as u64 + 1;
            let read = reader.by_ref().take(most).read_until(b'\n', &mut line)? as u64;
            if read == 0 {
                break;
            }
            if !within_long_line {
                start = loaded.bytes;
            }
            loaded.bytes += read;
            loaded.ends_with_newline = line.ends_with(b"\n");
            let too_long = read == most && !loaded.ends_with_newline;
            let parsed = if within_long_line {
                Ok(None)
            } else if too_long {
                let max = self.max_line_bytes;
                Err(format!("the line is longer than {max} bytes"))
            } else {
                Record::parse(&line)
            };
            whole = !within_long_line && parsed.is_ok();
            within_long_line = !loaded.ends_with_newline;
            match parsed {
                Ok(None) => {}
                Ok(Some(record)) => {
                    loaded.events += u64::from(record.event().is_some());
                    each(record);
                }
                Err(reason) => {
                    loaded.damaged += 1;
                    if loaded.damaged <= LINES_LOGGED {
                        log::warn!(
                            "{file_name}: the line at byte {start} is damaged and is skipped: {reason}"
                        );
                    }
                    let cut_off = !loaded.ends_with_newline && !too_long;
                    // A line that was whole but for its last byte was damaged afterwards.
                    let was_whole =
                        || matches!(Record::parse(&line[..line.len() - 1]), Ok(Some(_)));
                    each(match cut_off && !was_whole() {
                        true => Record::Torn,
                        false => Record::Damaged,
                    });
                }
            }
            lines += 1;
            if lines.is_multiple_of(4096) && logged.elapsed() >= self.logged_every {
                logged = Instant::now();
                let megabytes = loaded.bytes >> 20;
                log::info!("{file_name}: {megabytes} MiB have been read so far");
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
        let torn = (!loaded.ends_with_newline && !whole).then_some(start);
        Ok((loaded, torn))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::persist::disk::SystemDisk;
    use crate::persist::tests::event;

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
        let (loaded, torn) = read.unwrap();
        (timestamps, loaded, torn)
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
        read_back(&SystemDisk, &mut file, &path, |_| {}).unwrap();
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
