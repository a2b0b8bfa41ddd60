//! [`Durability`]: what a crash may cost of the events in a file.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::Error;
#[cfg(any(doc, test))]
use crate::error::ErrorKind;
use crate::text::serde_as_text;
use crate::units::parse_duration;

/// What a crash may cost of the events in a file.
///
/// As text, for flags and configuration files, it is `buffered`, `synced`, `synced:2s` or `acknowledged`. The period after
/// `synced:` has the form that [`parse_duration`] takes. Without a period it is 1 second.
///
/// ```
/// use std::time::Duration;
/// use long_polling::Durability;
///
/// let durability: Durability = "synced:500ms".parse()?;
/// assert_eq!(durability, Durability::Synced { period: Duration::from_millis(500) });
/// assert_eq!(durability.to_string(), "synced:500ms");
/// assert_eq!("synced".parse::<Durability>()?.to_string(), "synced:1s");
/// # Ok::<(), long_polling::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// A background thread writes events once
    /// [`write_buffer_size`](super::FilePersistorInfo::write_buffer_size) is reached or
    /// [`write_flush_period`](super::FilePersistorInfo::write_flush_period) is over. Publishing does not wait for it. This
    /// is the Go package's way. A killed process loses at most the events of that buffer and period. A power cut also loses
    /// what the operating system has not written to the disk, which with Linux's settings is up to some 30 seconds.
    #[default]
    Buffered,
    /// As `Buffered`, with `fdatasync` after each write, and with this period in place of
    /// [`write_flush_period`](super::FilePersistorInfo::write_flush_period). A killed process and a power cut lose at most
    /// the events of that buffer and period.
    Synced {
        /// The longest time from the publish of an event to its `fdatasync`. Zero is an error.
        period: Duration,
    },
    /// A publish returns, and its subscribers are woken, when the event is on the disk (`fdatasync`). Neither a killed
    /// process nor a power cut loses an event that a publisher or subscriber knows of. Concurrent publishes share one sync,
    /// so the disk's syncs per second do not limit the events per second. If the disk fails, publishes are refused. After a
    /// crash no subscriber gets a gap, unless the file was damaged.
    ///
    /// An event whose publish was refused can still be there after a power cut, if the power cut came before the file was
    /// repaired. The record that a retrieval has deleted events
    /// ([`delete_after_first_retrieval`](crate::BrokerOptions::delete_after_first_retrieval)) is written in the background:
    /// after a crash such events can be there again.
    Acknowledged,
}

/// The period of `synced` without one.
const DEFAULT_PERIOD: Duration = Duration::from_secs(1);

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Buffered => f.pad("buffered"),
            Durability::Synced { period } => f.pad(&format!("synced:{period:?}")),
            Durability::Acknowledged => f.pad("acknowledged"),
        }
    }
}

impl FromStr for Durability {
    type Err = Error;

    /// # Errors
    ///
    /// [`InvalidSetting`](ErrorKind::InvalidSetting) for any other text.
    fn from_str(text: &str) -> Result<Self, Error> {
        let level = match text {
            "buffered" => Some(Durability::Buffered),
            "acknowledged" => Some(Durability::Acknowledged),
            "synced" => Some(Durability::Synced {
                period: DEFAULT_PERIOD,
            }),
            _ => text
                .strip_prefix("synced:")
                .and_then(|period| parse_duration(period).ok())
                .map(|period| Durability::Synced { period }),
        };
        level.ok_or_else(|| {
            let expected =
                "buffered, synced, synced with a period such as synced:2s, or acknowledged";
            Error::not_a("a durability", text, expected)
        })
    }
}

serde_as_text!(
    Durability,
    "a durability: buffered, synced, synced:2s or acknowledged"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_read_from_the_text_that_it_is_written_as() {
        let periods = [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_nanos(1_001),
            Duration::from_micros(1_500),
            Duration::from_secs(1),
            Duration::from_secs(86_400),
            Duration::MAX,
        ];
        let synced = periods.map(|period| Durability::Synced { period });
        for level in [Durability::Buffered, Durability::Acknowledged]
            .into_iter()
            .chain(synced)
        {
            assert_eq!(level.to_string().parse::<Durability>().unwrap(), level);
            let json = serde_json::to_string(&level).unwrap();
            assert_eq!(serde_json::from_str::<Durability>(&json).unwrap(), level);
        }
        let text = |text: &str| text.parse::<Durability>().unwrap().to_string();
        assert_eq!(text("synced"), "synced:1s");
        assert_eq!(text("synced:1500us"), "synced:1.5ms");
        assert_eq!(text("synced:2"), "synced:2s");
        assert_eq!(text("synced:1m"), "synced:60s");
    }

    #[test]
    fn any_other_text_is_refused() {
        for text in [
            "",
            "Buffered",
            "synced:",
            "synced:s",
            "synced:.s",
            "synced:1.s",
            "synced:-1s",
            "synced:1.0000000001s",
            "synced:99999999999999999999s",
            "synced:1w",
            "synced every 1s",
        ] {
            let error = text.parse::<Durability>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidSetting, "{text}");
            assert!(error.to_string().contains("give buffered"), "{error}");
        }
        assert!(serde_json::from_str::<Durability>("1").is_err());
    }
}
