//! Durations and sizes as people write them in flags and configuration files: [`parse_duration`] and [`parse_size`].
//!
//! The settings that come from a configuration file ([`ServerInfo`](crate::ServerInfo) and others) take these forms, and a
//! program can use them for its own flags.

use std::time::Duration;

use crate::error::Error;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// The units of durations, and their lengths in nanoseconds.
const DURATION_UNITS: [(&str, u128); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("min", 60 * NANOS_PER_SECOND),
    ("h", 3_600 * NANOS_PER_SECOND),
    ("d", 86_400 * NANOS_PER_SECOND),
];

/// The units of sizes, in lower case, and the power of two that each stands for.
const SIZE_UNITS: [(&str, u32); 10] = [
    ("", 0),
    ("b", 0),
    ("k", 10),
    ("kib", 10),
    ("m", 20),
    ("mib", 20),
    ("g", 30),
    ("gib", 30),
    ("t", 40),
    ("tib", 40),
];

/// The most digits after the point of a duration.
const MAX_FRACTION_DIGITS: usize = 9;

/// Parses a duration: a number of seconds such as `10` or `1.5`, or a number with a unit such as `500ms`, `10s`, `5m` or
/// `1h`.
///
/// The units are `ns`, `us` (or `µs`), `ms`, `s`, `m` (or `min`), `h` and `d`. Several numbers with units, the greatest unit
/// first, are added: `1h30m`. A number has digits, and may have a point and up to nine more digits. Blanks are not allowed.
///
/// ```
/// use std::time::Duration;
/// use long_polling::units::parse_duration;
///
/// assert_eq!(parse_duration("10s")?, Duration::from_secs(10));
/// assert_eq!(parse_duration("10")?, Duration::from_secs(10));
/// assert_eq!(parse_duration("1.5")?, Duration::from_millis(1500));
/// assert_eq!(parse_duration("500ms")?, Duration::from_millis(500));
/// assert_eq!(parse_duration("1h30m")?, Duration::from_secs(5400));
/// assert!(parse_duration("soon").is_err());
/// # Ok::<(), long_polling::Error>(())
/// ```
///
/// # Errors
///
/// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) that quotes the text and says which forms are allowed. The caller
/// adds the name of the setting.
pub fn parse_duration(text: &str) -> Result<Duration, Error> {
    let nanos = match decimal(text, NANOS_PER_SECOND) {
        Some(nanos) => Some(nanos),
        None => sum_of_parts(text),
    };
    let duration = nanos.and_then(|nanos| {
        let seconds = u64::try_from(nanos / NANOS_PER_SECOND).ok()?;
        Some(Duration::new(seconds, (nanos % NANOS_PER_SECOND) as u32))
    });
    duration.ok_or_else(|| {
        let expected = "a number of seconds such as 10 or 1.5, or a number with one of the units ns, us, ms, s, m, h and d, \
                        such as 500ms, 10s or 1h30m";
        Error::not_a("a duration", text, expected)
    })
}

/// Parses a size in bytes: a number of bytes such as `1000`, or a number with a unit such as `64K`, `64M` or `1G`.
///
/// The units are `K`, `M`, `G` and `T`, or `KiB`, `MiB`, `GiB` and `TiB`: powers of 1024. `B` is a byte. Lower case is the
/// same. `KB`, `MB` and so on are errors, as they stand for powers of 1000 in some programs and of 1024 in others. Blanks,
/// signs and points are not allowed.
///
/// ```
/// use long_polling::units::parse_size;
///
/// assert_eq!(parse_size("1000")?, 1000);
/// assert_eq!(parse_size("64K")?, 65_536);
/// assert_eq!(parse_size("64MiB")?, 67_108_864);
/// assert!(parse_size("64MB").is_err());
/// # Ok::<(), long_polling::Error>(())
/// ```
///
/// # Errors
///
/// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) that quotes the text and says which forms are allowed, also for a
/// size that this system can't address. The caller adds the name of the setting.
pub fn parse_size(text: &str) -> Result<usize, Error> {
    let (number, unit) = split_number(text);
    let unit = unit.to_ascii_lowercase();
    let size = SIZE_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .zip(digits(number))
        .and_then(|((_, power), number)| usize::try_from(u128::from(number) << power).ok());
    size.ok_or_else(|| {
        let expected = "a number of bytes, or a number with one of the units K, M, G and T (powers of 1024), such as 64M";
        Error::not_a("a size", text, expected)
    })
}

