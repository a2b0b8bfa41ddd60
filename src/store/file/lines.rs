//! [`Lines`]: reads a file line by line, in bounded memory whatever the file has.

use std::io::{self, BufRead, BufReader, Read};

use super::CHUNK_BYTES;

/// The bytes that are kept of a line that is skipped.
const KEPT_BYTES: usize = 256;
static ZEROS: [u8; 4096] = [0; 4096];

/// How a line was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// All of it is in [`Lines::line`].
    Read,
    /// It is longer than the limit, and was skipped.
    TooLong,
    /// It has NUL bytes, as after a power cut, and was skipped: no record has any.
    Nuls,
}

/// A line of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) content: Content,
    /// The offset of its first byte in the file.
    pub(super) start: u64,
    /// The offset after its line break.
    pub(super) end: u64,
    /// The offset of the NULs at its end; `end` if there are none.
    pub(super) nuls_from: u64,
    /// False for a last line without a line break.
    pub(super) ends_with_newline: bool,
}

/// Reads a file line by line.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    max_line_bytes: usize,
    line: Vec<u8>,
    at: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(file: R, max_line_bytes: usize) -> Self {
        Lines {
            reader: BufReader::with_capacity(CHUNK_BYTES, file),
            max_line_bytes,
            line: Vec::new(),
            at: 0,
        }
    }

    /// Returns the line that [`next`](Lines::next) has returned last, or the first bytes of it if it was skipped.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Reads the next line. Returns `None` at the end of the file. Calls `progress` with the offset for every chunk of a
    /// line that is skipped.
    pub(super) fn next(&mut self, progress: &mut dyn FnMut(u64)) -> io::Result<Option<Line>> {
        self.line.clear();
        // A line much longer than a chunk must not keep its memory.
        self.line.shrink_to(2 * CHUNK_BYTES);
        let start = self.at;
        loop {
            let from = self.line.len();
            let mut chunk = self.reader.by_ref().take(CHUNK_BYTES as u64);
            let read = chunk.read_until(b'\n', &mut self.line)?;
            self.at += read as u64;
            let ends_with_newline = self.line.ends_with(b"\n");
            let is_over = ends_with_newline || read < CHUNK_BYTES;
            let content = if self.line.len() > self.max_line_bytes {
                Content::TooLong
            } else if !is_over && self.line[from..].contains(&0) {
                Content::Nuls
            } else if is_over {
                Content::Read
            } else {
                continue;
            };
            if self.at == start {
                return Ok(None);
            }
            let text = self.line.len_without_nuls();
            let mut line = Line {
                content,
                start,
                end: self.at,
                nuls_from: start + text as u64,
                ends_with_newline,
            };
            if content != Content::Read {
                self.line.truncate(KEPT_BYTES);
            }
            if !is_over {
                self.skip(&mut line, progress)?;
            }
            return Ok(Some(line));
        }
    }

    /// Skips the rest of a line.
    fn skip(&mut self, line: &mut Line, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        while !line.ends_with_newline {
            let chunk = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                break;
            }
            // There may be gigabytes of NULs. std's comparison and search are fast, even without optimization.
            let used = if chunk
                .chunks(ZEROS.len())
                .all(|part| part == &ZEROS[..part.len()])
            {
                chunk.len()
            } else {
                let end = match chunk.contains(&b'\n') {
                    true => chunk.iter().position(|byte| *byte == b'\n'),
                    false => None,
                };
                line.ends_with_newline = end.is_some();
                let used = end.map_or(chunk.len(), |end| end + 1);
                let text = chunk[..used].len_without_nuls();
                if text > 0 {
                    line.nuls_from = self.at + text as u64;
                }
                used
            };
            self.reader.consume(used);
            self.at += used as u64;
            progress(self.at);
        }
        line.end = self.at;
        Ok(())
    }
}

trait WithoutNuls {
    /// Returns the length without the NULs at the end.
    fn len_without_nuls(&self) -> usize;
}

impl WithoutNuls for [u8] {
    fn len_without_nuls(&self) -> usize {
        self.iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(file: impl Read, max: usize) -> Vec<(Content, u64, u64, u64, bool, Vec<u8>)> {
        let mut lines = Lines::new(file, max);
        let mut all = Vec::new();
        while let Some(line) = lines.next(&mut |_| {}).unwrap() {
            all.push((
                line.content,
                line.start,
                line.end,
                line.nuls_from,
                line.ends_with_newline,
                lines.line().to_vec(),
            ));
        }
        all
    }

    #[test]
    fn lines_up_to_the_limit_are_read_and_longer_ones_are_skipped() {
        assert!(lines(&b""[..], 10).is_empty());
        assert_eq!(
            lines(&b"one\n\nthree"[..], 10),
            [
                (Content::Read, 0, 4, 4, true, b"one\n".to_vec()),
                (Content::Read, 4, 5, 5, true, b"\n".to_vec()),
                (Content::Read, 5, 10, 10, false, b"three".to_vec()),
            ]
        );
        for length in [
            11,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            2 * CHUNK_BYTES,
            3 * CHUNK_BYTES + 5,
        ] {
            let text = "x".repeat(length);
            let end = length as u64;
            for (file, newline) in [(format!("{text}\nlast"), true), (text.clone(), false)] {
                let to = end + u64::from(newline);
                let read = lines(file.as_bytes(), length + 1);
                let (content, start, found, _, broken, bytes) = &read[0];
                assert_eq!(*content, Content::Read);
                assert_eq!((*start, *found, *broken), (0, to, newline));
                assert_eq!(bytes.len() as u64, to);
                let skipped = lines(file.as_bytes(), 10);
                let (content, start, found, nuls_from, broken, bytes) = &skipped[0];
                assert_eq!(*content, Content::TooLong);
                assert_eq!((*start, *found, *nuls_from, *broken), (0, to, to, newline));
                assert!(file.as_bytes().starts_with(bytes) && bytes.len() <= KEPT_BYTES);
                assert_eq!(
                    (read.len(), skipped.len()),
                    (1 + usize::from(newline), read.len())
                );
            }
        }
    }

    #[test]
    fn nuls_are_skipped_and_their_offset_is_known() {
        for nuls in [1, 5, CHUNK_BYTES - 4, CHUNK_BYTES, 4 * CHUNK_BYTES + 3] {
            for start in ["", "text"] {
                let mut file = start.as_bytes().to_vec();
                file.resize(start.len() + nuls, 0);
                let (from, to) = (start.len() as u64, file.len() as u64);
                let tail = lines(&file[..], usize::MAX);
                assert_eq!(tail.len(), 1);
                let (_, _, end, nuls_from, broken, bytes) = &tail[0];
                assert_eq!((*end, *nuls_from, *broken), (to, from, false), "{nuls}");
                assert!(bytes.len() <= CHUNK_BYTES);
                file.extend_from_slice(b"more\nlast");
                let middle = lines(&file[..], usize::MAX);
                assert_eq!(middle.len(), 2);
                assert_eq!(middle[0].2, to + 5);
                assert_eq!(middle[0].3, to + 5);
                assert!(middle[0].4);
                assert_eq!(middle[1].5, b"last");
            }
        }
    }
}
