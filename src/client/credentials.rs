//! [`Credentials`]: who asks, for HTTP authentication.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use ureq::http::HeaderValue;

use crate::error::Error;

/// Who asks: a user and a password, or a token. Sent in the `Authorization` header, so only TLS keeps them secret.
///
/// The debug form shows no secret.
///
/// ```
/// use long_polling::Credentials;
///
/// let credentials = Credentials::basic("alice", "secret");
/// assert_eq!(format!("{credentials:?}"), r#"Credentials { username: "alice", .. }"#);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(Scheme);

#[derive(Clone, PartialEq, Eq)]
enum Scheme {
    Basic { username: String, password: String },
    Bearer { token: String },
}

impl Credentials {
    /// HTTP basic authentication (RFC 7617), in UTF-8. A user's name can't contain a colon.
    pub fn basic(username: impl Into<String>, password: impl Into<String>) -> Self {
        let (username, password) = (username.into(), password.into());
        Credentials(Scheme::Basic { username, password })
    }

    /// A bearer token (RFC 6750).
    ///
    /// ```
    /// use long_polling::{Credentials, Subscriber};
    ///
    /// let subscriber = Subscriber::new("http://localhost:8080/events", "alerts")
    ///     .credentials(Credentials::bearer("secret-token"));
    /// ```
    pub fn bearer(token: impl Into<String>) -> Self {
        let token = token.into();
        Credentials(Scheme::Bearer { token })
    }

    /// The value of the `Authorization` header.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` where HTTP can't carry them.
    pub(crate) fn to_value(&self) -> Result<HeaderValue, Error> {
        let text = match &self.0 {
            Scheme::Basic { username, .. } if username.contains(':') => {
                let rule =
                    "the user's name contains a colon, which basic authentication can't carry";
                return Err(Error::request(rule));
            }
            Scheme::Basic { username, password } => {
                let pair = BASE64_STANDARD.encode(format!("{username}:{password}"));
                format!("Basic {pair}")
            }
            Scheme::Bearer { token } => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            Error::request("the token contains characters that an HTTP header can't carry")
        })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Credentials");
        if let Scheme::Basic { username, .. } = &self.0 {
            debug.field("username", username);
        }
        debug.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_become_the_value_of_rfc_7617_and_rfc_6750() {
        let basic = Credentials::basic("Aladdin", "open sesame");
        assert_eq!(
            basic.to_value().unwrap(),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert_eq!(
            Credentials::bearer("abc.def").to_value().unwrap(),
            "Bearer abc.def"
        );
    }

    #[test]
    fn credentials_that_http_cannot_carry_are_refused_and_never_shown() {
        for credentials in [
            Credentials::basic("a:b", "hidden"),
            Credentials::bearer("hidden\r\nX: y"),
        ] {
            let error = credentials.to_value().unwrap_err();
            assert!(!error.to_string().contains("hidden"), "{error}");
            assert!(!format!("{credentials:?}").contains("hidden"));
        }
    }
}