/// Returns the number at the start of a text, and the rest.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    text.split_at(end.unwrap_or(text.len()))
}

fn digits(text: &str) -> Option<u64> {
    // `parse` alone accepts a sign.
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Returns a decimal number, multiplied by `unit`.
fn decimal(text: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.len() > MAX_FRACTION_DIGITS {
        return None;
    }
    let parts = 10u128.pow(fraction.len() as u32);
    let fraction = u128::from(digits(fraction)?) * unit / parts;
    Some(u128::from(digits(whole)?) * unit + fraction)
}

/// Returns the nanoseconds of numbers with units, such as `1h30m`.
fn sum_of_parts(text: &str) -> Option<u128> {
    let (mut rest, mut sum, mut last) = (text, 0u128, u128::MAX);
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let end = after.find(|letter: char| letter.is_ascii_digit());
        let (name, after) = after.split_at(end.unwrap_or(after.len()));
        let (_, unit) = DURATION_UNITS.into_iter().find(|(unit, _)| *unit == name)?;
        if unit >= last {
            return None;
        }
        sum = sum.checked_add(decimal(number, unit)?)?;
        (rest, last) = (after, unit);
    }
    (last < u128::MAX).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_duration_has_a_unit_or_is_in_seconds() {
        for (text, nanos) in [
            ("0", 0),
            ("10", 10 * NANOS_PER_SECOND),
            ("0.25", 250_000_000),
            ("7ns", 7),
            ("1.5us", 1_500),
            ("1.5µs", 1_500),
            ("500ms", 500_000_000),
            ("10s", 10 * NANOS_PER_SECOND),
            ("5m", 300 * NANOS_PER_SECOND),
            ("5min", 300 * NANOS_PER_SECOND),
            ("1h", 3_600 * NANOS_PER_SECOND),
            ("1d", 86_400 * NANOS_PER_SECOND),
            ("1h30m", 5_400 * NANOS_PER_SECOND),
            ("1m0.5s", 60_500_000_000),
            ("1.000000001s", 1_000_000_001),
        ] {
            assert_eq!(parse_duration(text).unwrap().as_nanos(), nanos, "{text}");
        }
        let longest = format!("{:?}", Duration::MAX);
        assert_eq!(parse_duration(&longest).unwrap(), Duration::MAX);
    }

    #[test]
    fn any_other_text_is_no_duration() {
        for text in [
            "",
            "s",
            ".",
            ".5s",
            "1.",
            "1.s",
            "-1",
            "-1s",
            "+1s",
            "1 s",
            " 1s",
            "1s ",
            "1S",
            "1H",
            "1x",
            "1s1s",
            "30m1h",
            "1h30",
            "1.0000000001s",
            "1..5s",
            "1e3s",
            "1,5s",
            "18446744073709551616",
            "18446744073709551615d",
            "99999999999999999999999s",
            "soon",
        ] {
            let error = parse_duration(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidSetting, "{text}");
            let words = error.to_string();
            assert!(
                words.starts_with(&format!("not a duration: {text:?}")),
                "{words}"
            );
            assert!(words.contains("500ms, 10s or 1h30m"), "{words}");
        }
    }

    #[test]
    fn a_size_is_in_bytes_or_has_a_unit_of_a_power_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("7B", 7),
            ("1K", 1 << 10),
            ("1k", 1 << 10),
            ("64M", 64 << 20),
            ("64MiB", 64 << 20),
            ("64mib", 64 << 20),
            ("1G", 1 << 30),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        assert_eq!(
            parse_size(&usize::MAX.to_string()).unwrap(),
            usize::MAX,
            "the greatest"
        );
    }

    #[test]
    fn any_other_text_is_no_size() {
        for text in [
            "",
            "M",
            "-1",
            "+1",
            "1.5G",
            "1 M",
            " 1M",
            "64MB",
            "64kb",
            "64X",
            "1M1",
            "0x10",
            "18446744073709551616",
            "16777216T",
            "é",
        ] {
            let error = parse_size(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidSetting, "{text}");
            let words = error.to_string();
            assert!(
                words.starts_with(&format!("not a size: {text:?}")),
                "{words}"
            );
            assert!(words.contains("64M"), "{words}");
        }
    }
}
