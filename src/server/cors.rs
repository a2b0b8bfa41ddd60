//! Cross-origin requests of web pages (the Fetch standard's CORS protocol): [`Cors`], and the fields that it adds to answers.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::origin::{self, is_origin};
use super::render::is_token;
use super::request::Request;
use super::response::Response;
use crate::error::Error;

const VARY: &str = "Vary";
const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";
const ALLOW_CREDENTIALS: &str = "Access-Control-Allow-Credentials";
/// The fields of answers that clients of the API read.
const EXPOSED: &str =
    "Idempotency-Replayed, Idempotency-Window, Last-Event-ID, Preference-Applied, Retry-After";

/// The pages of other origins that may poll and publish; [`ServerInfo::cors`](crate::ServerInfo::cors) takes it.
///
/// An origin is allowed if one of [`origins`](Cors::origins), [`origin_predicate`](Cors::origin_predicate) and
/// [`any_origin`](Cors::any_origin) allows it. A setter that is called twice has the last value.
///
/// ```
/// use std::time::Duration;
/// use long_polling::ServerInfo;
/// use long_polling::server::Cors;
///
/// let cors = Cors::new()
///     .origins(["https://app.example.com", "https://admin.example.com"])
///     .credentials(true)
///     .max_age(Duration::from_secs(600));
/// let info = ServerInfo::new("127.0.0.1:8080").cors(cors);
/// ```
///
/// With one origin, and with any, each answer names it, so that all subscribers share an answer. Otherwise an answer depends
/// on the field `Origin` of its request, and has `Vary: Origin`.
#[derive(Clone, Debug)]
pub struct Cors {
    /// The setting that this is of, for errors.
    pub(super) setting: &'static str,
    origins: Vec<String>,
    predicate: Option<Predicate>,
    credentials: bool,
    allowed_headers: Option<String>,
    exposed_headers: String,
    max_age: Duration,
}

#[derive(Clone)]
struct Predicate(Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Predicate")
    }
}

impl Default for Cors {
    fn default() -> Self {
        Cors {
            setting: "cors",
            origins: Vec::new(),
            predicate: None,
            credentials: false,
            allowed_headers: None,
            exposed_headers: EXPOSED.into(),
            max_age: Duration::from_secs(7200),
        }
    }
}

impl Cors {
    /// Creates a policy that allows no origin yet.
    pub fn new() -> Self {
        Cors::default()
    }

    /// Sets the origins whose pages may poll and publish, as browsers send them: `"https://example.com"`, without a path, and
    /// with a port only where it is not the scheme's own. `"null"` is the origin of files and of sandboxed frames, and `"*"`
    /// stands for every origin. Defaults to none.
    pub fn origins(mut self, origins: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// Sets a function that returns `true` for each origin whose pages may poll and publish, besides
    /// [`origins`](Cors::origins). Defaults to none.
    ///
    /// The function gets the text that the browser has sent. It runs for each request with an `Origin`, up to twice, in a
    /// thread that other requests may wait for, so it must not block. Where it panics, the origin is not allowed.
    ///
    /// ```
    /// use long_polling::server::Cors;
    ///
    /// // Compare with the dot: "https://evil-example.com" ends with "example.com", too.
    /// let cors = Cors::new().origin_predicate(|origin| {
    ///     origin
    ///         .strip_prefix("https://")
    ///         .is_some_and(|host| host == "example.com" || host.ends_with(".example.com"))
    /// });
    /// ```
    pub fn origin_predicate(
        mut self,
        allows: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.predicate = Some(Predicate(Arc::new(allows)));
        self
    }

    /// Allows every page of every origin to poll and publish: the same as the origin `"*"`.
    pub fn any_origin(self) -> Self {
        self.origins(["*"])
    }

    /// Sets whether pages may send cookies and the credentials of HTTP authentication. Defaults to `false`: browsers leave
    /// them out, or keep the answer from the page.
    ///
    /// A server does not start with this and with [`any_origin`](Cors::any_origin) or the origin `"null"`: every site could
    /// act in the name of its visitors. A token that a page puts into `Authorization` itself does not need this setting.
    pub fn credentials(mut self, allow: bool) -> Self {
        self.credentials = allow;
        self
    }

    /// Sets the header fields that pages may send, besides those that every page may. Defaults to those that the page's
    /// browser asks for.
    pub fn allowed_headers(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut list = String::new();
        names
            .into_iter()
            .for_each(|name| append(&mut list, name.as_ref()));
        self.allowed_headers = Some(list);
        self
    }

    /// Sets header fields of answers that pages may read, besides `Idempotency-Replayed`, `Idempotency-Window`,
    /// `Last-Event-ID`, `Preference-Applied`, `Retry-After`, and those that every page may. Defaults to none.
    pub fn exposed_headers(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.exposed_headers = EXPOSED.into();
        names
            .into_iter()
            .for_each(|name| append(&mut self.exposed_headers, name.as_ref()));
        self
    }

    /// Sets how long a browser may keep the answer to a preflight request, in whole seconds. Browsers have limits of their
    /// own, from ten minutes to a day. Defaults to two hours.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// # Errors
    ///
    /// `InvalidSetting` that names the setting.
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |problem: String| Err(Error::setting(self.setting, problem));
        if self.origins.is_empty() && self.predicate.is_none() {
            return refuse(
                "allows no origin; give origins, origin_predicate or any_origin, or leave the setting out".into(),
            );
        }
        if let Some(origin) = self.origins.iter().find(|origin| !is_origin(origin)) {
            return refuse(format!(
                "{origin:?} is not an origin as browsers send it, such as \"https://example.com\" or \"*\": one scheme and \
                 host in lower case, a port where it is not the scheme's own, no path"
            ));
        }
        let everybody = self
            .origins
            .iter()
            .find(|it| matches!(it.as_str(), "*" | "null"));
        if let (true, Some(everybody)) = (self.credentials, everybody) {
            return refuse(format!(
                "credentials with the origin {everybody:?} would let every site act in the name of its visitors; list the \
                 origins, or leave credentials out"
            ));
        }
        let exposed = Some(self.exposed_headers.as_str());
        let lists = [exposed, self.allowed_headers.as_deref()]
            .into_iter()
            .flatten();
        let mut names = lists.flat_map(|list| list.split(", "));
        if let Some(name) = names.find(|name| !name.is_empty() && !is_token(name)) {
            return refuse(format!("{name:?} is not the name of a header field"));
        }
        Ok(())
    }

