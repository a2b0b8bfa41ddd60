//! The flags of the program, by topic. Each flag is also an environment variable.

mod access;
mod connections;
mod events;
mod file;
mod listening;
mod pages;
mod polls;
mod program;
mod redis;
#[cfg(test)]
mod tests;
mod watching;

use long_polling::{BrokerOptions, FilePersistorInfo, ServerInfo};

use crate::settings::Settings;
use crate::value::Value;

/// A flag, and the setting that it gives a value.
pub(crate) struct Flag {
    /// With its dashes.
    pub(crate) name: &'static str,
    /// What stands for the value in the help. Empty for a switch, which is on without a value.
    pub(crate) value: &'static str,
    /// With the default in parentheses.
    pub(crate) help: &'static str,
    /// The setting's name in the library, which the library's errors begin with. A flag of the program's own has its own
    /// name. Flags of one setting exclude each other.
    pub(crate) setting: &'static str,
    pub(crate) apply: Apply,
}

/// How a value gets into the settings. An error says what is wrong with the value, without the flag's name.
pub(crate) enum Apply {
    Server(fn(ServerInfo, &Value) -> Result<ServerInfo, String>),
    Broker(fn(BrokerOptions, &Value) -> Result<BrokerOptions, String>),
    /// Has no effect without `--file`.
    File(fn(FilePersistorInfo, &Value) -> Result<FilePersistorInfo, String>),
    /// Has no effect without `--redis`.
    #[cfg(feature = "redis")]
    Redis(fn(long_polling::RedisBackplane, &Value) -> Result<long_polling::RedisBackplane, String>),
    Settings(fn(&mut Settings, &Value) -> Result<(), String>),
}

/// Flags that the help lists under one heading.
pub(crate) struct Topic {
    pub(crate) title: &'static str,
    pub(crate) flags: &'static [Flag],
}

pub(crate) static TOPICS: [Topic; 10] = [
    listening::TOPIC,
    polls::TOPIC,
    access::TOPIC,
    pages::TOPIC,
    events::TOPIC,
    file::TOPIC,
    redis::TOPIC,
    connections::TOPIC,
    watching::TOPIC,
    program::TOPIC,
];

/// What every environment variable of this program begins with.
pub(crate) const VARIABLE_PREFIX: &str = "LONG_POLLING_";

impl Flag {
    pub(crate) fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// Whether the value is a token, or names the file of one.
    pub(crate) fn is_of_token(&self) -> bool {
        self.name.ends_with("-token") || self.name.ends_with("-token-file")
    }

    /// Whether both flags set the same. Flags for the file and for Redis may have settings of one name.
    pub(crate) fn is_of_setting_of(&self, other: &Flag) -> bool {
        let is_for_redis = |flag: &Flag| flag.name.starts_with("--redis");
        self.setting == other.setting && is_for_redis(self) == is_for_redis(other)
    }

    /// The environment variable that stands for the flag: `LONG_POLLING_PUBLISH_TOKEN` for `--publish-token`.
    pub(crate) fn variable(&self) -> String {
        let name = self.name.trim_start_matches('-');
        let name = name.replace('-', "_").to_ascii_uppercase();
        format!("{VARIABLE_PREFIX}{name}")
    }
}

/// Every flag, in the order of the help. A flag that others depend on comes before them.
pub(crate) fn all() -> impl Iterator<Item = &'static Flag> {
    TOPICS.iter().flat_map(|topic| topic.flags)
}
