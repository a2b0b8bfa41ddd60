//! [`Headers`]: the header fields of a request or an answer, in order, with names compared without case.

/// Header fields, in the order in which they came. Names are compared without case (RFC 9110, section 5.1).
///
/// ```
/// use long_polling::Headers;
///
/// let mut headers = Headers::from([("Retry-After", "5")]);
/// headers.add("Set-Cookie", "a=1");
/// assert_eq!(headers.get("retry-after"), Some("5"));
/// assert_eq!(headers.get("Age"), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No fields.
    pub fn new() -> Self {
        Headers::default()
    }

    /// Sets a field: replaces all fields of this name by one, at the place of the first of them, or at the end.
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
        let is_same = |other: &(String, String)| other.0.eq_ignore_ascii_case(&name);
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

    /// Adds a field after the others, such as `Set-Cookie`, which may occur more than once. Fields of the same name stay.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// The value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The values of all fields of this name.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// All fields: name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// True where there is no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<String>, V: Into<String>, const COUNT: usize> From<[(N, V); COUNT]> for Headers {
    fn from(fields: [(N, V); COUNT]) -> Self {
        fields.into_iter().collect()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        Headers(
            fields
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
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
}
