//! `Display` and `FromStr` of [`Record`]: the line of the log.

use std::fmt;
use std::str::FromStr;

use super::Record;
use crate::error::Error;

/// The line of [`to_line`](Record::to_line).
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_line())
    }
}

/// Reads the line of [`from_line`](Record::from_line).
impl FromStr for Record {
    type Err = Error;

    /// # Errors
    ///
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) if the text is not the line of a record, if its checksum does
    /// not match, or if it is blank.
    fn from_str(text: &str) -> Result<Self, Error> {
        Record::from_line(text)?
            .ok_or_else(|| Error::request("a blank line, where the line of a record is expected"))
    }
}
