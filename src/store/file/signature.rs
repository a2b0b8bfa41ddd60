//! [`Signature`]: distinguishes a damaged log from a file of another program.
//!
//! A file is a log in any of these cases. Only then may it be appended to, compacted and truncated.
//!
//! - It has nothing but blanks and NUL bytes.
//! - At least one of its lines can be read: one of this crate or of golongpoll.
//! - At least one of its lines begins or ends as such a line does, and is damaged elsewhere.
//! - It ends within its first line, and that is the beginning of such a line.
//!
//! Every other file is refused.

/// Whether the lines of a file so far are those of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signature {
    /// Lines that are not blank.
    lines: u64,
    /// One of them is a line of a log.
    is_log: bool,
}

/// The beginnings of a log's lines. `#` stands for one digit or more. A line may have blanks before.
const BEGINNINGS: [&[u8]; 12] = [
    br#"{"timestamp":#,"category":""#,
    br#"["started","#,
    br#"["ended","#,
    br#"["refused","#,
    br#"["compacted","#,
    br#"["batch","#,
    br#"["purged","#,
    br#"["taken","#,
    br#"["lost","#,
    br#"["forgotten","#,
    br#"["damaged","#,
    br#"["torn","#,
];

/// How a line compares with a beginning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    Full,
    /// The line ends within the beginning.
    Partial,
    No,
}

impl Signature {
    /// Adds a line that could be read.
    pub(super) fn add_readable(&mut self) {
        self.lines += 1;
        self.is_log = true;
    }

    /// Adds a line that could not be read. Of a long line, the beginning is enough. `ends_with_newline` is false if the file
    /// ends within the line.
    pub(super) fn add_damaged(&mut self, line: &[u8], ends_with_newline: bool) {
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
            let matched = begins(line, beginning);
            matched == Match::Full || (matched == Match::Partial && torn_first)
        });
        self.is_log |= begins || has_checksum(line);
    }

    /// Returns the number of lines if the file is not a log.
    pub(super) fn refused(&self) -> Option<u64> {
        (self.lines > 0 && !self.is_log).then_some(self.lines)
    }
}

/// Compares a line with a beginning.
fn begins(line: &[u8], beginning: &[u8]) -> Match {
    let mut rest = line;
    for expected in beginning {
        let count = match expected {
            b'#' => rest.iter().take_while(|byte| byte.is_ascii_digit()).count(),
            _ => usize::from(rest.first() == Some(expected)),
        };
        if count == 0 {
            // After a power cut, NULs are in the place of bytes that were not on the disk yet.
            let has_ended = rest.iter().all(|byte| *byte == 0);
            return if has_ended { Match::Partial } else { Match::No };
        }
        rest = &rest[count..];
    }
    Match::Full
}

/// Returns `true` for a line that ends with a checksum, whether it matches or not.
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
            signature.add_damaged(line, line.ends_with(b"\n"));
        }
        signature.refused().is_some()
    }

    #[test]
    fn a_log_truncated_at_any_byte_of_its_first_line_is_a_log() {
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
    fn a_log_is_a_log_even_if_all_its_lines_are_damaged() {
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
    fn a_file_of_blanks_and_nuls_is_a_log() {
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
    fn files_of_other_programs_are_not_logs() {
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
