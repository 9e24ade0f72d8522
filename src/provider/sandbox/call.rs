//! A request to the sandbox, its reply, and which endpoint is meant.

use std::time::Duration;

/// A request, as a web server or a test has taken it apart. It has no `Debug`, for it carries tokens.
#[derive(Clone, Default)]
pub struct Request {
    /// `GET`, `POST` …, in capitals.
    pub method: String,
    /// The path from its first slash, without the query.
    pub path: String,
    /// The query's parameters, decoded.
    pub query: Vec<(String, String)>,
    /// The parameters of a form body, decoded.
    pub form: Vec<(String, String)>,
    /// The `Authorization` header.
    pub authorization: Option<String>,
}

impl Request {
    /// A `GET` with these parameters in its query.
    pub fn get(path: &str, query: &[(&str, &str)]) -> Self {
        Self { method: "GET".into(), path: path.into(), query: owned(query), ..Self::default() }
    }

    /// A `POST` with these parameters in its form body.
    pub fn post(path: &str, form: &[(&str, &str)]) -> Self {
        Self { method: "POST".into(), path: path.into(), form: owned(form), ..Self::default() }
    }

    /// The same request with an `Authorization: Bearer` header.
    #[must_use]
    pub fn with_bearer(mut self, token: &str) -> Self {
        self.authorization = Some(format!("Bearer {token}"));
        self
    }

    /// A parameter from the form or the query, the form first; of one given twice the last. `None` also if it
    /// is empty, as Meta makes no difference.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = |list: &'_ [(String, String)]| list.iter().rposition(|(key, _)| key == name);
        let value = match found(&self.form) {
            Some(at) => &self.form[at].1,
            None => &self.query[found(&self.query)?].1,
        };
        (!value.is_empty()).then_some(value.as_str())
    }

    /// The token by which the caller proves who it is: from the header, or else from `access_token`.
    pub(super) fn app_token(&self) -> Option<&str> {
        self.bearer().or_else(|| self.parameter("access_token"))
    }

    /// The token of the `Authorization` header; its scheme is compared without regard to case.
    fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.authorization.as_deref()?.split_once(' ')?;
        (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
    }
}

fn owned(parameters: &[(&str, &str)]) -> Vec<(String, String)> {
    parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// What the sandbox sends back. It has no `Debug`, for its body may carry a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// How long to wait before it is sent.
    pub delay: Duration,
}

impl Reply {
    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn delayed_by(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Endpoint {
    /// `/oauth/access_token` with `fb_exchange_token`, by GET or POST.
    Exchange,
    /// `/oauth/access_token` with `client_credentials`.
    AppToken,
    /// `GET /refresh_access_token` with `ig_refresh_token`.
    InstagramRefresh,
    /// `GET /refresh_access_token` with `th_refresh_token`.
    ThreadsRefresh,
    /// `GET /debug_token`.
    DebugToken,
    /// Anything else.
    Other,
}

impl Endpoint {
    pub(super) fn of(request: &Request) -> Self {
        let grant = request.parameter("grant_type").unwrap_or_default();
        match (request.method.as_str(), unversioned(&request.path), grant) {
            ("GET" | "POST", "/oauth/access_token", "fb_exchange_token") => Self::Exchange,
            ("GET" | "POST", "/oauth/access_token", "client_credentials") => Self::AppToken,
            ("GET", "/refresh_access_token", "ig_refresh_token") => Self::InstagramRefresh,
            ("GET", "/refresh_access_token", "th_refresh_token") => Self::ThreadsRefresh,
            ("GET", "/debug_token", _) => Self::DebugToken,
            _ => Self::Other,
        }
    }

    /// The token that the request is about.
    pub(super) fn token(self, request: &Request) -> Option<&str> {
        request.parameter(match self {
            Self::Exchange => "fb_exchange_token",
            Self::InstagramRefresh | Self::ThreadsRefresh => "access_token",
            Self::DebugToken => "input_token",
            Self::AppToken | Self::Other => return None,
        })
    }

    /// The name in the log: as `perene explain --endpoint` has it, where it has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::AppToken => "client_credentials",
            Self::InstagramRefresh => "ig_refresh",
            Self::ThreadsRefresh => "th_refresh",
            Self::DebugToken => "debug_token",
            Self::Other => "other",
        }
    }
}

/// The version that a path such as `/v26.0/debug_token` names.
pub(super) fn api_version(path: &str) -> Option<&str> {
    let first = path.strip_prefix('/')?.split('/').next()?;
    let (major, minor) = first.strip_prefix('v')?.split_once('.')?;
    let is_number = |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(major) && is_number(minor)).then_some(first)
}

/// The path without its version and without slashes at its end.
pub(super) fn unversioned(path: &str) -> &str {
    let rest = api_version(path).map_or(path, |version| &path[version.len() + 1..]);
    rest.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_may_stand_before_the_path() {
        assert_eq!(unversioned("/v26.0/oauth/access_token"), "/oauth/access_token");
        assert_eq!(unversioned("/oauth/access_token/"), "/oauth/access_token");
        assert_eq!(api_version("/v26.0/debug_token"), Some("v26.0"));
        assert_eq!(api_version("/v26/debug_token"), None);
        assert_eq!(api_version("/v2é.0/debug_token"), None);
        assert_eq!(unversioned("/v26.0"), "");
    }

    #[test]
    fn the_form_comes_before_the_query_and_the_last_before_the_first() {
        let mut request = Request::post("/x", &[("a", "1"), ("a", "2"), ("empty", "")]);
        request.query = owned(&[("a", "3"), ("b", "4")]);
        assert_eq!(request.parameter("a"), Some("2"));
        assert_eq!(request.parameter("b"), Some("4"));
        assert_eq!(request.parameter("empty"), None);
        assert_eq!(request.parameter("c"), None);
    }

    #[test]
    fn the_bearer_scheme_is_read_in_any_case() {
        let mut request = Request::get("/x", &[]).with_bearer("1|s");
        assert_eq!(request.bearer(), Some("1|s"));
        request.authorization = Some("bearer 1|s".into());
        assert_eq!(request.bearer(), Some("1|s"));
        request.authorization = Some("Basic abc".into());
        assert_eq!(request.bearer(), None);
    }
}