    /// The origin that every answer names; `None` where that depends on the request.
    fn fixed_origin(&self) -> Option<&str> {
        match &*self.origins {
            _ if self.allows_any() => Some("*"),
            [origin] if self.predicate.is_none() => Some(origin),
            _ => None,
        }
    }

    fn allows_any(&self) -> bool {
        self.origins.iter().any(|origin| origin == "*")
    }

    fn allows(&self, origin: &str) -> bool {
        self.allows_any()
            || self.origins.iter().any(|allowed| allowed == origin)
            || self.predicate.as_ref().is_some_and(|predicate| {
                let allows = catch_unwind(AssertUnwindSafe(|| (predicate.0)(origin)));
                allows.unwrap_or_else(|_| {
                    log::error!("the predicate of ServerInfo::cors panicked on {origin:?}");
                    false
                })
            })
    }

    /// True for a preflight request of an origin that is allowed.
    pub(super) fn is_preflight(&self, request: &Request) -> bool {
        request.method() == "OPTIONS"
            && request.header("Access-Control-Request-Method").is_some()
            && request
                .header("Origin")
                .is_some_and(|origin| self.allows(origin))
    }
}

fn append(list: &mut String, name: &str) {
    if !list.is_empty() {
        list.push_str(", ");
    }
    list.push_str(name);
}

/// The origin that an answer names, where that depends on the request.
#[derive(Clone, Debug, Default)]
pub(super) struct Grant(Option<Arc<str>>);

impl Grant {
    /// Looks at the field `Origin` of a request.
    pub(super) fn of(request: &Request, cors: Option<&Cors>) -> Self {
        let cors = cors.filter(|cors| cors.fixed_origin().is_none());
        let origin = cors.and_then(|cors| {
            let mut origins = request.headers().get_all("Origin");
            match (origins.next(), origins.next()) {
                (Some(origin), None) if cors.allows(origin) => Some(origin.into()),
                _ => None,
            }
        });
        Grant(origin)
    }
}

/// The fields by which a browser lets a page read an answer.
pub(super) fn fields<'a>(cors: Option<&'a Cors>, grant: &'a Grant) -> Vec<(&'a str, &'a str)> {
    let mut fields = Vec::new();
    let Some(cors) = cors else {
        return fields;
    };
    if cors.fixed_origin().is_none() {
        fields.push((VARY, "Origin"));
    }
    if let Some(origin) = cors.fixed_origin().or(grant.0.as_deref()) {
        fields.push((ALLOW_ORIGIN, origin));
        fields.push(("Access-Control-Expose-Headers", &cors.exposed_headers));
        if cors.credentials {
            fields.push((ALLOW_CREDENTIALS, "true"));
        }
    }
    fields
}

