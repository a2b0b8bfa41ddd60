//! The target of a redirect, and which redirects the client follows.

use ureq::http::Method;

use super::url::Url;
use crate::error::{Error, ErrorKind};
use crate::headers::Headers;

/// The most redirects that one call follows.
pub(crate) const MAX_REDIRECTS: usize = 10;

/// Returns the target of a response that redirects, or `None` for any other response.
///
/// A redirect that would turn a POST into a GET is not followed: the caller gets its status.
///
/// # Errors
///
/// `InvalidResponse` if the location can't be used, or is `http` and the URL is `https`.
pub(crate) fn target(
    method: &Method,
    url: &Url,
    status: u16,
    headers: &Headers,
) -> Result<Option<Url>, Error> {
    let follows = match status {
        307 | 308 => true,
        301..=303 => *method == Method::GET,
        _ => false,
    };
    let Some(location) = headers.get("Location").filter(|_| follows) else {
        return Ok(None);
    };
    let refuse = |problem: &str| {
        let message = format!(
            "the redirect of {url} is not followed: {problem}; check the URL, and for proxies"
        );
        Error::new(ErrorKind::InvalidResponse, message).with_status(status)
    };
    let target = url
        .join(location.trim())
        .map_err(|problem| refuse(&format!("its location can't be used, because {problem}")))?;
    if url.is_secure() && !target.is_secure() {
        let problem = format!("it leads to {target}, which is not encrypted as {url} is");
        return Err(refuse(&problem));
    }
    Ok(Some(target))
}

/// Returns the error for more than [`MAX_REDIRECTS`] redirects.
pub(crate) fn too_many(url: &Url, last: &Url) -> Error {
    let message = format!(
        "{url} was redirected more than {MAX_REDIRECTS} times, at last to {last}; check whether \
         its redirects form a loop"
    );
    Error::new(ErrorKind::InvalidResponse, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap().0
    }

    fn target_of(method: Method, from: &str, status: u16, to: &str) -> Result<Option<Url>, Error> {
        let headers = Headers::from([("location", to)]);
        target(&method, &url(from), status, &headers)
    }

    #[test]
    fn a_poll_follows_every_redirect_and_a_publish_those_that_keep_its_method() {
        for (status, poll, publish) in [
            (301, true, false),
            (302, true, false),
            (303, true, false),
            (307, true, true),
            (308, true, true),
            (300, false, false),
            (304, false, false),
            (200, false, false),
        ] {
            let follows = |method| {
                target_of(method, "http://h/", status, "/x")
                    .unwrap()
                    .is_some()
            };
            assert_eq!(follows(Method::GET), poll, "{status}");
            assert_eq!(follows(Method::POST), publish, "{status}");
        }
        let none = target(&Method::GET, &url("http://h/"), 302, &Headers::new());
        assert_eq!(none.unwrap(), None);
    }

    #[test]
    fn a_redirect_to_http_is_not_followed_from_https() {
        let error = target_of(Method::GET, "https://h/", 307, "http://h/?secret").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidResponse);
        let message = error.to_string();
        assert!(
            message.contains("http://h/, which is not encrypted"),
            "{message}"
        );
        assert!(!message.contains("secret"), "{message}");
        let secure = target_of(Method::GET, "http://h/", 307, "https://h/").unwrap();
        assert_eq!(secure, Some(url("https://h/")));
    }

    #[test]
    fn a_location_that_is_no_http_url_is_an_error() {
        for location in ["ftp://h/", "javascript:alert(1)", "http://"] {
            let error = target_of(Method::GET, "http://h/", 302, location).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{location}");
            assert_eq!(error.status(), Some(302));
        }
    }
}
