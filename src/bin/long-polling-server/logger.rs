//! The log, on standard error: lines with a time stamp, or what systemd's journal reads.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use env_logger::Builder;
use env_logger::fmt::Formatter;
use log::{Level, LevelFilter, Record};

/// Starts the log at this level, or by `RUST_LOG`, or at `info`. tiny_http's own records are off unless `RUST_LOG` turns
/// them on: it logs every stop as an error.
pub(crate) fn start(level: Option<LevelFilter>) {
    let mut builder = Builder::new();
    let default = level.unwrap_or(LevelFilter::Info);
    builder.parse_filters(&format!("{default},tiny_http=off"));
    if level.is_none() {
        builder.parse_default_env();
    }
    builder.format(if is_journal() { journal } else { stamped });
    builder.init();
}

fn stamped(out: &mut Formatter, record: &Record) -> std::io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    writeln!(
        out,
        "{} {:<5} {}: {}",
        time_stamp(now.unwrap_or_default()),
        record.level(),
        record.target(),
        record.args()
    )
}

/// The journal has its own time stamps, and takes the priority from the line's beginning (sd-daemon(3)).
fn journal(out: &mut Formatter, record: &Record) -> std::io::Result<()> {
    let priority = match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let (target, message) = (record.target(), record.args());
    writeln!(out, "<{priority}>{target}: {message}")
}

/// Whether standard error leads to the journal: then it is the file that `JOURNAL_STREAM` names by its device and inode.
#[cfg(unix)]
fn is_journal() -> bool {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = std::io::stderr().as_fd().try_clone_to_owned();
    let file = stderr.and_then(|stderr| File::from(stderr).metadata());
    file.is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn is_journal() -> bool {
    false
}

/// A time since 1970 in RFC 3339's form, in UTC, with milliseconds.
fn time_stamp(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let milliseconds = since_1970.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

/// The date this number of days after 1970-01-01 in the Gregorian calendar (Howard Hinnant's `civil_from_days`). Years begin in
/// March, so that a leap day ends one.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stamp_is_the_gregorian_date_and_the_time_in_utc() {
        for (milliseconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_007, "2000-03-01T00:00:00.007Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_767_225_599_000, "2025-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let time = Duration::from_millis(milliseconds);
            assert_eq!(time_stamp(time), expected);
            assert_eq!(
                httpdate::parse_http_date(&httpdate::fmt_http_date(UNIX_EPOCH + time)).unwrap(),
                UNIX_EPOCH + Duration::from_secs(time.as_secs())
            );
        }
        // Each day, compared with another crate's calendar.
        for day in 0..60_000 {
            let (year, month, date) = date(day);
            let other = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(day * 86_400));
            let names = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let at = (month as usize - 1) * 3;
            let name = &names[at..at + 3];
            assert_eq!(&other[5..16], format!("{date:02} {name} {year}"));
        }
    }
}
