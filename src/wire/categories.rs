//! [`Categories`]: the names of the categories that one poll follows.

use std::iter::Map;
use std::sync::Arc;
use std::{fmt, slice};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

/// The longest name of a category, in bytes of UTF-8 (golongpoll's limit).
const MAX_CATEGORY_BYTES: usize = 1024;
/// The most categories that one poll may follow.
const MAX_CATEGORIES_PER_POLL: usize = 100;

/// The names of the categories that one poll follows, without duplicates and in the order given.
///
/// A poll follows 1 to 100 categories, each with a name of 1 to 1024 bytes; the request checks this, not the conversion
/// into `Categories`. A parameter `impl Into<Categories>` takes one name or several:
///
/// ```
/// use long_polling::Categories;
///
/// assert_eq!(Categories::from("alerts").iter().count(), 1);
/// assert_eq!(
///     Categories::from(["alerts", "updates", "alerts"]).to_string(),
///     r#""alerts", "updates""#
/// );
///
/// let configured: Vec<String> = vec!["alerts".into(), "updates".into()];
/// let categories = Categories::from(&configured);
/// for name in &categories {
///     println!("{name}");
/// }
/// assert_eq!(configured.into_iter().collect::<Categories>(), categories);
/// ```
///
/// Their JSON is a list of strings:
///
/// ```
/// # use long_polling::Categories;
/// let categories: Categories = serde_json::from_str(r#"["alerts","updates"]"#)?;
/// assert_eq!(serde_json::to_string(&categories)?, r#"["alerts","updates"]"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Categories(Vec<Arc<str>>);

impl Categories {
    /// Returns an iterator over the names, in the order given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.into_iter()
    }

    pub(super) fn add(&mut self, name: &str) {
        if !self.iter().any(|other| other == name) {
            self.0.push(name.into());
        }
    }

    /// # Errors
    ///
    /// `InvalidRequest` that names the rule that the categories break.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.0.len() {
            0 => return Err(Error::request("a category is missing: name one to follow")),
            1..=MAX_CATEGORIES_PER_POLL => {}
            more => {
                let rule = format!(
                    "one poll follows at most {MAX_CATEGORIES_PER_POLL} categories, not {more}"
                );
                return Err(Error::request(rule));
            }
        }
        self.iter().try_for_each(check_category)
    }
}

/// # Errors
///
/// `InvalidRequest` if the name is empty or too long.
pub(crate) fn check_category(name: &str) -> Result<(), Error> {
    match name.len() {
        0 => Err(Error::request(
            "an empty category: a category has 1 to 1024 bytes",
        )),
        1..=MAX_CATEGORY_BYTES => Ok(()),
        more => Err(Error::request(format!(
            "a category of {more} bytes: a category has 1 to 1024 bytes"
        ))),
    }
}

impl fmt::Display for Categories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.iter().enumerate() {
            write!(f, "{}{name:?}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl<'a> IntoIterator for &'a Categories {
    type Item = &'a str;
    type IntoIter = Map<slice::Iter<'a, Arc<str>>, fn(&'a Arc<str>) -> &'a str>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|name| name)
    }
}

impl<S: AsRef<str>> Extend<S> for Categories {
    fn extend<I: IntoIterator<Item = S>>(&mut self, names: I) {
        names.into_iter().for_each(|name| self.add(name.as_ref()));
    }
}

impl<S: AsRef<str>> FromIterator<S> for Categories {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let mut categories = Categories::default();
        categories.extend(names);
        categories
    }
}

impl From<&str> for Categories {
    fn from(name: &str) -> Self {
        Categories(vec![name.into()])
    }
}

impl From<String> for Categories {
    fn from(name: String) -> Self {
        Categories(vec![name.into()])
    }
}

impl From<&String> for Categories {
    fn from(name: &String) -> Self {
        Categories(vec![name.as_str().into()])
    }
}

impl<S: AsRef<str>> From<&[S]> for Categories {
    fn from(names: &[S]) -> Self {
        names.iter().collect()
    }
}

impl<S: AsRef<str>> From<Vec<S>> for Categories {
    fn from(names: Vec<S>) -> Self {
        names.into_iter().collect()
    }
}

impl<S: AsRef<str>> From<&Vec<S>> for Categories {
    fn from(names: &Vec<S>) -> Self {
        names.iter().collect()
    }
}

impl<S: AsRef<str>, const COUNT: usize> From<[S; COUNT]> for Categories {
    fn from(names: [S; COUNT]) -> Self {
        names.into_iter().collect()
    }
}

impl<S: AsRef<str>, const COUNT: usize> From<&[S; COUNT]> for Categories {
    fn from(names: &[S; COUNT]) -> Self {
        names.iter().collect()
    }
}

impl Serialize for Categories {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de> Deserialize<'de> for Categories {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<String>::deserialize(deserializer).map(Categories::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_have_their_limits() {
        assert!(Categories::default().check().is_err());
        assert!(Categories::from("").check().is_err());
        assert!(Categories::from("é".repeat(512)).check().is_ok());
        assert!(Categories::from("é".repeat(512) + "x").check().is_err());
        let names: Vec<String> = (0..101).map(|name| name.to_string()).collect();
        assert!(Categories::from(&names[..100]).check().is_ok());
        assert!(Categories::from(names).check().is_err());
    }

    #[test]
    fn every_conversion_drops_duplicates() {
        let names = ["a", "b", "a"];
        let owned = names.map(String::from);
        let expected = Categories::from(["a", "b"]);
        for converted in [
            Categories::from(names),
            Categories::from(&names),
            Categories::from(&names[..]),
            Categories::from(owned.to_vec()),
            Categories::from(&owned.to_vec()),
            owned.iter().collect(),
            owned.into_iter().collect(),
            serde_json::from_str(r#"["a","b","a"]"#).unwrap(),
        ] {
            assert_eq!(converted, expected);
        }
    }
}
