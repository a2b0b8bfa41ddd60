//! [`Lines`]: the lines of a file, read one by one within a bound of memory, whatever the file holds.

use std::io::{self, BufRead, BufReader, Read};

/// Bytes that are read from the file, and looked at, at a time.
const PIECE: usize = 256 << 10;
/// Bytes that are kept of a line that is passed over.
const BEGINNING: usize = 256;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// It has been read into [`Lines::line`].
    Read,
    /// It is longer than a line may be, and its bytes were passed over.
    TooLong,
    /// It has NUL bytes, as a power cut leaves them, and its bytes were passed over: no record has any.
    Nuls,
}

/// A line of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) content: Content,
    /// Where it begins in the file, in bytes.
    pub(super) start: u64,
    /// Where it ends, after its line break.
    pub(super) end: u64,
    /// Where the NULs begin that it ends with; `end` where there are none.
    pub(super) nuls_from: u64,
    /// False for the last line, where no line break follows.
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
            reader: BufReader::with_capacity(PIECE, file),
            max_line_bytes,
            line: Vec::new(),
            at: 0,
        }
    }

    /// The bytes of the line that [`next`](Lines::next) returned last, if they were [read](Content::Read); else the first
    /// few of them.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Reads the next line; `None` at the end of the file. `progress` is called with the position for every piece of a
    /// line that is passed over.
    pub(super) fn next(&mut self, progress: &mut dyn FnMut(u64)) -> io::Result<Option<Line>> {
        self.line.clear();
        // The memory of a line much larger than others is given back.
        self.line.shrink_to(2 * PIECE);
        let start = self.at;
        loop {
            let from = self.line.len();
            let mut piece = self.reader.by_ref().take(PIECE as u64);
            let read = piece.read_until(b'\n', &mut self.line)?;
            self.at += read as u64;
            let ends_with_newline = self.line.ends_with(b"\n");
            let is_over = ends_with_newline || read < PIECE;
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
            let text = self.line.trim_suffix_nuls();
            let mut line = Line {
                content,
                start,
                end: self.at,
                nuls_from: start + text as u64,
                ends_with_newline,
            };
            if content != Content::Read {
                self.line.truncate(BEGINNING);
            }
            if !is_over {
                self.pass_over(&mut line, progress)?;
            }
            return Ok(Some(line));
        }
    }

    /// Passes over the rest of a line.
    fn pass_over(&mut self, line: &mut Line, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        while !line.ends_with_newline {
            let piece = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                piece => piece?,
            };
            if piece.is_empty() {
                break;
            }
            // A comparison and a search of std's, which are fast in every build: there may be gigabytes.
            let used = if piece == &ZEROS[..piece.len()] {
                piece.len()
            } else {
                let end = match piece.contains(&b'\n') {
                    true => piece.iter().position(|byte| *byte == b'\n'),
                    false => None,
                };
                line.ends_with_newline = end.is_some();
                let used = end.map_or(piece.len(), |end| end + 1);
                let text = piece[..used].trim_suffix_nuls();
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

trait TrimNuls {
    /// The length without the NULs at the end.
    fn trim_suffix_nuls(&self) -> usize;
}

impl TrimNuls for [u8] {
    fn trim_suffix_nuls(&self) -> usize {
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
    fn lines_of_any_length_are_read_and_longer_ones_passed_over() {
        assert!(lines(&b""[..], 10).is_empty());
        assert_eq!(
            lines(&b"one\n\nthree"[..], 10),
            [
                (Content::Read, 0, 4, 4, true, b"one\n".to_vec()),
                (Content::Read, 4, 5, 5, true, b"\n".to_vec()),
                (Content::Read, 5, 10, 10, false, b"three".to_vec()),
            ]
        );
        for length in [11, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5] {
            let text = "x".repeat(length);
            let end = length as u64;
            for (file, newline) in [(format!("{text}\nlast"), true), (text.clone(), false)] {
                let to = end + u64::from(newline);
                let read = lines(file.as_bytes(), length + 1);
                let (content, start, found, _, broken, bytes) = &read[0];
                assert_eq!(*content, Content::Read);
                assert_eq!((*start, *found, *broken), (0, to, newline));
                assert_eq!(bytes.len() as u64, to);
                let passed = lines(file.as_bytes(), 10);
                let (content, start, found, nuls_from, broken, bytes) = &passed[0];
                assert_eq!(*content, Content::TooLong);
                assert_eq!((*start, *found, *nuls_from, *broken), (0, to, to, newline));
                assert!(file.as_bytes().starts_with(bytes) && bytes.len() <= BEGINNING);
                assert_eq!(
                    (read.len(), passed.len()),
                    (1 + usize::from(newline), read.len())
                );
            }
        }
    }

    #[test]
    fn nuls_are_passed_over_and_where_they_begin_is_known() {
        for nuls in [1, 5, PIECE - 4, PIECE, 4 * PIECE + 3] {
            for start in ["", "text"] {
                let mut file = start.as_bytes().to_vec();
                file.resize(start.len() + nuls, 0);
                let (from, to) = (start.len() as u64, file.len() as u64);
                let tail = lines(&file[..], usize::MAX);
                assert_eq!(tail.len(), 1);
                let (_, _, end, nuls_from, broken, bytes) = &tail[0];
                assert_eq!((*end, *nuls_from, *broken), (to, from, false), "{nuls}");
                assert!(bytes.len() <= PIECE);
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
