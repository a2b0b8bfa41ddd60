//! [`Signature`]: tells a damaged log from a file that is none, such as another program's.
//!
//! A file is taken for a log, and may be appended to, compacted and cut off at its end, in any of these cases:
//!
//! - Nothing is in it but blanks and NUL bytes.
//! - A line of it can be read: ours or golongpoll's.
//! - A line of it begins or ends as those do, and is damaged elsewhere.
//! - It ends within its first line, which so far is the beginning of such a line.
//!
//! Every other file is refused.

/// What the lines of a file have shown so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signature {
    /// Lines that are not blank.
    lines: u64,
    /// One of them is a log's.
    found: bool,
}

/// How a line of a log may begin; `#` stands for one digit or more, and a line may have blanks before.
const BEGINNINGS: [&[u8]; 10] = [
    br#"{"timestamp":#,"category":""#,
    br#"["started","#,
    br#"["ended","#,
    br#"["refused","#,
    br#"["compacted","#,
    br#"["taken","#,
    br#"["lost","#,
    br#"["forgotten","#,
    br#"["damaged","#,
    br#"["torn","#,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    Whole,
    /// The bytes end within it.
    Partial,
    No,
}

impl Signature {
    /// Counts a line that could be read.
    pub(super) fn readable(&mut self) {
        self.lines += 1;
        self.found = true;
    }

    /// Counts a line that could not be read, of which the beginning will do if it is long. `ends_with_newline` is false
    /// where the file ends within it.
    pub(super) fn damaged(&mut self, line: &[u8], ends_with_newline: bool) {
        let Some(text) = line.iter().position(|byte| *byte != 0) else {
            return;
        };
        let line = line[text..].trim_ascii();
        if line.is_empty() {
            return;
        }
        self.lines += 1;
        let torn_first = !ends_with_newline && self.lines == 1;
        let begins = BEGINNINGS.iter().any(|beginning| {
            let found = begins(line, beginning);
            found == Match::Whole || (found == Match::Partial && torn_first)
        });
        self.found |= begins || has_checksum(line);
    }

    /// Returns the number of lines if this is no log.
    pub(super) fn refused(&self) -> Option<u64> {
        (self.lines > 0 && !self.found).then_some(self.lines)
    }
}

fn begins(line: &[u8], beginning: &[u8]) -> Match {
    let mut rest = line;
    for expected in beginning {
        let taken = match expected {
            b'#' => rest.iter().take_while(|byte| byte.is_ascii_digit()).count(),
            _ => usize::from(rest.first() == Some(expected)),
        };
        if taken == 0 {
            // NULs stand where a power cut came before the rest was on the disk.
            let over = rest.iter().all(|byte| *byte == 0);
            return if over { Match::Partial } else { Match::No };
        }
        rest = &rest[taken..];
    }
    Match::Whole
}

/// True for a line that ends with a checksum, whether it fits or not.
fn has_checksum(line: &[u8]) -> bool {
    let ends: [(&[u8], &[u8]); 2] = [(br#","crc":""#, br#""}"#), (br#","crc:"#, br#""]"#)];
    ends.iter().any(|(before, after)| {
        line.strip_suffix(*after)
            .and_then(|line| line.split_last_chunk::<8>())
            .is_some_and(|(line, digits)| {
                line.ends_with(before) && digits.iter().all(u8::is_ascii_hexdigit)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLONGPOLL: &str = r#"{"timestamp":1600000000000,"category":"c","data":1,"id":"x"}"#;
    const OURS: &str = r#"["ended","019a5b3c-1234-8abc-8000-000000000007","crc:01234567"]"#;

    fn is_refused(file: &[u8]) -> bool {
        let mut signature = Signature::default();
        for line in file.split_inclusive(|byte| *byte == b'\n') {
            signature.damaged(line, line.ends_with(b"\n"));
        }
        signature.refused().is_some()
    }

    #[test]
    fn a_log_torn_at_any_byte_of_its_first_line_is_a_log() {
        for line in [GOLONGPOLL, OURS] {
            for length in 0..=line.len() {
                for end in ["", "\0\0\0"] {
                    let torn = [&line.as_bytes()[..length], end.as_bytes()].concat();
                    assert!(!is_refused(&torn), "{}", String::from_utf8_lossy(&torn));
                    let after_newline = [b"\n", &torn[..]].concat();
                    assert!(!is_refused(&after_newline));
                }
            }
        }
    }

    #[test]
    fn a_log_all_of_whose_lines_are_damaged_is_a_log() {
        let sealed = r#"{"timestamp":17,"category":"c","data":1,"id":"x","crc":"0f1e2d3c"}"#;
        for line in [OURS, sealed] {
            for at in 0..line.len() {
                let mut damaged = line.as_bytes().to_vec();
                damaged[at] ^= 1 << (at % 7);
                damaged.push(b'\n');
                assert!(
                    !is_refused(&damaged),
                    "{}",
                    String::from_utf8_lossy(&damaged)
                );
            }
        }
    }

    #[test]
    fn blanks_and_nuls_are_no_reason_to_refuse_a_file() {
        for file in [
            &b""[..],
            b"\n",
            b" \r\n\t\n",
            b"\0",
            b"\0\0\n\0\n",
            b"\n\0\0\0\0",
        ] {
            assert!(!is_refused(file));
        }
    }

    #[test]
    fn other_files_are_none() {
        let elf = [&b"\x7fELF\x02\x01\x01"[..], &[0; 9], b"\x03\0>\0\x01\0"].concat();
        for file in [
            &elf[..],
            b"{\n  \"address\": \"0.0.0.0:80\"\n}\n",
            b"{\"address\":1}",
            b"{\"address\":1}\n",
            b"{\n",
            b"[\n  1\n]\n",
            b"[\"start\"]",
            b"[server]\nport = 8080\n",
            b"# Notes\n\nSome text.\n",
            b"x",
            b"{\"timestamp\":\"2026-01-01T00:00:00Z\",\"level\":\"info\"}\n",
            b"{\"timestamp\":1700000000,\"level\":\"info\"}\n",
            b"{\"timestamp\":1700000000,\"level\":\"info\"}",
            b"SQLite format 3\0\x10\0\x01\x01",
        ] {
            assert!(is_refused(file), "{}", String::from_utf8_lossy(file));
        }
    }
}
