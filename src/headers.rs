//! [`Headers`]: the header fields of a request or a response.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
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
#[derive(Clone, Default)]
pub struct Headers {
    /// The text of all fields in one piece: a request with ten fields costs two allocations and not twenty. It keeps the
    /// text of fields that were replaced.
    text: String,
    fields: Vec<Field>,
}

/// Text of a field, in bytes, for which room is made when fields are added of which only the number is known.
const USUAL_LENGTH: usize = 32;

/// Where a field's name and value are in the text.
#[derive(Clone, Debug)]
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

impl Field {
    fn is_named(&self, name: &str, text: &str) -> bool {
        self.name.len() == name.len() && text[self.name.clone()].eq_ignore_ascii_case(name)
    }
}

impl Headers {
    /// Creates a list without fields.
    pub fn new() -> Self {
        Headers::default()
    }

    /// Creates a list with room for this many fields, and this many bytes of names and values.
    #[cfg(feature = "_server")]
    pub(crate) fn with_capacity(fields: usize, bytes: usize) -> Self {
        Headers {
            text: String::with_capacity(bytes),
            fields: Vec::with_capacity(fields),
        }
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
    pub fn set(&mut self, name: impl AsRef<str>, value: impl AsRef<str>) {
        let (name, value) = (name.as_ref(), value.as_ref());
        let is_same = |other: &Field| other.is_named(name, &self.text);
        let first = self.fields.iter().position(is_same);
        let Some(first) = first else {
            return self.add(name, value);
        };
        let mut at = 0;
        self.fields.retain(|other| {
            let keep = at <= first || !is_same(other);
            at += 1;
            keep
        });
        self.fields[first] = self.append(name, value);
    }

    /// Adds a field after all others, and keeps fields of the same name. `Set-Cookie`, for example, may occur repeatedly.
    pub fn add(&mut self, name: impl AsRef<str>, value: impl AsRef<str>) {
        let field = self.append(name.as_ref(), value.as_ref());
        self.fields.push(field);
    }

    fn append(&mut self, name: &str, value: &str) -> Field {
        self.text.reserve(name.len() + value.len());
        let start = self.text.len();
        self.text.push_str(name);
        let middle = self.text.len();
        self.text.push_str(value);
        Field {
            name: start..middle,
            value: middle..self.text.len(),
        }
    }

    /// Returns the value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let field = self
            .fields
            .iter()
            .find(|field| field.is_named(name, &self.text))?;
        Some(&self.text[field.value.clone()])
    }

    /// Returns the values of all fields of this name.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |field| field.is_named(name, &self.text))
            .map(|field| &self.text[field.value.clone()])
    }

    /// Returns an iterator over the names and values of all fields.
    pub fn iter(&self) -> HeadersIter<'_> {
        HeadersIter {
            text: &self.text,
            fields: self.fields.iter(),
        }
    }

    /// Returns `true` if there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl Hash for Headers {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.fields.len());
        self.iter().for_each(|field| field.hash(state));
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a str, &'a str);
    type IntoIter = HeadersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The iterator over the names and values of header fields, which [`Headers::iter`] returns.
#[derive(Clone, Debug)]
pub struct HeadersIter<'a> {
    text: &'a str,
    fields: slice::Iter<'a, Field>,
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let Field { name, value } = self.fields.next()?;
        Some((&self.text[name.clone()], &self.text[value.clone()]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fields.size_hint()
    }
}

impl IntoIterator for Headers {
    type Item = (String, String);
    type IntoIter = vec::IntoIter<(String, String)>;

    fn into_iter(self) -> Self::IntoIter {
        let fields = self.iter().map(|(name, value)| (name.into(), value.into()));
        fields.collect::<Vec<_>>().into_iter()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> Extend<(N, V)> for Headers {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, fields: I) {
        let fields = fields.into_iter();
        let (count, _) = fields.size_hint();
        self.fields.reserve(count);
        self.text.reserve(count * USUAL_LENGTH);
        fields.for_each(|(name, value)| self.add(name, value));
    }
}

impl<N: AsRef<str>, V: AsRef<str>, const COUNT: usize> From<[(N, V); COUNT]> for Headers {
    fn from(fields: [(N, V); COUNT]) -> Self {
        fields.into_iter().collect()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let mut headers = Headers::new();
        headers.extend(fields);
        headers
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

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
        assert_eq!(format!("{headers:?}"), r#"{"A": "1", "B": "2"}"#);
    }

    #[test]
    fn fields_are_equal_however_they_were_set() {
        let mut replaced = Headers::from([("A", "1"), ("B", "2")]);
        replaced.set("A", "3");
        let same = Headers::from([("A", "3"), ("B", "2")]);
        assert_eq!(replaced, same);
        assert_ne!(replaced, Headers::from([("A", "3")]));
        let hasher = RandomState::new();
        assert_eq!(hasher.hash_one(&replaced), hasher.hash_one(&same));
    }
}
