//! [`Value`]: the value of a flag or of an environment variable, not yet read.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use long_polling::CategoryOptions;
use long_polling::units::{parse_duration, parse_size};

use crate::flags::Flag;

/// A value that the command line or the environment gives a flag. What can't be read is an error that says why, without the
/// flag's name.
pub(crate) struct Value<'a> {
    pub(crate) given: &'a Given,
    /// Every value of this start.
    pub(crate) all: &'a [Given],
}

/// A flag with its value, and where it is from.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) flag: &'static Flag,
    pub(crate) source: Source,
    pub(crate) text: OsString,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    CommandLine,
    Environment,
}

impl Given {
    /// The name by which the user knows it: the flag or the environment variable.
    pub(crate) fn name(&self) -> String {
        match self.source {
            Source::CommandLine => self.flag.name.to_owned(),
            Source::Environment => self.flag.variable(),
        }
    }
}

/// The message about a value that can't be read. The value itself is in it, so it must not be a secret.
fn invalid(value: impl Display, why: impl Display) -> String {
    format!("invalid value \"{value}\": {why}")
}

impl<'a> Value<'a> {
    /// The value of another flag, where it is given.
    pub(crate) fn of(&self, name: &str) -> Option<Value<'a>> {
        let given = self.all.iter().rfind(|given| given.flag.name == name)?;
        Some(Value { given, ..*self })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.given.text.clone().into()
    }

    pub(crate) fn text(&self) -> Result<String, String> {
        let text = self.given.text.clone().into_string();
        text.map_err(|text| invalid(text.to_string_lossy(), "give text in UTF-8"))
    }

    /// A value of a library's type, whose error quotes the text.
    pub(crate) fn parsed<T: FromStr<Err = long_polling::Error>>(&self) -> Result<T, String> {
        self.text()?.parse().map_err(report)
    }

    pub(crate) fn number(&self) -> Result<usize, String> {
        number(&self.text()?)
    }

    /// The mode of a file, in octal.
    pub(crate) fn mode(&self) -> Result<u32, String> {
        let text = self.text()?;
        u32::from_str_radix(&text, 8)
            .map_err(|error| invalid(&text, format!("{error}; give octal digits, such as 660")))
    }

    pub(crate) fn duration(&self) -> Result<Duration, String> {
        parse_duration(&self.text()?).map_err(report)
    }

    pub(crate) fn size(&self) -> Result<usize, String> {
        parse_size(&self.text()?).map_err(report)
    }

    /// A value, or `none`.
    pub(crate) fn optional<T>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        if self.given.text == "none" {
            return Ok(None);
        }
        read(self).map(Some)
    }

    /// Whether a switch is on.
    pub(crate) fn is_on(&self) -> Result<bool, String> {
        self.choice(&[("true", true), ("false", false), ("1", true), ("0", false)])
    }

    /// One of these values, by its name.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, String> {
        let text = self.text()?;
        let found = choices.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let (last, first) = names.split_last().unwrap_or((&"", &[]));
            invalid(&text, format!("give {} or {last}", first.join(", ")))
        })
    }

    /// The items of a list with commas. A flag that is repeated is one list.
    pub(crate) fn list<T: Item>(&self) -> Result<Vec<T>, String> {
        let same = |given: &&Given| given.flag.name == self.given.flag.name;
        let mut items = Vec::new();
        for given in self.all.iter().filter(same) {
            let text = Value { given, ..*self }.text()?;
            for item in text.split(',') {
                items.push(T::read(item.trim())?);
            }
        }
        Ok(items)
    }

    pub(crate) fn token(&self) -> Result<String, String> {
        // Without the value, which is a secret.
        let token = self.given.text.clone().into_string();
        let token = token.map_err(|_| "the token is not text in UTF-8; give another".to_owned())?;
        if token.is_empty() {
            return Err("the token is empty and protects nothing; give a token".into());
        }
        Ok(token)
    }
}

/// An item of a list.
pub(crate) trait Item: Sized {
    fn read(text: &str) -> Result<Self, String>;
}

impl Item for long_polling::server::Network {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(report)
    }
}

impl Item for String {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }
}

/// Settings of the categories with a prefix, such as `metrics/=10:60s`.
impl Item for (String, CategoryOptions) {
    fn read(text: &str) -> Result<Self, String> {
        let hint = "give PREFIX=EVENTS or PREFIX=EVENTS:DURATION, such as metrics/=10:60s";
        let (prefix, limits) = text.rsplit_once('=').ok_or_else(|| invalid(text, hint))?;
        let (events, ttl) = match limits.split_once(':') {
            Some((events, ttl)) => (events, Some(ttl)),
            None => (limits, None),
        };
        let mut options = CategoryOptions::new().events_per_category(number(events)?);
        if let Some(ttl) = ttl {
            options = options.event_ttl(parse_duration(ttl).map_err(report)?);
        }
        Ok((prefix.into(), options))
    }
}

impl Item for usize {
    fn read(text: &str) -> Result<Self, String> {
        number(text)
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|error| invalid(text, format!("{error}; give a whole number")))
}

fn report(error: long_polling::Error) -> String {
    error.report().to_string()
}
