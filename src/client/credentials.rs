//! [`Credentials`]: a user and password, or a token, for HTTP authentication.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use percent_encoding::percent_decode_str;
use ureq::http::HeaderValue;

use super::failure::unusable_url;
use super::url::Url;
use crate::error::Error;

/// Credentials for HTTP authentication: a user and a password, or a token.
///
/// The client sends them in the `Authorization` header, so only TLS keeps them secret on the network. `Debug` shows no
/// password and no token.
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
    /// Returns credentials for HTTP basic authentication (RFC 7617), in UTF-8. The user's name can't contain a colon.
    pub fn basic(username: impl Into<String>, password: impl Into<String>) -> Self {
        let (username, password) = (username.into(), password.into());
        Credentials(Scheme::Basic { username, password })
    }

    /// Returns a bearer token (RFC 6750).
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

    /// Returns the user and password in front of a URL's host, or `None` if the URL has none.
    ///
    /// [`Subscriber`](crate::Subscriber), [`Publisher`](crate::Publisher), [`subscription`](fn@crate::subscription) and
    /// [`publish`](fn@crate::publish) do this for their own URL if they are given no credentials.
    ///
    /// ```
    /// use long_polling::Credentials;
    ///
    /// let credentials =
    ///     Credentials::from_url("http://alice:se%20cret@localhost:8080/events")?;
    /// assert_eq!(credentials, Some(Credentials::basic("alice", "se cret")));
    /// assert_eq!(Credentials::from_url("http://localhost:8080/events")?, None);
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) if it is not an absolute `http` or `https` URL.
    pub fn from_url(url: &str) -> Result<Option<Self>, Error> {
        match Url::parse(url) {
            Ok((_, userinfo)) => Ok(Credentials::from_userinfo(userinfo)),
            Err(problem) => Err(unusable_url(url, &problem)),
        }
    }

    /// Reads the part of a URL in front of the `@`: a user, and a password after a colon, both percent-encoded.
    pub(crate) fn from_userinfo(userinfo: &str) -> Option<Self> {
        let (username, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let decode = |part| percent_decode_str(part).decode_utf8_lossy();
        (!userinfo.is_empty()).then(|| Credentials::basic(decode(username), decode(password)))
    }

    /// Returns the value of the `Authorization` header.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` if they contain characters that HTTP can't carry.
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
    fn credentials_become_the_header_value_of_rfc_7617_and_rfc_6750() {
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
    fn credentials_that_http_cannot_carry_are_an_error_without_the_secret() {
        for credentials in [
            Credentials::basic("a:b", "hidden"),
            Credentials::bearer("hidden\r\nX: y"),
        ] {
            let error = credentials.to_value().unwrap_err();
            assert!(!error.to_string().contains("hidden"), "{error}");
            assert!(!format!("{credentials:?}").contains("hidden"));
        }
    }

    #[test]
    fn a_url_without_a_password_has_an_empty_one_and_an_error_shows_no_secret() {
        let user = Credentials::from_url("https://alice@h/").unwrap();
        assert_eq!(user, Some(Credentials::basic("alice", "")));
        let error = Credentials::from_url("ftp://alice:hidden@h/").unwrap_err();
        assert!(!error.to_string().contains("hidden"), "{error}");
    }
}
