//! The checksum at the end of a line: CRC-32C of all bytes before it, in hexadecimal.

/// The bytes around the checksum of an event's line, a JSON object.
pub(super) const OBJECT: Frame = Frame {
    before: br#","crc":""#,
    after: br#""}"#,
};
/// The bytes around the checksum of any other record's line, a JSON array.
pub(super) const ARRAY: Frame = Frame {
    before: br#","crc:"#,
    after: br#""]"#,
};

/// The bytes around a checksum.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    before: &'static [u8],
    after: &'static [u8],
}

impl Frame {
    /// The number of bytes from the end of the checked bytes to the end of the line.
    pub(super) const fn len(self) -> usize {
        self.before.len() + DIGITS + self.after.len() + 1
    }
}

const DIGITS: usize = 8;

/// A line after [`open`] has compared its checksum.
pub(super) enum Opened<'a> {
    /// The checksum matches; the bytes before it.
    Sealed(&'a [u8]),
    /// The line has no checksum.
    Plain,
}

/// Appends the checksum of everything from `start` on, and the line break.
pub(super) fn seal(buffer: &mut Vec<u8>, start: usize, frame: Frame) {
    let crc = crc32c::crc32c(&buffer[start..]);
    buffer.extend_from_slice(frame.before);
    push_hex(buffer, crc.into(), DIGITS);
    buffer.extend_from_slice(frame.after);
    buffer.push(b'\n');
}

/// Compares the checksum of a line.
///
/// # Errors
///
/// The reason, if the line has a checksum that does not match.
pub(super) fn open(line: &[u8]) -> Result<Opened<'_>, String> {
    for frame in [OBJECT, ARRAY] {
        let Some((sealed, digits)) = line.strip_suffix(frame.after).and_then(|line| {
            let (line, digits) = line.split_at_checked(line.len().checked_sub(DIGITS)?)?;
            Some((line.strip_suffix(frame.before)?, digits))
        }) else {
            continue;
        };
        let crc = u32::try_from(hex(digits).ok_or("the checksum is damaged")?).unwrap_or_default();
        if crc != crc32c::crc32c(sealed) {
            return Err("the checksum does not match".into());
        }
        return Ok(Opened::Sealed(sealed));
    }
    Ok(Opened::Plain)
}

/// Appends this many of the number's lowest hexadecimal digits.
pub(super) fn push_hex(buffer: &mut Vec<u8>, number: u64, digits: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digit = |at: usize| HEX[(number >> (4 * at) & 0xf) as usize];
    buffer.extend((0..digits).rev().map(digit));
}

/// Reads hexadecimal digits. [`push_hex`] writes lower case, so upper case means that the line was changed.
pub(super) fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(digit))
    })
}
