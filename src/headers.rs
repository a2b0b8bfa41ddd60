//! [`Headers`]: the header fields of a request or a response.

use std::iter::Map;
use std::{slice, vec};

/// The header fields of a request or a response, in the order in which they are sent.
///
/// Names are compared without regard to case (RFC 9110, section 5.1).
///
/// ```
/// use long_polling::Headers;
///
/// let mut headers = Headers::from([("Retry-After", "5")]);
/// headers.add("Set-Cookie", "a=1");
/// assert_eq!(headers.get("retry-after"), Some("5"));
/// assert_eq!(headers.get("Age"), None);
/// for (name, value) in &headers {
///     println!("{name}: {value}");
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Headers(Vec<Field>);

type Field = (String, String);

impl Headers {
    /// Creates a list without fields.
    pub fn new() -> Self {
        Headers::default()
    }

    /// Sets a field: it replaces all fields of this name, at the place of the first one, or comes last.
    ///
    /// ```
    /// use long_polling::Headers;
    ///
    /// let mut headers = Headers::from([("Content-Type", "text/plain"), ("Age", "1")]);
    /// headers.set("content-type", "text/html");
    /// assert_eq!(headers.get_all("Content-Type").collect::<Vec<_>>(), ["text/html"]);
    /// ```
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        let is_same = |other: &Field| other.0.eq_ignore_ascii_case(&name);
        match self.0.iter().position(is_same) {
            None => self.0.push((name, value)),
            Some(first) => {
                let mut at = 0;
                self.0.retain(|other| {
                    let keep = at <= first || !is_same(other);
                    at += 1;
                    keep
                });
                self.0[first] = (name, value);
            }
        }
    }

    /// Adds a field after all others, and keeps fields of the same name. `Set-Cookie`, for example, may occur repeatedly.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// Returns the value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Returns the values of all fields of this name.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Returns an iterator over the names and values of all fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.into_iter()
    }

    /// Returns `true` if there is no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a str, &'a str);
    type IntoIter = Map<slice::Iter<'a, Field>, fn(&'a Field) -> (&'a str, &'a str)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

impl IntoIterator for Headers {
    type Item = (String, String);
    type IntoIter = vec::IntoIter<(String, String)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<N: Into<String>, V: Into<String>> Extend<(N, V)> for Headers {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, fields: I) {
        fields
            .into_iter()
            .for_each(|(name, value)| self.add(name, value));
    }
}

impl<N: Into<String>, V: Into<String>, const COUNT: usize> From<[(N, V); COUNT]> for Headers {
    fn from(fields: [(N, V); COUNT]) -> Self {
        fields.into_iter().collect()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let mut headers = Headers::new();
        headers.extend(fields);
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_replaces_all_fields_of_the_name_and_add_replaces_none() {
        let mut headers = Headers::from([("A", "1"), ("B", "2"), ("a", "3"), ("C", "4")]);
        headers.add("A", "5");
        assert_eq!(headers.get_all("A").collect::<Vec<_>>(), ["1", "3", "5"]);
        headers.set("a", "6");
        headers.set("D", "7");
        let fields: Vec<_> = headers.iter().collect();
        assert_eq!(fields, [("a", "6"), ("B", "2"), ("C", "4"), ("D", "7")]);
    }

    #[test]
    fn fields_go_in_and_come_out_in_order() {
        let mut headers: Headers = [("A", "1")].into_iter().collect();
        headers.extend([("B".to_owned(), "2".to_owned())]);
        assert_eq!((&headers).into_iter().count(), 2);
        let fields: Vec<(String, String)> = headers.clone().into_iter().collect();
        assert_eq!(fields.into_iter().collect::<Headers>(), headers);
    }
}