/// These fields as one text: answers of the same content that have the same text are the same.
pub(super) fn variant(fields: &[(&str, &str)]) -> String {
    let lines = fields
        .iter()
        .flat_map(|(name, value)| [name, ": ", value, "\n"]);
    lines.collect()
}

/// Adds these fields, unless the answer has its own.
pub(super) fn with_fields(response: Response, cors: Option<&Cors>, grant: &Grant) -> Response {
    // A hook may have named `*`, with which no credentials are allowed.
    let is_own = response.headers.get(ALLOW_ORIGIN).is_some();
    let add = |response: Response, (name, value): (&str, &str)| match name {
        VARY => with_vary(response),
        ALLOW_CREDENTIALS if is_own => response,
        _ => response.with_default(name, value),
    };
    fields(cors, grant).into_iter().fold(response, add)
}

/// Says that the answer depends on `Origin`, besides what it already says.
fn with_vary(response: Response) -> Response {
    let mut list = String::new();
    for field in response.headers.get_all(VARY) {
        append(&mut list, field);
    }
    let mut names = list.split(',').map(str::trim);
    if names.any(|name| name == "*" || name.eq_ignore_ascii_case("Origin")) {
        return response;
    }
    append(&mut list, "Origin");
    response.with_header(VARY, &list)
}

/// Answers OPTIONS, which is also how a browser asks whether a page of another origin may send its request.
pub(super) fn options(request: &Request, methods: &str, cors: Option<&Cors>) -> Response {
    let response = Response::new(204).with_header("Allow", methods);
    match cors {
        None => response,
        Some(cors) => permit(response, request, methods, cors),
    }
}

/// Answers a preflight request for a path of the fallback, whose methods are not known: allows the one that is asked for.
pub(super) fn preflight(request: &Request, cors: &Cors) -> Response {
    let method = request.header("Access-Control-Request-Method");
    permit(
        Response::new(204),
        request,
        method.unwrap_or_default(),
        cors,
    )
}

fn permit(response: Response, request: &Request, methods: &str, cors: &Cors) -> Response {
    let requested = request.header("Access-Control-Request-Headers");
    let headers = cors.allowed_headers.as_deref().or(requested);
    response
        .with_header("Access-Control-Allow-Methods", methods)
        .with_header(
            "Access-Control-Allow-Headers",
            headers.unwrap_or("Content-Type, Idempotency-Key, Last-Event-ID, Prefer"),
        )
        .with_header(
            "Access-Control-Max-Age",
            &cors.max_age.as_secs().to_string(),
        )
}

/// Refuses a publish by a page of an origin that is neither the server's own nor allowed. A browser sends some publishes
/// without a preflight request: a POST of `text/plain`, for example.
///
/// # Errors
///
/// The answer that refuses.
pub(super) fn check_publish(request: &Request, cors: Option<&Cors>) -> Result<(), Response> {
    check_origin(request, cors, "publish")
}

/// The same for a poll that deletes the events that it finds. A page of another site has a browser send one as the address of
/// an image, for example; then it has no `Origin`.
///
/// # Errors
///
/// The answer that refuses.
pub(super) fn check_retrieval(request: &Request, cors: Option<&Cors>) -> Result<(), Response> {
    let site = request.header("Sec-Fetch-Site");
    if request.header("Origin").is_none() && matches!(site, Some("cross-site" | "same-site")) {
        let message = "a page of another site may not retrieve events here, which are deleted then";
        return Err(Response::error(403, message));
    }
    check_origin(request, cors, "retrieve events")
}

fn check_origin(request: &Request, cors: Option<&Cors>, what: &str) -> Result<(), Response> {
    if origin::is_own(request) {
        return Ok(());
    }
    let allows = |origin: &str| cors.is_some_and(|cors| cors.allows(origin));
    match request
        .headers()
        .get_all("Origin")
        .find(|origin| !allows(origin))
    {
        None => Ok(()),
        Some(origin) => Err(Response::error(
            403,
            &format!(
                "a page of the origin {origin:?} may not {what} here, since the host of this server is {:?} to it; \
                 ServerInfo::cors lists other origins that may",
                request.authority().unwrap_or_default()
            ),
        )),
    }
}
