//! The flags for the program itself.

use log::LevelFilter;

use super::Apply::Settings;
use super::{Flag, Topic};

pub(super) const TOPIC: Topic = Topic {
    title: "The program",
    flags: &[
        Flag {
            name: "--log",
            value: "LEVEL",
            help: "what to log on standard error: off, error, warn, info, debug or trace (RUST_LOG, or else info)",
            setting: "log",
            apply: Settings(|settings, value| {
                let level = value.choice(&[
                    ("off", LevelFilter::Off),
                    ("error", LevelFilter::Error),
                    ("warn", LevelFilter::Warn),
                    ("info", LevelFilter::Info),
                    ("debug", LevelFilter::Debug),
                    ("trace", LevelFilter::Trace),
                ]);
                settings.log = Some(level?);
                Ok(())
            }),
        },
        Flag {
            name: "--stop-timeout",
            value: "DURATION",
            help: "how long requests in flight and the file may take at a stop (10s)",
            setting: "stop_timeout",
            apply: Settings(|settings, value| {
                settings.stop_timeout = value.duration()?;
                Ok(())
            }),
        },
    ],
};
