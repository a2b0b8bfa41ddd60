//! Settings from configuration files: [`Settings`], by which `Deserialize` of a type calls the type's setters, and [`Kind`]:
//! how the value of a setting is written.
//!
//! A derived `Deserialize` does not know the name of the setting whose value it can't read. This one puts the name before
//! each message. It reads only formats that describe themselves, such as TOML, YAML and JSON.

mod scalar;

use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};

use scalar::Scalar;
pub(crate) use scalar::{Count, FilePath, Flag, Mode, Optional, Parsed, Size, Text, Time};

/// A type whose settings a configuration file can have, each by the name of its setter. The macro [`settings`] implements
/// it.
pub(crate) trait Settings: Sized {
    /// What the settings are of, such as `a broker`.
    const OF: &'static str;
    const SETTERS: &'static [&'static str];

    /// The settings of an empty file.
    fn unset() -> Self;

    /// Reads the value of this setter, and calls the setter.
    ///
    /// # Errors
    ///
    /// An error of the format that names the setter.
    fn set<'de, A: MapAccess<'de>>(self, setter: &str, values: &mut A) -> Result<Self, A::Error>;

    /// Checks which settings a file has.
    ///
    /// # Errors
    ///
    /// An error of the format.
    fn check_given<E: serde::de::Error>(_given: &[&str]) -> Result<(), E> {
        Ok(())
    }
}

/// Implements [`Settings`] and `Deserialize` by a list of setters and the [`Kind`]s of their values.
macro_rules! settings {
    (
        $type:ty, of $of:literal, unset $unset:expr,
        { $($(#[$condition:meta])* $setter:ident: $kind:ty,)* }
        $($check:item)?
    ) => {
        impl $crate::config::Settings for $type {
            const OF: &'static str = $of;
            const SETTERS: &'static [&'static str] = &[$($(#[$condition])* stringify!($setter),)*];

            fn unset() -> Self {
                $unset
            }

            fn set<'de, A: serde::de::MapAccess<'de>>(
                self,
                setter: &str,
                values: &mut A,
            ) -> Result<Self, A::Error> {
                $($(#[$condition])* if setter == stringify!($setter) {
                    let value = $crate::config::Named::<$kind>::new(stringify!($setter));
                    return values.next_value_seed(value).map(|value| self.$setter(value));
                })*
                Err(serde::de::Error::unknown_field(setter, Self::SETTERS))
            }

            $($check)?
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_map($crate::config::SettingsVisitor::<Self>::new())
            }
        }
    };
}

pub(crate) use settings;

/// Reads settings from a map.
pub(crate) struct SettingsVisitor<S>(PhantomData<S>);

impl<S> SettingsVisitor<S> {
    pub(crate) fn new() -> Self {
        SettingsVisitor(PhantomData)
    }
}

impl<'de, S: Settings> Visitor<'de> for SettingsVisitor<S> {
    type Value = S;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map with settings of {}", S::OF)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<S, A::Error> {
        let mut settings = S::unset();
        let mut given: Vec<&'static str> = Vec::new();
        while let Some(setter) = map.next_key_seed(SetterName(S::SETTERS))? {
            if given.contains(&setter) {
                return Err(A::Error::duplicate_field(setter));
            }
            given.push(setter);
            settings = settings.set(setter, &mut map)?;
        }
        S::check_given(&given)?;
        Ok(settings)
    }
}

/// Reads the name of one of these setters.
struct SetterName(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for SetterName {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for SetterName {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a setting")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<&'static str, E> {
        let known = self.0.iter().find(|known| **known == name);
        known.copied().ok_or_else(|| E::unknown_field(name, self.0))
    }
}

/// How the value of a setting is written.
pub(crate) trait Kind {
    type Value;

    /// Reads the value of the setting `name`.
    ///
    /// # Errors
    ///
    /// An error of the format that names the setting.
    fn read<'de, D: Deserializer<'de>>(
        name: &'static str,
        deserializer: D,
    ) -> Result<Self::Value, D::Error>;
}

/// The value of a setting with this name.
pub(crate) struct Named<K> {
    name: &'static str,
    kind: PhantomData<K>,
}

impl<K> Named<K> {
    pub(crate) fn new(name: &'static str) -> Self {
        Named {
            name,
            kind: PhantomData,
        }
    }
}

impl<'de, K: Kind> DeserializeSeed<'de> for Named<K> {
    type Value = K::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<K::Value, D::Error> {
        K::read(self.name, deserializer)
    }
}

/// A list.
pub(crate) struct List<S>(PhantomData<S>);

impl<S: Scalar> Kind for List<S> {
    type Value = Vec<S::Value>;

    fn read<'de, D: Deserializer<'de>>(
        name: &'static str,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(Named::<List<S>>::new(name))
    }
}

impl<'de, S: Scalar> Visitor<'de> for Named<List<S>> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list for `{}`", self.name)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Named::<S>::new(self.name))? {
            values.push(value);
        }
        Ok(values)
    }
}

/// A table of values with names of the file's own.
pub(crate) struct Map<K>(PhantomData<K>);

impl<K: Kind> Kind for Map<K> {
    type Value = Vec<(String, K::Value)>;

    fn read<'de, D: Deserializer<'de>>(
        name: &'static str,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(Named::<Map<K>>::new(name))
    }
}

impl<'de, K: Kind> Visitor<'de> for Named<Map<K>> {
    type Value = Vec<(String, K::Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a table for `{}`", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(key) = map.next_key()? {
            values.push((key, map.next_value_seed(Named::<K>::new(self.name))?));
        }
        Ok(values)
    }
}

/// Settings of their own, such as those of a file within those of a server.
pub(crate) struct Nested<T>(PhantomData<T>);

impl<T: for<'de> Deserialize<'de>> Kind for Nested<T> {
    type Value = T;

    fn read<'de, D: Deserializer<'de>>(_: &'static str, deserializer: D) -> Result<T, D::Error> {
        T::deserialize(deserializer)
    }
}
