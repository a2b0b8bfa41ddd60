//! Text of small values: `serde_as_text` for types with `Display` and `FromStr`, `named_values` for enums without fields.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};

use crate::error::Error;

/// Implements `Serialize` and `Deserialize` by `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($type:ty, $expected:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::text::parse(deserializer, $expected)
            }
        }
    };
}

/// Gives each value of an enum a name, by which it is displayed, parsed, serialized and deserialized.
#[cfg(feature = "_server")]
macro_rules! named_values {
    ($type:ty, $what:literal, { $($(#[$condition:meta])* $variant:ident = $name:literal,)+ }) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self {
                    $($(#[$condition])* Self::$variant => $name,)+
                })
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::error::Error;

            /// # Errors
            ///
            /// [`InvalidSetting`](crate::ErrorKind::InvalidSetting) for any other text.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($(#[$condition])* $name => Ok(Self::$variant),)+
                    _ => {
                        let names: &[&str] = &[$($(#[$condition])* $name,)+];
                        Err($crate::error::Error::not_a($what, text, names.join(" or ")))
                    }
                }
            }
        }

        $crate::text::serde_as_text!($type, $what);
    };
}

#[cfg(feature = "_server")]
pub(crate) use named_values;
pub(crate) use serde_as_text;

/// Reads a value from its text.
pub(crate) fn parse<'de, T: FromStr<Err = Error>, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(FromText {
        expected,
        value: PhantomData,
    })
}

struct FromText<T> {
    expected: &'static str,
    value: PhantomData<T>,
}

impl<T: FromStr<Err = Error>> Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}
