//! Reading a file back when it is opened: every readable record in the file's order, whatever else stands between them.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::format::{MAX_LINE_BYTES, parse_line};
use crate::broker::Record;

/// How many unreadable lines are logged one by one, before their sum.
const LINES_LOGGED: u64 = 5;
const READ_BYTES: usize = 64 << 10;

/// What a file held when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// Events that were read.
    pub(crate) events: u64,
    /// Lines that were no events, and were skipped.
    pub(crate) unreadable: u64,
    /// The file's size in bytes.
    pub(crate) bytes: u64,
    /// False where the file ends within a line, or with golongpoll's last one: the next line must not be glued to it.
    pub(crate) ends_with_newline: bool,
}

/// Reads a file from its beginning to its end once, holding one line of it at a time.
///
/// Lines that can't be read are counted, and logged under the file's name.
///
/// # Errors
///
/// Those of reading; what the file holds is never an error.
pub(super) fn read_back(
    file: impl Read,
    file_name: &Path,
    each: impl FnMut(Record),
) -> io::Result<Loaded> {
    read_lines(file, file_name, MAX_LINE_BYTES, each)
}

fn read_lines(
    file: impl Read,
    file_name: &Path,
    max_line_bytes: usize,
    mut each: impl FnMut(Record),
) -> io::Result<Loaded> {
    let mut reader = BufReader::with_capacity(READ_BYTES, file);
    let mut loaded = Loaded {
        ends_with_newline: true,
        ..Loaded::default()
    };
    let mut line = Vec::new();
    let mut within_long_line = false;
    loop {
        line.clear();
        let most = max_line_bytes as u64 + 1;
        let read = reader.by_ref().take(most).read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            break;
        }
        let start = loaded.bytes;
        loaded.bytes += read;
        loaded.ends_with_newline = line.ends_with(b"\n");
        let too_long = read == most && !loaded.ends_with_newline;
        let parsed = if within_long_line {
            Ok(None)
        } else if too_long {
            Err(format!("the line is longer than {max_line_bytes} bytes"))
        } else {
            parse_line(&line)
        };
        within_long_line = !loaded.ends_with_newline;
        match parsed {
            Ok(None) => {}
            Ok(Some(record)) => {
                loaded.events += u64::from(matches!(record, Record::Published(_)));
                each(record);
            }
            Err(reason) => {
                loaded.unreadable += 1;
                if loaded.unreadable <= LINES_LOGGED {
                    log::warn!(
                        "{}: the line at byte {start} is not an event and is skipped: {reason}",
                        file_name.display()
                    );
                }
            }
        }
    }
    if loaded.unreadable > LINES_LOGGED {
        log::warn!(
            "{}: {} lines are not events and were skipped, the first {LINES_LOGGED} as logged; {} events were read",
            file_name.display(),
            loaded.unreadable,
            loaded.events
        );
    }
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::tests::event;

    fn read(file: impl AsRef<[u8]>, max_line_bytes: usize) -> (Vec<u64>, Loaded) {
        let mut timestamps = Vec::new();
        let name = Path::new("events.log");
        let loaded = read_lines(file.as_ref(), name, max_line_bytes, |record| match record {
            Record::Published(event) => timestamps.push(event.timestamp()),
            mark => panic!("{mark:?}"),
        });
        (timestamps, loaded.unwrap())
    }

    #[test]
    fn an_empty_file_holds_nothing_and_needs_no_newline() {
        let (timestamps, loaded) = read("", 100);
        assert!(timestamps.is_empty() && loaded.ends_with_newline);
        assert_eq!((loaded.events, loaded.unreadable, loaded.bytes), (0, 0, 0));
    }

    #[test]
    fn lines_that_are_no_events_are_skipped_and_counted() {
        let mut file = Vec::new();
        for timestamp in [3, 1, 2] {
            file.extend_from_slice(b"\xff\xff\n\n{\"torn\n\0\0\0\n[1]\r\n");
            file.extend_from_slice(event(timestamp, "x").as_json().as_bytes());
            file.extend_from_slice(b"\r\n");
        }
        let (timestamps, loaded) = read(&file, 1000);
        assert_eq!(timestamps, [3, 1, 2]);
        assert_eq!((loaded.events, loaded.unreadable), (3, 12));
        assert_eq!(loaded.bytes, file.len() as u64);
        assert!(loaded.ends_with_newline);
    }

    #[test]
    fn a_line_too_long_counts_once_and_the_next_is_read() {
        let last = event(2, "x");
        let max = last.as_json().len();
        for long in [max + 1, max + 2, 2 * max, 2 * max + 2, 10 * max + 3] {
            let file = format!("{}\n{last}", "x".repeat(long));
            let (timestamps, loaded) = read(&file, max);
            assert_eq!(timestamps, [2], "{long}");
            assert_eq!(loaded.unreadable, 1, "{long}");
            assert!(!loaded.ends_with_newline);
            let (timestamps, loaded) = read("x".repeat(long), max);
            assert!(timestamps.is_empty());
            assert_eq!((loaded.unreadable, loaded.ends_with_newline), (1, false));
        }
    }

    #[test]
    fn an_error_of_reading_is_handed_on() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("disk on fire"))
            }
        }
        let error = read_back(Broken, Path::new("events.log"), |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "disk on fire");
    }
}
