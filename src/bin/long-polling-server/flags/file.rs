//! The flags for the file.

use long_polling::{Durability, FilePersistorInfo};

use super::Apply::{File, Settings};
use super::{Flag, Topic};
use crate::value::Value;

pub(super) const TOPIC: Topic = Topic {
    title: "Events in a file",
    flags: &[
        Flag {
            name: "--file",
            value: "PATH",
            help: "keep events in this file, too, and start with its events",
            setting: "file_name",
            apply: Settings(|settings, value| {
                settings.file = Some(FilePersistorInfo::new(value.path()));
                Ok(())
            }),
        },
        Flag {
            name: "--durability",
            value: "LEVEL",
            help: "what a crash may cost: buffered, synced (every --flush-period, or synced:DURATION) or acknowledged \
                   (buffered)",
            setting: "durability",
            apply: File(|file, value| {
                let level: Durability = value.parsed()?;
                Ok(file.durability(match value.of("--flush-period") {
                    Some(period) if value.text()? == "synced" => Durability::Synced {
                        period: period.duration().unwrap_or_default(),
                    },
                    _ => level,
                }))
            }),
        },
        Flag {
            name: "--flush-period",
            value: "DURATION",
            help: "write to the file, and sync it with synced, at least this often (1s)",
            setting: "write_flush_period",
            apply: File(|file, value| Ok(file.write_flush_period(value.duration()?))),
        },
        Flag {
            name: "--write-buffer-size",
            value: "SIZE",
            help: "write to the file once this many bytes wait (64K)",
            setting: "write_buffer_size",
            apply: File(|file, value| Ok(file.write_buffer_size(value.size()?))),
        },
        Flag {
            name: "--max-queue-size",
            value: "SIZE",
            help: "the most bytes of events that may wait for the file (64M)",
            setting: "max_queue_size",
            apply: File(|file, value| Ok(file.max_queue_size(value.size()?))),
        },
        Flag {
            name: "--max-wait",
            value: "DURATION",
            help: "how long a publish waits for room there before it gets 503 (5s)",
            setting: "max_wait",
            apply: File(|file, value| Ok(file.max_wait(value.duration()?))),
        },
        Flag {
            name: "--compact-from",
            value: "SIZE",
            help: "compact the file from this size on, once half of it is of events that are gone (4M)",
            setting: "compact_from",
            apply: File(|file, value| {
                let from = value.optional(Value::size)?;
                Ok(file.compact_from(from.map(|bytes| bytes as u64)))
            }),
        },
        Flag {
            name: "--keep-history",
            value: "",
            help: "never compact the file",
            setting: "compact_from",
            apply: File(|file, value| {
                Ok(if value.is_on()? {
                    file.compact_from(None)
                } else {
                    file
                })
            }),
        },
    ],
};
