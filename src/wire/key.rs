//! The key of a publish: its limits, and its form in the header field `Idempotency-Key`.

use std::borrow::Cow;

use crate::error::Error;

/// The field of a publish that carries its key, by draft-ietf-httpapi-idempotency-key-header.
pub(crate) const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// The field of an answer to a repetition: `true`.
#[cfg_attr(not(feature = "_server"), allow(dead_code))]
pub(crate) const IDEMPOTENCY_REPLAYED: &str = "Idempotency-Replayed";
/// The field of an answer to OPTIONS: how long the server remembers a key, in whole seconds.
pub(crate) const IDEMPOTENCY_WINDOW: &str = "Idempotency-Window";

/// The most bytes that a key may have.
pub(crate) const MAX_KEY_LEN: usize = 255;

/// # Errors
///
/// `InvalidRequest` for a key that is empty, too long, or not printable ASCII.
pub(crate) fn check_key(key: &str) -> Result<(), Error> {
    let problem = match key.len() {
        0 => "is empty".into(),
        1..=MAX_KEY_LEN if key.bytes().all(|byte| matches!(byte, b' '..=b'~')) => return Ok(()),
        1..=MAX_KEY_LEN => "has a character that is not printable ASCII".into(),
        more => format!("has {more} bytes"),
    };
    Err(Error::request(format!(
        "the idempotency key {problem}: give 1 to {MAX_KEY_LEN} printable ASCII characters, such as a random UUID"
    )))
}

/// Reads the value of the field: a string of structured fields (RFC 9651, section 3.3.3), or a bare key without spaces.
///
/// # Errors
///
/// `InvalidRequest` for a value that is neither, and those of [`check_key`].
#[cfg_attr(not(feature = "_server"), allow(dead_code))]
pub(crate) fn parse_key(value: &str) -> Result<Cow<'_, str>, Error> {
    let value = value.trim_matches([' ', '\t']);
    let key = match value.strip_prefix('"') {
        Some(quoted) => unquoted(quoted).map(Cow::from),
        None => (!value.contains(' ')).then_some(Cow::from(value)),
    };
    let key = key.ok_or_else(|| {
        Error::request(
            "the Idempotency-Key is neither a quoted string (\"…\", with \\\" and \\\\ for these two characters, and \
             nothing after it) nor a key without quotation mark and spaces",
        )
    })?;
    check_key(&key)?;
    Ok(key)
}

/// Reads a string up to its closing quotation mark, which has to be the last character.
#[cfg_attr(not(feature = "_server"), allow(dead_code))]
fn unquoted(quoted: &str) -> Option<String> {
    let mut key = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return characters.as_str().is_empty().then_some(key),
            '\\' => key.push(characters.next().filter(|it| matches!(it, '"' | '\\'))?),
            character => key.push(character),
        }
    }
}

/// Returns the value of the field for a key: a string of structured fields.
#[cfg_attr(not(feature = "client"), allow(dead_code))]
pub(crate) fn quote_key(key: &str) -> String {
    let mut quoted = String::with_capacity(key.len() + 2);
    quoted.push('"');
    for character in key.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_quoted_string_or_bare() {
        let longest = "x".repeat(MAX_KEY_LEN);
        for key in ["k", "a b", r#"a"b\c"#, " ", &longest] {
            assert_eq!(parse_key(&quote_key(key)).unwrap(), key);
        }
        assert_eq!(
            parse_key("  8e03978e-40d5-43dd-bc93-6894a57f9324\t").unwrap(),
            "8e03978e-40d5-43dd-bc93-6894a57f9324"
        );
        assert_eq!(parse_key(r#"a"b\c"#).unwrap(), r#"a"b\c"#);
    }

    #[test]
    fn a_key_of_another_form_is_refused() {
        let long = "x".repeat(MAX_KEY_LEN + 1);
        let quoted = quote_key(&long);
        for value in [
            "",
            " ",
            r#""""#,
            r#"""#,
            r#""a"#,
            r#""a"b"#,
            r#""a";b=1"#,
            r#""a", "b""#,
            r#""a\b""#,
            r#""a\"#,
            "a b",
            "a\tb",
            "\"\u{7f}\"",
            "é",
            &long,
            &quoted,
        ] {
            let error = parse_key(value).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidRequest, "{value:?}");
        }
    }
}
