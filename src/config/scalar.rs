//! [`Scalar`]: a value that is one piece of text, a number or a truth value; and the kinds of such values.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserializer, Unexpected, Visitor};

use super::{Kind, Named};
use crate::error::{Error, ErrorKind};
use crate::units::{parse_duration, parse_size};

/// A value that is one piece of text, or a number or a truth value in formats that have such.
pub(crate) trait Scalar {
    type Value;
    /// What a message says to give.
    const EXPECTED: &'static str;

    /// # Errors
    ///
    /// Says which text is expected.
    fn from_text(text: &str) -> Result<Self::Value, Error>;

    fn from_number(_: u64) -> Option<Self::Value> {
        None
    }

    fn from_fraction(_: f64) -> Option<Self::Value> {
        None
    }

    fn from_flag(_: bool) -> Option<Self::Value> {
        None
    }

    /// The value of JSON's `null`.
    fn from_nothing() -> Option<Self::Value> {
        None
    }
}

impl<S: Scalar> Kind for S {
    type Value = S::Value;

    fn read<'de, D: Deserializer<'de>>(
        name: &'static str,
        deserializer: D,
    ) -> Result<S::Value, D::Error> {
        deserializer.deserialize_any(Named::<ScalarVisitor<S>>::new(name))
    }
}

struct ScalarVisitor<S>(PhantomData<S>);

impl<'de, S: Scalar> Visitor<'de> for Named<ScalarVisitor<S>> {
    type Value = S::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for `{}`", S::EXPECTED, self.name)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<S::Value, E> {
        S::from_text(text).map_err(|error| E::custom(format_args!("{}: {error}", self.name)))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<S::Value, E> {
        let value = S::from_number(number);
        value.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<S::Value, E> {
        let value = u64::try_from(number).ok().and_then(S::from_number);
        value.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<S::Value, E> {
        let value = S::from_fraction(number);
        value.ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<S::Value, E> {
        let value = S::from_flag(flag);
        value.ok_or_else(|| E::invalid_type(Unexpected::Bool(flag), &self))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<S::Value, E> {
        S::from_nothing().ok_or_else(|| E::invalid_type(Unexpected::Unit, &self))
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<S::Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A duration: text such as `10s`, or a number of seconds.
pub(crate) struct Time;

impl Scalar for Time {
    type Value = Duration;
    const EXPECTED: &'static str = "a duration such as \"10s\", or a number of seconds,";

    fn from_text(text: &str) -> Result<Duration, Error> {
        parse_duration(text)
    }

    fn from_number(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    fn from_fraction(seconds: f64) -> Option<Duration> {
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// A size: text such as `64M`, or a number of bytes.
pub(crate) struct Size<T = usize>(PhantomData<T>);

impl<T: TryFrom<usize> + TryFrom<u64>> Scalar for Size<T> {
    type Value = T;
    const EXPECTED: &'static str = "a size such as \"64M\", or a number of bytes,";

    fn from_text(text: &str) -> Result<T, Error> {
        let size = parse_size(text)?;
        T::try_from(size).map_err(|_| Error::not_a("a size", text, Self::EXPECTED))
    }

    fn from_number(bytes: u64) -> Option<T> {
        bytes.try_into().ok()
    }
}

/// A number of things.
pub(crate) struct Count;

impl Scalar for Count {
    type Value = usize;
    const EXPECTED: &'static str = "a whole number";

    fn from_text(text: &str) -> Result<usize, Error> {
        let number = text.parse();
        number.map_err(|_| Error::not_a("a number", text, Self::EXPECTED))
    }

    fn from_number(number: u64) -> Option<usize> {
        number.try_into().ok()
    }
}

/// A truth value.
pub(crate) struct Flag;

impl Scalar for Flag {
    type Value = bool;
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &str) -> Result<bool, Error> {
        let flag = text.parse();
        flag.map_err(|_| Error::not_a("a truth value", text, Self::EXPECTED))
    }

    fn from_flag(flag: bool) -> Option<bool> {
        Some(flag)
    }
}

/// Any text.
pub(crate) struct Text;

impl Scalar for Text {
    type Value = String;
    const EXPECTED: &'static str = "text";

    fn from_text(text: &str) -> Result<String, Error> {
        Ok(text.into())
    }
}

/// The path of a file.
pub(crate) struct FilePath;

impl Scalar for FilePath {
    type Value = PathBuf;
    const EXPECTED: &'static str = "a path";

    fn from_text(text: &str) -> Result<PathBuf, Error> {
        Ok(text.into())
    }
}

/// The mode of a file: octal digits as text, or a number in formats that have octal numbers.
pub(crate) struct Mode;

impl Scalar for Mode {
    type Value = u32;
    const EXPECTED: &'static str = "octal digits such as \"660\"";

    fn from_text(text: &str) -> Result<u32, Error> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        let mode = u32::from_str_radix(digits, 8);
        mode.map_err(|_| Error::not_a("a mode", text, Self::EXPECTED))
    }

    fn from_number(number: u64) -> Option<u32> {
        number.try_into().ok()
    }
}

/// A type that has a form as text.
pub(crate) struct Parsed<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Scalar for Parsed<T> {
    type Value = T;
    const EXPECTED: &'static str = "text";

    fn from_text(text: &str) -> Result<T, Error> {
        text.parse().map_err(|error: T::Err| {
            let message = error.to_string();
            // The errors of std do not quote the text.
            match message.contains(text) {
                true => Error::new(ErrorKind::InvalidSetting, message),
                false => Error::new(ErrorKind::InvalidSetting, format!("{text:?}: {message}")),
            }
        })
    }
}

/// A setting that can be `None`: `null`, or the text `none` in formats that have no `null`.
pub(crate) struct Optional<S>(PhantomData<S>);

impl<S: Scalar> Scalar for Optional<S> {
    type Value = Option<S::Value>;
    const EXPECTED: &'static str = S::EXPECTED;

    fn from_text(text: &str) -> Result<Self::Value, Error> {
        match text {
            "none" => Ok(None),
            text => S::from_text(text).map(Some),
        }
    }

    fn from_number(number: u64) -> Option<Self::Value> {
        S::from_number(number).map(Some)
    }

    fn from_fraction(number: f64) -> Option<Self::Value> {
        S::from_fraction(number).map(Some)
    }

    fn from_flag(flag: bool) -> Option<Self::Value> {
        S::from_flag(flag).map(Some)
    }

    fn from_nothing() -> Option<Self::Value> {
        Some(None)
    }
}
